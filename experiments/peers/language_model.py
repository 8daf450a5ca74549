"""A causal language model in PyTorch, for comparison with ours: python language_model.py <what> <model folder> ...

- `oracle MODEL OUT.json`: what a test replays, in float32: last logits, summed losses, 20 steps of full training and 20 of LoRA.
- `adapter MODEL ADAPTER TOKENS.json` or `adapter MODEL TOKENS.json --merged FOLDER`: last logits of a model with an adapter loaded
  by peft, or of a merged model. TOKENS.json is a list of token sequences.
- `bench MODEL LENGTHS.json`: seconds a step and peak memory. LENGTHS.json is {"prompt": [..], "response": [..]}, tokens a row.
- `template MODEL ROWS.jsonl`: the token ids of the chat template, a line for each row {"messages": [..], "tools": [..]}.
- `train MODEL TRAIN.jsonl TEST.jsonl ...`: LoRA on rows {"prompt": .., "completion": ..}; the mean loss of a response token of each
  test file before and after.

The last line is JSON.

The oracle's recipe. Sequence k of 10 has LENGTHS[k] tokens, token i is (7 i i + 3 i + k) % 49152. A token is learned where i > 0 and
(i + k) % 4 > 0; its loss is the cross-entropy of the logits one position before. Step t trains on the sequences (4 t + j) % 10,
j < 4, each of them alone, without padding. The loss is the sum over the learned tokens of the batch by their number. AdamW, betas
0.9 and 0.999, epsilon 1e-8, decay 0.01 of matrices, not of norms; gradients clipped to norm 1; the rate rises over 2 of the 20
steps (the first has a rate of 0) and falls to 0. Losses and norms are those before a step. Full training at 2e-5 is of all weights,
the embedding shared with the head among them. LoRA at 2e-4: rank 16, alpha 32 (a factor of 2), no dropout, on the seven
projections of each layer, in the order q, k, v, o, gate, up, down; B begins with 0 and A with
sin(0.37 i + 0.11 j + 0.05 layer + 0.01 projection) / sqrt(inputs), worked out in 64 bits. `moved` are the last logits of the
sequences after the 20 steps.

Bench. Random tokens, rows padded on the right to the longest of the batch, as TRL collates them. Only responses have a loss, and the
head is applied to their positions alone. Kinds: `lora` and `full` are whole steps with clipping and fused AdamW; `gradient` is
forward and backward with LoRA; `forward` is the loss without gradients, of the model without LoRA. `float32`; `bfloat16` has float32
weights under autocast; `bfloat16-pure` has all weights in bfloat16. --no-mask leaves the attention mask out, which changes no
response as the padding is on the right and attention causal, and lets PyTorch take its causal kernel. One step before, on the
longest batch, is not measured.
"""

import argparse
import contextlib
import json
import math
import pathlib
import random
import resource
import statistics
import sys
import time

import peft
import torch
import transformers

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LENGTHS = [1, 2, 3, 5, 8, 13, 19, 26, 33, 40]
STEPS, BATCH, WARM_UP = 20, 4, 2
IGNORED = -100
DTYPES = ["float32", "bfloat16", "bfloat16-pure"]


def load(folder, dtype="float32"):
    """The model, without dropout."""
    weights = torch.bfloat16 if dtype == "bfloat16-pure" else torch.float32
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=weights, attn_implementation="sdpa").eval()


def with_lora(model, rank, alpha, float32=False):
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    # Adapters have the model's numbers, or 32 bits, which is peft's default.
    return peft.get_peft_model(model, config, autocast_adapter_dtype=float32)


def casts(dtype):
    return torch.autocast("cpu", torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()


def optimiser_of(model, rate, **more):
    """AdamW on what is trained; matrices decay, norms do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.dim() >= 2], "weight_decay": 0.01},
        {"params": [parameter for parameter in trained if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    return trained, torch.optim.AdamW([group for group in groups if group["params"]], lr=rate, betas=(0.9, 0.999), eps=1e-8, **more)


def summed_loss(model, input_ids, labels, attention_mask=None):
    """The summed loss of the tokens that have a label. The head is applied to the positions before them only."""
    base = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    hidden = base.model(input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
    targets = labels[:, 1:]
    learned = targets != IGNORED
    logits = base.lm_head(hidden[:, :-1][learned])
    return torch.nn.functional.cross_entropy(logits.float(), targets[learned], reduction="sum")


def collate(rows, pad):
    """Rows of tokens and of labels, padded on the right."""
    longest = max(len(tokens) for tokens, _ in rows)
    padded = lambda values, filler: torch.tensor([row + [filler] * (longest - len(row)) for row in values])
    return {
        "input_ids": padded([tokens for tokens, _ in rows], pad),
        "labels": padded([labels for _, labels in rows], IGNORED),
        "attention_mask": padded([[1] * len(tokens) for tokens, _ in rows], 0),
    }


def last_logits(model, sequences, first):
    found = []
    with torch.no_grad():
        for tokens in sequences:
            logits = model(input_ids=torch.tensor([tokens]), logits_to_keep=1).logits[0, -1].float()
            found.append({
                "logits": rounded(logits[:first].tolist()), "argmax": logits.argmax().item(),
                "log_sum_exp": rounded(logits.logsumexp(0).item()),
            })
    return found


def rounded(value):
    return [rounded(part) for part in value] if isinstance(value, list) else float(f"{value:.8g}")


def peak_bytes():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def note(text):
    print(text, file=sys.stderr, flush=True)


# Oracle


def oracle(options):
    sequences, learned = [], []
    for k, length in enumerate(LENGTHS):
        sequences.append([(7 * i * i + 3 * i + k) % 49152 for i in range(length)])
        learned.append([i > 0 and (i + k) % 4 > 0 for i in range(length)])
    rows = []
    for tokens, marks in zip(sequences, learned):
        labels = [token if mark else IGNORED for token, mark in zip(tokens, marks)]
        rows.append({"input_ids": torch.tensor([tokens]), "labels": torch.tensor([labels])})
    model = load(options.model)
    with torch.no_grad():
        losses = [summed_loss(model, **row).item() for row in rows]
    last = last_logits(model, sequences, 64)
    record = {
        "sequences": [
            {"tokens": tokens, "learned": marks, **logits, "loss_sum": rounded(loss)}
            for tokens, marks, logits, loss in zip(sequences, learned, last, losses)
        ],
    }
    lora = with_lora(model, 16, 32)
    set_factors(lora)
    record["lora"] = trained_steps(lora, 2e-4, rows, sequences)
    del model, lora
    record["full"] = trained_steps(load(options.model), 2e-5, rows, sequences)
    record["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return {"out": str(options.out), **{kind: record[kind]["losses"] for kind in ["full", "lora"]}, "peak_bytes": peak_bytes()}


def set_factors(model):
    """A of each projection by the formula above."""
    for index, layer in enumerate(model.get_base_model().model.layers):
        for number, name in enumerate(PROJECTIONS):
            part = layer.mlp if name in ["gate_proj", "up_proj", "down_proj"] else layer.self_attn
            weight = getattr(part, name).lora_A["default"].weight
            i, j = (torch.arange(size, dtype=torch.float64) for size in weight.shape)
            values = torch.sin(0.37 * i[:, None] + 0.11 * j + 0.05 * index + 0.01 * number) / math.sqrt(weight.shape[1])
            with torch.no_grad():
                weight.copy_(values)


def trained_steps(model, rate, rows, sequences):
    trained, optimiser = optimiser_of(model, rate)
    schedule = transformers.get_linear_schedule_with_warmup(optimiser, WARM_UP, STEPS)
    losses, norms, rates = [], [], []
    for step in range(STEPS):
        batch = [rows[(BATCH * step + j) % len(rows)] for j in range(BATCH)]
        number = sum((row["labels"] != IGNORED).sum().item() for row in batch)
        total = 0.0
        for row in batch:
            loss = summed_loss(model, **row) / number
            loss.backward()
            total += loss.item()
        losses.append(total)
        norms.append(torch.nn.utils.clip_grad_norm_(trained, 1.0).item())
        rates.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        note(f"step {step + 1}: loss {total:.5f}, norm {norms[-1]:.4f}")
    record = {"losses": losses, "grad_norms": norms, "rates": rates}
    return {**{key: rounded(values) for key, values in record.items()}, "moved": last_logits(model, sequences, 8)}


# Adapters and templates


def adapter(options):
    if (options.adapter is None) == (options.merged is None):
        raise SystemExit("adapter: either the folder of an adapter or --merged")
    model = load(options.merged or options.model)
    if options.adapter:
        model = peft.PeftModel.from_pretrained(model, options.adapter).eval()
    return last_logits(model, json.loads(options.tokens.read_text(encoding="utf-8")), 8)


def template(options):
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    for row in json_lines(options.rows):
        print(json.dumps(tokenizer.apply_chat_template(
            row["messages"], tools=row.get("tools"), add_generation_prompt=options.generation_prompt, tokenize=True,
        )))


def json_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


# Bench


def bench(options):
    lengths = json.loads(options.lengths.read_text(encoding="utf-8"))
    lengths = list(zip(lengths["prompt"], lengths["response"], strict=True))
    steps = options.steps or math.ceil(len(lengths) / options.batch)
    run = [lengths[k % len(lengths)] for k in range(steps * options.batch)] if options.steps else lengths
    if options.sorted:
        run = sorted(run, key=sum)
    model = load(options.model, options.dtype)
    tokens_in = model.config.vocab_size
    if options.kind in ["lora", "gradient"]:
        model = with_lora(model, options.rank, options.alpha)
    trained, optimiser = optimiser_of(model, 1e-5, fused=True)
    # Dropouts are 0; the mode is that of training all the same.
    model.train(options.kind != "forward")
    generator = torch.Generator().manual_seed(0)

    def row(prompt, response):
        tokens = torch.randint(tokens_in, (prompt + response,), generator=generator).tolist()
        return tokens, [IGNORED] * prompt + tokens[prompt:]

    batches = [
        collate([row(*pair) for pair in run[begin:begin + options.batch]], pad=0) for begin in range(0, len(run), options.batch)
    ]

    def step(batch):
        number = (batch["labels"][:, 1:] != IGNORED).sum()
        mask = None if options.no_mask else batch["attention_mask"]
        with torch.set_grad_enabled(options.kind != "forward"), casts(options.dtype):
            loss = summed_loss(model, batch["input_ids"], batch["labels"], mask) / number
        if options.kind != "forward":
            loss.backward()
        if options.kind in ["lora", "full"]:
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.item()

    loaded = peak_bytes()
    step(max(batches, key=lambda batch: batch["input_ids"].numel()))
    losses, seconds = [], []
    for batch in batches:
        began = time.perf_counter()
        losses.append(step(batch))
        seconds.append(time.perf_counter() - began)
        note(f"{tuple(batch['input_ids'].shape)}: {seconds[-1]:.3f} s, loss {losses[-1]:.4f}")
    real = sum(map(sum, run))
    return {
        "kind": options.kind, "dtype": options.dtype, "threads": options.threads, "batch": options.batch, "steps": len(seconds),
        "sorted": options.sorted, "mask": not options.no_mask, "seconds_per_step": statistics.median(seconds),
        "seconds": sum(seconds), "tokens": real, "padded_tokens": sum(batch["input_ids"].numel() for batch in batches),
        "tokens_per_second": real / sum(seconds), "loss": statistics.mean(losses), "loaded_bytes": loaded, "peak_bytes": peak_bytes(),
    }


# Training


def encoded(tokenizer, path, longest):
    """Tokens and labels of a file's rows, cut at the front: all that stands behind the prompt is learned, as TRL has it."""
    rows = []
    for row in json_lines(path):
        prompt = [{"role": "user", "content": row["prompt"]}]
        chat = [*prompt, {"role": "assistant", "content": row["completion"]}]
        begin = len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False))
        text = tokenizer.apply_chat_template(chat, tokenize=False)
        made = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        tokens = made["input_ids"]
        labels = [token if end > begin else IGNORED for token, (_, end) in zip(tokens, made["offset_mapping"])]
        rows.append((tokens[-longest:], labels[-longest:]))
    return rows


def learned_tokens(rows):
    return sum(label != IGNORED for _, labels in rows for label in labels[1:])


def test_loss(model, rows, pad, dtype):
    """The mean loss of a response token."""
    total, ordered = 0.0, sorted(rows, key=lambda row: len(row[0]))
    with torch.no_grad(), casts(dtype):
        for begin in range(0, len(ordered), 16):
            total += summed_loss(model, **collate(ordered[begin:begin + 16], pad)).item()
    return total / learned_tokens(rows)


def train(options):
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    pad = tokenizer.pad_token_id
    read = [encoded(tokenizer, path, options.max_length) for path in [options.train, *options.test]]
    rows, tests = [row for row in read[0] if learned_tokens([row])], dict(zip(map(str, options.test), read[1:]))
    torch.manual_seed(options.seed)
    model = with_lora(load(options.model, options.dtype), options.rank, options.alpha, float32=True)
    scored = lambda: {path: test_loss(model.eval(), test, pad, options.dtype) for path, test in tests.items()}
    before = scored()
    steps = options.epochs * math.ceil(len(rows) / options.batch)
    trained, optimiser = optimiser_of(model, options.rate, fused=True)
    schedule = transformers.get_linear_schedule_with_warmup(optimiser, math.ceil(steps / 10), steps)
    model.train()
    order, losses, began = random.Random(options.seed), [], time.perf_counter()
    for _ in range(options.epochs):
        shuffled = order.sample(rows, len(rows))
        for begin in range(0, len(rows), options.batch):
            batch = shuffled[begin:begin + options.batch]
            with casts(options.dtype):
                loss = summed_loss(model, **collate(batch, pad)) / learned_tokens(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            losses.append(loss.item())
            if len(losses) % 20 == 0:
                note(f"{len(losses)}/{steps} steps, {time.perf_counter() - began:.0f} s, loss {losses[-1]:.4f}")
    seconds, after = time.perf_counter() - began, scored()
    return {
        "rows": len(rows), "steps": steps, "seconds": seconds, "peak_bytes": peak_bytes(), "last_loss": losses[-1],
        "test": {
            path: {"rows": len(test), "tokens": learned_tokens(test), "before": before[path], "after": after[path]}
            for path, test in tests.items()
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True, metavar="what")

    def part(run, *paths, lora=False):
        made = parts.add_parser(run.__name__)
        made.set_defaults(run=run)
        made.add_argument("model", type=pathlib.Path, help="the folder of the model")
        for path in paths:
            made.add_argument(path, type=pathlib.Path)
        made.add_argument("--threads", type=int, default=2)
        if lora:
            made.add_argument("--dtype", choices=DTYPES, default="float32")
            made.add_argument("--batch", type=int, default=8)
            made.add_argument("--rank", type=int, default=16)
            made.add_argument("--alpha", type=int, default=32)
        return made

    part(oracle, "out")
    made = part(adapter)
    made.add_argument("adapter", type=pathlib.Path, nargs="?", help="the folder of the adapter")
    made.add_argument("tokens", type=pathlib.Path)
    made.add_argument("--merged", type=pathlib.Path, help="the folder of a merged model, in place of an adapter")
    part(template, "rows").add_argument("--generation-prompt", action="store_true", help="begin the assistant's turn at the end")
    made = part(bench, "lengths", lora=True)
    made.add_argument("--kind", choices=["lora", "full", "forward", "gradient"], default="lora")
    made.add_argument("--steps", type=int, help="as many as the rows make by default; rows are taken again if they do not suffice")
    made.add_argument("--sorted", action="store_true", help="batches of rows of like length")
    made.add_argument("--no-mask", action="store_true")
    made = part(train, "train", lora=True)
    made.add_argument("test", type=pathlib.Path, nargs="+")
    made.add_argument("--epochs", type=int, default=3)
    made.add_argument("--rate", type=float, default=2e-4)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--max-length", type=int, default=1024)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    result = options.run(options)
    if result is not None:
        print(json.dumps(result))


if __name__ == "__main__":
    main()

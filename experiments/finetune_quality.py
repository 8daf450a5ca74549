#!/usr/bin/env python3
"""Fine-tunes the same model on the same rows with tamis, in 32 bits or in bfloat16, and with PyTorch.

Measures  each engine's test accuracy, macro-F1 and seconds of training.
Needs     the data sets, all-MiniLM-L6-v2, the release build; torch, transformers and scikit-learn for the engine pytorch
          (experiments/peers/requirements.txt).
Prints    the tables of docs/results/fine-tuning.md.

    cargo build --release
    .venv/bin/python experiments/finetune_quality.py --data DATA --model MINILM --case banking77 hate_merged

Training rows are cut to a sample of --rows, the others to --eval-rows. PyTorch does what tamis does: AdamW, linear
warm-up over a tenth of the steps and linear decay, clipping, the configuration's dropout, a head of normal(0, 0.02) on
the checkpoint's pooler; what it has after the last epoch is scored. A second start goes on from the first.
"""

import json
import math
import os
import statistics
import time

import lib

CASES = ["banking77", "hate_merged"]


def tamis(options, files, seed, runner, *flags):
    record = runner.run(
        "finetune", *files.flags("train", "validation", "test"), "--model", options.model, "--epochs", options.epochs,
        "--batch-size", options.batch_size, "--learning-rate", options.learning_rate, "--max-length", options.max_length,
        "--seed", seed, "--threads", options.threads, *flags, record="metrics.json", drop=True,
    ).record
    if record is None:
        return None
    return {key: record["test"][key] for key in ["accuracy", "macro_f1"]} | {"seconds": record["train_seconds"]}


def tamis_bfloat16(options, files, seed, runner):
    return tamis(options, files, seed, runner, "--dtype", "bfloat16")


def kept_pytorch(options, files, seed, runner):
    """PyTorch's scores, which are kept as those of a `tamis` command are."""
    if options.print:
        return None
    key = [str(part) for part in [files.train[0], options.model, options.epochs, options.batch_size, options.learning_rate,
                                  options.max_length, options.threads, seed]]
    path = runner.out / "pytorch" / f"{lib.digest(json.dumps(key))}.json"
    return lib.kept(path, key, lambda: pytorch(options, files, seed, f"pytorch, {files.train[0].parent.name}, seed {seed}"))


def pytorch(options, files, seed, label):
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)

    def read(path):
        rows = [json.loads(line) for line in lib.lines_of(path)]
        encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=options.max_length)
        return encoded["input_ids"], [str(row["label"]) for row in rows]

    tokens, labels = read(files.train[0])
    names = sorted(set(labels))
    targets = torch.tensor([names.index(label) for label in labels])

    torch.manual_seed(seed)
    model = transformers.BertForSequenceClassification.from_pretrained(options.model, num_labels=len(names))
    torch.nn.init.normal_(model.classifier.weight, 0.0, 0.02)
    torch.nn.init.zeros_(model.classifier.bias)

    def logits_of(tokens):
        padded = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row) for row in tokens], batch_first=True, padding_value=tokenizer.pad_token_id
        )
        lengths = torch.tensor([len(row) for row in tokens])
        return model(padded, attention_mask=(torch.arange(padded.shape[1]) < lengths[:, None]).long()).logits

    seconds = train(model, logits_of, tokens, targets, options, label)
    return {**scores(model, logits_of, *read(files.test[0]), names), "seconds": seconds}


def train(model, logits_of, tokens, targets, options, label):
    """Trains the model in place; returns the seconds."""
    import torch
    import transformers

    decaying, plain = [], []
    for key, parameter in model.named_parameters():
        (plain if key.endswith("bias") or "LayerNorm" in key else decaying).append(parameter)
    groups = [{"params": decaying, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=options.learning_rate, fused=True)
    steps = options.epochs * math.ceil(len(tokens) / options.batch_size)
    schedule = transformers.get_linear_schedule_with_warmup(optimiser, math.ceil(steps / 10), steps)
    model.train()
    done, began = 0, time.perf_counter()
    for _ in range(options.epochs):
        for rows in torch.randperm(len(tokens)).split(options.batch_size):
            loss = torch.nn.functional.cross_entropy(logits_of([tokens[i] for i in rows]), targets[rows])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            done += 1
            if done % 20 == 0:
                elapsed = time.perf_counter() - began
                lib.note(f"{label}: {done}/{steps} steps, {elapsed:.0f} s, loss {loss.item():.4f}")
    return time.perf_counter() - began


def scores(model, logits_of, tokens, labels, names):
    """Accuracy and macro-F1 of the model on these rows."""
    import torch
    from sklearn.metrics import accuracy_score, f1_score

    model.eval()
    predicted = [None] * len(tokens)
    order = torch.tensor(sorted(range(len(tokens)), key=lambda i: -len(tokens[i])))
    with torch.inference_mode():
        for rows in order.split(64):
            for i, best in zip(rows.tolist(), logits_of([tokens[i] for i in rows]).argmax(1).tolist()):
                predicted[i] = names[best]
    f1 = f1_score(labels, predicted, labels=sorted(set(labels)), average="macro", zero_division=0)
    return {"accuracy": float(accuracy_score(labels, predicted)), "macro_f1": float(f1)}


ENGINES = {"tamis": tamis, "tamis-bfloat16": tamis_bfloat16, "pytorch": kept_pytorch}


def main():
    parser = lib.parser(__doc__, "finetune", CASES)
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=["tamis", "pytorch"])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--eval-rows", type=int, default=5_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    runner, rows = lib.Runner(options), []
    for name in options.case or CASES:
        files = lib.cut(lib.cases()[name], options, options.rows, options.eval_rows, options.eval_rows, how=lib.sampled)
        for engine in options.engine:
            found = [ENGINES[engine](options, files, seed, runner) for seed in range(options.seeds)]
            if options.print:
                continue
            columns = [lib.mean_sd([cell[key] for cell in found]) for key in ["accuracy", "macro_f1"]]
            seconds = statistics.mean(cell["seconds"] for cell in found)
            rows.append([name, len(lib.lines_of(files.train[0])), engine, *columns, f"{seconds:.0f}"])
    if rows:
        print(lib.table(["set", "rows", "engine", "accuracy", "macro-F1", "training, s"], rows))


if __name__ == "__main__":
    main()

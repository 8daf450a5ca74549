"""Seconds of a training step in PyTorch, in each of its settings: python finetune.py <model folder> <texts> [part ...].

The model is transformers' BertForSequenceClassification with 4 labels and the configuration's dropout; a step is
forward, backward, clipping and AdamW. Parts, all unless some are named:

- `16 x 64`: 16 sequences of 64 random tokens.
- `mixed`: 16 texts of the file (one a line), tokenized beforehand, at most 256 tokens, padded to the longest of the
  batch. Place k of the order is text (7919 k) % n.
- `16 x 64, top two`: as the first, with all but the top two layers and the head frozen; frozen layers have no dropout.
- `16 x 64, top two, rest given`: the same with the output of the frozen layers computed beforehand.
- `compiled`: the first three with torch.compile, if that comes to its first step within a minute.
- `memory`: the peak memory of a process that does the first part only, in bytes, and what it has once the model is
  loaded.

The last line is JSON: medians over steps after a warm-up, by part and setting; `best` is the least of a part.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time

import torch
import transformers

WARM_UP, STEPS, LABELS, BATCH = 3, 12, 4, 16
ATTENTION, ADAMW = ["sdpa", "eager"], ["foreach", "fused"]
SHAPES = ["16 x 64", "mixed", "16 x 64, top two"]
GIVEN = "16 x 64, top two, rest given"

folder, path, *parts = sys.argv[1:]


def batches(shape):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(BATCH) % LABELS
    if shape != "mixed":
        for _ in range(WARM_UP + STEPS):
            tokens = torch.randint(1000, 30000, (BATCH, 64), generator=generator)
            yield {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}
        return
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    for step in range(WARM_UP + STEPS):
        rows = [texts[7919 * k % len(texts)] for k in range(step * BATCH, (step + 1) * BATCH)]
        yield {**tokenizer(rows, padding=True, truncation=True, max_length=256, return_tensors="pt"), "labels": labels}


def load(attention, top=None):
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification.from_pretrained(
        folder, num_labels=LABELS, attn_implementation=attention
    ).train()
    if top is not None:
        for module in [model.bert.embeddings, *model.bert.encoder.layer[:-top]]:
            module.requires_grad_(False).eval()
    return model


def from_the_top_two(model):
    """The model's loss from the output of the other layers."""

    def loss_of(hidden, labels, **_):
        for layer in model.bert.encoder.layer[-2:]:
            hidden = layer(hidden)[0]
        logits = model.classifier(model.dropout(model.bert.pooler(hidden)))
        return torch.nn.functional.cross_entropy(logits, labels)

    return loss_of


def median_step(shape, attention, adamw, compiled=False, halved=False):
    model = load(attention, top=2 if "top two" in shape else None)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.01, **{adamw: True})
    inputs = list(batches(shape))
    loss_of = lambda **batch: model(**batch).loss
    if compiled:
        compiled_model = torch.compile(model, dynamic=shape == "mixed")
        loss_of = lambda **batch: compiled_model(**batch).loss
    if shape == GIVEN:
        loss_of = from_the_top_two(model)
        with torch.no_grad():
            for batch in inputs:
                batch["hidden"] = model.bert(batch["input_ids"], output_hidden_states=True).hidden_states[-3]
    seconds = []
    for batch in inputs:
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=halved):
            loss = loss_of(**batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - began)
        if len(seconds) == 1 and compiled:
            print("compiled", flush=True)
    median = statistics.median(seconds[WARM_UP:])
    name = f"{shape}: {'compiled, ' if compiled else ''}{'bfloat16, ' if halved else ''}{attention}, {adamw}"
    print(f"{name}: median {median:.3f} s, least {min(seconds):.3f} s", file=sys.stderr)
    return median


def part(shape):
    attentions = ATTENTION if shape != GIVEN else ATTENTION[:1]
    exact = {f"{attention}, {adamw}": median_step(shape, attention, adamw) for attention in attentions for adamw in ADAMW}
    halved = {f"bfloat16, {attention}, fused": median_step(shape, attention, "fused", halved=True) for attention in attentions}
    return {**exact, **halved}


def child(*arguments, first_line_within=None):
    """The last line of this program run anew, as JSON; it is killed if its first line takes too long."""
    process = subprocess.Popen([sys.executable, __file__, folder, path, *arguments], text=True, stdout=subprocess.PIPE)
    timer = threading.Timer(first_line_within or 3600, process.kill)
    timer.start()
    first = process.stdout.readline()
    timer.cancel()
    rest = process.communicate()[0]
    return json.loads((first + rest).splitlines()[-1]) if process.returncode == 0 else f"failed: exit status {process.returncode}"


def memory(attention, adamw):
    model = load(attention)
    loaded = status("VmRSS")
    del model
    median_step("16 x 64", attention, adamw)
    return {"peak": status("VmHWM"), "loaded": loaded}


def status(field):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


torch.set_num_threads(os.cpu_count())
if parts[:1] == ["--compiled"]:
    print(json.dumps(median_step(parts[1], "sdpa", "fused", compiled=True)))
elif parts[:1] == ["--memory"]:
    print(json.dumps(memory(*parts[1:])))
else:
    parts = parts or [*SHAPES, GIVEN, "compiled", "memory"]
    results = {shape: part(shape) for shape in [*SHAPES, GIVEN] if shape in parts}
    if "compiled" in parts:
        for shape in SHAPES:
            # A minute for the compiler, on top of what it takes to import and load.
            results.setdefault(shape, {})["compiled, sdpa, fused"] = child("--compiled", shape, first_line_within=75)
    for shape, settings in results.items():
        times = [value for value in settings.values() if isinstance(value, float)]
        settings["best"] = min(times) if times else None
    if "memory" in parts:
        results["memory"] = {f"sdpa, {adamw}": child("--memory", "sdpa", adamw) for adamw in ADAMW}
    print(json.dumps(results))

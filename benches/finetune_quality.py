#!/usr/bin/env python3
"""Fine-tunes the same model on the same rows with tamis and with PyTorch, and prints both engines' scores as a Markdown table.

    cargo build --release
    .venv/bin/python benches/finetune_quality.py --model <folder of all-MiniLM-L6-v2> --data <folder of data sets> \\
        --set banking77 --set hate_merged --out runs/finetune

A data set is a folder with train.jsonl, validation.jsonl and test.jsonl, of rows with `text` and `label`. Training rows are cut to a
sample of --rows, the others to --judge-rows. PyTorch does what tamis does: AdamW, linear warm-up over a tenth of the steps and linear
decay, clipping, the configuration's dropout, a head of normal(0, 0.02) on the checkpoint's pooler; what it has after the last epoch
is scored.

What is finished is kept in <out>/cells.json, and a second start goes on from there: remove the file when an engine has changed.
"""

import argparse
import json
import math
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import time

from built import program


def write(path, text):
    """To a temporary sibling, then renamed, so that a stopped run leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def cut(arguments, name):
    """The set's three files, each cut to a seeded sample in its order, and how many training rows there are."""
    files, rows = {}, 0
    for split, most in [("train", arguments.rows), ("validation", arguments.judge_rows), ("test", arguments.judge_rows)]:
        files[split] = arguments.data / name / f"{split}.jsonl"
        with open(files[split], encoding="utf-8") as file:
            lines = [line if line.endswith("\n") else line + "\n" for line in file if line.strip()]
        if len(lines) > most:
            chosen = sorted(random.Random(0).sample(range(len(lines)), most))
            lines = [lines[i] for i in chosen]
            files[split] = arguments.out / "data" / f"{name}-{split}-{most}.jsonl"
            write(files[split], "".join(lines))
        rows = rows or len(lines)
    return files, rows


def tamis(arguments, files, name, seed):
    out = arguments.out / "tamis" / name
    # What a stopped run left would be gone on with, and its seconds would be too few.
    shutil.rmtree(out, ignore_errors=True)
    command = [program(), "finetune", *(part for split, path in files.items() for part in [f"--{split}", path])]
    command += ["--model", arguments.model, "--epochs", arguments.epochs, "--batch", arguments.batch, "--rate", arguments.rate]
    command += ["--max-length", arguments.max_length, "--seed", seed, "--threads", arguments.threads, "--out", out]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    record = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return {key: record["test"][key] for key in ["accuracy", "macro_f1"]} | {"seconds": record["train_seconds"]}


def pytorch(arguments, files, name, seed):
    import torch
    import transformers
    from sklearn.metrics import accuracy_score, f1_score

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)

    def read(path):
        with open(path, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.strip()]
        texts = [row["text"] for row in rows]
        return tokenizer(texts, truncation=True, max_length=arguments.max_length)["input_ids"], [str(row["label"]) for row in rows]

    tokens, labels = read(files["train"])
    names = sorted(set(labels))
    targets = torch.tensor([names.index(label) for label in labels])

    torch.manual_seed(seed)
    model = transformers.BertForSequenceClassification.from_pretrained(arguments.model, num_labels=len(names))
    torch.nn.init.normal_(model.classifier.weight, 0.0, 0.02)
    torch.nn.init.zeros_(model.classifier.bias)
    decaying, plain = [], []
    for key, parameter in model.named_parameters():
        (plain if key.endswith("bias") or "LayerNorm" in key else decaying).append(parameter)
    groups = [{"params": decaying, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=arguments.rate, fused=True)
    per_epoch = math.ceil(len(tokens) / arguments.batch)
    steps = arguments.epochs * per_epoch
    schedule = transformers.get_linear_schedule_with_warmup(optimiser, math.ceil(steps / 10), steps)

    def logits_of(tokens):
        padded = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row) for row in tokens], batch_first=True, padding_value=tokenizer.pad_token_id
        )
        lengths = torch.tensor([len(row) for row in tokens])
        return model(padded, attention_mask=(torch.arange(padded.shape[1]) < lengths[:, None]).long()).logits

    model.train()
    done, began = 0, time.perf_counter()
    for epoch in range(arguments.epochs):
        for rows in torch.randperm(len(tokens)).split(arguments.batch):
            loss = torch.nn.functional.cross_entropy(logits_of([tokens[i] for i in rows]), targets[rows])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            done += 1
            if done % 20 == 0:
                elapsed = time.perf_counter() - began
                print(f"{name}: {done}/{steps} steps, {elapsed:.0f} s, loss {loss.item():.4f}", flush=True)
    seconds = time.perf_counter() - began

    model.eval()
    tokens, labels = read(files["test"])
    predicted = [None] * len(tokens)
    order = torch.tensor(sorted(range(len(tokens)), key=lambda i: -len(tokens[i])))
    with torch.inference_mode():
        for rows in order.split(64):
            for i, best in zip(rows.tolist(), logits_of([tokens[i] for i in rows]).argmax(1).tolist()):
                predicted[i] = names[best]
    f1 = f1_score(labels, predicted, labels=sorted(set(labels)), average="macro", zero_division=0)
    return {"accuracy": float(accuracy_score(labels, predicted)), "macro_f1": float(f1), "seconds": seconds}


def spread(values):
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} ± {deviation:.4f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="the folder of the data sets")
    parser.add_argument("--set", dest="sets", action="append", required=True, help="a data set's name; can be repeated")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/finetune"))
    parser.add_argument("--engine", choices=["tamis", "pytorch", "both"], default="both")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--judge-rows", type=int, default=5_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    engines = {"tamis": tamis, "pytorch": pytorch}
    if arguments.engine != "both":
        engines = {arguments.engine: engines[arguments.engine]}

    kept = arguments.out / "cells.json"
    cells = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    settings = f"{arguments.judge_rows}-{arguments.epochs}-{arguments.batch}-{arguments.rate}-{arguments.max_length}"
    lines = ["| set | rows | engine | accuracy | macro-F1 | training, s |", "|---|---|---|---|---|---|"]
    for set_name in arguments.sets:
        files, rows = cut(arguments, set_name)
        for engine, train in engines.items():
            found = []
            for seed in range(arguments.seeds):
                name = f"{set_name}-{rows}-{settings}/{seed}"
                key = f"{engine}/{arguments.model.resolve().name}/{name}"
                if key not in cells:
                    cells[key] = train(arguments, files, name, seed)
                    write(kept, json.dumps(cells, indent=1) + "\n")
                    print(key, cells[key], flush=True)
                found.append(cells[key])
            columns = [[cell[key] for cell in found] for key in ["accuracy", "macro_f1", "seconds"]]
            scores = f"{spread(columns[0])} | {spread(columns[1])} | {statistics.mean(columns[2]):.0f}"
            lines.append(f"| {set_name} | {rows} | {engine} | {scores} |")
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Fine-tunes a language model with LoRA on the same rows with tamis and with peft, and on labelled rows beside MiniLM.

Measures  the loss of a response token on five tasks before and after; accuracy and macro-F1 of texts as prompts.
Needs     the data sets, SmolLM2-135M-Instruct (experiments/smollm2.py), all-MiniLM-L6-v2, the release build; torch,
          transformers and peft (experiments/peers/requirements.txt).
Prints    the tables of language models in docs/results/fine-tuning.md.

    cargo build --release
    .venv/bin/python experiments/language_models.py --data DATA --model MINILM --language-model SMOLLM2

Each seed has its own random training rows, the same for both engines. PyTorch's model is in bfloat16 with adapters in 32
bits; tamis multiplies in bfloat16. Each scores its own. A second start goes on from the first.
"""

import json
import pathlib
import statistics
import subprocess
import sys

import lib

TASKS = ["gsm8k", "sciq", "alpaca", "code", "samsum"]
LABELLED = ["app_reviews_stars", "hate_merged"]
PEER = lib.ROOT / "experiments" / "peers" / "language_model.py"


def sample(path, most, seed, to):
    """So many random lines of a file, in its order, as a file."""
    lib.write_lines(to, lib.sampled(seed)(lib.lines_of(path), most))
    return to


def peer(options, *command):
    """What the PyTorch program says; each command runs once."""
    command = list(map(str, command))

    def made():
        lib.note(" ".join(command))
        return json.loads(subprocess.run([sys.executable, PEER, *command], check=True, text=True,
                                         stdout=subprocess.PIPE).stdout.splitlines()[-1])

    return lib.kept(options.out / "peer" / f"{lib.digest(json.dumps(command))}.json", command, made)


def responses(options, runner):
    """The table of prompts and responses."""
    folder, data = options.out / "data" / "instruct", options.data / "instruct"
    tests = [sample(data / task / "test.jsonl", options.test_rows, 0, folder / f"{task}.jsonl") for task in TASKS]
    validation = [sample(data / task / "validation.jsonl", 10, 0, folder / f"{task}-validation.jsonl") for task in TASKS]
    length = ["--max-length", options.max_length]
    found, before = {engine: [] for engine in options.engine}, {}
    for seed in range(options.seeds):
        rows = sample(data / "train.jsonl", options.rows, seed, folder / f"train-{seed}.jsonl")
        if "peft" in found:
            result = peer(options, "train", options.language_model, rows, *tests, *length, "--dtype", "bfloat16-pure",
                          "--epochs", options.epochs, "--rate", options.learning_rate, "--seed", seed)
            losses = {pathlib.Path(path).stem: loss for path, loss in result["test"].items()}
            before = {task: loss["before"] for task, loss in losses.items()}
            found["peft"].append({task: loss["after"] for task, loss in losses.items()})
        if "tamis" in found:
            run = runner.run(
                "finetune", "--train", rows, "--validation", *validation, "--test", *tests, "--model", options.language_model,
                "--epochs", options.epochs, "--learning-rate", options.learning_rate, "--batch-size", 8, *length,
                "--dtype", "bfloat16", "--seed", seed, record="metrics.json",
            )
            found["tamis"].append({task: scores["loss"] for task, scores in run.record["tests"].items()})
    lines = []
    if before:
        lines.append(["untrained", *(f"{before[task]:.4f}" for task in TASKS)])
    for engine, results in found.items():
        lines.append([engine, *(lib.mean_sd([losses[task] for losses in results]) for task in TASKS)])
    return lib.table(["", *TASKS], lines)


def labelled(options, runner):
    """The table of texts with labels."""
    lines = []
    for name in LABELLED:
        folder, data = options.out / "data" / name, options.data / name
        validation = sample(data / "validation.jsonl", 200, 0, folder / "validation.jsonl")
        test = sample(data / "test.jsonl", options.test_rows * len(TASKS), 0, folder / "test.jsonl")
        models = {
            "MiniLM": ["--model", options.model, "--epochs", 4, "--batch-size", 32, "--max-length", 128],
            "SmolLM2": ["--model", options.language_model, "--epochs", options.epochs, "--learning-rate",
                        options.learning_rate, "--batch-size", 8, "--max-length", 256, "--dtype", "bfloat16"],
        }
        for model, settings in models.items():
            records = []
            for seed in range(options.seeds):
                rows = sample(data / "train.jsonl", options.rows, seed, folder / f"train-{seed}.jsonl")
                records.append(runner.run("finetune", "--train", rows, "--validation", validation, "--test", test, *settings,
                                          "--seed", seed, record="metrics.json", drop=True).record)
            scores = [lib.mean_sd([record["test"][key] for record in records]) for key in ["accuracy", "macro_f1"]]
            seconds = statistics.mean(record["train_seconds"] for record in records)
            if model == "SmolLM2":
                untrained = records[0]["untrained"]
                lines.append([name, "SmolLM2, untrained", f"{untrained['accuracy']:.4f}", f"{untrained['macro_f1']:.4f}", ""])
            lines.append([name, model, *scores, f"{seconds:.0f}"])
    return lib.table(["set", "model", "accuracy", "macro-F1", "training, s"], lines)


def main():
    parser = lib.parser(__doc__, "language-models")
    parser.add_argument("--language-model", type=pathlib.Path, required=True, help="the folder of SmolLM2")
    parser.add_argument("--engine", nargs="+", choices=["peft", "tamis"], default=["peft", "tamis"])
    parser.add_argument("--table", nargs="+", choices=["responses", "labelled"], default=["responses", "labelled"])
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--test-rows", type=int, default=60, help="of each task; five times as many labelled ones")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    options = parser.parse_args()
    runner = lib.Runner(options)
    for table in options.table:
        print({"responses": responses, "labelled": labelled}[table](options, runner))


if __name__ == "__main__":
    main()

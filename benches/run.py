#!/usr/bin/env python3
"""Runs our benchmarks and the Python peers in the same go, and writes docs/benchmarks.md.

    python3 -m venv .venv && .venv/bin/pip install -r benches/peers/requirements.txt
    .venv/bin/python benches/run.py --minilm <folder of all-MiniLM-L6-v2> [--app-reviews <folder>] [--texts <file>]

The texts are 1,500 of `tamis demo` unless --texts names a file with one a line. With --app-reviews, the folder of a data set
with train.jsonl, validation.jsonl and test.jsonl, the seconds and memory of a whole selection are measured too. With --only SECTION
that section is measured and printed, and no file changed.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

from built import ROOT, program, target_folder

PEERS = ROOT / "benches" / "peers"


def cargo_bench(name, environment):
    output = subprocess.run(
        ["cargo", "bench", "-p", "tamis", "--bench", name], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    return output.stdout


def seconds_of(*names):
    path = target_folder().joinpath("criterion", *names, "new", "estimates.json")
    return json.loads(path.read_text())["median"]["point_estimate"] / 1e9


def peer(name, *arguments):
    command = [sys.executable, str(PEERS / name), *map(str, arguments)]
    output = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
    return json.loads(output.splitlines()[-1]) if output.strip() else None


def around(ours, theirs):
    """Our seconds by name and what the peers took. Ours are measured before and after theirs and the mean counts: a machine that others use
    too is not always as fast."""
    before, peers, after = ours(), theirs(), ours()
    return {name: (before[name] + after[name]) / 2 for name in before}, peers


def cpu():
    text = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.*)", text.read_text()) if text.exists() else None
    return found.group(1) if found else platform.processor()


def texts_of(arguments, scratch):
    """The file of texts, and how many there are."""
    texts = arguments.texts or scratch / "texts.txt"
    if arguments.texts is None and not texts.exists():
        subprocess.run(["cargo", "run", "--release", "--quiet", "--", "demo", "--out", scratch / "demo"], cwd=ROOT,
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rows = (scratch / "demo" / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()
        texts.write_text("\n".join(json.loads(row)["text"] for row in rows[:1500]), encoding="utf-8")
    return texts.resolve(), len(texts.read_text(encoding="utf-8").splitlines())


def probe(arguments, scratch):
    cargo_bench("probe", {"RAYON_NUM_THREADS": "1"})
    lines = ["## Probe", "", "One evaluation: add a chunk to the Gram matrix, factor, score 1,000 validation rows, soft metric; "
             "d = 384, four classes, one core.", "", "| metric | evaluations/s | aim |", "|---|---|---|"]
    for metric in ["soft accuracy", "soft macro-F1"]:
        rate = 1 / seconds_of("probe_" + metric)
        lines.append(f"| {metric} | {rate:.0f} | 1,500 |")
    return lines


def embedding(arguments, scratch):
    texts, count = texts_of(arguments, scratch)

    said = {}

    def measure():
        output = cargo_bench("encoder", {"TAMIS_MINILM": str(arguments.minilm), "TAMIS_BENCH_TEXTS": str(texts)})
        said["cosines"] = [float(number) for number in re.search(r"cosines ([\d.]+) ([\d.]+)", output).groups()]
        return {dtype: seconds_of("encoder", dtype) for dtype in ["float32", "int8"]}

    ours, theirs = around(measure, lambda: peer("embedding.py", arguments.minilm, texts))
    cosines = {"tamis int8": said["cosines"], **theirs.pop("cosines")}
    lines = ["## Embedding", "", f"all-MiniLM-L6-v2, {count} texts, all cores, tokenization included. A ratio above 1 means that "
             "tamis is faster in the same numbers.", "", "| | sentences/s | tamis is faster by |", "|---|---|---|"]
    lines += [f"| tamis {dtype} | {count / seconds:.0f} | |" for dtype, seconds in ours.items()]
    for name, seconds in theirs.items():
        same = ours["int8" if "int8" in name else "float32"]
        lines.append(f"| {name} a batch | {count / seconds:.0f} | {seconds / same:.2f} |")
    lines += ["", "Cosine of a vector in eight bits to its own in 32: " + "; ".join(
        f"{name} {mean:.4f} on average, at least {least:.4f}" for name, (least, mean) in cosines.items()) + "."]
    return lines


def fine_tuning(arguments, scratch):
    texts, _ = texts_of(arguments, scratch)

    def measure():
        output = cargo_bench("finetune", {"TAMIS_MINILM": str(arguments.minilm), "TAMIS_BENCH_TEXTS": str(texts)})
        peak = int(re.search(r"peak memory (\d+) kB", output).group(1)) * 1024
        return {"peak": peak, **{name: seconds_of("finetune", name) for name in ["16 x 64", "mixed", "16 x 64, top two"]}}

    ours, theirs = around(measure, lambda: peer("finetune.py", arguments.minilm, texts))
    peak = ours.pop("peak")
    lines = ["## Fine-tuning", "", "A training step of the whole of all-MiniLM-L6-v2, 16 rows, dropout 0.1, AdamW, all cores. \"mixed\": "
             "real texts, which PyTorch pads to the longest of the batch.", "",
             "| | ms | tamis is faster by |", "|---|---|---|"]
    for shape, settings in theirs.items():
        if shape == "memory":
            continue
        mine = ours.get(shape, ours["16 x 64, top two"] if "top two" in shape else None)
        if shape in ours:
            lines.append(f"| **{shape}**, tamis | {1000 * mine:.0f} | |")
        for name, seconds in settings.items():
            if isinstance(seconds, float) and name != "best":
                lines.append(f"| {shape}, PyTorch, {name} | {1000 * seconds:.0f} | {seconds / mine:.2f} |")
    return [*lines, "", f"With all layers but the top two frozen a step is {ours['16 x 64'] / ours['16 x 64, top two']:.1f} times faster "
            f"than a full one. Peak memory at 16 x 64: tamis {peak / 1e6:.0f} MB, "
            + ", ".join(f"PyTorch ({name}) {value['peak'] / 1e6:.0f} MB" for name, value in theirs["memory"].items()
                        if isinstance(value, dict)) + "."]


def k_means(arguments, scratch):
    points = scratch / "points.f32"
    peer("k_means.py", "make", points)
    output = cargo_bench("k_means", {"TAMIS_BENCH_POINTS": str(points)})
    inertia, passes = re.search(r"inertia ([\d.e+]+) after (\d+) passes", output).groups()
    ours = seconds_of("k-means", "100000x384, K = 200")
    lines = ["## k-means", "", "100,000 x 384, K = 200, all cores, the same points, at most 25 passes.", "",
             "| | seconds | inertia | inertia over ours | tamis is faster by |", "|---|---|---|---|---|",
             f"| tamis, {passes} passes | {ours:.1f} | {float(inertia):.0f} | 1 | |"]
    for name, (seconds, other) in peer("k_means.py", "run", points).items():
        lines.append(f"| {name} | {seconds:.1f} | {other:.0f} | {other / float(inertia):.4f} | {seconds / ours:.2f} |")
    return lines


def dqn(arguments, scratch):
    cargo_bench("dqn", {})
    ours = 1000 * seconds_of("dqn_training step")
    lines = ["## DQN", "", "A training step: 32 transitions, 200 actions, 128 looked-at rewards, double Q-learning, 32-64-64-2, "
             "Adam, target network.", "", "| | ms | tamis is faster by |", "|---|---|---|", f"| tamis | {ours:.2f} | |"]
    for name, value in peer("dqn_step.py").items():
        lines.append(f"| PyTorch, {name} | " + (f"{value:.2f} | {value / ours:.2f} |" if isinstance(value, float) else f"{value} | |"))
    return lines


def agents(arguments, scratch):
    """Our agents beside Stable-Baselines3's on the same coverage problems: means over seeds, each pair run one after the other."""
    steps, seeds = arguments.agents_rewards, arguments.agents_seeds
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "tamis", "--example", "coverage_agents"], cwd=ROOT, check=True)
    ours = target_folder() / "release" / "examples" / "coverage_agents"
    lines = ["## Agents", "", f"Weighted coverage, {steps} rewards seen by each agent (a step is one, an action tried in a lookahead too), "
             f"means over {seeds} seeds. The last return is that of the trained agent's greedy episode. What is the same for all and "
             "what is not stands in `benches/peers/agents.py`.", ""]
    for actions, picks in [(16, 5), (100, 20)]:
        runs, problem = {}, scratch / f"coverage_{actions}.json"
        for seed in range(seeds):
            output = subprocess.run([str(part) for part in [ours, actions, picks, steps, seed, problem]], check=True, text=True,
                                    stdout=subprocess.PIPE).stdout
            mine = json.loads(output.splitlines()[-1])
            for name, record in {**mine["agents"], **peer("agents.py", problem, steps, seed)}.items():
                runs.setdefault(name, []).append(record)
        means = {name: {key: sum(record[key] for record in records) / seeds for key in
                        ["training_steps", "seconds", "training_steps_per_second", "last_return", "best_return"]}
                 for name, records in runs.items()}
        first = next(iter(means.values()))["training_steps_per_second"]
        optimum = "not known" if mine["optimum"] is None else f"{mine['optimum']:.4f}"
        lines += [f"{actions} actions, {picks} picks; optimum {optimum}, greedy choice {mine['greedy']:.4f}.", "",
                  "| | training steps | seconds | training steps/s | the first is faster by | last return | best return |",
                  "|---|---|---|---|---|---|---|"]
        for name, mean in means.items():
            rate = mean["training_steps_per_second"]
            lines.append(f"| {name} | {mean['training_steps']:.0f} | {mean['seconds']:.1f} | {rate:.0f} | {first / rate:.1f} | "
                         f"{mean['last_return']:.4f} | {mean['best_return']:.4f} |")
        lines.append("")
    return lines[:-1]


def selection(arguments, scratch):
    out = scratch / "selection"
    splits = [part for name in ["train", "validation", "test"] for part in [f"--{name}", arguments.app_reviews / f"{name}.jsonl"]]
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
    command = [program(), "select", *splits, "--max-evaluations", "20000", "--out", out]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    record = json.loads((out / "selection.json").read_text())
    lines = ["## A whole selection", "", f"`tamis select` on app_reviews_stars ({record['data']['train']} training rows), lexical "
             f"embedder, dqn, {record['evaluations']} evaluations.", "", "| stage | seconds | peak memory, MB |", "|---|---|---|"]
    for stage in record["stages"]:
        lines.append(f"| {stage['name']} | {stage['seconds']:.1f} | {stage['peak_bytes'] / 1e6:.0f} |")
    return [*lines, f"| all | {sum(s['seconds'] for s in record['stages']):.1f} | "
            f"{max(s['peak_bytes'] for s in record['stages']) / 1e6:.0f} |"]


SECTIONS = {"probe": probe, "embedding": embedding, "fine-tuning": fine_tuning, "k-means": k_means, "dqn": dqn, "agents": agents,
            "selection": selection}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minilm", type=pathlib.Path)
    parser.add_argument("--only", action="append", choices=SECTIONS)
    parser.add_argument("--agents-rewards", type=int, default=10_000)
    parser.add_argument("--agents-seeds", type=int, default=3)
    parser.add_argument("--texts", type=pathlib.Path)
    parser.add_argument("--app-reviews", type=pathlib.Path)
    arguments = parser.parse_args()
    names = arguments.only or [name for name in SECTIONS if name != "selection" or arguments.app_reviews]
    if arguments.minilm is None and {"embedding", "fine-tuning"} & set(names):
        parser.error("--minilm is needed: the folder of all-MiniLM-L6-v2")
    if arguments.app_reviews is None and "selection" in names:
        parser.error("--app-reviews is needed: the folder of the data set")
    arguments.minilm = arguments.minilm and arguments.minilm.resolve()
    versions = {}
    for name in ["torch", "sentence-transformers", "onnxruntime", "faiss-cpu", "scikit-learn", "numpy", "stable-baselines3", "sb3-contrib",
                 "gymnasium"]:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if not arguments.only:
                raise
    rustc = subprocess.run(["rustc", "--version"], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
    lines = [
        "# Benchmarks", "",
        "Written by `benches/run.py`, which runs our benchmarks (criterion, medians) and the Python peers in the same go.", "",
        f"Machine: {cpu()}, {os.cpu_count()} cores. {rustc}; Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".", "",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            lines += [*SECTIONS[name](arguments, pathlib.Path(scratch)), ""]
    if not arguments.only:
        (ROOT / "docs" / "benchmarks.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Runs the criterion benchmarks and the Python peers in the same go.

Measures  the probe, embedding, fine-tuning, language models, k-means, DQN steps, agents beside Stable-Baselines3's, a whole selection.
Needs     experiments/peers/requirements.txt and all-MiniLM-L6-v2; for the section `selection` the data sets, too.
Prints    the tables of docs/results/benchmarks.md.

    python3 -m venv .venv && .venv/bin/pip install -r experiments/peers/requirements.txt
    .venv/bin/python experiments/benchmarks.py --model MINILM [--data DATA] [--texts FILE] [--only SECTION]

The texts are 1,500 of `tamis demo` unless --texts names a file with one a line. Ours are criterion's medians.
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

import lib

PEERS = lib.ROOT / "experiments" / "peers"
PACKAGES = ["torch", "sentence-transformers", "onnxruntime", "faiss-cpu", "scikit-learn", "numpy", "stable-baselines3",
            "sb3-contrib", "gymnasium"]


def output_of(*command, **more):
    command = [str(part) for part in command]
    return subprocess.run(command, cwd=lib.ROOT, check=True, text=True, stdout=subprocess.PIPE, **more).stdout


def cargo_bench(name, environment):
    return output_of("cargo", "bench", "-p", "tamis", "--bench", name, env={**os.environ, **environment})


def seconds_of(*names):
    path = lib.target_folder().joinpath("criterion", *names, "new", "estimates.json")
    return json.loads(path.read_text())["median"]["point_estimate"] / 1e9


def peer(name, *arguments):
    """The last line that a peer prints, as JSON; none where it prints nothing."""
    output = output_of(sys.executable, PEERS / name, *arguments)
    return json.loads(output.splitlines()[-1]) if output.strip() else None


def around(ours, theirs):
    """Our seconds by name, and what the peers took. Ours are measured before and after theirs and the mean counts: a
    machine that others use too is not always as fast."""
    before, peers, after = ours(), theirs(), ours()
    return {name: (before[name] + after[name]) / 2 for name in before}, peers


def cpu():
    text = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.*)", text.read_text()) if text.exists() else None
    return found.group(1) if found else platform.processor()


def texts_of(options, scratch):
    """The file of texts, and how many there are."""
    texts = options.texts or scratch / "texts.txt"
    if options.texts is None and not texts.exists():
        output_of("cargo", "run", "--release", "--quiet", "--", "demo", "--out", scratch / "demo", stderr=subprocess.DEVNULL)
        rows = (scratch / "demo" / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()
        texts.write_text("\n".join(json.loads(row)["text"] for row in rows[:1500]), encoding="utf-8")
    return texts.resolve(), len(texts.read_text(encoding="utf-8").splitlines())


def section(title, text, header, rows):
    return f"## {title}\n\n{text}\n\n{lib.table(header, rows)}"


def probe(options, scratch):
    classes = {"soft accuracy": 4, "soft macro-F1": 4, **{f"log loss, {k} classes": k for k in [77, 150, 1000]}}

    def measure():
        cargo_bench("probe", {"RAYON_NUM_THREADS": "1"})
        return {name: seconds_of(f"probe_{name}") for name in classes}

    ours, theirs = around(measure, lambda: peer("probe.py", *sorted(set(classes.values()))))
    rows = [[name, k, f"{1 / ours[name]:.0f}", f"{1 / theirs[str(k)]:.0f}", f"{theirs[str(k)] / ours[name]:.2f}"]
            for name, k in classes.items()]
    return section("Probe", "One evaluation: add a chunk to the Gram matrix, factor, solve, score 1,000 validation rows; d = 384, "
                   "one core. The same by numpy and scipy, which score by log loss.",
                   ["metric", "classes", "evaluations/s", "numpy", "tamis is faster by"], rows)


def embedding(options, scratch):
    texts, count = texts_of(options, scratch)
    said, work = {}, {}

    def measure():
        output = cargo_bench("encoder", {"TAMIS_MINILM": str(options.model), "TAMIS_BENCH_TEXTS": str(texts)})
        for dtype, *numbers in re.findall(r"cosines of (\w+) ([\d.]+) ([\d.]+)", output):
            said[f"tamis {dtype}"] = [float(number) for number in numbers]
        work.update({"work": float(re.search(r"work (\d+)", output).group(1)), **dict(re.findall(r"peak of (\w+) (\S+)", output))})
        return {dtype: seconds_of("encoder", dtype) for dtype in ["float32", "bfloat16", "int8"]}

    ours, theirs = around(measure, lambda: peer("embedding.py", options.model, texts))
    cosines = {**said, **theirs.pop("cosines")}
    rows = [[f"tamis {dtype}", f"{count / seconds:.0f}", ""] for dtype, seconds in ours.items()]
    for name, seconds in theirs.items():
        same = ours[next((dtype for dtype in ["int8", "bfloat16"] if dtype in name), "float32")]
        rows.append([f"{name} a batch", f"{count / seconds:.0f}", f"{seconds / same:.2f}"])
    text = (f"all-MiniLM-L6-v2, {count} texts, all cores, tokenization included. A ratio above 1 means that tamis is faster in "
            "the same numbers.")
    shares = [f"{dtype} {work['work'] / ours[dtype] / float(work[dtype]):.2f} of {float(work[dtype]) / 1e9:.0f} GFLOP/s"
              for dtype in ours if dtype in work]
    return section("Embedding", text, ["", "sentences/s", "tamis is faster by"], rows) + (
        "\n\nThe share of the processor's vector peak that linear layers alone would need: " + ", ".join(shares) + "."
        "\n\nCosine of a vector in 16 or eight bits to its own in 32: "
        + "; ".join(f"{name} {mean:.4f} on average, at least {least:.4f}" for name, (least, mean) in cosines.items()) + ".")


def fine_tuning(options, scratch):
    texts, _ = texts_of(options, scratch)

    def measure():
        output = cargo_bench("finetune", {"TAMIS_MINILM": str(options.model), "TAMIS_BENCH_TEXTS": str(texts)})
        peak = int(re.search(r"peak memory (\d+) kB", output).group(1)) * 1024
        return {"peak": peak, **{name: seconds_of("finetune", name) for name in names}}

    names = ["16 x 64", "16 x 64, bfloat16", "mixed", "mixed, bfloat16", "16 x 64, top two"]
    ours, theirs = around(measure, lambda: peer("finetune.py", options.model, texts))
    peak, memory, rows = ours.pop("peak"), theirs.pop("memory"), []
    for shape, settings in theirs.items():
        mine = ours.get(shape, ours["16 x 64, top two"] if "top two" in shape else None)
        halved = ours.get(f"{shape}, bfloat16", mine)
        rows += [[f"**{name}**, tamis", f"{1000 * ours[name]:.0f}", ""] for name in [shape, f"{shape}, bfloat16"] if name in ours]
        for name, seconds in settings.items():
            if isinstance(seconds, float) and name != "best":
                same = halved if "bfloat16" in name else mine
                rows.append([f"{shape}, PyTorch, {name}", f"{1000 * seconds:.0f}", f"{seconds / same:.2f}"])
    peaks = [f"PyTorch ({name}) {value['peak'] / 1e6:.0f} MB" for name, value in memory.items() if isinstance(value, dict)]
    text = ("A training step of the whole of all-MiniLM-L6-v2, 16 rows, dropout 0.1, AdamW, all cores. \"mixed\": real texts, "
            "which PyTorch pads to the longest of the batch.")
    return section("Fine-tuning", text, ["", "ms", "tamis is faster by"], rows) + (
        f"\n\nWith all layers but the top two frozen a step is {ours['16 x 64'] / ours['16 x 64, top two']:.1f} times faster "
        f"than a full one. Peak memory at 16 x 64: {', '.join([f'tamis {peak / 1e6:.0f} MB', *peaks])}.")


def language_model(options, scratch):
    rows = []
    for shape, steps in {"8 x 256": 3, "mixed": 8}.items():
        lengths = PEERS / f"lengths_{shape.replace(' ', '')}.json"

        def ours(dtype):
            return json.loads(output_of(
                "cargo", "run", "--release", "-q", "-p", "tamis-nn", "--example", "language_model_step", "--",
                options.language_model, lengths, "lora", dtype, 8, steps,
            ).splitlines()[-1])

        for dtype, settings in {"float32": ["float32"], "bfloat16": ["bfloat16", "bfloat16-pure"]}.items():
            mine = ours(dtype)
            rows.append([f"**{shape}, {dtype}**, tamis", f"{mine['tokens_per_second']:.0f}", f"{mine['peak_bytes'] / 1e9:.1f}", "", ""])
            for name in settings:
                other = peer("language_model.py", "bench", options.language_model, lengths, "--dtype", name, "--steps", steps,
                             "--no-mask")
                rows.append([f"{shape}, PyTorch, {name}", f"{other['tokens_per_second']:.0f}", f"{other['peak_bytes'] / 1e9:.1f}",
                             f"{mine['tokens_per_second'] / other['tokens_per_second']:.2f}",
                             f"{mine['peak_bytes'] / other['peak_bytes']:.2f}"])
    text = ("A LoRA step of SmolLM2-135M: rank 16 on all seven linear layers, 8 rows a batch, the loss on responses alone. "
            "\"mixed\": 64 rows of real lengths, up to 726 tokens, which PyTorch pads to the longest of the batch. `bfloat16` has "
            "float32 weights under autocast, `bfloat16-pure` none.")
    return section("Language models", text, ["", "tokens/s", "peak GB", "tamis is faster by", "its share of the memory"], rows)


def k_means(options, scratch):
    rows = []
    for count in [100_000, 1_000_000]:
        points = scratch / "points.f32"
        peer("k_means.py", "make", points, count)
        output = cargo_bench("k_means", {"TAMIS_BENCH_POINTS": str(points)})
        inertia, passes = re.search(r"inertia ([\d.e+]+) after (\d+) passes", output).groups()
        ours, inertia = seconds_of("k-means", str(count)), float(inertia)
        fitted = ", on 200,000 points" if count > 200_000 else ""
        rows.append([f"**{count:,} points**, tamis, {passes} passes{fitted}", f"{ours:.1f}", f"{inertia:.0f}", "1", ""])
        for name, (seconds, other) in peer("k_means.py", "run", points, count).items():
            rows.append([name, f"{seconds:.1f}", f"{other:.0f}", f"{other / inertia:.4f}", f"{seconds / ours:.2f}"])
    return section("k-means", "384 dimensions, K = 200, all cores, the same points, at most 25 passes, then every point to its nearest "
                   "centroid.",
                   ["", "seconds", "inertia", "inertia over ours", "tamis is faster by"], rows)


def dqn(options, scratch):
    cargo_bench("dqn", {})
    ours = 1000 * seconds_of("dqn_training step")
    rows = [["tamis", f"{ours:.2f}", ""]]
    for name, value in peer("dqn_step.py").items():
        shown = [f"{value:.2f}", f"{value / ours:.2f}"] if isinstance(value, float) else [value, ""]
        rows.append([f"PyTorch, {name}", *shown])
    text = ("A training step: 32 transitions, 200 actions, 128 looked-at rewards, double Q-learning, 32-64-64-2, Adam, target "
            "network.")
    return section("DQN", text, ["", "ms", "tamis is faster by"], rows)


def agents(options, scratch):
    """The agents beside Stable-Baselines3's on the same coverage problems: means over seeds, each pair one after the other."""
    steps, seeds = options.agents_rewards, options.agents_seeds
    output_of("cargo", "build", "--release", "--quiet", "-p", "tamis", "--example", "coverage_agents")
    ours = lib.target_folder() / "release" / "examples" / "coverage_agents"
    parts = [f"## Agents\n\nWeighted coverage, {steps} rewards seen by each agent (a step is one, an action tried in a lookahead "
             f"too), means over {seeds} seeds. The last return is that of the trained agent's greedy episode. What is the same for "
             "all and what is not stands in `experiments/peers/agents.py`."]
    for actions, picks in [(16, 5), (100, 20)]:
        runs, problem = {}, scratch / f"coverage_{actions}.json"
        for seed in range(seeds):
            mine = json.loads(output_of(ours, actions, picks, steps, seed, problem).splitlines()[-1])
            for name, record in {**mine["agents"], **peer("agents.py", problem, steps, seed)}.items():
                runs.setdefault(name, []).append(record)
        optimum = "not known" if mine["optimum"] is None else f"{mine['optimum']:.4f}"
        parts.append(f"{actions} actions, {picks} picks; optimum {optimum}, greedy choice {mine['greedy']:.4f}.")
        parts.append(agents_table(runs, seeds))
    return "\n\n".join(parts)


def agents_table(runs, seeds):
    keys = ["training_steps", "seconds", "training_steps_per_second", "last_return", "best_return"]
    means = {name: {key: sum(record[key] for record in records) / seeds for key in keys} for name, records in runs.items()}
    first = next(iter(means.values()))["training_steps_per_second"]
    rows = [[name, f"{mean['training_steps']:.0f}", f"{mean['seconds']:.1f}", f"{mean['training_steps_per_second']:.0f}",
             f"{first / mean['training_steps_per_second']:.1f}", f"{mean['last_return']:.4f}", f"{mean['best_return']:.4f}"]
            for name, mean in means.items()]
    header = ["", "training steps", "seconds", "training steps/s", "the first is faster by", "last return", "best return"]
    return lib.table(header, rows)


def selection(options, scratch):
    out, folder = scratch / "selection", options.data.resolve() / "app_reviews_stars"
    splits = [part for split in lib.SPLITS for part in [f"--{split}", folder / f"{split}.jsonl"]]
    output_of("cargo", "build", "--release", "--quiet")
    program = lib.target_folder() / "release" / "tamis"
    output_of(program, "select", *splits, "--out", out, stderr=subprocess.DEVNULL)
    record = json.loads((out / "selection.json").read_text())
    shown = [stage for stage in record["stages"] if stage["seconds"] >= 0.05]
    rows = [[stage["name"], f"{stage['seconds']:.1f}", f"{stage['peak_bytes'] / 1e6:.0f}"] for stage in shown]
    rows.append(["all", f"{sum(stage['seconds'] for stage in record['stages']):.1f}",
                 f"{max(stage['peak_bytes'] for stage in record['stages']) / 1e6:.0f}"])
    text = f"app_reviews_stars, {record['data']['train']} training rows, 5%, the defaults; stages of at least 0.05 seconds."
    return section("A real set", text, ["stage", "seconds", "peak memory, MB"], rows)


SECTIONS = {"probe": probe, "embedding": embedding, "fine-tuning": fine_tuning, "language-model": language_model,
            "k-means": k_means, "dqn": dqn, "agents": agents, "selection": selection}


def versions(strict):
    for name in PACKAGES:
        try:
            yield f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            if strict:
                raise


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, help="the folder of all-MiniLM-L6-v2")
    parser.add_argument("--language-model", type=pathlib.Path, help="the folder of SmolLM2-135M; without it none is measured")
    parser.add_argument("--data", type=pathlib.Path, help="the data sets; without it no whole selection is measured")
    parser.add_argument("--only", action="append", choices=SECTIONS)
    parser.add_argument("--agents-rewards", type=int, default=10_000)
    parser.add_argument("--agents-seeds", type=int, default=3)
    parser.add_argument("--texts", type=pathlib.Path)
    options = parser.parse_args()
    needs = {"selection": options.data, "language-model": options.language_model}
    names = options.only or [name for name in SECTIONS if needs.get(name, True)]
    if options.model is None and {"embedding", "fine-tuning"} & set(names):
        parser.error("--model is needed: the folder of all-MiniLM-L6-v2")
    if options.data is None and "selection" in names:
        parser.error("--data is needed: the folder of the data sets")
    if options.language_model is None and "language-model" in names:
        parser.error("--language-model is needed: the folder of SmolLM2-135M")
    options.model = options.model and options.model.resolve()
    options.language_model = options.language_model and options.language_model.resolve()
    found = ", ".join(versions(strict=not options.only))
    print("# Benchmarks\n\nPrinted by `experiments/benchmarks.py`, which runs our benchmarks (criterion, medians) and the Python "
          f"peers in the same go.\n\nMachine: {cpu()}, {os.cpu_count()} cores. {output_of('rustc', '--version').strip()}; "
          f"Python {platform.python_version()}{found and ', ' + found}.\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            print(SECTIONS[name](options, pathlib.Path(scratch)) + "\n", flush=True)


if __name__ == "__main__":
    main()

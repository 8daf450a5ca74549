#!/usr/bin/env python3
"""Runs `tamis study` over data sets: every method beside every other, with paired tests against random rows.

Measures  the probe's test scores of each method's choices (with `-- --rerank finetune` the fine-tuned target's).
Needs     the data sets, all-MiniLM-L6-v2, the release build; with --peers also experiments/peers/requirements.txt.
Prints    the tables of docs/results/studies.md.

    cargo build --release
    python3 experiments/studies.py --data DATA --model MINILM [--case hate_merged ...] [--rows 20000] [-- FLAGS]
    python3 experiments/studies.py --data DATA --model MINILM --peers [-- FLAGS]

What stands behind `--` goes to `tamis study` as it is, such as `-- --seeds 3 --budgets 1%,5%`. Studies go on where they
ended. With --rows sets are cut to so many training rows, and to --eval-rows rows in each of validation and test. With
--peers other programs' selections are judged beside ours: sets are cut to 20,000 rows if nothing else is said, and every
program gets the same vectors, those of sentence-transformers.
"""

import json
import shlex
import subprocess
import sys

import lib

CASES = ["banking77", "mmlu_aux", "app_reviews_stars", "nli_merged", "hate_merged"]
PEER_CASES = ["banking77", "app_reviews_stars", "hate_merged"]
PEERS = ["dsir", "apricot", "cleanlab"]
PEER_ROWS = 20_000


def study(case, files, embedder, flags, options, runner, folder="."):
    """Runs a study, prints its tables, and returns its record."""
    out = options.out / folder / case.name
    # Status 1 says that cells failed, and the table which.
    record = runner.resume(
        out, "study", *files.flags("train", "validation", "test"), *files.extra, "--metric", case.metric, "--embedder", embedder,
        "--cache", options.out / "cache", *flags, record="study.json", statuses=(0, 1),
    ).record
    if record:
        print(f"#### {case.name}\n\n" + (out / "study.md").read_text(encoding="utf-8").replace("### ", "##### "), flush=True)
    return record


def summary(studies):
    """All studies side by side: the first test file's scores, and * where the paired test against random rows, adjusted,
    is below .05."""
    for budgets in zip(*(record["budgets"] for record in studies.values())):
        lines = {name: {line["method"]: line for line in record["methods"] if line["budget"] == budget}
                 for (name, record), budget in zip(studies.items(), budgets)}
        methods = dict.fromkeys(method for of in lines.values() for method in of)
        header = ["method", *(f"{name}, {budget}" for name, budget in zip(studies, budgets))]
        rows = [[method, *(shown(of.get(method)) for of in lines.values())] for method in methods]
        print(f"#### Side by side\n\n{lib.table(header, rows)}\n")


def shown(line):
    if not line or not line["scores"]:
        return "failed" if line else ""
    # Scores are those of the confirm fold, then of each test file.
    column = min(1, len(line["scores"]) - 1)
    score, gains = line["scores"][column], line["gains"]
    sure = gains and gains[column].get("adjusted", 1) < 0.05
    mark = "" if not sure else "*" if gains[column]["mean"] > 0 else " (worse*)"
    return f"{score['mean']:.4f} ± {score['sd']:.4f}{mark}"


def vectors_of(folder, options):
    """The file of sentence-transformers' vectors of a folder's rows."""
    path = folder / "vectors.npy"
    if not path.exists() and not options.print:
        import numpy
        from sentence_transformers import SentenceTransformer

        texts = [json.loads(line)["text"] for split in lib.SPLITS for line in lib.lines_of(folder / f"{split}.jsonl")]
        model = SentenceTransformer(str(options.model), device="cpu")
        numpy.save(path, model.encode(texts, batch_size=32, normalize_embeddings=True))
    return path


def peer_lines(peer, folder, vectors, budget, out, options):
    """What a peer printed of its choices for five seeds."""
    script = lib.ROOT / "experiments" / "peers" / "selection.py"
    command = [sys.executable, script, peer, folder, vectors, "--budget", budget, "--seeds", "0,1,2,3,4", "--out", out]
    command = [str(part) for part in command]
    if options.print:
        print(shlex.join(command))
        return []
    output = lambda: subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return [json.loads(line) for line in lib.kept(out / f"{peer}.json", command, output)]


def with_peers(case, flags, options, runner):
    """A study with the peers' selections; prints what these took, too."""
    files = lib.cut(case, options, options.rows or PEER_ROWS, options.eval_rows, options.eval_rows)
    folder, rows = files.train[0].parent, len(lib.lines_of(files.train[0]))
    vectors, budget, name = vectors_of(folder, options), round(rows * 0.05), f"{rows}-{options.eval_rows}"
    out = options.out / "peers" / f"{case.name}-{name}"
    found = {peer: peer_lines(peer, folder, vectors, budget, out, options) for peer in PEERS}
    given = [part for peer in PEERS for part in ["--selection", f"{peer}={out}/{peer}-{{seed}}.txt"]]
    record = study(case, files, vectors, ["--budget", budget, *given, *flags], options, runner, f"with-peers-{name}")
    if record:
        table = [[peer, f"{sum(line['seconds'] for line in lines) / len(lines):.1f}",
                  f"{max(line['peak_bytes'] for line in lines) / 1e6:.0f}", lines[0]["note"]] for peer, lines in found.items()]
        print(lib.table(["program", "seconds", "peak memory, MB", ""], table) + "\n")
    return record


def main():
    own, flags = sys.argv[1:], []
    if "--" in own:
        own, flags = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = lib.parser(__doc__, "studies", CASES)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--rows", type=int, help="training rows, at most; whole sets by default")
    parser.add_argument("--eval-rows", type=int, default=4000,
                        help="with --rows: rows of validation and of each test file, at most")
    options = parser.parse_args(own)
    runner = lib.Runner(options)
    studies = {}
    for name in options.case or (PEER_CASES if options.peers else CASES):
        case = lib.cases()[name]
        if options.peers:
            studies[name] = with_peers(case, flags, options, runner)
        else:
            sizes = [options.rows, options.eval_rows, options.eval_rows]
            files = lib.cut(case, options, *sizes) if options.rows else lib.whole(case, options)
            studies[name] = study(case, files, options.model, flags, options, runner)
    if not options.print:
        summary(studies)


if __name__ == "__main__":
    main()

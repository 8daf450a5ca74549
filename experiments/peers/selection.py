#!/usr/bin/env python3
"""Rows chosen by other programs, for `tamis study --selection NAME=FILE`; and how far tamis's rules agree with theirs.

    python selection.py PEER DATA VECTORS --budget ROWS --seeds 0,1,2 --out FOLDER      PEER: dsir, apricot or cleanlab
    python selection.py agree DATA VECTORS --budget ROWS                                on the first 10,000 training rows

DATA is a folder with train.jsonl, validation.jsonl and test.jsonl, rows with `text` (or `premise` and `hypothesis`) and
`label`. VECTORS is what `tamis select --embedder` reads: an array with one vector a line of train, then validation, then
test. A peer writes FOLDER/PEER-SEED.txt, the lines of train.jsonl that it chose, counted from 1. It prints a JSON line a
seed: seconds, the peak memory of the process so far, and a note on how it was run. Training rows whose text also stands
in validation or test are left out, as tamis does. `agree` builds the example `heuristics`; set CARGO_TARGET_DIR to build
it elsewhere.
"""

import argparse
import contextlib
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy

MOST_FOR_APRICOT, SAMPLE = 20_000, 10_000


class Data:
    def __init__(self, folder, vectors):
        rows = {split: [json.loads(line) for line in open(folder / f"{split}.jsonl", encoding="utf-8")]
                for split in ["train", "validation", "test"]}
        self.texts = {split: [text_of(row) for row in rows[split]] for split in rows}
        seen = set(self.texts["validation"]) | set(self.texts["test"])
        self.pool = numpy.array([i for i, text in enumerate(self.texts["train"]) if text not in seen])
        self.labels = numpy.array([str(row["label"]) for row in rows["train"]])
        array = numpy.load(vectors).astype(numpy.float32)
        if array.ndim != 2 or len(array) != sum(map(len, rows.values())):
            sys.exit(f"{vectors}: expected one vector for each of {sum(map(len, rows.values()))} rows, found shape {array.shape}")
        self.vectors = array / numpy.maximum(numpy.linalg.norm(array, axis=1, keepdims=True), 1e-30)


def text_of(row):
    return row["text"] if "text" in row else f"{row['premise']} {row['hypothesis']}"


def dsir(data, rows, seed):
    with weighted(data.texts, data.pool) as (engine, scratch):
        numpy.random.seed(seed)
        engine.resample(f"{scratch}/chosen", rows, cache_dir=f"{scratch}/shards")
        lines = pathlib.Path(scratch, "chosen", "0.jsonl").read_text(encoding="utf-8").splitlines()
    said = "towards the whole validation file, not the reward fold alone; no row is too short (min_example_length=0)"
    return numpy.array([json.loads(line)["row"] for line in lines]), said


@contextlib.contextmanager
def weighted(texts, pool):
    """HashedNgramDSIR with the weights of these training rows, and its folder."""
    from data_selection import HashedNgramDSIR

    with tempfile.TemporaryDirectory() as scratch:
        raw, target = f"{scratch}/raw.jsonl", f"{scratch}/target.jsonl"
        with open(raw, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": texts["train"][i], "row": int(i)}) + "\n" for i in pool)
        with open(target, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts["validation"])
        # One process: several would deal the rows out among them.
        engine = HashedNgramDSIR([raw], [target], cache_dir=f"{scratch}/cache", num_proc=1, min_example_length=0)
        engine.fit_importance_estimator()
        engine.compute_importance_weights()
        yield engine, scratch


def apricot(data, rows, seed):
    from apricot import FacilityLocationSelection

    pool, said = data.pool, "the whole pool"
    if len(pool) > MOST_FOR_APRICOT:
        pool = numpy.sort(numpy.random.default_rng(seed).choice(pool, max(SAMPLE, rows), replace=False))
        matrix = f"{len(data.pool)} x {len(data.pool)}"
        said = f"on a random sample of {len(pool)} rows of the pool: its matrix of {matrix} does not fit"
    # Its own metric "cosine" is 1 - cos², a distance: it would choose for dissimilarity.
    engine = FacilityLocationSelection(rows, metric="precomputed", optimizer="lazy")
    engine.fit(similarities(data.vectors[pool]))
    return pool[engine.ranking], said


def similarities(vectors):
    return numpy.maximum(vectors @ vectors.T, 0).astype(numpy.float64)


def cleanlab(data, rows, seed):
    from cleanlab.filter import find_label_issues
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    labels = numpy.unique(data.labels[data.pool], return_inverse=True)[1]
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    vectors = data.vectors[data.pool]
    probabilities = cross_val_predict(LogisticRegression(max_iter=1000), vectors, labels, cv=folds, method="predict_proba")
    issues = find_label_issues(labels, probabilities, n_jobs=1)
    clean = data.pool[~issues]
    chosen = numpy.random.default_rng(seed).choice(clean, min(rows, len(clean)), replace=False)
    return chosen, f"{issues.sum()} of {len(issues)} rows dropped, then random ones"


def choose(data, arguments):
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in map(int, arguments.seeds.split(",")):
        began = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            chosen, said = PEERS[arguments.peer](data, arguments.budget, seed)
        seconds = time.perf_counter() - began
        lines = "".join(f"{row + 1}\n" for row in numpy.sort(chosen))
        (arguments.out / f"{arguments.peer}-{seed}.txt").write_text(lines, encoding="utf-8")
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"peer": arguments.peer, "seed": seed, "rows": len(chosen), "seconds": seconds, "peak_bytes": peak,
                          "note": said}), flush=True)


def agree(data, arguments):
    from apricot import FacilityLocationSelection
    from scipy.stats import pearsonr, spearmanr

    rows = min(SAMPLE, len(data.texts["train"]))
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        for split, most in [("train", rows), ("validation", None)]:
            # No rule that is compared looks at labels.
            lines = [json.dumps({"text": text, "label": i % 2}) for i, text in enumerate(data.texts[split][:most])]
            (scratch / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        train, validation = len(data.texts["train"]), len(data.texts["validation"])
        own = numpy.concatenate([data.vectors[:rows], data.vectors[train : train + validation]])
        numpy.save(scratch / "vectors.npy", own)
        command = [heuristics(), scratch / "train.jsonl", scratch / "validation.jsonl", scratch / "vectors.npy",
                   arguments.budget, scratch, "facility-location"]
        subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr)
        ours = numpy.loadtxt(scratch / "importance.txt")
        picks = numpy.loadtxt(scratch / "facility-location.txt", dtype=int)
    with contextlib.redirect_stdout(sys.stderr), weighted(data.texts, range(rows)) as (_, folder):
        theirs = numpy.load(f"{folder}/cache/log_importance_weights/0.npy")
    matrix = similarities(data.vectors[:rows])
    # Its lazy optimizer passes over rows that add most now and then; its naive one does not, and takes minutes.
    ranking = {name: FacilityLocationSelection(arguments.budget, metric="precomputed", optimizer=name).fit(matrix).ranking
               for name in ["naive", "lazy"]}
    value = {name: matrix[chosen].max(axis=0).sum() for name, chosen in [("ours", picks), *ranking.items()]}
    print(json.dumps({
        "rows": rows, "pearson": pearsonr(ours, theirs).statistic, "spearman": spearmanr(ours, theirs).statistic,
        "largest difference of a log weight": numpy.abs(ours - theirs).max(),
        **{f"facility location, ours / apricot's {name}": value["ours"] / value[name] for name in ranking},
        **{f"rows in common with apricot's {name}": len(set(picks) & set(ranking[name])) / len(picks) for name in ranking},
    }))


def heuristics():
    """The example `heuristics` of tamis, built."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    import lib

    command = ["cargo", "build", "--release", "--quiet", "-p", "tamis", "--example", "heuristics"]
    subprocess.run(command, cwd=lib.ROOT, check=True)
    return lib.target_folder() / "release" / "examples" / "heuristics"


PEERS = {"dsir": dsir, "apricot": apricot, "cleanlab": cleanlab}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=[*PEERS, "agree"])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("vectors", type=pathlib.Path)
    parser.add_argument("--budget", type=int, required=True, help="rows to choose")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("selections"))
    arguments = parser.parse_args()
    data = Data(arguments.data, arguments.vectors)
    agree(data, arguments) if arguments.peer == "agree" else choose(data, arguments)

#!/usr/bin/env python3
"""Chooses among prompts with responses for several tasks: how well rewards rank, and what choices teach a language model.

Measures  the rank correlation of every reward with LoRA fine-tunes; the test loss after LoRA fine-tunes on what tamis,
          rules and chance choose, and on everything; the share of rows with an ill among what tamis chooses.
Needs     the set `instruct`, SmolLM2-135M-Instruct (experiments/smollm2.py), the release build.
Prints    the tables of docs/results/responses.md.

    cargo build --release
    python3 experiments/responses.py --data DATA --language-model SMOLLM2 [--table agreement] [--task gsm8k sciq]

The pool is --rows random rows of the set. Fine-tunes are LoRA with the defaults, --epochs epochs in batches of 8. The
language model's pass over the pool is kept and serves all tasks, so that only the first command pays for it. A second
start goes on from the first.
"""

import json
import pathlib

import lib

TASKS = ["gsm8k", "sciq", "alpaca", "code", "samsum"]
RULES = ["similarity", "less", "gist"]


def rows(options, name):
    """A file of the set, cut to the rows that are used."""
    path = options.out / "data" / f"{options.rows}-{options.test_rows}" / name
    if not path.exists():
        most = options.rows if name == "train.jsonl" else options.test_rows
        lib.write_lines(path, lib.sampled()(lib.lines_of(options.data / "instruct" / name), most))
    return path


def files(options, task):
    """Training, validation and test rows of a task, the model and where its pass over the rows is kept, as flags."""
    return [
        "--train", rows(options, "train.jsonl"), "--validation", rows(options, f"{task}/validation.jsonl"),
        "--test", rows(options, f"{task}/test.jsonl"),
        "--model", options.language_model, "--cache", options.out / "gradients",
    ]


def config(options, runner):
    text = f"[finetune.train]\nepochs = {options.epochs}\nbatch_size = 8\nmax_length = {options.max_length}\n"
    return runner.config(text if options.dtype == "float32" else f'{text}dtype = "{options.dtype}"\n')


def agreement(options, runner):
    """How every reward ranks selections, a column a task."""
    columns, picks = {}, {}
    for task in options.task:
        record = runner.run(
            "check", "proxy", *files(options, task), *config(options, runner), "--budget", options.check_rows,
            "--selections", options.selections, "--repeats", 1, "--target-rows", options.test_rows, "--skip-finetunes",
            "--max-evaluations", options.max_evaluations, record="check_proxy.json",
        ).record
        if record is None:
            continue
        found = {reward["model"]: reward for reward in record["rewards"]}
        columns[task] = {name: interval(reward) for name, reward in found.items()}
        picks[task] = losses_by_kind(record["selections"])
        lib.note(f"{task}: {len(record['selections'])} selections, {record['target_seconds']:.0f} core-seconds a fine-tune; "
                 + ", ".join(f"{name} {reward['seconds'] * 1000:.1f} ms" for name, reward in found.items()))
    if options.print:
        return ""
    return "\n\n".join([side_by_side("ranked by", columns), side_by_side("test loss after", picks)])


def side_by_side(corner, columns):
    """A table of dictionaries, a column each; lines are their keys, in the order of the first."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    return lib.table([corner, *columns], [[name, *(column.get(name, "") for column in columns.values())] for name in names])


def losses_by_kind(selections):
    """The test loss of the fine-tuned model by how a selection was made; rows of drawn ones together."""
    kinds = {}
    for selection in selections:
        kind = "noisy" if selection["kind"].endswith("noisy") else selection["kind"]
        kinds.setdefault(kind, []).append(-selection["target"])
    return {kind: lib.mean_sd(losses) for kind, losses in kinds.items()}


def interval(reward):
    """Spearman's rank correlation with its interval."""
    spearman = reward["agreement"]["spearman"]
    low, high = (f"{spearman[end]:.2f}" for end in ["low", "high"])
    return f"{spearman['value']:.2f} ({low} to {high})"


def study(options, runner, task):
    """The study of a task: what every method chooses, and the loss of a fine-tune on it."""
    return runner.run(
        "study", *files(options, task), *config(options, runner), "--methods", ",".join(methods(options)),
        "--budgets", options.budget, "--seeds", options.seeds, "--rerank", "finetune", "--eval-rows", options.test_rows,
        "--max-evaluations", options.max_evaluations, record="study.json",
    )


def methods(options):
    return [*RULES, options.agent]


def finetune(options, runner, *flags):
    """The record of a fine-tune with the settings of `config`."""
    return runner.run(
        "finetune", *flags, "--model", options.language_model, "--epochs", options.epochs, "--batch-size", 8,
        "--max-length", options.max_length, "--dtype", options.dtype, record="metrics.json",
    ).record


def whichever_task(options, runner, *flags):
    """The loss by task of one fine-tune on rows that are chosen for none of them."""
    tests = [rows(options, f"{task}/test.jsonl") for task in TASKS]
    record = finetune(options, runner, "--train", rows(options, "train.jsonl"), "--test", *tests,
                      "--validation", rows(options, f"{TASKS[0]}/validation.jsonl"), *flags)
    if record is None:
        return dict.fromkeys(TASKS)
    lib.note(f"{' '.join(map(str, flags)) or 'everything'}: {record['train_seconds']:.0f} seconds of training")
    return {task: record["tests"][f"{task}/test"]["log_loss"] for task in TASKS}


def reranked(options, runner, task):
    """What `select` chooses for each seed, where fine-tunes decide: the loss of a fine-tune on it."""
    losses = []
    for seed in range(options.seeds):
        run = runner.run(
            "select", *files(options, task), *config(options, runner), "--budget", options.budget, "--seed", seed,
            "--agent", options.agent, "--max-evaluations", options.max_evaluations,
            record="selection.json",
        )
        record = finetune(options, runner, "--selection", run.folder, "--seed", seed)
        if record is not None:
            losses.append(record["test"]["log_loss"])
            finetuned, decided = run.record["scores"]["finetuned"], run.record.get("portfolio")
            chosen = decided["entrants"][decided["chosen"]]["name"] if decided else options.agent
            lib.note(f"{task}, seed {seed}: chosen {chosen}; entrants {finetuned['finalists']}, random rows {finetuned['random']}")
    return losses


def choices(options, runner):
    """The test loss after a fine-tune on random rows, on each choice, on what fine-tunes prefer, and on everything; a line a task."""
    lines, whole = [], whichever_task(options, runner)
    random = [whichever_task(options, runner, "--sample", options.budget, "--seed", seed) for seed in range(options.random_seeds)]
    for task in options.task:
        record, preferred = study(options, runner, task).record, reranked(options, runner, task)
        if record is None:
            continue
        cells = [[-cell["draws"][0][-1] for cell in record["cells"] if cell["method"] == method] for method in methods(options)]
        columns = [[losses[task] for losses in random], *cells, preferred, [whole[task]]]
        lines.append([task, *map(lib.mean_sd, columns)])
    probe_alone = f"{options.agent} --rerank probe"
    return "" if options.print else lib.table(["task", "random", *RULES, probe_alone, options.agent, "everything"], lines)


def ills(options, runner):
    """The shares of rows whose completion was swapped or cut, of the pool and of what tamis chooses; a line a task."""
    pool = lib.lines_of(rows(options, "train.jsonl"))
    lines = [["pool", *shares(pool)]]
    for task in options.task:
        run = study(options, runner, task)
        if run.record is None:
            continue
        chosen = [run.folder / "selections" / options.budget / f"{options.agent}-{seed}.txt" for seed in range(options.seeds)]
        lines.append([task, *shares([pool[int(row) - 1] for path in chosen for row in lib.lines_of(path)])])
    return "" if options.print else lib.table(["", "swapped", "cut"], lines)


def shares(lines):
    """How many of these rows have each ill."""
    kinds = [json.loads(line)["ill"] for line in lines]
    return [f"{kinds.count(ill) / len(kinds):.1%}" for ill in ["mismatched", "truncated"]]


TABLES = {"agreement": agreement, "ills": ills, "choices": choices}


def main():
    parser = lib.parser(__doc__, "responses", model=False)
    parser.add_argument("--language-model", type=pathlib.Path, required=True, help="the folder of SmolLM2")
    parser.add_argument("--table", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--task", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--rows", type=int, default=3_000, help="of the pool")
    parser.add_argument("--test-rows", type=int, default=160, help="of validation and of test")
    parser.add_argument("--budget", default="5%")
    parser.add_argument("--check-rows", type=int, default=128, help="of each selection whose rank is compared")
    parser.add_argument("--selections", type=int, default=4, help="of each kind that is drawn")
    parser.add_argument("--agent", default="auto")
    parser.add_argument("--max-evaluations", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=384)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16", help="of the fine-tunes and the pass")
    parser.add_argument("--seeds", type=int, default=3, help="of a selection, from 0")
    parser.add_argument("--random-seeds", type=int, default=5, help="of random rows")
    options = parser.parse_args()
    runner = lib.Runner(options)
    for table in options.table:
        print(TABLES[table](options, runner), end="\n\n")


if __name__ == "__main__":
    main()

"""The commands as functions: their keyword arguments are the command's flags, with `_` for `-`."""

from __future__ import annotations

import inspect
import os
import re
from typing import Any

from tamis import _rows, _tamis
from tamis._arguments import arguments
from tamis._run import run
from tamis.errors import InputError
from tamis.results import Check, Finetuned, Selection, Study
from tamis.trainers import Answers, name_of

#: What decides how rows are read.
OF_DATA = ("field", "task", "leaks", "max_bad", "config")


def select(
    train: Any,
    validation: Any,
    test: Any = None,
    *,
    budget: str | float = "5%",
    out: str | os.PathLike[str] = "runs/select",
    field: dict[str, str] | None = None,
    model: str | os.PathLike[str] | None = None,
    embedder: Any = None,
    agent: str | None = None,
    trainer: Any = None,
    parallel: int = 1,
    features: Any = None,
    seed: int = 0,
    threads: int | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Selection:
    """Choose rows from training rows within a budget.

    Parameters
    ----------
    train, validation, test
        The rows to choose from; the rows that judge a choice; rows that are scored once, at the end. Each a `datasets.Dataset`, a
        pandas or polars data frame, an Arrow table, a list of dicts, a path, or a list of paths. Rows in memory are written once to
        `tables/` in the run's folder.
    budget
        How much may be chosen: `"5%"`, a number of rows, `"200k tokens"`, or a share below 1.
    out
        The folder of the run. The same call goes on with a run that was stopped, and returns one that is done.
    field
        What fields are called in your rows, such as `{"text": "review", "label": "stars"}`.
    model
        The model that is to be fine-tuned, a folder or hub id; prompts with responses need one.
    embedder
        `"lexical"`, the folder or hub id of a sentence encoder, a file of vectors, an array of them for all splits in order, a dict
        or list of arrays by split, a SentenceTransformer, or a function from a list of texts to an array of shape (texts, dim).
    agent
        How the budget is spent: `"auto"` (rules and searches, decided by held-out rows), `"dqn"`, `"dyna-dqn"`, `"ppo"`,
        `"climb-disc"`, `"greedy"`, `"random"`, and others.
    trainer
        Who trains on selections: a command (a text), a function `f(rows, seed)` that returns a score, higher is better, an object
        with `score(rows, seed)`, `tamis.torch.LoraTrainer`, or `tamis.ray.Trainer`. It compares the best selections with random
        ones; with `proxy="trainer"` it rewards the search as well. `rows` is a part of `train`, of the same kind; of files a
        list of dicts.
    parallel
        How many trials the trainer is given at once: processes of a command, or threads that call a function.
    features
        Who makes the pass of `model` over prompts with responses, in place of this machine's processor: `tamis.torch.LoraTrainer`,
        on a GPU, or `tamis.ray.Trainer`. What they make is kept as what is made here. No fine-tunes choose then, unless `trainer`
        or `rerank="finetune"` (on this machine's processor) is given as well.
    seed
        The source of all randomness: one seed, one result.
    threads
        How many threads to use; never changes the result.
    progress
        Whether bars are shown. By default where somebody looks: on a terminal, in a notebook.
    **settings
        The other flags of `tamis select`, below.

    Returns
    -------
    Selection

    Raises
    ------
    InputError
        If rows, a setting or the trainer are at fault. It says what was expected, what was found, and the way out.
    KeyboardInterrupt
        On Ctrl-C. What is done is kept: the same call goes on.
    """
    given = dict(budget=budget, out=out, field=field, model=model, agent=agent, seed=seed, threads=threads, **settings)
    line, answers = select_arguments(train, validation, test, embedder, trainer, parallel, given)
    return Selection(_run(line, progress, answers, features))


def select_arguments(
    train: Any, validation: Any, test: Any, embedder: Any, trainer: Any, parallel: int, given: dict[str, Any]
) -> tuple[list[str], Answers | None]:
    """The arguments of `tamis select`, and who answers its trials."""
    own = trainer is not None and not isinstance(trainer, str)
    if own and given.get("trial_timeout") is not None:
        cluster = hasattr(trainer, "answer")
        raise InputError(
            f"trial_timeout: expected a command, whose trials tamis can stop, found {'a cluster' if cluster else 'a function'}",
            hint="give it to the trainer, `tamis.ray.Trainer(..., trial_timeout=...)`" if cluster else "leave it out",
            setting="trial_timeout",
        )
    answers = Answers(trainer, train, parallel) if own else None
    given = {**_with_rows(train, validation, test, embedder, given), "trainer": name_of(trainer) if own else trainer}
    return arguments("select", {**given, "parallel": parallel}), answers


def study(
    train: Any,
    validation: Any,
    test: Any = None,
    *,
    out: str | os.PathLike[str] = "runs/study",
    progress: bool | None = None,
    embedder: Any = None,
    **settings: Any,
) -> Study:
    """Compare methods, budgets and seeds on your rows: with controls, intervals and costs.

    Rows and `embedder` are given as to `select`; `settings` are the flags of `tamis study`, below.
    """
    return Study(_on_rows("study", train, validation, test, embedder, progress, {"out": out, **settings}))


def finetune(
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    *,
    model: str | os.PathLike[str],
    selection: Selection | str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = "runs/finetune",
    progress: bool | None = None,
    **settings: Any,
) -> Finetuned:
    """Fine-tune a model on a selection, or on everything, and evaluate it.

    `selection` is what `select` returned, or its folder; without rows its own are used. `settings` are the flags of
    `tamis finetune`, below.
    """
    if isinstance(selection, Selection):
        selection = selection.out
    given = {"model": model, "selection": selection, "out": out, **settings}
    return Finetuned(_on_rows("finetune", train, validation, test, None, progress, given))


def check_clusters(
    train: Any,
    validation: Any,
    test: Any = None,
    *,
    out: str | os.PathLike[str] = "runs/check-clusters",
    progress: bool | None = None,
    embedder: Any = None,
    **settings: Any,
) -> Check:
    """Measure whether clusters hold rows that are alike, whether other seeds find them, and what they say about labels."""
    return Check(_on_rows("check clusters", train, validation, test, embedder, progress, {"out": out, **settings}))


def check_proxy(
    train: Any,
    validation: Any,
    test: Any = None,
    *,
    out: str | os.PathLike[str] = "runs/check-proxy",
    progress: bool | None = None,
    embedder: Any = None,
    **settings: Any,
) -> Check:
    """Score selections of many kinds by rewards of low to high fidelity and by the fine-tuned model, and compare."""
    return Check(_on_rows("check proxy", train, validation, test, embedder, progress, {"out": out, **settings}))


def check_agent(
    train: Any,
    validation: Any,
    test: Any = None,
    *,
    out: str | os.PathLike[str] = "runs/check-agent",
    progress: bool | None = None,
    embedder: Any = None,
    **settings: Any,
) -> Check:
    """Let every agent search for optima that are known, on small problems made from your own rows."""
    return Check(_on_rows("check agent", train, validation, test, embedder, progress, {"out": out, **settings}))


def _with_rows(train: Any, validation: Any, test: Any, embedder: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The settings, with the files of the splits that are given and the embedder, or the file of its vectors."""
    splits = zip(_rows.SPLITS, (train, validation, test), strict=True)
    data = {name: _rows.files(rows, name, given["out"]) for name, rows in splits if rows is not None}
    vectors = _rows.vectors(embedder, {**data, **{name: given.get(name) for name in OF_DATA}}, given["out"])
    return {**data, **given, "embedder": vectors}


def _on_rows(
    command: str, train: Any, validation: Any, test: Any, embedder: Any, progress: bool | None, given: dict[str, Any]
) -> Any:
    return _run(arguments(command, _with_rows(train, validation, test, embedder, given)), progress, None)


def _run(line: list[str], progress: bool | None, answers: Answers | None, features: Any = None) -> Any:
    try:
        return run(line, progress, answers, features)
    except InputError as error:
        if answers is not None and answers.last_error is not None:
            raise error from answers.last_error
        raise


def _document() -> None:
    """Append the settings of each command, but for those that are explained already, to its documentation."""
    for function in (select, study, finetune, check_clusters, check_proxy, check_agent):
        known = {*inspect.signature(function).parameters, "help", "help_all"}
        lines = [
            f"{name}\n    {_in_python(help).rstrip('.')}."
            for name, help in _tamis.settings(function.__name__.replace("check_", "check "))
            if name not in known
        ]
        function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Settings", "--------", *lines])


def _in_python(help: str) -> str:
    """What a flag is for, with keyword arguments in place of flags."""
    help = re.sub(r"`--([a-z-]+) ([^`]+)`", lambda found: f'`{found[1].replace("-", "_")}="{found[2]}"`', help)
    return re.sub(r"--([a-z][a-z-]+)", lambda found: found[1].replace("-", "_"), help)


_document()

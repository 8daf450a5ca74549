"""tamis picks the small part of a fine-tuning set that is worth training on.

>>> import tamis
>>> from datasets import load_dataset
>>> train = load_dataset("json", data_files="train.jsonl", split="train")
>>> chosen = tamis.select(train, validation="task.jsonl", budget="5%")
>>> small = train.select(chosen.indices)

==================  =========================================================
`select`            choose rows within a budget
`finetune`          fine-tune a model on them, and evaluate it
`study`             compare methods, budgets and seeds
`check_clusters`    are the clusters of the rows any good?
`check_proxy`       does the cheap reward rank selections as fine-tuning does?
`check_agent`       do the agents find optima that are known?
`Search`            a search whose trials you train on yourself
`tamis.torch`       a trainer for language models: transformers and peft
`tamis.ray`         trainers and embedders on a Ray cluster
==================  =========================================================
"""

from tamis._run import Trial
from tamis._tamis import __version__
from tamis.commands import check_agent, check_clusters, check_proxy, finetune, select, study
from tamis.errors import Error, InputError
from tamis.results import Check, Finetuned, Result, Selection, Study
from tamis.search import Search
from tamis.trainers import RoundTrainer, Trainer

__all__ = [
    "Check",
    "Error",
    "Finetuned",
    "InputError",
    "Result",
    "RoundTrainer",
    "Search",
    "Selection",
    "Study",
    "Trainer",
    "Trial",
    "__version__",
    "check_agent",
    "check_clusters",
    "check_proxy",
    "finetune",
    "select",
    "study",
]

"""Tiny classifiers and multiple-choice models of each family, as transformers saves them, and what it makes of a few pairs.

    pip install -r requirements.txt
    python classifiers.py write classifiers
    python classifiers.py check <folder of a saved classifier>...

`write` makes the models that the parity test reads. `check` loads what we saved and fails if a tensor is missing, superfluous or
of another shape, or if the tokenizer does not load.
"""

import json
import os
import sys

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

PAIRS = [["a b", "c"], ["a b c d e f g h i j", "k l"], ["p", "o n m l k j i h"], ["a a a a a a a", "b b b b b b"], ["zz", ""]]
LABELS = ["entailment", "neutral", "contradiction"]
LONGEST = 11


def tokenizer(types, model_inputs):
    letters = [chr(ord("a") + i) for i in range(16)]
    vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *letters])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    b = ":1" if types > 1 else ""
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair=f"<s> $A </s> $B{b} </s>{b}" if types != 1 else "<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=LONGEST,
        model_input_names=model_inputs,
    )


def write(out):
    sizes = dict(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, initializer_range=0.5
    )
    distilbert = dict(
        vocab_size=20, dim=8, n_layers=2, n_heads=2, hidden_dim=16, max_position_embeddings=14, initializer_range=0.5, pad_token_id=1
    )
    families = {
        "bert": BertConfig(**sizes, max_position_embeddings=14, pad_token_id=1),
        "roberta": RobertaConfig(**sizes, max_position_embeddings=16, type_vocab_size=1, pad_token_id=1),
        "distilbert": DistilBertConfig(**distilbert),
    }
    recorded = {}
    for family, config in families.items():
        types = {"bert": 2, "distilbert": 0}.get(family, 1)
        names = ["input_ids", "attention_mask"] + (["token_type_ids"] if types > 1 else [])
        words = tokenizer(types, names)
        for kind, auto in [("labels", AutoModelForSequenceClassification), ("choice", AutoModelForMultipleChoice)]:
            torch.manual_seed(len(recorded))
            if kind == "labels":
                config.id2label = dict(enumerate(LABELS))
                config.label2id = {label: i for i, label in enumerate(LABELS)}
            model = auto.from_config(config).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
            folder = f"{family}-{kind}"
            model.save_pretrained(os.path.join(out, folder))
            words.save_pretrained(os.path.join(out, folder))
            rows = []
            for first, second in PAIRS:
                # In lists, since a lone pair whose second text is empty would be taken for a single text.
                inputs = words([first], [second], truncation=True, return_tensors="pt")
                with torch.no_grad():
                    shaped = {name: x[None] if kind == "choice" else x for name, x in inputs.items()}
                    logits = model(**shaped).logits[0]
                types_of = inputs.get("token_type_ids")
                rows.append(
                    {
                        "pair": [first, second],
                        "tokens": inputs["input_ids"][0].tolist(),
                        "types": [] if types_of is None else types_of[0].tolist(),
                        "scores": logits.tolist(),
                    }
                )
            recorded[folder] = rows
    with open(os.path.join(out, "scores.json"), "w", encoding="utf-8") as file:
        lines = [f"{json.dumps(folder)}: [\n  " + ",\n  ".join(map(json.dumps, rows)) + "\n]" for folder, rows in recorded.items()]
        file.write("{\n" + ",\n".join(lines) + "\n}\n")


def check(folders):
    for folder in folders:
        choice = AutoConfig.from_pretrained(folder).architectures[0].endswith("ForMultipleChoice")
        auto = AutoModelForMultipleChoice if choice else AutoModelForSequenceClassification
        model, info = auto.from_pretrained(folder, output_loading_info=True)
        assert type(model).__name__ == model.config.architectures[0], type(model).__name__
        assert not any(info.values()), info
        words = AutoTokenizer.from_pretrained(folder)
        inputs = words("a b", "c", truncation=True, return_tensors="pt")
        with torch.no_grad():
            logits = model.eval()(**{name: x[None] if choice else x for name, x in inputs.items()}).logits
        labels = "one score a choice" if choice else ", ".join(model.config.id2label.values())
        print(f"{folder}: {type(model).__name__}, {type(words).__name__}, {labels}, {logits.tolist()}")


{"write": lambda arguments: write(*arguments), "check": check}[sys.argv[1]](sys.argv[2:])

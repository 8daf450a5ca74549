"""A trainer for language models by transformers and peft: `pip install ".[torch]"`.

>>> trainer = tamis.torch.LoraTrainer("HuggingFaceTB/SmolLM2-135M-Instruct", held_out)
>>> chosen = tamis.select(train, validation=task, model="HuggingFaceTB/SmolLM2-135M-Instruct",
...                       trainer=trainer)
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import peft
import torch
import transformers

from tamis import _rows, _tamis
from tamis._run import SketchedLayer
from tamis.errors import InputError

#: torch has one source of randomness, and adapters are put into the one model: whatever trains or reads does so alone.
_ALONE = threading.Lock()
#: Targets that teach nothing, as transformers has them.
IGNORED = -100
#: The tokens of a row, and 1 for each that the assistant says. The first one is never predicted.
Conversation = tuple[list[int], bytes]


class LoraTrainer:
    """Fine-tunes a language model with LoRA adapters on rows, and scores it by its loss on held-out rows.

    Rows are read by tamis: prompts with responses and conversations, in any of the shapes that `tamis select` takes. The loss is
    that of the assistant's tokens. The defaults are those of `tamis finetune`. The loss of a batch is the mean over its tokens; the
    learning rate rises over the first tenth of the steps, then falls to 0.

    Parameters
    ----------
    model
        The model's folder or hub id.
    held_out
        The rows that score it, as `select` takes them: not those of `validation`, if you want to see more than they show.
    field
        What fields are called in your rows.
    epochs, batch_size, learning_rate, max_length
        How it is trained. Longer rows lose the front of their prompt.
    lora_rank, lora_alpha, lora_dropout, lora_target_modules
        The adapters.
    device
        Where it is trained. By default on a GPU, if there is one.
    dtype
        The numbers of the frozen model: by default bfloat16 on a GPU that has it, else float32. Adapters are in float32.
    """

    higher_is_better = False

    def __init__(
        self,
        model: str | os.PathLike[str],
        held_out: Any,
        *,
        field: dict[str, str] | None = None,
        epochs: int = 4,
        batch_size: int = 16,
        learning_rate: float = 2e-4,
        max_length: int = 1024,
        lora_rank: int = 16,
        lora_alpha: float = 32,
        lora_dropout: float = 0.0,
        lora_target_modules: str | Sequence[str] = "all-linear",
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._model = os.fspath(model)
        self._field = dict(field or {})
        self._epochs = epochs
        self._batch_size = batch_size
        self._learning_rate = learning_rate
        self._max_length = max_length
        modules = lora_target_modules if isinstance(lora_target_modules, str) else list(lora_target_modules)
        self._lora = {"r": lora_rank, "lora_alpha": lora_alpha, "lora_dropout": lora_dropout, "target_modules": modules}
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        half = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.dtype = dtype or (torch.bfloat16 if half else torch.float32)
        self._held_out = self.conversations(held_out)
        told = (self._held_out, self._field, epochs, batch_size, learning_rate, max_length, self._lora, str(self.dtype))
        #: Scores of a trainer of another name are not taken for this one's.
        self.name = f"LoraTrainer of {self._model} ({hashlib.sha256(repr(told).encode()).hexdigest()[:12]})"
        self._base: Any = None
        self._pass_tokens = 16_384 if self.device.type == "cuda" else 2048

    def conversations(self, rows: Any) -> list[Conversation]:
        """The tokens of each row, and which of them the assistant says. Rows that cannot be read are an error."""
        with tempfile.TemporaryDirectory() as folder:
            files = _rows.files(rows, "rows", os.path.join(folder, "rows"))
            read = _tamis.conversations(files, self._field, self._model, self._max_length)
        bad = [number for number, conversation in enumerate(read) if conversation is None]
        if bad:
            raise InputError(
                f"rows: expected prompts with responses that {self._model} reads, found {len(bad)} that are none, the first of them row "
                f"{bad[0] + 1}",
                setting="rows",
                line=bad[0] + 1,
            )
        return [conversation for conversation in read if conversation is not None]

    def score(self, rows: Any, seed: int) -> float:
        """The mean over the held-out rows of the loss a token, once fine-tuned on these rows. One trial at a time, on all threads."""
        with _ALONE:
            return self._score(rows, seed)

    def _score(self, rows: Any, seed: int) -> float:
        torch.manual_seed(seed % 2**63)
        model = peft.get_peft_model(self.base(), peft.LoraConfig(task_type="CAUSAL_LM", **self._lora))
        try:
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
            self._train(model, self.conversations(rows), random.Random(seed))
            losses = self.losses(model, self._held_out)
        finally:
            self._base = model.unload()
        return math.fsum(losses) / len(losses)

    def base(self) -> Any:
        """The model without adapters, loaded once."""
        if self._base is None:
            self._base = transformers.AutoModelForCausalLM.from_pretrained(self._model, dtype=self.dtype).to(self.device)
            self._base.config.use_cache = False
        return self._base

    def features(self, rows: Sequence[Conversation], sketch: Sequence[SketchedLayer] | None) -> numpy.ndarray:
        """What the gradient probe needs of each row, by one pass of the model as it is.

        Shape (rows, 2): the sum of the response's loss, and its tokens. With a sketch besides the mean over all tokens of what the
        head reads, and the sketch of the gradient of that sum: shape (rows, 2 + hidden + width).
        """
        with _ALONE:
            return self._features(rows, sketch)

    def _features(self, rows: Sequence[Conversation], sketch: Sequence[SketchedLayer] | None) -> numpy.ndarray:
        model = self.base().eval().requires_grad_(False)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
        made: list[Any] = [None] * len(rows)
        while order:
            # Of one length, nearly: so many tokens at once.
            count = max(1, self._pass_tokens // len(rows[order[0]][0]))
            places, order = order[:count], order[count:]
            for place, numbers in zip(places, self._pass(model, [rows[i] for i in places], sketch), strict=True):
                made[place] = numbers
        return numpy.stack(made)

    def _pass(self, model: Any, batch: Sequence[Conversation], sketch: Sequence[SketchedLayer] | None) -> numpy.ndarray:
        tokens, said, mask = self._tensors(batch)
        with torch.set_grad_enabled(sketch is not None), _Sketched(model, sketch or []) as sketched:
            hidden = model.model(input_ids=tokens, attention_mask=mask).last_hidden_state
            each = torch.zeros(said.shape, device=self.device)
            logits = model.get_output_embeddings()(hidden[:, :-1][said]).float()
            losses = torch.nn.functional.cross_entropy(logits, tokens[:, 1:][said], reduction="none")
            each = each.masked_scatter(said, losses)
            parts = [each.sum(1, keepdim=True), said.sum(1, keepdim=True).float()]
            if sketch is not None:
                each.sum().backward()
                mean = (hidden.float() * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
                parts += [mean, sketched.sketches()]
        made: numpy.ndarray = torch.cat([part.detach().float().cpu() for part in parts], dim=1).numpy()
        return made

    def losses(self, model: Any, conversations: Sequence[Conversation]) -> list[float]:
        """The mean loss a token of each conversation."""
        model.eval()
        order = sorted(range(len(conversations)), key=lambda i: -len(conversations[i][0]))
        losses = [0.0] * len(conversations)
        with torch.inference_mode():
            for start in range(0, len(order), self._batch_size):
                places = order[start : start + self._batch_size]
                each, said = self._token_losses(model, [conversations[i] for i in places])
                for place, loss, tokens in zip(places, each.sum(1).tolist(), said.sum(1).tolist(), strict=True):
                    losses[place] = loss / max(tokens, 1)
        return losses

    def _train(self, model: Any, conversations: list[Conversation], draw: random.Random) -> None:
        model.train()
        steps = self._epochs * math.ceil(len(conversations) / self._batch_size)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self._learning_rate, weight_decay=0.01)
        schedule = transformers.get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
        for _ in range(self._epochs):
            draw.shuffle(conversations)
            for start in range(0, len(conversations), self._batch_size):
                each, said = self._token_losses(model, conversations[start : start + self._batch_size])
                (each.sum() / said.sum()).backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()

    def _token_losses(self, model: Any, batch: Sequence[Conversation]) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of each token that is to be said, 0 of others, and which ones these are; each of shape (rows, longest - 1)."""
        tokens, said, mask = self._tensors(batch)
        logits = model(input_ids=tokens, attention_mask=mask).logits[:, :-1].float()
        targets = tokens[:, 1:].masked_fill(~said, IGNORED)
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")
        return each, said

    def _tensors(self, batch: Sequence[Conversation]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The tokens, which of them but for the first are to be said, and which are no padding."""
        tokens = self._padded([tokens for tokens, _ in batch], 0)
        said = self._padded([said for _, said in batch], 0)[:, 1:].bool()
        return tokens, said, self._padded([[1] * len(tokens) for tokens, _ in batch], 0)

    def _padded(self, lists: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
        longest = max(map(len, lists))
        padded = [[*numbers, *[fill] * (longest - len(numbers))] for numbers in lists]
        return torch.tensor(padded, device=self.device)


class _Sketched:
    """Linear layers that keep their inputs and the derivatives by their outputs; nothing below the first of them is differentiated."""

    def __init__(self, model: Any, sketch: Sequence[SketchedLayer]) -> None:
        self._sketch = sketch
        self._inputs: dict[str, torch.Tensor] = {}
        self._derivatives: dict[str, torch.Tensor] = {}
        modules = dict(model.named_modules())
        self._hooks = [modules[layer.name].register_forward_hook(self._keep(layer.name)) for layer in sketch]
        if sketch:
            first = sketch[0].name.split(".self_attn")[0].split(".mlp")[0]
            self._hooks.append(modules[first].register_forward_pre_hook(_begin, with_kwargs=True))

    def _keep(self, name: str) -> Callable[[Any, Any, torch.Tensor], None]:
        def keep(_: Any, inputs: tuple[torch.Tensor, ...], outputs: torch.Tensor) -> None:
            self._inputs[name] = inputs[0].detach()
            outputs.register_hook(lambda derivative: self._derivatives.__setitem__(name, derivative))

        return keep

    def sketches(self) -> torch.Tensor:
        """The sketch of each row, shape (rows, width)."""
        parts = []
        for layer in self._sketch:
            inputs, derivatives = self._inputs[layer.name].float(), self._derivatives[layer.name].float()
            a, b = (torch.tensor(matrix, device=inputs.device) for matrix in (layer.a, layer.b))
            parts.append(torch.einsum("rts,rtu->rsu", derivatives @ a.T, inputs @ b.T).flatten(1))
        return torch.cat(parts, dim=1)

    def __enter__(self) -> _Sketched:
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()


def _begin(_: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The states that a layer reads, as what is differentiated by."""
    if positional:
        return (positional[0].detach().requires_grad_(True), *positional[1:]), named
    return positional, {**named, "hidden_states": named["hidden_states"].detach().requires_grad_(True)}

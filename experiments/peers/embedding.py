"""Seconds that others take to embed the same texts on the same cores: python embedding.py <model folder> <texts>."""

import json
import os
import pathlib
import sys
import tempfile
import time

import numpy
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic
import torch
from sentence_transformers import SentenceTransformer

folder, texts = sys.argv[1:]
texts = pathlib.Path(texts).read_text(encoding="utf-8").splitlines()
cores = os.cpu_count()


def best_of(times, work):
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


torch.set_num_threads(cores)
model = SentenceTransformer(folder, device="cpu")
model.encode(texts[:64])
halved = SentenceTransformer(folder, device="cpu", model_kwargs={"torch_dtype": torch.bfloat16})
halved.encode(texts[:64])
results, cosines = {}, {}
for name, encoder in {"sentence-transformers": model, "sentence-transformers bfloat16": halved}.items():
    for batch in [16, 32, 64]:
        with torch.inference_mode():
            results[f"{name} {batch}"] = best_of(2, lambda: encoder.encode(texts, batch_size=batch))


def compared(name, exact, rounded):
    unit = lambda rows: rows / numpy.linalg.norm(rows, axis=1, keepdims=True)
    cosine = (unit(exact.astype("float32")) * unit(rounded.astype("float32"))).sum(1)
    cosines[name] = [float(cosine.min()), float(cosine.mean())]


compared("sentence-transformers bfloat16", model.encode(texts), halved.encode(texts))

with tempfile.TemporaryDirectory() as scratch:
    path = os.path.join(scratch, "model.onnx")
    bert, tokenizer = model[0].auto_model, model.tokenizer
    example = tokenizer(["a b c", "d"], padding=True, return_tensors="pt")
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {name: {0: "batch", 1: "length"} for name in names}
    torch.onnx.export(
        bert, tuple(example[name] for name in names), path, input_names=names, output_names=["hidden"],
        dynamic_axes={**axes, "hidden": {0: "batch", 1: "length"}}, dynamo=False, opset_version=17,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    # As onnxruntime's users quantise an encoder: its products, each output's weights with a scale of their own.
    rounded = os.path.join(scratch, "rounded.onnx")
    quantize_dynamic(path, rounded, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
    sessions = {
        name: onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for name, path in [("onnxruntime", path), ("onnxruntime int8", rounded)]
    }

    def onnx(session, batch):
        order = numpy.argsort([-len(text) for text in texts])
        vectors = numpy.zeros((len(texts), 384), dtype=numpy.float32)
        for start in range(0, len(texts), batch):
            rows = order[start : start + batch]
            encoded = tokenizer([texts[i] for i in rows], padding=True, truncation=True, max_length=256, return_tensors="np")
            hidden = session.run(["hidden"], {name: encoded[name] for name in names})[0]
            mask = encoded["attention_mask"][:, :, None]
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            vectors[rows] = pooled / numpy.linalg.norm(pooled, axis=1, keepdims=True)
        return vectors

    compared("onnxruntime int8", onnx(sessions["onnxruntime"], 32), onnx(sessions["onnxruntime int8"], 32))
    results["cosines"] = cosines
    for name, session in sessions.items():
        for batch in [16, 32, 64]:
            results[f"{name} {batch}"] = best_of(2, lambda: onnx(session, batch))
print(json.dumps(results))

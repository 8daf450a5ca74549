"""Writes tiny random decoders of each family into `decoders/`, and what transformers makes of some tokens in `decoders.json`:

    pip install torch==2.9.1 transformers==4.57.6
    python decoders.py

Each model stands for what is special in its family: Llama 3's stretched positions and tied embeddings, Mistral's window and shards in
bfloat16, Qwen2's biases and YaRN, Qwen3's norms of queries and keys. The tokenizer is one of bytes, with the tokens of ChatML.
"""

import json
import pathlib

import tokenizers
import torch
import transformers

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SIZES = dict(
    vocab_size=260,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=256,
    eos_token_id=257,
    initializer_range=0.3,
)
LLAMA3 = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
CONFIGS = {
    "llama": transformers.LlamaConfig(**SIZES, rope_scaling=LLAMA3, tie_word_embeddings=True),
    "mistral": transformers.MistralConfig(**SIZES, sliding_window=5, tie_word_embeddings=False),
    "qwen2": transformers.Qwen2Config(**SIZES, rope_scaling=YARN, tie_word_embeddings=True),
    "qwen3": transformers.Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=False),
}


def tokenizer():
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return made


def main():
    folder, record = pathlib.Path(__file__).parent, {}
    tokens = [(7 * i * i + 3 * i) % 260 for i in range(30)]
    for number, (name, config) in enumerate(CONFIGS.items()):
        torch.manual_seed(number)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            # Norms are ones and biases zeros in a new model: nothing would show that they are read.
            for key, parameter in model.named_parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
        to = folder / "decoders" / name
        if name == "mistral":
            model = model.to(torch.bfloat16)
            model.save_pretrained(to, max_shard_size="20KB")
            model = model.float()
        else:
            model.save_pretrained(to)
        (to / "generation_config.json").unlink(missing_ok=True)
        tokenizer().save(str(to / "tokenizer.json"))
        settings = {"eos_token": "<|im_end|>", "chat_template": TEMPLATE}
        (to / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0].double()
        losses = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(tokens[1:]), reduction="none")
        record[name] = [round(loss, 6) for loss in losses.tolist()]
    (folder / "decoders.json").write_text(json.dumps(record) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

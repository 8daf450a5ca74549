//! Small models and data with a known answer, for tests here and in the crates above.

use std::path::Path;

use rand::RngExt;
use serde_json::{Value, json};

use crate::{
    Matrix, Seed,
    encoder::{EncoderShape, EncoderWeights, Layer, LayerNorm, head::Head},
    hub::{
        config::{DropoutRates, Family},
        tensors::Named,
    },
    kernels::{elementwise::Activation, linear::Linear},
    train::{EncoderClassifier, Objective, TokenizedSplit},
};

/// Two layers, 8 numbers a token, 2 heads, random weights.
pub fn tiny_encoder(vocabulary: usize, positions: usize) -> EncoderWeights {
    let mut rng = Seed(5).rng();
    let mut numbers = |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random::<f32>() - 0.5).collect() };
    let mut linear = |inputs: usize, outputs: usize| Linear {
        weight: Matrix::from_vec(numbers(inputs * outputs), outputs, inputs),
        bias: numbers(outputs),
    };
    let norm = || LayerNorm {
        weight: vec![1.0; 8],
        bias: vec![0.1; 8],
    };
    let layers = (0..2)
        .map(|_| Layer {
            qkv: linear(8, 24),
            attention_output: linear(8, 8),
            attention_norm: norm(),
            intermediate: linear(8, 16),
            output: linear(16, 8),
            output_norm: norm(),
        })
        .collect();
    EncoderWeights {
        shape: EncoderShape {
            hidden: 8,
            heads: 2,
            activation: Activation::Gelu,
            norm_epsilon: 1e-12,
            first_position: 0,
        },
        token_embeddings: linear(8, vocabulary).weight,
        position_embeddings: linear(8, positions).weight,
        token_type_embeddings: linear(8, 2).weight,
        norm: norm(),
        layers,
    }
}

/// Words `a` to `p` are tokens 4 to 19; 0 is padding, 1 unknown, 2 and 3 stand around texts.
pub fn tokenizer_json() -> String {
    let mut vocabulary = json!({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3});
    for (i, letter) in ('a'..='p').enumerate() {
        vocabulary[letter.to_string()] = (i + 4).into();
    }
    let special = |name: &str, kind: u32| json!({"SpecialToken": {"id": name, "type_id": kind}});
    let text = |name: &str, kind: u32| json!({"Sequence": {"id": name, "type_id": kind}});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "decoder": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]", 0), text("A", 0), special("[SEP]", 0)],
            "pair": [special("[CLS]", 0), text("A", 0), special("[SEP]", 0), text("B", 1), special("[SEP]", 1)],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}
            }
        },
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
    })
    .to_string()
}

/// Writes the files of [`tiny_encoder`] as a BERT with 20 tokens and 16 positions, and a tokenizer.
///
/// # Panics
///
/// If the folder cannot be written to.
pub fn write_tiny_bert(folder: &Path) {
    let encoder = tiny_encoder(20, 16);
    let mut named = Named::default();
    named.encoder("bert", Family::Bert, &encoder);
    let config: Value =
        json!({"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2});
    let bytes = safetensors::serialize(named.0, None).expect("serialises");
    std::fs::write(folder.join("config.json"), config.to_string()).expect("writes");
    std::fs::write(folder.join("model.safetensors"), bytes).expect("writes");
    std::fs::write(folder.join("tokenizer.json"), tokenizer_json()).expect("writes");
}

/// Sequences that begin with 1; the label is whether a 7 stands among the other tokens.
pub fn tiny_classifier() -> (EncoderClassifier, TokenizedSplit) {
    let mut data = TokenizedSplit::new(2);
    let mut state = 1u32;
    let mut next = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    for _ in 0..160 {
        let mut tokens = vec![1];
        tokens.extend((0..2 + next(5)).map(|_| 8 + next(12)));
        let label = next(2);
        if label == 1 {
            let at = 1 + next(tokens.len() as u32 - 1) as usize;
            tokens[at] = 7;
        }
        let types = vec![0; tokens.len()];
        data.push([(tokens, types)], Objective::Class(label));
    }
    let encoder = tiny_encoder(20, 9);
    let square = |outputs: usize| {
        let mut linear = Linear::zeros(outputs, 8);
        let weights = linear.weight.as_mut_slice().iter_mut().enumerate();
        weights.for_each(|(i, w)| *w = 0.3 * (i as f32 * 1.9).sin());
        linear
    };
    let head = Head {
        dense: square(8),
        activation: Activation::Tanh,
        scores: square(2),
    };
    let dropout = DropoutRates {
        hidden: 0.05,
        attention: 0.05,
        classifier: 0.05,
    };
    let model = EncoderClassifier { encoder, head, dropout };
    (model, data)
}

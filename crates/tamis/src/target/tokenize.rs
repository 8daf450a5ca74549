//! Examples become tokens: a text or a sentence pair one sequence, a question one with each of its choices.

use rayon::prelude::*;
use tamis_nn::{
    hub::tokenizer::{TextTokenizer, Tokens},
    train::{Objective, TokenizedSplit},
};

use crate::{
    Error, Result,
    data::{Example, Input, Task, TaskKind},
};

/// Scores a sequence of this task: one a label, or one where each choice has a sequence of its own.
pub fn outputs_of(task: &Task) -> usize {
    if task.kind == TaskKind::Choice {
        1
    } else {
        task.labels.len()
    }
}

/// The examples of a split as tokens.
///
/// # Errors
///
/// If the task has nothing that a head could score, or a text cannot be tokenized.
pub fn encode(examples: &[Example], task: &Task, tokenizer: &TextTokenizer) -> Result<TokenizedSplit> {
    let sequences: Vec<Vec<Tokens>> = examples
        .par_iter()
        .map(|example| match &example.input {
            Input::Text(text) => Ok(vec![tokenizer.one(text)?]),
            Input::Pair { premise, hypothesis } => Ok(vec![tokenizer.pair(premise, hypothesis)?]),
            Input::Choice { question, choices } => Ok(choices
                .iter()
                .map(|choice| tokenizer.pair(question, choice))
                .collect::<Result<_, _>>()?),
            Input::Response { .. } => Err(Error::Unsupported {
                what: "fine-tuning on prompt/response rows".into(),
                why: "the encoders trained here give labels or choices scores, and write no text".into(),
                hint: Some("give `model` a decoder (Llama, Qwen2, Qwen3 or Mistral)".into()),
            }),
        })
        .collect::<Result<_>>()?;
    let mut encoded = TokenizedSplit::new(outputs_of(task));
    for (sequences, example) in sequences.into_iter().zip(examples) {
        encoded.truncated += sequences.iter().filter(|sequence| sequence.truncated).count() as u64;
        let sequences = sequences.into_iter().map(|sequence| {
            let types = if sequence.types.is_empty() {
                vec![0; sequence.tokens.len()]
            } else {
                sequence.types
            };
            (sequence.tokens, types)
        });
        encoded.push(sequences, Objective::Class(example.target));
    }
    Ok(encoded)
}

//! Rows become what a language model reads: conversations by its chat template, and labelled rows as a prompt with its answers.
//!
//! A sequence that is too long loses the front of its prompt, and what is to be said only where that alone does not fit.

use std::ops::Range;

use rayon::prelude::*;
use serde_json::{Value, json};
use tamis_nn::{
    hub::{
        chat_template::{ChatTemplate, PromptTemplate, Rendered},
        tokenizer::TextTokenizer,
    },
    train::{Objective, TokenizedSplit},
};

use crate::{
    Result,
    data::{Example, Input, Reject, Split, Task, TaskKind},
};

/// Labels that a prompt lists; more would be longer than the text.
const LISTED_LABELS: usize = 20;

/// What turns rows into tokens of a language model.
pub struct ResponseEncoder<'a> {
    /// How the model writes conversations.
    pub template: &'a ChatTemplate,
    /// Its tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// What labelled rows become; none: the task's own form.
    pub prompt: Option<&'a PromptTemplate>,
    /// The task of the rows.
    pub task: &'a Task,
    /// What responses are chosen from, where they are few; empty where they are not.
    pub answers: &'a [String],
}

/// A split as tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedResponses {
    /// An example for each row.
    pub split: TokenizedSplit,
    /// Examples of rows that the model cannot read or learn from, each with the reason; they teach nothing.
    pub bad: Vec<(u32, Reject)>,
}

/// Whether all answers of a row become sequences, to be scored, or the right one alone, to be learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// All.
    All,
    /// The right one.
    Right,
}

/// The tokens of a conversation, each with 1 where it is to be said, and whether some did not fit.
type Sequence = (Vec<u32>, Vec<u8>, bool);

impl ResponseEncoder<'_> {
    /// How many tokens are read of a row; 0 where it cannot be read.
    pub fn tokens(&self, example: &Example) -> u32 {
        match self.sequences(example, Answers::Right) {
            Ok(Ok((sequences, _))) => sequences.iter().map(|(tokens, ..)| tokens.len() as u32).sum(),
            _ => 0,
        }
    }

    /// Some rows of a split, an example for each.
    ///
    /// # Errors
    ///
    /// If a text cannot be tokenized.
    pub fn encode(&self, split: &Split, rows: &[u32], answers: Answers) -> Result<EncodedResponses> {
        let sequences: Vec<_> = rows
            .par_iter()
            .map(|&row| self.sequences(&split.examples[row as usize], answers))
            .collect::<Result<_>>()?;
        let mut encoded = EncodedResponses {
            split: TokenizedSplit::new(1),
            bad: Vec::new(),
        };
        for ((i, row), sequences) in (0..).zip(rows).zip(sequences) {
            match sequences {
                Ok((sequences, objective)) => {
                    encoded.split.truncated += u64::from(sequences.iter().any(|(_, _, truncated)| *truncated));
                    let sequences = sequences.into_iter().map(|(tokens, learned, _)| (tokens, learned));
                    encoded.split.push(sequences, objective);
                }
                Err(reason) => {
                    let origin = split.examples[*row as usize].origin;
                    let file = &split.files[origin.file as usize].path;
                    encoded.bad.push((i, Reject::new(file, origin.line, &reason)));
                    encoded.split.push([(vec![0], vec![0])], Objective::Response);
                }
            }
        }
        Ok(encoded)
    }

    /// The sequences of a row, or why it has none.
    fn sequences(
        &self,
        example: &Example,
        answers: Answers,
    ) -> Result<std::result::Result<(Vec<Sequence>, Objective), String>> {
        let conversations = match self.conversations(example, answers) {
            Ok(conversations) => conversations,
            Err(reason) => return Ok(Err(reason)),
        };
        let (conversations, objective) = conversations;
        let mut sequences = Vec::with_capacity(conversations.len());
        for rendered in conversations {
            let sequence = self.sequence(&rendered)?;
            if !sequence.1[1..].contains(&1) {
                let most = self.tokenizer.longest();
                return Ok(Err(format!(
                    "expected a response in the {most} tokens that are read (`max_length`), found none"
                )));
            }
            sequences.push(sequence);
        }
        Ok(Ok((sequences, objective)))
    }

    /// The conversations of a row: one, or one for each answer.
    fn conversations(
        &self,
        example: &Example,
        answers: Answers,
    ) -> std::result::Result<(Vec<Rendered>, Objective), String> {
        let render = |messages: &[Value], tools: Option<&Value>| {
            let rendered = self.template.conversation(messages, tools);
            rendered.map_err(|error| {
                format!("expected a conversation that the model's chat template takes, found: {error}")
            })
        };
        let (asked, choices): (Value, Vec<&str>) = match &example.input {
            Input::Response { prompt, .. } if !self.answers.is_empty() => (
                json!({"role": "user", "content": &**prompt}),
                self.answers.iter().map(String::as_str).collect(),
            ),
            Input::Response { .. } => {
                let rendered = render(&example.input.messages(), example.input.tools())?;
                return Ok((vec![rendered], Objective::Response));
            }
            input => (
                json!({"role": "user", "content": self.prompt_of(input)?}),
                self.labels_of(input),
            ),
        };
        let right = self.right_of(example);
        let Some(&said) = choices.get(right as usize) else {
            return Err(format!("expected at most {} choices, found more", choices.len()));
        };
        let answer = |answer: &str| render(&[asked.clone(), json!({"role": "assistant", "content": answer})], None);
        Ok(match answers {
            Answers::All => (
                choices
                    .iter()
                    .map(|text| answer(text))
                    .collect::<std::result::Result<_, _>>()?,
                Objective::Class(right),
            ),
            Answers::Right => (vec![answer(said)?], Objective::Response),
        })
    }

    /// The number of the right answer among those of a row.
    fn right_of(&self, example: &Example) -> u32 {
        match &example.input {
            Input::Response { response, .. } => {
                let place = self.answers.iter().position(|answer| **answer == **response);
                place.unwrap_or(0) as u32
            }
            _ => example.target,
        }
    }

    /// What the answers of a labelled row are called: its labels, or the letters of its choices.
    fn labels_of(&self, input: &Input) -> Vec<&str> {
        const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        match input {
            Input::Choice { choices, .. } => (0..choices.len().min(LETTERS.len())).map(|i| &LETTERS[i..=i]).collect(),
            _ => self.task.labels.iter().map(String::as_str).collect(),
        }
    }

    /// What a labelled row asks.
    fn prompt_of(&self, input: &Input) -> std::result::Result<String, String> {
        let labels = &self.task.labels;
        if let Some(template) = self.prompt {
            let fields = match input {
                Input::Text(text) => json!({"text": &**text, "labels": labels}),
                Input::Pair { premise, hypothesis } => {
                    json!({"premise": &**premise, "hypothesis": &**hypothesis, "labels": labels})
                }
                Input::Choice { question, choices } => {
                    let choices: Vec<&str> = choices.iter().map(|choice| &**choice).collect();
                    json!({"question": &**question, "choices": choices})
                }
                Input::Response { prompt, .. } => json!({"prompt": &**prompt}),
            };
            return template.render(&fields);
        }
        let listed = if labels.len() <= LISTED_LABELS {
            format!(" Answer with one of: {}.", labels.join(", "))
        } else {
            String::new()
        };
        Ok(match input {
            Input::Text(text) => format!("{text}\n\nWhich label does this text have?{listed}"),
            Input::Pair { premise, hypothesis } => format!(
                "Premise: {premise}\nHypothesis: {hypothesis}\n\nHow does the hypothesis relate to the premise?{listed}"
            ),
            Input::Choice { question, choices } => {
                let mut prompt = format!("{question}\n\n");
                for (letter, choice) in ('A'..='Z').zip(choices) {
                    prompt += &format!("{letter}. {choice}\n");
                }
                prompt + "\nAnswer with the letter of the right choice."
            }
            Input::Response { prompt, .. } => prompt.to_string(),
        })
    }

    fn sequence(&self, rendered: &Rendered) -> Result<Sequence> {
        let tokens = self.tokenizer.with_places(&rendered.text, self.template.is_plain())?;
        let is_learned = |place: &Range<usize>| {
            let mut learned = rendered.learned.iter();
            u8::from(learned.any(|said| said.contains(&place.start) && place.start < place.end))
        };
        let learned: Vec<u8> = tokens.iter().map(|(_, place)| is_learned(place)).collect();
        let kept = kept(&learned, self.tokenizer.longest());
        let truncated = kept.len() < tokens.len();
        Ok((
            tokens[kept.clone()].iter().map(|(token, _)| *token).collect(),
            learned[kept].to_vec(),
            truncated,
        ))
    }
}

/// The tokens that are kept of a sequence which may have at most `most`: the last response with as much before it as fits, else the
/// response's beginning and the token before it.
fn kept(learned: &[u8], most: usize) -> Range<usize> {
    if learned.len() <= most {
        return 0..learned.len();
    }
    let end = learned
        .iter()
        .rposition(|&said| said == 1)
        .map_or(learned.len(), |last| last + 1);
    let start = learned[..end]
        .iter()
        .rposition(|&said| said == 0)
        .map_or(0, |before| before + 1);
    let from = end.saturating_sub(most).min(start.saturating_sub(1));
    from..end.min(from + most)
}

/// The responses of these rows where they are so few that they are answers to choose from: at most 20, each given twice or more, in rows
/// of one turn; none where they are not.
pub fn answers_of(train: &[Example], rows: &[u32]) -> Vec<String> {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for &row in rows {
        let Input::Response {
            response, chat: None, ..
        } = &train[row as usize].input
        else {
            return Vec::new();
        };
        *counts.entry(response).or_default() += 1;
        if counts.len() > LISTED_LABELS {
            return Vec::new();
        }
    }
    let few = counts.len() > 1 && counts.values().all(|&count| count > 1);
    let answers = counts.into_keys().map(str::to_owned);
    if few { answers.collect() } else { Vec::new() }
}

/// Whether rows of this task have answers to choose from.
pub fn has_answers(task: &Task, answers: &[String]) -> bool {
    task.kind != TaskKind::Response || !answers.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_loses_the_front_of_its_prompt() {
        assert_eq!(kept(&[0, 0, 1, 1, 0], 5), 0..5);
        // the newline behind the end of the turn goes first, then the prompt's first token
        assert_eq!(kept(&[0, 0, 1, 1, 0], 4), 0..4);
        assert_eq!(kept(&[0, 0, 0, 1, 1, 0], 4), 1..5);
        // an earlier turn of the assistant is part of what leads to the last
        assert_eq!(kept(&[0, 1, 0, 0, 1, 1], 4), 2..6);
        // a response that does not fit keeps its beginning, and the token that it is predicted from
        assert_eq!(kept(&[0, 0, 1, 1, 1, 1], 3), 1..4);
        assert_eq!(kept(&[1, 1, 1, 1], 3), 0..3);
    }
}

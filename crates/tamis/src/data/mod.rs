//! Rows become examples: reading, field mapping, tasks, splits, leaks, and writing the chosen rows back verbatim.

use serde::{Deserialize, Serialize};

/// The number of a training example: its place in `Dataset::train.examples`.
pub type RowId = u32;

/// What kind of task the rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// `text` to `label`.
    Classification,
    /// `premise` and `hypothesis` to `label`.
    Pair,
    /// `question` and `choices` to `answer`.
    Choice,
    /// A prompt and a response, in one of the shapes fine-tuners use.
    Response,
}

/// What an example says, without its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// One text.
    Text(Box<str>),
    /// A sentence pair.
    Pair {
        /// The premise, or first sentence.
        premise: Box<str>,
        /// The hypothesis, or second sentence.
        hypothesis: Box<str>,
    },
    /// A question and its choices.
    Choice {
        /// The question, with its passage where there is one.
        question: Box<str>,
        /// The choices in order, at least two.
        choices: Box<[Box<str>]>,
    },
    /// A prompt and its response, each a plain text (chat turns joined by blank lines).
    Response {
        /// Everything before the last answer.
        prompt: Box<str>,
        /// The answer to be learned.
        response: Box<str>,
    },
}

impl Input {
    /// The texts that are embedded for this example, in order: one text; premise and hypothesis; the question, then each
    /// choice; prompt and response.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Text(text) => vec![text],
            Self::Pair { premise, hypothesis } => vec![premise, hypothesis],
            Self::Choice { question, choices } => {
                std::iter::once(&**question).chain(choices.iter().map(|choice| &**choice)).collect()
            }
            Self::Response { prompt, response } => vec![prompt, response],
        }
    }
}

/// Where an example stands in the user's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The file, as an index into `Split::files`.
    pub file: u32,
    /// The line (JSON Lines, CSV: where the record begins) or row (Parquet), counted from 1.
    pub line: u64,
    /// The record's number in its file, counted from 0, bad rows and blank lines not skipped over: what the export goes by.
    pub record: u64,
}

/// One row of the user's data, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// What it says.
    pub input: Input,
    /// The index of its label in `Task::labels`, or of the right choice; 0 for prompt/response rows.
    pub target: u32,
    /// Where it came from.
    pub origin: Origin,
}

/// The task of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its kind.
    pub kind: TaskKind,
    /// The labels in order (numbers by value, else by spelling); empty for multiple choice and prompt/response.
    pub labels: Vec<String>,
}

//! Rows become examples: reading, field mapping, tasks, splits, leaks, and writing the chosen rows back verbatim.

mod answers;
mod chat;
pub mod demo;
mod export;
mod fields;
mod files;
pub mod folds;
mod labels;
mod memory;
mod read;
mod rejects;
mod source;
mod split;
mod tables;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use tamis_nn::{Fingerprint, fingerprint::first_half, named_enum};

use crate::Error;

pub use answers::AnswerReading;
pub use chat::Chat;
pub use export::{export, write_rejects};
pub use memory::Answer;
pub use read::read;
pub use rejects::Reject;
pub(crate) use rejects::{check_rejects, none_readable};
pub use source::{Compression, Format, SourceFile};
pub use split::Split;
pub(crate) use tables::{TABLES, is_table, texts_by_record, write_table};
pub use tables::{named_by_hash, records};

/// The number of a training example: its place in `Dataset::train.examples`.
pub type RowId = u32;

/// What kind of task the rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// `text` to `label`.
    Classification,
    /// `premise` and `hypothesis` to `label`.
    Pair,
    /// `question` and `choices` to `answer`.
    Choice,
    /// A prompt and a response, or a conversation, in one of the shapes fine-tuners use.
    Response,
}

named_enum!(TaskKind, "task", Error, {
    Classification => "classification": "a text and its label",
    Pair => "pair": "a premise, a hypothesis and their label",
    Choice => "choice": "a question, its choices and the answer",
    Response => "response": "a prompt and a response, or a conversation, which a language model reads",
});

impl TaskKind {
    /// What rows of the task are, in words.
    pub fn rows(self) -> &'static str {
        match self {
            Self::Classification => "texts with labels",
            Self::Pair => "pairs of texts with labels",
            Self::Choice => "questions with choices",
            Self::Response => "prompts with responses",
        }
    }
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
        /// Everything before the assistant's last turn.
        prompt: Box<str>,
        /// What the assistant says last: its content, else its calls of tools as JSON.
        response: Box<str>,
        /// The whole conversation; `None` where it is `prompt` by the user and `response` by the assistant.
        chat: Option<Box<Chat>>,
    },
}

impl Input {
    /// The texts that are embedded for this example, in order: one text; premise and hypothesis; the question, then each
    /// choice; prompt and response.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Text(text) => vec![text],
            Self::Pair { premise, hypothesis } => vec![premise, hypothesis],
            Self::Choice { question, choices } => std::iter::once(&**question)
                .chain(choices.iter().map(|choice| &**choice))
                .collect(),
            Self::Response { prompt, response, .. } => vec![prompt, response],
        }
    }

    /// What the texts, and the conversation where there is one, are known by: 128 bits of hash over all of them.
    fn identity(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &str| {
            hasher
                .update(&(text.len() as u64).to_le_bytes())
                .update(text.as_bytes());
        };
        self.texts().into_iter().for_each(&mut add);
        if let Self::Response { chat: Some(chat), .. } = self {
            chat.messages
                .iter()
                .chain(&chat.tools)
                .for_each(|part| add(&part.to_string()));
        }
        first_half(hasher.finalize())
    }
}

/// Where an example stands in the user's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The file, as an index into `Split::files`.
    pub file: u32,
    /// The line (JSON Lines; CSV: where the record begins) or row (Parquet), counted from 1.
    pub line: u64,
    /// The record's number in its file, counted from 0 over bad rows too (and, in JSON Lines, over blank lines).
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

/// What is to be read, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSettings {
    /// The training files.
    pub train: Vec<PathBuf>,
    /// The validation files.
    pub validation: Vec<PathBuf>,
    /// The test files; none by default.
    pub test: Vec<PathBuf>,
    /// The task; known by the fields where it is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskKind>,
    /// What the user's fields are called, by role.
    pub field: BTreeMap<String, String>,
    /// What happens to training rows that also stand in validation or test.
    pub leaks: LeakPolicy,
    /// The largest share of bad rows that is borne, 0 to 1.
    pub max_bad: f64,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            train: Vec::new(),
            validation: Vec::new(),
            test: Vec::new(),
            task: None,
            field: BTreeMap::new(),
            leaks: LeakPolicy::Drop,
            max_bad: 0.01,
        }
    }
}

impl DataSettings {
    /// These, with what they leave as it is by default as `base` says it.
    pub fn over(self, base: Self) -> Self {
        let default = Self::default();
        let or = |own: Vec<PathBuf>, base| if own.is_empty() { base } else { own };
        Self {
            train: or(self.train, base.train),
            validation: or(self.validation, base.validation),
            test: or(self.test, base.test),
            task: self.task.or(base.task),
            field: if self.field.is_empty() { base.field } else { self.field },
            leaks: if self.leaks == default.leaks {
                base.leaks
            } else {
                self.leaks
            },
            max_bad: if self.max_bad == default.max_bad {
                base.max_bad
            } else {
                self.max_bad
            },
        }
    }
}

/// What happens to training rows that also stand in validation or test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LeakPolicy {
    /// They are kept out of the pool, and counted.
    #[default]
    Drop,
    /// They stay in the pool, and are counted.
    Keep,
    /// The run stops at the first.
    Fail,
}

named_enum!(LeakPolicy, "leaks", Error, {
    Drop => "drop": "keep them out of the pool, and count them",
    Keep => "keep": "leave them in the pool, and count them",
    Fail => "fail": "stop at the first",
});

/// Training rows whose texts also stand elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Leaks {
    /// In the validation rows.
    pub validation: u64,
    /// In the test rows (and not in the validation rows).
    pub test: u64,
}

/// The user's data, read and checked.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The task of all its rows.
    pub task: Task,
    /// The rows to choose from.
    pub train: Split,
    /// The rows that judge a choice.
    pub validation: Split,
    /// The rows that are scored once, at the end.
    pub test: Option<Split>,
    /// The training rows that may be chosen: all, less the leaks that were dropped.
    pub pool: Vec<RowId>,
    /// What the pool was, where most of it was left aside.
    pub prefiltered: Option<Prefiltered>,
    /// Training rows that repeat the texts of an earlier one exactly; they stay in the pool.
    pub duplicates: u64,
    /// Training rows that also stand in validation or test.
    pub leaks: Leaks,
    /// Validation rows that also stand in test, in ascending order.
    pub in_test: Vec<RowId>,
    /// How answers of questions are written; none where the rows have labels, or choices with names of their own.
    pub answers: Option<AnswerReading>,
    /// Rows that could not be used.
    pub rejects: Vec<Reject>,
    /// What all this depends on: the bytes of the files and the settings.
    pub fingerprint: Fingerprint,
}

/// A pool before most of it was left aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefiltered {
    /// Good training rows.
    pub train: u64,
    /// Rows of the pool.
    pub rows: u64,
    /// Their tokens.
    pub tokens: u64,
    /// The rows of the pool of today that were drawn at random from all; they ascend.
    pub drawn: Vec<RowId>,
}

impl Dataset {
    /// How many rows the pool has, or had before most were left aside.
    pub fn pool_rows(&self) -> usize {
        let before = self.prefiltered.as_ref().map(|before| before.rows as usize);
        before.unwrap_or(self.pool.len())
    }

    /// Rows that stand for the whole pool: all of it, or those that were drawn from it before most were left aside.
    pub fn random_pool(&self) -> &[RowId] {
        let drawn = self.prefiltered.as_ref().map(|before| &*before.drawn);
        drawn.unwrap_or(&self.pool)
    }

    /// Leaves all training rows aside but these of the pool, whose tokens are so many; they become rows 0, 1 and so on. Both lists ascend, and
    /// `drawn` is part of `kept`.
    pub(crate) fn keep(&mut self, kept: &[RowId], drawn: &[RowId], tokens: u64) {
        let place = |row: &RowId| kept.partition_point(|other| other < row) as RowId;
        self.prefiltered = Some(Prefiltered {
            train: self.train.examples.len() as u64,
            rows: self.pool.len() as u64,
            tokens,
            drawn: drawn.iter().map(place).collect(),
        });
        let mut rows = 0..;
        let mut is_kept = || rows.next().is_some_and(|row| kept.binary_search(&row).is_ok());
        self.train.examples.retain(|_| is_kept());
        self.pool = (0..kept.len() as RowId).collect();
        // Scores are kept by the numbers of rows, which mean others now.
        let kept: Vec<u8> = kept.iter().flat_map(|row| row.to_le_bytes()).collect();
        self.fingerprint = Fingerprint::of([self.fingerprint.as_ref(), &kept]);
    }

    /// Takes rows out that no model can read: training rows leave the pool, others their splits. Each list ascends.
    pub(crate) fn leave_out(&mut self, train: &[RowId], validation: &[u32], test: &[u32]) {
        self.pool.retain(|row| train.binary_search(row).is_err());
        self.validation.leave_out(validation);
        if let Some(split) = &mut self.test {
            split.leave_out(test);
        }
        self.in_test.retain(|row| validation.binary_search(row).is_err());
        for row in &mut self.in_test {
            *row -= validation.partition_point(|out| out < row) as RowId;
        }
    }
}

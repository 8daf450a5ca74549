//! `study.json`: every cell, and the table that they make, for programs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    records::{portfolio::PortfolioRecord, selection::ReadRecord},
    stats::gain::{Gain, Summary},
};

/// The version of the file's shape; it changes when a program that reads it would have to.
pub const VERSION: u32 = 1;

/// A study of one data set.
/// What the control that all others are compared with is called.
pub const RANDOM: &str = "random";
/// What training on the whole pool is called.
pub const EVERYTHING: &str = "everything";
/// The budget under which the cells of [`EVERYTHING`] are filed; they stand in the table of every budget.
pub const WHOLE: &str = "100%";

/// `study.json`: every cell, and the table that they make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyRecord {
    /// [`VERSION`].
    pub version: u32,
    /// The program's version.
    pub tamis: String,
    /// What was measured; log loss is negated, so higher is better.
    pub metric: String,
    /// What was trained on each selection to score it: `probe` or `finetune`.
    pub judge: String,
    /// The names of the rows that were scored on, in the order of every list of scores: `confirm`, then the test files.
    pub columns: Vec<String>,
    /// Rows behind each column; of the confirm fold by the first seed, by the others a few more or fewer where validation rows repeat.
    pub column_rows: Vec<u64>,
    /// Rows that could be chosen.
    pub pool: u64,
    /// What became of the rows of the training files; none in the record of an earlier version.
    #[serde(default)]
    pub read: Option<ReadRecord>,
    /// The budgets, as asked.
    pub budgets: Vec<String>,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The table: budget by budget, in the order of the methods.
    pub methods: Vec<MethodRecord>,
    /// Every cell that was computed.
    pub cells: Vec<CellRecord>,
    /// How many cells a finished study has.
    pub expected: u64,
    /// What to make of it, in a few plain sentences.
    pub verdict: Vec<String>,
    /// On how many threads it ran last.
    #[serde(default = "one")]
    pub threads: u64,
    /// Seconds of all cores of all starts that were spent on it.
    pub core_seconds: f64,
    /// The command that makes it again.
    #[serde(default)]
    pub command: String,
    /// The settings as resolved.
    pub settings: Value,
}

/// One line of the table: a method at a budget, over the seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodRecord {
    /// The budget, as asked. Training on everything stands in the table of every budget.
    pub budget: String,
    /// The method's name.
    pub method: String,
    /// What kind of method it is.
    pub family: Family,
    /// Rows of its selections, as a mean.
    pub rows: f64,
    /// Its scores, one summary a column; empty where every cell failed.
    pub scores: Vec<Summary>,
    /// Its gains over random rows of the same seeds, one a column; empty for the random control itself and where every cell failed.
    pub gains: Vec<Gain>,
    /// Scorer evaluations, as a mean.
    pub evaluations: f64,
    /// Seconds, as means.
    pub seconds: Seconds,
    /// The cells that failed.
    pub failed: Vec<Failure>,
}

/// What kind of method it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// What every other method is compared with: everything, random rows.
    Control,
    /// A rule that looks at rows and never at a score.
    Baseline,
    /// A search over scores that learns nothing.
    Search,
    /// An agent that learns from scores.
    Agent,
    /// A selection that was made elsewhere.
    Given,
}

/// Seconds, by what they were spent on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Embedding, clustering and tuning, as far as the method needs them; wall-clock seconds on all threads, embeddings from the
    /// cache where they are there.
    pub prepare: f64,
    /// Choosing the rows, on one core.
    pub choose: f64,
    /// Training on the choice and scoring it, on one core.
    pub judge: f64,
}

/// A cell that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// Why.
    pub reason: String,
}

/// One method at one budget with one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    /// The budget, as asked; `100%` for training on everything.
    pub budget: String,
    /// The method's name.
    pub method: String,
    /// The seed.
    pub seed: u64,
    /// Rows chosen.
    pub rows: u64,
    /// Their tokens, as the embedder counts them.
    pub tokens: u64,
    /// Scores of each draw, one a column. All methods have one draw, but random rows under the probe have several.
    pub draws: Vec<Vec<f64>>,
    /// Scorer evaluations spent.
    pub evaluations: u64,
    /// What it took.
    pub seconds: Seconds,
    /// How the method `auto` decided.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub portfolio: Option<PortfolioRecord>,
    /// Why it has no scores.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

impl StudyRecord {
    /// Whether the fine-tuned target scored the selections, and not the probe.
    pub fn finetunes(&self) -> bool {
        self.judge == "finetune"
    }

    /// What scored the selections, for people.
    pub fn judged_by(&self) -> &'static str {
        if self.finetunes() { "fine-tuned target" } else { "probe" }
    }

    /// The column that gains are read from: the first test file, or the confirm fold where there is none.
    pub fn main_column(&self) -> usize {
        usize::from(self.columns.len() > 1)
    }

    /// After how many fine-tunes choosing has paid for itself, where the fine-tuned target is the judge: the core-seconds of preparing
    /// and choosing, over those by which training and scoring on this line's choice is shorter than on everything. None where
    /// everything was not trained on, nothing is saved, or the choice was made elsewhere, at nobody knows what cost.
    pub fn pays_after(&self, line: &MethodRecord) -> Option<u64> {
        let sound = |line: &&MethodRecord| !line.scores.is_empty();
        let everything = self
            .at(&line.budget)
            .filter(sound)
            .find(|line| line.method == EVERYTHING)?;
        if !self.finetunes() || line.scores.is_empty() || line.family == Family::Given {
            return None;
        }
        let spent = line.seconds.prepare * self.threads as f64 + line.seconds.choose;
        break_even(spent, everything.seconds.judge - line.seconds.judge)
    }

    /// The lines of a budget's table.
    pub fn at<'a>(&'a self, budget: &'a str) -> impl Iterator<Item = &'a MethodRecord> {
        self.methods.iter().filter(move |line| line.budget == budget)
    }
}

/// The least number of savings that exceed what was spent, at least one.
pub fn break_even(spent: f64, saved: f64) -> Option<u64> {
    (saved > 0.0).then(|| ((spent / saved).ceil() as u64).max(1))
}

fn one() -> u64 {
    1
}

impl Family {
    /// As it is written in the record.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Baseline => "heuristic",
            Self::Search => "search",
            Self::Agent => "agent",
            Self::Given => "given",
        }
    }
}

impl CellRecord {
    /// The mean of its draws in a column.
    ///
    /// # Panics
    ///
    /// If it has no scores.
    pub fn mean(&self, column: usize) -> f64 {
        self.draws.iter().map(|draw| draw[column]).sum::<f64>() / self.draws.len() as f64
    }
}

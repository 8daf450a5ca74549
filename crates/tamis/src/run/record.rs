//! `selection.json`: what was chosen and the evidence for it, for programs.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::stages::StageRecord;
use crate::data::Leaks;

/// The version of the file's shape; it changes when a program that reads it would have to.
pub const VERSION: u32 = 1;

/// One selection run.
#[derive(Debug, Clone, Serialize)]
pub struct SelectionRecord {
    /// [`VERSION`].
    pub version: u32,
    /// The program's version.
    pub tamis: String,
    /// How the budget was spent: `dqn`, `greedy` or `random`.
    pub agent: String,
    /// The source of all randomness.
    pub seed: u64,
    /// States scored, or tried.
    pub evaluations: u64,
    /// Those of them that could not be scored, nor at a second attempt; none of them was chosen.
    pub failures: u64,
    /// What was chosen, in rows and in tokens.
    pub budget: BudgetRecord,
    /// The chosen rows in their original order.
    pub rows: Vec<ChosenRow>,
    /// Scores on each fold beside their controls.
    pub scores: Scores,
    /// The labels before and after; empty where the task has none.
    pub labels: Vec<LabelRecord>,
    /// The clusters.
    pub clusters: Vec<ClusterRecord>,
    /// What was read.
    pub data: DataRecord,
    /// Seconds and memory by stage.
    pub stages: Vec<StageRecord>,
    /// The settings as resolved.
    pub settings: Value,
}

/// The size of the selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BudgetRecord {
    /// Rows chosen.
    pub rows: u64,
    /// Their tokens, as the embedder counts them.
    pub tokens: u64,
}

/// One chosen row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChosenRow {
    /// Its file.
    pub file: PathBuf,
    /// Its line or row there, from 1.
    pub row: u64,
    /// Its cluster.
    pub cluster: u32,
    /// The step of the episode in which its chunk was taken, from 1.
    pub step: u32,
}

/// The probe's scores on each fold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scores {
    /// On the reward fold, in the metric that the agent was rewarded by. It searched for a high value here, so this one is
    /// too good to be true.
    pub reward: Scored,
    /// On the confirm fold, which no agent sees; the final choice was made here among few states.
    pub confirm: Scored,
    /// The same on the confirm fold in the reward's metric: what is left of the gain on rows that were not searched on.
    pub confirm_as_reward: Scored,
    /// On the test rows, once, at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Scored>,
    /// Of the target, fine-tuned on the finalists and on random rows, on the confirm fold; only with `--judge finetune`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finetuned: Option<Finetuned>,
}

/// What fine-tuning says of the finalists and of as many random selections; higher is better.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finetuned {
    /// What was measured; log loss is negated.
    pub metric: String,
    /// Of each finalist, the probe's best first.
    pub finalists: Vec<f64>,
    /// Which of them was chosen, by the reward's metric.
    pub chosen: usize,
    /// Of each random selection.
    pub random: Vec<f64>,
}

/// A score beside its controls; higher is better.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scored {
    /// What was measured; log loss is negated.
    pub metric: String,
    /// Of the selection.
    pub chosen: f64,
    /// The mean over random rows of the same budget, 10 seeds.
    pub random_mean: f64,
    /// Their standard deviation (over n - 1).
    pub random_sd: f64,
    /// Of training on the whole pool.
    pub everything: f64,
}

/// A label's share.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelRecord {
    /// Its name.
    pub label: String,
    /// Its share of the pool, 0 to 1.
    pub pool: f64,
    /// Its share of the chosen rows.
    pub chosen: f64,
    /// Its share of the validation rows.
    pub validation: f64,
}

/// One cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterRecord {
    /// Its rows in the pool.
    pub rows: u64,
    /// Its rows in the selection.
    pub chosen: u64,
    /// The words that mark it.
    pub words: Vec<String>,
    /// Its rows by label, in the order of `labels`.
    pub labels: Vec<u64>,
    /// The rows nearest to its centre, as lines of their files.
    pub nearest: Vec<(PathBuf, u64)>,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataRecord {
    /// Good training rows.
    pub train: u64,
    /// Rows that could be chosen.
    pub pool: u64,
    /// Validation rows on which the agent was rewarded.
    pub reward_fold: u64,
    /// Validation rows on which the final choice was made.
    pub confirm_fold: u64,
    /// Test rows.
    pub test: u64,
    /// Training rows that repeat an earlier one.
    pub duplicates: u64,
    /// Training rows that also stand in validation or test.
    pub leaks: Leaks,
    /// Rows that could not be used.
    pub rejects: u64,
}

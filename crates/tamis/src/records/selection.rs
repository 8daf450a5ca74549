//! What a selection run leaves in its folder, for programs: `selection.json`, `map.json`, and the lines of `metrics.jsonl`.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tamis_nn::Fingerprint;

use crate::{
    data::{AnswerReading, Dataset, Leaks, TaskKind},
    records::portfolio::PortfolioRecord,
};

/// The version of the file's shape; it changes when a program that reads it would have to.
pub const VERSION: u32 = 1;

/// What a score is called that the user's own trainer answered.
pub const TRAINER: &str = "trainer";

/// One selection run.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// How the agent `auto` decided.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub portfolio: Option<PortfolioRecord>,
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
    /// The command that makes it again.
    #[serde(default)]
    pub command: String,
    /// The settings as resolved.
    pub settings: Value,
}

/// The size of the selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetRecord {
    /// Rows chosen.
    pub rows: u64,
    /// Their tokens, as the embedder counts them.
    pub tokens: u64,
}

/// One chosen row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenRow {
    /// Its file.
    pub file: PathBuf,
    /// Its line or row there, from 1.
    pub row: u64,
    /// Its number among the records of all training files, from 0.
    pub index: u64,
    /// Its cluster.
    pub cluster: u32,
    /// The step of the episode in which its chunk was taken, from 1.
    pub step: u32,
}

/// The probe's scores on each fold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// On the reward fold, in the metric that the agent was rewarded by. It searched for a high value here, so this one is
    /// too good to be true.
    pub reward: Scored,
    /// On the confirm fold, which no agent sees; the final choice was made here among few states.
    pub confirm: Scored,
    /// The same on the confirm fold in the reward's metric: what is left of the gain on rows that were not searched on.
    pub confirm_as_reward: Scored,
    /// On the test rows, once, at the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub test: Option<Scored>,
    /// Of the target, fine-tuned on the finalists and on random rows, on the confirm fold, or what the user's trainer answered of them; only
    /// with `rerank finetune` or `trainer`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finetuned: Option<Finetuned>,
}

/// What fine-tuning says of the finalists and of as many random selections; higher is better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finetuned {
    /// What was measured; log loss is negated. Of the user's own trainer [`TRAINER`].
    pub metric: String,
    /// Of each finalist, the probe's best first.
    pub finalists: Vec<f64>,
    /// Which of them was chosen, by the reward's metric.
    pub chosen: usize,
    /// Of each random selection.
    pub random: Vec<f64>,
}

impl Finetuned {
    /// Who judged, as a sentence begins: a fine-tune on the confirm fold by a metric that is `shown` so, or the user's own trainer.
    pub fn judge(&self, shown: impl Fn(&str) -> String) -> String {
        match self.metric.as_str() {
            TRAINER => "By your trainer".to_owned(),
            metric => format!("Fine-tuned, {} on the confirm fold", shown(metric)),
        }
    }
}

/// A score beside its controls; higher is better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Of training on the validation rows themselves, those outside of the fold that is scored; none in records of earlier versions.
    #[serde(default)]
    pub validation: Option<f64>,
    /// Of training on these and on the selection; none in records of earlier versions.
    #[serde(default)]
    pub with_validation: Option<f64>,
}

/// A label's share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// What became of the rows of the training files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRecord {
    /// What the rows were taken for; none in a record of an earlier version.
    #[serde(default)]
    pub task: Option<TaskKind>,
    /// Good training rows.
    pub train: u64,
    /// Rows that could be chosen.
    pub pool: u64,
    /// How many of them were not left aside before any gradient was worked out; none where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefiltered: Option<u64>,
    /// Training rows that repeat an earlier one.
    pub duplicates: u64,
    /// Training rows that also stand in validation or test.
    pub leaks: Leaks,
    /// Validation rows that also stand in test.
    #[serde(default)]
    pub in_test: u64,
    /// How the answers of questions were read; none where they need no reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<AnswerReading>,
    /// Rows of all files that could not be used.
    pub rejects: u64,
}

impl ReadRecord {
    /// Rows that could be chosen and were not left aside.
    pub fn reached(&self) -> u64 {
        self.prefiltered.unwrap_or(self.pool)
    }

    pub(crate) fn of(dataset: &Dataset) -> Self {
        let before = dataset.prefiltered.as_ref();
        Self {
            task: Some(dataset.task.kind),
            train: before.map_or(dataset.train.examples.len() as u64, |before| before.train),
            pool: dataset.pool_rows() as u64,
            prefiltered: before.map(|_| dataset.pool.len() as u64),
            duplicates: dataset.duplicates,
            leaks: dataset.leaks,
            in_test: dataset.in_test.len() as u64,
            answers: dataset.answers,
            rejects: dataset.rejects.len() as u64,
        }
    }
}

impl fmt::Display for ReadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leaks = self.leaks.validation + self.leaks.test;
        let policy = match leaks {
            0 => "",
            _ if self.pool < self.train => " (left out)",
            _ => " (kept)",
        };
        write!(
            f,
            "{} training rows{}; {} repeat another, {leaks} also stand in validation or test{policy}, {} were bad",
            self.train,
            self.task.map_or(String::new(), |task| format!(", {}", task.rows())),
            self.duplicates,
            self.rejects
        )?;
        f.write_str(if self.rejects > 0 { " (rejects.jsonl)" } else { "" })?;
        if let Some(answers) = self.answers {
            write!(f, "; answers are {answers}")?;
        }
        match self.in_test {
            0 => Ok(()),
            rows => write!(
                f,
                "; {rows} validation rows also stand in test, so test scores are not all of unseen rows"
            ),
        }
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataRecord {
    /// Of the training files.
    #[serde(flatten)]
    pub read: ReadRecord,
    /// Their fingerprints, by which it is told whether a file is still the one that was chosen from.
    #[serde(default)]
    pub files: BTreeMap<PathBuf, Fingerprint>,
    /// Validation rows on which the agent was rewarded.
    pub reward_fold: u64,
    /// Validation rows on which the final choice was made.
    pub confirm_fold: u64,
    /// Test rows.
    pub test: u64,
    /// How well reward rows are told from the pool by their vectors: the AUC, 0.5 where they are alike.
    pub domain_auc: f64,
    /// Rows of the pool that the agent chose among.
    #[serde(default)]
    pub candidates: u64,
    /// Rows of the pool that were taken last because a probe trained on others doubts their answers.
    #[serde(default)]
    pub label_errors: u64,
    /// Texts of all splits of which the embedder read the beginning only; budgets count them whole.
    #[serde(default)]
    pub truncated: u64,
}

/// One stage of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Its name.
    pub name: String,
    /// Wall-clock seconds; those of `select` over all starts of a run that was killed.
    pub seconds: f64,
    /// The most memory the process held at any moment of the stage, in bytes; none where the system does not tell.
    pub peak_bytes: Option<u64>,
}

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum CurveRecord {
    /// A full state that scored higher on the reward fold than all before it.
    Best {
        /// Evaluations spent.
        evaluations: u64,
        /// Seconds since the search began.
        seconds: f64,
        /// Its score on the reward fold.
        reward: f64,
        /// Its score on the confirm fold by the probe, in the same metric.
        confirm: f64,
    },
    /// What an agent reported after an episode.
    Episode {
        /// Episodes finished, this one included.
        episode: u64,
        /// Steps taken so far.
        steps: u64,
        /// Evaluations spent.
        evaluations: u64,
        /// Seconds since the search began.
        seconds: f64,
        /// The sum of its rewards.
        #[serde(rename = "return")]
        episode_return: f64,
        /// None before training began.
        loss: Option<f64>,
        /// The share of actions taken at random.
        epsilon: f64,
        /// How well a learned model ranked what was paid for; none where there is no model.
        agreement: Option<f64>,
    },
}

impl CurveRecord {
    /// Evaluations spent by then.
    pub fn evaluations(&self) -> u64 {
        match *self {
            Self::Best { evaluations, .. } | Self::Episode { evaluations, .. } => evaluations,
        }
    }
}

/// `map.json`: where clusters and rows stand on a plane, for people to look at. Coordinates are from 0 to [`MAP_SIDE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRecord {
    /// [`VERSION`].
    pub version: u32,
    /// The clusters, in the order of [`SelectionRecord::clusters`].
    pub clusters: Vec<MapCluster>,
    /// The rows that were drawn: every row of the pool, or so many of them that a browser bears it.
    pub rows: MapRows,
}

/// The largest coordinate of a map.
pub const MAP_SIDE: u16 = 4095;

/// One cluster's disc, whose area is proportional to the cluster's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapCluster {
    /// From left to right.
    pub x: u16,
    /// From bottom to top.
    pub y: u16,
    /// Of its disc.
    pub radius: u16,
    /// The rows nearest to its centre, cut to a readable length.
    pub samples: Vec<MapSample>,
}

/// A row of a cluster, to be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapSample {
    /// The beginning of its text.
    pub text: String,
    /// Its label; none where the task has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub label: Option<String>,
}

/// Rows on a map; all lists but the last have one entry a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRows {
    /// From left to right.
    pub x: Vec<u16>,
    /// From bottom to top.
    pub y: Vec<u16>,
    /// Which of them were chosen, as places in the other lists, in rising order.
    pub chosen: Vec<u32>,
}

impl SelectionRecord {
    /// The scores on the fold that nobody searched on, and its name.
    fn unseen(&self) -> (&'static str, &Scored) {
        match &self.scores.test {
            Some(test) => ("the test rows", test),
            None => ("the confirm fold", &self.scores.confirm),
        }
    }

    /// One sentence on whether the choice is better than chance, by the fold that nobody searched on.
    pub fn verdict(&self) -> String {
        let (name, scored) = self.unseen();
        let gain = scored.chosen - scored.random_mean;
        let spread = scored.spread();
        if spread >= 2.0 {
            format!("On {name} the choice is {gain:.4} above random rows: {spread:.1} standard deviations.")
        } else if spread <= -2.0 {
            format!("On {name} the choice is {:.4} BELOW random rows: do not use it.", -gain)
        } else {
            format!(
                "On {name} the choice is no better than random rows ({gain:+.4}, {spread:+.1} standard deviations)."
            )
        }
    }

    /// What makes the verdict less sure: few rows to choose by, or that those which chose also judge.
    pub fn caution(&self) -> Option<String> {
        let rows = self.data.confirm_fold;
        if rows < FEW_ROWS && self.data.read.task == Some(TaskKind::Response) {
            Some(format!("Only {rows} validation rows made the final choice."))
        } else if rows < FEW_ROWS {
            // The standard error of an accuracy of a half, the largest there is.
            let error = 0.5 / (rows.max(1) as f64).sqrt();
            Some(format!(
                "Only {rows} validation rows made the final choice: on so few, chance moves an accuracy by up to {error:.2}."
            ))
        } else {
            let word = "The confirm fold also made the final choice: `test` rows would judge it unseen.";
            self.scores.test.is_none().then(|| word.to_owned())
        }
    }

    /// A hint where the validation rows teach the probe more than the choice does, alone or beside it, by the fold that nobody searched
    /// on.
    pub fn validation_teaches_more(&self) -> Option<String> {
        let (_, scored) = self.unseen();
        let rows = match self.scores.test {
            Some(_) => format!("{} validation rows", self.data.reward_fold + self.data.confirm_fold),
            None => format!("{} validation rows of the reward fold", self.data.reward_fold),
        };
        let (own, both) = (scored.validation?, scored.with_validation.unwrap_or(f64::NEG_INFINITY));
        if own.max(both) <= scored.chosen {
            return None;
        }
        let unseen = "If the validation rows need not stay unseen,";
        Some(if both >= own {
            format!(
                "The choice and the {rows} together make {both:.4} there, more than the choice. {unseen} train on both: `tamis finetune` \
                 has the setting `with_validation`."
            )
        } else if both > scored.chosen {
            format!(
                "The {rows} alone make {own:.4} there, more than the choice ({:.4}) or both together ({both:.4}). {unseen} they are what \
                 to train on.",
                scored.chosen
            )
        } else {
            format!(
                "The {rows} alone make {own:.4} there, more than the choice ({:.4}). {unseen} they are what to train on.",
                scored.chosen
            )
        })
    }

    /// Whether a rule chose the rows, and no search.
    pub fn by_rule(&self) -> bool {
        self.portfolio
            .as_ref()
            .is_some_and(|portfolio| portfolio.chosen().by_rule())
    }

    /// A word on labels of the pool that no validation row has: nothing tells what they are worth, and some may mark rows without a label.
    pub fn labels_unjudged(&self) -> Option<String> {
        let unjudged: Vec<&LabelRecord> = self.labels.iter().filter(|label| label.validation == 0.0).collect();
        if unjudged.is_empty() {
            return None;
        }
        let mut named: Vec<String> = unjudged.iter().map(|label| format!("`{}`", label.label)).collect();
        let more = named.split_off(named.len().min(FEW_LABELS)).len();
        let share: f64 = unjudged.iter().map(|label| label.pool).sum();
        Some(format!(
            "No validation row has the label {}{} ({:.1}% of the pool). If it marks rows without a label, leave them out.",
            named.join(", "),
            if more > 0 {
                format!(" or {more} more")
            } else {
                String::new()
            },
            100.0 * share
        ))
    }

    /// A word on labels that differ in nothing but case or spaces around them, which are labels of their own here.
    pub fn labels_alike(&self) -> Option<String> {
        let mut spellings: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for LabelRecord { label, .. } in &self.labels {
            spellings.entry(label.trim().to_lowercase()).or_default().push(label);
        }
        let alike = spellings.into_values().find(|spellings| spellings.len() > 1)?;
        Some(format!(
            "The labels `{}` are told apart, though only case or spaces do.",
            alike.join("` and `")
        ))
    }
}

/// As many labels are named where a word is about several.
const FEW_LABELS: usize = 3;

/// Fewer rows to choose by are worth a word.
const FEW_ROWS: u64 = 100;

/// The least standard deviation of random rows that counts.
const LEAST_SD: f64 = 1e-4;

impl Scored {
    /// How far the choice is above random rows, in standard deviations of theirs. Where they hardly vary, as when the budget is nearly the
    /// pool, the last digit that is shown takes their place: what is beneath it is rounding.
    pub fn spread(&self) -> f64 {
        (self.chosen - self.random_mean) / self.random_sd.max(LEAST_SD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_to_random_rows_that_do_not_vary_is_neither_lost_nor_made_of_rounding() {
        let spread = |chosen: f64, random_sd: f64| {
            let scored = Scored {
                metric: "accuracy".into(),
                chosen,
                random_mean: 0.5,
                random_sd,
                everything: 0.5,
                validation: None,
                with_validation: None,
            };
            scored.spread()
        };
        assert!((spread(0.52, 0.01) - 2.0).abs() < 1e-9);
        assert!(spread(0.43, 0.0) <= -2.0 && spread(0.43, 1e-17) <= -2.0);
        assert!(spread(0.5 + 1e-16, 1e-16).abs() < 0.1);
    }
}

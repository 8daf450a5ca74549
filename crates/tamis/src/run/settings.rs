//! Everything that can be set for `select`; `tamis.toml` holds the same.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    agent::dqn::DqnSettings,
    budget::Budget,
    cluster::KMeansSettings,
    data::DataSettings,
    embed::lexical::LexicalSettings,
    metric::{Metric, MetricKind},
    pool::Grain,
    seed::Seed,
    select::Method,
};

/// The settings of one selection run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectSettings {
    /// How much may be chosen. Default: 5%.
    pub budget: Budget,
    /// How much one action takes. Default: as many rows as make about 40 steps.
    pub chunk: Grain,
    /// `lexical`, the folder or hub id of a sentence encoder, or a .npy or .safetensors file. Default: `lexical`.
    pub embedder: String,
    /// How many clusters. Default (none): the square root of half the rows, within bounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clusters: Option<usize>,
    /// How the budget is spent. Default: `dqn`.
    pub agent: Method,
    /// What is measured. Default: accuracy.
    pub metric: MetricKind,
    /// The form of the metric that is the reward: soft, hard, auc, calibrated or matched. Default: soft.
    pub reward: RewardKind,
    /// The most evaluations that are spent. Default: 5000.
    pub max_evaluations: u64,
    /// The most seconds that the agent may take. Default (none): no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_time: Option<f64>,
    /// The source of all randomness. Default: 0.
    pub seed: Seed,
    /// Where the run is kept. Default: `runs/select`.
    pub out: PathBuf,
    /// Where embeddings are kept between runs. Default (none): `$XDG_CACHE_HOME/tamis` or `~/.cache/tamis`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// The most bytes that chunk Gram matrices may take in memory; others are recomputed. Default: 512 MiB.
    pub gram_memory: u64,
    /// The files.
    pub data: DataSettings,
    /// The lexical embedder.
    pub lexical: LexicalSettings,
    /// k-means.
    pub k_means: KMeansSettings,
    /// The deep Q-network.
    pub dqn: DqnSettings,
}

/// The form of the metric that agents are rewarded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RewardKind {
    /// Expected under the probe's probabilities: small changes of the model show.
    #[default]
    Soft,
    /// By the most probable answer.
    Hard,
    /// How well each class's probability ranks its rows, whatever the metric: [`Metric::Auc`].
    Auc,
    /// The log loss at the best class factors and temperature, whatever the metric: [`Metric::Calibrated`].
    Calibrated,
    /// As soft, after the predicted label mix is brought to the true one: [`Metric::Matched`].
    Matched,
}

impl RewardKind {
    /// The metric of this kind in this form.
    pub fn of(self, kind: MetricKind) -> Metric {
        match self {
            Self::Soft => Metric::soft(kind),
            Self::Hard => Metric::hard(kind),
            Self::Auc => Metric::Auc,
            Self::Calibrated => Metric::Calibrated,
            Self::Matched => Metric::Matched(kind),
        }
    }
}

impl Default for SelectSettings {
    fn default() -> Self {
        Self {
            budget: Budget::Percent(5.0),
            chunk: Grain::Auto,
            embedder: "lexical".into(),
            clusters: None,
            agent: Method::default(),
            metric: MetricKind::Accuracy,
            reward: RewardKind::Soft,
            max_evaluations: 5000,
            max_time: None,
            seed: Seed(0),
            out: PathBuf::from("runs/select"),
            cache: None,
            gram_memory: 512 << 20,
            data: DataSettings::default(),
            lexical: LexicalSettings::default(),
            k_means: KMeansSettings::default(),
            dqn: DqnSettings::default(),
        }
    }
}

impl SelectSettings {
    /// The metric by which states are rewarded.
    pub fn reward_metric(&self) -> Metric {
        self.reward.of(self.metric)
    }

    /// The metric by which results are reported.
    pub fn report_metric(&self) -> Metric {
        Metric::hard(self.metric)
    }

    /// Looks for values that mean nothing.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn check(&self) -> Result<()> {
        if self.max_evaluations == 0 {
            return Err(Error::setting("--max-evaluations", "a number above 0", "0"));
        }
        if let Some(seconds) = self.max_time
            && !(seconds > 0.0 && seconds.is_finite())
        {
            return Err(Error::setting(
                "--max-time",
                "a number of seconds above 0",
                seconds.to_string(),
            ));
        }
        if self.clusters == Some(0) {
            return Err(Error::setting("--clusters", "a number above 0", "0"));
        }
        self.dqn.check()
    }
}

impl std::str::FromStr for RewardKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "soft" => Ok(Self::Soft),
            "hard" => Ok(Self::Hard),
            "auc" => Ok(Self::Auc),
            "calibrated" => Ok(Self::Calibrated),
            "matched" => Ok(Self::Matched),
            _ => Err(Error::setting(
                "--reward",
                "soft, hard, auc, calibrated or matched",
                format!("`{text}`"),
            )),
        }
    }
}

//! Everything that can be set for `select`; `tamis.toml` holds the same.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tamis_nn::{encoder::Dtype, kernels::packed::ProductDtype, named_enum, seed::Seed, train::TrainSettings};

use crate::{
    Error, Result,
    agents::{dqn::DqnSettings, dyna_dqn::DynaDqnSettings, ppo::PpoSettings},
    budget::Budget,
    candidates::{CandidateSet, RowOrder},
    cluster::{KMeansSettings, default_clusters},
    data::{DataSettings, TaskKind},
    embed::{EmbedderSpec, lexical::LexicalSettings},
    env::pool::ChunkSize,
    metrics::{Metric, MetricKind},
    scorer::{finetune::FinetuneScorerSettings, gradient::GradientSettings},
    search::{ClimbDiscSettings, Method, MethodSettings, RewardModelKind},
    settings::{
        finetune::{LanguageModelSettings, refuse_encoders_settings},
        secrets,
    },
};

/// The settings of one selection run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectSettings {
    /// How much may be chosen. Default: 5%.
    pub budget: Budget,
    /// How much one action takes. Default: as many rows as make about 40 steps.
    pub chunk: ChunkSize,
    /// The order in which the rows of a cluster are taken. Default: by relevance where validation rows differ from the pool, else by
    /// coverage.
    pub row_order: RowOrder,
    /// The share of the pool (with macro-F1, of each label) that is suspected of label errors and used last: the rows whose label is
    /// least probable under a probe that was trained on other rows, or on validation rows where they differ from the pool; the responses
    /// that their prompts make least more likely. Default (none): as many labels as that probe gets wrong, as many responses as gain no
    /// more from their own prompts than from others; at most 0.2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_error_share: Option<f64>,
    /// The rows that the agent chooses among. Default: those in the domain of the validation rows where these differ from the pool, else
    /// all.
    pub candidates: CandidateSet,
    /// The most rows of responses that the model reads: one in five is drawn at random, the others are those whose words are most like the
    /// reward fold's; no other row is chosen. Default (none): all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefilter: Option<usize>,
    /// `lexical`, the folder or hub id of a sentence encoder, or a .npy or .safetensors file; of prompts with responses also
    /// `hidden-states`, those of the model that is to be fine-tuned. Default: `auto`, which is `hidden-states` there, else `lexical`.
    pub embedder: EmbedderSpec,
    /// The numbers in which a sentence encoder multiplies. Default: `float32`.
    pub embed_dtype: Dtype,
    /// How many clusters. Default (none): the square root of half the rows, within bounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clusters: Option<usize>,
    /// How the budget is spent. Default: `auto`, where a probe scores rules and searches in several modes; where anything slower
    /// scores `climb-disc`, or with a reward model `dqn`.
    pub agent: Method,
    /// Who scores the states that a learning agent meets: the proxy (none), or trees that are fitted first. Default: none.
    pub reward_model: RewardModelKind,
    /// What is measured. Default: accuracy; of rows of responses always log-loss, the mean over them of the loss a token.
    pub metric: MetricKind,
    /// The form of the metric that is the reward, or log-loss instead of it. Default: log-loss where validation rows differ from the
    /// pool and the probe rewards, else soft.
    pub reward: RewardKind,
    /// What is trained at every state, or, by the trainer, on whole selections alone. Default: the probe.
    pub proxy: ProxyKind,
    /// How much of the pool a model is fine-tuned on to give the probe its features, or its gradients: random rows without suspected label
    /// errors, which are suspected anew by these features; of responses any random rows. Default (none): the embedder's features, or the
    /// gradients of the model as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finetune_features: Option<Budget>,
    /// The model that is fine-tuned: as the proxy, to rerank, and for features. Of rows of responses the language model that is to be
    /// trained on them, whose gradients reward a choice. Default (none): the embedder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What is trained on the best states to choose between them. Default (none): the command of `trainer`, if one is given; of responses
    /// in `select` fine-tunes, unless Python makes the model's pass; else what is trained at every state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerank: Option<JudgeKind>,
    /// How many of the best states are compared by fine-tuning, beside as many random selections. Default: 4.
    pub rerank_top: usize,
    /// A command that trains on rows and answers with a score, for the system's shell; `{slot}` in it stands for the number of the process.
    /// Default (none): none.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "secrets::serialize")]
    pub trainer: Option<String>,
    /// How many processes of the trainer work at once. Default: 1.
    pub parallel: usize,
    /// The most seconds that the trainer may take for a score. Default (none): no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial_timeout: Option<f64>,
    /// How many more times the trainer is asked for a score that it failed to give. Default: 1.
    pub retries: u32,
    /// The most evaluations that are spent. Default: 5000.
    pub max_evaluations: u64,
    /// The most seconds that the agent may take. Default (none): no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_time: Option<f64>,
    /// The most that the trainer's scores may cost in a search, in its own unit. Default (none): no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost: Option<f64>,
    /// The source of all randomness. Default: 0.
    pub seed: Seed,
    /// Where the run is kept. Default: `runs/select`.
    pub out: PathBuf,
    /// Where embeddings are kept between runs. Default (none): `$XDG_CACHE_HOME/tamis` or `~/.cache/tamis`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// The most bytes that the output of frozen layers may take in memory. Default: 2 GiB.
    pub frozen_memory: u64,
    /// How models are fine-tuned.
    pub finetune: FinetuneScorerSettings,
    /// How a language model multiplies, and what of it is fine-tuned.
    pub language_model: LanguageModelSettings,
    /// The gradient probe of rows of responses.
    pub gradients: GradientSettings,
    /// The files.
    pub data: DataSettings,
    /// The lexical embedder.
    pub lexical: LexicalSettings,
    /// k-means.
    pub k_means: KMeansSettings,
    /// The deep Q-network.
    pub dqn: DqnSettings,
    /// What `dyna-dqn` does besides.
    pub dyna_dqn: DynaDqnSettings,
    /// Proximal policy optimisation.
    pub ppo: PpoSettings,
    /// The rounds of CLIMB, as a search or as a reward model.
    pub climb_disc: ClimbDiscSettings,
    /// The command that makes this run again, for its records: of a program that has one. It is no part of what the run is.
    #[serde(skip)]
    pub command: Option<String>,
}

/// What is trained on a state's rows to score it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyKind {
    /// A probe, in about a millisecond: a ridge regression on fixed features, or of responses a step on gradients.
    #[default]
    Probe,
    /// The target, or a model like it, fine-tuned in seconds.
    Finetune,
    /// The user's own trainer, on whole selections.
    Trainer,
}

named_enum!(ProxyKind, "proxy", Error, {
    Probe => "probe": "in about a millisecond, a ridge regression on fixed features, or of responses a step on gradients",
    Finetune => "finetune": "the model, fine-tuned, in seconds",
    Trainer => "trainer": "what `trainer` names, on whole selections",
});

/// What is trained on the best states to choose between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JudgeKind {
    /// The probe.
    Probe,
    /// The target, or a model like it, fine-tuned.
    Finetune,
    /// The user's own command.
    Trainer,
}

named_enum!(JudgeKind, "rerank", Error, {
    Probe => "probe": "the probe",
    Finetune => "finetune": "the model, fine-tuned",
    Trainer => "trainer": "the command of `trainer`",
});

impl From<ProxyKind> for JudgeKind {
    fn from(kind: ProxyKind) -> Self {
        match kind {
            ProxyKind::Probe => Self::Probe,
            ProxyKind::Finetune => Self::Finetune,
            ProxyKind::Trainer => Self::Trainer,
        }
    }
}

/// The form of the metric that agents are rewarded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RewardKind {
    /// What the data ask for; soft until that is known.
    #[default]
    Auto,
    /// Expected under the probe's probabilities: small changes of the model show.
    Soft,
    /// By the most probable answer.
    Hard,
    /// How well each class's probability ranks its rows, whatever the metric: [`Metric::Auc`].
    Auc,
    /// The log loss at the best class factors and temperature, whatever the metric: [`Metric::Calibrated`].
    Calibrated,
    /// As soft, after the predicted label mix is brought to the true one: [`Metric::Matched`].
    Matched,
    /// The log loss, whatever the metric.
    LogLoss,
}

named_enum!(RewardKind, "reward", Error, {
    Auto => "auto": "log-loss where validation rows differ from the pool and the probe scores, else soft",
    Soft => "soft": "the metric expected under the predicted probabilities",
    Hard => "hard": "the metric of the most probable answers",
    Auc => "auc": "how well the probability of each class ranks the rows, whatever the metric",
    Calibrated => "calibrated": "the log loss at the best class factors and temperature, whatever the metric",
    Matched => "matched": "soft, once the predicted label mix is brought to the true one",
    LogLoss => "log-loss": "the log loss, whatever the metric",
});

impl RewardKind {
    /// The metric of this kind in this form.
    pub fn of(self, kind: MetricKind) -> Metric {
        match self {
            Self::Auto | Self::Soft => Metric::soft(kind),
            Self::Hard => Metric::hard(kind),
            Self::Auc => Metric::Auc,
            Self::Calibrated => Metric::Calibrated,
            Self::Matched => Metric::Matched(kind),
            Self::LogLoss => Metric::soft(MetricKind::LogLoss),
        }
    }
}

impl Default for SelectSettings {
    fn default() -> Self {
        Self {
            budget: Budget::Percent(5.0),
            chunk: ChunkSize::Auto,
            row_order: RowOrder::default(),
            label_error_share: None,
            candidates: CandidateSet::default(),
            prefilter: None,
            embedder: EmbedderSpec::Auto,
            embed_dtype: Dtype::default(),
            clusters: None,
            agent: Method::default(),
            reward_model: RewardModelKind::default(),
            metric: MetricKind::Accuracy,
            reward: RewardKind::default(),
            proxy: ProxyKind::Probe,
            finetune_features: None,
            model: None,
            rerank: None,
            rerank_top: 4,
            trainer: None,
            parallel: 1,
            trial_timeout: None,
            retries: 1,
            max_evaluations: 5000,
            max_time: None,
            max_cost: None,
            seed: Seed(0),
            out: PathBuf::from("runs/select"),
            cache: None,
            frozen_memory: 2 << 30,
            finetune: FinetuneScorerSettings::default(),
            language_model: LanguageModelSettings::default(),
            gradients: GradientSettings::default(),
            data: DataSettings::default(),
            lexical: LexicalSettings::default(),
            k_means: KMeansSettings::default(),
            dqn: DqnSettings::default(),
            dyna_dqn: DynaDqnSettings::default(),
            ppo: PpoSettings::default(),
            climb_disc: ClimbDiscSettings::default(),
            command: None,
        }
    }
}

/// The domain_auc from which on validation rows count as other than the pool. Measured on folds of 370 rows and more: 0.46 to 0.52 where
/// they are drawn like the pool, at most 0.59 where both are the same sources in other shares, 0.73 to 0.87 where they are of one source.
const SHIFTED_AUC: f64 = 0.65;
/// From here on, and below [`CLEARLY_SHIFTED_AUC`], a portfolio tries both candidate sets. Outside of it the AUC decides: what rows of
/// another kind teach a model that is fine-tuned, no probe on fixed features can tell. On SICK, with an AUC of 0.8, the probe prefers rows
/// of the whole pool, which teach the fine-tuned model .10 less.
const OPEN_AUC: f64 = 0.6;
/// See [`OPEN_AUC`].
const CLEARLY_SHIFTED_AUC: f64 = 0.7;
/// It also has to be so many standard errors above chance, which takes more where the fold is small.
const STANDARD_ERRORS: f64 = 3.0;
/// The lexical embedder is fitted to the pool, and the fewer its rows, the more that alone tells them apart. Validation rows drawn like the
/// pool: 0.52 from 20,000 rows, 0.58 from 5,000, 0.67 from 2,000, 0.86 from 500.
const LEAST_FITTED: usize = 10_000;

/// Longer rows of responses are cut, where the settings do not say: their gradients cost by the token.
const LONGEST_ROW: usize = 512;

impl SelectSettings {
    /// Whether validation rows count as other than the pool, by the [domain_auc](crate::candidates::domain::domain_auc) of so many
    /// rows of the pool and of the reward fold.
    pub(crate) fn shifted(&self, domain_auc: f64, pool: usize, fold: usize) -> bool {
        // Of an AUC by chance, against many more rows.
        let standard_error = (12.0 * fold as f64).sqrt().recip();
        domain_auc >= SHIFTED_AUC.max(0.5 + STANDARD_ERRORS * standard_error)
            && (self.embedder != EmbedderSpec::Lexical || pool >= LEAST_FITTED)
    }

    /// Whether evidence may decide among which rows a portfolio searches: the AUC leaves it open, or something is trained on the best
    /// selections.
    pub(crate) fn candidates_open(&self, domain_auc: f64, pool: usize) -> bool {
        let told = self.embedder != EmbedderSpec::Lexical || pool >= LEAST_FITTED;
        self.rerank() != JudgeKind::Probe || told && (OPEN_AUC..CLEARLY_SHIFTED_AUC).contains(&domain_auc)
    }

    /// The same for rows of this task: what a language model needs is set where the settings leave it open.
    ///
    /// # Errors
    ///
    /// If a setting is one of other tasks.
    pub(crate) fn for_task(&self, kind: TaskKind) -> Result<Self> {
        if kind != TaskKind::Response {
            let of_responses = [
                ("embedder", self.embedder == EmbedderSpec::HiddenStates),
                (
                    "language_model",
                    self.language_model != LanguageModelSettings::default(),
                ),
                ("gradients", self.gradients != GradientSettings::default()),
                ("prefilter", self.prefilter.is_some()),
            ];
            if self.finetune.train.dtype != ProductDtype::default() && !self.finetunes() {
                return Err(Error::setting("dtype", "a model that is fine-tuned", "none").with_hint(
                    "for the vectors' numbers there is `embed_dtype`; models are fine-tuned with `rerank`, `proxy` or `finetune_features`",
                ));
            }
            return match of_responses.into_iter().find(|(_, given)| *given) {
                Some((name, _)) => Err(Error::setting(
                    name,
                    "prompts with responses, which alone a language model chooses among",
                    "rows with labels or choices",
                )
                .with_hint("leave it out")),
                None => Ok(Self {
                    embedder: self.embedder.or(EmbedderSpec::Lexical),
                    ..self.clone()
                }),
            };
        }
        if self.model.is_none() {
            let expected = "the language model that is to be fine-tuned on these prompts with responses";
            return Err(Error::setting("model", expected, "none").with_hint(
                "its gradients reward a choice: name a folder or hub id, `model HuggingFaceTB/SmolLM2-135M-Instruct`; rows with a label or \
                 choices have their fields named with `field <role>=<name>`",
            ));
        }
        let of_labels = [
            ("metric", self.metric == MetricKind::MacroF1, "macro-f1"),
            (
                "reward",
                !matches!(self.reward, RewardKind::Auto | RewardKind::LogLoss),
                self.reward.name(),
            ),
        ];
        if let Some((name, _, found)) = of_labels.into_iter().find(|(_, given, _)| *given) {
            let expected = "no setting of labels: prompts with responses are scored by their loss";
            return Err(Error::setting(name, expected, format!("`{found}`")).with_hint("leave it out"));
        }
        refuse_encoders_settings(&self.finetune.train, "finetune.train.")?;
        let train = TrainSettings {
            learning_rate: self
                .finetune
                .train
                .learning_rate
                .or(Some(self.language_model.learning_rate())),
            max_length: self.finetune.train.max_length.or(Some(LONGEST_ROW)),
            ..self.finetune.train.clone()
        };
        Ok(Self {
            embedder: self.embedder.or(EmbedderSpec::HiddenStates),
            metric: MetricKind::LogLoss,
            reward: RewardKind::LogLoss,
            finetune: FinetuneScorerSettings {
                train,
                ..self.finetune.clone()
            },
            ..self.clone()
        })
    }

    /// The same for a run that selects rows of this task: where nobody says what chooses among the best states of responses, fine-tunes
    /// do, as the gradient probe's own pick is often not the best (docs/results/responses.md). `trains` is whether that model is trained
    /// by tamis itself.
    ///
    /// # Errors
    ///
    /// If a setting has no effect.
    pub(crate) fn for_selecting(self, kind: TaskKind, trains: bool) -> Result<Self> {
        let rerank = match (self.rerank, &self.trainer) {
            (None, None) if kind == TaskKind::Response && trains => Some(JudgeKind::Finetune),
            (given, _) => given,
        };
        let settings = Self { rerank, ..self };
        settings.check_model_is_used(kind)?;
        if settings.rerank_top != Self::default().rerank_top && settings.rerank() == JudgeKind::Probe {
            return Err(
                Error::setting("rerank_top", "something that is trained on the best few", "the probe")
                    .with_hint("let fine-tunes compare them: `rerank finetune`"),
            );
        }
        Ok(settings)
    }

    /// The same with each `auto` decided.
    pub(crate) fn resolved(&self, shifted: bool) -> Self {
        let row_order = match self.row_order {
            RowOrder::Auto if shifted => RowOrder::Relevance,
            RowOrder::Auto => RowOrder::Coverage,
            given => given,
        };
        let reward = match self.reward {
            RewardKind::Auto if shifted && self.proxy != ProxyKind::Finetune => RewardKind::LogLoss,
            RewardKind::Auto => RewardKind::Soft,
            reward => reward,
        };
        let candidates = match self.candidates {
            CandidateSet::Auto if shifted => CandidateSet::InDomain,
            CandidateSet::Auto => CandidateSet::All,
            given => given,
        };
        Self {
            row_order,
            candidates,
            reward,
            // A portfolio asks for many scores; of slow ones there are few.
            agent: match (self.agent, self.reward_model) {
                (Method::Auto, RewardModelKind::None) if self.proxy != ProxyKind::Probe => Method::ClimbDisc,
                (Method::Auto, _) if self.proxy != ProxyKind::Probe => Method::Dqn,
                (given, _) => given,
            },
            ..self.clone()
        }
    }

    /// These settings in each mode that a portfolio may search in: every way to decide the `auto`s that are open. That of
    /// [`SelectSettings::resolved`] comes first, then those with its candidates. Any other agent searches in that one alone.
    pub(crate) fn modes(&self, shifted: bool, candidates_open: bool) -> Vec<Self> {
        let first = self.resolved(shifted);
        if first.agent != Method::Auto {
            return vec![first];
        }
        let candidates = match self.candidates {
            CandidateSet::Auto if candidates_open => vec![CandidateSet::All, CandidateSet::InDomain],
            _ => vec![first.candidates],
        };
        let orders = match self.row_order {
            RowOrder::Auto => vec![RowOrder::Coverage, RowOrder::Relevance],
            given => vec![given],
        };
        let rewards = match self.reward {
            RewardKind::Auto if self.metric != MetricKind::LogLoss => vec![RewardKind::Soft, RewardKind::LogLoss],
            _ => vec![first.reward],
        };
        let mut modes = Vec::new();
        for &candidates in &candidates {
            for &row_order in &orders {
                for &reward in &rewards {
                    modes.push(Self {
                        row_order,
                        candidates,
                        reward,
                        ..first.clone()
                    });
                }
            }
        }
        modes.sort_by_key(|mode| {
            (
                mode.candidates != first.candidates,
                mode.row_order != first.row_order,
                mode.reward != first.reward,
            )
        });
        modes
    }

    /// The metric by which states are rewarded.
    pub fn reward_metric(&self) -> Metric {
        self.reward.of(self.metric)
    }

    /// The metric by which results are reported.
    pub fn report_metric(&self) -> Metric {
        Metric::hard(self.metric)
    }

    /// How each method works.
    pub(crate) fn methods(&self) -> MethodSettings<'_> {
        MethodSettings {
            dqn: &self.dqn,
            dyna_dqn: &self.dyna_dqn,
            ppo: &self.ppo,
            climb_disc: &self.climb_disc,
            reward_model: self.reward_model,
        }
    }

    /// How many clusters a pool of so many rows has.
    pub(crate) fn clusters_of(&self, rows: usize) -> usize {
        self.clusters.unwrap_or_else(|| default_clusters(rows))
    }

    /// What chooses between the best states.
    pub fn rerank(&self) -> JudgeKind {
        match (&self.rerank, &self.trainer) {
            (Some(given), _) => *given,
            (None, Some(_)) => JudgeKind::Trainer,
            (None, None) => self.proxy.into(),
        }
    }

    /// Whether a model is fine-tuned anywhere in the run.
    pub(crate) fn finetunes(&self) -> bool {
        self.finetune_features.is_some() || self.proxy == ProxyKind::Finetune || self.rerank() == JudgeKind::Finetune
    }

    /// Whether the model that is named is put to use, where rows are of this kind.
    ///
    /// # Errors
    ///
    /// If not.
    pub(crate) fn check_model_is_used(&self, kind: TaskKind) -> Result<()> {
        let Some(model) = self
            .model
            .as_ref()
            .filter(|_| kind != TaskKind::Response && !self.finetunes())
        else {
            return Ok(());
        };
        let expected = "a fine-tune that it is for: `rerank finetune`, `proxy finetune` or `finetune_features`";
        Err(Error::setting("model", expected, format!("`{model}` alone")).with_hint(
            "leave it out; what embeds the texts is named by `embedder`, and `tamis finetune` trains on the choice",
        ))
    }

    /// Looks for values that mean nothing.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn check(&self) -> Result<()> {
        if self.max_evaluations == 0 {
            return Err(Error::setting("max_evaluations", "a number above 0", "0"));
        }
        if let Some(seconds) = self.max_time
            && !(seconds > 0.0 && seconds.is_finite())
        {
            return Err(Error::setting(
                "max_time",
                "a number of seconds above 0",
                seconds.to_string(),
            ));
        }
        if let Some(share) = self.label_error_share
            && !(0.0..1.0).contains(&share)
        {
            return Err(Error::setting(
                "label_error_share",
                "a share from 0 to below 1",
                share.to_string(),
            ));
        }
        if self.embed_dtype != Dtype::Float32 && !matches!(self.embedder, EmbedderSpec::Encoder(_)) {
            return Err(Error::setting(
                "embed_dtype",
                "float32 where no sentence encoder embeds",
                format!("`{}` beside the embedder `{}`", self.embed_dtype, self.embedder),
            )
            .with_hint("name an encoder: `embedder sentence-transformers/all-MiniLM-L6-v2`, or its folder"));
        }
        if self.clusters == Some(0) {
            return Err(Error::setting("clusters", "a number above 0", "0"));
        }
        self.lexical.check()?;
        if self.rerank_top == 0 {
            return Err(Error::setting("rerank_top", "a number above 0", "0"));
        }
        self.check_trainer()?;
        self.finetune.check()?;
        self.language_model.check_for_selecting()?;
        self.gradients.check()?;
        self.agent.check(self.reward_model)?;
        self.dqn.check()?;
        self.dyna_dqn.check()?;
        self.ppo.check()?;
        self.climb_disc.check()
    }

    fn check_trainer(&self) -> Result<()> {
        if self.rerank == Some(JudgeKind::Trainer) && self.trainer.is_none() {
            return Err(
                Error::setting("trainer", "a command, which `rerank trainer` asks", "none")
                    .with_hint("name it: `trainer \"python train.py\"`"),
            );
        }
        if self.trainer.is_some() && self.proxy != ProxyKind::Trainer && self.rerank() != JudgeKind::Trainer {
            let expected = format!("none: with `rerank {}` it is asked for nothing", self.rerank());
            return Err(Error::setting("trainer", expected, "one").with_hint("leave it out, or leave `rerank` out"));
        }
        if self.proxy == ProxyKind::Trainer {
            self.check_trainer_as_proxy()?;
        } else if self.max_cost.is_some() {
            return Err(Error::setting(
                "max_cost",
                "`proxy trainer` beside it: only a trainer says what its scores cost",
                format!("the proxy `{}`", self.proxy),
            ));
        }
        if self.parallel == 0 {
            return Err(Error::setting("parallel", "a number above 0", "0"));
        }
        let default = Self::default();
        let of_trainers = [
            ("parallel", self.parallel != default.parallel),
            ("trial_timeout", self.trial_timeout.is_some()),
            ("retries", self.retries != default.retries),
        ];
        if let (None, Some((name, _))) = (&self.trainer, of_trainers.into_iter().find(|(_, given)| *given)) {
            return Err(Error::setting(name, "a trainer beside it, which it is for", "none")
                .with_hint("leave it out; in `tamis select`, `trainer \"python train.py\"` names one"));
        }
        match self.trial_timeout {
            Some(seconds) if !(seconds > 0.0 && seconds.is_finite()) => Err(Error::setting(
                "trial_timeout",
                "a number of seconds above 0",
                seconds.to_string(),
            )),
            _ => Ok(()),
        }
    }

    /// Whether a trainer can reward the search of these settings.
    fn check_trainer_as_proxy(&self) -> Result<()> {
        if self.trainer.is_none() {
            let expected = "a command, which `proxy trainer` asks";
            return Err(Error::setting("trainer", expected, "none").with_hint("name it: `trainer \"python train.py\"`"));
        }
        if self.agent.pays_for_steps(self.reward_model) {
            return Err(Error::setting(
                "agent",
                "one that asks for scores of whole selections, as a trainer gives them",
                format!("`{}`, which asks for one at every step", self.agent),
            )
            .with_hint("a model of the scores tells it about steps: `reward_model climb-disc`; or name `agent climb-disc` or `agent ppo`"));
        }
        match self.max_cost {
            Some(cost) if !(cost > 0.0 && cost.is_finite()) => {
                return Err(Error::setting("max_cost", "a number above 0", cost.to_string()));
            }
            _ => {}
        }
        let unlimited = self.max_time.is_none() && self.max_cost.is_none();
        if unlimited && self.max_evaluations == Self::default().max_evaluations {
            return Err(Error::setting(
                "max_evaluations",
                "how many trainings may be spent, since each evaluation is one",
                format!("{}, the default", self.max_evaluations),
            )
            .with_hint("30 to 200 are enough: `max_evaluations 100`"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_have_no_effect_is_refused() {
        let given = SelectSettings::default();
        let model = SelectSettings {
            model: Some("a model".into()),
            ..given.clone()
        };
        assert!(model.check_model_is_used(TaskKind::Pair).is_err());
        assert!(model.check_model_is_used(TaskKind::Response).is_ok());
        let used = SelectSettings {
            rerank: Some(JudgeKind::Finetune),
            rerank_top: 9,
            ..model
        };
        assert!(used.check_model_is_used(TaskKind::Pair).is_ok() && used.check().is_ok());
        let unread = SelectSettings {
            rerank_top: 9,
            ..given.clone()
        };
        let unread = unread.for_selecting(TaskKind::Classification, true).map(|_| ());
        let alone = SelectSettings { parallel: 2, ..given }.check();
        for (checked, name) in [(unread, "rerank_top"), (alone, "parallel")] {
            let error = checked.expect_err("no effect");
            assert!(error.to_string().starts_with(name) && error.hint().is_some(), "{error}");
        }
    }

    #[test]
    fn fine_tunes_choose_among_responses_unless_the_user_or_the_engine_says_otherwise() {
        let chooses = |given: &SelectSettings, kind, trains| {
            let settings = given.clone().for_selecting(kind, trains).expect("in order");
            settings.rerank()
        };
        let given = SelectSettings::default();
        assert_eq!(chooses(&given, TaskKind::Response, true), JudgeKind::Finetune);
        assert_eq!(chooses(&given, TaskKind::Response, false), JudgeKind::Probe);
        assert_eq!(chooses(&given, TaskKind::Classification, true), JudgeKind::Probe);
        let probe = SelectSettings {
            rerank: Some(JudgeKind::Probe),
            ..given.clone()
        };
        let trainer = SelectSettings {
            trainer: Some("python train.py".into()),
            ..given
        };
        assert_eq!(chooses(&probe, TaskKind::Response, true), JudgeKind::Probe);
        assert_eq!(chooses(&trainer, TaskKind::Response, true), JudgeKind::Trainer);
    }

    #[test]
    fn auto_is_decided_by_the_domain_auc_and_the_size_of_the_fold_and_nothing_else_changes() {
        let given = SelectSettings::default();
        let shifted = |domain_auc, fold| given.shifted(domain_auc, 10_000, fold);
        assert_eq!([shifted(0.64, 1000), shifted(0.66, 1000)], [false, true]);
        // Three standard errors of 30 rows are 3 / sqrt(360) = 0.158.
        assert_eq!([shifted(0.656, 30), shifted(0.66, 30)], [false, true]);

        // Lexical vectors of few rows tell nothing; those of a model do.
        let few = |embedder: &str| {
            let embedder = embedder.into();
            let given = SelectSettings {
                embedder,
                ..given.clone()
            };
            given.shifted(0.9, 9_999, 1000)
        };
        assert!(!few("lexical") && few("a model"));

        let of = |shifted| {
            let resolved = given.resolved(shifted);
            (resolved.row_order, resolved.reward, resolved.candidates)
        };
        assert_eq!(of(false), (RowOrder::Coverage, RewardKind::Soft, CandidateSet::All));
        assert_eq!(
            of(true),
            (RowOrder::Relevance, RewardKind::LogLoss, CandidateSet::InDomain)
        );
        let slow = SelectSettings {
            proxy: ProxyKind::Finetune,
            ..given.clone()
        };
        assert_eq!(slow.resolved(true).reward, RewardKind::Soft);
        let given = SelectSettings {
            row_order: RowOrder::Random,
            reward: RewardKind::Auc,
            label_error_share: Some(0.1),
            candidates: CandidateSet::Budgets(7.0),
            ..given
        };
        assert_eq!(given.resolved(true), given);
    }

    #[test]
    fn a_portfolio_has_every_mode_that_is_left_open_and_the_aucs_first() {
        let given = SelectSettings::default();
        for (shifted, first) in [(false, CandidateSet::All), (true, CandidateSet::InDomain)] {
            assert_eq!(given.modes(shifted, false).len(), 4);
            let modes = given.modes(shifted, true);
            assert_eq!(modes.len(), 8);
            assert_eq!(modes[0], given.resolved(shifted));
            assert!(modes[..4].iter().all(|mode| mode.candidates == first));
            assert!((1..8).all(|i| !modes[..i].contains(&modes[i])));
        }
        let open = |domain_auc, embedder: &str, rerank| {
            let embedder = embedder.into();
            let settings = SelectSettings {
                embedder,
                rerank,
                ..given.clone()
            };
            settings.candidates_open(domain_auc, 9_999)
        };
        assert_eq!(
            [0.59, 0.6, 0.69, 0.7].map(|auc| open(auc, "a model", None)),
            [false, true, true, false]
        );
        assert!(!open(0.65, "lexical", None) && open(0.9, "lexical", Some(JudgeKind::Finetune)));
        let told = SelectSettings {
            row_order: RowOrder::Random,
            metric: MetricKind::LogLoss,
            ..given.clone()
        };
        assert_eq!(told.modes(true, true).len(), 2, "only the candidates are open");
        for (agent, proxy) in [(Method::Dqn, ProxyKind::Probe), (Method::Auto, ProxyKind::Finetune)] {
            let one = SelectSettings {
                agent,
                proxy,
                ..given.clone()
            };
            assert_eq!(one.modes(true, true), [one.resolved(true)]);
        }
    }
}

//! The flags that several commands share, and the settings that they make together with a `tamis.toml`.

use std::path::{Path, PathBuf};

use clap::Args;
use tamis::{
    Error, Place, Result, Seed,
    agents::network::NetworkKind,
    budget::Budget,
    candidates::{CandidateSet, RowOrder},
    data::{DataSettings, LeakPolicy, TaskKind},
    embed::EmbedderSpec,
    env::pool::ChunkSize,
    metrics::MetricKind,
    search::{Method, RewardModelKind},
    settings::{Dtype, JudgeKind, ProductDtype, ProxyKind, RewardKind, SelectSettings},
};

use crate::values::{Pair, by_name, named, pair, parsed, share};

/// The files, and how they are read.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// Training files: .jsonl, .json, .csv, .tsv, .parquet or .arrow
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) train: Vec<PathBuf>,
    /// Validation files, by which a choice is scored
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) validation: Vec<PathBuf>,
    /// Test files, scored once at the end
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) test: Vec<PathBuf>,
    /// What a field is called in your files, such as `text=review` (repeatable)
    #[arg(long, value_name = "ROLE=NAME", value_parser = pair, help_heading = "Data")]
    field: Vec<Pair>,
    /// The kind of task, where the fields do not show it
    #[arg(long, value_parser = named::<TaskKind>(), help_heading = "Data", hide_short_help = true)]
    task: Option<TaskKind>,
    /// What to do with training rows that are also in validation or test
    #[arg(long, value_name = "POLICY", value_parser = named::<LeakPolicy>(), help_heading = "Data", hide_short_help = true)]
    leaks: Option<LeakPolicy>,
    /// The largest share of bad rows that is accepted, of all and of each split; they are listed in rejects.jsonl
    #[arg(long, value_name = "SHARE", value_parser = share, help_heading = "Data", hide_short_help = true)]
    max_bad: Option<f64>,
}

impl DataArgs {
    /// Lays the flags over the settings.
    pub(crate) fn lay_over(self, data: &mut DataSettings) -> Result<()> {
        for (files, given) in [
            (&mut data.train, self.train),
            (&mut data.validation, self.validation),
            (&mut data.test, self.test),
        ] {
            if !given.is_empty() {
                *files = given;
            }
        }
        data.field.extend(by_name("field", self.field)?);
        data.task = self.task.or(data.task);
        set(&mut data.leaks, self.leaks);
        set(&mut data.max_bad, self.max_bad);
        Ok(())
    }
}

/// Everything that a selection is made by. What few users change is shown by `--help-all` alone.
#[derive(Debug, Args)]
pub(crate) struct SelectArgs {
    #[command(flatten)]
    data: DataArgs,
    /// How much to choose: `5%`, `1000` rows or "200k tokens"
    #[arg(long, allow_negative_numbers = true, value_parser = parsed::<Budget>)]
    budget: Option<Budget>,
    /// Where the run is kept; the same command continues a run that was killed
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A file with the same settings, in TOML; flags win over it
    #[arg(long, value_name = "tamis.toml")]
    config: Option<PathBuf>,

    /// `lexical`, a sentence encoder (folder or hub id), a .npy or .safetensors file of vectors, or auto: `hidden-states` of the language
    /// model for prompts with responses, else `lexical`
    #[arg(long, value_name = "NAME|PATH", help_heading = "Embeddings and clusters")]
    embedder: Option<EmbedderSpec>,
    /// The numbers in which a sentence encoder multiplies
    #[arg(long, value_name = "DTYPE", value_parser = named::<Dtype>(), help_heading = "Embeddings and clusters", hide_short_help = true)]
    embed_dtype: Option<Dtype>,
    /// Where embeddings are kept between runs [default: $XDG_CACHE_HOME/tamis or ~/.cache/tamis]
    #[arg(
        long,
        value_name = "DIR",
        help_heading = "Embeddings and clusters",
        hide_short_help = true
    )]
    cache: Option<PathBuf>,
    /// How many clusters [default: the square root of half the rows, within bounds]
    #[arg(
        long,
        value_name = "K",
        help_heading = "Embeddings and clusters",
        hide_short_help = true
    )]
    clusters: Option<usize>,

    /// What spends the budget
    #[arg(long, value_parser = named::<Method>(), help_heading = "Search")]
    agent: Option<Method>,
    /// Who scores the states that a learning agent meets
    #[arg(long, value_name = "KIND", value_parser = named::<RewardModelKind>(), help_heading = "Search", hide_short_help = true)]
    reward_model: Option<RewardModelKind>,
    /// The network of a learning agent
    #[arg(long, value_parser = named::<NetworkKind>(), help_heading = "Search", hide_short_help = true)]
    network: Option<NetworkKind>,
    /// How much one action takes: a number of rows, "80 steps" (rows for as many), `cluster` or `auto`
    #[arg(long, value_name = "ROWS|STEPS|cluster|auto", value_parser = parsed::<ChunkSize>, help_heading = "Search", hide_short_help = true)]
    chunk: Option<ChunkSize>,
    /// The order in which the rows of a cluster are taken
    #[arg(long, value_name = "ORDER", value_parser = named::<RowOrder>(), help_heading = "Search", hide_short_help = true)]
    row_order: Option<RowOrder>,
    /// The share of rows with suspected label errors, or with responses to other prompts, which are used last; 0 suspects none [default:
    /// as many labels as a probe gets wrong, as many responses as gain no more from their own prompts than from others; at most 0.2]
    #[arg(long, value_name = "SHARE", value_parser = share, allow_negative_numbers = true, help_heading = "Search", hide_short_help = true)]
    label_error_share: Option<f64>,
    /// The rows to choose among: all, in-domain (as like validation rows as half of these are), the most relevant that some budgets pay
    /// for, as in `2x`, or auto (in-domain where validation rows differ from the pool, else all)
    #[arg(long, value_name = "all|in-domain|BUDGETSx|auto", allow_negative_numbers = true, value_parser = parsed::<CandidateSet>, help_heading = "Search", hide_short_help = true)]
    candidates: Option<CandidateSet>,
    /// What is measured
    #[arg(long, value_parser = named::<MetricKind>(), help_heading = "Search")]
    metric: Option<MetricKind>,
    /// The form of the metric that agents are rewarded by
    #[arg(long, value_parser = named::<RewardKind>(), help_heading = "Search", hide_short_help = true)]
    reward: Option<RewardKind>,
    /// What is trained at every state to score it
    #[arg(long, value_parser = named::<ProxyKind>(), help_heading = "Search", hide_short_help = true)]
    proxy: Option<ProxyKind>,
    /// The most evaluations to spend
    #[arg(long, value_name = "N", help_heading = "Search")]
    max_evaluations: Option<u64>,
    /// The most seconds that the agent may take, over all starts [default: no limit]
    #[arg(
        long,
        value_name = "SECONDS",
        allow_negative_numbers = true,
        help_heading = "Search",
        hide_short_help = true
    )]
    max_time: Option<f64>,
    /// The source of all randomness: one seed, one result
    #[arg(long, help_heading = "Search")]
    seed: Option<u64>,

    /// The model to fine-tune, a folder or hub id: of prompts with responses the language model, whose gradients reward a choice; else an
    /// encoder, for `--rerank finetune`, `--proxy finetune` and `--finetune-features` [default: the embedder]
    #[arg(long, value_name = "NAME|DIR", help_heading = "Fine-tuning")]
    model: Option<String>,
    /// The most tokens that the model reads of a row; longer ones are cut and counted [default: 256; prompts with responses 512]
    #[arg(long, value_name = "N", help_heading = "Fine-tuning", hide_short_help = true)]
    max_length: Option<usize>,
    /// The numbers in which the model multiplies
    #[arg(long, value_parser = named::<ProductDtype>(), help_heading = "Fine-tuning", hide_short_help = true)]
    dtype: Option<ProductDtype>,
    /// Give the probe the features, or gradients, of a model that is fine-tuned on this much of the pool first, drawn at random
    #[arg(long, value_name = "BUDGET", value_parser = parsed::<Budget>, help_heading = "Fine-tuning", hide_short_help = true)]
    finetune_features: Option<Budget>,
    /// The most rows of responses that the model reads: a fifth (at least four budgets) at random, the others for their words; no other row
    /// is chosen
    #[arg(long, value_name = "ROWS", help_heading = "Fine-tuning", hide_short_help = true)]
    prefilter: Option<usize>,
    /// What chooses among the best states [default: --trainer where it is given; `select` of responses: finetune; else as --proxy]
    #[arg(long, value_name = "JUDGE", value_parser = named::<JudgeKind>(), help_heading = "Fine-tuning")]
    rerank: Option<JudgeKind>,
    /// How many of the best states a fine-tune or a trainer compares, beside as many random selections
    #[arg(long, value_name = "N", help_heading = "Fine-tuning", hide_short_help = true)]
    rerank_top: Option<usize>,
    /// Your own trainer: a command that reads trials and answers scores as lines of JSON (docs/guide/trainers.md)
    #[arg(long, value_name = "COMMAND", help_heading = "Fine-tuning")]
    trainer: Option<String>,
    /// How many processes of the trainer work at once; `{slot}` in its command is the number of each
    #[arg(long, value_name = "N", help_heading = "Fine-tuning", hide_short_help = true)]
    parallel: Option<usize>,
    /// The most seconds that the trainer may take for a score [default: no limit]
    #[arg(long, value_name = "SECONDS", help_heading = "Fine-tuning", hide_short_help = true)]
    trial_timeout: Option<f64>,
    /// The most that the trainer's scores may cost in a search, in the unit of its own `cost` [default: no limit]
    #[arg(long, value_name = "COST", help_heading = "Fine-tuning", hide_short_help = true)]
    max_cost: Option<f64>,
    /// How many more times the trainer is asked for a score that it failed to give
    #[arg(long, value_name = "N", help_heading = "Fine-tuning", hide_short_help = true)]
    retries: Option<u32>,

    /// How many threads to use; never changes the result [default: RAYON_NUM_THREADS, or all cores]
    #[arg(long, value_name = "N", help_heading = "Machine")]
    pub(crate) threads: Option<usize>,
}

impl SelectArgs {
    /// Refuses `--agent`, which says nothing to a command that takes several, by another setting.
    pub(crate) fn without_agent(self, several: &str) -> Result<Self> {
        match self.agent {
            None => Ok(self),
            Some(agent) => Err(Error::setting(
                "agent",
                format!("`{several}`, which takes several"),
                format!("`{agent}`"),
            )
            .with_hint(format!("give `{several} {agent}`"))),
        }
    }

    /// The settings of a command whose run is kept in `out` where the user does not say.
    pub(crate) fn into_settings_in(self, out: &str) -> Result<SelectSettings> {
        let named = self.out.is_some();
        let mut settings = self.into_settings()?;
        // A settings file that names no folder leaves a selection's.
        if !named && settings.out == SelectSettings::default().out {
            settings.out = PathBuf::from(out);
        }
        Ok(settings)
    }

    /// The settings file's values, or the defaults, with the flags laid over them.
    pub(crate) fn into_settings(self) -> Result<SelectSettings> {
        let mut settings: SelectSettings = from_file(self.config.as_deref())?;
        self.data.lay_over(&mut settings.data)?;
        set(&mut settings.budget, self.budget);
        set(&mut settings.out, self.out);
        set(&mut settings.embedder, self.embedder);
        set(&mut settings.embed_dtype, self.embed_dtype);
        settings.cache = self.cache.or(settings.cache);
        settings.clusters = self.clusters.or(settings.clusters);
        set(&mut settings.agent, self.agent);
        set(&mut settings.reward_model, self.reward_model);
        set(&mut settings.dqn.network, self.network);
        set(&mut settings.ppo.network, self.network);
        set(&mut settings.chunk, self.chunk);
        set(&mut settings.row_order, self.row_order);
        settings.label_error_share = self.label_error_share.or(settings.label_error_share);
        set(&mut settings.candidates, self.candidates);
        set(&mut settings.metric, self.metric);
        set(&mut settings.reward, self.reward);
        set(&mut settings.proxy, self.proxy);
        set(&mut settings.max_evaluations, self.max_evaluations);
        settings.max_time = self.max_time.or(settings.max_time);
        set(&mut settings.seed, self.seed.map(Seed));
        settings.model = self.model.or(settings.model);
        settings.finetune.train.max_length = self.max_length.or(settings.finetune.train.max_length);
        set(&mut settings.finetune.train.dtype, self.dtype);
        settings.finetune_features = self.finetune_features.or(settings.finetune_features);
        settings.prefilter = self.prefilter.or(settings.prefilter);
        settings.rerank = self.rerank.or(settings.rerank);
        set(&mut settings.rerank_top, self.rerank_top);
        settings.trainer = self.trainer.or(settings.trainer);
        set(&mut settings.parallel, self.parallel);
        settings.trial_timeout = self.trial_timeout.or(settings.trial_timeout);
        set(&mut settings.retries, self.retries);
        settings.max_cost = self.max_cost.or(settings.max_cost);
        Ok(settings)
    }
}

/// The settings of a file, or the defaults where there is none.
pub(crate) fn from_file<T: serde::de::DeserializeOwned + Default>(path: Option<&Path>) -> Result<T> {
    let Some(path) = path else { return Ok(T::default()) };
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    let wrong = |expected: &str, error: toml::de::Error| {
        let line = error
            .span()
            .map(|span| 1 + text[..span.start].matches('\n').count() as u64);
        let place = Place {
            path: path.to_path_buf(),
            line,
        };
        Error::data(place, expected, error.message().to_owned())
    };
    toml::from_str::<toml::Table>(&text).map_err(|error| wrong("TOML", error))?;
    toml::from_str(&text).map_err(|error| {
        wrong("settings that tamis knows", error).with_hint(
            "docs/reference/settings.md lists all keys: those of the flags with `_` for `-`, with the data's in `[data]` and those of \
             fine-tuning in `[finetune.train]`, or for `tamis finetune` in `[train]`",
        )
    })
}

/// Lays a flag over a setting.
pub(crate) fn set<T>(setting: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *setting = value;
    }
}

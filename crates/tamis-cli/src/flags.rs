//! The flags that several commands share, and the settings that they make together with a `tamis.toml`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;
use tamis::{Error, Place, Result, Seed, data::DataSettings, settings::SelectSettings};

#[derive(Debug, Args)]
pub(crate) struct SelectArgs {
    /// Training files to choose from: .jsonl, .csv or .parquet (text also .gz or .zst)
    #[arg(long, num_args = 1.., value_name = "FILE")]
    train: Vec<PathBuf>,
    /// Validation files, which judge a choice
    #[arg(long, num_args = 1.., value_name = "FILE")]
    validation: Vec<PathBuf>,
    /// Test files, scored once at the end
    #[arg(long, num_args = 1.., value_name = "FILE")]
    test: Vec<PathBuf>,
    /// How much to choose: `5%`, `1000` rows or "200k tokens" [default: 5%]
    #[arg(long, allow_negative_numbers = true)]
    budget: Option<String>,
    /// Where the run is kept; the same command goes on with a run that was killed [default: runs/ and the command's name,
    /// as in runs/select]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A file with the settings of `select`, `-` in their names written as `_`; flags win over it
    #[arg(long, value_name = "tamis.toml")]
    config: Option<PathBuf>,

    /// What a field is called in your files, such as `text=review` (repeatable)
    #[arg(long, value_name = "ROLE=NAME", help_heading = "Data")]
    field: Vec<String>,
    /// The task, where the fields do not tell it: classification, pair, choice or response
    #[arg(long, help_heading = "Data")]
    task: Option<String>,
    /// What to do with training rows that also stand in validation or test: drop, keep or fail [default: drop]
    #[arg(long, help_heading = "Data")]
    leaks: Option<String>,
    /// The largest share of bad rows that is borne; they are listed in rejects.jsonl [default: 0.01]
    #[arg(long, value_name = "SHARE", value_parser = share, help_heading = "Data")]
    max_bad: Option<f64>,

    /// `lexical`, a sentence encoder (folder or hub id), or a .npy or .safetensors file of vectors [default: lexical]
    #[arg(long, value_name = "NAME|PATH", help_heading = "Embeddings and clusters")]
    embedder: Option<String>,
    /// The numbers in which a sentence encoder multiplies: float32, or int8, a little less exact and more than twice as fast on machines
    /// that multiply bytes (AVX-512 VNNI) [default: float32]
    #[arg(long, value_name = "DTYPE", help_heading = "Embeddings and clusters")]
    embed_dtype: Option<String>,
    /// Where embeddings are kept between runs [default: $XDG_CACHE_HOME/tamis or ~/.cache/tamis]
    #[arg(long, value_name = "DIR", help_heading = "Embeddings and clusters")]
    cache: Option<PathBuf>,
    /// How many clusters [default: the square root of half the rows, within bounds]
    #[arg(long, value_name = "K", help_heading = "Embeddings and clusters")]
    clusters: Option<usize>,

    /// What spends the budget: dqn, dyna-dqn, ppo, climb-disc, greedy, local-search, bandit, random or exhaustive [default: dqn]
    #[arg(long, help_heading = "Search")]
    agent: Option<String>,
    /// Who scores the states that a learning agent meets: none (the proxy) or climb-disc (trees fitted first) [default: none]
    #[arg(long, value_name = "KIND", help_heading = "Search")]
    reward_model: Option<String>,
    /// The agent's network: shared (one network reads each cluster) or flat (the paper's) [default: shared]
    #[arg(long, help_heading = "Search")]
    network: Option<String>,
    /// How much one action takes: a number of rows, "80 steps" (rows for as many), `cluster` or `auto` [default: auto]
    #[arg(long, value_name = "ROWS|STEPS|cluster|auto", help_heading = "Search")]
    chunk: Option<String>,
    /// In which order the rows of a cluster are taken: relevant (those most like validation rows first), representative
    /// (those most like the whole cluster), random, or auto (relevant where validation rows differ from the pool, else
    /// representative) [default: auto]
    #[arg(long, help_heading = "Search")]
    order: Option<String>,
    /// The share of the pool (with macro-f1, of each label) that is taken last: rows whose label a probe finds least probable that
    /// was trained on the other rows, or on validation rows where they differ from the pool [default: 0.2, or as many as
    /// that probe gets wrong if they are fewer]
    #[arg(long, value_name = "SHARE", value_parser = share, allow_negative_numbers = true, help_heading = "Search")]
    doubtful: Option<f64>,
    /// Which rows are chosen among: all; typical (those as much like validation rows as half of these are, at least two budgets'
    /// worth); the rows most like them that so many budgets pay for, as in `2`; or auto (typical where validation rows differ from
    /// the pool, else all) [default: auto]
    #[arg(
        long,
        value_name = "all|typical|BUDGETS|auto",
        allow_negative_numbers = true,
        help_heading = "Search"
    )]
    within: Option<String>,
    /// What is measured: accuracy, macro-f1 or log-loss [default: accuracy]
    #[arg(long, help_heading = "Search")]
    metric: Option<String>,
    /// The form of the metric that agents are rewarded by: soft, hard, auc, calibrated, matched; log-loss, whatever the
    /// metric; or auto (log-loss where validation rows differ from the pool, else soft) [default: auto]
    #[arg(long, help_heading = "Search")]
    reward: Option<String>,
    /// What is trained at every state: probe (a ridge probe, a millisecond) or finetune (the target, seconds) [default: probe]
    #[arg(long, help_heading = "Search")]
    proxy: Option<String>,
    /// The most proxy evaluations to spend [default: 5000]
    #[arg(long, value_name = "N", help_heading = "Search")]
    max_evaluations: Option<u64>,
    /// The most seconds that the agent may take, over all starts [default: no limit]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, help_heading = "Search")]
    max_time: Option<f64>,
    /// The source of all randomness: one seed, one answer [default: 0]
    #[arg(long, help_heading = "Search")]
    seed: Option<u64>,

    /// The encoder that is fine-tuned by `--proxy finetune`, `--judge finetune` and `--adapt`: a folder or hub id
    /// [default: the embedder]
    #[arg(long, value_name = "NAME|DIR", help_heading = "Fine-tuning")]
    model: Option<String>,
    /// Adapt the probe's features: fine-tune the encoder on this much of the pool, random rows that are not doubted, read its
    /// features, and doubt rows anew by them
    #[arg(long, value_name = "BUDGET", help_heading = "Fine-tuning")]
    adapt: Option<String>,
    /// What chooses among the best states: probe, or finetune, which trains the target on each [default: the proxy]
    #[arg(long, help_heading = "Fine-tuning")]
    judge: Option<String>,
    /// How many of the best states are judged by fine-tuning, beside as many random selections [default: 4]
    #[arg(long, value_name = "N", help_heading = "Fine-tuning")]
    finalists: Option<usize>,

    /// How many threads to use; never changes the result [default: RAYON_NUM_THREADS, or all cores]
    #[arg(long, value_name = "N", help_heading = "Machine")]
    pub(crate) threads: Option<usize>,
    /// The most MiB that the probe's chunk matrices may take; others are recomputed [default: 512]
    #[arg(long, value_name = "MiB", help_heading = "Machine")]
    gram_memory: Option<u64>,
}

impl SelectArgs {
    /// Refuses `--agent`, which says nothing to a command that takes several, by another flag.
    pub(crate) fn without_agent(self, several: &str) -> Result<Self> {
        match self.agent {
            None => Ok(self),
            Some(agent) => Err(Error::setting(
                "--agent",
                format!("`{several}`, which takes several"),
                format!("`{agent}`"),
            )
            .with_hint(format!("say `{several} {agent}`"))),
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
        lay_over(
            &mut settings.data,
            [self.train, self.validation, self.test],
            &self.field,
            self.task,
        )?;
        read_into(&mut settings.embed_dtype, self.embed_dtype)?;
        read_into(&mut settings.budget, self.budget)?;
        read_into(&mut settings.data.leaks, self.leaks)?;
        read_into(&mut settings.agent, self.agent)?;
        read_into(&mut settings.reward_model, self.reward_model)?;
        read_into(&mut settings.chunk, self.chunk)?;
        read_into(&mut settings.row_order, self.order)?;
        read_into(&mut settings.candidates, self.within)?;
        read_into(&mut settings.metric, self.metric)?;
        read_into(&mut settings.reward, self.reward)?;
        read_into(&mut settings.dqn.network, self.network.clone())?;
        read_into(&mut settings.ppo.network, self.network)?;
        read_into(&mut settings.proxy, self.proxy)?;
        read_some(&mut settings.finetune_features, "--adapt", self.adapt)?;
        read_some(&mut settings.rerank, "--judge", self.judge)?;
        set(&mut settings.rerank_top, self.finalists);
        settings.model = self.model.or(settings.model);
        set(&mut settings.out, self.out);
        set(&mut settings.data.max_bad, self.max_bad);
        set(&mut settings.embedder, self.embedder);
        set(&mut settings.max_evaluations, self.max_evaluations);
        set(&mut settings.seed, self.seed.map(Seed));
        set(
            &mut settings.gram_memory,
            self.gram_memory.map(|mebibytes| mebibytes.saturating_mul(1 << 20)),
        );
        settings.cache = self.cache.or(settings.cache);
        settings.clusters = self.clusters.or(settings.clusters);
        settings.label_error_share = self.doubtful.or(settings.label_error_share);
        settings.max_time = self.max_time.or(settings.max_time);
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
            "the keys are the flags' names with `_` for `-`, budget, chunk and within are quoted; `[data]` holds train, validation, test, field, task, leaks and \
             max_bad; how a model is fine-tuned stands in `[finetune.train]`, for `tamis finetune` in `[train]`",
        )
    })
}

/// Lays the flags that say what is read (train, validation and test files, field names, the task) over the settings.
pub(crate) fn lay_over(
    data: &mut DataSettings,
    files: [Vec<PathBuf>; 3],
    fields: &[String],
    task: Option<String>,
) -> Result<()> {
    for (target, flag) in [&mut data.train, &mut data.validation, &mut data.test]
        .into_iter()
        .zip(files)
    {
        if !flag.is_empty() {
            *target = flag;
        }
    }
    if !fields.is_empty() {
        data.field = fields
            .iter()
            .map(|field| role_and_name(field))
            .collect::<Result<BTreeMap<_, _>>>()?;
    }
    read_some(&mut data.task, "--task", task)
}

/// A share, from 0 to 1 or in percent: `0.2` or `20%`.
pub(crate) fn share(text: &str) -> std::result::Result<f64, std::num::ParseFloatError> {
    match text.strip_suffix('%') {
        Some(percent) => percent.trim_end().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    }
}

pub(crate) fn set<T>(target: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *target = value;
    }
}

pub(crate) fn read_into<T: std::str::FromStr<Err: Into<Error>>>(target: &mut T, flag: Option<String>) -> Result<()> {
    set(target, flag.map(|text| text.parse()).transpose().map_err(Into::into)?);
    Ok(())
}

/// The same for a setting that may be left out; what is wrong with it is said of the flag.
pub(crate) fn read_some<T: std::str::FromStr<Err = Error>>(
    target: &mut Option<T>,
    flag: &str,
    given: Option<String>,
) -> Result<()> {
    let read = given.map(|text| text.parse().map(Some)).transpose();
    set(target, read.map_err(|error: Error| error.of_setting(flag))?);
    Ok(())
}

fn role_and_name(field: &str) -> Result<(String, String)> {
    match field.split_once('=') {
        Some((role, name)) if !role.is_empty() && !name.is_empty() => Ok((role.to_owned(), name.to_owned())),
        _ => Err(Error::setting(
            "--field",
            "a role and a name, as in `text=review`",
            format!("`{field}`"),
        )),
    }
}

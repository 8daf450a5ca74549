//! `tamis finetune`: the target trained on a selection or on everything.

use std::path::PathBuf;

use clap::Args;
use tamis::{
    Error, Monitor, Result, Seed,
    budget::Budget,
    commands,
    metrics::{Metric, MetricKind},
    records::finetune::{FinetuneRecord, Scores, TargetScores},
    settings::{ADAPTER_CONFIG, FinetuneSettings, LanguageModelSettings, ProductDtype, Projection},
};

use crate::{
    flags::{self, DataArgs, set},
    messages::Messages,
    outcome::Outcome,
    threads::with_threads,
    values::{named, parsed},
};

#[derive(Debug, Args)]
pub(crate) struct FinetuneArgs {
    #[command(flatten)]
    data: DataArgs,
    /// The folder of a `tamis select` run: only its chosen rows are trained on; where no training or no validation files are named, all
    /// files are the run's
    #[arg(long, value_name = "RUN")]
    selection: Option<PathBuf>,
    /// Train on this much of the rows, drawn at random, the control of a selection: `5%`, `1000` or "200k tokens"
    #[arg(long, value_name = "BUDGET", value_parser = parsed::<Budget>, conflicts_with = "selection")]
    sample: Option<Budget>,
    /// Train on the validation rows too; then only test rows evaluate the model
    #[arg(long)]
    with_validation: bool,
    /// The model to start from, a folder or hub id: a BERT, MiniLM, RoBERTa or DistilBERT encoder, or a Llama, Mistral, Qwen2 or Qwen3
    /// language model
    #[arg(long, value_name = "NAME|DIR")]
    model: Option<String>,
    /// Where the trained model and metrics.json are written; the same command continues a run that was killed
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A file with the same settings, in TOML; flags win over it
    #[arg(long, value_name = "tamis.toml")]
    config: Option<PathBuf>,

    /// Passes over the rows
    #[arg(long, value_name = "N", help_heading = "Training")]
    epochs: Option<u32>,
    /// Rows a step
    #[arg(long, value_name = "ROWS", help_heading = "Training")]
    batch_size: Option<usize>,
    /// The highest learning rate; it rises over the first tenth of the steps, then falls to 0 [default: 1e-4; of language models
    /// 2e-4, with --full 2e-5]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true, help_heading = "Training")]
    learning_rate: Option<f32>,
    /// Freeze the embeddings and the lowest N layers [default: train everything]
    #[arg(long, value_name = "N", help_heading = "Training")]
    freeze_layers: Option<usize>,
    /// The most tokens of a text; longer ones are cut and counted [default: 256; of language models 1024]
    #[arg(long, value_name = "TOKENS", help_heading = "Training")]
    max_length: Option<usize>,
    /// The numbers in which it multiplies: float32 or bfloat16
    #[arg(long, value_name = "DTYPE", value_parser = named::<ProductDtype>(), hide_possible_values = true, help_heading = "Training")]
    dtype: Option<ProductDtype>,
    /// Keep the weights of the epoch that scores best on validation rows by this metric [default: the last epoch's]
    #[arg(long, value_name = "METRIC", value_parser = named::<MetricKind>(), help_heading = "Training")]
    load_best: Option<MetricKind>,
    /// Add to the head the label biases that are best for this metric on the validation rows: accuracy or macro-f1
    /// [default: none]
    #[arg(long, value_name = "METRIC", value_parser = named::<MetricKind>(), hide_possible_values = true, help_heading = "Training")]
    label_biases: Option<MetricKind>,
    /// Replace a head that the model already has
    #[arg(long, help_heading = "Training")]
    new_head: bool,
    /// The source of all randomness: one seed, one result
    #[arg(long, help_heading = "Training")]
    seed: Option<u64>,

    #[command(flatten)]
    language_model: LanguageModelArgs,

    /// How many threads to use; never changes the result [default: RAYON_NUM_THREADS, or all cores]
    #[arg(long, value_name = "N", help_heading = "Machine")]
    threads: Option<usize>,
}

/// What is asked of language models alone.
#[derive(Debug, Args)]
#[command(next_help_heading = "Language models")]
struct LanguageModelArgs {
    /// Train all weights [default: LoRA adapters]
    #[arg(long)]
    full: bool,
    /// The rank of the adapters
    #[arg(long, value_name = "R")]
    lora_rank: Option<usize>,
    /// What adapters are scaled by, times the rank
    #[arg(long, value_name = "ALPHA")]
    lora_alpha: Option<f32>,
    /// The share of adapters' inputs that is dropped in training
    #[arg(long, value_name = "SHARE")]
    lora_dropout: Option<f32>,
    /// The linear layers that get an adapter, such as `q_proj v_proj` [default: all seven]
    #[arg(long, num_args = 1.., value_name = "LAYER", value_parser = named::<Projection>(), hide_possible_values = true)]
    lora_target_modules: Vec<Projection>,
    /// Merge the adapters into the model, and write it whole
    #[arg(long)]
    merge: bool,
    /// A Jinja template of what rows with labels or choices ask, from their fields and `labels`
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
}

impl LanguageModelArgs {
    /// Lays the flags over the settings.
    fn lay_over(self, settings: &mut LanguageModelSettings) {
        settings.full |= self.full;
        settings.merge |= self.merge;
        set(&mut settings.lora.rank, self.lora_rank);
        set(&mut settings.lora.alpha, self.lora_alpha);
        set(&mut settings.lora.dropout, self.lora_dropout);
        if !self.lora_target_modules.is_empty() {
            settings.lora.target_modules = self.lora_target_modules;
        }
        settings.template = self.template.or(settings.template.take());
    }
}

impl FinetuneArgs {
    fn into_settings(self) -> Result<FinetuneSettings> {
        let mut settings: FinetuneSettings = flags::from_file(self.config.as_deref())?;
        settings.selection = self.selection.or(settings.selection);
        let named = |flag: &[PathBuf], setting: &[PathBuf]| !flag.is_empty() || !setting.is_empty();
        let all_named =
            named(&self.data.train, &settings.data.train) && named(&self.data.validation, &settings.data.validation);
        if let (Some(run), false) = (&settings.selection, all_named) {
            settings.data = settings.data.over(commands::selection_data(run)?);
        }
        self.data.lay_over(&mut settings.data)?;
        settings.sample = self.sample.or(settings.sample);
        settings.with_validation |= self.with_validation;
        set(&mut settings.model, self.model);
        if settings.model.is_empty() {
            return Err(Error::setting("model", "a model's folder or hub id", "nothing").with_hint(
                "for instance `model sentence-transformers/all-MiniLM-L6-v2`, or the folder of an encoder or a language model",
            ));
        }
        settings.load_best = self.load_best.or(settings.load_best);
        settings.label_biases = self.label_biases.or(settings.label_biases);
        settings.new_head |= self.new_head;
        set(&mut settings.train.epochs, self.epochs);
        set(&mut settings.train.batch_size, self.batch_size);
        set(&mut settings.train.dtype, self.dtype);
        settings.train.learning_rate = self.learning_rate.or(settings.train.learning_rate);
        settings.train.freeze_layers = self.freeze_layers.or(settings.train.freeze_layers);
        settings.train.max_length = self.max_length.or(settings.train.max_length);
        set(&mut settings.seed, self.seed.map(Seed));
        set(&mut settings.out, self.out);
        self.language_model.lay_over(&mut settings.language_model);
        Ok(settings)
    }
}

pub(crate) fn run(args: FinetuneArgs, messages: &Messages, monitor: &dyn Monitor) -> anyhow::Result<Outcome> {
    with_threads(args.threads, || {
        let settings = args.into_settings()?;
        let record = commands::finetune(&settings, monitor)?;
        Ok(Outcome {
            summary: summary(&record, &settings, messages),
            record: serde_json::to_string(&record)?,
            out: settings.out,
            failure: None,
        })
    })
}

/// What a person reads after a fine-tune.
fn summary(record: &FinetuneRecord, settings: &FinetuneSettings, messages: &Messages) -> String {
    let width = record
        .tests
        .keys()
        .map(|file| file.chars().count())
        .fold(12, usize::max);
    let mut text = format!(
        "\nTrained: {} rows, {}, {} steps in {:.1} s ({:.0} rows/s, {:.0} tokens/s)\n\n",
        record.rows,
        match settings.train.epochs {
            1 => "1 epoch".to_owned(),
            epochs => format!("{epochs} epochs"),
        },
        record.steps,
        record.train_seconds,
        record.rows_per_second,
        record.tokens_per_second,
    );
    text += &match record.validation {
        Scores::Labels(_) => format!(
            "  {:width$} {:>10} {:>10} {:>10}\n",
            "", "accuracy", "macro-F1", "log loss"
        ),
        Scores::Responses(scores) => {
            let answers = scores
                .accuracy
                .map(|_| format!(" {:>10} {:>10}", "accuracy", "macro-F1"));
            format!(
                "  {:width$} {:>10} {:>10}{}\n",
                "",
                "loss",
                "perplexity",
                answers.unwrap_or_default()
            )
        }
    };
    let validation = if settings.with_validation {
        "validation*"
    } else {
        "validation"
    };
    text += &line(validation, width, &record.validation);
    for (name, scores) in [("test, before", &record.untrained), ("test", &record.test)] {
        text += &scores.map_or_else(String::new, |scores| line(name, width, &scores));
    }
    for (file, scores) in &record.tests {
        text += &line(file, width, scores);
    }
    if let Some(Scores::Labels(TargetScores {
        tuned_accuracy: Some(accuracy),
        tuned_macro_f1: Some(macro_f1),
        ..
    })) = record.test
    {
        text += &format!("  {:width$} {accuracy:>10.4} {macro_f1:>10.4}\n", "test, tuned*");
        text += "\n* With the bias added to each label's logit that is best for either on the validation rows: `label_biases` of metrics.json.\n";
    }
    text += &remarks(record, settings, messages);
    let read = record.read.map_or_else(String::new, |read| format!("Read: {read}\n"));
    text += &format!(
        "\n{read}Written: {} ({})\n         {}\n",
        settings.out.display(),
        if settings.out.join(ADAPTER_CONFIG).exists() {
            "adapters that peft loads"
        } else {
            "a model that transformers loads"
        },
        settings.out.join("metrics.json").display()
    );
    text
}

/// Scores of some rows, a line.
fn line(name: &str, width: usize, scores: &Scores) -> String {
    match scores {
        Scores::Labels(scores) => format!(
            "  {name:width$} {:>10.4} {:>10.4} {:>10.4}\n",
            scores.accuracy, scores.macro_f1, scores.log_loss
        ),
        Scores::Responses(scores) => {
            let answers = scores.accuracy.zip(scores.macro_f1);
            let answers = answers.map(|(accuracy, macro_f1)| format!(" {accuracy:>10.4} {macro_f1:>10.4}"));
            format!(
                "  {name:width$} {:>10.4} {:>10.4}{}\n",
                scores.loss,
                scores.perplexity,
                answers.unwrap_or_default()
            )
        }
    }
}

/// What has to be known besides the scores, a paragraph each.
fn remarks(record: &FinetuneRecord, settings: &FinetuneSettings, messages: &Messages) -> String {
    let mut text = String::new();
    if let (Some(epoch), Some(metric)) = (record.kept_epoch, settings.load_best) {
        text += &format!(
            "\nKept: the weights of epoch {epoch} of {}, the best on validation rows by {}.\n",
            settings.train.epochs,
            Metric::hard(metric)
        );
    }
    if let Some(metric) = settings.label_biases {
        text += &format!(
            "\nThe head has the label biases that are best for {} on the validation rows, and so have these scores.\n",
            Metric::hard(metric)
        );
    }
    if settings.with_validation {
        text += "\n* Trained on: what they score here says nothing.\n";
    }
    if let Some(label) = &record.only_label {
        text += &format!(
            "\nEvery validation row is given the label `{label}`: the model has learned no other. More epochs, another learning rate or more rows may help.\n"
        );
    }
    if record.truncated > 0 {
        let why = if settings.train.max_length.is_some_and(|most| record.max_length < most) {
            "the model reads no more".to_owned()
        } else {
            messages.text("`max_length` sets how many are kept")
        };
        text += &format!(
            "\n{} texts were cut to {} tokens; {why}.\n",
            record.truncated, record.max_length
        );
    }
    text
}

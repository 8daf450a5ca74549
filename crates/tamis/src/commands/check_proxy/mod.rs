//! `check proxy`: does a cheap score rank selections as the fine-tuned target does, and what does it cost?
//!
//! Selections of several kinds are scored by rewards from low fidelity to high, on the reward fold, and by the target, fine-tuned
//! on them and scored on rows that no reward is made from. A reward is worth what its ranking keeps of the target's.

mod record;
mod rewards;
mod selections;
mod truth;
mod verdict;

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use tamis_nn::Monitor;

use self::{
    rewards::{Reward, lower_fidelities, of_finetune, of_probe, of_rows},
    selections::{Selection, by_rules, drawn, searched},
    truth::Truth,
    verdict::verdict,
};
use crate::{
    Error, Result,
    budget::Budget,
    data,
    pipeline::{
        candidates::Candidates,
        context::Context,
        embed,
        finetuned_features::rows_for_features,
        gradient_probe::GradientProbe,
        gradients::{finetuned_gradients, vectors},
        probe::{Probe, TunedProbe, TunedProbes},
        responses::Responses,
        ridge_probe::{Features, RidgeProbe},
        search::Chunks,
        session::{Read, read},
        stages::{Stages, cpu_seconds},
        target::Target,
    },
    records::selection::{ReadRecord, StageRecord, VERSION},
    search::Method,
    settings::select::{ProxyKind, RewardKind, SelectSettings},
    store::ScoreStore,
    workspace::{folder, json},
};

pub use record::{CheckedReward, CheckedSelection, Costs, DetectableEffect, Fidelity, RowScore, SelectionKind};

/// The forms in which the probabilities of labels are scored.
const FORMS: [RewardKind; 6] = [
    RewardKind::Soft,
    RewardKind::Hard,
    RewardKind::Auc,
    RewardKind::Calibrated,
    RewardKind::Matched,
    RewardKind::LogLoss,
];

/// The forms in which every model's probabilities are scored; a response has one alone.
pub(super) fn forms(context: Context<'_>) -> &'static [RewardKind] {
    match context.responses {
        Some(_) => &[RewardKind::LogLoss],
        None => &FORMS,
    }
}

/// The settings of a check of the proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckProxySettings {
    /// The selection whose proxy is in question. Where it fine-tunes no features, 5% of the pool make those of the comparison.
    pub select: SelectSettings,
    /// How many selections of each kind that is drawn. Default: 4.
    pub selections: usize,
    /// How many rows the target is scored on at most. Default: 4000.
    pub target_rows: usize,
    /// How many more times the target is fine-tuned on one random selection, each time with another training seed. Default: 3.
    pub repeats: usize,
    /// Whether fine-tunes of lower fidelity than the target's are measured as rewards, too. Default: yes.
    pub finetune: bool,
}

impl Default for CheckProxySettings {
    fn default() -> Self {
        Self {
            select: SelectSettings::default(),
            selections: 4,
            target_rows: 4000,
            repeats: 3,
            finetune: true,
        }
    }
}

/// `check_proxy.json`: every selection with its scores, and how well each reward agrees with the target.
#[derive(Debug, Clone, Serialize)]
pub struct CheckProxyRecord {
    /// The format's version.
    pub version: u32,
    /// The program's version.
    pub tamis: String,
    /// What became of the rows of the training files.
    pub read: ReadRecord,
    /// The metric of the target.
    pub metric: String,
    /// Rows of a selection.
    pub rows: u64,
    /// Rows on which the target is scored.
    pub target_rows: u64,
    /// The selections.
    pub selections: Vec<CheckedSelection>,
    /// The rewards, those of low fidelity first.
    pub rewards: Vec<CheckedReward>,
    /// Seconds of one fine-tune of the target and its scoring, on one core.
    pub target_seconds: f64,
    /// What the search costs beside training.
    pub costs: Costs,
    /// What it takes to tell two selections apart; none without repeats.
    pub detectable_effect: Option<DetectableEffect>,
    /// What to make of it, in a sentence or two.
    pub verdict: String,
    /// Seconds and memory by stage.
    pub stages: Vec<StageRecord>,
    /// The settings as resolved.
    pub settings: serde_json::Value,
}

impl CheckProxySettings {
    fn check(&self) -> Result<()> {
        for (name, value) in [("selections", self.selections), ("target_rows", self.target_rows)] {
            if value == 0 {
                return Err(Error::setting(name, "a number above 0", "0"));
            }
        }
        Ok(())
    }

    /// The selection's settings, with a share of the pool that features are fine-tuned on.
    fn with_finetuned_features(&self) -> SelectSettings {
        let share = self.select.finetune_features.unwrap_or(Budget::Percent(5.0));
        SelectSettings {
            finetune_features: Some(share),
            ..self.select.clone()
        }
    }

    /// What `select` would train with these settings to score a selection, of these two probes or a fine-tune.
    fn in_use(&self, [frozen, finetuned]: [Fidelity; 2]) -> Fidelity {
        match self.select.proxy {
            ProxyKind::Finetune => Fidelity::Target,
            ProxyKind::Probe if self.select.finetune_features.is_some() => finetuned,
            ProxyKind::Probe | ProxyKind::Trainer => frozen,
        }
    }
}

/// The probes that are compared: on what the embedder or the model gives as it is, and once a model is fine-tuned on a part of the pool.
fn probes_of(responses: Option<&Responses>) -> [Fidelity; 2] {
    match responses {
        Some(_) => [Fidelity::GradientProbe, Fidelity::FinetunedGradientProbe],
        None => [Fidelity::FrozenProbe, Fidelity::FinetunedProbe],
    }
}

/// Scores selections by rewards of every fidelity and by the target, and compares.
///
/// # Errors
///
/// If the data, the settings or the folder are not as they must be, a file cannot be written, or the user stopped the run.
pub fn check_proxy(settings: &CheckProxySettings, monitor: &dyn Monitor) -> Result<CheckProxyRecord> {
    settings.check()?;
    let stages = Stages::new(monitor);
    let Read {
        settings: select,
        dataset,
        folds,
        responses,
    } = read(&settings.with_finetuned_features(), &stages)?;
    let responses = responses.as_ref();
    let target = Target::load(&select, &dataset, responses)?;
    target.check_memory(1, &select)?;
    let mut store = folder::open(&select, &embed::sources(&select, &dataset, responses)?)?;
    data::write_rejects(&dataset.rejects, &select.out)?;
    let context = Context::new(&select, &dataset, &folds, responses, &stages);

    let candidates = candidates(context)?;
    let limit = candidates.vectors.limit(select.budget)?;
    let chunks = Chunks::cut(context.with(candidates.settings()), &candidates, select.chunk, limit)?;
    let finetuned = finetuned_probe(context, &target, &candidates)?;
    let tune = |probe: &dyn Probe| TunedProbes::new(context, probe, &candidates.vectors, limit);
    let frozen = tune(&*candidates.probe)?;
    let fidelities = probes_of(responses);
    let probes = [
        (fidelities[0], frozen.at_budget),
        (fidelities[1], tune(&*finetuned)?.at_budget),
    ];

    let mut selections = drawn(
        context,
        settings.selections,
        &candidates,
        &chunks,
        &*frozen.at_everything,
    )?;
    selections.extend(by_rules(context, &candidates, &chunks, &*frozen.at_everything)?);
    let began = cpu_seconds();
    selections.extend(searched(context, &chunks, &probes, &mut store)?);
    let search_seconds = cpu_seconds() - began;

    let mut rewards = of_rows(context, &candidates, &selections)?;
    rewards.extend(by_models(context, settings, &target, &probes, &selections, &mut store)?);
    let truth = Truth::measure(context, settings, &target, &selections, &mut store)?;
    let rows = selections[0].rows.len();
    let train_seconds = (truth.seconds - truth.scoring_seconds).max(0.0);
    let costs = Costs {
        search_seconds: search_seconds / (probes.len() * forms(context).len()) as f64,
        train_seconds,
        everything_seconds: train_seconds * dataset.pool.len() as f64 / rows.max(1) as f64,
    };
    rewards.extend(truth.rewards);

    let selections = checked(&selections, &truth.scores, &rewards);
    let seed = select.seed.derive("bootstrap");
    let compared = |reward: Reward| reward.compared(&truth.scores, seed);
    let rewards: Vec<CheckedReward> = rewards.into_iter().map(compared).collect();
    let metric = candidates.settings().reward_metric();
    let record = CheckProxyRecord {
        version: VERSION,
        tamis: env!("CARGO_PKG_VERSION").to_owned(),
        read: ReadRecord::of(&dataset),
        metric: select.report_metric().to_string(),
        rows: rows as u64,
        target_rows: truth.rows as u64,
        verdict: verdict(&rewards, &selections, settings.in_use(fidelities), metric, &costs),
        selections,
        rewards,
        target_seconds: truth.seconds,
        costs,
        detectable_effect: truth.detectable_effect,
        stages: stages.records(),
        settings: serde_json::to_value(settings).unwrap_or_default(),
    };
    json::write_json(&check_proxy_path(settings), &record)?;
    Ok(record)
}

/// The candidates by the embedder's features alone: fine-tuned ones are a reward of their own.
fn candidates(context: Context<'_>) -> Result<Candidates> {
    let embedder = SelectSettings {
        finetune_features: None,
        // One mode, that for the AUC.
        agent: Method::Dqn,
        ..context.settings.clone()
    };
    let context = context.with(&embedder);
    Candidates::find(context, None, vectors(context)?)
}

/// The probe on features, or gradients, of a model that is fine-tuned on a part of the pool.
fn finetuned_probe(context: Context<'_>, target: &Target, candidates: &Candidates) -> Result<Arc<dyn Probe>> {
    let share = context.settings.finetune_features.unwrap_or(Budget::Percent(5.0));
    if let Some(responses) = context.responses {
        let gradients = finetuned_gradients(context, responses, share)?;
        return Ok(Arc::new(GradientProbe::new(context, &gradients)?));
    }
    let rows = rows_for_features(context, share, &candidates.vectors.tokens, &candidates.label_errors)?;
    let features = target.finetuned_features(context, &rows)?;
    Ok(Arc::new(RidgeProbe::new(context, Features::FineTuned(&features))?))
}

/// The rewards of lower fidelity than the target's own for which something is trained.
fn by_models(
    context: Context<'_>,
    settings: &CheckProxySettings,
    target: &Target,
    probes: &[(Fidelity, Arc<dyn TunedProbe>)],
    selections: &[Selection],
    store: &mut dyn ScoreStore,
) -> Result<Vec<Reward>> {
    let mut rewards = Vec::new();
    for (fidelity, probe) in probes {
        rewards.extend(of_probe(context, *fidelity, &**probe, selections)?);
    }
    if settings.finetune {
        for (fidelity, scorer) in lower_fidelities(context, target) {
            rewards.extend(of_finetune(context, fidelity, (target, &scorer), selections, store)?);
        }
    }
    Ok(rewards)
}

/// Every selection with its scores.
fn checked(selections: &[Selection], target: &[f64], rewards: &[Reward]) -> Vec<CheckedSelection> {
    let checked = |(i, selection): (usize, &Selection)| CheckedSelection {
        kind: selection.kind,
        target: target[i],
        rewards: rewards.iter().map(|reward| reward.scores[i]).collect(),
    };
    selections.iter().enumerate().map(checked).collect()
}

/// Where the record of a check is.
pub fn check_proxy_path(settings: &CheckProxySettings) -> PathBuf {
    settings.select.out.join("check_proxy.json")
}

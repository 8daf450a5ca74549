//! Scores of finished selections: of the finalists on the confirm fold, of the choice beside its controls on every fold.

use rayon::prelude::*;
use tamis_nn::{Monitor, seed::Seed};

use crate::{
    Result,
    budget::{Limit, random_rows},
    data::RowId,
    metrics::Metric,
    pipeline::probe_features::ProbeFolds,
    records::selection::{Scored, Scores},
    scorer::ridge::{
        probe_data::ProbeData,
        regression::{Model, Scratch, SufficientStatistics, score, train_and_score},
        tune::{Tuning, tune},
    },
    settings::select::SelectSettings,
    stats::power::mean_and_sd,
};

/// How many random selections of the budget's size stand beside the choice.
const RANDOM_CONTROLS: u64 = 10;

/// The folds and the probe's settings, fixed before the agent begins.
pub(crate) struct Judge<'a> {
    train: &'a ProbeData,
    reward: &'a ProbeData,
    confirm: &'a ProbeData,
    test: Option<&'a ProbeData>,
    /// Ridge strength and temperature at the budget's size.
    at_budget: (f64, f64),
    /// The same at the pool's size, for the control that trains on everything.
    at_everything: (f64, f64),
    /// What agents are rewarded by.
    reward_metric: Metric,
    /// What is reported.
    report_metric: Metric,
}

impl<'a> Judge<'a> {
    /// A judge on these folds, in the settings' metrics.
    pub(crate) fn new(
        designs: &'a ProbeFolds,
        at_budget: &Tuning,
        at_everything: &Tuning,
        settings: &SelectSettings,
    ) -> Self {
        let reward_metric = settings.reward_metric();
        let at = |tuning: &Tuning| (tuning.ridge, tuning.temperature_for(reward_metric));
        Self {
            train: &designs.train,
            reward: &designs.reward,
            confirm: &designs.confirm,
            test: designs.test.as_ref(),
            at_budget: at(at_budget),
            at_everything: at(at_everything),
            reward_metric,
            report_metric: settings.report_metric(),
        }
    }

    /// The finalist that does best on the confirm fold in the reward's metric; ties go to the better on the reward fold,
    /// which stands first.
    pub(crate) fn choose(&self, finalists: &[Vec<RowId>]) -> Result<usize> {
        let scores = self.confirm(finalists)?;
        Ok((0..scores.len())
            .max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)))
            .unwrap_or(0))
    }

    /// The scores of these selections on the confirm fold in the reward's metric, in their order.
    pub(crate) fn confirm(&self, selections: &[Vec<RowId>]) -> Result<Vec<f64>> {
        selections
            .par_iter()
            .map(|rows| {
                train_and_score(self.train, rows, self.at_budget, &[self.confirm], &[self.reward_metric])
                    .map(|scores| scores[0][0])
            })
            .collect()
    }

    /// The choice, ten random selections, the whole pool, and the validation rows outside of the fold, on every fold. Advances `monitor`
    /// by one a training.
    pub(crate) fn scores(
        &self,
        chosen: &[RowId],
        pool: &[RowId],
        (tokens, limit): (&[u32], Limit),
        seed: Seed,
        monitor: &dyn Monitor,
    ) -> Result<Scores> {
        let folds: Vec<&ProbeData> = [Some(self.reward), Some(self.confirm), self.test]
            .into_iter()
            .flatten()
            .collect();
        let metrics = [self.reward_metric, self.report_metric];
        let trained = |rows: &[RowId], tuning: (f64, f64)| {
            let scores = train_and_score(self.train, rows, tuning, &folds, &metrics);
            monitor.advance(1);
            scores
        };
        let choice = trained(chosen, self.at_budget)?;
        let random: Vec<Vec<Vec<f64>>> = (0..RANDOM_CONTROLS)
            .into_par_iter()
            .map(|i| trained(&random_rows(pool, tokens, limit, seed.index(i)), self.at_budget))
            .collect::<Result<_>>()?;
        let everything = trained(pool, self.at_everything)?;
        let validation = self.of_validation_rows(&folds, &metrics, seed, monitor)?;
        let scored = |fold: usize, metric: usize| {
            let values: Vec<f64> = random.iter().map(|scores| scores[fold][metric]).collect();
            let (random_mean, random_sd) = mean_and_sd(&values);
            Scored {
                metric: metrics[metric].to_string(),
                chosen: choice[fold][metric],
                random_mean,
                random_sd,
                everything: everything[fold][metric],
                validation: Some(validation[fold][metric]),
            }
        };
        Ok(Scores {
            reward: scored(0, 0),
            confirm: scored(1, 1),
            confirm_as_reward: scored(1, 0),
            test: self.test.map(|_| scored(2, 1)),
            finetuned: None,
        })
    }

    /// What the probe learns from the validation rows themselves: each fold is scored by one that was trained on those outside of it,
    /// `result[fold][metric]`. Its strength and temperature are what the reward fold likes best of one that was trained on the confirm
    /// fold.
    fn of_validation_rows(
        &self,
        folds: &[&ProbeData],
        metrics: &[Metric],
        seed: Seed,
        monitor: &dyn Monitor,
    ) -> Result<Vec<Vec<f64>>> {
        let rows = self.confirm.all();
        let tuning = tune(self.confirm, &rows, rows.len(), self.reward, seed, monitor)?;
        let temperature = tuning.temperature_for(self.reward_metric);
        let mut scratch = Scratch::new(self.train.width());
        let reward = SufficientStatistics::of(self.reward, &self.reward.all(), &mut scratch);
        let confirm = SufficientStatistics::of(self.confirm, &rows, &mut scratch);
        let mut both = reward.clone();
        both.add(&confirm);
        folds
            .iter()
            .zip([&confirm, &reward, &both])
            .map(|(fold, others)| {
                let model = Model::of(others, tuning.ridge, &mut scratch)?;
                Ok(score(&model, temperature, fold, metrics))
            })
            .collect()
    }
}

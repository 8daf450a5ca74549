//! Scores of finished selections: of the finalists on the confirm fold, of the choice beside its controls on every fold.

use rayon::prelude::*;
use tamis_nn::{Monitor, seed::Seed};

use crate::{
    Result,
    budget::{Limit, random_rows},
    data::RowId,
    metrics::Metric,
    pipeline::{probe_features::ProbeFolds, rerank::best_of},
    records::selection::{Scored, Scores},
    scorer::ridge::{
        probe_data::ProbeData,
        regression::{Model, Scratch, Strength, SufficientStatistics, score, train_and_score},
        tune::{Tuning, tune},
    },
    settings::select::SelectSettings,
    stats::power::mean_and_sd,
};

/// How many random selections of the budget's size stand beside the choice.
const RANDOM_CONTROLS: u64 = 10;

/// The folds and the probe's settings, fixed before the agent begins.
pub(crate) struct Judge<'a> {
    folds: &'a ProbeFolds,
    at_budget: Strength,
    /// For the control that trains on everything.
    at_everything: Strength,
    /// What agents are rewarded by.
    reward_metric: Metric,
    /// What is reported.
    report_metric: Metric,
}

impl<'a> Judge<'a> {
    /// A judge on these folds, in the settings' metrics.
    pub(crate) fn new(
        settings: &SelectSettings,
        folds: &'a ProbeFolds,
        at_budget: &Tuning,
        at_everything: &Tuning,
    ) -> Self {
        let reward_metric = settings.reward_metric();
        Self {
            folds,
            at_budget: at_budget.strength_for(reward_metric),
            at_everything: at_everything.strength_for(reward_metric),
            reward_metric,
            report_metric: settings.report_metric(),
        }
    }

    /// The finalist that does best on the confirm fold in the reward's metric; ties go to the better on the reward fold,
    /// which stands first.
    pub(crate) fn choose(&self, finalists: &[Vec<RowId>]) -> Result<usize> {
        Ok(best_of(&self.confirm(finalists)?))
    }

    /// The scores of these selections on the confirm fold in the reward's metric, in their order.
    pub(crate) fn confirm(&self, selections: &[Vec<RowId>]) -> Result<Vec<f64>> {
        selections
            .par_iter()
            .map(|rows| {
                train_and_score(
                    &self.folds.train,
                    rows,
                    self.at_budget,
                    &[&self.folds.confirm],
                    &[self.reward_metric],
                )
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
        tokens: &[u32],
        limit: Limit,
        seed: Seed,
        monitor: &dyn Monitor,
    ) -> Result<Scores> {
        let ProbeFolds {
            train,
            reward,
            confirm,
            test,
        } = self.folds;
        let folds: Vec<&ProbeData> = [Some(&**reward), Some(confirm), test.as_ref()]
            .into_iter()
            .flatten()
            .collect();
        let metrics = [self.reward_metric, self.report_metric];
        let trained = |rows: &[RowId], strength: Strength| {
            let scores = train_and_score(train, rows, strength, &folds, &metrics);
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
            test: test.as_ref().map(|_| scored(2, 1)),
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
        let (reward, confirm) = (&self.folds.reward, &self.folds.confirm);
        let rows = confirm.all();
        let tuning = tune(confirm, &rows, rows.len(), reward, seed, monitor)?;
        let temperature = tuning.temperature_for(self.reward_metric);
        let mut scratch = Scratch::new(self.folds.train.width());
        let reward = SufficientStatistics::of(reward, &reward.all(), &mut scratch);
        let confirm = SufficientStatistics::of(confirm, &rows, &mut scratch);
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

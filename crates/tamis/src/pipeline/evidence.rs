//! Scores of finished selections: of the finalists on the confirm fold, of the choice beside its controls on every fold.

use rayon::prelude::*;
use tamis_nn::{Monitor, seed::Seed};

use crate::{
    Result,
    budget::{Limit, random_control},
    data::{Dataset, RowId},
    metrics::Metric,
    pipeline::probe::{Fold, TunedProbe},
    records::selection::{Scored, Scores},
    settings::select::SelectSettings,
    stats::{one_standard_error::best_of, power::mean_and_sd},
};

/// How many random selections of the budget's size stand beside the choice.
const RANDOM_CONTROLS: u64 = 10;

/// The probe and the metrics, fixed before the agent begins.
pub(crate) struct Judge<'a> {
    at_budget: &'a dyn TunedProbe,
    /// For the control that trains on everything.
    at_everything: &'a dyn TunedProbe,
    /// What agents are rewarded by.
    reward_metric: Metric,
    /// What is reported.
    report_metric: Metric,
}

impl<'a> Judge<'a> {
    /// A judge in the settings' metrics.
    pub(crate) fn new(
        settings: &SelectSettings,
        at_budget: &'a dyn TunedProbe,
        at_everything: &'a dyn TunedProbe,
    ) -> Self {
        Self {
            at_budget,
            at_everything,
            reward_metric: settings.reward_metric(),
            report_metric: settings.report_metric(),
        }
    }

    /// The finalist that does best on the confirm fold in the reward's metric; ties go to the better on the reward fold,
    /// which stands first.
    pub(crate) fn choose(&self, finalists: &[Vec<RowId>]) -> Result<usize> {
        Ok(best_of(self.confirm(finalists)?.into_iter()))
    }

    /// The scores of these selections on the confirm fold in the reward's metric, in their order.
    pub(crate) fn confirm(&self, selections: &[Vec<RowId>]) -> Result<Vec<f64>> {
        let metric = self.reward_metric;
        let score = |rows: &Vec<RowId>| self.at_budget.scores(rows, metric, &[Fold::Confirm], &[metric]);
        selections.par_iter().map(|rows| Ok(score(rows)?[0][0])).collect()
    }

    /// The choice, ten random selections, the whole pool, and the validation rows outside of the fold, without the choice and with it, on
    /// every fold. Advances `monitor` by one a training.
    pub(crate) fn scores(
        &self,
        chosen: &[RowId],
        dataset: &Dataset,
        tokens: &[u32],
        limit: Limit,
        seed: Seed,
        monitor: &dyn Monitor,
    ) -> Result<Scores> {
        let (folds, test) = (Fold::all(dataset), dataset.test.is_some());
        let metrics = [self.reward_metric, self.report_metric];
        let trained = |rows: &[RowId], probe: &dyn TunedProbe| {
            let scores = probe.scores(rows, self.reward_metric, &folds, &metrics);
            monitor.advance(1);
            scores
        };
        let choice = trained(chosen, self.at_budget)?;
        let random: Vec<Vec<Vec<f64>>> = (0..RANDOM_CONTROLS)
            .into_par_iter()
            .map(|i| trained(&random_control(dataset, tokens, limit, seed.index(i)), self.at_budget))
            .collect::<Result<_>>()?;
        let everything = trained(dataset.random_pool(), self.at_everything)?;
        let validation = self
            .at_budget
            .scores_of_validation_rows(self.reward_metric, test, &metrics, seed, monitor)?;
        let both = self
            .at_budget
            .scores_with_validation_rows(chosen, self.reward_metric, test, &metrics)?;
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
                with_validation: Some(both[fold][metric]),
            }
        };
        Ok(Scores {
            reward: scored(0, 0),
            confirm: scored(1, 1),
            confirm_as_reward: scored(1, 0),
            test: test.then(|| scored(2, 1)),
            finetuned: None,
        })
    }
}

//! The portfolio: rules that cost seconds, and searches in several modes, among which validation rows decide that no search saw.
//!
//! Every mode is searched for a while, from the cluster mixes that the rules choose. The better modes by the confirm fold go on, and the
//! best of them gets what is left of the evaluations (successive halving: Jamieson & Talwalkar 2016). In the end each rule and each mode is
//! an entrant, worth what the confirm fold says of it, cross-fitted; of those within one standard error of the best the simplest is chosen.

mod mode;

use rayon::prelude::*;

use crate::{
    Result,
    baselines::Baseline,
    budget::{Limit, random_control, tokens_of},
    candidates::CandidateSet,
    data::RowId,
    metrics::Metric,
    pipeline::{
        candidates::Candidates,
        context::Context,
        probe::TunedProbe,
        rules::by_rule,
        search::{Decided, Finalist, Found, Rewards, search_by},
    },
    problem::{Limits, Trajectory},
    records::portfolio::{EntrantRecord, PortfolioRecord, RANDOM_ROWS},
    search::{LocalSearch, Method, RewardModelKind, Selector},
    stats::one_standard_error::{Choice, Parts, Value, best_of},
    store::ScoreStore,
};

pub(crate) use mode::Mode;

/// The share of the evaluations that a round of local searches gets; what is left is the agent's.
const ROUNDS: [f64; 3] = [0.2, 0.2, 0.3];
/// Of how many modes one goes on to the next round.
const ETA: usize = 3;
/// The fewest evaluations of a mode in a round; where there are not enough for all, fewer modes are searched.
const LEAST: u64 = 25;
/// How many of the best states of a mode's round are looked at on the confirm fold.
const LOOKED_AT: usize = 4;
/// How many random selections are drawn; they are worth their mean.
const DRAWS: u64 = 4;
/// Facility location compares all rows with each other: of larger pools it is no entrant.
const MOST_COMPARED: usize = 25_000;

/// What a portfolio chooses among, and by.
pub(crate) struct Portfolio<'a> {
    pub(crate) context: Context<'a>,
    pub(crate) candidates: &'a Candidates,
    /// That for the AUC first.
    pub(crate) modes: &'a [Mode<'a>],
    pub(crate) probe: &'a dyn TunedProbe,
    pub(crate) at_everything: &'a dyn TunedProbe,
}

/// A rule, or a search in one mode, with the selections that it came to.
struct Entrant {
    name: String,
    /// Its place among the modes; none of a rule.
    mode: Option<usize>,
    finalists: Vec<Finalist>,
    /// Of each finalist on each part of the confirm fold.
    scores: Vec<Vec<f64>>,
    /// How often it was searched in.
    rounds: u64,
    evaluations: u64,
}

impl Portfolio<'_> {
    /// Spends the evaluations and decides. The first finalist is the choice; then come the other entrants, unlike ones first. The curve is
    /// that of the last search.
    pub(crate) fn search(&self, store: &mut dyn ScoreStore, limits: Limits) -> Result<Found> {
        let seed = self.context.settings.seed;
        let parts = Parts::of(self.context.folds.confirm.len(), seed.derive("parts"));
        let rules = self.rules(&parts)?;
        let starts: Vec<&[RowId]> = rules.iter().map(|rule| &*rule.finalists[0].rows).collect();
        let mut open = self.searches(limits);
        let (mut closed, mut left) = (Vec::new(), limits);
        let (mut failures, mut earlier_seconds) = (0, 0.0);
        for share in ROUNDS {
            let each = share_of(limits, share / open.len() as f64);
            if each.evaluations == 0 {
                break;
            }
            for entrant in &mut open {
                let found = self.go_on(entrant, &starts, (each, false), &parts, store)?;
                failures += found.failures;
                earlier_seconds += found.earlier_seconds;
                left = less(left, each);
            }
            open.sort_by(|a, b| value(b, &parts).total_cmp(&value(a, &parts)));
            closed.extend(open.split_off(open.len().div_ceil(ETA)));
        }
        let mut found = self.go_on(&mut open[0], &starts, (left, true), &parts, store)?;
        found.failures += failures;
        found.earlier_seconds += earlier_seconds;
        // A rule chooses from the whole pool: where the user restricts it, rules are starting points alone.
        let mut entrants = match self.candidates.given {
            CandidateSet::Auto | CandidateSet::All => rules,
            CandidateSet::InDomain | CandidateSet::Budgets(_) => Vec::new(),
        };
        entrants.extend(open);
        entrants.extend(closed);
        entrants.sort_by_key(|entrant| entrant.mode);
        Ok(self.decided(entrants, found, &parts))
    }

    /// The rules, simple ones first.
    fn rules(&self, parts: &Parts) -> Result<Vec<Entrant>> {
        let (context, candidates) = (self.context, self.candidates);
        let (pool, limit) = (&context.dataset.pool, self.modes[0].chunks.limit);
        let seed = context.settings.seed.derive("portfolio");
        let tokens = &candidates.vectors.tokens;
        let random = (0..DRAWS).map(|i| random_control(context.dataset, tokens, limit, seed.index(i)));
        let mut rules = vec![(RANDOM_ROWS, random.collect::<Vec<_>>())];
        let of_responses = context.responses.is_some();
        let entrants = [
            (Baseline::Stratified, !context.dataset.task.labels.is_empty()),
            (Baseline::Frequency, true),
            (Baseline::Similarity, true),
            (Baseline::Less, of_responses),
            (Baseline::Gist, of_responses),
            (Baseline::FacilityLocation, pool.len() <= MOST_COMPARED),
        ];
        // A response to another prompt teaches nothing, however like the validation rows it is.
        let among = if of_responses {
            unsuspected(&candidates.label_errors, tokens, limit)
        } else {
            candidates.all()
        };
        for (rule, _) in entrants.into_iter().filter(|(_, suits)| *suits) {
            let rows = by_rule(rule, context, candidates, self.at_everything, limit, &among)?;
            rules.push((rule.name(), vec![rows]));
        }
        // A single row may cost more than all tokens that there are.
        rules.retain(|(_, draws)| {
            let tokens = |rows: &Vec<RowId>| tokens_of(rows, pool, tokens);
            draws.iter().all(|rows| limit.pays_for(rows.len() as u64, tokens(rows)))
        });
        let entrant = |(name, mut draws): (&str, Vec<Vec<RowId>>)| {
            let scores = self.scores(&draws, parts)?;
            let mean = |part: usize| scores.iter().map(|scores| scores[part]).sum::<f64>() / scores.len() as f64;
            Ok(Entrant {
                name: name.to_owned(),
                mode: None,
                scores: vec![(0..parts.rows().len()).map(mean).collect()],
                finalists: vec![Finalist::by_rule(draws.swap_remove(0))],
                rounds: 0,
                evaluations: 0,
            })
        };
        rules.into_iter().map(entrant).collect()
    }

    /// An entrant for every mode that there are evaluations for, with nothing spent.
    fn searches(&self, limits: Limits) -> Vec<Entrant> {
        let affordable = (limits.evaluations as f64 * ROUNDS[0]) as u64 / LEAST;
        let modes = self.modes.iter().enumerate().take(affordable.max(1) as usize);
        let entrant = |(place, mode): (usize, &Mode<'_>)| Entrant {
            name: mode.name(),
            mode: Some(place),
            finalists: Vec::new(),
            scores: Vec::new(),
            rounds: 0,
            evaluations: 0,
        };
        modes.map(entrant).collect()
    }

    /// Searches in the entrant's mode once more, in the last round by an agent.
    fn go_on(
        &self,
        entrant: &mut Entrant,
        starts: &[&[RowId]],
        (limits, last): (Limits, bool),
        parts: &Parts,
        store: &mut dyn ScoreStore,
    ) -> Result<Found> {
        let place = entrant.mode.unwrap_or(0);
        let mode = &self.modes[place];
        let context = self.context.with(mode.settings);
        let seed = mode.settings.seed.derive("portfolio").derive(&mode.name());
        let seed = seed.index(entrant.rounds);
        entrant.rounds += 1;
        let paths = entrant.finalists.iter().filter_map(|finalist| finalist.path.as_ref());
        let before: Vec<Trajectory> = paths.map(|(_, path)| path.clone()).collect();
        let starts = if before.is_empty() {
            let (pool, clusters) = (&context.dataset.pool, &self.candidates.clustered.clusters.assignment);
            let start = |rows: &&[RowId]| mode.with_mix_of(rows, pool, clusters, seed);
            starts.iter().map(start).collect()
        } else {
            before
        };
        let rewards = Rewards::new(context, &*mode.scorer, None, None);
        let problem = rewards.pose(context, &mode.chunks, store, limits, seed)?;
        // An agent learns nothing in a few episodes, unless it learns on a model of the score.
        let enough = limits.evaluations > 10 * mode.chunks.pool.longest_episode()
            || mode.settings.reward_model != RewardModelKind::None;
        let mut selector: Box<dyn Selector> = if last && enough {
            Method::Dqn.selector(&problem, mode.settings.methods(), seed.derive("agent"))?
        } else {
            Box::new(LocalSearch {
                starts,
                ..LocalSearch::default()
            })
        };
        let mut found = search_by(problem, &mut *selector, (place, &mode.chunks), seed.derive("search"))?;
        if !last {
            found.finalists.truncate(LOOKED_AT);
        }
        let rows: Vec<Vec<RowId>> = found.finalists.iter().map(|finalist| finalist.rows.clone()).collect();
        entrant.scores.extend(self.scores(&rows, parts)?);
        entrant.finalists.append(&mut found.finalists);
        entrant.evaluations += found.evaluations;
        Ok(found)
    }

    /// The scores of selections on each part of the confirm fold, shape `(selections, parts)`.
    fn scores(&self, selections: &[Vec<RowId>], parts: &Parts) -> Result<Vec<Vec<f64>>> {
        let (probe, metric) = (self.probe, self.metric());
        let score = |rows: &Vec<RowId>| probe.scores_on_parts(rows, parts.rows(), metric);
        selections.par_iter().map(score).collect()
    }

    /// What decides.
    fn metric(&self) -> Metric {
        Metric::soft(self.context.settings.metric)
    }

    /// The choice, and what became of each entrant; `found` is what the last search found.
    fn decided(&self, mut entrants: Vec<Entrant>, found: Found, parts: &Parts) -> Found {
        let evaluations = entrants.iter().map(|entrant| entrant.evaluations).sum();
        entrants.retain(|entrant| !entrant.finalists.is_empty());
        if entrants.is_empty() {
            return Found { evaluations, ..found };
        }
        let values: Vec<Value> = entrants.iter().map(|entrant| parts.value(&entrant.scores)).collect();
        let Choice { best, chosen } = parts.choose(&values);
        let record = PortfolioRecord {
            metric: self.metric().to_string(),
            last_reward: self.modes[found.mode].settings.reward_metric().to_string(),
            best: best as u64,
            simplest: chosen as u64,
            chosen: chosen as u64,
            entrants: entrants
                .iter()
                .zip(&values)
                .map(|(entrant, value)| EntrantRecord {
                    name: entrant.name.clone(),
                    mode: entrant.mode.map(|mode| self.modes[mode].record()),
                    evaluations: entrant.evaluations,
                    confirm: value.estimate,
                    standard_error: Some(parts.standard_error(&values[best], value)).filter(|error| error.is_finite()),
                })
                .collect(),
        };
        let kinds: Vec<Kind> = entrants.iter().map(Entrant::kind).collect();
        let estimates: Vec<f64> = values.iter().map(|value| value.estimate).collect();
        let order = order(chosen, &kinds, &estimates);
        let mut entrants: Vec<Option<Entrant>> = entrants.into_iter().map(Some).collect();
        let finalists = order.iter().filter_map(|&place| {
            let mut entrant = entrants[place].take()?;
            let best = best_of(entrant.scores.iter().map(|scores| scores[0] + scores[1]));
            Some(entrant.finalists.swap_remove(best))
        });
        Found {
            finalists: finalists.collect(),
            evaluations,
            portfolio: Some(Decided { record, order }),
            ..found
        }
    }
}

/// What an entrant's rows are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Random,
    Rule,
    Search,
}

impl Entrant {
    fn kind(&self) -> Kind {
        match self.mode {
            Some(_) => Kind::Search,
            None if self.name == RANDOM_ROWS => Kind::Random,
            None => Kind::Rule,
        }
    }
}

/// The places of the entrants, the choice first. Where training compares the first few it may overturn what a probe thinks of unlike rows:
/// rules come next, with the best search unless a search is the choice, by falling estimate; then other searches, whose rows are much the
/// same, and random rows, which training is compared with anyway.
fn order(chosen: usize, kinds: &[Kind], estimates: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..kinds.len()).collect();
    order.sort_by(|&a, &b| estimates[b].total_cmp(&estimates[a]));
    let mut searched = kinds[chosen] == Kind::Search;
    let mut late = vec![false; kinds.len()];
    for &entrant in order.iter().filter(|&&entrant| entrant != chosen) {
        late[entrant] = match kinds[entrant] {
            Kind::Rule => false,
            Kind::Random => true,
            Kind::Search => std::mem::replace(&mut searched, true),
        };
    }
    order.sort_by_key(|&entrant| (entrant != chosen, late[entrant]));
    order
}

/// The places of the rows that are not suspected; of all rows where the limit pays for more than those. `suspected` and `tokens` have the
/// shape `(pool,)`.
fn unsuspected(suspected: &[bool], tokens: &[u32], limit: Limit) -> Vec<u32> {
    let all = 0..suspected.len() as u32;
    let unsuspected: Vec<u32> = all.clone().filter(|&place| !suspected[place as usize]).collect();
    let cost = unsuspected.iter().map(|&place| u64::from(tokens[place as usize])).sum();
    if limit.pays_for(unsuspected.len() as u64, cost) {
        all.collect()
    } else {
        unsuspected
    }
}

/// What an entrant is worth; nothing where the clock stopped it before it came to a selection.
fn value(entrant: &Entrant, parts: &Parts) -> f64 {
    if entrant.finalists.is_empty() {
        return f64::NEG_INFINITY;
    }
    parts.value(&entrant.scores).estimate
}

/// A share of the limits.
fn share_of(limits: Limits, share: f64) -> Limits {
    Limits {
        evaluations: (limits.evaluations as f64 * share) as u64,
        seconds: limits.seconds.map(|seconds| seconds * share),
        cost: None,
    }
}

/// What is left of the limits.
fn less(limits: Limits, spent: Limits) -> Limits {
    Limits {
        evaluations: limits.evaluations - spent.evaluations,
        seconds: limits.seconds.zip(spent.seconds).map(|(left, spent)| left - spent),
        cost: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unlike_entrants_stand_behind_the_choice() {
        use Kind::{Random, Rule, Search};
        let kinds = [Random, Rule, Rule, Search, Search, Search];
        let estimates = [0.9, 0.2, 0.5, 0.6, 0.8, 0.7];
        // Behind a search the rules, the better first; the other searches and random rows last.
        assert_eq!(order(4, &kinds, &estimates), [4, 2, 1, 0, 5, 3]);
        // Behind a rule the best search beside the other rule.
        assert_eq!(order(2, &kinds, &estimates), [2, 4, 1, 0, 5, 3]);
        assert_eq!(order(0, &kinds, &estimates), [0, 4, 2, 1, 5, 3]);
    }

    #[test]
    fn rules_leave_suspected_rows_aside_while_others_are_left() {
        let (suspected, tokens) = ([false, true, false, false], [5, 9, 2, 1]);
        assert_eq!(unsuspected(&suspected, &tokens, Limit::Rows(2)), [0, 2, 3]);
        assert_eq!(unsuspected(&suspected, &tokens, Limit::Tokens(7)), [0, 2, 3]);
        for enough in [Limit::Rows(3), Limit::Tokens(8)] {
            assert_eq!(unsuspected(&suspected, &tokens, enough), [0, 1, 2, 3]);
        }
    }
}

//! What a check of the proxy comes to: what fails, and what to change.

use crate::{
    commands::check_proxy::record::{CheckedReward, CheckedSelection, Costs, Fidelity, SelectionKind},
    metrics::Metric,
    stats::agreement::Agreement,
};

/// What to make of it, in one or two sentences: first what fails and what to change, or that the reward in use, of this fidelity and
/// metric, can be trusted.
pub(super) fn verdict(
    rewards: &[CheckedReward],
    selections: &[CheckedSelection],
    fidelity: Fidelity,
    metric: Metric,
    costs: &Costs,
) -> String {
    let in_use = |reward: &CheckedReward| reward.fidelity == fidelity && reward.metric == metric;
    let Some(now) = rewards.iter().position(in_use) else {
        return String::new();
    };
    let probes = rewards.iter().filter(|reward| reward.fidelity.is_probe());
    let best = probes
        .max_by(|a, b| a.agreement.spearman.value.total_cmp(&b.agreement.spearman.value))
        .unwrap_or(&rewards[now]);
    let ranking = misleading(best).or_else(|| better(&rewards[now], best));
    let failures: Vec<String> = [ranking, overfitted(&rewards[now], now, selections), overhead(costs)]
        .into_iter()
        .flatten()
        .take(2)
        .collect();
    if failures.is_empty() {
        return format!(
            "The reward in use ranks selections much as the target does: {}.",
            described(&rewards[now])
        );
    }
    failures.join(" ")
}

/// Even the best probe's ranking may be chance.
fn misleading(best: &CheckedReward) -> Option<String> {
    (best.agreement.spearman.low <= 0.0).then(|| {
        format!(
            "Misleading: no probe is shown to rank selections as the fine-tuned target does (best: {}); let fine-tunes decide with \
             `rerank finetune`, or give more validation rows.",
            described(best)
        )
    })
}

/// Another probe ranks clearly better than the one in use.
fn better(now: &CheckedReward, best: &CheckedReward) -> Option<String> {
    let (mine, other) = (now.agreement.spearman, best.agreement.spearman);
    let clearly = other.value > mine.value + 0.1 || mine.low <= 0.0;
    (clearly && best != now).then(|| {
        format!(
            "There is a better reward than {}: use {}.",
            described(now),
            described(best)
        )
    })
}

/// The search's choice scores above all drawn selections on the reward fold, and its target no better than random ones'.
fn overfitted(now: &CheckedReward, place: usize, selections: &[CheckedSelection]) -> Option<String> {
    let (fidelity, metric) = (now.fidelity, now.metric);
    let kind = SelectionKind::Searched { fidelity, metric };
    let chosen = selections.iter().find(|selection| selection.kind == kind)?;
    let is_drawn = |selection: &&CheckedSelection| {
        !matches!(selection.kind, SelectionKind::Searched { .. } | SelectionKind::Rule(_))
    };
    let drawn = selections.iter().filter(is_drawn);
    let most = drawn
        .map(|drawn| drawn.rewards[place])
        .fold(f64::NEG_INFINITY, f64::max);
    let random: Vec<f64> = selections
        .iter()
        .filter(|selection| selection.kind == SelectionKind::Random)
        .map(|selection| selection.target)
        .collect();
    let mean = random.iter().sum::<f64>() / random.len() as f64;
    (chosen.rewards[place] > most && chosen.target <= mean).then(|| {
        format!(
            "Overfitted: on the reward fold the search's choice scores {:.3} and drawn selections {most:.3} at most, but its target \
             scores {:.3} and that of random selections {mean:.3}; give more validation rows, another `reward`, or fewer \
             `max_evaluations`.",
            chosen.rewards[place], chosen.target
        )
    })
}

/// The search costs more than training on a selection saves.
fn overhead(costs: &Costs) -> Option<String> {
    (costs.search_seconds > costs.everything_seconds - costs.train_seconds).then(|| {
        format!(
            "Overhead above the benefit: one search takes {:.1} s of one core, a fine-tune on a selection {:.1} s and one on everything \
             about {:.1} s; give fewer `max_evaluations`, or train on everything.",
            costs.search_seconds, costs.train_seconds, costs.everything_seconds
        )
    })
}

fn described(reward: &CheckedReward) -> String {
    let Agreement { spearman, regret, .. } = reward.agreement;
    format!(
        "{}, {}: rank correlation {:.2} ({:.2} to {:.2}), regret {:.3}",
        reward.fidelity, reward.metric, spearman.value, spearman.low, spearman.high, regret.value
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{metrics::MetricKind, stats::agreement::Interval};

    fn reward(fidelity: Fidelity, metric: Metric, spearman: f64, low: f64) -> CheckedReward {
        let interval = |value, low| Interval { value, low, high: 1.0 };
        CheckedReward {
            fidelity,
            metric,
            agreement: Agreement {
                spearman: interval(spearman, low),
                kendall: interval(0.0, 0.0),
                regret: interval(0.0, 0.0),
                states: 9,
            },
            seconds: 0.1,
        }
    }

    fn selection(kind: SelectionKind, target: f64, reward: f64) -> CheckedSelection {
        CheckedSelection {
            kind,
            target,
            rewards: vec![reward; 2],
        }
    }

    const A: Fidelity = Fidelity::FrozenProbe;
    const B: Fidelity = Fidelity::FinetunedProbe;

    fn soft() -> Metric {
        Metric::soft(MetricKind::Accuracy)
    }

    fn hard() -> Metric {
        Metric::hard(MetricKind::Accuracy)
    }

    fn chosen() -> SelectionKind {
        SelectionKind::Searched {
            fidelity: A,
            metric: soft(),
        }
    }

    const CHEAP: Costs = Costs {
        search_seconds: 3.0,
        train_seconds: 10.0,
        everything_seconds: 200.0,
    };

    #[test]
    fn the_verdict_names_what_fails_and_what_to_change() {
        let good = [reward(A, soft(), 0.8, 0.5), reward(B, hard(), 0.7, 0.2)];
        let honest = [
            selection(SelectionKind::Random, 0.5, 0.5),
            selection(SelectionKind::Random, 0.6, 0.5),
            selection(chosen(), 0.7, 0.9),
        ];
        let sound = verdict(&good, &honest, A, soft(), &CHEAP);
        assert!(
            sound.starts_with("The reward in use ranks selections much as the target does: probe, frozen"),
            "{sound}"
        );

        let chance = [
            reward(A, soft(), 0.3, -0.2),
            reward(Fidelity::OneEpoch, soft(), 0.9, 0.8),
        ];
        let said = verdict(&chance, &honest, A, soft(), &CHEAP);
        assert!(
            said.starts_with("Misleading") && said.contains("`rerank finetune`"),
            "{said}"
        );

        let other = [reward(A, soft(), 0.3, -0.2), reward(B, soft(), 0.35, 0.1)];
        let said = verdict(&other, &honest, A, soft(), &CHEAP);
        assert!(
            said.contains("better reward") && said.contains("use probe, fine-tuned"),
            "{said}"
        );

        // A target of .55 is the mean of the random ones.
        let fitted = [honest[0].clone(), honest[1].clone(), selection(chosen(), 0.55, 0.9)];
        let said = verdict(&good, &fitted, A, soft(), &CHEAP);
        assert!(
            said.starts_with("Overfitted") && said.contains("scores 0.900 and drawn selections 0.500 at most"),
            "{said}"
        );
        assert!(said.contains("`reward`"), "{said}");
        let modest = [honest[0].clone(), honest[1].clone(), selection(chosen(), 0.55, 0.5)];
        assert!(verdict(&good, &modest, A, soft(), &CHEAP).starts_with("The reward in use"));

        let slow = Costs {
            search_seconds: 191.0,
            ..CHEAP
        };
        let said = verdict(&good, &honest, A, soft(), &slow);
        assert!(
            said.starts_with("Overhead above the benefit: one search takes 191.0 s"),
            "{said}"
        );
        let all = verdict(&chance, &fitted, A, soft(), &slow);
        assert!(
            all.starts_with("Misleading") && all.contains("Overfitted") && !all.contains("Overhead"),
            "{all}"
        );
    }
}

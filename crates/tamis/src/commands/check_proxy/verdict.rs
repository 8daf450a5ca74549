//! What a check of the proxy comes to: what it takes to tell two selections apart, and a verdict that names what fails.

use crate::{
    commands::check_proxy::record::{CheckedState, Costs, Rung},
    stats::agreement::Agreement,
};

/// What to make of it, in one or two sentences: first what fails and what to change, or that the reward in use, whose model and metric
/// are `used`, can be trusted.
pub(crate) fn verdict(rungs: &[Rung], states: &[CheckedState], used: (&str, &str), costs: &Costs) -> String {
    let Some(now) = rungs
        .iter()
        .position(|rung| (rung.model.as_str(), rung.metric.as_str()) == used)
    else {
        return String::new();
    };
    let probes = rungs.iter().filter(|rung| rung.model.starts_with("probe"));
    let best = probes
        .max_by(|a, b| a.agreement.spearman.value.total_cmp(&b.agreement.spearman.value))
        .unwrap_or(&rungs[now]);
    let ranking = misleading(best).or_else(|| better(&rungs[now], best));
    let failures: Vec<String> = [ranking, overfitted(&rungs[now], now, states), overhead(costs)]
        .into_iter()
        .flatten()
        .take(2)
        .collect();
    if failures.is_empty() {
        return format!(
            "The reward in use ranks selections much as the target does: {}.",
            told(&rungs[now])
        );
    }
    failures.join(" ")
}

/// Even the best probe's ranking may be chance.
fn misleading(best: &Rung) -> Option<String> {
    (best.agreement.spearman.low <= 0.0).then(|| {
        format!(
            "Misleading: no probe is shown to rank selections as the fine-tuned target does (best: {}); let fine-tunes decide with \
             `rerank finetune`, or give more validation rows.",
            told(best)
        )
    })
}

/// Another probe ranks clearly better than the one in use.
fn better(now: &Rung, best: &Rung) -> Option<String> {
    let (mine, other) = (now.agreement.spearman, best.agreement.spearman);
    let clearly = other.value > mine.value + 0.1 || mine.low <= 0.0;
    (clearly && best != now).then(|| format!("There is a better reward than {}: use {}.", told(now), told(best)))
}

/// The search's choice scores above all drawn selections on the reward fold, and its target no better than random ones'.
fn overfitted(now: &Rung, place: usize, states: &[CheckedState]) -> Option<String> {
    let chosen = states
        .iter()
        .find(|state| state.kind == chosen_by(&now.model, &now.metric))?;
    let drawn = states.iter().filter(|state| !state.kind.starts_with(CHOSEN));
    let most = drawn.map(|state| state.rungs[place]).fold(f64::NEG_INFINITY, f64::max);
    let random: Vec<f64> = states
        .iter()
        .filter(|state| state.kind == RANDOM)
        .map(|state| state.target)
        .collect();
    let mean = random.iter().sum::<f64>() / random.len() as f64;
    (chosen.rungs[place] > most && chosen.target <= mean).then(|| {
        format!(
            "Overfitted: on the reward fold the search's choice scores {:.3} and drawn selections {most:.3} at most, but its target \
             scores {:.3} and that of random selections {mean:.3}; give more validation rows, another `reward`, or fewer \
             `max_evaluations`.",
            chosen.rungs[place], chosen.target
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

fn told(rung: &Rung) -> String {
    let Agreement { spearman, regret, .. } = rung.agreement;
    format!(
        "{}, {}: rank correlation {:.2} ({:.2} to {:.2}), regret {:.3}",
        rung.model, rung.metric, spearman.value, spearman.low, spearman.high, regret.value
    )
}

/// The kind of a random selection.
pub(crate) const RANDOM: &str = "random";
/// How the kinds of searched selections begin.
const CHOSEN: &str = "chosen by";

/// The kind of the selection that a search under this reward chose.
pub(crate) fn chosen_by(model: &str, metric: &str) -> String {
    format!("{CHOSEN} {model}, {metric}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::agreement::Interval;

    fn rung(model: &str, metric: &str, spearman: f64, low: f64) -> Rung {
        let interval = |value, low| Interval { value, low, high: 1.0 };
        Rung {
            model: model.into(),
            metric: metric.into(),
            agreement: Agreement {
                spearman: interval(spearman, low),
                kendall: interval(0.0, 0.0),
                regret: interval(0.0, 0.0),
                states: 9,
            },
            seconds: 0.1,
        }
    }

    fn state(kind: &str, target: f64, reward: f64) -> CheckedState {
        CheckedState {
            kind: kind.into(),
            target,
            rungs: vec![reward; 2],
        }
    }

    const CHEAP: Costs = Costs {
        search_seconds: 3.0,
        train_seconds: 10.0,
        everything_seconds: 200.0,
    };

    #[test]
    fn the_verdict_names_what_fails_and_what_to_change() {
        let good = [rung("probe, a", "soft", 0.8, 0.5), rung("probe, b", "hard", 0.7, 0.2)];
        let honest = [
            state(RANDOM, 0.5, 0.5),
            state(RANDOM, 0.6, 0.5),
            state("chosen by probe, a, soft", 0.7, 0.9),
        ];
        let sound = verdict(&good, &honest, ("probe, a", "soft"), &CHEAP);
        assert!(
            sound.starts_with("The reward in use ranks selections much as the target does: probe, a"),
            "{sound}"
        );

        let chance = [rung("probe, a", "soft", 0.3, -0.2), rung("fine-tune", "soft", 0.9, 0.8)];
        let said = verdict(&chance, &honest, ("probe, a", "soft"), &CHEAP);
        assert!(
            said.starts_with("Misleading") && said.contains("`rerank finetune`"),
            "{said}"
        );

        let other = [rung("probe, a", "soft", 0.3, -0.2), rung("probe, b", "soft", 0.35, 0.1)];
        let said = verdict(&other, &honest, ("probe, a", "soft"), &CHEAP);
        assert!(
            said.contains("better reward") && said.contains("use probe, b"),
            "{said}"
        );

        // A target of .55 is the mean of the random ones.
        let fitted = [
            honest[0].clone(),
            honest[1].clone(),
            state("chosen by probe, a, soft", 0.55, 0.9),
        ];
        let said = verdict(&good, &fitted, ("probe, a", "soft"), &CHEAP);
        assert!(
            said.starts_with("Overfitted") && said.contains("scores 0.900 and drawn selections 0.500 at most"),
            "{said}"
        );
        assert!(said.contains("`reward`"), "{said}");
        let modest = [
            honest[0].clone(),
            honest[1].clone(),
            state("chosen by probe, a, soft", 0.55, 0.5),
        ];
        assert!(verdict(&good, &modest, ("probe, a", "soft"), &CHEAP).starts_with("The reward in use"));

        let slow = Costs {
            search_seconds: 191.0,
            ..CHEAP
        };
        let said = verdict(&good, &honest, ("probe, a", "soft"), &slow);
        assert!(
            said.starts_with("Overhead above the benefit: one search takes 191.0 s"),
            "{said}"
        );
        let all = verdict(&chance, &fitted, ("probe, a", "soft"), &slow);
        assert!(
            all.starts_with("Misleading") && all.contains("Overfitted") && !all.contains("Overhead"),
            "{all}"
        );
    }
}

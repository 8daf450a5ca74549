//! How the agent `auto` decided between rules and searches.

use serde::{Deserialize, Serialize};

/// What the control is called among the entrants.
pub const RANDOM_ROWS: &str = "random";

/// How a portfolio decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortfolioRecord {
    /// What decided, on the confirm fold; log loss is negated.
    pub metric: String,
    /// What rewarded the last search, whose curve is written.
    pub last_reward: String,
    /// The rules, simple ones first, then the searches.
    pub entrants: Vec<EntrantRecord>,
    /// The place of the best by its estimate.
    pub best: u64,
    /// The place of the first that cannot be told from the best.
    pub simplest: u64,
    /// The place of the entrant whose rows were chosen: the simplest, unless fine-tuning on some of them, or a trainer, preferred another.
    pub chosen: u64,
}

/// A rule, or a search in one mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EntrantRecord {
    /// Its name.
    pub name: String,
    /// Where it searched; none of a rule.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<ModeRecord>,
    /// Evaluations that it spent.
    pub evaluations: u64,
    /// What it is worth on the confirm fold, cross-fitted; higher is better.
    pub confirm: f64,
    /// The standard error of its distance to the best entrant; none where the confirm fold has too few rows to tell.
    pub standard_error: Option<f64>,
}

/// The settings in which searches differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeRecord {
    /// Which rows it chose among.
    pub candidates: String,
    /// The order in which a cluster gave them.
    pub row_order: String,
    /// What rewarded it.
    pub reward: String,
}

impl EntrantRecord {
    /// Whether it is a rule.
    pub fn by_rule(&self) -> bool {
        self.mode.is_none()
    }

    /// What it is, in a sentence.
    pub fn shown(&self) -> String {
        match &self.mode {
            Some(ModeRecord {
                candidates,
                row_order,
                reward,
            }) => format!("a search (candidates {candidates}, row order {row_order}, reward {reward})"),
            None if self.name == RANDOM_ROWS => "drawing random rows".to_owned(),
            None => self.name.clone(),
        }
    }
}

impl PortfolioRecord {
    fn entrant(&self, place: u64) -> &EntrantRecord {
        &self.entrants[place as usize]
    }

    /// Whose rows were chosen.
    pub fn chosen(&self) -> &EntrantRecord {
        self.entrant(self.chosen)
    }

    /// Whether random rows were chosen.
    pub fn nothing_beats_random(&self) -> bool {
        self.chosen().name == RANDOM_ROWS
    }

    /// A sentence on who was chosen, and why.
    pub fn decision(&self) -> String {
        let (best, simplest, chosen) = (self.entrant(self.best), self.entrant(self.simplest), self.chosen());
        let count = self.entrants.len();
        if self.chosen != self.simplest {
            return format!(
                "Of {count} rules and searches, training on what the best few choose preferred {}; by the probe it would be {}.",
                chosen.shown(),
                simplest.shown()
            );
        }
        let metric = &self.metric;
        if self.simplest != self.best {
            let (behind, error) = (best.confirm - chosen.confirm, chosen.standard_error);
            let error = error.map_or("too few rows to tell".to_owned(), |error| {
                format!("standard error {error:.4}")
            });
            return format!(
                "Of {count} rules and searches {} is the simplest that the confirm fold cannot tell from the best, which is {}: {metric} \
                 {:.4} and {:.4}, {behind:.4} apart ({error}).",
                chosen.shown(),
                best.shown(),
                chosen.confirm,
                best.confirm
            );
        }
        let others = self
            .entrants
            .iter()
            .filter(|entrant| entrant.by_rule() != chosen.by_rule());
        let next = others.max_by(|a, b| a.confirm.total_cmp(&b.confirm));
        let next = next.map_or(String::new(), |next| {
            let kind = if next.by_rule() { "rule" } else { "search" };
            format!("; the best {kind}, {}, has {:.4}", next.shown(), next.confirm)
        });
        format!(
            "Of {count} rules and searches {} is the best on the confirm fold: {metric} {:.4}{next}.",
            chosen.shown(),
            chosen.confirm
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entrant(name: &str, searched: bool, confirm: f64, standard_error: f64) -> EntrantRecord {
        EntrantRecord {
            name: name.into(),
            mode: searched.then(|| ModeRecord {
                candidates: "all".into(),
                row_order: "coverage".into(),
                reward: "soft".into(),
            }),
            evaluations: 0,
            confirm,
            standard_error: Some(standard_error),
        }
    }

    #[test]
    fn the_decision_is_told_with_its_reason() {
        let mut record = PortfolioRecord {
            metric: "accuracy".into(),
            last_reward: "soft_accuracy".into(),
            entrants: vec![
                entrant(RANDOM_ROWS, false, 0.5, 0.01),
                entrant("similarity", false, 0.55, 0.01),
                entrant("search", true, 0.6, 0.0),
            ],
            best: 2,
            simplest: 2,
            chosen: 2,
        };
        assert_eq!(
            record.decision(),
            "Of 3 rules and searches a search (candidates all, row order coverage, reward soft) is the best on the confirm fold: accuracy \
             0.6000; the best rule, similarity, has 0.5500."
        );
        record.simplest = 1;
        record.chosen = 1;
        record.entrants[1].standard_error = Some(0.06);
        assert_eq!(
            record.decision(),
            "Of 3 rules and searches similarity is the simplest that the confirm fold cannot tell from the best, which is a search \
             (candidates all, row order coverage, reward soft): accuracy 0.5500 and 0.6000, 0.0500 apart (standard error 0.0600)."
        );
        assert!(!record.nothing_beats_random());
        record.chosen = 0;
        assert!(record.nothing_beats_random());
        assert_eq!(
            record.decision(),
            "Of 3 rules and searches, training on what the best few choose preferred drawing random rows; by the probe it would be \
             similarity."
        );
    }
}

//! The methods of a study, by name.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    baselines::Baseline,
    records::study::{EVERYTHING, Family, RANDOM},
    search::Method,
};

/// A way to come by training rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum StudyMethod {
    /// The whole pool.
    Everything,
    /// Random rows.
    Random,
    /// A rule that never looks at a score.
    Rule(Baseline),
    /// Greedy search whose actions are whole clusters.
    ClusterGreedy,
    /// An agent or a search over scores.
    Search(Method),
}

impl StudyMethod {
    /// All of them that suit the rows, but `exhaustive`, which few pools are small enough for; in the order of a table.
    pub fn all(responses: bool) -> Vec<Self> {
        let rules = Baseline::NAMES.iter().map(|(rule, ..)| *rule);
        let rules = rules
            .filter(|rule| responses || !rule.needs_responses())
            .map(Self::Rule);
        // Simple ones first.
        let searches = Method::NAMES.iter().rev().map(|(method, ..)| *method);
        [Self::Everything, Self::Random]
            .into_iter()
            .chain(rules)
            .chain([Self::ClusterGreedy])
            .chain(
                searches
                    .filter(|&method| method != Method::Exhaustive)
                    .map(Self::Search),
            )
            .collect()
    }

    /// Every method with its name and, in a line, what it is: those of a table, then `exhaustive`.
    pub fn named() -> Vec<(Self, &'static str, &'static str)> {
        let all = Self::all(true).into_iter().chain([Self::Search(Method::Exhaustive)]);
        all.map(|method| (method, method.name(), method.meaning())).collect()
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Everything => EVERYTHING,
            Self::Random => RANDOM,
            Self::Rule(rule) => rule.name(),
            Self::ClusterGreedy => "cluster-greedy",
            // Its rows are those of the best of many random selections, and not random.
            Self::Search(Method::Random) => "random-search",
            Self::Search(method) => method.name(),
        }
    }

    /// What it is, in a line.
    fn meaning(self) -> &'static str {
        let rule = |rule| Baseline::NAMES.iter().find(|(known, ..)| *known == rule);
        let search = |method| Method::NAMES.iter().find(|(known, ..)| *known == method);
        match self {
            Self::Everything => "all rows",
            Self::Random => "random rows: the control",
            Self::Rule(of) => rule(of).map_or("", |(.., meaning)| *meaning),
            Self::ClusterGreedy => "greedy search whose actions are whole clusters",
            Self::Search(of) => search(of).map_or("", |(.., meaning)| *meaning),
        }
    }

    /// Whether its seconds grow with the square of the rows.
    pub(crate) fn compares_all_rows(self) -> bool {
        matches!(self, Self::Rule(Baseline::FacilityLocation | Baseline::KCenter))
    }

    /// What kind of method it is.
    pub fn family(self) -> Family {
        match self {
            Self::Everything | Self::Random => Family::Control,
            Self::Rule(_) => Family::Baseline,
            Self::Search(Method::Auto | Method::Dqn | Method::DynaDqn | Method::Ppo | Method::ClimbDisc) => {
                Family::Agent
            }
            Self::ClusterGreedy | Self::Search(_) => Family::Search,
        }
    }
}

impl fmt::Display for StudyMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for StudyMethod {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let all = Self::named();
        let named = all.iter().find(|(_, name, _)| *name == text);
        named.map(|(method, ..)| *method).ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|(_, name, _)| *name).collect();
            let expected = format!("names among {}", names.join(", "));
            Error::setting("methods", expected, format!("`{text}`"))
        })
    }
}

impl TryFrom<String> for StudyMethod {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<StudyMethod> for String {
    fn from(method: StudyMethod) -> Self {
        method.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_responses_are_for_responses_alone() {
        let less = StudyMethod::Rule(Baseline::Less);
        assert!(StudyMethod::all(true).contains(&less) && !StudyMethod::all(false).contains(&less));
    }

    #[test]
    fn every_method_reads_what_it_shows() {
        let mut names: Vec<String> = StudyMethod::all(true).iter().map(StudyMethod::to_string).collect();
        for (method, name) in StudyMethod::all(true).iter().zip(&names) {
            assert_eq!(name.parse::<StudyMethod>().expect("a name"), *method);
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "names are unique");
        assert!(
            "no-such"
                .parse::<StudyMethod>()
                .expect_err("unknown")
                .to_string()
                .contains("dyna-dqn")
        );
    }
}

//! Everything that can be set for `study`.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use tamis_nn::seed::Seed;

use crate::{
    Error, Result,
    budget::Budget,
    records::study::Family,
    settings::{select::SelectSettings, study_method::StudyMethod},
};

/// The settings of a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StudySettings {
    /// Data, metric, proxy, judge and how agents work. Its agent and budget do not count; its seed is the first one.
    pub select: SelectSettings,
    /// The methods, in the order of the table. Default (none): all that suit the rows, but `exhaustive`.
    pub methods: Vec<StudyMethod>,
    /// The budgets. Default: 5%.
    pub budgets: Vec<Budget>,
    /// How many seeds, from the selection's on. Default: 5.
    pub seeds: u64,
    /// Selections that were made elsewhere: their name, and a text file that names rows, with `{seed}` and `{budget}` in its path
    /// where there is one for each.
    pub selections: BTreeMap<String, String>,
    /// How many rows a fine-tuned target is scored on at most, in each column. Default: 4000.
    pub eval_rows: usize,
}

impl Default for StudySettings {
    fn default() -> Self {
        Self {
            select: SelectSettings {
                out: PathBuf::from("runs/study"),
                ..SelectSettings::default()
            },
            methods: Vec::new(),
            budgets: vec![SelectSettings::default().budget],
            seeds: 5,
            selections: BTreeMap::new(),
            eval_rows: 4000,
        }
    }
}

impl StudySettings {
    pub(crate) fn check(&self) -> Result<()> {
        if self.seeds == 0 {
            return Err(Error::setting("seeds", "a number above 0", "0"));
        }
        if self.eval_rows == 0 {
            return Err(Error::setting("eval_rows", "a number above 0", "0"));
        }
        if self.select.max_time.is_some() {
            return Err(Error::setting("max_time", "no time limit in a study", "one")
                .with_hint("`max_evaluations` limits all methods alike, and gives the same answer on every machine"));
        }
        let methods: Vec<String> = self.methods.iter().map(StudyMethod::to_string).collect();
        let budgets: Vec<String> = self.budgets.iter().map(Budget::to_string).collect();
        for (flag, names) in [("methods", &methods), ("budgets", &budgets)] {
            if let Some(twice) = (1..names.len()).find(|&i| names[..i].contains(&names[i])) {
                let found = format!("`{}` twice", names[twice]);
                return Err(Error::setting(flag, "each name once", found));
            }
        }
        for (name, given) in &self.selections {
            if name.parse::<StudyMethod>().is_ok() {
                return Err(Error::setting(
                    "selection",
                    "a name that no method has",
                    format!("`{name}`"),
                ));
            }
            // It becomes a part of a path.
            let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
            if !name.chars().all(plain) || name.starts_with('.') {
                return Err(Error::setting(
                    "selection",
                    "a name of letters, digits, `-`, `_` and `.`",
                    format!("`{name}`"),
                ));
            }
            if self.budgets.len() > 1 && !given.contains("{budget}") {
                return Err(Error::setting(
                    "selection",
                    "`{budget}` in the path where there are several budgets",
                    format!("`{given}`"),
                ));
            }
        }
        Ok(())
    }

    /// The lines of the table with their families.
    pub(crate) fn lines(&self) -> Vec<(String, Family)> {
        let methods = self.methods.iter().map(|method| (method.to_string(), method.family()));
        let given = self.selections.keys().map(|name| (name.clone(), Family::Given));
        methods.chain(given).collect()
    }

    /// The settings of one seed.
    pub(crate) fn of_seed(&self, index: u64) -> SelectSettings {
        SelectSettings {
            seed: Seed(self.select.seed.0.wrapping_add(index)),
            ..self.select.clone()
        }
    }
}

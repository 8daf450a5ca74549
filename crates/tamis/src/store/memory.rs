//! Scores in memory, gone with the process.

use std::collections::{BTreeMap, HashMap};

use crate::{
    Result,
    store::{Answer, Key, ScoreStore},
};

/// Keeps everything for as long as the process lives: for searches that nobody wants to go on with, and for tests.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    scores: HashMap<Key, f64>,
    failures: HashMap<Key, String>,
    answers: HashMap<Key, Answer>,
    timestamps: HashMap<String, BTreeMap<u64, f64>>,
    notes: HashMap<String, String>,
}

impl ScoreStore for MemoryStore {
    fn get(&self, key: &Key) -> Option<f64> {
        self.scores.get(key).copied()
    }

    fn failure(&self, key: &Key) -> Option<&str> {
        self.failures.get(key).map(String::as_str)
    }

    fn len(&self) -> usize {
        self.scores.len()
    }

    fn record(&mut self, key: Key, score: f64, _seconds: f64) -> Result<()> {
        self.scores.insert(key, score);
        Ok(())
    }

    fn record_failure(&mut self, key: Key, reason: &str, _seconds: f64) -> Result<()> {
        self.failures.insert(key, reason.to_owned());
        Ok(())
    }

    fn answer(&self, key: &Key) -> Result<Option<Answer>> {
        Ok(self.answers.get(key).cloned())
    }

    fn record_answer(&mut self, key: &Key, answer: &Answer) -> Result<()> {
        self.answers.insert(*key, answer.clone());
        Ok(())
    }

    fn record_timestamp(&mut self, scope: &str, evaluations: u64, seconds: f64) {
        let search = self.timestamps.entry(scope.to_owned()).or_default();
        search.insert(evaluations, seconds);
    }

    fn timestamps(&self, scope: &str) -> Result<Vec<(u64, f64)>> {
        let search = self.timestamps.get(scope).into_iter().flatten();
        Ok(search.map(|(&evaluations, &seconds)| (evaluations, seconds)).collect())
    }

    fn meta(&self, name: &str) -> Result<Option<String>> {
        Ok(self.notes.get(name).cloned())
    }

    fn set_meta(&mut self, name: &str, value: &str) -> Result<()> {
        self.notes.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        Ok(())
    }
}

//! One part of the data, and its files.

use std::{collections::HashMap, path::Path};

use rayon::prelude::*;

use crate::data::{Example, SourceFile};

/// One part of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The files it was read from.
    pub files: Vec<SourceFile>,
    /// Its good rows, in the order of the files.
    pub examples: Vec<Example>,
}

impl Split {
    /// Takes examples out; the list ascends.
    pub(crate) fn leave_out(&mut self, examples: &[u32]) {
        let mut number = 0..;
        self.examples
            .retain(|_| number.next().is_none_or(|i| examples.binary_search(&i).is_err()));
    }

    /// How many records its files have, those that could not be used with them.
    pub fn records(&self) -> usize {
        self.files.iter().map(|file| file.records as usize).sum()
    }

    /// The number of an example's record, counted from 0 over all files, bad rows with them.
    pub fn record_number(&self, example: u32) -> u64 {
        let origin = self.examples[example as usize].origin;
        let before = &self.files[..origin.file as usize];
        before.iter().map(|file| file.records).sum::<u64>() + origin.record
    }

    /// The targets of all examples, shape `(examples,)`.
    pub fn targets(&self) -> Vec<u32> {
        self.examples.iter().map(|example| example.target).collect()
    }

    /// Every text, in the order of the examples and of [`Input::texts`](crate::data::Input::texts) within one.
    pub fn texts(&self) -> Vec<&str> {
        self.examples.iter().flat_map(|example| example.input.texts()).collect()
    }

    /// Where each example's texts begin in [`Split::texts`], and the end; shape `(examples + 1,)`.
    pub fn text_starts(&self) -> Vec<u32> {
        let mut starts = vec![0];
        for example in &self.examples {
            starts.push(starts[starts.len() - 1] + example.input.texts().len() as u32);
        }
        starts
    }

    /// What each example's texts are known by, shape `(examples,)`; those of two are equal only if all their texts are.
    pub(crate) fn identities(&self) -> Vec<[u8; 16]> {
        self.examples
            .par_iter()
            .map(|example| example.input.identity())
            .collect()
    }

    /// The first example that has the same texts, of each its number, shape `(examples,)`.
    pub fn firsts(&self) -> Vec<u32> {
        let mut firsts = HashMap::with_capacity(self.examples.len());
        (0..)
            .zip(self.identities())
            .map(|(row, identity)| *firsts.entry(identity).or_insert(row))
            .collect()
    }

    /// The examples of each file by their number, with a short name of the file: `test` where there is one, else the end of its
    /// path that tells it from the others.
    pub fn by_file(&self) -> Vec<(String, Vec<u32>)> {
        let paths: Vec<&Path> = self.files.iter().map(|file| file.path.as_path()).collect();
        let mut files: Vec<_> = short_names(&paths).into_iter().map(|name| (name, Vec::new())).collect();
        for (i, example) in (0..).zip(&self.examples) {
            files[example.origin.file as usize].1.push(i);
        }
        files
    }
}

/// The ends of the paths that tell them apart, without what stands behind the first dot; one path alone is `test`.
fn short_names(paths: &[&Path]) -> Vec<String> {
    if paths.len() == 1 {
        return vec!["test".into()];
    }
    let parts = |path: &Path| -> Vec<String> {
        path.components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect()
    };
    let longest = paths.iter().map(|path| parts(path).len()).max().unwrap_or(1);
    let names_of = |count: usize| -> Vec<String> {
        let name = |path: &&Path| {
            let mut parts = parts(path);
            let from = parts.len().saturating_sub(count);
            if let Some(file) = parts.last_mut() {
                let stem = file.split('.').next().unwrap_or_default().to_owned();
                *file = stem;
            }
            parts[from..].join("/")
        };
        paths.iter().map(name).collect()
    };
    let unique = |names: &[String]| names.iter().collect::<std::collections::HashSet<_>>().len() == names.len();
    (1..=longest)
        .map(names_of)
        .find(|names| unique(names))
        .unwrap_or_else(|| paths.iter().map(|path| path.display().to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_files_are_called_by_what_tells_them_apart() {
        let names = |paths: &[&str]| short_names(&paths.iter().map(Path::new).collect::<Vec<_>>());
        assert_eq!(names(&["data/test.jsonl"]), ["test"]);
        assert_eq!(names(&["data/test.jsonl.gz", "data/hard.csv"]), ["test", "hard"]);
        assert_eq!(names(&["a/b/test.jsonl", "a/c/test.jsonl"]), ["b/test", "c/test"]);
        assert_eq!(names(&["test.jsonl", "test.jsonl"]), ["test.jsonl", "test.jsonl"]);
    }
}

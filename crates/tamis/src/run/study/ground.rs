//! What the cells of one seed share.

use std::path::Path;

use super::StudySettings;
use crate::{
    Monitor, Result,
    budget::{Budget, Limit},
    data::Dataset,
    folds::Folds,
    pool::{Grain, Pool},
    proxy::{design::Design, tune::Tuning},
    run::{
        describe,
        judge::{limit_of, random_rows},
        prepare::{Designs, Features, Grouped, group},
        settings::{ProxyKind, SelectSettings},
        stages::Stages,
        target::{Target, target_and_features},
    },
    select::FeatureContext,
};

/// The rows that selections are scored on: the confirm fold, then each test file.
pub(super) struct Columns {
    pub(super) names: Vec<String>,
    pub(super) rows: Vec<u64>,
    /// The examples of each test file, by their number in the test split.
    pub(super) tests: Vec<Vec<u32>>,
}

impl Columns {
    pub(super) fn of(dataset: &Dataset, settings: &StudySettings) -> Result<Self> {
        // Another seed's fold has as many rows.
        let folds = Folds::split(&dataset.validation.targets(), settings.select.seed.derive("folds"))?;
        let mut columns = Self {
            names: vec!["confirm".into()],
            rows: vec![folds.confirm.len() as u64],
            tests: Vec::new(),
        };
        if let Some(test) = &dataset.test {
            let paths: Vec<&Path> = test.files.iter().map(|file| file.path.as_path()).collect();
            columns.names.extend(short_names(&paths));
            for file in 0..test.files.len() {
                let examples = (0..).zip(&test.examples);
                let of_file = examples.filter(|(_, example)| example.origin.file as usize == file);
                columns.tests.push(of_file.map(|(i, _)| i).collect());
            }
            columns.rows.extend(columns.tests.iter().map(|rows| rows.len() as u64));
        }
        if settings.select.judge() == ProxyKind::Finetune {
            columns
                .rows
                .iter_mut()
                .for_each(|rows| *rows = (*rows).min(settings.judge_rows as u64));
        }
        Ok(columns)
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

/// Wall-clock seconds of the stages that prepare a seed's cells.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Prepared {
    pub(super) embed: f64,
    pub(super) cluster: f64,
    /// Features and tuning of the probe.
    pub(super) probe: f64,
    /// What this seed spent on all of it.
    pub(super) spent: f64,
}

impl Prepared {
    pub(super) fn total(&self) -> f64 {
        self.embed + self.cluster + self.probe
    }
}

/// What a budget adds.
pub(super) struct Plot {
    pub(super) limit: Limit,
    pub(super) pool: Pool,
    pub(super) features: FeatureContext,
    /// The same with whole clusters as chunks.
    pub(super) whole: (Pool, FeatureContext),
    pub(super) tuning: Tuning,
}

/// Vectors, clusters, folds and features of a seed, and its budgets.
pub(super) struct Ground<'a> {
    pub(super) dataset: &'a Dataset,
    /// With the seed.
    pub(super) settings: SelectSettings,
    pub(super) folds: Folds,
    pub(super) grouped: Grouped,
    pub(super) designs: Designs,
    /// What selections are scored on, in the order of the columns.
    pub(super) judged: Vec<Design>,
    /// The examples of each test file.
    pub(super) tests: &'a [Vec<u32>],
    pub(super) plots: Vec<Plot>,
    pub(super) at_everything: Tuning,
    pub(super) target: Option<Target>,
    /// How many cells share the memory.
    pub(super) workers: u64,
    pub(super) prepared: Prepared,
}

impl<'a> Ground<'a> {
    pub(super) fn new(
        study: &StudySettings,
        index: u64,
        (dataset, tests): (&'a Dataset, &'a [Vec<u32>]),
        earlier: Option<Self>,
        stages: &mut Stages<'_>,
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        let settings = study.of_seed(index);
        let seed = settings.seed;
        let folds = Folds::split(&dataset.validation.targets(), seed.derive("folds"))?;
        let began = stages.seconds();
        // Vectors depend on the seed only where they are fitted to the texts.
        let (known, embed) = match earlier {
            Some(Ground { grouped, prepared, .. }) if settings.embedder != "lexical" => {
                (Some((grouped.embedded, grouped.tokens)), Some(prepared.embed))
            }
            _ => (None, None),
        };
        let grouped = group(&settings, (dataset, &folds), known, stages, monitor)?;
        let settings = grouped.settings.clone();
        let (tokens, embedded) = (grouped.tokens.as_slice(), grouped.embedded.as_slice());
        let (target, adapted) = target_and_features(&settings, dataset, tokens, stages, monitor)?;
        let features = adapted
            .as_deref()
            .map_or(Features::Embedded(embedded), Features::Adapted);
        let designs = Designs::new(&settings, (dataset, &folds), features, stages)?;
        let judged = std::iter::once(designs.confirm.clone())
            .chain(
                tests
                    .iter()
                    .filter_map(|rows| Some(designs.test.as_ref()?.select(rows))),
            )
            .collect();
        let plots = stages.run("tune", None, || {
            let traits = describe::traits(dataset, &folds, &embedded[1], &grouped.clusters);
            let plot = |budget: &Budget| {
                let limit = limit_of(*budget, tokens)?;
                let rows = random_rows(&dataset.pool, tokens, limit, seed.derive("size")).len();
                let of = |chunk| {
                    let pool = grouped.pool(dataset, chunk, limit);
                    let features = FeatureContext::new(traits.clone(), &pool);
                    (pool, features)
                };
                let (pool, features) = of(settings.chunk);
                Ok(Plot {
                    limit,
                    pool,
                    features,
                    whole: of(Grain::Cluster),
                    tuning: designs.tuning(dataset, rows, seed, monitor)?,
                })
            };
            study.budgets.iter().map(plot).collect::<Result<_>>()
        })?;
        let at_everything = stages.run("tune", None, || {
            designs.tuning(dataset, dataset.pool.len(), seed, monitor)
        })?;
        let after = stages.seconds();
        let of = |name: &str| after.get(name).unwrap_or(&0.0) - began.get(name).unwrap_or(&0.0);
        let total = after.values().sum::<f64>() - began.values().sum::<f64>();
        let cluster = of("cluster") + of("order");
        let prepared = Prepared {
            // Every method needs the vectors, also where an earlier seed made them.
            embed: embed.unwrap_or(of("embed")),
            cluster,
            probe: total - of("embed") - cluster,
            spent: total,
        };
        Ok(Self {
            dataset,
            settings,
            folds,
            grouped,
            designs,
            judged,
            tests,
            plots,
            at_everything,
            target,
            workers: rayon::current_num_threads() as u64,
            prepared,
        })
    }
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

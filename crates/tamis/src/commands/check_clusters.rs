//! `check clusters`: are the clusters groups of alike rows, would another seed find the same ones, and what have they to do with labels?
//!
//! Rows are embedded and clustered as `select` clusters them. Beside every measure stands what random clusters of the same sizes have;
//! half as many and twice as many clusters stand beside the number in use.

use std::path::PathBuf;

use rand::seq::index;
use serde::{Deserialize, Serialize};
use tamis_nn::{Matrix, Monitor, seed::Seed};

use crate::{
    Error, Result,
    cluster::{self, ClusterStatistics, Clusters, KMeansSettings},
    data::{self, Dataset, RowId},
    pipeline::{
        context::Context,
        describe, embed,
        gradients::vectors,
        session::{Read, read},
        stages::Stages,
    },
    records::selection::{ReadRecord, StageRecord, VERSION},
    settings::select::SelectSettings,
    stats::{
        null_cloud::cloud,
        partition::{adjusted_rand, mutual_information, purity, shuffled, silhouettes},
    },
    store::ScoreStore as _,
    workspace::{folder, json},
};

/// A mean silhouette that is not this much above random clusters' is none. Measured: docs/lab/2026-11-clusters.md.
const LEAST_COHERENCE: f64 = 0.01;
/// Seeds that agree on the rows (adjusted Rand index) not by this share of what a cloud without groups leaves better than on the cloud
/// find no groups. Measured: docs/lab/2026-11-clusters.md.
const LEAST_STABILITY: f64 = 0.15;
/// A cluster of more than this share of the rows is no part.
const LARGEST: f64 = 0.5;
/// A cluster of fewer rows is tiny, and no more than this share of the clusters should be.
const TINY: u64 = 5;
/// See `TINY`.
const MOST_TINY: f64 = 0.25;
/// Labels are told by clusters where purity or mutual information go this share of the way from random clusters' to 1. With fewer
/// clusters than labels purity is low whatever they are.
const TELLING: f64 = 0.1;
/// Characters of a row's text in the record.
const TEXT: usize = 160;

/// The settings of a check of the clusters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckClustersSettings {
    /// The selection whose clusters are in question.
    pub select: SelectSettings,
    /// How many rows, drawn at random, silhouettes are computed on at most; time is quadratic in it. Default: 4000.
    pub sample: usize,
    /// How many seeds the rows are clustered with; 2 or more. Default: 3.
    pub seeds: usize,
}

impl Default for CheckClustersSettings {
    fn default() -> Self {
        Self {
            select: SelectSettings::default(),
            sample: 4000,
            seeds: 3,
        }
    }
}

/// `check_clusters.json`: how good the clusters are, and each of them.
#[derive(Debug, Clone, Serialize)]
pub struct CheckClustersRecord {
    /// The format's version.
    pub version: u32,
    /// The program's version.
    pub tamis: String,
    /// What became of the rows of the training files.
    pub read: ReadRecord,
    /// Rows that are clustered.
    pub rows: u64,
    /// Those of them that silhouettes are computed on.
    pub sample: u64,
    /// The numbers of clusters that were looked at; the first is the one in use.
    pub counts: Vec<CountRecord>,
    /// What the clusters in use have to do with the labels; none where the task has no labels.
    pub labels: Option<LabelsRecord>,
    /// The clusters in use.
    pub clusters: Vec<CheckedCluster>,
    /// What to make of it, in a sentence.
    pub verdict: String,
    /// Seconds and memory by stage.
    pub stages: Vec<StageRecord>,
    /// The settings as resolved.
    pub settings: serde_json::Value,
}

/// How good so many clusters are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CountRecord {
    /// How many clusters.
    pub clusters: usize,
    /// The mean silhouette of the sampled rows; from -1 to 1, higher is better.
    pub silhouette: f64,
    /// That of random clusters of the same sizes.
    pub silhouette_random: f64,
    /// The adjusted Rand index between two seeds' clusterings, over all pairs of seeds; 1 is the same clusters, 0 chance: mean, least
    /// and greatest.
    pub stability: f64,
    /// See `stability`.
    pub stability_least: f64,
    /// See `stability`.
    pub stability_greatest: f64,
    /// That of two seeds' clusterings of a cloud without groups, of the same mean and covariance.
    pub stability_cloud: f64,
}

/// What clusters have to do with labels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelsRecord {
    /// The share of the rows that carry the most frequent label of their cluster.
    pub purity: f64,
    /// That of random clusters of the same sizes.
    pub purity_random: f64,
    /// The normalised mutual information of clusters and labels, from 0 to 1.
    pub mutual_information: f64,
    /// That of random clusters of the same sizes.
    pub mutual_information_random: f64,
}

/// One cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckedCluster {
    /// Its rows.
    pub rows: u64,
    /// The mean silhouette of its sampled rows; none where fewer than two of them were sampled.
    pub silhouette: Option<f64>,
    /// Its most frequent label, and the share of its rows that carry it; none where the task has no labels.
    pub label: Option<String>,
    /// See `label`.
    pub purity: Option<f64>,
    /// The words that mark it, most telling first.
    pub words: Vec<String>,
    /// The rows nearest to its centre.
    pub nearest: Vec<NearRow>,
}

/// A row that stands for its cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NearRow {
    /// Its file.
    pub file: PathBuf,
    /// Its line or row there, from 1.
    pub row: u64,
    /// The beginning of its text.
    pub text: String,
}

/// Clusters the rows with several seeds and measures what comes of it.
///
/// # Errors
///
/// If the data, the settings or the folder are not as they must be, a file cannot be written, or the user stopped the run.
pub fn check_clusters(settings: &CheckClustersSettings, monitor: &dyn Monitor) -> Result<CheckClustersRecord> {
    let stages = Stages::new(monitor);
    for (name, value) in [("sample", settings.sample), ("seeds", settings.seeds)] {
        if value < 2 {
            return Err(Error::setting(name, "2 or more", value.to_string()));
        }
    }
    let Read {
        settings: select,
        dataset,
        folds,
        responses,
    } = read(&settings.select, &stages)?;
    let responses = responses.as_ref();
    let mut ledger = folder::open(&select, &embed::sources(&select, &dataset, responses)?)?;
    data::write_rejects(&dataset.rejects, &select.out)?;
    let context = Context::new(&select, &dataset, &folds, responses, &stages);
    let views = vectors(context)?.of_pool(context)?.to_matrix()?;
    let sample = sample(&views, settings);
    let counts = counts(select.clusters_of(views.rows()), views.rows());
    let total = (counts.len() * (settings.seeds + 2)) as u64;
    let (counts, clusters, each) = stages.run("cluster", Some(total), || {
        compare(settings, &counts, &views, &sample, monitor)
    })?;
    let statistics = stages.run("describe", None, || describe::statistics(&dataset, &clusters, &views))?;
    let labels = labels(&dataset, &clusters, select.seed);
    let clusters: Vec<CheckedCluster> = statistics
        .into_iter()
        .enumerate()
        .map(|(i, statistics)| {
            let inside = sample.iter().zip(&each);
            let inside = inside.filter(|(point, _)| clusters.assignment[**point as usize] as usize == i);
            let silhouettes: Vec<f64> = inside.map(|(_, silhouette)| *silhouette).collect();
            checked(&dataset, statistics, &silhouettes)
        })
        .collect();
    let record = CheckClustersRecord {
        version: VERSION,
        tamis: env!("CARGO_PKG_VERSION").to_owned(),
        read: ReadRecord::of(&dataset),
        rows: views.rows() as u64,
        sample: sample.len() as u64,
        verdict: verdict(&counts, labels.as_ref(), &clusters),
        counts,
        labels,
        clusters,
        stages: stages.records(),
        settings: serde_json::to_value(settings).unwrap_or_default(),
    };
    json::write_json(&check_clusters_path(settings), &record)?;
    ledger.set_meta(folder::CHECKED, "yes")?;
    Ok(record)
}

/// The rows that silhouettes are of, in ascending order.
fn sample(views: &Matrix, settings: &CheckClustersSettings) -> Vec<u32> {
    let mut rng = settings.select.seed.derive("silhouettes").rng();
    let mut sample: Vec<u32> = index::sample(&mut rng, views.rows(), settings.sample.min(views.rows()))
        .into_iter()
        .map(|point| point as u32)
        .collect();
    sample.sort_unstable();
    sample
}

/// The number of clusters in use, then half of it and twice it, where so many rows can be clustered so.
fn counts(in_use: usize, rows: usize) -> Vec<usize> {
    let others = [in_use / 2, in_use * 2];
    let others = others.into_iter().filter(|k| (2..=rows / 2).contains(k));
    std::iter::once(in_use).chain(others).collect()
}

/// Clusters the rows into each number of clusters with several seeds. Returns the record of each, and the clusters in use, which are
/// the first, with the silhouettes of the sample. Advances `monitor` by one a clustering.
fn compare(
    settings: &CheckClustersSettings,
    counts: &[usize],
    views: &Matrix,
    sample: &[u32],
    monitor: &dyn Monitor,
) -> Result<(Vec<CountRecord>, Clusters, Vec<f64>)> {
    let select = &settings.select;
    let sampled = views.gather(sample);
    let cloud = cloud(views, select.seed.derive("cloud"));
    let mut records = Vec::new();
    let mut used = None;
    for &count in counts {
        let k_means = KMeansSettings {
            clusters: count,
            ..select.k_means.clone()
        };
        // The first seed is the one that `select` clusters with.
        let seed = select.seed.derive("k-means");
        let cluster = |points: &Matrix, i: u64| {
            let seed = if i == 0 { seed } else { seed.index(i) };
            let clusters = cluster::k_means(points, &k_means, seed, monitor)?;
            monitor.advance(1);
            Ok(clusters)
        };
        let with_seeds = |points: &Matrix, seeds: u64| (0..seeds).map(|i| cluster(points, i)).collect::<Result<_>>();
        let clusterings = Clusterings {
            of_rows: with_seeds(views, settings.seeds as u64)?,
            of_cloud: with_seeds(&cloud, 2)?,
        };
        let (record, silhouettes) = clusterings.measure(count, sample, &sampled, select.seed);
        records.push(record);
        let first = clusterings.of_rows.into_iter().next();
        used = used.or_else(|| Some((first?, silhouettes)));
    }
    let (clusters, silhouettes) = used.unwrap_or_else(|| unreachable!("one number of clusters at least"));
    Ok((records, clusters, silhouettes))
}

/// Clusterings into the same number of clusters, with several seeds.
struct Clusterings {
    of_rows: Vec<Clusters>,
    of_cloud: Vec<Clusters>,
}

impl Clusterings {
    /// The measures of the first clustering and of all together, and the silhouettes of the first.
    fn measure(&self, count: usize, sample: &[u32], sampled: &Matrix, seed: Seed) -> (CountRecord, Vec<f64>) {
        let Self {
            of_rows: clusterings,
            of_cloud,
        } = self;
        let first = &clusterings[0].assignment;
        let assignment: Vec<u32> = sample.iter().map(|&point| first[point as usize]).collect();
        let random = shuffled(&assignment, seed.derive("random clusters"));
        let values = silhouettes(sampled, &[&assignment, &random]);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let pairs = (0..clusterings.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
        let agreement = |a: &Clusters, b: &Clusters| adjusted_rand(&a.assignment, &b.assignment);
        let agreements: Vec<f64> = pairs
            .map(|(i, j)| agreement(&clusterings[i], &clusterings[j]))
            .collect();
        let record = CountRecord {
            clusters: count,
            silhouette: mean(&values[0]),
            silhouette_random: mean(&values[1]),
            stability: mean(&agreements),
            stability_least: agreements.iter().copied().fold(f64::INFINITY, f64::min),
            stability_greatest: agreements.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            stability_cloud: agreement(&of_cloud[0], &of_cloud[1]),
        };
        (record, values.into_iter().next().unwrap_or_default())
    }
}

fn labels(dataset: &Dataset, clusters: &Clusters, seed: Seed) -> Option<LabelsRecord> {
    if dataset.task.labels.is_empty() {
        return None;
    }
    let target = |&row: &RowId| dataset.train.examples[row as usize].target;
    let labels: Vec<u32> = dataset.pool.iter().map(target).collect();
    let random = shuffled(&clusters.assignment, seed.derive("random clusters"));
    Some(LabelsRecord {
        purity: purity(&clusters.assignment, &labels),
        purity_random: purity(&random, &labels),
        mutual_information: mutual_information(&clusters.assignment, &labels),
        mutual_information_random: mutual_information(&random, &labels),
    })
}

/// What is told of a cluster whose sampled rows have these silhouettes.
fn checked(dataset: &Dataset, statistics: ClusterStatistics, silhouettes: &[f64]) -> CheckedCluster {
    let counts = statistics.label_counts.iter().enumerate();
    let most = counts.max_by_key(|&(label, &count)| (count, std::cmp::Reverse(label)));
    let near = |&point: &u32| {
        let row = dataset.pool[point as usize];
        let (file, line) = describe::origin(&dataset.train, row);
        let text = dataset.train.examples[row as usize].input.texts().join(" | ");
        NearRow {
            file,
            row: line,
            text: describe::beginning(&text, TEXT),
        }
    };
    CheckedCluster {
        rows: u64::from(statistics.size),
        silhouette: (silhouettes.len() > 1).then(|| silhouettes.iter().sum::<f64>() / silhouettes.len() as f64),
        label: most.map(|(label, _)| dataset.task.labels[label].clone()),
        purity: most.map(|(_, &count)| f64::from(count) / f64::from(statistics.size.max(1))),
        nearest: statistics.nearest.iter().map(near).collect(),
        words: statistics.words,
    }
}

/// What to make of it: the first thing that is wrong and what to change, or that nothing is, and what the labels say.
fn verdict(counts: &[CountRecord], labels: Option<&LabelsRecord>, clusters: &[CheckedCluster]) -> String {
    let now = &counts[0];
    let all: u64 = clusters.iter().map(|cluster| cluster.rows).sum();
    let largest = clusters.iter().map(|cluster| cluster.rows).max().unwrap_or(0);
    let share = largest as f64 / all.max(1) as f64;
    let tiny = clusters.iter().filter(|cluster| cluster.rows < TINY).count();
    // The number beside the one in use at which seeds agree best.
    let steadier = || {
        let others = counts[1..].iter().filter(|other| coherent(other));
        let ahead = |count: &CountRecord| count.stability - count.stability_cloud;
        let best = others.max_by(|a, b| ahead(a).total_cmp(&ahead(b)));
        match best.filter(|best| stable(best)) {
            Some(best) => format!(
                "try `clusters {}` (it has {:.2}, a cloud {:.2})",
                best.clusters, best.stability, best.stability_cloud
            ),
            None => "try another `embedder`; other numbers of clusters are no steadier".to_owned(),
        }
    };
    let near = format!(
        "silhouette {:.3}, random clusters {:.3}",
        now.silhouette, now.silhouette_random
    );
    if share > LARGEST {
        return format!(
            "Too few clusters, or rows too much alike: one cluster holds {:.0}% of the rows; try `clusters {}`, or another \
             `embedder`.",
            100.0 * share,
            2 * now.clusters
        );
    }
    if tiny as f64 > MOST_TINY * clusters.len() as f64 {
        return format!(
            "Too many clusters: {tiny} of {} have fewer than {TINY} rows; try `clusters {}`.",
            clusters.len(),
            (now.clusters / 2).max(1)
        );
    }
    if !coherent(now) {
        return format!(
            "Incoherent: rows are hardly nearer to their own cluster than to others ({near}); try another `embedder`, such as a \
             sentence encoder."
        );
    }
    if !stable(now) {
        return format!(
            "Unstable: seeds agree on clusters hardly better than on those of a cloud without groups (adjusted Rand index {:.2}, \
             cloud {:.2}, where 1 is the same and 0 is chance); {}.",
            now.stability,
            now.stability_cloud,
            steadier()
        );
    }
    let of_labels = labels.map_or(String::new(), |labels| {
        let gained = |value: f64, random: f64| value - random > TELLING * (1.0 - random);
        let told = gained(labels.purity, labels.purity_random)
            || gained(labels.mutual_information, labels.mutual_information_random);
        format!(
            ", and {} of labels (purity {:.2}, random clusters {:.2})",
            if told { "they tell" } else { "they tell little" },
            labels.purity,
            labels.purity_random
        )
    });
    format!(
        "Sound: clusters are coherent ({near}), seeds agree on them as on no cloud without groups (adjusted Rand index {:.2}, \
         cloud {:.2}){of_labels}.",
        now.stability, now.stability_cloud
    )
}

fn coherent(count: &CountRecord) -> bool {
    count.silhouette - count.silhouette_random >= LEAST_COHERENCE
}

fn stable(count: &CountRecord) -> bool {
    count.stability - count.stability_cloud >= LEAST_STABILITY * (1.0 - count.stability_cloud)
}

/// Where the record of a check is.
pub fn check_clusters_path(settings: &CheckClustersSettings) -> PathBuf {
    settings.select.out.join("check_clusters.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(clusters: usize, silhouette: f64, stability: f64) -> CountRecord {
        CountRecord {
            clusters,
            silhouette,
            silhouette_random: -0.05,
            stability,
            stability_least: stability,
            stability_greatest: stability,
            stability_cloud: 0.2,
        }
    }

    fn clusters(rows: &[u64]) -> Vec<CheckedCluster> {
        let of = |&rows: &u64| CheckedCluster {
            rows,
            silhouette: None,
            label: None,
            purity: None,
            words: Vec::new(),
            nearest: Vec::new(),
        };
        rows.iter().map(of).collect()
    }

    #[test]
    fn the_verdict_names_what_is_wrong_and_what_to_change() {
        let even = clusters(&[30, 30, 40]);
        let said = |counts: &[CountRecord], clusters: &[CheckedCluster]| verdict(counts, None, clusters);
        assert!(said(&[count(3, 0.1, 0.6)], &even).starts_with("Sound"));
        assert!(said(&[count(3, -0.045, 0.6)], &even).starts_with("Incoherent"));
        let unstable = said(&[count(4, 0.1, 0.1), count(2, 0.1, 0.5), count(8, 0.1, 0.3)], &even);
        assert!(
            unstable.starts_with("Unstable") && unstable.contains("`clusters 2` (it has 0.50, a cloud 0.20)"),
            "{unstable}"
        );
        let hopeless = said(&[count(4, 0.1, 0.1), count(2, 0.1, 0.2)], &even);
        assert!(hopeless.contains("no steadier"), "{hopeless}");
        assert!(said(&[count(3, 0.1, 0.6)], &clusters(&[10, 60, 20])).contains("one cluster holds 67%"));
        let tiny = said(&[count(4, 0.1, 0.6)], &clusters(&[30, 30, 4, 1]));
        assert!(
            tiny.starts_with("Too many clusters: 2 of 4") && tiny.contains("`clusters 2`"),
            "{tiny}"
        );
    }

    #[test]
    fn labels_that_clusters_do_not_tell_are_told_of_and_no_failure() {
        let said = |purity, mutual_information| {
            let labels = LabelsRecord {
                purity,
                purity_random: 0.5,
                mutual_information,
                mutual_information_random: 0.0,
            };
            verdict(&[count(3, 0.1, 0.6)], Some(&labels), &clusters(&[30, 30, 40]))
        };
        // A tenth of what random clusters leave is .05 of purity and .1 of mutual information.
        let little = said(0.54, 0.09);
        assert!(
            little.starts_with("Sound") && little.contains("they tell little of labels"),
            "{little}"
        );
        assert!(said(0.56, 0.0).contains("they tell of labels"));
        assert!(said(0.5, 0.11).contains("they tell of labels"));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(describe::beginning("brief", TEXT), "brief");
        let long = "é".repeat(TEXT + 1);
        assert_eq!(describe::beginning(&long, TEXT), format!("{}…", "é".repeat(TEXT)));
    }
}

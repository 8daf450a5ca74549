//! What a run tells about clusters, labels and rows: to the agent as features, to the user as records.

use std::{collections::HashMap, path::PathBuf};

use rand::RngExt;
use tamis_nn::{Matrix, seed::Seed};

use crate::{
    Result,
    cluster::{self, Clusters},
    data::{Dataset, RowId, Split},
    embed::{Embedded, pooled},
    pipeline::context::Context,
    problem::ClusterTraits,
    records::selection::{ClusterRecord, LabelRecord},
    vectors::VectorStore,
};

/// What the agent's features are made from.
pub(crate) fn traits(context: Context<'_>, validation: &Embedded, clusters: &Clusters) -> Result<ClusterTraits> {
    let (dataset, folds) = (context.dataset, context.folds);
    let count = clusters.centroids.rows();
    let labels = dataset.task.labels.len().max(1);
    let label = |target: u32| {
        if dataset.task.labels.is_empty() {
            0
        } else {
            target as usize
        }
    };
    let mut label_mix = Matrix::zeros(count, labels);
    for (&row, &cluster) in dataset.pool.iter().zip(&clusters.assignment) {
        let target = dataset.train.examples[row as usize].target;
        label_mix.row_mut(cluster as usize)[label(target)] += 1.0 / clusters.sizes[cluster as usize] as f32;
    }
    let mut fold_mix = vec![0.0; labels];
    for &row in &folds.reward {
        fold_mix[label(dataset.validation.examples[row as usize].target)] += 1.0 / folds.reward.len() as f32;
    }
    let fold = pooled::of_few(validation, &folds.reward)?;
    let fold_cluster = clusters.assign(&fold)?;
    let mut centre = vec![0.0; fold.cols()];
    for row in fold.iter_rows() {
        centre.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    let closeness = clusters
        .centroids
        .iter_rows()
        .map(|centroid| centroid.iter().zip(&centre).map(|(a, b)| a * b).sum::<f32>() / norm(centroid) / norm(&centre))
        .collect();
    Ok(ClusterTraits {
        label_mix,
        closeness,
        fold_cluster,
        fold_mix,
        place: places(&clusters.centroids),
    })
}

/// Centroids in few dimensions by a random projection, which keeps distances roughly (Johnson & Lindenstrauss 1984).
fn places(centroids: &Matrix) -> Matrix {
    const DIMENSIONS: usize = 16;
    let mut rng = Seed(0).derive("places").rng();
    let signs: Vec<f32> = (0..centroids.cols() * DIMENSIONS)
        .map(|_| if rng.random() { 1.0 } else { -1.0 })
        .collect();
    let mut places = Matrix::zeros(centroids.rows(), DIMENSIONS);
    for (c, centroid) in centroids.iter_rows().enumerate() {
        for (x, signs) in centroid.iter().zip(signs.chunks_exact(DIMENSIONS)) {
            let place = places.row_mut(c);
            place.iter_mut().zip(signs).for_each(|(sum, sign)| *sum += x * sign);
        }
    }
    places
}

pub(crate) fn statistics(
    dataset: &Dataset,
    clusters: &Clusters,
    views: &dyn VectorStore,
) -> Result<Vec<cluster::ClusterStatistics>> {
    let labels: Vec<u32> = dataset
        .pool
        .iter()
        .map(|&row| dataset.train.examples[row as usize].target)
        .collect();
    let texts = |i: usize| dataset.train.examples[dataset.pool[i] as usize].input.texts();
    cluster::statistics(clusters, views, &labels, dataset.task.labels.len(), &texts)
}

/// The first characters of a text, with an ellipsis where it goes on.
pub(crate) fn beginning(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

pub(crate) fn origin(split: &Split, row: RowId) -> (PathBuf, u64) {
    let origin = split.examples[row as usize].origin;
    (split.files[origin.file as usize].path.clone(), origin.line)
}

pub(crate) fn label_records(dataset: &Dataset, chosen: &[RowId]) -> Vec<LabelRecord> {
    let shares = |targets: &mut dyn Iterator<Item = u32>| {
        let mut counts = vec![0.0; dataset.task.labels.len()];
        let mut total = 0.0;
        for target in targets {
            if let Some(count) = counts.get_mut(target as usize) {
                *count += 1.0;
            }
            total += 1.0;
        }
        counts.into_iter().map(|count: f64| count / total).collect::<Vec<f64>>()
    };
    let of = |rows: &[RowId]| shares(&mut rows.iter().map(|&row| dataset.train.examples[row as usize].target));
    let (pool, chosen) = (of(&dataset.pool), of(chosen));
    let validation = shares(&mut dataset.validation.examples.iter().map(|example| example.target));
    (0..dataset.task.labels.len())
        .map(|l| LabelRecord {
            label: dataset.task.labels[l].clone(),
            pool: pool[l],
            chosen: chosen[l],
            validation: validation[l],
        })
        .collect()
}

pub(crate) fn cluster_records(
    dataset: &Dataset,
    statistics: Vec<cluster::ClusterStatistics>,
    chosen: &[RowId],
    place: &HashMap<RowId, (u32, u32)>,
) -> Vec<ClusterRecord> {
    let mut counts = vec![0; statistics.len()];
    for row in chosen {
        counts[place[row].0 as usize] += 1;
    }
    statistics
        .into_iter()
        .zip(counts)
        .map(|(cluster, chosen)| ClusterRecord {
            rows: u64::from(cluster.size),
            chosen,
            words: cluster.words,
            labels: cluster.label_counts.iter().map(|&count| u64::from(count)).collect(),
            nearest: cluster
                .nearest
                .iter()
                .map(|&i| origin(&dataset.train, dataset.pool[i as usize]))
                .collect(),
        })
        .collect()
}

//! What marks a cluster: its size, its labels, its most central rows, its words.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::{Result, cluster::Clusters, vectors::VectorStore};

/// Rows of a cluster whose words are looked at: enough to name it, and bounded for pools of any size.
const SAMPLED_ROWS: usize = 500;
/// Words and central rows that are kept.
const SHOWN: usize = 5;

/// One cluster, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterStatistics {
    /// Its points.
    pub size: u32,
    /// Its points by label, shape `(labels,)`.
    pub label_counts: Vec<u32>,
    /// The points nearest to its centroid, nearest first.
    pub nearest: Vec<u32>,
    /// The words that stand in more of its rows than elsewhere, most telling first.
    pub words: Vec<String>,
}

/// Statistics of every cluster. `targets[i]` and `texts(i)` belong to point `i`.
///
/// A word's weight is p ln(p / q), where p is its share of the cluster's sampled rows and q its share of all sampled rows:
/// its part of the divergence between the two.
///
/// # Errors
///
/// If vectors cannot be read.
pub fn statistics<'a>(
    clusters: &Clusters,
    points: &dyn VectorStore,
    targets: &[u32],
    labels: usize,
    texts: &(dyn Fn(usize) -> Vec<&'a str> + Sync),
) -> Result<Vec<ClusterStatistics>> {
    let mut members: Vec<Vec<u32>> = vec![Vec::new(); clusters.centroids.rows()];
    for (point, &cluster) in clusters.assignment.iter().enumerate() {
        members[cluster as usize].push(point as u32);
    }
    let words: Vec<(usize, HashMap<String, u32>)> =
        members.par_iter().map(|members| rows_by_word(members, texts)).collect();
    let mut everywhere: HashMap<&str, u32> = HashMap::new();
    let mut rows = 0;
    for (sampled, words) in &words {
        rows += sampled;
        for (word, count) in words {
            *everywhere.entry(word).or_default() += count;
        }
    }
    members
        .par_iter()
        .zip(&words)
        .enumerate()
        .map(|(cluster, (members, (sampled, words)))| {
            let mut label_counts = vec![0; labels];
            for &point in members {
                if let Some(count) = label_counts.get_mut(targets[point as usize] as usize) {
                    *count += 1;
                }
            }
            let centroid = clusters.centroids.row(cluster);
            let distance = |point: u32| -> Result<f32> {
                let vector = points.rows(point as usize..point as usize + 1)?;
                Ok(vector.iter().zip(centroid).map(|(x, c)| (x - c) * (x - c)).sum())
            };
            let mut nearest: Vec<(f32, u32)> = members
                .iter()
                .map(|&point| Ok((distance(point)?, point)))
                .collect::<Result<_>>()?;
            nearest.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let weight = |word: &str, count: u32| {
                let (p, q) = (
                    f64::from(count) / *sampled as f64,
                    f64::from(everywhere[word]) / rows as f64,
                );
                p * (p / q).ln()
            };
            let mut telling: Vec<(f64, &str)> = words
                .iter()
                .map(|(word, &count)| (weight(word, count), word.as_str()))
                .collect();
            telling.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
            Ok(ClusterStatistics {
                size: members.len() as u32,
                label_counts,
                nearest: nearest.into_iter().take(SHOWN).map(|(_, point)| point).collect(),
                words: telling
                    .into_iter()
                    .take(SHOWN)
                    .map(|(_, word)| word.to_owned())
                    .collect(),
            })
        })
        .collect()
}

/// How many sampled rows there are, and in how many of them each word stands.
fn rows_by_word<'a>(members: &[u32], texts: &(dyn Fn(usize) -> Vec<&'a str> + Sync)) -> (usize, HashMap<String, u32>) {
    let step = members.len().div_ceil(SAMPLED_ROWS).max(1);
    let mut counts = HashMap::new();
    let mut rows = 0;
    for &point in members.iter().step_by(step) {
        rows += 1;
        let mut seen = std::collections::HashSet::new();
        for text in texts(point as usize) {
            for word in text
                .split(|c: char| !c.is_alphanumeric())
                .filter(|word| word.chars().nth(2).is_some())
            {
                let word = word.to_lowercase();
                if seen.insert(word.clone()) {
                    *counts.entry(word).or_default() += 1;
                }
            }
        }
    }
    (rows, counts)
}

#[cfg(test)]
mod tests {
    use tamis_nn::Matrix;

    use super::*;

    #[test]
    fn a_cluster_is_named_by_the_words_it_has_to_itself() {
        let texts = ["the red apple", "the Red pear", "the deep sea", "the sea again"];
        let clusters = Clusters {
            centroids: Matrix::from_vec(vec![0.0, 10.0], 2, 1),
            assignment: vec![0, 0, 1, 1],
            sizes: vec![2, 2],
            inertia: 0.0,
            iterations: 1,
        };
        let points = Matrix::from_vec(vec![1.0, 0.5, 10.0, 12.0], 4, 1);
        let statistics = statistics(&clusters, &points, &[0, 1, 1, 1], 2, &|i| vec![texts[i]]).expect("reads");
        // `red` is in both rows of its cluster: p = 1, q = 1/2; `the` is everywhere: p ln(p/q) = 0
        assert_eq!(statistics[0].words[0], "red");
        assert_eq!(statistics[1].words[0], "sea");
        assert_eq!(statistics[0].words.last().map(String::as_str), Some("the"));
        assert_eq!(statistics[0].label_counts, [1, 1]);
        assert_eq!(statistics[0].nearest, [1, 0]);
    }
}

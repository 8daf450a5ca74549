//! How good a partition of points is: near its own cluster and far from others, the same again, and about the labels.
//!
//! Sources: Rousseeuw 1987 (silhouettes); Hubert & Arabie 1985 (the adjusted Rand index); Strehl & Ghosh 2002 and Vinh, Epps & Bailey
//! 2010 (normalised mutual information, here by the arithmetic mean of the entropies). Every number has a fixed order of summation, so
//! threads change no bit.

use std::collections::BTreeMap;

use rand::seq::SliceRandom;
use rayon::prelude::*;
use tamis_nn::{Matrix, seed::Seed};

/// The silhouette of every point in each of several partitions of the same points, shape `(partitions, points)`; from -1 to 1, higher
/// is better:
///
/// ```text
/// s = (b - a) / max(a, b)     a: mean Euclidean distance to the other points of its cluster
///                             b: the least mean distance to the points of another cluster
/// ```
///
/// 0 for a point that is alone in its cluster, and where there is one cluster only. It takes time quadratic in the number of points;
/// distances are computed once, whatever the number of partitions.
///
/// # Panics
///
/// If a partition does not name a cluster for every point.
pub fn silhouettes(points: &Matrix, partitions: &[&[u32]]) -> Vec<Vec<f64>> {
    let sizes: Vec<Vec<u32>> = partitions
        .iter()
        .map(|partition| {
            assert_eq!(partition.len(), points.rows(), "a cluster a point");
            let mut sizes = vec![0; partition.iter().max().map_or(0, |&most| most as usize + 1)];
            partition.iter().for_each(|&cluster| sizes[cluster as usize] += 1);
            sizes
        })
        .collect();
    let by_point: Vec<Vec<f64>> = (0..points.rows())
        .into_par_iter()
        .map(|i| {
            let distances: Vec<f64> = points.iter_rows().map(|y| distance(points.row(i), y)).collect();
            partitions
                .iter()
                .zip(&sizes)
                .map(|(partition, sizes)| silhouette(i, &distances, partition, sizes))
                .collect()
        })
        .collect();
    (0..partitions.len())
        .map(|p| by_point.iter().map(|values| values[p]).collect())
        .collect()
}

/// The silhouette of point `i`, whose distances to all points are these.
fn silhouette(i: usize, distances: &[f64], partition: &[u32], sizes: &[u32]) -> f64 {
    let mut sums = vec![0.0; sizes.len()];
    for (distance, &cluster) in distances.iter().zip(partition) {
        sums[cluster as usize] += distance;
    }
    let own = partition[i] as usize;
    let others = (0..sizes.len()).filter(|&cluster| cluster != own && sizes[cluster] > 0);
    let b = others
        .map(|cluster| sums[cluster] / f64::from(sizes[cluster]))
        .fold(f64::INFINITY, f64::min);
    if sizes[own] < 2 || b.is_infinite() {
        return 0.0;
    }
    // Its distance to itself is 0.
    let a = sums[own] / f64::from(sizes[own] - 1);
    let most = a.max(b);
    if most > 0.0 { (b - a) / most } else { 0.0 }
}

/// The Euclidean distance, in eight sums side by side.
fn distance(x: &[f32], y: &[f32]) -> f64 {
    const LANES: usize = 8;
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let square = |(x, y): (&f32, &f32)| (x - y) * (x - y);
    let rest: f32 = xs.remainder().iter().zip(ys.remainder()).map(square).sum();
    let mut sums = [0.0; LANES];
    for (x, y) in xs.zip(ys) {
        for lane in 0..LANES {
            sums[lane] += (x[lane] - y[lane]) * (x[lane] - y[lane]);
        }
    }
    f64::from(sums.iter().sum::<f32>() + rest).sqrt()
}

/// The adjusted Rand index of two partitions of the same points: 1 where they are the same, 0 on average where they have nothing to do
/// with each other. 1 also where both leave no pair to compare.
///
/// ```text
/// (Σ C(n_ij, 2) - e) / ((Σ C(a_i, 2) + Σ C(b_j, 2)) / 2 - e)     e = Σ C(a_i, 2) Σ C(b_j, 2) / C(n, 2)
/// ```
///
/// # Panics
///
/// If the lengths differ.
pub fn adjusted_rand(a: &[u32], b: &[u32]) -> f64 {
    let table = Table::of(a, b);
    let pairs =
        |counts: &mut dyn Iterator<Item = &u64>| counts.map(|&n| n as f64 * (n as f64 - 1.0) / 2.0).sum::<f64>();
    let both = pairs(&mut table.both.values());
    let (of_a, of_b) = (pairs(&mut table.a.values()), pairs(&mut table.b.values()));
    let all = pairs(&mut [a.len() as u64].iter());
    let expected = if all > 0.0 { of_a * of_b / all } else { 0.0 };
    let most = f64::midpoint(of_a, of_b);
    if most > expected {
        (both - expected) / (most - expected)
    } else {
        1.0
    }
}

/// The mutual information of two partitions as a share of the mean of their entropies; from 0 to 1, 1 where they are the same. Partitions
/// of many clusters share some by chance. 1 where both have one cluster.
///
/// # Panics
///
/// If the lengths differ.
pub fn mutual_information(a: &[u32], b: &[u32]) -> f64 {
    let table = Table::of(a, b);
    let n = a.len() as f64;
    let entropy = |counts: &mut dyn Iterator<Item = &u64>| -> f64 {
        counts.map(|&count| count as f64 / n).map(|p| -p * p.ln()).sum()
    };
    let (of_a, of_b) = (entropy(&mut table.a.values()), entropy(&mut table.b.values()));
    let mean = f64::midpoint(of_a, of_b);
    if mean > 0.0 {
        ((of_a + of_b - entropy(&mut table.both.values())) / mean).clamp(0.0, 1.0)
    } else {
        1.0
    }
}

/// The share of the points that carry the most frequent label of their cluster; from 0 to 1, 1 where no cluster mixes labels. It rises
/// with the number of clusters also where they have nothing to do with the labels: compare it with [`shuffled`] ones. 0 without points.
///
/// # Panics
///
/// If the lengths differ.
pub fn purity(clusters: &[u32], labels: &[u32]) -> f64 {
    let mut most: BTreeMap<u32, u64> = BTreeMap::new();
    for (&(cluster, _), &count) in &Table::of(clusters, labels).both {
        let most = most.entry(cluster).or_default();
        *most = count.max(*most);
    }
    most.values().sum::<u64>() as f64 / clusters.len().max(1) as f64
}

/// A random partition into clusters of the same sizes.
pub fn shuffled(partition: &[u32], seed: Seed) -> Vec<u32> {
    let mut shuffled = partition.to_vec();
    shuffled.shuffle(&mut seed.rng());
    shuffled
}

/// How many points stand in each cluster of two partitions, and in each pair of clusters that has any.
struct Table {
    both: BTreeMap<(u32, u32), u64>,
    a: BTreeMap<u32, u64>,
    b: BTreeMap<u32, u64>,
}

impl Table {
    fn of(a: &[u32], b: &[u32]) -> Self {
        assert_eq!(a.len(), b.len(), "partitions of the same points");
        let mut table = Self {
            both: BTreeMap::new(),
            a: BTreeMap::new(),
            b: BTreeMap::new(),
        };
        for (&a, &b) in a.iter().zip(b) {
            *table.both.entry((a, b)).or_default() += 1;
            *table.a.entry(a).or_default() += 1;
            *table.b.entry(b).or_default() += 1;
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-6, "{a} is not {b}");
    }

    #[test]
    fn silhouettes_are_what_the_hand_makes_them() {
        let points = Matrix::from_vec(vec![0.0, 1.0, 4.0, 6.0], 4, 1);
        let values = silhouettes(&points, &[&[0, 0, 1, 1], &[0, 0, 0, 1], &[2; 4]]);
        // The first: a = 1, b = (4 + 6) / 2 = 5: 4/5. The third: a = 2, b = (4 + 3) / 2 = 3.5: 1.5/3.5.
        for (value, want) in values[0].iter().zip([4.0 / 5.0, 3.0 / 4.0, 1.5 / 3.5, 3.5 / 5.5]) {
            close(*value, want);
        }
        // The third of three: a = (4 + 3) / 2, b = 2: -1.5/3.5. The last is alone.
        close(values[1][2], -1.5 / 3.5);
        close(values[1][3], 0.0);
        assert_eq!(values[2], [0.0; 4]);
        let same = Matrix::from_vec(vec![0.5; 4], 4, 1);
        assert_eq!(silhouettes(&same, &[&[0, 0, 1, 1]])[0], [0.0; 4]);
    }

    #[test]
    fn partitions_compare_as_the_hand_compares_them() {
        let (a, b) = ([0, 0, 1, 1], [0, 0, 1, 2]);
        // Pairs: both 1, a 2, b 1, of 6: e = 1/3, (1 - 1/3) / (3/2 - 1/3) = 4/7.
        close(adjusted_rand(&a, &b), 4.0 / 7.0);
        // e = 2 * 2 / 6: (0 - 2/3) / (2 - 2/3).
        close(adjusted_rand(&a, &[0, 1, 0, 1]), -0.5);
        close(adjusted_rand(&a, &[7, 7, 3, 3]), 1.0);
        close(adjusted_rand(&[0], &[0]), 1.0);
        // Entropies ln 2 and 1.5 ln 2, together 1.5 ln 2: 1 / 1.25.
        close(mutual_information(&a, &b), 0.8);
        close(mutual_information(&a, &[0, 1, 0, 1]), 0.0);
        close(mutual_information(&[0; 3], &[0; 3]), 1.0);
        // Two of two, and one of two.
        close(purity(&a, &[5, 5, 0, 1]), 0.75);
        assert_eq!(purity(&[], &[]), 0.0);
    }

    #[test]
    fn numbers_are_those_of_scikit_learn() {
        // import numpy as np
        // from sklearn.metrics import silhouette_samples, silhouette_score, adjusted_rand_score, normalized_mutual_info_score
        // i = np.arange(12)
        // points = np.stack([(7 * i * i + 3 * i) % 11, (5 * i * i + i) % 13], 1) / 8
        // a, b = (i * i + i // 4) % 4, (i // 3 + i * i) % 3
        // silhouette_score(points, a), silhouette_samples(points, a)[:3]
        // adjusted_rand_score(a, b), normalized_mutual_info_score(a, b)
        let numbers = (0..12u32).flat_map(|i| [(7 * i * i + 3 * i) % 11, (5 * i * i + i) % 13]);
        let points = Matrix::from_vec(numbers.map(|x| x as f32 / 8.0).collect(), 12, 2);
        let a: Vec<u32> = (0..12).map(|i| (i * i + i / 4) % 4).collect();
        let b: Vec<u32> = (0..12).map(|i| (i / 3 + i * i) % 3).collect();
        let values = &silhouettes(&points, &[&a])[0];
        close(values.iter().sum::<f64>() / 12.0, -0.106_703_834_162_929_9);
        for (value, want) in values.iter().zip([-0.350_129_08, 0.215_139_79, -0.648_873_38]) {
            close(*value, want);
        }
        close(adjusted_rand(&a, &b), -0.082_624_544_349_939_25);
        close(mutual_information(&a, &b), 0.223_398_672_337_011_55);
    }

    #[test]
    fn lanes_and_the_rest_make_one_distance() {
        let x: Vec<f32> = (0..19).map(|i| i as f32).collect();
        // Each of 19 differs by 2: √76.
        let y: Vec<f32> = x.iter().map(|x| x + 2.0).collect();
        close(distance(&x, &y), 76f64.sqrt());
    }

    proptest! {
        #[test]
        fn measures_have_bounds_and_do_not_ask_for_names(pairs in prop::collection::vec((0u32..4, 0u32..4), 1..40), seed: u64) {
            let (a, b): (Vec<u32>, Vec<u32>) = pairs.into_iter().unzip();
            let renamed: Vec<u32> = b.iter().map(|b| 9 - b).collect();
            for measure in [adjusted_rand, mutual_information] {
                prop_assert!((measure(&a, &b) - measure(&b, &a)).abs() < 1e-12);
                prop_assert!((measure(&a, &b) - measure(&a, &renamed)).abs() < 1e-12);
                prop_assert!((measure(&a, &a) - 1.0).abs() < 1e-12);
                prop_assert!((-1.0..=1.0).contains(&measure(&a, &b)));
            }
            prop_assert!((0.0..=1.0).contains(&purity(&a, &b)));
            let mut sizes = [a.clone(), shuffled(&a, Seed(seed))];
            sizes.iter_mut().for_each(|partition| partition.sort_unstable());
            prop_assert_eq!(&sizes[0], &sizes[1]);
        }
    }
}

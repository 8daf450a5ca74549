//! k-means by Lloyd's algorithm, seeded by greedy k-means++.
//!
//! Points are vectors of a [`VectorStore`], shape `(points, dim)`. Each pass assigns every point to its nearest centroid (squared
//! Euclidean distance, by blocked products), then moves each centroid to the mean of its points. Ties take the lower id,
//! and each centroid sums its points in row order, so the number of threads does not change the result. Of many points the
//! centroids are fitted on a sample, and every point is assigned at the end.
//!
//! Sources: Lloyd 1982; Arthur & Vassilvitskii 2007 (k-means++, with the greedy choice of its section 5). We differ in two
//! ways: centroids are seeded on a sample, and an emptied cluster takes the point that is farthest from its centroid.

use std::sync::atomic::{AtomicBool, Ordering};

use rand::{RngExt, seq::index};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tamis_nn::{
    Matrix, Monitor,
    kernels::product::{Layout, product},
    seed::Seed,
};

use crate::{
    Error, Result,
    stats::ranking,
    vectors::{MOST_IN_MEMORY, VectorStore, blocks},
};

/// Points whose distances to all centroids are computed by one product.
const BLOCK: usize = 256;

/// Points for each centroid in the sample on which centroids are seeded.
const SEEDING_POINTS: usize = 16;

/// How k-means runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KMeansSettings {
    /// How many clusters; `select` sets it from `clusters`.
    #[serde(skip)]
    pub clusters: usize,
    /// The most passes. Default: 25.
    pub max_iterations: usize,
    /// Passes end when the inertia falls by less than this share. Default: 1e-4.
    pub tolerance: f64,
    /// The most points on which centroids are fitted: 16 a cluster at least, and besides no more than 512 MiB hold. Default: 200,000.
    pub fit_on: usize,
}

impl Default for KMeansSettings {
    fn default() -> Self {
        Self {
            clusters: 8,
            max_iterations: 25,
            tolerance: 1e-4,
            fit_on: 200_000,
        }
    }
}

/// Points grouped around centroids.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    /// The mean of each cluster's points, shape `(clusters, dim)`.
    pub centroids: Matrix,
    /// The cluster of each point, shape `(points,)`.
    pub assignment: Vec<u32>,
    /// Points in each cluster, shape `(clusters,)`.
    pub sizes: Vec<u32>,
    /// The sum of squared distances to the nearest centroid; lower is better.
    pub inertia: f64,
    /// Passes made.
    pub iterations: usize,
}

impl Clusters {
    /// The nearest centroid of each vector, shape `(vectors,)`.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub fn assign(&self, points: &dyn VectorStore) -> Result<Vec<u32>> {
        let nearest = assign(points, &self.centroids)?;
        Ok(nearest.into_iter().map(|(cluster, _)| cluster).collect())
    }
}

/// How many clusters a pool of `points` gets when nobody says: the square root of half of them, from 8 to 300, and never
/// fewer than two points a cluster.
pub fn default_clusters(points: usize) -> usize {
    (((points as f64 / 2.0).sqrt()) as usize)
        .clamp(8, 300)
        .min((points / 2).max(1))
}

/// Groups points.
///
/// ```
/// use tamis::{Matrix, Seed, Silent, cluster::{KMeansSettings, k_means}};
///
/// let points = Matrix::from_vec(vec![0.0, 0.1, 5.0, 5.1], 4, 1);
/// let settings = KMeansSettings { clusters: 2, ..KMeansSettings::default() };
/// let clusters = k_means(&points, &settings, Seed(0), &Silent)?;
/// assert_eq!(clusters.assignment[0], clusters.assignment[1]);
/// assert_ne!(clusters.assignment[1], clusters.assignment[2]);
/// # Ok::<(), tamis::Error>(())
/// ```
///
/// # Errors
///
/// If there are more clusters than points, none at all, a number that is not finite, vectors cannot be read, or the user stopped the
/// run.
pub fn k_means(
    points: &dyn VectorStore,
    settings: &KMeansSettings,
    seed: Seed,
    monitor: &dyn Monitor,
) -> Result<Clusters> {
    let k = settings.clusters;
    if k == 0 || k > points.count() {
        return Err(Error::setting(
            "clusters",
            format!("from 1 to the {} rows of the pool", points.count()),
            k.to_string(),
        ));
    }
    for block in blocks(points.count(), BLOCK) {
        let from = block.start;
        let vectors = points.rows(block)?;
        if let Some(at) = vectors.iter().position(|x| !x.is_finite()) {
            return Err(Error::NotFinite {
                place: format!("the embedding of pool row {}", from + at / points.dim() + 1),
                found: "NaN or infinity".into(),
            });
        }
    }
    let in_memory = MOST_IN_MEMORY / points.dim().max(1);
    let fitted_on = settings.fit_on.min(in_memory).max(SEEDING_POINTS * k);
    if points.count() <= fitted_on {
        return lloyd(points, settings, seed, monitor);
    }
    let sample = ranking::sample(points.count(), fitted_on, seed.derive("sample"));
    let fitted = lloyd(&points.gather(&sample)?, settings, seed, monitor)?;
    let nearest = assign(points, &fitted.centroids)?;
    Ok(finished(fitted.centroids, &nearest, fitted.iterations))
}

fn lloyd(points: &dyn VectorStore, settings: &KMeansSettings, seed: Seed, monitor: &dyn Monitor) -> Result<Clusters> {
    let mut centroids = seeded(points, settings.clusters, seed.derive("seeding"))?;
    let mut iterations = 0;
    let mut before = f64::INFINITY;
    loop {
        monitor.proceed()?;
        let nearest = assign(points, &centroids)?;
        let inertia = nearest.iter().map(|&(_, distance)| f64::from(distance)).sum::<f64>();
        iterations += 1;
        monitor.note(&format!("pass {iterations}"));
        if iterations >= settings.max_iterations || before - inertia <= settings.tolerance * inertia {
            return Ok(finished(centroids, &nearest, iterations));
        }
        before = inertia;
        update(points, &nearest, &mut centroids)?;
    }
}

fn finished(centroids: Matrix, nearest: &[(u32, f32)], iterations: usize) -> Clusters {
    let mut sizes = vec![0; centroids.rows()];
    for &(cluster, _) in nearest {
        sizes[cluster as usize] += 1;
    }
    Clusters {
        centroids,
        assignment: nearest.iter().map(|&(cluster, _)| cluster).collect(),
        sizes,
        inertia: nearest.iter().map(|&(_, distance)| f64::from(distance)).sum(),
        iterations,
    }
}

fn squared_norms(points: &Matrix) -> Vec<f32> {
    (0..points.rows())
        .into_par_iter()
        .map(|i| points.row(i).iter().map(|x| x * x).sum())
        .collect()
}

/// The nearest centroid of each point and the squared distance to it, by |x - c|² = |x|² - 2 x·c + |c|².
fn assign(points: &dyn VectorStore, centroids: &Matrix) -> Result<Vec<(u32, f32)>> {
    let (dim, k) = (points.dim(), centroids.rows());
    let norms = squared_norms(centroids);
    let mut nearest = vec![(0, 0.0); points.count()];
    nearest.par_chunks_mut(BLOCK).enumerate().try_for_each_init(
        || vec![0.0; BLOCK * k],
        |dots, (number, nearest)| {
            let rows = nearest.len();
            let block = points.rows(number * BLOCK..number * BLOCK + rows)?;
            let dots = &mut dots[..rows * k];
            product(
                dots,
                (rows, dim, k),
                &block,
                Layout::Plain,
                centroids.as_slice(),
                Layout::Transposed,
                0.0,
            );
            for ((nearest, dots), x) in nearest
                .iter_mut()
                .zip(dots.chunks_exact(k))
                .zip(block.chunks_exact(dim))
            {
                let (cluster, value) = smallest(dots, &norms);
                let norm: f32 = x.iter().map(|x| x * x).sum();
                *nearest = (cluster, (norm + value).max(0.0));
            }
            Ok::<(), Error>(())
        },
    )?;
    Ok(nearest)
}

/// The place and value of the smallest `norm - 2 dot`; the lower place wins a tie.
fn smallest(dots: &[f32], norms: &[f32]) -> (u32, f32) {
    // Eight lanes run side by side, then the lanes are compared; the strict `<` keeps the lower place in each lane.
    const LANES: usize = 8;
    let mut best = [f32::INFINITY; LANES];
    let mut at = [0u32; LANES];
    let whole = dots.len() / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        let (dots, norms) = (&dots[start..start + LANES], &norms[start..start + LANES]);
        for lane in 0..LANES {
            let value = norms[lane] - 2.0 * dots[lane];
            let better = value < best[lane];
            best[lane] = if better { value } else { best[lane] };
            at[lane] = if better { (start + lane) as u32 } else { at[lane] };
        }
    }
    let mut winner = (0, f32::INFINITY);
    let rest = (whole..dots.len()).map(|i| (i as u32, norms[i] - 2.0 * dots[i]));
    for (place, value) in at.into_iter().zip(best).chain(rest) {
        if value < winner.1 || (value == winner.1 && place < winner.0) {
            winner = (place, value);
        }
    }
    winner
}

/// Moves each centroid to the mean of its points.
fn update(points: &dyn VectorStore, nearest: &[(u32, f32)], centroids: &mut Matrix) -> Result<()> {
    let (k, dim) = (centroids.rows(), centroids.cols());
    let mut members: Vec<Vec<u32>> = vec![Vec::new(); k];
    for (row, &(cluster, _)) in nearest.iter().enumerate() {
        members[cluster as usize].push(row as u32);
    }
    let empty = AtomicBool::new(false);
    centroids
        .as_mut_slice()
        .par_chunks_mut(dim.max(1))
        .zip(&members)
        .try_for_each(|(centroid, members)| {
            if members.is_empty() {
                empty.store(true, Ordering::Relaxed);
                return Ok::<(), Error>(());
            }
            let mut sum = vec![0.0f64; dim];
            for &row in members {
                let row = row as usize;
                sum.iter_mut()
                    .zip(&*points.rows(row..row + 1)?)
                    .for_each(|(sum, &x)| *sum += f64::from(x));
            }
            centroid
                .iter_mut()
                .zip(&sum)
                .for_each(|(c, sum)| *c = (sum / members.len() as f64) as f32);
            Ok(())
        })?;
    if empty.into_inner() {
        // The points farthest from their centroids, in order, start the empty clusters anew.
        let mut far: Vec<usize> = (0..nearest.len()).collect();
        far.sort_by(|&a, &b| nearest[b].1.total_cmp(&nearest[a].1).then(a.cmp(&b)));
        for (cluster, row) in (0..k).filter(|&c| members[c].is_empty()).zip(far) {
            centroids.row_mut(cluster).copy_from_slice(&points.rows(row..row + 1)?);
        }
    }
    Ok(())
}

/// Greedy k-means++ on a sample: of a few points drawn by their squared distance to the centroids so far, the one that
/// lowers the sum of distances most is taken.
fn seeded(points: &dyn VectorStore, k: usize, seed: Seed) -> Result<Matrix> {
    let mut rng = seed.rng();
    let size = (k * SEEDING_POINTS).max(2048).min(points.count());
    let mut rows: Vec<u32> = index::sample(&mut rng, points.count(), size)
        .into_iter()
        .map(|i| i as u32)
        .collect();
    rows.sort_unstable();
    let sample = points.gather(&rows)?;
    let norms = squared_norms(&sample);
    let dim = sample.cols();
    let tries = 2 + (k as f64).ln() as usize;

    let mut chosen: Vec<u32> = vec![rng.random_range(0..size as u32)];
    let mut nearest = distances(&sample, &norms, &chosen);
    while chosen.len() < k {
        let total: f64 = nearest.iter().map(|&d| f64::from(d)).sum();
        let candidates: Vec<u32> = (0..tries)
            .map(|_| {
                let mut ticket = rng.random::<f64>() * total;
                let drawn = nearest.iter().position(|&d| {
                    ticket -= f64::from(d);
                    ticket < 0.0 && d > 0.0
                });
                // Where all points coincide with centroids any point will do.
                drawn.map_or_else(|| rng.random_range(0..size as u32), |i| i as u32)
            })
            .collect();
        let all = distances(&sample, &norms, &candidates);
        let best = (0..tries)
            .map(|c| {
                let sum: f64 = nearest
                    .iter()
                    .enumerate()
                    .map(|(i, &d)| f64::from(d.min(all[i * tries + c])))
                    .sum();
                (sum, c)
            })
            .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
            .map_or(0, |(_, c)| c);
        nearest
            .iter_mut()
            .enumerate()
            .for_each(|(i, d)| *d = d.min(all[i * tries + best]));
        chosen.push(candidates[best]);
    }
    let mut centroids = Matrix::zeros(k, dim);
    for (c, &i) in chosen.iter().enumerate() {
        centroids.row_mut(c).copy_from_slice(sample.row(i as usize));
    }
    Ok(centroids)
}

/// Squared distances of all points to some of them, shape `(points, some)`.
fn distances(points: &Matrix, norms: &[f32], some: &[u32]) -> Vec<f32> {
    let (dim, m) = (points.cols(), some.len());
    let centres = points.gather(some);
    let mut out = vec![0.0; points.rows() * m];
    out.par_chunks_mut(BLOCK * m)
        .zip(points.as_slice().par_chunks(BLOCK * dim.max(1)))
        .zip(norms.par_chunks(BLOCK))
        .for_each(|((out, block), block_norms)| {
            let rows = block_norms.len();
            product(
                out,
                (rows, dim, m),
                block,
                Layout::Plain,
                centres.as_slice(),
                Layout::Transposed,
                0.0,
            );
            for (out, norm) in out.chunks_exact_mut(m).zip(block_norms) {
                for (distance, &centre) in out.iter_mut().zip(some) {
                    *distance = (norm + norms[centre as usize] - 2.0 * *distance).max(0.0);
                }
            }
        });
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use tamis_nn::Silent;

    fn cloud(points: usize, dim: usize, seed: u64) -> Matrix {
        let mut rng = Seed(seed).rng();
        Matrix::from_vec(
            (0..points * dim).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect(),
            points,
            dim,
        )
    }

    fn settings(clusters: usize) -> KMeansSettings {
        KMeansSettings {
            clusters,
            ..KMeansSettings::default()
        }
    }

    #[test]
    fn four_points_in_two_pairs() {
        // centroids (0, 0.5) and (10, 0.5); every point 0.5 away: inertia 4 x 0.25
        let points = Matrix::from_vec(vec![0.0, 0.0, 0.0, 1.0, 10.0, 0.0, 10.0, 1.0], 4, 2);
        let clusters = k_means(&points, &settings(2), Seed(1), &Silent).expect("clusters");
        assert_eq!(clusters.assignment[0], clusters.assignment[1]);
        assert_ne!(clusters.assignment[0], clusters.assignment[2]);
        assert!((clusters.inertia - 1.0).abs() < 1e-5, "{}", clusters.inertia);
        assert_eq!(clusters.sizes, [2, 2]);
    }

    #[test]
    fn ties_take_the_lower_cluster_and_every_place_can_win() {
        assert_eq!(smallest(&[1.0; 11], &[1.0; 11]), (0, -1.0));
        for winner in 0..19 {
            let mut dots = vec![0.0; 19];
            dots[winner] = 3.0;
            assert_eq!(smallest(&dots, &[1.0; 19]), (winner as u32, -5.0));
        }
    }

    #[test]
    fn one_thread_and_two_give_the_same_bits() {
        let points = cloud(3000, 24, 5);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool");
            pool.install(|| k_means(&points, &settings(30), Seed(2), &Silent).expect("clusters"))
        };
        assert_eq!(run(1), run(2));
        let sampled = KMeansSettings {
            fit_on: 1000,
            ..settings(30)
        };
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool");
            pool.install(|| k_means(&points, &sampled, Seed(2), &Silent).expect("clusters"))
        };
        assert_eq!(run(1), run(2));
    }

    #[test]
    fn centroids_of_a_sample_come_near_the_exact_inertia() {
        let points = cloud(4000, 8, 3);
        let exact = k_means(&points, &settings(20), Seed(1), &Silent)
            .expect("clusters")
            .inertia;
        let sampled = KMeansSettings {
            fit_on: 1000,
            ..settings(20)
        };
        let near = k_means(&points, &sampled, Seed(1), &Silent).expect("clusters");
        assert!(near.inertia < exact * 1.05, "{} against {exact}", near.inertia);
        assert_eq!(near.sizes.iter().sum::<u32>(), 4000);
    }

    #[test]
    fn points_that_all_coincide_are_no_trouble() {
        let points = Matrix::from_vec(vec![0.5; 20 * 3], 20, 3);
        let clusters = k_means(&points, &settings(4), Seed(1), &Silent).expect("clusters");
        assert!(clusters.inertia < 1e-6);
        assert_eq!(clusters.sizes.iter().sum::<u32>(), 20);
    }

    #[test]
    fn what_cannot_be_grouped_is_refused() {
        let points = cloud(5, 2, 1);
        assert!(
            k_means(&points, &settings(6), Seed(1), &Silent)
                .expect_err("too many")
                .is_input()
        );
        assert!(k_means(&points, &settings(0), Seed(1), &Silent).is_err());
        let mut points = points;
        points.row_mut(3)[0] = f32::NAN;
        let error = k_means(&points, &settings(2), Seed(1), &Silent)
            .expect_err("NaN")
            .to_string();
        assert!(error.contains("pool row 4"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_point_is_with_its_nearest_centroid(points in 3usize..200, dim in 1usize..9, k in 1usize..12, seed: u64) {
            let points = cloud(points, dim, seed);
            let k = k.min(points.rows());
            let clusters = k_means(&points, &settings(k), Seed(seed), &Silent).expect("clusters");
            prop_assert_eq!(clusters.sizes.iter().sum::<u32>() as usize, points.rows());
            let mut inertia = 0.0;
            for (row, &assigned) in clusters.assignment.iter().enumerate() {
                let distance = |c: usize| -> f64 {
                    points.row(row).iter().zip(clusters.centroids.row(c)).map(|(x, c)| f64::from(x - c).powi(2)).sum()
                };
                let nearest = (0..k).map(distance).fold(f64::INFINITY, f64::min);
                prop_assert!(distance(assigned as usize) <= nearest + 1e-5);
                inertia += distance(assigned as usize);
            }
            prop_assert!((inertia - clusters.inertia).abs() < 1e-3 * (1.0 + inertia));
        }
    }
}

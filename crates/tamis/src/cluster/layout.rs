//! Clusters and their rows on a plane, for people to look at.
//!
//! Centroids are laid out by exact t-SNE, which keeps neighbours together: pairwise affinities at one perplexity, principal components
//! as the start, gradient descent with early exaggeration, momentum and gains. Every cluster then becomes a disc whose area is
//! proportional to its rows, and discs that overlap are pushed apart. A disc's rows fill it evenly in the order of their distance to
//! the centroid, turned by the golden angle from one to the next, as seeds stand in a sunflower: the most typical row is in the middle.
//!
//! Nothing here is random, and sums run in a fixed order: the same clusters give the same picture.
//!
//! Sources: van der Maaten & Hinton 2008 (t-SNE); Kobak & Berens 2019 (a start from principal components); Vogel 1979 (the sunflower).
//! We differ in one way: above [`MOST`] clusters only the largest are laid out, and each other one begins at the nearest of them.

use std::f64::consts::PI;

use rayon::prelude::*;
use tamis_nn::Matrix;

/// The most clusters that are laid out by t-SNE, whose time grows with their square.
const MOST: usize = 1000;
/// Steps of gradient descent.
const STEPS: usize = 400;
/// Steps at the start in which affinities are exaggerated, and how much.
const EXAGGERATED: (usize, f64) = (100, 12.0);
/// The share of the picture that discs cover.
const COVERED: f64 = 0.4;
/// The golden angle.
const TURN: f64 = 2.399_963_229_728_653;

/// A cluster on the plane; the picture is the square from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disc {
    /// From left to right.
    pub x: f64,
    /// From bottom to top.
    pub y: f64,
    /// Its radius.
    pub radius: f64,
}

/// A disc for each centroid; `sizes` are the clusters' rows.
///
/// # Panics
///
/// If there are not as many sizes as centroids.
pub fn layout(centroids: &Matrix, sizes: &[u32]) -> Vec<Disc> {
    assert_eq!(centroids.rows(), sizes.len(), "one size a centroid");
    let mut largest: Vec<u32> = (0..sizes.len() as u32).collect();
    largest.sort_by_key(|&cluster| (std::cmp::Reverse(sizes[cluster as usize]), cluster));
    largest.truncate(MOST);
    largest.sort_unstable();
    let places = t_sne(&centroids.gather(&largest));
    let rows: f64 = sizes.iter().map(|&size| f64::from(size)).sum();
    let mut discs: Vec<Disc> = (0..sizes.len())
        .map(|cluster| {
            let at = largest.binary_search(&(cluster as u32)).unwrap_or_else(|_| {
                let distance = |other: u32| squared_distance(centroids.row(cluster), centroids.row(other as usize));
                (0..largest.len())
                    .min_by(|&a, &b| distance(largest[a]).total_cmp(&distance(largest[b])))
                    .unwrap_or(0)
            });
            Disc {
                x: places[at][0],
                y: places[at][1],
                radius: (f64::from(sizes[cluster]) / rows.max(1.0) * COVERED / PI).sqrt(),
            }
        })
        .collect();
    push_apart(&mut discs);
    fit(&mut discs);
    discs
}

/// Where points stand in their clusters' discs; `cluster[i]` is that of point `i`, whose distance to its centroid is `distance[i]`.
///
/// # Panics
///
/// If the lengths differ, or a cluster has no disc.
pub fn place(discs: &[Disc], cluster: &[u32], distance: &[f32]) -> Vec<[f64; 2]> {
    assert_eq!(cluster.len(), distance.len(), "one distance a point");
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); discs.len()];
    for (point, &cluster) in cluster.iter().enumerate() {
        members[cluster as usize].push(point);
    }
    let mut places = vec![[0.0; 2]; cluster.len()];
    for (disc, mut members) in discs.iter().zip(members) {
        members.sort_by(|&a, &b| distance[a].total_cmp(&distance[b]).then(a.cmp(&b)));
        let count = members.len() as f64;
        for (rank, &point) in members.iter().enumerate() {
            let radius = disc.radius * ((rank as f64 + 0.5) / count).sqrt();
            let (sin, cos) = (rank as f64 * TURN).sin_cos();
            places[point] = [disc.x + radius * cos, disc.y + radius * sin];
        }
    }
    places
}

/// Positions in about the square from 0 to 1.
fn t_sne(points: &Matrix) -> Vec<[f64; 2]> {
    let count = points.rows();
    if count < 2 {
        return vec![[0.5; 2]; count];
    }
    let affinities = affinities(points);
    let mut at = principal(points);
    let mut velocity = vec![[0.0; 2]; count];
    let mut gains = vec![[1.0; 2]; count];
    let rate = (count as f64 / EXAGGERATED.1).max(10.0);
    for step in 0..STEPS {
        let early = step < EXAGGERATED.0;
        let (exaggeration, momentum) = if early { (EXAGGERATED.1, 0.5) } else { (1.0, 0.8) };
        // Of each point: the pull of its affinities, the push of all points, and its part of the normaliser.
        let forces: Vec<([f64; 2], [f64; 2], f64)> = (0..count)
            .into_par_iter()
            .map(|i| {
                let (mut pull, mut push, mut sum) = ([0.0; 2], [0.0; 2], 0.0);
                for (other, affinity) in at.iter().zip(&affinities[i * count..(i + 1) * count]) {
                    let away = [at[i][0] - other[0], at[i][1] - other[1]];
                    let near = 1.0 / (1.0 + away[0] * away[0] + away[1] * away[1]);
                    sum += near;
                    for axis in 0..2 {
                        pull[axis] += affinity * near * away[axis];
                        push[axis] += near * near * away[axis];
                    }
                }
                // A point is not among its own neighbours.
                (pull, push, sum - 1.0)
            })
            .collect();
        let normaliser: f64 = forces.iter().map(|force| force.2).sum();
        for (i, (pull, push, _)) in forces.iter().enumerate() {
            for axis in 0..2 {
                let gradient = 4.0 * (exaggeration * pull[axis] - push[axis] / normaliser);
                let gain: f64 = if (gradient > 0.0) == (velocity[i][axis] > 0.0) {
                    gains[i][axis] * 0.8
                } else {
                    gains[i][axis] + 0.2
                };
                gains[i][axis] = gain.max(0.01);
                velocity[i][axis] = momentum * velocity[i][axis] - rate * gains[i][axis] * gradient;
                at[i][axis] += velocity[i][axis];
            }
        }
    }
    let (low, span) = bounds(at.iter().map(|at| (*at, 0.0)));
    at.iter()
        .map(|at| [(at[0] - low[0]) / span, (at[1] - low[1]) / span])
        .collect()
}

/// Symmetric affinities that sum to 1, shape `(points, points)`: each point's neighbours weigh as a Gaussian whose width gives them
/// the perplexity, found by bisection.
fn affinities(points: &Matrix) -> Vec<f64> {
    let count = points.rows();
    let target = ((count - 1) as f64 / 3.0).clamp(1.0, 15.0).ln();
    let rows: Vec<Vec<f64>> = (0..count)
        .into_par_iter()
        .map(|i| {
            let distances: Vec<f64> = (0..count)
                .map(|j| squared_distance(points.row(i), points.row(j)))
                .collect();
            let others = || (0..count).filter(move |&j| j != i);
            let least = others().map(|j| distances[j]).fold(f64::INFINITY, f64::min);
            let weights = |precision: f64| -> Vec<f64> {
                let mut weights: Vec<f64> = distances.iter().map(|d| (-precision * (d - least)).exp()).collect();
                weights[i] = 0.0;
                let sum: f64 = weights.iter().sum();
                weights.iter().map(|weight| weight / sum).collect()
            };
            let (mut low, mut high, mut precision) = (0.0, f64::INFINITY, 1.0);
            for _ in 0..60 {
                let entropy: f64 = weights(precision)
                    .iter()
                    .filter(|&&weight| weight > 0.0)
                    .map(|weight| -weight * weight.ln())
                    .sum();
                if entropy > target {
                    low = precision;
                    precision = if high.is_finite() {
                        f64::midpoint(low, high)
                    } else {
                        2.0 * low
                    };
                } else {
                    high = precision;
                    precision = f64::midpoint(low, high);
                }
            }
            weights(precision)
        })
        .collect();
    (0..count * count)
        .map(|at| (rows[at / count][at % count] + rows[at % count][at / count]) / (2 * count) as f64)
        .collect()
}

/// The first two principal components, by power iteration, scaled to a standard deviation of 1e-2.
fn principal(points: &Matrix) -> Vec<[f64; 2]> {
    let (count, dim) = (points.rows(), points.cols());
    let mut rows: Vec<Vec<f64>> = points
        .iter_rows()
        .map(|row| row.iter().map(|&x| f64::from(x)).collect())
        .collect();
    for column in 0..dim {
        let mean = rows.iter().map(|row| row[column]).sum::<f64>() / count as f64;
        rows.iter_mut().for_each(|row| row[column] -= mean);
    }
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut at = vec![[0.0; 2]; count];
    for axis in 0..2 {
        // Any start will do that is not square to the component; these cosines are as good as random.
        let mut direction: Vec<f64> = (0..dim).map(|i| (1.0 + i as f64 * TURN).cos()).collect();
        for _ in 0..30 {
            let mut next = vec![0.0; dim];
            for row in &rows {
                let along = dot(row, &direction);
                next.iter_mut().zip(row).for_each(|(sum, x)| *sum += along * x);
            }
            let norm = dot(&next, &next).sqrt();
            if norm == 0.0 {
                break;
            }
            direction = next.into_iter().map(|x| x / norm).collect();
        }
        let norm = dot(&direction, &direction).sqrt().max(f64::MIN_POSITIVE);
        for (at, row) in at.iter_mut().zip(&mut rows) {
            at[axis] = dot(row, &direction) / norm;
            row.iter_mut()
                .zip(&direction)
                .for_each(|(x, d)| *x -= at[axis] * d / norm);
        }
        let deviation = (at.iter().map(|at| at[axis] * at[axis]).sum::<f64>() / count as f64).sqrt();
        for (i, at) in at.iter_mut().enumerate() {
            // Centroids that are all alike along an axis still have to come apart.
            at[axis] = if deviation > 1e-12 {
                1e-2 * at[axis] / deviation
            } else {
                1e-2 * (i as f64 * TURN + axis as f64).sin()
            };
        }
    }
    at
}

/// Moves discs that overlap away from each other, each half the way, over and over.
fn push_apart(discs: &mut [Disc]) {
    let count = discs.len();
    let passes = (50_000_000 / (count * count).max(1)).clamp(5, 200);
    for _ in 0..passes {
        let mut moved = false;
        for i in 0..count {
            for j in i + 1..count {
                let (a, b) = (discs[i], discs[j]);
                let apart = 1.04 * (a.radius + b.radius);
                let (dx, dy) = (b.x - a.x, b.y - a.y);
                let distance = dx.hypot(dy);
                if distance >= apart {
                    continue;
                }
                // Two at one place go apart in some direction that differs from pair to pair.
                let (cos, sin) = if distance > 1e-9 {
                    (dx / distance, dy / distance)
                } else {
                    ((j as f64 * TURN).cos(), (j as f64 * TURN).sin())
                };
                let (x, y) = (cos * (apart - distance) / 2.0, sin * (apart - distance) / 2.0);
                discs[i].x -= x;
                discs[i].y -= y;
                discs[j].x += x;
                discs[j].y += y;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
}

/// Scales the picture to the square from 0 to 1, in its middle.
fn fit(discs: &mut [Disc]) {
    let (low, span) = bounds(discs.iter().map(|disc| ([disc.x, disc.y], disc.radius)));
    for disc in &mut *discs {
        disc.x = (disc.x - low[0]) / span;
        disc.y = (disc.y - low[1]) / span;
        disc.radius /= span;
    }
}

/// The corner and the side of the square around all discs, given as places and radii.
fn bounds(discs: impl Iterator<Item = ([f64; 2], f64)>) -> ([f64; 2], f64) {
    let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
    for (at, radius) in discs {
        for axis in 0..2 {
            low[axis] = low[axis].min(at[axis] - radius);
            high[axis] = high[axis].max(at[axis] + radius);
        }
    }
    let span = (high[0] - low[0]).max(high[1] - low[1]);
    let middle = |axis: usize| f64::midpoint(low[axis], high[axis]) - span / 2.0;
    if span > 0.0 && span.is_finite() {
        ([middle(0), middle(1)], span)
    } else {
        ([0.0; 2], 1.0)
    }
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three groups of ten centroids at the corners of a triangle, each with ten small deviations of its own.
    fn groups() -> Matrix {
        let mut centroids = Matrix::zeros(30, 13);
        for i in 0..30 {
            centroids.row_mut(i)[i / 10] = 1.0;
            centroids.row_mut(i)[3 + i % 10] = 0.1;
        }
        centroids
    }

    #[test]
    fn groups_stay_together_and_apart_from_each_other() {
        let discs = layout(&groups(), &[20; 30]);
        let between = |a: usize, b: usize| (discs[a].x - discs[b].x).hypot(discs[a].y - discs[b].y);
        for i in 0..30 {
            let mut others: Vec<usize> = (0..30).filter(|&j| j != i).collect();
            others.sort_by(|&a, &b| between(i, a).total_cmp(&between(i, b)));
            let near = others.iter().take(5).filter(|&&j| j / 10 == i / 10).count();
            assert_eq!(near, 5, "neighbours of {i}: {:?}", &others[..5]);
        }
        assert_eq!(layout(&groups(), &[20; 30]), discs, "the same picture twice");
    }

    #[test]
    fn discs_have_their_areas_stay_inside_and_hardly_overlap() {
        let sizes: Vec<u32> = (0..30).map(|i| 10 + 10 * i).collect();
        let discs = layout(&groups(), &sizes);
        for (i, a) in discs.iter().enumerate() {
            let area = (a.radius / discs[0].radius).powi(2);
            assert!((area - f64::from(sizes[i]) / 10.0).abs() < 1e-6);
            assert!(a.x - a.radius > -1e-9 && a.y + a.radius < 1.0 + 1e-9);
            for b in &discs[i + 1..] {
                let distance = (a.x - b.x).hypot(a.y - b.y);
                assert!(distance > 0.9 * (a.radius + b.radius), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn one_two_or_equal_clusters_have_places_too() {
        for count in 1..5 {
            let discs = layout(&Matrix::zeros(count, 3), &vec![5; count]);
            assert!(
                discs.iter().all(|disc| disc.x.is_finite() && disc.radius > 0.0),
                "{discs:?}"
            );
        }
    }

    #[test]
    fn a_discs_rows_lie_in_it_the_nearest_in_the_middle() {
        let disc = Disc {
            x: 0.5,
            y: 0.5,
            radius: 0.25,
        };
        let places = place(&[disc], &[0, 0, 0], &[0.3, 0.1, 0.2]);
        let radii: Vec<f64> = places.iter().map(|at| (at[0] - 0.5).hypot(at[1] - 0.5)).collect();
        assert!(
            radii[1] < radii[2] && radii[2] < radii[0] && radii[0] < 0.25,
            "{radii:?}"
        );
    }
}

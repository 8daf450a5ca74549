//! A cloud without groups, of the same mean and covariance as given points: what a partition of them must be better than.
//!
//! k-means cuts anything into compact pieces, and where there are few directions two seeds cut it much alike. So the agreement of
//! seeds on points says something only beside their agreement on such a cloud: the reference of Tibshirani, Walther & Hastie 2001,
//! here with the points' covariance instead of their box.

use rand::RngExt;
use rayon::prelude::*;
use tamis_nn::{Matrix, seed::Seed};

/// How many points a point of the cloud is made of; the more, the nearer the cloud is to a normal distribution.
const TERMS: usize = 64;

/// As many points as there are, each the mean and a sum of random other points' distances from it, with random signs:
///
/// ```text
/// y = mean + Σ s (x - mean) / √TERMS     x: TERMS points drawn at random     s: 1 or -1
/// ```
///
/// stretched to unit length, as the points are. Shape `(rows, dim)`.
pub fn cloud(points: &Matrix, seed: Seed) -> Matrix {
    let (rows, dim) = (points.rows(), points.cols());
    let mut mean = vec![0.0; dim];
    for point in points.iter_rows() {
        mean.iter_mut().zip(point).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let mean: Vec<f32> = mean.iter().map(|&sum| (sum / rows.max(1) as f64) as f32).collect();
    let mut cloud = Matrix::zeros(rows, dim);
    let share = 1.0 / (TERMS as f32).sqrt();
    cloud
        .as_mut_slice()
        .par_chunks_mut(dim.max(1))
        .enumerate()
        .for_each(|(i, y)| {
            let mut rng = seed.index(i as u64).rng();
            y.copy_from_slice(&mean);
            for _ in 0..TERMS {
                let point = points.row(rng.random_range(0..rows));
                let weight = if rng.random() { share } else { -share };
                for ((y, &x), &mean) in y.iter_mut().zip(point).zip(&mean) {
                    *y += weight * (x - mean);
                }
            }
            let length = y.iter().map(|y| y * y).sum::<f32>().sqrt();
            y.iter_mut().for_each(|y| *y /= length.max(f32::MIN_POSITIVE));
        });
    cloud
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unit vectors in two tight groups, at 0.1 radians around the directions 0 and 1.
    fn two_groups() -> Matrix {
        let angles = (0..2000).map(|i| f64::from(i % 2) + 0.1 * (f64::from(i) / 2000.0 - 0.5));
        let data = angles
            .flat_map(|angle| [angle.cos() as f32, angle.sin() as f32, 0.0])
            .collect();
        Matrix::from_vec(data, 2000, 3)
    }

    #[test]
    fn it_keeps_directions_and_loses_groups() {
        let points = two_groups();
        let cloud = cloud(&points, Seed(1));
        let mut between = 0;
        for y in cloud.iter_rows() {
            assert!((y.iter().map(|y| y * y).sum::<f32>() - 1.0).abs() < 1e-5);
            assert!(y[2].abs() < 1e-6, "no point has a third coordinate, nor may the cloud");
            between += usize::from((y[1].atan2(y[0]) - 0.5).abs() < 0.25);
        }
        // No point lies in the middle half between the groups. Of a normal distribution with their variance, .5 (at right angles to the
        // mean) over .88 (its length), a share of 1 - 2 (1 - Φ(.25 / .5)), about .38, does.
        assert!((600..1000).contains(&between), "{between}");
    }

    #[test]
    fn one_seed_makes_one_cloud_and_points_that_are_alike_stay_so() {
        let points = two_groups();
        assert_eq!(cloud(&points, Seed(1)).as_slice(), cloud(&points, Seed(1)).as_slice());
        assert_ne!(cloud(&points, Seed(1)).as_slice(), cloud(&points, Seed(2)).as_slice());
        let alike = Matrix::from_vec([0.6, 0.8].repeat(5), 5, 2);
        for y in cloud(&alike, Seed(0)).iter_rows() {
            assert!((y[0] - 0.6).abs() < 1e-6 && (y[1] - 0.8).abs() < 1e-6);
        }
    }
}

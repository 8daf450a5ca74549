//! k-center: rows are taken one by one, each the farthest from those that were taken before.
//!
//! The first is the row nearest the mean of the pool. In the end the largest distance of a row to the nearest taken one is at most
//! twice the least possible. That distance only ever falls, so an old one is an upper bound, and only the row whose bound is
//! the largest is compared with the rows taken since: the picks are those of the plain algorithm, at a part of its cost.
//!
//! Sources: Gonzalez 1985; Sener & Savarese, arXiv 1708.00489 (core-sets). We differ in two ways:
//!
//! 1. Only the greedy algorithm is run, without the mixed-integer program that refines its result in the second source.
//! 2. No row is labelled beforehand, and the first is fixed, not drawn. So the seed changes nothing.

use std::collections::BinaryHeap;

use rayon::prelude::*;
use tamis_nn::{Matrix, Monitor};

use crate::{
    Error, Result,
    baselines::{View, expected_picks},
    budget::{BudgetTracker, Limit},
    stats::ranking::Ranked,
};

/// Rows times picks above which it could take more than minutes.
const MOST_PAIRS: u64 = 4_000_000_000;

/// Takes rows until the purse is empty; ties take the lower row.
pub(crate) fn spend(purse: &mut BudgetTracker<'_>, view: &View<'_>, limit: Limit, monitor: &dyn Monitor) -> Result<()> {
    check(view.vectors.count() as u64, expected_picks(view.tokens, limit))?;
    let vectors = &view.vectors.to_matrix()?;
    let mut centres = vec![nearest_the_mean(vectors)];
    // The squared distance of each row to the nearest of the centres that it was compared with, and how many those are.
    let mut bounds: BinaryHeap<(Ranked, usize)> = (0..vectors.rows() as u32)
        .into_par_iter()
        .filter(|&row| row != centres[0])
        .map(|row| (farness(vectors, row, centres[0]), 1))
        .collect::<Vec<_>>()
        .into();
    while purse.take(centres[centres.len() - 1]) && !purse.is_empty() {
        monitor.proceed()?;
        let Some(farthest) = farthest(vectors, &centres, &mut bounds) else {
            break;
        };
        centres.push(farthest);
    }
    Ok(())
}

/// Takes the row that is farthest from all centres out of the heap.
fn farthest(vectors: &Matrix, centres: &[u32], bounds: &mut BinaryHeap<(Ranked, usize)>) -> Option<u32> {
    while let Some((mut bound, mut compared)) = bounds.pop() {
        let next = bounds.peek().map(|&(next, _)| next);
        // Once another row's bound is larger, the rest can wait.
        while compared < centres.len() && next.is_none_or(|next| bound > next) {
            bound = bound.min(farness(vectors, bound.row, centres[compared]));
            compared += 1;
        }
        if next.is_none_or(|next| bound > next) {
            return Some(bound.row);
        }
        bounds.push((bound, compared));
    }
    None
}

/// The row that is nearest the mean of all, the lower one of a tie.
fn nearest_the_mean(vectors: &Matrix) -> u32 {
    let mut mean = vec![0.0f64; vectors.cols()];
    for row in vectors.iter_rows() {
        mean.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let mean: Vec<f32> = mean.iter().map(|sum| (sum / vectors.rows() as f64) as f32).collect();
    let nearness = |row: usize| Ranked {
        value: -f64::from(squared_distance(vectors.row(row), &mean)),
        row: row as u32,
    };
    (0..vectors.rows()).map(nearness).max().map_or(0, |nearest| nearest.row)
}

fn farness(vectors: &Matrix, row: u32, centre: u32) -> Ranked {
    Ranked {
        value: f64::from(squared_distance(
            vectors.row(row as usize),
            vectors.row(centre as usize),
        )),
        row,
    }
}

/// Summed in lanes, which run side by side.
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0; LANES];
    let (a, b) = (a.chunks(LANES), b.chunks(LANES));
    for (a, b) in a.zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += (a - b) * (a - b);
        }
    }
    sums.iter().sum()
}

fn check(rows: u64, picks: u64) -> Result<()> {
    if rows.saturating_mul(picks) <= MOST_PAIRS {
        return Ok(());
    }
    Err(Error::setting(
        "methods",
        format!("at most {MOST_PAIRS} pairs of a row and a pick for k-center"),
        format!("{rows} rows and {picks} picks"),
    )
    .with_hint("a smaller budget, or facility-location, which represents the pool by a sample of it"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// In the order in which they were taken.
    fn taken(vectors: &Matrix, picks: usize) -> Vec<u32> {
        let mut centres = vec![nearest_the_mean(vectors)];
        let mut bounds = (0..vectors.rows() as u32)
            .filter(|&row| row != centres[0])
            .map(|row| (farness(vectors, row, centres[0]), 1))
            .collect();
        while centres.len() < picks {
            centres.extend(farthest(vectors, &centres, &mut bounds));
        }
        centres
    }

    #[test]
    fn on_a_line_the_ends_come_after_the_middle() {
        // The mean of 0 1 4 6 10 is 4.2. Farthest from 4: 10 (6 away); then 0 (4 away); then 6 (2 from 4, 4 from 10); then 1.
        let vectors = Matrix::from_vec(vec![0.0, 1.0, 4.0, 6.0, 10.0], 5, 1);
        assert_eq!(taken(&vectors, 5), [2, 4, 0, 3, 1]);
    }

    proptest! {
        #[test]
        fn the_picks_are_those_of_the_plain_algorithm(points in prop::collection::vec(-3i8..4, 3..90)) {
            let vectors = Matrix::from_vec(points[..points.len() / 3 * 3].iter().map(|&x| f32::from(x)).collect(), points.len() / 3, 3);
            let picks = vectors.rows().min(12);
            let mut plain = vec![nearest_the_mean(&vectors)];
            while plain.len() < picks {
                let nearest = |row: u32| plain.iter().map(|&centre| farness(&vectors, row, centre)).min();
                let rest = (0..vectors.rows() as u32).filter(|row| !plain.contains(row));
                let farthest = rest.filter_map(nearest).max();
                plain.extend(farthest.map(|farthest| farthest.row));
            }
            prop_assert_eq!(taken(&vectors, picks), plain);
        }
    }

    #[test]
    fn what_would_take_hours_is_refused_with_its_size() {
        assert!(check(141_000, 7050).is_ok());
        let error = check(1_000_000, 50_000).expect_err("is too large");
        assert!(error.to_string().contains("1000000 rows and 50000 picks"), "{error}");
        assert!(error.hint().is_some());
    }
}

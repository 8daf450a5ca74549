//! Random rows, each label with the share of the budget that it has of the pool.
//!
//! A limit in rows is met by the largest remainders: a label gets the whole part of its share, and the rows that are left over
//! go to the labels with the largest fractions. A limit in tokens is not known in rows beforehand; there the labels take turns
//! in proportion to their sizes, so that every front part of the order holds them in their shares (Webster's method).

use std::cmp::Reverse;

use rand::seq::SliceRandom;
use tamis_nn::seed::Seed;

use crate::{budget::Limit, stats::ranking::shuffled};

/// The rows to be taken, in this order.
pub(crate) fn order(targets: &[u32], limit: Limit, seed: Seed) -> Vec<u32> {
    let mut order = shuffled(targets.len(), seed);
    let mut sizes = vec![0u64; targets.iter().max().map_or(0, |&most| most as usize + 1)];
    let mut place = vec![0; targets.len()];
    for &row in &order {
        let size = &mut sizes[targets[row as usize] as usize];
        place[row as usize] = *size;
        *size += 1;
    }
    let label = |row: u32| targets[row as usize] as usize;
    match limit {
        Limit::Rows(rows) => {
            let quotas = quotas(&sizes, rows, seed.derive("remainders"));
            order.retain(|&row| place[row as usize] < quotas[label(row)]);
        }
        Limit::Tokens(_) => {
            let turn = |row: u32| (place[row as usize] as f64 + 0.5) / sizes[label(row)] as f64;
            order.sort_by(|&a, &b| turn(a).total_cmp(&turn(b)));
        }
    }
    order
}

/// How many of `rows` rows each label gets by the largest remainders, equal ones at random.
fn quotas(sizes: &[u64], rows: u64, seed: Seed) -> Vec<u64> {
    let all: u64 = sizes.iter().sum::<u64>().max(1);
    let mut quotas: Vec<u64> = sizes.iter().map(|size| rows * size / all).collect();
    let left = rows.min(all) - quotas.iter().sum::<u64>().min(rows);
    let mut labels: Vec<usize> = (0..sizes.len()).collect();
    labels.shuffle(&mut seed.rng());
    labels.sort_by_key(|&label| Reverse(rows * sizes[label] % all));
    for &label in labels.iter().take(left as usize) {
        quotas[label] += 1;
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_shared_out_by_the_largest_remainders() {
        // 7 rows of a pool of 3 + 5 + 12: shares 1.05, 1.75 and 4.2
        assert_eq!(quotas(&[3, 5, 12], 7, Seed(0)), [1, 2, 4]);
        assert_eq!(quotas(&[3, 0, 12], 15, Seed(0)), [3, 0, 12]);
        let targets = [[0; 3].as_slice(), &[1; 5], &[2; 12]].concat();
        let rows = order(&targets, Limit::Rows(7), Seed(4));
        let count = |label| rows.iter().filter(|&&row| targets[row as usize] == label).count();
        assert_eq!([count(0), count(1), count(2)], [1, 2, 4]);
        assert_ne!(rows, order(&targets, Limit::Rows(7), Seed(5)));
    }

    #[test]
    fn with_tokens_every_front_part_has_the_shares() {
        let targets: Vec<u32> = (0..90).map(|row| u32::from(row % 3 == 0)).collect();
        let rows = order(&targets, Limit::Tokens(50), Seed(1));
        assert_eq!(rows.len(), 90);
        for front in [3, 30, 60] {
            let ones = rows[..front].iter().filter(|&&row| targets[row as usize] == 1).count();
            assert_eq!(ones, front / 3);
        }
    }
}

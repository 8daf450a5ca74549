//! Similarity to the reward fold: its rows take turns, each taking the row most similar to it that is not taken yet.
//!
//! Similarity is the dot product of the vectors. Each row of the fold keeps a short list of the most similar rows, made by blocked
//! products; one whose list is used up gets a new one of the rows that are left.
//!
//! Source: Ivison et al., arXiv 2503.01807 (RDS+, with its round-robin). We differ in two ways:
//!
//! 1. The vectors are those of the embedder in use, not the weighted mean of the hidden states of the model to be trained.
//! 2. The order in which rows of the fold take turns is drawn, so that a last round that is cut short favours none.

use rayon::prelude::*;
use tamis_nn::{
    Matrix, Monitor,
    kernels::product::{Layout, product},
    seed::Seed,
};

use crate::{
    Result,
    budget::BudgetTracker,
    stats::ranking::{Ranked, shuffled},
    vectors::{VectorStore, blocks},
};

/// Rows of the fold in one product.
const QUERIES: usize = 256;

/// Rows of the pool in one product.
const BLOCK: usize = 1024;

/// The least length of a list.
const LEAST_LISTED: usize = 32;

/// Takes rows of the pool until the purse, which pays for about so many, is empty; ties take the lower row.
pub(crate) fn spend(
    purse: &mut BudgetTracker<'_>,
    picks: u64,
    (pool, fold): (&dyn VectorStore, &Matrix),
    seed: Seed,
    monitor: &dyn Monitor,
) -> Result<()> {
    let order = shuffled(fold.rows(), seed.derive("turns"));
    let turns = picks.div_ceil(fold.rows().max(1) as u64);
    let listed = LEAST_LISTED.max(4 * turns as usize);
    let mut taken = vec![false; pool.count()];
    let mut lists = most_similar(pool, fold, &order, listed, &taken, monitor)?;
    for turn in (0..order.len()).cycle() {
        let list = &mut lists[turn];
        while list.last().is_some_and(|&row| taken[row as usize]) {
            list.pop();
        }
        if list.is_empty() {
            *list = most_similar(pool, fold, &order[turn..=turn], listed, &taken, monitor)?.remove(0);
        }
        let Some(row) = list.pop() else { break };
        if !purse.take(row) || purse.is_empty() {
            break;
        }
        taken[row as usize] = true;
    }
    Ok(())
}

/// For each query, a row of the fold, the rows of the pool that are most similar to it and not taken: at most `listed` of them, the most
/// similar last.
fn most_similar(
    pool: &dyn VectorStore,
    fold: &Matrix,
    queries: &[u32],
    listed: usize,
    taken: &[bool],
    monitor: &dyn Monitor,
) -> Result<Vec<Vec<u32>>> {
    let dim = pool.dim();
    let lists: Vec<Vec<List>> = queries
        .par_chunks(QUERIES)
        .map(|queries| {
            let vectors = fold.gather(queries);
            let mut lists: Vec<List> = queries.iter().map(|_| List::new(listed)).collect();
            let mut dots = vec![0.0; queries.len() * BLOCK];
            for block in blocks(pool.count(), BLOCK) {
                monitor.proceed()?;
                let (first, rows) = (block.start as u32, block.len());
                let block = pool.rows(block)?;
                let dots = &mut dots[..queries.len() * rows];
                let shape = (queries.len(), dim, rows);
                product(
                    dots,
                    shape,
                    vectors.as_slice(),
                    Layout::Plain,
                    &block,
                    Layout::Transposed,
                    0.0,
                );
                for (list, dots) in lists.iter_mut().zip(dots.chunks_exact(rows)) {
                    for (row, &dot) in (first..).zip(dots) {
                        if dot > list.least && !taken[row as usize] {
                            list.push(dot, row);
                        }
                    }
                }
            }
            Ok(lists)
        })
        .collect::<Result<_>>()?;
    Ok(lists.into_iter().flatten().map(List::into_rows).collect())
}

/// The most similar of the rows that were offered in ascending order.
struct List {
    rows: Vec<Ranked>,
    listed: usize,
    /// What a later row must exceed.
    least: f32,
}

impl List {
    fn new(listed: usize) -> Self {
        Self {
            rows: Vec::new(),
            listed,
            least: f32::NEG_INFINITY,
        }
    }

    fn push(&mut self, similarity: f32, row: u32) {
        let value = f64::from(similarity);
        self.rows.push(Ranked { value, row });
        if self.rows.len() == 2 * self.listed {
            let (_, last, _) = self.rows.select_nth_unstable_by(self.listed - 1, |a, b| b.cmp(a));
            self.least = last.value as f32;
            self.rows.truncate(self.listed);
        }
    }

    fn into_rows(mut self) -> Vec<u32> {
        self.rows.sort_unstable_by(|a, b| b.cmp(a));
        self.rows.truncate(self.listed);
        self.rows.iter().rev().map(|ranked| ranked.row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{baselines::tests::Sample, budget::Limit};
    use tamis_nn::Silent;

    fn chosen(sample: &Sample, rows: u64) -> Vec<u32> {
        let mut purse = BudgetTracker::new(&[], Limit::Rows(rows));
        sample
            .view(|view| spend(&mut purse, rows, (view.vectors, view.fold_vectors), Seed(3), &Silent))
            .expect("chooses");
        purse.into_rows()
    }

    #[test]
    fn rows_of_the_fold_take_turns() {
        // Query (1, 0) likes rows 0, 1, 2, 3 in this order, query (0, 1) rows 3, 2, 1, 0: two each, whoever begins.
        let rows = vec![1.0, 0.0, 0.8, 0.6, 0.6, 0.8, 0.0, 1.0];
        let sample = Sample {
            vectors: Matrix::from_vec(rows, 4, 2),
            fold_vectors: Matrix::from_vec(vec![1.0, 0.0, 0.0, 1.0], 2, 2),
            ..Sample::drawn(4, 2, 2)
        };
        assert_eq!(chosen(&sample, 2), [0, 3]);
        assert_eq!(chosen(&sample, 4), [0, 1, 2, 3]);
        assert_eq!(chosen(&sample, 9), [0, 1, 2, 3]);
    }

    #[test]
    fn a_list_that_is_used_up_goes_on() {
        // Many queries that agree: each one's list of 32 is taken by the others, and the choice is the top of the common ranking.
        let rows: Vec<f32> = (0..3000).map(|row| 1.0 - row as f32 / 3000.0).collect();
        let sample = Sample {
            vectors: Matrix::from_vec(rows, 3000, 1),
            fold_vectors: Matrix::from_vec(vec![1.0; 300], 300, 1),
            ..Sample::drawn(3000, 300, 1)
        };
        assert_eq!(chosen(&sample, 290), (0..290).collect::<Vec<u32>>());
    }

    #[test]
    fn a_list_keeps_the_most_similar_and_the_lower_row_of_a_tie() {
        let mut list = List::new(2);
        for (row, similarity) in (0..).zip([0.5, 0.9, 0.1, 0.5, 0.9, 0.9]) {
            if similarity > list.least {
                list.push(similarity, row);
            }
        }
        assert_eq!(list.into_rows(), [4, 1]);
    }
}

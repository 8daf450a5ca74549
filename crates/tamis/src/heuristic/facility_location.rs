//! Facility location: rows are taken so that every row of the pool has a similar one among them.
//!
//! What is maximised is the sum, over the rows that are to be represented, of the largest cosine similarity to a chosen row, where
//! a negative similarity counts as 0. It is submodular and never falls, so taking the row that adds most, time and again,
//! reaches at least `1 - 1/e` of the best sum. A row never adds more later than it would have added before, so an old
//! gain is an upper bound, and only rows whose bounds are the largest are looked at again, many by one product.
//!
//! Sources: Nemhauser, Wolsey & Fisher 1978 (the guarantee); Minoux 1978 (lazy evaluation); Lin & Bilmes 2011 (choosing training
//! data so). The objective is that of `FacilityLocationSelection` in `apricot-select` with a matrix of cosines, cut at 0. We
//! differ in one way: above 10,000 rows, those that are to be represented are a random sample; any row may be chosen.

use std::collections::BinaryHeap;

use rand::seq::index;
use rayon::prelude::*;

use super::{Purse, ranked::Ranked};
use crate::{
    Error, Matrix, Monitor, Result,
    budget::Limit,
    nn::product::{View, multiply},
    seed::Seed,
};

/// The most rows that are represented.
const MOST_REPRESENTED: usize = 10_000;

/// Represented rows that one product covers: their vectors stay in a core's cache.
const PANEL: usize = 512;

/// Rows whose gains are found together at first.
const BLOCK: usize = 256;

/// Rows that are looked at again together: this many, then twice as many each time, up to a block.
const BATCH: usize = 16;

/// The rows that are to be represented, in ascending order: all of them, or a sample.
pub fn represented(rows: usize, seed: Seed) -> Vec<u32> {
    if rows <= MOST_REPRESENTED {
        return (0..rows as u32).collect();
    }
    let mut rng = seed.derive("represented").rng();
    let mut sample: Vec<u32> = index::sample(&mut rng, rows, MOST_REPRESENTED)
        .iter()
        .map(|row| row as u32)
        .collect();
    sample.sort_unstable();
    sample
}

/// The sum over the represented rows of the largest similarity to a chosen row, at least 0; higher is better. Vectors are unit
/// vectors, shape `(rows, dim)`.
pub fn objective(vectors: &Matrix, represented: &[u32], chosen: &[u32]) -> f64 {
    let all = Represented::new(vectors, represented);
    let mut served = vec![0.0; represented.len()];
    let mut similarities = Vec::new();
    for rows in chosen.chunks(BLOCK) {
        all.by_panel(rows, &mut similarities, |_, _| ());
        for i in 0..rows.len() {
            serve(&mut served, of_row(&similarities, rows.len(), i));
        }
    }
    served.iter().map(|&similarity| f64::from(similarity)).sum()
}

/// Takes rows until the purse is empty; ties take the lower row.
pub(super) fn spend(purse: &mut Purse<'_>, vectors: &Matrix, seed: Seed, monitor: &dyn Monitor) -> Result<()> {
    let represented = represented(vectors.rows(), seed);
    let mut facilities = Facilities::new(Represented::new(vectors, &represented), monitor)?;
    while !purse.is_empty() {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let Some(best) = facilities.best() else { break };
        if !purse.take(best) {
            break;
        }
    }
    Ok(())
}

/// The first `most` rows in the order in which they are taken.
///
/// # Errors
///
/// If the user asked to stop.
pub fn order(vectors: &Matrix, most: usize, seed: Seed, monitor: &dyn Monitor) -> Result<Vec<u32>> {
    let mut purse = Purse::new(&[], Limit::Rows(most as u64));
    spend(&mut purse, vectors, seed, monitor)?;
    Ok(purse.into_order())
}

/// The greedy algorithm between two picks.
struct Facilities<'a> {
    all: Represented<'a>,
    /// The largest similarity of each represented row to a chosen one, at least 0, shape `(represented,)`.
    served: Vec<f32>,
    /// An upper bound of what each row that is left would add.
    bounds: BinaryHeap<Ranked>,
}

impl<'a> Facilities<'a> {
    fn new(all: Represented<'a>, monitor: &dyn Monitor) -> Result<Self> {
        let served = vec![0.0; all.count];
        let rows: Vec<u32> = (0..all.vectors.rows() as u32).collect();
        let mut bounds = Vec::with_capacity(rows.len());
        let mut similarities = Vec::new();
        for rows in rows.chunks(BLOCK) {
            if monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            bounds.extend(all.gains(rows, &served, &mut similarities));
        }
        Ok(Self {
            all,
            served,
            bounds: bounds.into(),
        })
    }

    /// Takes the row that adds most.
    fn best(&mut self) -> Option<u32> {
        let mut best: Option<Ranked> = None;
        let mut best_similarities: Vec<f32> = Vec::new();
        let mut similarities = Vec::new();
        let mut looked_at = Vec::new();
        let mut batch = BATCH;
        loop {
            let mut rows = Vec::with_capacity(batch);
            while rows.len() < batch
                && let Some(bound) = self.bounds.peek()
                && best.is_none_or(|best| *bound > best)
            {
                rows.extend(self.bounds.pop().map(|bound| bound.row));
            }
            if rows.is_empty() {
                break;
            }
            let gains = self.all.gains(&rows, &self.served, &mut similarities);
            for (i, &gain) in gains.iter().enumerate() {
                if best.is_none_or(|best| gain > best) {
                    best = Some(gain);
                    best_similarities.clear();
                    best_similarities.extend(of_row(&similarities, rows.len(), i));
                }
            }
            looked_at.extend(gains);
            batch = (2 * batch).min(BLOCK);
        }
        let best = best?.row;
        self.bounds
            .extend(looked_at.into_iter().filter(|gain| gain.row != best));
        serve(&mut self.served, best_similarities);
        Some(best)
    }
}

/// The rows that are to be represented, laid out for products with any rows.
struct Represented<'a> {
    vectors: &'a Matrix,
    count: usize,
    /// The represented vectors as columns, `PANEL` of them each, shape `(dim, columns)`.
    panels: Vec<Vec<f32>>,
}

impl<'a> Represented<'a> {
    fn new(vectors: &'a Matrix, represented: &[u32]) -> Self {
        let panel = |rows: &[u32]| {
            let column = |d: usize| rows.iter().map(move |&row| vectors.row(row as usize)[d]);
            (0..vectors.cols()).flat_map(column).collect()
        };
        Self {
            vectors,
            count: represented.len(),
            panels: represented.chunks(PANEL).map(panel).collect(),
        }
    }

    /// What each row would add.
    fn gains(&self, rows: &[u32], served: &[f32], similarities: &mut Vec<f32>) -> Vec<Ranked> {
        let by_panel = self.by_panel(rows, similarities, |panel, similarities| {
            let served = &served[panel * PANEL..self.count.min((panel + 1) * PANEL)];
            similarities
                .chunks(served.len())
                .map(|row| gain(row, served))
                .collect::<Vec<f64>>()
        });
        let gain = |i: usize| by_panel.iter().map(|gains| gains[i]).sum();
        rows.iter()
            .enumerate()
            .map(|(i, &row)| Ranked { value: gain(i), row })
            .collect()
    }

    /// Fills `out` with the similarities of rows to all that are represented, a panel after the other, each of shape
    /// `(rows, columns)`, and calls a function with each panel's number and part of it.
    fn by_panel<T: Send>(&self, rows: &[u32], out: &mut Vec<f32>, then: impl Fn(usize, &[f32]) -> T + Sync) -> Vec<T> {
        let (m, dim) = (rows.len(), self.vectors.cols());
        let block = self.vectors.gather(rows);
        out.resize(m * self.count, 0.0);
        out.par_chunks_mut(m * PANEL)
            .zip(&self.panels)
            .enumerate()
            .map(|(panel, (out, columns))| {
                let width = out.len() / m;
                multiply(
                    out,
                    View::new(block.as_slice(), m, dim),
                    View::new(columns, dim, width),
                    0.0,
                );
                then(panel, out)
            })
            .collect()
    }
}

/// The similarities of row `i` of `rows` rows, shape `(represented,)`.
fn of_row(similarities: &[f32], rows: usize, i: usize) -> impl Iterator<Item = f32> {
    similarities.chunks(rows * PANEL).flat_map(move |panel| {
        let width = panel.len() / rows;
        panel[i * width..(i + 1) * width].iter().copied()
    })
}

/// Counts a chosen row in.
fn serve(served: &mut [f32], similarities: impl IntoIterator<Item = f32>) {
    for (served, similarity) in served.iter_mut().zip(similarities) {
        *served = served.max(similarity);
    }
}

/// How far similarities exceed what there is, summed in lanes, which run side by side. No rounding makes it grow with `served`.
fn gain(similarities: &[f32], served: &[f32]) -> f64 {
    const LANES: usize = 16;
    let mut sums = [0.0; LANES];
    for (similarities, served) in similarities.chunks(LANES).zip(served.chunks(LANES)) {
        for ((sum, similarity), served) in sums.iter_mut().zip(similarities).zip(served) {
            *sum += f64::from((similarity - served).max(0.0));
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::tests::Sample, *};
    use crate::Silent;

    /// In ascending order.
    fn chosen(vectors: &Matrix, rows: u64) -> Vec<u32> {
        let mut purse = Purse::new(&[], Limit::Rows(rows));
        spend(&mut purse, vectors, Seed(0), &Silent).expect("chooses");
        purse.into_rows()
    }

    /// The objective without products: cosines one by one.
    fn plain(vectors: &Matrix, chosen: &[u32]) -> f64 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let best = |row: &[f32]| {
            chosen
                .iter()
                .map(|&c| dot(row, vectors.row(c as usize)))
                .fold(0.0, f32::max)
        };
        vectors.iter_rows().map(|row| f64::from(best(row))).sum()
    }

    #[test]
    fn two_groups_get_a_row_each_and_opposites_count_as_nothing() {
        // Rows 0 to 2 point right, the middle one best for all three; rows 3 and 4 point left, where the tie takes the lower one.
        let vectors = Matrix::from_vec(vec![0.8, 0.6, 1.0, 0.0, 0.8, -0.6, -1.0, 0.0, -1.0, 0.0], 5, 2);
        assert_eq!(chosen(&vectors, 1), [1]);
        assert_eq!(chosen(&vectors, 2), [1, 3]);
        let all: Vec<u32> = (0..5).collect();
        // 0.8 + 1 + 0.8, and 1 + 1 for those on the left
        assert!((objective(&vectors, &all, &[1]) - 2.6).abs() < 1e-6);
        assert!((objective(&vectors, &all, &[3, 1]) - 4.6).abs() < 1e-6);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn it_is_the_plain_greedy_algorithm_and_near_the_best(seed in 0..10_000u64) {
            let vectors = Sample::drawn(12, 1, seed).vectors;
            let all: Vec<u32> = (0..12).collect();
            let mut greedy: Vec<u32> = Vec::new();
            for _ in 0..3 {
                let with = |row: u32| Ranked { value: plain(&vectors, &[greedy.as_slice(), &[row]].concat()), row };
                greedy.extend(all.iter().filter(|row| !greedy.contains(row)).map(|&row| with(row)).max().map(|best| best.row));
            }
            let chosen = chosen(&vectors, 3);
            let value = objective(&vectors, &all, &chosen);
            prop_assert!((value - plain(&vectors, &greedy)).abs() < 1e-5);
            let mut best: f64 = 0.0;
            for a in 0..12 {
                for b in 0..a {
                    for c in 0..b {
                        best = best.max(plain(&vectors, &[a, b, c]));
                    }
                }
            }
            prop_assert!(value >= (1.0 - (-1f64).exp()) * best - 1e-5);
        }
    }

    #[test]
    fn many_rows_are_represented_by_a_sample_and_looking_again_is_lazy_only() {
        let sample = represented(20_000, Seed(1));
        assert_eq!(sample.len(), MOST_REPRESENTED);
        assert!(sample.windows(2).all(|pair| pair[0] < pair[1]) && sample != represented(20_000, Seed(2)));
        // More rows than a block and a panel hold: every gain looked at anew gives the same rows.
        let vectors = Sample::drawn(700, 1, 5).vectors;
        let all: Vec<u32> = (0..700).collect();
        let mut facilities = Facilities::new(Represented::new(&vectors, &all), &Silent).expect("begins");
        let lazy: Vec<u32> = (0..40).filter_map(|_| facilities.best()).collect();
        let mut facilities = Facilities::new(Represented::new(&vectors, &all), &Silent).expect("begins");
        let eager: Vec<u32> = (0..40)
            .filter_map(|_| {
                let every = facilities
                    .bounds
                    .drain()
                    .map(|bound| Ranked {
                        value: f64::INFINITY,
                        ..bound
                    })
                    .collect();
                facilities.bounds = every;
                facilities.best()
            })
            .collect();
        assert_eq!(lazy, eager);
    }
}

//! Facility location: rows are taken so that every row of the pool has a similar one among them.
//!
//! What is maximised is the sum, over the rows that are to be represented, of the largest cosine similarity to a chosen row, where
//! a negative similarity counts as 0. It is submodular and never falls, so taking the row that adds most, time and again,
//! reaches at least `1 - 1/e` of the best sum. A row never adds more later than it would have added before, so an old
//! gain is an upper bound, and only rows whose bounds are the largest are looked at again, many by one product.
//!
//! Sources: Nemhauser, Wolsey & Fisher 1978 (the guarantee); Minoux 1978 (lazy evaluation); Lin & Bilmes 2011 (choosing training
//! data so). The objective is that of `FacilityLocationSelection` in `apricot-select` with a matrix of cosines, cut at 0. We
//! differ in one way: above 10,000 rows, those that are to be represented are a random sample; any row may be chosen. So
//! from a few thousand picks on, the choice comes near that sample, and its sum over other rows near that of random rows.

use std::collections::BinaryHeap;

use rayon::prelude::*;
use tamis_nn::{
    Matrix, Monitor,
    kernels::product::{Layout, product},
    seed::Seed,
};

use crate::{
    Result,
    budget::{BudgetTracker, Limit},
    stats::ranking::{Ranked, sample},
};

/// The most rows that are represented.
const MOST_REPRESENTED: usize = 10_000;

/// Represented rows that one product covers: their vectors stay in a core's cache.
const PANEL: usize = 512;

/// The most rows that are looked at together.
const BLOCK: usize = 128;

/// Rows that are looked at together first when a row is sought; then twice as many each time.
const BATCH: usize = 16;

/// The most entries of an excess that is kept: as much memory as a vector of 1,024 numbers.
const MOST_KEPT: usize = 512;

/// The rows that are to be represented, in ascending order: all of them, or a sample.
pub fn represented(rows: usize, seed: Seed) -> Vec<u32> {
    sample(rows, MOST_REPRESENTED, seed.derive("represented"))
}

/// The sum over the represented rows of the largest similarity to a chosen row, at least 0; higher is better. Vectors are unit
/// vectors, shape `(rows, dim)`.
pub fn objective(vectors: &Matrix, represented: &[u32], chosen: &[u32]) -> f64 {
    let mut all = Represented::new(vectors, represented);
    for rows in chosen.chunks(BLOCK) {
        for excess in all.excesses(rows) {
            all.raise(&excess);
        }
    }
    all.served.iter().map(|&similarity| f64::from(similarity)).sum()
}

/// Takes rows until the purse is empty; ties take the lower row.
pub(crate) fn spend(purse: &mut BudgetTracker<'_>, vectors: &Matrix, seed: Seed, monitor: &dyn Monitor) -> Result<()> {
    spend_on(purse, vectors, &represented(vectors.rows(), seed), monitor)
}

fn spend_on(purse: &mut BudgetTracker<'_>, vectors: &Matrix, represented: &[u32], monitor: &dyn Monitor) -> Result<()> {
    let mut greedy = Greedy::new(Represented::new(vectors, represented), monitor)?;
    while !purse.is_empty() {
        monitor.proceed()?;
        let Some(best) = greedy.best() else { break };
        if !purse.take(best) {
            break;
        }
    }
    Ok(())
}

/// The first `most` rows in the order in which they are taken; those that they are to represent are a sample of twice as many rows.
///
/// # Errors
///
/// If the user asked to stop.
pub fn order(vectors: &Matrix, most: usize, seed: Seed, monitor: &dyn Monitor) -> Result<Vec<u32>> {
    let mut purse = BudgetTracker::new(&[], Limit::Rows(most as u64));
    let represented = sample(vectors.rows(), 2 * most, seed.derive("represented"));
    spend_on(&mut purse, vectors, &represented, monitor)?;
    Ok(purse.into_order())
}

/// The represented rows to which a row is more similar than any chosen one is, with the similarity. Only ever shrinks.
type Excess = Vec<(u32, f32)>;

/// The greedy algorithm between two picks.
struct Greedy<'a> {
    all: Represented<'a>,
    /// An upper bound of what each row that is left would add.
    bounds: BinaryHeap<Ranked>,
    /// The excess of each row as it was last seen, where it is short; it spares the next product.
    kept: Vec<Option<Excess>>,
}

impl<'a> Greedy<'a> {
    fn new(all: Represented<'a>, monitor: &dyn Monitor) -> Result<Self> {
        let rows: Vec<u32> = (0..all.vectors.rows() as u32).collect();
        let mut bounds = Vec::with_capacity(rows.len());
        for rows in rows.chunks(BLOCK) {
            monitor.proceed()?;
            let excesses = all.excesses(rows);
            bounds.extend(rows.iter().zip(excesses).map(|(&row, excess)| all.gain(row, &excess)));
        }
        Ok(Self {
            kept: vec![None; rows.len()],
            all,
            bounds: bounds.into(),
        })
    }

    /// Takes the row that adds most.
    fn best(&mut self) -> Option<u32> {
        let mut best: Option<(Ranked, Excess)> = None;
        let mut batch = BATCH;
        loop {
            let mut rows = Vec::with_capacity(batch);
            while rows.len() < batch
                && let Some(bound) = self.bounds.peek()
                && best.as_ref().is_none_or(|(best, _)| bound > best)
            {
                rows.extend(self.bounds.pop().map(|bound| bound.row));
            }
            if rows.is_empty() {
                break;
            }
            for seen in self.look_at(&rows) {
                let better = best.as_ref().is_none_or(|best| seen.0 > best.0);
                let loser = if better { best.replace(seen) } else { Some(seen) };
                loser.into_iter().for_each(|(gain, excess)| self.put_back(gain, excess));
            }
            batch = (2 * batch).min(BLOCK);
        }
        let (best, excess) = best?;
        self.all.raise(&excess);
        Some(best.row)
    }

    fn put_back(&mut self, gain: Ranked, mut excess: Excess) {
        self.bounds.push(gain);
        if excess.len() <= MOST_KEPT {
            excess.shrink_to_fit();
            self.kept[gain.row as usize] = Some(excess);
        }
    }

    /// What each of these rows would add, and its excess.
    fn look_at(&mut self, rows: &[u32]) -> Vec<(Ranked, Excess)> {
        let (known, unknown): (Vec<u32>, Vec<u32>) = rows.iter().partition(|&&row| self.kept[row as usize].is_some());
        let known = known.into_iter().filter_map(|row| {
            let mut excess = self.kept[row as usize].take()?;
            excess.retain(|&(at, similarity)| similarity > self.all.served[at as usize]);
            Some((row, excess))
        });
        let unknown = unknown.iter().copied().zip(self.all.excesses(&unknown));
        known
            .chain(unknown)
            .map(|(row, excess)| (self.all.gain(row, &excess), excess))
            .collect()
    }
}

/// The rows that are to be represented, and how well they are.
struct Represented<'a> {
    vectors: &'a Matrix,
    /// The represented vectors as columns, `PANEL` of them each, shape `(dim, columns)`.
    panels: Vec<Vec<f32>>,
    /// The largest similarity of each represented row to a chosen one, at least 0, shape `(represented,)`.
    served: Vec<f32>,
}

impl<'a> Represented<'a> {
    fn new(vectors: &'a Matrix, represented: &[u32]) -> Self {
        let panel = |rows: &[u32]| {
            let column = |d: usize| rows.iter().map(move |&row| vectors.row(row as usize)[d]);
            (0..vectors.cols()).flat_map(column).collect()
        };
        Self {
            vectors,
            panels: represented.chunks(PANEL).map(panel).collect(),
            served: vec![0.0; represented.len()],
        }
    }

    /// The excess of each row.
    fn excesses(&self, rows: &[u32]) -> Vec<Excess> {
        let (m, dim) = (rows.len(), self.vectors.cols());
        if m == 0 {
            return Vec::new();
        }
        let block = self.vectors.gather(rows);
        // A panel after the other, each of shape `(m, columns)`.
        let mut similarities = vec![0.0; m * self.served.len()];
        similarities
            .par_chunks_mut(m * PANEL)
            .zip(&self.panels)
            .for_each(|(out, panel)| {
                let width = out.len() / m;
                let shape = (m, dim, width);
                product(out, shape, block.as_slice(), Layout::Plain, panel, Layout::Plain, 0.0);
            });
        let excess = |i: usize| {
            let mut excess = Excess::new();
            let panels = similarities.chunks(m * PANEL).zip(self.served.chunks(PANEL));
            for ((panel, served), first) in panels.zip((0..).step_by(PANEL)) {
                let own = &panel[i * served.len()..(i + 1) * served.len()];
                for ((&similarity, &served), at) in own.iter().zip(served).zip(first..) {
                    if similarity > served {
                        excess.push((at, similarity));
                    }
                }
            }
            excess
        };
        (0..m).into_par_iter().map(excess).collect()
    }

    /// What a row would add.
    fn gain(&self, row: u32, excess: &Excess) -> Ranked {
        let added = |&(at, similarity): &(u32, f32)| f64::from(similarity) - f64::from(self.served[at as usize]);
        Ranked {
            value: excess.iter().map(added).sum(),
            row,
        }
    }

    /// Counts a chosen row in.
    fn raise(&mut self, excess: &Excess) {
        for &(at, similarity) in excess {
            let served = &mut self.served[at as usize];
            *served = served.max(similarity);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::baselines::tests::Sample;
    use tamis_nn::Silent;

    /// In ascending order.
    fn chosen(vectors: &Matrix, rows: u64) -> Vec<u32> {
        let mut purse = BudgetTracker::new(&[], Limit::Rows(rows));
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
        let mut greedy = Greedy::new(Represented::new(&vectors, &all), &Silent).expect("begins");
        let lazy: Vec<u32> = (0..40).filter_map(|_| greedy.best()).collect();
        let mut greedy = Greedy::new(Represented::new(&vectors, &all), &Silent).expect("begins");
        let eager: Vec<u32> = (0..40)
            .filter_map(|_| {
                let every = greedy
                    .bounds
                    .drain()
                    .map(|bound| Ranked {
                        value: f64::INFINITY,
                        ..bound
                    })
                    .collect();
                greedy.bounds = every;
                greedy.best()
            })
            .collect();
        assert_eq!(lazy, eager);
    }
}

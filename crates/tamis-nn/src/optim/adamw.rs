//! AdamW: Adam with decoupled weight decay, one pass over each parameter.
//!
//! ```text
//! m = β₁ m + (1 − β₁) g        v = β₂ v + (1 − β₂) g²
//! p = p (1 − rate · decay) − rate · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
//! ```
//!
//! Source: Loshchilov & Hutter 2019, algorithm 2, as PyTorch has it. A table's row that never had a gradient has moments of zero:
//! none are kept for it, and it only decays, which is what PyTorch's dense step comes to.

use rayon::prelude::*;

use crate::kernels::elementwise::wide;

/// Numbers that one thread takes at a time: fixed, so that threads change no bit of a norm.
const CHUNK: usize = 1 << 15;

/// The moments' decay and the least divisor; PyTorch's defaults.
const MEAN: f32 = 0.9;
const SQUARE: f32 = 0.999;
const LEAST: f32 = 1e-8;
/// A smaller mean is set to zero, as is a square below [`TINY_SQUARE`]. They move nothing, for they are far below what [`LEAST`]
/// lets through; but where gradients stay away, as behind a unit that is dead, moments would shrink to denormal numbers, whose
/// arithmetic is a hundred times as slow.
const TINY_MEAN: f32 = 1e-25;
const TINY_SQUARE: f32 = 1e-34;

/// One tensor to be trained and its gradient, of the same length.
pub struct Parameter<'a> {
    /// The numbers.
    pub values: &'a mut [f32],
    /// The loss's derivative by each.
    pub gradient: &'a mut [f32],
    /// Whether they decay: weights do, biases and norms do not.
    pub decays: bool,
}

/// A table of which only some rows have a gradient.
pub struct Table<'a> {
    /// Shape `(rows, cols)`.
    pub values: &'a mut [f32],
    /// Row length.
    pub cols: usize,
    /// The rows that have a gradient, each once.
    pub rows: &'a [u32],
    /// Their gradients, shape `(rows.len(), cols)`.
    pub gradient: &'a [f32],
}

/// The optimiser's state.
#[derive(Debug, Clone, Default)]
pub struct AdamW {
    /// How much of a weight decays a step, times the rate.
    decay: f32,
    steps: i32,
    /// Moments of all parameters, in their order.
    mean: Vec<f32>,
    square: Vec<f32>,
    /// Where a table row's moments are, plus 1; 0: it has none yet.
    slots: Vec<u32>,
    table_mean: Vec<f32>,
    table_square: Vec<f32>,
}

/// What a step multiplies by.
#[derive(Clone, Copy)]
struct Factors {
    rate: f32,
    gradient: f32,
    /// 1 over what is left to a moment to be unbiased.
    mean_left: f32,
    square_left: f32,
}

impl AdamW {
    /// An optimiser that has taken no step.
    pub fn new(decay: f32) -> Self {
        Self {
            decay,
            ..Self::default()
        }
    }

    /// One step against the gradients times `factor` at this learning rate; the parameters' gradients are zero afterwards. The same
    /// parameters have to come every time, in the same order.
    ///
    /// # Panics
    ///
    /// If lengths differ from those of the first step.
    pub fn step(&mut self, rate: f32, factor: f32, parameters: &mut [Parameter<'_>], table: Option<&mut Table<'_>>) {
        let count = parameters.iter().map(|parameter| parameter.values.len()).sum();
        if self.steps == 0 {
            self.mean.resize(count, 0.0);
            self.square.resize(count, 0.0);
        }
        assert_eq!(self.mean.len(), count, "the parameters of the first step");
        self.steps += 1;
        let factors = Factors {
            rate,
            gradient: factor,
            mean_left: 1.0 / (1.0 - MEAN.powi(self.steps)),
            square_left: 1.0 / (1.0 - SQUARE.powi(self.steps)),
        };
        let keep = 1.0 - rate * self.decay;
        let (mut mean, mut square) = (self.mean.as_mut_slice(), self.square.as_mut_slice());
        for Parameter {
            values,
            gradient,
            decays,
        } in parameters
        {
            let (m, rest) = mean.split_at_mut(values.len());
            mean = rest;
            let (s, rest) = square.split_at_mut(values.len());
            square = rest;
            let keep = if *decays { keep } else { 1.0 };
            if values.len() <= CHUNK {
                // To hand it to another thread would take longer than to do it.
                factors.apply(values, gradient, m, s, keep);
                gradient.fill(0.0);
                continue;
            }
            values
                .par_chunks_mut(CHUNK)
                .zip(gradient.par_chunks_mut(CHUNK))
                .zip(m.par_chunks_mut(CHUNK).zip(s.par_chunks_mut(CHUNK)))
                .for_each(|((values, gradient), (m, s))| {
                    factors.apply(values, gradient, m, s, keep);
                    gradient.fill(0.0);
                });
        }
        if let Some(table) = table {
            self.table_step(factors, keep, table);
        }
    }

    fn table_step(&mut self, factors: Factors, keep: f32, table: &mut Table<'_>) {
        let cols = table.cols;
        self.slots.resize(table.values.len() / cols, 0);
        for &row in table.rows {
            let slot = &mut self.slots[row as usize];
            if *slot == 0 {
                *slot = (self.table_mean.len() / cols) as u32 + 1;
                self.table_mean.resize(self.table_mean.len() + cols, 0.0);
                self.table_square.resize(self.table_square.len() + cols, 0.0);
            }
        }
        // Every row that has moments moves, as their momentum tells, whether or not it has a gradient now.
        let mut gradient_at = vec![u32::MAX; self.table_mean.len() / cols];
        for (i, &row) in table.rows.iter().enumerate() {
            gradient_at[self.slots[row as usize] as usize - 1] = i as u32;
        }
        // The others only decay.
        if keep != 1.0 {
            let rows = table.values.par_chunks_exact_mut(cols).zip(&self.slots);
            rows.with_min_len(256)
                .filter(|(_, slot)| **slot == 0)
                .for_each(|(values, _)| values.iter_mut().for_each(|p| *p *= keep));
        }
        let mut moving: Vec<&mut [f32]> = Vec::new();
        moving.resize_with(gradient_at.len(), Default::default);
        for (values, &slot) in table.values.chunks_exact_mut(cols).zip(&self.slots) {
            if slot > 0 {
                moving[slot as usize - 1] = values;
            }
        }
        let zeros = vec![0.0; cols];
        let means = self.table_mean.par_chunks_exact_mut(cols);
        let moments = means.zip(self.table_square.par_chunks_exact_mut(cols));
        (moving.into_par_iter().zip(&gradient_at).zip(moments))
            .with_min_len(64)
            .for_each(|((values, &at), (m, s))| {
                let gradient = match at {
                    u32::MAX => &zeros,
                    at => &table.gradient[at as usize * cols..(at as usize + 1) * cols],
                };
                factors.apply(values, gradient, m, s, keep);
            });
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps as u64
    }

    /// All moments by name, for a checkpoint.
    pub fn moments(&self) -> [(&'static str, &[f32]); 4] {
        [
            ("mean", &self.mean),
            ("square", &self.square),
            ("table_mean", &self.table_mean),
            ("table_square", &self.table_square),
        ]
    }

    /// Where the table's rows have their moments.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// The optimiser that had this state, in the order of [`AdamW::moments`].
    pub fn restore(
        decay: f32,
        steps: u64,
        [mean, square, table_mean, table_square]: [Vec<f32>; 4],
        slots: Vec<u32>,
    ) -> Self {
        Self {
            decay,
            steps: steps as i32,
            mean,
            square,
            slots,
            table_mean,
            table_square,
        }
    }
}

impl Factors {
    fn apply(self, values: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32], keep: f32) {
        let (step, factor) = (self.rate * self.mean_left, self.gradient);
        wide(
            #[inline(always)]
            || {
                let moments = mean.iter_mut().zip(square.iter_mut());
                for ((p, g), (m, s)) in values.iter_mut().zip(gradient).zip(moments) {
                    let g = factor * g;
                    *m = zero_below(TINY_MEAN, MEAN * *m + (1.0 - MEAN) * g);
                    *s = zero_below(TINY_SQUARE, SQUARE * *s + (1.0 - SQUARE) * g * g);
                    *p = *p * keep - step * *m / ((*s * self.square_left).sqrt() + LEAST);
                }
            },
        );
    }
}

#[inline(always)]
fn zero_below(least: f32, x: f32) -> f32 {
    if x.abs() < least { 0.0 } else { x }
}

/// The norm of all gradients together.
pub fn global_norm<'a>(gradients: impl Iterator<Item = &'a [f32]>) -> f64 {
    let squares = |chunk: &[f32]| -> f64 {
        let mut lanes = [0.0f32; 16];
        for part in chunk.chunks(16) {
            lanes.iter_mut().zip(part).for_each(|(lane, g)| *lane += g * g);
        }
        lanes.into_iter().map(f64::from).sum()
    };
    gradients
        .map(|gradient| {
            if gradient.len() <= CHUNK {
                return squares(gradient);
            }
            let parts: Vec<f64> = gradient.par_chunks(CHUNK).map(squares).collect();
            parts.into_iter().sum()
        })
        .sum::<f64>()
        .sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(optimiser: &mut AdamW, rate: f32, values: &mut [f32], gradient: &mut [f32], decays: bool) {
        let mut parameters = [Parameter {
            values,
            gradient,
            decays,
        }];
        optimiser.step(rate, 1.0, &mut parameters, None);
    }

    #[test]
    fn steps_worked_by_hand() {
        // Gradient 0.5 twice, rate 0.1, decay 0.1: m̂ = 0.5, ŝ = 0.25 both times, so p = 0.99 p - 0.1 each step:
        // 1 -> 0.89 -> 0.7811. Without decay 1 -> 0.9 -> 0.8.
        let (mut decaying, mut plain) = ([1.0], [1.0]);
        let (mut first, mut second) = (AdamW::new(0.1), AdamW::new(0.1));
        for (want, want_plain) in [(0.89, 0.9), (0.7811, 0.8)] {
            let mut gradient = [0.5];
            once(&mut first, 0.1, &mut decaying, &mut gradient, true);
            assert_eq!(gradient, [0.0]);
            once(&mut second, 0.1, &mut plain, &mut [0.5], false);
            assert!((decaying[0] - want).abs() < 1e-5, "{}", decaying[0]);
            assert!((plain[0] - want_plain).abs() < 1e-5, "{}", plain[0]);
        }
    }

    #[test]
    fn a_parameter_of_several_chunks_moves_as_each_of_its_numbers_does() {
        let many = 2 * CHUNK + 5;
        let start: Vec<f32> = (0..many).map(|i| (i as f32).sin()).collect();
        let slope: Vec<f32> = (0..many).map(|i| (i as f32).cos() + 1.5).collect();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool");
            let (mut values, mut gradient) = (start.clone(), slope.clone());
            let norm = pool.install(|| {
                let norm = global_norm(std::iter::once(gradient.as_slice()));
                once(&mut AdamW::new(0.1), 0.1, &mut values, &mut gradient, true);
                norm
            });
            let squares: f64 = slope.iter().map(|&g| f64::from(g).powi(2)).sum();
            assert!((norm - squares.sqrt()).abs() < 1e-4 * norm, "{norm}");
            assert!(gradient.iter().all(|&g| g == 0.0));
            // After one step both moments are what the gradient says: p = 0.99 p - 0.1 g / |g|, and all slopes are positive.
            for (after, before) in values.iter().zip(&start) {
                assert!((after - (0.99 * before - 0.1)).abs() < 1e-5, "{before} became {after}");
            }
        }
    }

    #[test]
    fn moments_of_a_parameter_without_gradients_end_at_zero() {
        let mut optimiser = AdamW::new(0.0);
        let (mut value, mut at_rest) = ([1.0], f32::NAN);
        for step in 0..100_000 {
            once(
                &mut optimiser,
                0.1,
                &mut value,
                &mut [if step < 3 { 0.5 } else { 0.0 }],
                false,
            );
            let [(_, mean), (_, square), ..] = optimiser.moments();
            assert!(!mean[0].is_subnormal() && !square[0].is_subnormal(), "step {step}");
            if step == 1000 {
                assert_eq!(mean, [0.0]);
                at_rest = value[0];
            }
        }
        assert_eq!(optimiser.moments()[1].1, [0.0]);
        assert_eq!(value, [at_rest]);
    }

    #[test]
    fn a_table_moves_as_a_dense_parameter_does() {
        let start: Vec<f32> = (0..12).map(|i| (i as f32).sin()).collect();
        let (mut dense, mut table) = (start.clone(), start);
        let (mut for_dense, mut for_table) = (AdamW::new(0.01), AdamW::new(0.01));
        // rows 2, then 0 and 2, then none of them
        for rows in [&[2u32][..], &[2, 0], &[3]] {
            let few: Vec<f32> = (0..rows.len() * 3).map(|i| 0.1 + i as f32).collect();
            let mut all = vec![0.0; 12];
            for (row, g) in rows.iter().zip(few.chunks(3)) {
                all[*row as usize * 3..][..3].copy_from_slice(g);
            }
            once(&mut for_dense, 0.1, &mut dense, &mut all, true);
            let mut table = Table {
                values: &mut table,
                cols: 3,
                rows,
                gradient: &few,
            };
            for_table.step(0.1, 1.0, &mut [], Some(&mut table));
        }
        assert!(
            dense.iter().zip(&table).all(|(a, b)| (a - b).abs() < 1e-6),
            "{dense:?} {table:?}"
        );
        let [a, b, c, d] = for_table.moments().map(|(_, list)| list.to_vec());
        let restored = AdamW::restore(0.01, for_table.steps(), [a, b, c, d], for_table.slots().to_vec());
        assert_eq!(format!("{restored:?}"), format!("{for_table:?}"));
    }

    #[test]
    fn a_norm_worked_by_hand() {
        assert!((global_norm([&[3.0f32][..], &[0.0, 4.0]].into_iter()) - 5.0).abs() < 1e-9);
    }
}

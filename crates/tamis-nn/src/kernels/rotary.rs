//! Rotary position embeddings: pairs of a head's numbers turned by an angle that grows with the position.
//!
//! Number `i` of a head is paired with number `i + width / 2`, as transformers has it. Source: Su et al. 2021, section 3.4.2; the
//! stretched kinds: linear (Chen et al. 2023), Llama 3 (its model card), YaRN (Peng et al. 2023, section 3.4).

use std::f32::consts::PI;

use rayon::prelude::*;

/// How angles are stretched beyond the positions that a model was first trained on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// All alike.
    Linear {
        /// Positions are divided by it.
        factor: f32,
    },
    /// Slow turns by the factor, fast ones not, those between in part.
    Llama3 {
        /// Angles of slow turns are divided by it.
        factor: f32,
        /// Turns over the original positions below which an angle is slow.
        low_freq_factor: f32,
        /// Turns over the original positions above which an angle is fast.
        high_freq_factor: f32,
        /// Positions that the model was first trained on.
        original_positions: f32,
    },
    /// By a ramp over the number of turns, and what attention sees is scaled.
    Yarn {
        /// Angles of slow turns are divided by it.
        factor: f32,
        /// Turns over the original positions above which an angle stays.
        beta_fast: f32,
        /// Turns below which it is divided by the whole factor.
        beta_slow: f32,
        /// Positions that the model was first trained on.
        original_positions: f32,
        /// What queries and keys are multiplied by.
        attention_factor: f32,
        /// Whether the ends of the ramp are rounded to whole numbers.
        truncate: bool,
    },
}

/// The angles of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    /// The angle a position, shape `(width / 2,)`.
    frequencies: Vec<f32>,
    /// What cosines and sines are multiplied by.
    scale: f32,
}

impl Rotary {
    /// For heads of `width` numbers, an even number; `theta` is the base of the angles.
    pub fn new(width: usize, theta: f32, scaling: Scaling) -> Self {
        let plain = |i: usize| 1.0 / theta.powf(2.0 * i as f32 / width as f32);
        let stretch = |i: usize| stretched(i, plain(i), width, theta, scaling);
        Self {
            frequencies: (0..width / 2).map(stretch).collect(),
            scale: match scaling {
                Scaling::Yarn { attention_factor, .. } => attention_factor,
                _ => 1.0,
            },
        }
    }

    /// The numbers of a head.
    fn width(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// Cosines and sines of positions, each pair's side by side, shape `(positions, width / 2, 2)`.
    pub fn table(&self, positions: usize) -> RotaryTable {
        let mut turns = Vec::with_capacity(positions * self.width());
        for position in 0..positions {
            for frequency in &self.frequencies {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                turns.extend([cos * self.scale, sin * self.scale]);
            }
        }
        RotaryTable {
            turns,
            width: self.width(),
        }
    }
}

/// An angle a position after stretching; `plain` is what it was before.
fn stretched(i: usize, plain: f32, width: usize, theta: f32, scaling: Scaling) -> f32 {
    match scaling {
        Scaling::None => plain,
        Scaling::Linear { factor } => plain / factor,
        Scaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_positions,
        } => {
            let turns = original_positions * plain / (2.0 * PI);
            if turns < low_freq_factor {
                plain / factor
            } else if turns > high_freq_factor {
                plain
            } else {
                let smooth = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * plain / factor + smooth * plain
            }
        }
        Scaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            original_positions,
            truncate,
            ..
        } => {
            // The pair that makes so many turns over the original positions.
            let pair_of =
                |turns: f32| width as f32 * (original_positions / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
            let (mut low, mut high) = (pair_of(beta_fast), pair_of(beta_slow));
            if truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            let (low, mut high) = (low.max(0.0), high.min(width as f32 - 1.0));
            if low == high {
                high += 0.001;
            }
            let stays = 1.0 - ((i as f32 - low) / (high - low)).clamp(0.0, 1.0);
            plain / factor * (1.0 - stays) + plain * stays
        }
    }
}

/// Cosines and sines of the first positions.
#[derive(Debug, Clone, Default)]
pub struct RotaryTable {
    turns: Vec<f32>,
    width: usize,
}

/// Which way numbers are turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// By their angles.
    Forward,
    /// Back: what the derivative by the input is made with.
    Back,
    /// Not at all.
    None,
}

impl RotaryTable {
    /// Turns every head of one token.
    fn turn(&self, token: &mut [f32], position: u32, turn: Turn) {
        if turn == Turn::None {
            return;
        }
        let back = if turn == Turn::Back { -1.0 } else { 1.0 };
        let turns = &self.turns[position as usize * self.width..][..self.width];
        for head in token.chunks_exact_mut(self.width) {
            let (first, second) = head.split_at_mut(self.width / 2);
            for ((a, b), turn) in first.iter_mut().zip(second).zip(turns.chunks_exact(2)) {
                let (cos, sin) = (turn[0], back * turn[1]);
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }

    /// Turns `tokens`, shape `(tokens, groups * width)`, and lays them out group by group, shape `(groups, tokens, width)`: what
    /// attention reads side by side then lies side by side.
    pub fn to_groups(&self, tokens: &[f32], groups: usize, positions: &[u32], turn: Turn, out: &mut Vec<f32>) {
        out.resize(tokens.len(), 0.0);
        let width = tokens.len() / positions.len() / groups;
        out.par_chunks_mut(width * positions.len())
            .enumerate()
            .for_each(|(group, out)| {
                for (t, (out, &position)) in out.chunks_exact_mut(width).zip(positions).enumerate() {
                    out.copy_from_slice(&tokens[(t * groups + group) * width..][..width]);
                    self.turn(out, position, turn);
                }
            });
    }

    /// The way back from [`RotaryTable::to_groups`]: shape `(groups, tokens, width)` to `(tokens, groups * width)`.
    pub fn to_tokens(&self, by_group: &[f32], groups: usize, positions: &[u32], turn: Turn, out: &mut Vec<f32>) {
        out.resize(by_group.len(), 0.0);
        let width = by_group.len() / positions.len() / groups;
        out.par_chunks_mut(width * groups)
            .zip(positions)
            .with_min_len(64)
            .enumerate()
            .for_each(|(t, (out, &position))| {
                for (group, out) in out.chunks_exact_mut(width).enumerate() {
                    out.copy_from_slice(&by_group[(group * positions.len() + t) * width..][..width]);
                    self.turn(out, position, turn);
                }
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_worked_by_hand_and_back() {
        // Width 4, theta 100: angles a position 1 and 1/10. Position 2 turns (1, 3) by 2, (2, 4) by .2.
        let table = Rotary::new(4, 100.0, Scaling::None).table(3);
        let tokens = [
            1.0, 2.0, 3.0, 4.0, 1.0, 0.0, 0.0, 0.0, 5.0, 6.0, 7.0, 8.0, 0.0, 0.0, 1.0, 0.0,
        ];
        let (mut groups, mut back) = (Vec::new(), Vec::new());
        table.to_groups(&tokens, 2, &[2, 0], Turn::Forward, &mut groups);
        let want = [-3.144_039, 1.165_456, -0.339_143, 4.317_604, 5.0, 6.0, 7.0, 8.0];
        assert!(
            groups.iter().zip(want).all(|(x, want)| (x - want).abs() < 1e-5),
            "{groups:?}"
        );
        assert!((groups[8] + 0.416_147).abs() < 1e-5 && (groups[10] - 0.909_297).abs() < 1e-5);
        table.to_tokens(&groups, 2, &[2, 0], Turn::Back, &mut back);
        assert!(
            back.iter().zip(tokens).all(|(x, want)| (x - want).abs() < 1e-5),
            "{back:?}"
        );
    }

    /// Angles from transformers 4.57.6, `ROPE_INIT_FUNCTIONS[kind](config, "cpu")` of a LlamaConfig with head_dim 8, rope_theta 10000,
    /// max_position_embeddings 4096 and rope_scaling as below.
    #[test]
    fn stretched_angles_are_those_of_transformers() {
        let check = |scaling: Scaling, want: [f32; 4]| {
            let found = Rotary::new(8, 10000.0, scaling).frequencies;
            let near = |(found, want): (&f32, f32)| (found - want).abs() <= 1e-6 * want;
            assert!(found.iter().zip(want).all(near), "{scaling:?}: {found:?}");
        };
        check(Scaling::None, [1.0, 0.1, 0.01, 0.001]);
        check(Scaling::Linear { factor: 4.0 }, [0.25, 0.025, 0.0025, 0.000_25]);
        let llama3 = Scaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_positions: 1024.0,
        };
        check(llama3, [1.0, 0.1, 0.003_086_760_6, 0.000_125]);
        let yarn = Scaling::Yarn {
            factor: 4.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            original_positions: 1024.0,
            attention_factor: 1.0,
            truncate: true,
        };
        check(yarn, [1.0, 0.075, 0.005, 0.000_25]);
    }
}

//! What an agent sees of each cluster, and of the state as a whole.
//!
//! A feature is about a cluster as such, never about its number, so that one network with shared weights reads them all,
//! however many there are. Every feature lies roughly within [-1, 1].

use std::ops::Range;

use tamis_nn::Matrix;

use crate::{
    env::{
        Shape,
        pool::{Pool, State},
    },
    scorer::Insight,
};

/// Features of one cluster; their meaning stands beside them in [`FeatureContext::observe`].
const ACTION_FEATURES: usize = 13;
/// Features of the state as a whole.
const GLOBAL_FEATURES: usize = 4;
/// Features of what was taken, besides those of each cluster, label and place: the last ones of [`FeatureContext::describe`].
const STATE_FEATURES: usize = 6;

/// What is known of the clusters before anything is taken.
#[derive(Debug, Clone)]
pub struct ClusterTraits {
    /// The share of each label in each cluster's rows, shape `(clusters, labels)`; one column of ones where there are no labels.
    pub label_mix: Matrix,
    /// Cosine similarity of each cluster's centroid to the mean of the reward fold's rows, shape `(clusters,)`.
    pub closeness: Vec<f32>,
    /// The cluster nearest to each row of the reward fold, shape `(fold rows,)`.
    pub fold_cluster: Vec<u32>,
    /// The share of each label in the reward fold, shape `(labels,)`.
    pub fold_mix: Vec<f32>,
    /// Each cluster's centroid in few dimensions, shape `(clusters, dimensions)`.
    pub place: Matrix,
}

/// Turns states into features.
#[derive(Debug, Clone)]
pub struct FeatureContext {
    traits: ClusterTraits,
    /// Entropy of each cluster's label mix, as a share of the largest possible.
    entropy: Vec<f32>,
    /// How much denser the reward fold is in each cluster than the pool: log ratio, squashed.
    density: Vec<f32>,
    /// Reward-fold rows of each cluster.
    fold_rows: Vec<u32>,
}

/// What the rewards of a run have told about the clusters so far.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Sum and number of each cluster's advantages: rewards less the mean reward at the same depth, in units of their spread.
    advantage: Vec<(f64, u32)>,
    /// Number, mean and sum of squared deviations of the rewards at each depth.
    depth: Vec<(u32, f64, f64)>,
}

impl Memory {
    pub(crate) fn new(clusters: usize) -> Self {
        Self {
            advantage: vec![(0.0, 0); clusters],
            depth: Vec::new(),
        }
    }

    /// Rewards that were seen at a depth, taken or not.
    pub(crate) fn earned(&mut self, depth: usize, clusters: &[usize], rewards: &[f64]) {
        if self.depth.len() <= depth {
            self.depth.resize(depth + 1, (0, 0.0, 0.0));
        }
        for (&cluster, &reward) in clusters.iter().zip(rewards) {
            let (count, mean, squares) = &mut self.depth[depth];
            *count += 1;
            let off = reward - *mean;
            *mean += off / f64::from(*count);
            *squares += off * (reward - *mean);
            if *count > 1 {
                let advantage = self.units(depth, reward);
                self.advantage[cluster].0 += advantage;
                self.advantage[cluster].1 += 1;
            }
        }
    }

    /// A reward as its distance from the depth's mean in units of its spread, at most 3 either way.
    fn units(&self, depth: usize, reward: f64) -> f64 {
        match self.depth.get(depth) {
            Some(&(count, mean, squares)) if count > 1 && squares > 0.0 => {
                ((reward - mean) / (squares / f64::from(count)).sqrt()).clamp(-3.0, 3.0)
            }
            _ => 0.0,
        }
    }

    /// A cluster's mean advantage, drawn towards 0 while it was seen seldom.
    fn mean_advantage(&self, cluster: usize) -> f32 {
        let (sum, count) = self.advantage[cluster];
        (sum / (f64::from(count) + 2.0)) as f32
    }
}

impl FeatureContext {
    /// # Panics
    ///
    /// If the traits' shapes contradict each other.
    pub fn new(traits: ClusterTraits, pool: &Pool) -> Self {
        let clusters = pool.clusters();
        assert!(
            traits.label_mix.rows() == clusters
                && traits.closeness.len() == clusters
                && traits.place.rows() == clusters,
            "one row of traits a cluster"
        );
        let labels = traits.label_mix.cols();
        let largest = (labels.max(2) as f32).ln();
        let entropy = traits
            .label_mix
            .iter_rows()
            .map(|mix| -mix.iter().filter(|&&p| p > 0.0).map(|p| p * p.ln()).sum::<f32>() / largest)
            .collect();
        let mut fold_rows = vec![0; clusters];
        for &cluster in &traits.fold_cluster {
            fold_rows[cluster as usize] += 1;
        }
        let (fold, rows) = (
            traits.fold_cluster.len() as f32,
            (0..clusters).map(|c| pool.cluster(c).len()).sum::<usize>() as f32,
        );
        let density = (0..clusters)
            .map(|c| {
                let share = (fold_rows[c] as f32 + 0.5) / (fold + 0.5);
                let pool_share = (pool.cluster(c).len() as f32 + 0.5) / (rows + 0.5);
                (share / pool_share).ln().tanh()
            })
            .collect();
        Self {
            traits,
            entropy,
            density,
            fold_rows,
        }
    }

    /// How large the observations are.
    pub fn shape(&self) -> Shape {
        Shape {
            actions: self.entropy.len(),
            action_features: ACTION_FEATURES,
            global_features: GLOBAL_FEATURES,
            state_features: self.entropy.len()
                + self.traits.label_mix.cols()
                + self.traits.place.cols()
                + STATE_FEATURES,
        }
    }

    /// What a model of the score reads of a state, whatever the way there. A chunk is far rarer than a row of a cluster like
    /// its own, so most of these features are sums over clusters: one state in a thousand holds a given chunk, but every one
    /// has a label mix and a place. In order: the root of each cluster's share of the budget; the mix of labels; the mean
    /// place; then mean closeness, entropy and density, the share of the budget that is spent, the share of the fold whose cluster
    /// has something taken, and how evenly the clusters are taken.
    pub(crate) fn describe(&self, pool: &Pool, state: &State) -> Vec<f32> {
        let taken = state.taken();
        let rows = taken.iter().map(|&taken| taken as f32).sum::<f32>().max(1.0);
        let spent = pool.spent(state) as f32 / pool.limit().max(1) as f32;
        let mut features: Vec<f32> = taken
            .iter()
            .map(|&taken| (taken as f32 / rows * spent).sqrt())
            .collect();
        let mean = |of: &Matrix| {
            let mut mean = vec![0.0; of.cols()];
            for (row, &taken) in of.iter_rows().zip(taken).filter(|(_, taken)| **taken > 0) {
                mean.iter_mut()
                    .zip(row)
                    .for_each(|(sum, x)| *sum += x * taken as f32 / rows);
            }
            mean
        };
        features.extend(mean(&self.traits.label_mix));
        features.extend(mean(&self.traits.place));
        let weighted = |of: &[f32]| {
            of.iter()
                .zip(taken)
                .map(|(x, &taken)| x * taken as f32 / rows)
                .sum::<f32>()
        };
        let covered: u32 = self
            .fold_rows
            .iter()
            .zip(taken)
            .filter(|(_, taken)| **taken > 0)
            .map(|(rows, _)| rows)
            .sum();
        let evenness: f32 = taken
            .iter()
            .filter(|&&taken| taken > 0)
            .map(|&taken| -(taken as f32 / rows) * (taken as f32 / rows).ln())
            .sum();
        features.extend([
            weighted(&self.traits.closeness),
            weighted(&self.entropy),
            weighted(&self.density),
            spent,
            covered as f32 / self.traits.fold_cluster.len().max(1) as f32,
            evenness / (self.entropy.len().max(2) as f32).ln(),
        ]);
        features
    }

    /// The features of all clusters, shape `(clusters, 13)`, and of the state, shape `(4,)`.
    pub(crate) fn observe(
        &self,
        pool: &Pool,
        state: &State,
        legal: &[Option<Range<u32>>],
        score: f64,
        insight: Option<&Insight>,
        memory: &Memory,
    ) -> (Matrix, Vec<f32>) {
        let clusters = pool.clusters();
        let taken = state.taken();
        let rows: f32 = (0..clusters).map(|c| pool.cluster(c).len() as f32).sum();
        let rows_taken: f32 = taken.iter().map(|&taken| taken as f32).sum();
        let spent = pool.spent(state) as f32 / pool.limit().max(1) as f32;

        // The labels that the fold has more of than what is taken.
        let labels = self.traits.label_mix.cols();
        let mut wanted = self.traits.fold_mix.clone();
        if rows_taken > 0.0 {
            for (mix, &taken) in self.traits.label_mix.iter_rows().zip(taken) {
                wanted
                    .iter_mut()
                    .zip(mix)
                    .for_each(|(wanted, share)| *wanted -= share * taken as f32 / rows_taken);
            }
        }

        let fold_loss = insight.map(|insight| self.cluster_loss(&insight.fold_loss));
        let open = legal.iter().filter(|range| range.is_some()).count();
        let ranks = insight.map(|insight| ranks(&insight.influence));
        let scale = insight.map_or(1.0, |insight| {
            insight
                .influence
                .iter()
                .map(|x| x.abs())
                .sum::<f32>()
                .max(f32::MIN_POSITIVE)
                / open.max(1) as f32
        });
        let mean_chunk_loss = insight.map_or(1.0, |insight| {
            (insight.chunk_loss.iter().sum::<f32>() / open.max(1) as f32).max(f32::MIN_POSITIVE)
        });

        let mut features = Matrix::zeros(clusters, ACTION_FEATURES);
        let mut at = 0;
        for c in 0..clusters {
            let size = pool.cluster(c).len() as f32;
            let row = features.row_mut(c);
            row[0] = taken[c] as f32 / size.max(1.0);
            row[1] = if rows_taken > 0.0 {
                taken[c] as f32 / rows_taken
            } else {
                0.0
            };
            row[2] = (size * clusters as f32 / rows.max(1.0)).ln_1p() - 0.7;
            row[3] = self.entropy[c];
            row[4] = (0..labels)
                .map(|l| wanted[l] * self.traits.label_mix.row(c)[l])
                .sum::<f32>()
                .clamp(-1.0, 1.0);
            row[5] = self.density[c];
            row[6] = self.traits.closeness[c];
            row[7] = fold_loss.as_ref().map_or(0.0, |loss| loss[c]);
            row[8] = (memory.mean_advantage(c) / 2.0).clamp(-1.0, 1.0);
            row[9] = (memory.advantage[c].1 as f32).ln_1p() / 5.0;
            if legal[c].is_some() {
                if let (Some(insight), Some(ranks)) = (insight, &ranks) {
                    row[10] = (insight.influence[at] / scale / 3.0).clamp(-1.0, 1.0);
                    row[11] = ranks[at];
                    row[12] = (insight.chunk_loss[at] / mean_chunk_loss - 1.0).clamp(-1.0, 1.0);
                }
                at += 1;
            }
        }
        let missing: f32 = wanted.iter().map(|x| x.abs()).sum::<f32>() / 2.0;
        (
            features,
            vec![1.0 - spent, score as f32, open as f32 / clusters.max(1) as f32, missing],
        )
    }

    /// The mean loss on each cluster's fold rows over the mean of all, less 1, within [-1, 1]; 0 where it has none.
    fn cluster_loss(&self, fold_loss: &[f32]) -> Vec<f32> {
        let mut sums = vec![0.0; self.fold_rows.len()];
        for (&cluster, loss) in self.traits.fold_cluster.iter().zip(fold_loss) {
            sums[cluster as usize] += loss;
        }
        let mean = (fold_loss.iter().sum::<f32>() / fold_loss.len().max(1) as f32).max(f32::MIN_POSITIVE);
        sums.iter()
            .zip(&self.fold_rows)
            .map(|(sum, &rows)| {
                if rows == 0 {
                    0.0
                } else {
                    (sum / rows as f32 / mean - 1.0).clamp(-1.0, 1.0)
                }
            })
            .collect()
    }
}

/// The place of each value among all, from -1 (lowest) to 1 (highest); equal values keep their order.
fn ranks(values: &[f32]) -> Vec<f32> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let last = values.len().saturating_sub(1).max(1) as f32;
    for (rank, &i) in order.iter().enumerate() {
        ranks[i] = 2.0 * rank as f32 / last - 1.0;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_run_from_minus_one_to_one() {
        assert_eq!(ranks(&[0.5, -2.0, 7.0]), [0.0, -1.0, 1.0]);
        assert_eq!(ranks(&[3.0]), [-1.0]);
        assert!(ranks(&[]).is_empty());
    }

    #[test]
    fn an_advantage_is_measured_against_rewards_at_the_same_depth() {
        let mut memory = Memory::new(3);
        // depth 0: rewards 1 and 3, mean 2, spread 1; the second was 1 above, drawn to 1 / (1 + 2)
        memory.earned(0, &[0, 1], &[1.0, 3.0]);
        assert!((memory.mean_advantage(1) - 1.0 / 3.0).abs() < 1e-6);
        assert!(memory.mean_advantage(2).abs() < 1e-6);
        // depth 1: far smaller rewards do not count against a cluster
        memory.earned(1, &[2, 2, 1], &[0.001, 0.001, 0.001]);
        assert!(memory.mean_advantage(2).abs() < 1e-6);
    }
}

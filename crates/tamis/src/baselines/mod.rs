//! Rules that choose rows without ever looking at a score: the simple methods that an agent has to beat.

pub mod frequency;
mod k_center;
pub(crate) mod similarity;
pub(crate) mod sorted;
mod stratified;

use tamis_nn::{Matrix, Monitor, named_enum, seed::Seed};

use crate::{
    Error, Result,
    budget::{BudgetTracker, Limit},
    candidates::{domain, facility_location},
    vectors::VectorStore,
};

/// What a rule may look at.
pub struct View<'a> {
    /// One unit vector a row of the pool, shape `(rows, dim)`.
    pub vectors: &'a dyn VectorStore,
    /// The texts of a row of the pool.
    pub texts: &'a (dyn Fn(usize) -> Vec<&'a str> + Sync),
    /// What each row of the pool costs in tokens, shape `(rows,)`.
    pub tokens: &'a [u32],
    /// The label of each row of the pool, shape `(rows,)`; all 0 where the task has no labels.
    pub targets: &'a [u32],
    /// One unit vector a row of the reward fold, shape `(rows of the fold, dim)`.
    pub fold_vectors: &'a Matrix,
    /// The texts of a row of the reward fold.
    pub fold_texts: &'a (dyn Fn(usize) -> Vec<&'a str> + Sync),
    /// Whether the label of each row of the pool is doubted, shape `(rows,)`.
    pub doubted: &'a [bool],
    /// The loss of each row of the pool under a probe that was trained on all of them, shape `(rows,)`; made when it is asked for.
    pub losses: &'a dyn Fn() -> Result<Vec<f32>>,
    /// The mean cosine of the gradient of each row of the pool with those of the reward fold, shape `(rows,)`; of responses alone.
    pub alignment: &'a dyn Fn() -> Result<Vec<f32>>,
    /// Its cosine with the mean gradient of the reward fold, in the subspace of the fold's gradients, shape `(rows,)`; of responses alone.
    pub alignment_in_subspace: &'a dyn Fn() -> Result<Vec<f32>>,
    /// The loss of each response of the pool over its loss without its prompt, shape `(rows,)`; of responses alone.
    pub difficulty: &'a dyn Fn() -> Result<Vec<f32>>,
}

/// A rule, as named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// Random rows, each label with its share of the pool.
    Stratified,
    /// The rows with the most tokens.
    Longest,
    /// The rows with the fewest tokens.
    Shortest,
    /// Rows whose words are as frequent as in the reward fold: DSIR.
    Frequency,
    /// Rows that leave no row of the pool far from the nearest of them: greedy k-center.
    KCenter,
    /// Rows that resemble the whole pool as well as possible: greedy facility location.
    FacilityLocation,
    /// The rows most similar to each row of the reward fold in turn: RDS+.
    Similarity,
    /// The rows that a linear classifier takes for rows of the reward fold.
    Relevance,
    /// Random rows without those of suspected label errors: [`crate::candidates::label_errors`].
    WithoutLabelErrors,
    /// The rows with the highest loss.
    Hardest,
    /// The rows with the lowest loss.
    Easiest,
    /// The rows whose loss is closest to the median.
    Median,
    /// The rows whose gradients point where those of the reward fold do: LESS.
    Less,
    /// The same in the subspace that the reward fold's gradients span: GIST.
    Gist,
    /// The rows whose prompts help least to say their responses, but do help: IFD.
    Ifd,
}

named_enum!(Baseline, "methods", Error, {
    Stratified => "stratified": "random rows, each label with its share of the pool",
    Longest => "longest": "the rows with the most tokens",
    Shortest => "shortest": "the rows with the fewest tokens",
    Frequency => "frequency": "rows whose words are as frequent as in the reward fold (DSIR)",
    KCenter => "k-center": "rows that leave no row of the pool far from the nearest of them (greedy)",
    FacilityLocation => "facility-location": "rows that resemble the whole pool (greedy)",
    Similarity => "similarity": "the rows most similar to each row of the reward fold in turn (RDS+)",
    Relevance => "relevance": "the rows that a linear classifier takes for rows of the reward fold",
    WithoutLabelErrors => "without-label-errors": "random rows without those of suspected label errors",
    Hardest => "hardest": "the rows with the highest loss of a probe",
    Easiest => "easiest": "the rows with the lowest loss of a probe",
    Median => "median": "the rows whose loss of a probe is closest to the median",
    Less => "less": "prompts with responses whose gradients point where those of the reward fold do (LESS)",
    Gist => "gist": "the same in the subspace that the gradients of the reward fold span (GIST)",
    Ifd => "ifd": "responses that their prompts help least to say, but do help (IFD)",
});

impl Baseline {
    /// Whether it reads what a language model says of responses.
    pub(crate) fn needs_responses(self) -> bool {
        matches!(self, Self::Less | Self::Gist | Self::Ifd)
    }

    /// The chosen rows of the pool in ascending order; they spend the limit as a selection would.
    ///
    /// # Errors
    ///
    /// If the probe cannot be trained, the pool is too large for the rule, or the user asked to stop.
    pub fn choose(self, view: &View<'_>, limit: Limit, seed: Seed, monitor: &dyn Monitor) -> Result<Vec<u32>> {
        let mut purse = BudgetTracker::new(view.tokens, limit);
        match self {
            Self::Stratified => purse.spend(stratified::order(view.targets, limit, seed)),
            Self::Longest => purse.spend(sorted::longest(view.tokens, seed)),
            Self::Shortest => purse.spend(sorted::shortest(view.tokens, seed)),
            Self::Frequency => purse.spend(frequency::order(view, seed)),
            Self::KCenter => k_center::spend(&mut purse, view, limit, monitor)?,
            Self::FacilityLocation => facility_location::spend(&mut purse, &view.vectors.to_matrix()?, seed, monitor)?,
            Self::Similarity => {
                let picks = expected_picks(view.tokens, limit);
                similarity::spend(&mut purse, picks, (view.vectors, view.fold_vectors), seed, monitor)?;
            }
            Self::Relevance => purse.spend(domain::order(view.vectors, view.fold_vectors, seed)?),
            Self::WithoutLabelErrors => purse.spend(sorted::undoubted(view.doubted, seed)),
            Self::Hardest => purse.spend(sorted::hardest(&(view.losses)()?)),
            Self::Easiest => purse.spend(sorted::easiest(&(view.losses)()?)),
            Self::Median => purse.spend(sorted::median(&(view.losses)()?)),
            Self::Less => purse.spend(sorted::aligned(&(view.alignment)()?)),
            Self::Gist => purse.spend(sorted::aligned(&(view.alignment_in_subspace)()?)),
            Self::Ifd => purse.spend(sorted::helped_least(&(view.difficulty)()?)),
        }
        Ok(purse.into_rows())
    }
}

/// About how many rows a limit comes to, at most all: exact in rows, by the mean price in tokens.
fn expected_picks(tokens: &[u32], limit: Limit) -> u64 {
    let rows = tokens.len() as u64;
    match limit {
        Limit::Rows(picks) => picks.min(rows),
        Limit::Tokens(most) => {
            let all = tokens.iter().map(|&cost| u64::from(cost)).sum::<u64>().max(1);
            (rows as f64 * (most as f64 / all as f64).min(1.0)).ceil() as u64
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use rand::RngExt;

    use super::*;
    use tamis_nn::{Silent, monitor::Stop};

    /// A pool and a reward fold to choose by.
    pub(crate) struct Sample {
        pub(crate) vectors: Matrix,
        pub(crate) texts: Vec<&'static str>,
        pub(crate) tokens: Vec<u32>,
        pub(crate) targets: Vec<u32>,
        pub(crate) doubted: Vec<bool>,
        pub(crate) fold_vectors: Matrix,
        pub(crate) fold_texts: Vec<&'static str>,
    }

    impl Sample {
        /// Random vectors, texts, prices and labels.
        pub(crate) fn drawn(rows: usize, fold_rows: usize, seed: u64) -> Self {
            const TEXTS: [&str; 4] = ["a red fox", "the red car", "a fast car, a red one", ""];
            let mut rng = Seed(seed).rng();
            let mut matrix = |rows: usize| {
                let mut matrix = Matrix::zeros(rows, 5);
                for row in 0..rows {
                    let row = matrix.row_mut(row);
                    row.iter_mut().for_each(|x| *x = rng.random::<f32>() - 0.5);
                    let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                    row.iter_mut().for_each(|x| *x /= norm);
                }
                matrix
            };
            let (vectors, fold_vectors) = (matrix(rows), matrix(fold_rows));
            let mut below = |most: u32| -> Vec<u32> { (0..rows).map(|_| rng.random_range(0..most)).collect() };
            Self {
                vectors,
                fold_vectors,
                tokens: below(9).iter().map(|tokens| tokens + 1).collect(),
                targets: below(3),
                doubted: below(5).iter().map(|&x| x == 0).collect(),
                texts: below(4).iter().map(|&text| TEXTS[text as usize]).collect(),
                fold_texts: TEXTS.into_iter().cycle().take(fold_rows).collect(),
            }
        }

        /// What a function makes of the view; a row's loss is its number of tokens.
        pub(crate) fn view<T>(&self, of: impl FnOnce(&View<'_>) -> T) -> T {
            of(&View {
                vectors: &self.vectors,
                texts: &|row| vec![self.texts[row]],
                tokens: &self.tokens,
                targets: &self.targets,
                doubted: &self.doubted,
                fold_vectors: &self.fold_vectors,
                fold_texts: &|row| vec![self.fold_texts[row]],
                losses: &|| Ok(self.tokens.iter().map(|&tokens| tokens as f32).collect()),
                alignment: &|| Ok(self.tokens.iter().map(|&tokens| 1.0 / tokens as f32).collect()),
                alignment_in_subspace: &|| Ok(self.tokens.iter().map(|&tokens| (tokens % 4) as f32).collect()),
                difficulty: &|| Ok(self.tokens.iter().map(|&tokens| tokens as f32 / 5.0).collect()),
            })
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn every_rule_meets_every_limit_takes_no_row_twice_and_repeats_itself(
            rows in 1..60usize,
            share in 0.0..1.0f64,
            in_tokens in any::<bool>(),
            seed in 0..1000u64,
        ) {
            let sample = Sample::drawn(rows, 7, seed);
            let all: u32 = sample.tokens.iter().sum();
            let limit = if in_tokens {
                Limit::Tokens(1 + (share * f64::from(all - 1)) as u64)
            } else {
                Limit::Rows(1 + (share * (rows - 1) as f64) as u64)
            };
            for &(rule, name, _) in Baseline::NAMES {
                let choose = || sample.view(|view| rule.choose(view, limit, Seed(seed), &Silent));
                let chosen = choose().expect("chooses");
                prop_assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]), "{name}: {chosen:?}");
                prop_assert!(chosen.iter().all(|&row| (row as usize) < rows), "{name}");
                prop_assert_eq!(&chosen, &choose().expect("chooses"), "{}", name);
                match limit {
                    Limit::Rows(most) => prop_assert_eq!(chosen.len() as u64, most, "{}", name),
                    Limit::Tokens(most) => {
                        let spent: u64 = chosen.iter().map(|&row| u64::from(sample.tokens[row as usize])).sum();
                        let dearest = u64::from(*sample.tokens.iter().max().expect("a row"));
                        prop_assert!(chosen.len() == 1 || spent <= most, "{name}: {spent} of {most}");
                        prop_assert!(chosen.len() == rows || spent + dearest > most, "{name}: {spent} of {most}");
                    }
                }
            }
        }
    }

    #[test]
    fn names_are_read_as_they_are_shown() {
        for &(rule, name, _) in Baseline::NAMES {
            assert_eq!((rule.to_string().as_str(), name.parse().ok()), (name, Some(rule)));
        }
        let error = "longst".parse::<Baseline>().expect_err("is unknown");
        assert!(error.to_string().contains("longest, shortest"), "{error}");
    }

    #[test]
    fn a_stop_is_heard() {
        let sample = Sample::drawn(30, 5, 0);
        for rule in [Baseline::KCenter, Baseline::FacilityLocation, Baseline::Similarity] {
            let stopped = sample.view(|view| rule.choose(view, Limit::Rows(9), Seed(0), &Stop));
            assert!(matches!(stopped, Err(Error::Interrupted)), "{rule}");
        }
    }
}

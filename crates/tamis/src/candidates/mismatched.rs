//! Responses that do not answer their prompts: those that their prompts make hardly more likely.
//!
//! A prompt's *gain* is the loss of its response without it less the loss with it, in nats over the whole response: how much the model
//! learns from the prompt of what will be said. Responses that were put to prompts of other rows say which gains come by chance. Rows are
//! suspected up to the gain that tells these best from the pool's own (Youden 1950).
//!
//! Over the whole response, since a sum tells more than a mean or a ratio do (docs/lab/2026-11-language-models.md).

use rand::seq::SliceRandom;
use tamis_nn::Seed;

/// The least difference between the shares below a gain for which it tells mismatched rows at all.
const LEAST_TOLD: f64 = 0.3;

/// The share of the pool with gains as low as those of mismatched rows: 0 where gains do not tell them apart. The gain of a row of which no
/// prompt is read is infinite: nothing can be said of it.
pub fn share_of_mismatched(gains: &[f32], of_mismatched: &[f32]) -> f64 {
    let sorted = |values: &[f32]| {
        let mut values = values.to_vec();
        values.sort_by(f32::total_cmp);
        values
    };
    let measured: Vec<f32> = gains.iter().copied().filter(|gain| gain.is_finite()).collect();
    let (pool, mismatched) = (sorted(&measured), sorted(of_mismatched));
    let up_to =
        |sorted: &[f32], gain: f32| sorted.partition_point(|&other| other <= gain) as f64 / sorted.len().max(1) as f64;
    let (mut told, mut share) = (LEAST_TOLD, 0.0);
    for &gain in &mismatched {
        let of_pool = up_to(&pool, gain);
        let difference = up_to(&mismatched, gain) - of_pool;
        if difference > told {
            (told, share) = (difference, of_pool);
        }
    }
    share * measured.len() as f64 / gains.len().max(1) as f64
}

/// At most `most` pairs of different rows among these: whose prompt, and whose response.
pub fn mismatched_pairs(rows: &[usize], most: usize, seed: Seed) -> Vec<(usize, usize)> {
    let mut order = rows.to_vec();
    let (drawn, _) = order.partial_shuffle(&mut seed.rng(), most);
    let count = if drawn.len() < 2 { 0 } else { drawn.len() };
    (0..count).map(|i| (drawn[i], drawn[(i + 1) % count])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_suspected_up_to_the_gain_that_tells_best() {
        // Of ten rows two have gains like mismatched ones.
        let pool = [30.0, 12.0, 1.0, 25.0, -3.0, 40.0, 18.0, 22.0, 60.0, 35.0];
        assert_eq!(share_of_mismatched(&pool, &[-5.0, 0.0, 1.0, 2.0]), 0.2);
        // Prompts that help no more than others, or are none, tell nothing.
        assert_eq!(share_of_mismatched(&[0.0; 5], &[0.0; 5]), 0.0);
        assert_eq!(share_of_mismatched(&pool, &pool), 0.0);
        assert_eq!(share_of_mismatched(&pool, &[]), 0.0);
        // Rows of which no prompt is read are no more, and no less, to be trusted.
        let half_read = [&pool[..], &[f32::INFINITY; 10]].concat();
        assert_eq!(share_of_mismatched(&half_read, &[-5.0, 0.0, 1.0, 2.0]), 0.1);
    }

    #[test]
    fn no_row_is_put_to_its_own_prompt() {
        let rows: Vec<usize> = (100..150).collect();
        let pairs = mismatched_pairs(&rows, 20, Seed(1));
        assert_eq!(pairs.len(), 20);
        assert!(
            pairs
                .iter()
                .all(|(prompt, response)| prompt != response && rows.contains(prompt))
        );
        assert_eq!(mismatched_pairs(&rows[..3], 20, Seed(1)).len(), 3);
        assert!(mismatched_pairs(&rows[..1], 20, Seed(1)).is_empty());
    }
}

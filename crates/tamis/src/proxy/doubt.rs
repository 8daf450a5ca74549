//! Doubt: how improbable a row's own answer is to a probe that was trained on other rows. Mislabelled rows are doubted most.
//!
//! Source: Northcutt, Jiang & Chuang 2021 (out-of-sample probabilities find label errors). We differ in one way: what is doubted is a
//! fixed share of the rows, of each label where labels count alike, and not those below a threshold that is estimated for each label.

use rand::seq::SliceRandom;
use rayon::prelude::*;

use super::{
    design::Design,
    ridge::{Moments, Scratch},
    tune::Tuning,
};
use crate::{
    Error, Monitor, Result,
    data::RowId,
    metric::{Metric, MetricKind, row_losses},
    seed::Seed,
};

/// Each row is judged by a probe that has seen all but one in so many.
const PARTS: usize = 5;

/// The loss of each of these rows under a probe that was trained on the others, shape `(rows.len(),)`: the negative log probability of its
/// target; higher is more doubted. Rows are parted at random.
///
/// # Errors
///
/// If the features cannot be factored, or the user asked to stop.
pub fn unseen_losses(
    train: &Design,
    rows: &[RowId],
    tuning: &Tuning,
    seed: Seed,
    monitor: &dyn Monitor,
) -> Result<Vec<f32>> {
    let mut places: Vec<u32> = (0..rows.len() as u32).collect();
    places.shuffle(&mut seed.rng());
    let parts: Vec<&[u32]> = places.chunks(rows.len().div_ceil(PARTS).max(1)).collect();
    let rows_of = |part: &[u32]| -> Vec<RowId> { part.iter().map(|&place| rows[place as usize]).collect() };
    let moments: Vec<Moments> = parts
        .par_iter()
        .map(|part| Moments::of(train, &rows_of(part), &mut Scratch::new(train.width())))
        .collect();
    let temperature = tuning.temperature_for(Metric::soft(MetricKind::LogLoss));
    let judged: Vec<Vec<f32>> = parts
        .par_iter()
        .enumerate()
        .map(|(judged, part)| {
            if monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            let mut others = Moments::empty(train.width(), train.outputs);
            for (i, moments) in moments.iter().enumerate() {
                if i != judged {
                    others.add(moments);
                }
            }
            let mut scratch = Scratch::new(train.width());
            others.factor(tuning.ridge, &mut scratch)?;
            let part = train.select(&rows_of(part));
            let probabilities = others.model(&mut scratch).probabilities(&part, temperature);
            Ok(row_losses(&probabilities, &part.targets).collect())
        })
        .collect::<Result<_>>()?;
    let mut losses = vec![0.0; rows.len()];
    for (&place, loss) in places.iter().zip(judged.into_iter().flatten()) {
        losses[place as usize] = loss;
    }
    Ok(losses)
}

/// Which rows are doubted: of each group this share of its rows, rounded down, those with the highest losses; shape `(rows,)`. Of equal
/// losses the later row is doubted.
pub fn most_doubted(losses: &[f32], groups: &[u32], share: f64) -> Vec<bool> {
    let mut order: Vec<u32> = (0..losses.len() as u32).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (a as usize, b as usize);
        groups[a]
            .cmp(&groups[b])
            .then(losses[a].total_cmp(&losses[b]))
            .then(a.cmp(&b))
    });
    let mut doubted = vec![false; losses.len()];
    for group in order.chunk_by(|&a, &b| groups[a as usize] == groups[b as usize]) {
        let most = (share * group.len() as f64) as usize;
        group[group.len() - most..]
            .iter()
            .for_each(|&row| doubted[row as usize] = true);
    }
    doubted
}

#[cfg(test)]
mod tests {
    use super::{super::ridge::tests::random_design, *};
    use crate::{Silent, monitor::Stop, proxy::ridge::Model};

    fn tuning() -> Tuning {
        Tuning {
            ridge: 1.0,
            temperature: 0.3,
            log_loss: 0.0,
            tried: Vec::new(),
        }
    }

    #[test]
    fn the_worst_share_of_each_group_is_doubted() {
        let losses = [0.5, 3.0, 0.1, 2.0, 2.0, 0.3, 9.0];
        let one = most_doubted(&losses, &[0; 7], 0.3);
        assert_eq!(one, [false, true, false, false, false, false, true]);
        // Group 1 has rows 0, 1, 3 and 4: half of them are 1 and, of two equal losses, 4. Group 0 has 2, 5 and 6: half is one row.
        let two = most_doubted(&losses, &[1, 1, 0, 1, 1, 0, 0], 0.5);
        assert_eq!(two, [false, true, false, false, true, false, true]);
        assert!(most_doubted(&losses, &[0; 7], 0.1).iter().all(|doubted| !doubted));
        assert!(most_doubted(&[], &[], 0.5).is_empty());
    }

    #[test]
    fn a_wrong_label_is_doubted_though_the_row_itself_was_there_to_learn_from() {
        let mut design = random_design(400, 6, 3);
        let wrong = |row: usize| row.is_multiple_of(20);
        for row in (0..400).filter(|&row| wrong(row)) {
            design.targets[row] = (design.targets[row] + 1) % 3;
        }
        let rows: Vec<RowId> = (0..400).collect();
        let losses = unseen_losses(&design, &rows, &tuning(), Seed(1), &Silent).expect("judges");
        let doubted = most_doubted(&losses, &vec![0; 400], 0.1);
        let found = (0..400).filter(|&row| wrong(row) && doubted[row]).count();
        assert!(found >= 16, "{found} of 20 wrong labels");
    }

    #[test]
    fn each_row_is_judged_by_a_model_of_the_other_parts_alone() {
        let design = random_design(50, 4, 7);
        // Not every example is in the pool, and their order is not that of the pool.
        let rows: Vec<RowId> = (5..45).rev().collect();
        let seed = Seed(2);
        let losses = unseen_losses(&design, &rows, &tuning(), seed, &Silent).expect("judges");
        let mut places: Vec<u32> = (0..40).collect();
        places.shuffle(&mut seed.rng());
        let (part, others) = places.split_at(8);
        let rows_of = |places: &[u32]| -> Vec<RowId> { places.iter().map(|&place| rows[place as usize]).collect() };
        let model = Model::fit(&design, &rows_of(others), 1.0).expect("fits");
        let judged = design.select(&rows_of(part));
        let p = model.probabilities(&judged, 0.3);
        for (i, &place) in part.iter().enumerate() {
            let loss = -p.row(i)[judged.targets[i] as usize].ln();
            assert!((losses[place as usize] - loss).abs() < 1e-4, "{place}");
        }
    }

    #[test]
    fn a_stop_is_heard_and_no_rows_are_no_error() {
        let design = random_design(10, 3, 1);
        let rows: Vec<RowId> = (0..10).collect();
        let stopped = unseen_losses(&design, &rows, &tuning(), Seed(0), &Stop);
        assert!(matches!(stopped, Err(Error::Interrupted)));
        assert!(
            unseen_losses(&design, &[], &tuning(), Seed(0), &Silent)
                .expect("judges")
                .is_empty()
        );
    }
}

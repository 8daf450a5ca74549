//! Doubt: how improbable a row's own answer is to a probe that was trained on other rows. Mislabelled rows are doubted most, and where
//! that probe was trained on validation rows, those whose labels follow another policy than theirs.
//!
//! Source: Northcutt, Jiang & Chuang 2021 (out-of-sample probabilities find label errors). We differ in one way: what is doubted is a
//! given share of the rows, of each label where labels count alike, and not those below a threshold that is estimated for each label.

use rand::seq::SliceRandom;
use rayon::prelude::*;
use tamis_nn::{Monitor, seed::Seed};

use crate::{
    Result,
    data::RowId,
    metrics::{Metric, MetricKind},
    scorer::ridge::{
        probe_data::ProbeData,
        regression::{Model, Scratch, SufficientStatistics},
        tune::Tuning,
    },
};

/// Each row is judged by a probe that has seen all but one in so many.
const PARTS: usize = 5;

/// What probes make of rows that they have not seen.
pub struct Unseen {
    /// The negative log probability of each row's target, shape `(rows,)`; higher is more doubted.
    pub losses: Vec<f32>,
    /// The share of rows whose target is not the most probable answer.
    pub mistaken: f64,
}

impl Unseen {
    /// What a model makes of all of these examples, which it has not seen.
    fn of(model: &Model, judged: &ProbeData, tuning: &Tuning) -> Result<Self> {
        let temperature = tuning.temperature_for(Metric::soft(MetricKind::LogLoss));
        let (losses, right) = model.losses(judged, temperature)?;
        Ok(Self {
            mistaken: 1.0 - right as f64 / losses.len().max(1) as f64,
            losses,
        })
    }
}

/// Judges each of these rows by a probe that was trained on the others; rows are parted at random.
///
/// # Errors
///
/// If the features cannot be factored, or the user asked to stop.
pub fn judge_unseen(
    train: &ProbeData,
    rows: &[RowId],
    tuning: &Tuning,
    seed: Seed,
    monitor: &dyn Monitor,
) -> Result<Unseen> {
    let mut places: Vec<u32> = (0..rows.len() as u32).collect();
    places.shuffle(&mut seed.rng());
    let parts: Vec<&[u32]> = places.chunks(rows.len().div_ceil(PARTS).max(1)).collect();
    let rows_of = |part: &[u32]| -> Vec<RowId> { part.iter().map(|&place| rows[place as usize]).collect() };
    let moments: Vec<SufficientStatistics> = parts
        .par_iter()
        .map(|part| SufficientStatistics::of(train, &rows_of(part), &mut Scratch::new(train.width())))
        .collect::<Result<_>>()?;
    let judged: Vec<Unseen> = parts
        .par_iter()
        .enumerate()
        .map(|(judged, part)| {
            monitor.proceed()?;
            let mut others = SufficientStatistics::empty(train.width(), train.outputs);
            for (i, moments) in moments.iter().enumerate() {
                if i != judged {
                    others.add(moments);
                }
            }
            let mut scratch = Scratch::new(train.width());
            let model = Model::of(&others, tuning.ridge, &mut scratch)?;
            Unseen::of(&model, &train.select(&rows_of(part))?, tuning)
        })
        .collect::<Result<_>>()?;
    let mistaken = judged.iter().map(|part| part.mistaken * part.losses.len() as f64);
    let mistaken = mistaken.sum::<f64>() / rows.len().max(1) as f64;
    let mut losses = vec![0.0; rows.len()];
    for (&place, loss) in places.iter().zip(judged.into_iter().flat_map(|part| part.losses)) {
        losses[place as usize] = loss;
    }
    Ok(Unseen { losses, mistaken })
}

/// Judges each of these rows by a probe that was trained on other examples alone, such as validation rows, which `tuning` is for.
///
/// # Errors
///
/// If the features cannot be factored.
pub fn judge_by(others: &ProbeData, train: &ProbeData, rows: &[RowId], tuning: &Tuning) -> Result<Unseen> {
    let model = Model::fit(others, &others.all(), tuning.ridge)?;
    Unseen::of(&model, &train.select(rows)?, tuning)
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
    use super::*;
    use crate::{Error, scorer::ridge::regression::tests::random_design};
    use tamis_nn::{Silent, monitor::Stop};

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
        let unseen = judge_unseen(&design, &rows, &tuning(), Seed(1), &Silent).expect("judges");
        let doubted = most_doubted(&unseen.losses, &vec![0; 400], 0.1);
        let found = (0..400).filter(|&row| wrong(row) && doubted[row]).count();
        assert!(found >= 16, "{found} of 20 wrong labels");
    }

    #[test]
    fn each_row_is_judged_by_a_model_of_the_other_parts_alone() {
        let design = random_design(50, 4, 7);
        // Not every example is in the pool, and their order is not that of the pool.
        let rows: Vec<RowId> = (5..45).rev().collect();
        let seed = Seed(2);
        let Unseen { losses, mistaken } = judge_unseen(&design, &rows, &tuning(), seed, &Silent).expect("judges");
        let mut places: Vec<u32> = (0..40).collect();
        places.shuffle(&mut seed.rng());
        let rows_of = |places: &[u32]| -> Vec<RowId> { places.iter().map(|&place| rows[place as usize]).collect() };
        let mut wrong = 0;
        for part in places.chunks(8) {
            let others: Vec<u32> = places.iter().copied().filter(|place| !part.contains(place)).collect();
            let model = Model::fit(&design, &rows_of(&others), 1.0).expect("fits");
            let judged = design.select(&rows_of(part)).expect("reads");
            let p = model.probabilities(&judged, 0.3).expect("reads");
            for (i, &place) in part.iter().enumerate() {
                let own = p.row(i)[judged.targets[i] as usize];
                assert!((losses[place as usize] + own.ln()).abs() < 1e-4, "{place}");
                wrong += usize::from(p.row(i).iter().any(|&other| other > own));
            }
        }
        assert!(
            (mistaken - wrong as f64 / 40.0).abs() < 1e-9,
            "{mistaken}: {wrong} of 40"
        );
    }

    #[test]
    fn rows_whose_labels_follow_another_policy_than_the_others_are_doubted() {
        // What the others call 2, a third of the rows call 1.
        let others = random_design(300, 6, 4);
        let mut design = random_design(600, 6, 5);
        let differs = |row: usize, target: u32| row.is_multiple_of(3) && target == 2;
        let of_another: Vec<usize> = (0..600).filter(|&row| differs(row, design.targets[row])).collect();
        for &row in &of_another {
            design.targets[row] = 1;
        }
        // Not every example is in the pool, and their order is not that of the pool.
        let rows: Vec<RowId> = (0..600).rev().filter(|row| row % 5 > 0).collect();
        let unseen = judge_by(&others, &design, &rows, &tuning()).expect("judges");
        let model = Model::fit(&others, &(0..300).collect::<Vec<_>>(), 1.0).expect("fits");
        let p = model.probabilities(&design, 0.3).expect("reads");
        let (mut wrong, mut found) = (0, 0);
        let doubted = most_doubted(&unseen.losses, &[0; 480], 0.15);
        for (i, &row) in rows.iter().enumerate() {
            let (p, target) = (p.row(row as usize), design.targets[row as usize] as usize);
            assert!((unseen.losses[i] + p[target].ln()).abs() < 1e-4, "{row}");
            wrong += usize::from(p.iter().any(|&other| other > p[target]));
            found += usize::from(doubted[i] && of_another.contains(&(row as usize)));
        }
        assert!((unseen.mistaken - wrong as f64 / 480.0).abs() < 1e-9);
        let there = of_another.iter().filter(|&&row| row % 5 > 0).count();
        assert!(found * 4 >= there * 3, "{found} of {there}");
    }

    #[test]
    fn a_stop_is_heard_and_no_rows_are_no_error() {
        let design = random_design(10, 3, 1);
        let rows: Vec<RowId> = (0..10).collect();
        let stopped = judge_unseen(&design, &rows, &tuning(), Seed(0), &Stop);
        assert!(matches!(stopped, Err(Error::Interrupted)));
        let none = judge_unseen(&design, &[], &tuning(), Seed(0), &Silent).expect("judges");
        assert!(none.losses.is_empty() && none.mistaken == 0.0);
    }
}

//! The learning curves of a run, as `metrics.jsonl` and as a TensorBoard event file.
//!
//! Both hold the same points. `best`: a full state that scored higher on the reward fold than all before it, with its score on the
//! confirm fold by the probe, which is computed after the choice and has no part in it. `episode`: what the agent reported after an
//! episode.

use std::{fs, io::Write, path::Path};

use tamis_nn::atomic_write::write_whole;

use crate::{
    Error, Result,
    data::RowId,
    env::pool::Pool,
    pipeline::evidence::Judge,
    problem::{Curve, Episode},
    records::selection::CurveRecord,
    workspace::tensorboard::{self, Scalar},
};

/// Writes both files into the run's folder.
pub(crate) fn write(curve: &Curve, pool: &Pool, judge: &Judge<'_>, out: &Path) -> Result<()> {
    let best: Vec<Vec<RowId>> = curve
        .improvements()
        .iter()
        .map(|best| pool.rows_of(&best.state))
        .collect();
    let lines = lines(curve, &judge.confirm(&best)?);
    let path = out.join("metrics.jsonl");
    write_whole(&path, &mut |out| {
        lines.iter().try_for_each(|line| {
            serde_json::to_writer(&mut *out, line).map_err(|error| Error::io(&path, "write")(error.into()))?;
            out.write_all(b"\n").map_err(Error::io(&path, "write"))
        })
    })?;
    let folder = out.join("tensorboard");
    fs::create_dir_all(&folder).map_err(Error::io(&folder, "create"))?;
    let began = curve.began();
    // The time in the name is that of the run's first start, so that a run that goes on writes the same file.
    let path = folder.join(format!("events.out.tfevents.{}.tamis", began as u64));
    let scalars: Vec<Scalar<'_>> = lines.iter().flat_map(|line| scalars(line, began)).collect();
    tensorboard::write(&path, began, &scalars)
}

/// All points in the order of evaluations, an improvement before the episode that ends with it; `confirm[i]` belongs to improvement `i`.
fn lines(curve: &Curve, confirm: &[f64]) -> Vec<CurveRecord> {
    let best = curve
        .improvements()
        .iter()
        .zip(confirm)
        .map(|(best, &confirm)| CurveRecord::Best {
            evaluations: best.evaluations,
            seconds: best.seconds,
            reward: best.reward,
            confirm,
        });
    let episodes = curve.episodes().iter().map(
        |Episode {
             evaluations,
             seconds,
             event,
         }| CurveRecord::Episode {
            episode: event.episode,
            steps: event.steps,
            evaluations: *evaluations,
            seconds: *seconds,
            episode_return: event.episode_return,
            loss: event.loss.is_finite().then_some(event.loss),
            epsilon: event.epsilon,
            agreement: event.agreement.is_finite().then_some(event.agreement),
        },
    );
    let mut lines: Vec<CurveRecord> = best.chain(episodes).collect();
    // The sort is stable.
    lines.sort_by_key(CurveRecord::evaluations);
    lines
}

/// The points of a line, by tag.
fn scalars(line: &CurveRecord, began: f64) -> Vec<Scalar<'static>> {
    let (step, seconds, values) = match *line {
        CurveRecord::Best {
            evaluations,
            seconds,
            reward,
            confirm,
        } => {
            let values = vec![("best/reward", Some(reward)), ("best/confirm", Some(confirm))];
            (evaluations, seconds, values)
        }
        CurveRecord::Episode {
            evaluations,
            seconds,
            episode_return,
            loss,
            epsilon,
            agreement,
            ..
        } => {
            let values = vec![
                ("agent/return", Some(episode_return)),
                ("agent/loss", loss),
                ("agent/epsilon", Some(epsilon)),
                ("agent/agreement", agreement),
            ];
            (evaluations, seconds, values)
        }
    };
    values
        .into_iter()
        .filter_map(|(tag, value)| {
            Some(Scalar {
                tag,
                step,
                wall_time: began + seconds,
                value: value?,
            })
        })
        .collect()
}

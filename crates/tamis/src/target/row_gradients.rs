//! The pass of a language model over rows that the gradient probe needs: each row's loss, hidden state and sketch, kept on disk, so that a
//! run that was killed goes on and pays for no row twice.

use std::path::Path;

use tamis_nn::{
    Fingerprint, Matrix, Monitor, Seed,
    decoder::{GradientSketch, SketchSettings},
    train::{Examples, LanguageModel, ResponseLoss, RowGradients, TokenizedSplit},
};

use crate::{
    Error, Result,
    embed::cache::{Key, VectorCache, key_of},
};

/// Rows between two times of keeping: some ten seconds' work of the model here.
const BLOCK: usize = 64;
/// The same where the pass is made elsewhere.
const ENGINES_BLOCK: usize = 1024;

/// Makes the pass of a language model elsewhere, for instance on a GPU.
pub trait GradientEngine: Send + Sync {
    /// What tells its numbers from another's: the model, its precision.
    fn name(&self) -> String;

    /// Of each row the sum of its response's loss, the number of its tokens and, with a sketch, the mean over all tokens of what the head
    /// reads, and the sketch of the gradient of that sum; shape `(rows, 2)`, or `(rows, 2 + hidden + width)`.
    ///
    /// # Errors
    ///
    /// If the pass fails, or the user stopped.
    fn pass(&self, rows: &[Sequence], sketch: Option<&GradientSketch>, monitor: &dyn Monitor) -> Result<Matrix>;
}

/// The tokens of a row, and 1 for each that is to be said.
pub type Sequence = (Vec<u32>, Vec<u8>);

/// What an engine makes of some rows of a split. One step of `monitor` a row.
pub(crate) fn by_engine(
    engine: &dyn GradientEngine,
    split: &TokenizedSplit,
    rows: &[u32],
    (sketch, dim): (Option<&GradientSketch>, usize),
    monitor: &dyn Monitor,
) -> Result<Matrix> {
    let sequence = |&row: &u32| {
        let (tokens, said) = split.sequences_of(row).next().expect("every row is a sequence");
        (tokens.to_vec(), said.to_vec())
    };
    let sequences: Vec<Sequence> = rows.iter().map(sequence).collect();
    let made = engine.pass(&sequences, sketch, monitor)?;
    if (made.rows(), made.cols()) != (rows.len(), dim) {
        let expected = format!("numbers of shape ({}, {dim})", rows.len());
        let found = format!("({}, {})", made.rows(), made.cols());
        return Err(Error::setting("features", expected, found));
    }
    if let Some(odd) = made.as_slice().iter().find(|number| !number.is_finite()) {
        let place = format!("the features of {}", engine.name());
        return Err(Error::NotFinite {
            place,
            found: odd.to_string(),
        });
    }
    monitor.advance(rows.len() as u64);
    Ok(made)
}

/// A language model that works out the gradients of rows.
pub struct GradientPass<'m> {
    model: &'m LanguageModel,
    sketch: GradientSketch,
    cache: Option<VectorCache>,
    engine: Option<&'m dyn GradientEngine>,
}

impl<'m> GradientPass<'m> {
    /// For a model which `identity` stands for, adapters with it; what is worked out, by an engine where there is one, is kept in `folder`, if
    /// one is named.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn new(
        model: &'m LanguageModel,
        identity: &Fingerprint,
        settings: &SketchSettings,
        seed: Seed,
        folder: Option<&Path>,
        engine: Option<&'m dyn GradientEngine>,
    ) -> Result<Self> {
        settings.check()?;
        let weights = model.weights();
        let sketch = GradientSketch::new(&weights.shape, weights.layers.len(), settings, seed);
        let source = Fingerprint::of([
            b"row gradients 1",
            identity.as_ref(),
            format!("{settings:?} {} {}", seed.0, model.dtype.identity()).as_bytes(),
            engine.map(GradientEngine::name).unwrap_or_default().as_bytes(),
        ]);
        let dim = 2 + weights.shape.hidden + sketch.width();
        Ok(Self {
            cache: folder.map(|folder| VectorCache::new(folder, &source, dim, engine.map_or(BLOCK, |_| ENGINES_BLOCK))),
            model,
            sketch,
            engine,
        })
    }

    /// Of all examples of a split, in their order. One step of `monitor` an example.
    ///
    /// # Errors
    ///
    /// If a loss is not finite, or the user stopped.
    pub fn of(&self, split: &TokenizedSplit, monitor: &dyn Monitor) -> Result<RowGradients> {
        let all = split.all();
        let mut make = |places: &[usize]| {
            let rows: Vec<u32> = places.iter().map(|&i| all[i]).collect();
            if let Some(engine) = self.engine {
                let dim = 2 + self.model.weights().shape.hidden + self.sketch.width();
                return by_engine(engine, split, &rows, (Some(&self.sketch), dim), monitor);
            }
            let found = self
                .model
                .gradients(Examples::new(split, &rows), &self.sketch, monitor)?;
            Ok(joined(&found))
        };
        let joined = match &self.cache {
            Some(cache) => {
                let keys: Vec<Key> = all.iter().map(|&row| key_of_row(split, row)).collect();
                cache.vectors(&keys, &mut make, monitor)?
            }
            None => make(&(0..all.len()).collect::<Vec<_>>())?,
        };
        Ok(self.parted(&joined))
    }

    /// The way back from [`joined`].
    fn parted(&self, joined: &Matrix) -> RowGradients {
        let (rows, hidden) = (joined.rows(), self.model.weights().shape.hidden);
        let mut gradients = RowGradients {
            losses: Vec::with_capacity(rows),
            hidden: Matrix::zeros(rows, hidden),
            sketches: Matrix::zeros(rows, self.sketch.width()),
        };
        for (i, row) in joined.iter_rows().enumerate() {
            gradients.losses.push(ResponseLoss {
                sum: f64::from(row[0]),
                tokens: row[1] as u64,
            });
            gradients.hidden.row_mut(i).copy_from_slice(&row[2..2 + hidden]);
            gradients.sketches.row_mut(i).copy_from_slice(&row[2 + hidden..]);
        }
        gradients
    }
}

/// A row's loss, tokens, hidden state and sketch as one vector.
fn joined(gradients: &RowGradients) -> Matrix {
    let parts = gradients.losses.iter().zip(gradients.hidden.iter_rows());
    let rows: Vec<f32> = parts
        .zip(gradients.sketches.iter_rows())
        .flat_map(|((loss, hidden), sketch)| [&[loss.sum as f32, loss.tokens as f32], hidden, sketch].concat())
        .collect();
    let dim = 2 + gradients.hidden.cols() + gradients.sketches.cols();
    Matrix::from_vec(rows, gradients.losses.len(), dim)
}

/// What stands for the sequence of an example that is to be said: its tokens, and which of them.
pub(crate) fn key_of_row(split: &TokenizedSplit, row: u32) -> Key {
    let mut bytes = Vec::new();
    let right = split.objective(row).class() as usize;
    if let Some((tokens, types)) = split.sequences_of(row).nth(right) {
        bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
        bytes.extend(types);
    }
    key_of(&bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tamis_nn::{
        Silent,
        hub::{files::ModelFiles, language_model},
        kernels::packed::ProductDtype,
        train::Objective,
    };

    use super::*;

    /// Stops after so many rows.
    struct Stop(AtomicU64);

    impl Monitor for Stop {
        fn begin(&self, _stage: &str, _total: Option<u64>) {}
        fn advance(&self, steps: u64) {
            let left = self.0.load(Ordering::Relaxed);
            self.0.store(left.saturating_sub(steps), Ordering::Relaxed);
        }
        fn note(&self, _text: &str) {}
        fn warn(&self, text: &str) {
            panic!("{text}");
        }
        fn end(&self) {}
        fn cancelled(&self) -> bool {
            self.0.load(Ordering::Relaxed) == 0
        }
    }

    #[test]
    fn a_pass_that_was_stopped_goes_on_and_gives_the_same() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tamis-nn/tests/oracle/decoders/llama");
        let model = language_model::load(&ModelFiles::Folder(folder.into()), ProductDtype::Float32, 64, "")
            .expect("loads")
            .model;
        // More rows than are kept at a time, some of them the same.
        let mut split = TokenizedSplit::new(1);
        for i in 0..150u32 {
            let tokens: Vec<u32> = (0..5 + i % 70).map(|t| (3 * t + i % 140) % 64).collect();
            let learned = (0..tokens.len()).map(|t| u8::from(t >= 2)).collect();
            split.push([(tokens, learned)], Objective::Response);
        }
        let settings = SketchSettings {
            side: 2,
            ..SketchSettings::default()
        };
        let kept = tempfile::tempdir().expect("a folder");
        let identity = Fingerprint::of(["a tiny llama"]);
        let pass =
            |folder| GradientPass::new(&model, &identity, &settings, Seed(1), folder, None).expect("settings are fine");
        let plain = pass(None).of(&split, &Silent).expect("passes");
        let cached = pass(Some(kept.path()));
        let stopped = cached.of(&split, &Stop(AtomicU64::new(100)));
        assert!(stopped.is_err(), "it was stopped");
        let rest = Stop(AtomicU64::new(1000));
        let again = cached.of(&split, &rest).expect("goes on");
        assert_eq!(rest.0.load(Ordering::Relaxed), 1000 - 150);
        // To the bit, whatever rows were beside it in a pass.
        assert_eq!(plain.hidden, again.hidden);
        assert_eq!(plain.sketches, again.sketches);
        // The same texts with another answer are another row.
        let answers = |class| {
            let mut split = TokenizedSplit::new(2);
            let said = |token: u32| (vec![1, 2, token], vec![0, 0, 1]);
            split.push([said(3), said(4)], Objective::Class(class));
            cached.of(&split, &Silent).expect("passes").losses
        };
        assert_ne!(answers(0), answers(1));
        // All of it is kept: nothing is left that could be stopped.
        let found = cached.of(&split, &Stop(AtomicU64::new(1))).expect("all there");
        assert_eq!(found.losses, again.losses);
        assert_eq!(found.sketches, again.sketches);
    }
}

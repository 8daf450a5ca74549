//! The pass of the language model over rows of responses: their gradients, and vectors of its hidden states.

use std::{path::Path, sync::Arc};

use tamis_nn::{
    Fingerprint, Matrix, Seed,
    train::{Examples, LanguageModel, ResponseLoss, RowGradients, TokenizedSplit},
};

use crate::{
    Error, Result,
    budget::Budget,
    candidates::mismatched::mismatched_pairs,
    data::RowId,
    embed::{Embedded, EmbedderSpec},
    pipeline::{
        context::Context,
        embed::{Gradients, PromptGains, SplitGradients, SplitVectors, Vectors, cache_folder, embed},
        finetuned_features::rows_for_features,
        memory::{check_gradients, unfrozen},
        responses::Responses,
    },
    target::{
        TargetModel,
        row_gradients::{GradientPass, key_of_row},
        row_losses,
    },
};

/// Vectors of every split: by the embedder of the settings, or the hidden states of the language model whose gradients are worked out.
pub(crate) fn vectors(context: Context<'_>) -> Result<Vectors> {
    let Some(responses) = context.responses else {
        return embed(context);
    };
    let tokens = tokens(responses, &context.dataset.pool);
    let (hidden, gradients) = pass(context, responses, &tokens, context.settings.finetune_features)?;
    let splits = if context.settings.embedder == EmbedderSpec::HiddenStates {
        standardised(hidden, &context.dataset.pool)
    } else {
        embed(context)?.splits
    };
    Ok(Vectors {
        splits,
        tokens,
        truncated: responses.splits().map(|split| split.truncated).sum(),
        gradients: Some(gradients),
    })
}

/// What each row of the pool costs in tokens of the language model.
pub(crate) fn tokens(responses: &Responses, pool: &[RowId]) -> Vec<u32> {
    let tokens = |&row: &RowId| responses.train.tokens_of(row) as u32;
    pool.iter().map(tokens).collect()
}

/// The gradients of every split, by the model as it is or, with a share of the pool, once it is fine-tuned on that.
pub(crate) fn finetuned_gradients(context: Context<'_>, responses: &Responses, share: Budget) -> Result<Gradients> {
    let tokens = tokens(responses, &context.dataset.pool);
    Ok(pass(context, responses, &tokens, Some(share))?.1)
}

/// The hidden states of train, validation and, where there is one, test; and their gradients.
fn pass(
    context: Context<'_>,
    responses: &Responses,
    tokens: &[u32],
    share: Option<Budget>,
) -> Result<(Vec<Matrix>, Gradients)> {
    let settings = context.settings;
    let (model, identity) = match share {
        Some(share) => finetuned(context, responses, tokens, share)?,
        None => (responses.model.clone(), responses.fingerprint.clone()),
    };
    let splits: Vec<&TokenizedSplit> = responses.splits().collect();
    let rows = splits.iter().map(|split| split.len() as u64).sum();
    check_gradients(rows, model.weights(), &settings.gradients.sketch)?;
    let folder = settings.cache.clone().or_else(cache_folder);
    let passes: Vec<RowGradients> = context.stages.run("gradients", Some(rows), || {
        // The same for every run, so that gradients that were kept serve all its seeds.
        let seed = Seed(0).derive("sketch");
        let sketch = &settings.gradients.sketch;
        let engine = responses.engine.as_deref();
        let pass = GradientPass::new(&model, &identity, sketch, seed, folder.as_deref(), engine)?;
        splits.iter().map(|split| pass.of(split, context.monitor())).collect()
    })?;
    let prompts = prompt_gains(
        context,
        responses,
        (&model, &identity),
        &passes[0].losses,
        folder.as_deref(),
    )?;
    Ok(parted(passes, prompts))
}

/// Pairs of a prompt and another row's response that gains by chance are measured on.
const MISMATCHED: usize = 256;

/// What prompts tell of the pool's responses, whose losses with them are `losses`.
fn prompt_gains(
    context: Context<'_>,
    responses: &Responses,
    (model, identity): (&LanguageModel, &Fingerprint),
    losses: &[ResponseLoss],
    folder: Option<&Path>,
) -> Result<PromptGains> {
    let pool = &context.dataset.pool;
    let prompted: Vec<usize> = (0..pool.len()).filter(|&i| responses.has_prompt(pool[i])).collect();
    // As the sketch, the same for every run.
    let pairs = mismatched_pairs(&prompted, MISMATCHED, Seed(0).derive("mismatched"));
    let (alone, mismatched) = (responses.without_prompts(pool), responses.with_prompts_of(pool, &pairs));
    let rows = alone.len() + mismatched.len();
    context.stages.run("prompts", Some(rows as u64), || {
        let engine = responses.engine.as_deref();
        let of = |split: &TokenizedSplit| row_losses::losses(model, identity, folder, engine, split, context.monitor());
        let (without, with_others) = (of(&alone)?, of(&mismatched)?);
        let gain = |without: &ResponseLoss, with: &ResponseLoss| (without.sum - with.sum) as f32;
        let ratio = |with: f64, without: f64| (with / without.max(f64::MIN_POSITIVE)) as f32;
        let with: Vec<ResponseLoss> = pool.iter().map(|&row| losses[row as usize]).collect();
        let mut gains = vec![f32::INFINITY; pool.len()];
        for &i in &prompted {
            gains[i] = gain(&without[i], &with[i]);
        }
        let both = without.iter().zip(&with);
        let others = pairs.iter().zip(&with_others);
        Ok(PromptGains {
            difficulty: both
                .map(|(without, with)| ratio(with.a_token(), without.a_token()))
                .collect(),
            gains,
            of_mismatched: others
                .map(|((_, response), with)| gain(&without[*response], with))
                .collect(),
        })
    })
}

/// The model, fine-tuned on random rows that the share pays for, and what stands for it.
fn finetuned(
    context: Context<'_>,
    responses: &Responses,
    tokens: &[u32],
    share: Budget,
) -> Result<(LanguageModel, Fingerprint)> {
    let (settings, monitor) = (context.settings, context.monitor());
    if responses.engine.is_some() {
        return Err(Error::setting(
            "finetune_features",
            "no fine-tune before the pass where another program makes it",
            share.to_string(),
        )
        .with_hint("leave it out, or leave out `features`"));
    }
    let rows = rows_for_features(context, share, tokens, &vec![false; tokens.len()])?;
    let (train, seed) = (unfrozen(&settings.finetune.train), settings.seed.derive("adapt"));
    let mut model = responses.adapted(settings);
    context
        .stages
        .run("fine-tune features", Some(train.steps(rows.len())), || {
            TargetModel::train(
                &mut model,
                Examples::new(&responses.train, &rows),
                &train,
                seed,
                &mut || {
                    monitor.advance(1);
                    Ok(monitor.proceed()?)
                },
            )
        })?;
    // The rows' own tokens and not the files: on the same rows, other tasks find these gradients again.
    let told = serde_json::to_string(&(&train, &settings.language_model, settings.seed)).unwrap_or_default();
    let rows: Vec<u8> = rows.iter().flat_map(|&row| key_of_row(&responses.train, row)).collect();
    let identity = Fingerprint::of([responses.fingerprint.as_ref(), told.as_bytes(), &rows]);
    Ok((model, identity))
}

/// Hidden states and gradients, each of train, validation and, where there is one, test.
fn parted(passes: Vec<RowGradients>, prompts: PromptGains) -> (Vec<Matrix>, Gradients) {
    let of = |pass: RowGradients| {
        let RowGradients {
            losses,
            hidden,
            sketches,
        } = pass;
        (hidden, SplitGradients { losses, sketches })
    };
    let (hidden, gradients): (Vec<Matrix>, Vec<SplitGradients>) = passes.into_iter().map(of).unzip();
    let mut gradients = gradients.into_iter();
    let mut next = || gradients.next().expect("a training and a validation split");
    let (train, validation) = (next(), next());
    let gradients = Gradients {
        train,
        validation,
        test: gradients.next(),
        prompts,
    };
    (hidden, gradients)
}

/// Hidden states as vectors of unit length, each number less its mean over the pool and over its standard deviation there: a few numbers of
/// a language model's states are far larger than the others, and would decide alone what is near (Timkey & van Schijndel 2021).
fn standardised(hidden: Vec<Matrix>, pool: &[RowId]) -> SplitVectors {
    let dim = hidden[0].cols();
    let (mut sums, mut squares) = (vec![0.0f64; dim], vec![0.0f64; dim]);
    for &row in pool {
        for (i, &x) in hidden[0].row(row as usize).iter().enumerate() {
            sums[i] += f64::from(x);
            squares[i] += f64::from(x) * f64::from(x);
        }
    }
    let rows = pool.len().max(1) as f64;
    let scale: Vec<(f32, f32)> = (sums.iter().zip(&squares))
        .map(|(sum, square)| {
            let mean = sum / rows;
            let variance = square / rows - mean * mean;
            let inverse = if variance > 1e-12 { variance.sqrt().recip() } else { 0.0 };
            (mean as f32, inverse as f32)
        })
        .collect();
    let unit = |mut hidden: Matrix| {
        for i in 0..hidden.rows() {
            let row = hidden.row_mut(i);
            for (x, (mean, inverse)) in row.iter_mut().zip(&scale) {
                *x = (*x - mean) * inverse;
            }
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            if norm > 0.0 {
                row.iter_mut().for_each(|x| *x /= norm);
            }
        }
        Embedded {
            starts: (0..=hidden.rows() as u32).collect(),
            vectors: Arc::new(hidden),
        }
    };
    SplitVectors::of(hidden.into_iter().map(unit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_states_are_told_apart_by_all_their_numbers() {
        // The pool's rows are (0, 10) and (2, 30): means 1 and 20, standard deviations 1 and 10.
        let train = Matrix::from_vec(vec![0.0, 10.0, 2.0, 30.0, 500.0, 500.0], 3, 2);
        let validation = Matrix::from_vec(vec![1.0, 20.0, 4.0, 60.0], 2, 2);
        let vectors = standardised(vec![train, validation], &[0, 1]);
        let half = 0.5f32.sqrt();
        let rows = |embedded: &Embedded| embedded.vectors.rows(0..2).expect("reads").into_owned();
        assert_eq!(rows(&vectors.train), [-half, -half, half, half]);
        // The pool's middle has no direction; (3, 4) standard deviations off it is (0.6, 0.8).
        let validation = rows(&vectors.validation);
        assert_eq!(validation[..2], [0.0, 0.0]);
        assert!((validation[2] - 0.6).abs() < 1e-6 && (validation[3] - 0.8).abs() < 1e-6);
        assert!(vectors.test.is_none());
    }
}

//! How much the probe loses by working in `f32`: its scores on real data beside the same model solved in `f64`.
//!
//! ```sh
//! cargo run --release --example probe_precision -- train.jsonl validation.jsonl [lexical | model folder]
//! ```
//!
//! Random subsets of 1% and 5% of the rows, the tuned ridge strength and far weaker ones. Printed are the largest
//! differences of a probability and of the soft accuracy.

use faer::{Mat, Side, linalg::solvers::Solve};
use rand::seq::index;
use tamis::{
    Result,
    data::{self, DataSettings, Split},
    embed::{
        Embedded, Embedder,
        encoder::Encoder,
        lexical::{Lexical, LexicalSettings},
    },
    metrics::{Metric, MetricKind},
    scorer::ridge::{
        probe_data::ProbeData,
        projection::{Projection, WIDTH},
        regression::Model,
        tune::tune,
    },
};
use tamis_nn::{Matrix, Silent, encoder::Dtype, seed::Seed};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [train, validation, embedder @ ..] = arguments.as_slice() else {
        panic!("usage: probe_precision <train> <validation> [lexical | model folder]");
    };
    let settings = DataSettings {
        train: vec![train.into()],
        validation: vec![validation.into()],
        ..DataSettings::default()
    };
    let dataset = data::read(&settings, &Silent)?;
    let texts = |split: &Split| -> Vec<String> {
        let texts = split.examples.iter().flat_map(|example| example.input.texts());
        texts.take(20_000).map(ToOwned::to_owned).collect()
    };
    let (train_texts, fold_texts) = (texts(&dataset.train), texts(&dataset.validation));
    let (train_texts, fold_texts) = (as_strs(&train_texts), as_strs(&fold_texts));
    let embedder: Box<dyn Embedder> = match embedder.first().map(String::as_str) {
        None | Some("lexical") => Box::new(Lexical::fit(
            &LexicalSettings::default(),
            &train_texts,
            Seed(0),
            &Silent,
        )?),
        Some(folder) => Box::new(Encoder::load(folder, Dtype::Float32)?),
    };
    let embedded = |texts: &[&str]| -> Result<Embedded> {
        let starts = (0..=texts.len() as u32).collect();
        Ok(Embedded {
            vectors: std::sync::Arc::new(embedder.embed(texts, &Silent)?),
            starts,
        })
    };
    let (train_vectors, fold_vectors) = (embedded(&train_texts)?, embedded(&fold_texts)?);
    let labels = dataset.task.labels.len();
    let projection = Projection::fit(&train_vectors, dataset.task.kind, labels, WIDTH, Seed(0))?;
    let targets = |split: &Split, count: usize| split.targets()[..count].to_vec();
    let scratch = std::env::temp_dir();
    let train = projection.apply(&train_vectors, &targets(&dataset.train, train_texts.len()), &scratch)?;
    let fold = projection.apply(&fold_vectors, &targets(&dataset.validation, fold_texts.len()), &scratch)?;

    let rows: Vec<u32> = (0..train.examples() as u32).collect();
    println!(
        "| rows | ridge / tuned | largest difference of a probability | of the soft accuracy |\n|---|---|---|---|"
    );
    for size in [rows.len() / 100, rows.len() / 20] {
        let tuning = tune(&train, &rows, size, &fold, Seed(1), &Silent)?;
        for weaker in [1.0, 1e-2, 1e-4] {
            let (mut of_probability, mut of_score) = (0.0f64, 0.0f64);
            for subset in 0..5 {
                let mut taken = index::sample(&mut Seed(2).index(subset).rng(), rows.len(), size).into_vec();
                taken.sort_unstable();
                let taken: Vec<u32> = taken.into_iter().map(|row| row as u32).collect();
                let ridge = tuning.ridge * weaker;
                let single = Model::fit(&train, &taken, ridge)?;
                let double = solved_in_f64(&train, &taken, ridge)?;
                let metric = Metric::soft(MetricKind::Accuracy);
                let probabilities = |model: Model| model.probabilities(&fold, tuning.temperature / 4.0);
                let (single, double) = (probabilities(single)?, probabilities(double)?);
                for (a, b) in single.as_slice().iter().zip(double.as_slice()) {
                    of_probability = of_probability.max(f64::from((a - b).abs()));
                }
                let scores = [&single, &double].map(|p| metric.score(p, &fold.targets));
                of_score = of_score.max((scores[0] - scores[1]).abs());
            }
            println!("| {size} | {weaker} | {of_probability:.1e} | {of_score:.1e} |");
        }
    }
    Ok(())
}

fn as_strs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// The same ridge regression by plain normal equations in `f64`; only the finished weights are rounded.
fn solved_in_f64(train: &ProbeData, taken: &[u32], ridge: f64) -> Result<Model> {
    let (width, outputs, n) = (train.width(), train.outputs, taken.len());
    let features = train.rows.gather(taken)?;
    let x = Mat::from_fn(n, width, |i, j| f64::from(features.row(i)[j]));
    let y = Mat::from_fn(n, outputs, |i, c| {
        f64::from(u8::from(train.targets[taken[i] as usize] as usize == c))
    });
    let mean = |m: &Mat<f64>, j: usize| (0..n).map(|i| m[(i, j)]).sum::<f64>() / n as f64;
    let (x_mean, y_mean): (Vec<f64>, Vec<f64>) = (
        (0..width).map(|j| mean(&x, j)).collect(),
        (0..outputs).map(|c| mean(&y, c)).collect(),
    );
    let x = Mat::from_fn(n, width, |i, j| x[(i, j)] - x_mean[j]);
    let y = Mat::from_fn(n, outputs, |i, c| y[(i, c)] - y_mean[c]);
    let mut gram = x.transpose() * &x;
    for j in 0..width {
        gram[(j, j)] += ridge;
    }
    let weights = gram
        .llt(Side::Lower)
        .expect("positive definite")
        .solve(x.transpose() * &y);
    let mut model = Model {
        weights: Matrix::zeros(outputs, width),
        intercept: vec![0.0; outputs],
    };
    for c in 0..outputs {
        let mut shift = y_mean[c];
        for j in 0..width {
            model.weights.row_mut(c)[j] = weights[(j, c)] as f32;
            shift -= weights[(j, c)] * x_mean[j];
        }
        model.intercept[c] = shift as f32;
    }
    Ok(model)
}

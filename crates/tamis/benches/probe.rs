//! One evaluation of the ridge probe, all that a reward needs: add a chunk, factor, score the fold. One thread. Then the same with
//! more classes, and what an episode with an agent costs beside it: an insight into the chunks left.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use rand::RngExt;
use tamis::{
    metrics::{Metric, MetricKind},
    scorer::{
        Scorer, ScorerRun,
        ridge::{
            probe::{Probe, ProbeSettings},
            probe_data::ProbeData,
        },
    },
};
use tamis_nn::{Matrix, seed::Seed};

const WIDTH: usize = 384;
const CLASSES: usize = 4;

fn design(rows: usize, classes: usize, seed: u64) -> ProbeData {
    let mut rng = Seed(seed).rng();
    let numbers = (0..rows * WIDTH).map(|_| 2.0 * rng.random::<f32>() - 1.0).collect();
    let targets = (0..rows).map(|_| rng.random_range(0..classes as u32)).collect();
    let starts = (0..=rows as u32).collect();
    ProbeData::new(Matrix::from_vec(numbers, rows, WIDTH), starts, targets, classes)
}

fn probe(metric: Metric, classes: usize) -> Probe {
    let settings = ProbeSettings {
        metric,
        ridge: 10.0,
        temperature: 0.1,
        gram_memory: ProbeSettings::GRAM_MEMORY,
    };
    let [train, fold] = [1, 2].map(|seed| Arc::new(design(1000, classes, seed)));
    Probe::new(train, fold, settings).expect("sound settings")
}

/// A run that has taken half of the rows, as chunks of 25 are taken.
fn half_way(probe: &Probe) -> Box<dyn ScorerRun + '_> {
    let mut run = probe.start(Seed(0)).expect("starts");
    for chunk in (0..500).collect::<Vec<u32>>().chunks(25) {
        run.add(chunk).expect("adds");
    }
    run
}

fn evaluation(criterion: &mut Criterion) {
    let accuracy = Metric::soft(MetricKind::Accuracy);
    let log_loss = Metric::soft(MetricKind::LogLoss);
    for (name, metric, classes) in [
        ("soft accuracy", accuracy, CLASSES),
        ("soft macro-F1", Metric::soft(MetricKind::MacroF1), CLASSES),
        ("AUC", Metric::Auc, CLASSES),
        ("calibrated log loss", Metric::Calibrated, CLASSES),
        ("matched macro-F1", Metric::Matched(MetricKind::MacroF1), CLASSES),
        ("log loss, 77 classes", log_loss, 77),
        ("log loss, 150 classes", log_loss, 150),
        ("log loss, 1000 classes", log_loss, 1000),
    ] {
        let probe = probe(metric, classes);
        let run = half_way(&probe);
        let left: Vec<u32> = (500..1000).collect();
        let mut chunks = left.chunks(25).cycle();
        criterion.bench_function(&format!("probe/{name}"), |bencher| {
            bencher.iter(|| {
                let mut fork = run.fork();
                fork.add(chunks.next().expect("a cycle never ends")).expect("adds");
                black_box(fork.score().expect("scores"))
            });
        });
    }
}

fn insight(criterion: &mut Criterion) {
    let left: Vec<u32> = (500..1000).collect();
    let chunks: Vec<&[u32]> = left.chunks(25).collect();
    for classes in [CLASSES, 150] {
        let probe = probe(Metric::soft(MetricKind::LogLoss), classes);
        let mut run = half_way(&probe);
        run.score().expect("scores");
        criterion.bench_function(&format!("probe insight/{classes} classes"), |bencher| {
            bencher.iter(|| black_box(run.insight(&chunks).expect("is had")));
        });
    }
}

criterion_group!(benches, evaluation, insight);
criterion_main!(benches);

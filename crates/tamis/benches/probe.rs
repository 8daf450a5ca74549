//! One evaluation of the ridge probe, all that a reward needs: add a chunk, factor, score the fold. One thread.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use rand::RngExt;
use tamis::{
    metrics::{Metric, MetricKind},
    scorer::{
        Scorer,
        ridge::{
            probe::{Probe, ProbeSettings},
            probe_data::ProbeData,
        },
    },
};
use tamis_nn::{Matrix, seed::Seed};

const WIDTH: usize = 384;
const CLASSES: usize = 4;

fn design(rows: usize, seed: u64) -> ProbeData {
    let mut rng = Seed(seed).rng();
    let numbers = (0..rows * WIDTH).map(|_| 2.0 * rng.random::<f32>() - 1.0).collect();
    let targets = (0..rows).map(|_| rng.random_range(0..CLASSES as u32)).collect();
    let starts = (0..=rows as u32).collect();
    ProbeData::new(Matrix::from_vec(numbers, rows, WIDTH), starts, targets, CLASSES)
}

fn evaluation(criterion: &mut Criterion) {
    for (name, metric) in [
        ("soft accuracy", Metric::soft(MetricKind::Accuracy)),
        ("soft macro-F1", Metric::soft(MetricKind::MacroF1)),
        ("AUC", Metric::Auc),
        ("calibrated log loss", Metric::Calibrated),
        ("matched macro-F1", Metric::Matched(MetricKind::MacroF1)),
    ] {
        let settings = ProbeSettings {
            metric,
            ridge: 10.0,
            temperature: 0.1,
            gram_memory: ProbeSettings::GRAM_MEMORY,
        };
        let probe = Probe::new(Arc::new(design(1000, 1)), Arc::new(design(1000, 2)), settings).expect("sound settings");
        let rows: Vec<u32> = (0..1000).collect();
        let mut run = probe.start(Seed(0)).expect("starts");
        let (taken, next) = rows.split_at(500);
        for chunk in taken.chunks(25) {
            run.add(chunk).expect("adds");
        }
        let mut chunks = next.chunks(25).cycle();
        criterion.bench_function(&format!("probe/{name}"), |bencher| {
            bencher.iter(|| {
                let mut fork = run.fork();
                fork.add(chunks.next().expect("a cycle never ends")).expect("adds");
                black_box(fork.score().expect("scores"))
            });
        });
    }
}

criterion_group!(benches, evaluation);
criterion_main!(benches);

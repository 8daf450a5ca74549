//! Seconds of a training step of a whole encoder on all cores: 16 sequences of 64 tokens, 16 real texts of mixed length, both
//! also with products in bfloat16, and the first with all but the top two layers frozen. Prints the process's peak memory after the first.
//!
//! `TAMIS_MINILM` names the folder of all-MiniLM-L6-v2 and `TAMIS_BENCH_TEXTS` a file of texts, one a line; without either
//! there is nothing to measure.

use criterion::{BatchSize, Criterion, SamplingMode, criterion_group, criterion_main};
use rand::{RngExt, seq::SliceRandom};
use tamis_nn::{
    hub::{
        classifier::{HeadKind, Request, load},
        config::DropoutRates,
    },
    kernels::packed::ProductDtype,
    seed::Seed,
    train::{ClassifierTrainer, Examples, FrozenLayerCache, Objective, TokenizedSplit, TrainSettings, Trainer},
};

fn steps(criterion: &mut Criterion) {
    let (Some(folder), Some(texts)) = (std::env::var_os("TAMIS_MINILM"), std::env::var_os("TAMIS_BENCH_TEXTS")) else {
        println!("finetune: skipped, TAMIS_MINILM or TAMIS_BENCH_TEXTS is not set");
        return;
    };
    let labels: Vec<String> = (0..4).map(|label| label.to_string()).collect();
    let loaded = load(&Request {
        name: &folder.to_string_lossy(),
        setting: "--model",
        head: HeadKind::Labels(&labels),
        new_head: true,
        longest: Some(256),
        seed: Seed(0),
    })
    .expect("loads");
    let mut model = loaded.model;
    model.dropout = DropoutRates {
        hidden: 0.1,
        attention: 0.1,
        classifier: 0.1,
    };
    let mut rng = Seed(0).rng();
    let mut even = TokenizedSplit::new(4);
    for row in 0..64 {
        let tokens: Vec<u32> = (0..64).map(|_| rng.random_range(1000..30000)).collect();
        even.push([(tokens, vec![0; 64])], Objective::Class(row % 4));
    }
    let mut mixed = TokenizedSplit::new(4);
    let texts = std::fs::read_to_string(texts).expect("reads");
    let mut lines: Vec<&str> = texts.lines().collect();
    lines.shuffle(&mut rng);
    for (row, line) in (0..).zip(lines) {
        let tokens = loaded.tokenizer.one(line).expect("tokenizes");
        mixed.push([(tokens.tokens, tokens.types)], Objective::Class(row % 4));
    }

    let mut group = criterion.benchmark_group("finetune");
    group.sample_size(12).sampling_mode(SamplingMode::Flat);
    let (exact, rounded) = (ProductDtype::Float32, ProductDtype::Bfloat16);
    for (name, data, freeze, dtype) in [
        ("16 x 64", &even, None, exact),
        ("16 x 64, bfloat16", &even, None, rounded),
        ("mixed", &mixed, None, exact),
        ("mixed, bfloat16", &mixed, None, rounded),
        ("16 x 64, top two", &even, Some(4), exact),
    ] {
        let settings = TrainSettings {
            freeze_layers: freeze,
            dtype,
            ..TrainSettings::default()
        };
        let frozen = freeze.map(|layers| FrozenLayerCache::new(layers, 1 << 30));
        let mut model = model.clone();
        let mut trainer = ClassifierTrainer::new(&model, &settings);
        let mut at = 0;
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    let rows: Vec<u32> = (at..at + 16).map(|row| row % data.len() as u32).collect();
                    at += 16;
                    rows
                },
                |rows| {
                    let examples = Examples {
                        split: data,
                        rows: &rows,
                        frozen: frozen.as_ref(),
                    };
                    trainer
                        .step(&mut model, examples, 1e-5, Seed(u64::from(rows[0])))
                        .expect("trains")
                },
                BatchSize::PerIteration,
            );
        });
        if name == "16 x 64" {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            println!("peak memory {}", peak.unwrap_or("unknown").trim());
        }
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);

//! Sentences a second with a real encoder, on all cores, tokenization included.
//!
//! `TAMIS_MINILM` names the folder of all-MiniLM-L6-v2 and `TAMIS_BENCH_TEXTS` a file of texts, one a line; without either
//! there is nothing to measure.

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use tamis::{
    Silent,
    embed::{Embedder, encoder::Encoder},
};

fn embed(criterion: &mut Criterion) {
    let (Some(model), Some(texts)) = (std::env::var_os("TAMIS_MINILM"), std::env::var_os("TAMIS_BENCH_TEXTS")) else {
        println!("encoder: skipped, TAMIS_MINILM or TAMIS_BENCH_TEXTS is not set");
        return;
    };
    let encoder = Encoder::load(&model.to_string_lossy()).expect("loads");
    let texts = std::fs::read_to_string(texts).expect("reads");
    let texts: Vec<&str> = texts.lines().collect();
    let mut group = criterion.benchmark_group("encoder");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(texts.len() as u64));
    group.bench_function("all-MiniLM-L6-v2", |bencher| {
        bencher.iter(|| encoder.embed(&texts, &Silent).expect("embeds"));
    });
}

criterion_group!(benches, embed);
criterion_main!(benches);

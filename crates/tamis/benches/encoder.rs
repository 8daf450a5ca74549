//! Sentences a second with a real encoder, on all cores, tokenization included; the cosines of its vectors in 16 and in eight bits to
//! those in 32, the least and their mean; and what its linear layers work for a pass beside the most that the processor could.
//!
//! `TAMIS_MINILM` names the folder of all-MiniLM-L6-v2 and `TAMIS_BENCH_TEXTS` a file of texts, one a line; without either
//! there is nothing to measure.

#[cfg(target_arch = "x86_64")]
mod peak;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use tamis::embed::{Embedder, encoder::Encoder};
use tamis_nn::{Silent, encoder::Dtype, hub::tokenizer::TextTokenizer};

/// The weights of the model's linear layers: in each of six four of 384 by 384, and two to and from 1,536.
const WEIGHTS: usize = 6 * 12 * 384 * 384;
/// The tokens that the model reads of a text.
const LONGEST: usize = 256;

fn embed(criterion: &mut Criterion) {
    let (Some(model), Some(texts)) = (std::env::var_os("TAMIS_MINILM"), std::env::var_os("TAMIS_BENCH_TEXTS")) else {
        println!("encoder: skipped, TAMIS_MINILM or TAMIS_BENCH_TEXTS is not set");
        return;
    };
    let texts = std::fs::read_to_string(texts).expect("reads");
    let texts: Vec<&str> = texts.lines().collect();
    let path = std::path::Path::new(&model).join("tokenizer.json");
    let tokenizer = TextTokenizer::without_model(&path, &std::fs::read(&path).expect("reads")).expect("a tokenizer");
    let count = |text: &&str| tokenizer.count(text).expect("tokenizes").min(LONGEST);
    println!("work {}", 2 * WEIGHTS * texts.iter().map(count).sum::<usize>());
    #[cfg(target_arch = "x86_64")]
    for (name, peak) in [("float32", peak::float32()), ("bfloat16", peak::bfloat16())] {
        if let Some(peak) = peak {
            println!("peak of {name} {peak:.4e}");
        }
    }
    let mut group = criterion.benchmark_group("encoder");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(texts.len() as u64));
    let mut vectors = Vec::new();
    for (name, dtype) in [
        ("float32", Dtype::Float32),
        ("bfloat16", Dtype::Bfloat16),
        ("int8", Dtype::Int8),
    ] {
        let encoder = Encoder::load(&model.to_string_lossy(), dtype).expect("loads");
        vectors.push(encoder.embed(&texts, &Silent).expect("embeds"));
        group.bench_function(name, |bencher| {
            bencher.iter(|| encoder.embed(&texts, &Silent).expect("embeds"));
        });
    }
    // Of unit vectors.
    for (name, rounded) in ["bfloat16", "int8"].into_iter().zip(&vectors[1..]) {
        let pairs = vectors[0].iter_rows().zip(rounded.iter_rows());
        let cosines: Vec<f32> = pairs.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum()).collect();
        let least = cosines.iter().copied().fold(1.0, f32::min);
        let mean = cosines.iter().sum::<f32>() / cosines.len() as f32;
        println!("cosines of {name} {least:.5} {mean:.5}");
    }
}

criterion_group!(benches, embed);
criterion_main!(benches);

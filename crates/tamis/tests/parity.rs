//! Our forward pass against sentence-transformers: all-MiniLM-L6-v2 on the 200 sentences of `oracle/`.
//!
//! The weights are not in the repository. `TAMIS_MINILM` names their folder; without it the test says so and passes.

use std::path::Path;

use tamis::{
    Silent,
    embed::{Embedder, encoder::Encoder},
};

#[test]
fn vectors_agree_with_sentence_transformers() {
    let Some(model) = std::env::var_os("TAMIS_MINILM") else {
        println!("skipped: TAMIS_MINILM does not name the folder of all-MiniLM-L6-v2");
        return;
    };
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
    let sentences = std::fs::read_to_string(oracle.join("sentences.txt")).expect("reads");
    let texts: Vec<String> = sentences.lines().map(|line| line.replace("\\n", "\n")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(texts.len(), 200);

    let encoder = Encoder::load(&model.to_string_lossy()).expect("loads");
    let ours = encoder.embed(&texts, &Silent).expect("embeds");
    let recorded = std::fs::read(oracle.join("minilm.npy")).expect("reads");
    let numbers = &recorded[recorded.len() - 4 * 200 * 384..];
    let theirs: Vec<f32> = numbers
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();

    let mut least = 1.0f64;
    for ((a, b), text) in ours.iter_rows().zip(theirs.chunks_exact(384)).zip(&texts) {
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        assert!(cosine >= 0.99999, "{cosine} for {text:?}");
        least = least.min(cosine);
    }
    println!("least cosine {least:.8}");

    // A vector does not depend on the texts beside it, so a run that was killed while it embedded ends with the same ones.
    for i in [0, 14, 57, 199] {
        let alone = encoder.embed(&texts[i..=i], &Silent).expect("embeds");
        assert_eq!(alone.row(0), ours.row(i), "sentence {i} alone and among others");
    }
}

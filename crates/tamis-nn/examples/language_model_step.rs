//! Times training steps of a language model; the peer is `experiments/peers/language_model.py bench`.
//!
//! ```text
//! cargo run --release -p tamis-nn --example language_model_step -- MODEL LENGTHS.json [kind] [dtype] [batch] [steps]
//! ```
//!
//! LENGTHS.json is `{"prompt": [..], "response": [..]}`, tokens a row; kinds are `lora`, `full`,
//! `forward` (losses alone) and `sketch` (losses and sketches of the rows' gradients). The last line is JSON.

use std::time::Instant;

use serde_json::{Value, json};
use tamis_nn::{
    Seed, Silent,
    decoder::{GradientSketch, LoraSettings, SketchSettings},
    hub::{files::ModelFiles, language_model},
    kernels::packed::ProductDtype,
    train::{Examples, LanguageModelTrainer, Objective, ResponseLoss, TokenizedSplit, TrainSettings, Trainer},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |i: usize, default: &str| arguments.get(i).map_or(default, String::as_str).to_owned();
    let (folder, lengths) = (argument(0, ""), argument(1, ""));
    let kind = argument(2, "lora");
    let dtype: ProductDtype = argument(3, "float32").parse()?;
    let (batch, steps): (usize, usize) = (argument(4, "8").parse()?, argument(5, "3").parse()?);
    let lengths: Value = serde_json::from_str(&std::fs::read_to_string(lengths)?)?;
    let of = |key: &str| -> Vec<usize> {
        let numbers = lengths[key].as_array().into_iter().flatten();
        numbers
            .filter_map(Value::as_u64)
            .map(|number| number as usize)
            .collect()
    };
    let mut split = TokenizedSplit::new(1);
    for (row, (prompt, response)) in of("prompt").into_iter().zip(of("response")).enumerate() {
        let tokens = (0..prompt + response)
            .map(|i| ((i * i * 7 + 31 * row + 3 * i) % 49152) as u32)
            .collect();
        let learned = (0..prompt + response).map(|i| u8::from(i >= prompt)).collect();
        split.push([(tokens, learned)], Objective::Response);
    }
    let mut model = language_model::load(&ModelFiles::Folder(folder.into()), dtype, usize::MAX, "")?.model;
    if kind == "lora" {
        model.adapt(&LoraSettings::default(), Seed(0));
    }
    let shape = &model.weights().shape;
    let sketch = GradientSketch::new(shape, model.weights().layers.len(), &SketchSettings::default(), Seed(0));
    let mut trainer = LanguageModelTrainer::new(&model, &TrainSettings::default());
    let all = split.all();
    let batches: Vec<&[u32]> = all.chunks(batch).cycle().take(steps + 1).collect();
    let (mut seconds, mut tokens, mut loss) = (0.0, 0, 0.0);
    for (i, rows) in batches.into_iter().enumerate() {
        let began = Instant::now();
        let examples = Examples::new(&split, rows);
        let sum = |losses: &[ResponseLoss]| losses.iter().map(|loss| loss.sum).sum::<f64>();
        loss = match &*kind {
            "forward" => sum(&model.losses(examples, &Silent)?),
            "sketch" => sum(&model.gradients(examples, &sketch, &Silent)?.losses),
            _ => trainer.step(&mut model, examples, 1e-4, Seed(0))?,
        };
        // The first step fills buffers and is not counted.
        if i > 0 {
            seconds += began.elapsed().as_secs_f64();
            tokens += rows.iter().map(|&row| split.tokens_of(row)).sum::<usize>();
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let figures = json!({"kind": kind, "seconds_per_step": seconds / steps as f64, "tokens_per_second": tokens as f64 / seconds,
        "peak_bytes": peak.map(|kb| kb * 1024), "loss": loss});
    println!("{figures}");
    Ok(())
}

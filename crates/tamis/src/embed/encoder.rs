//! Sentence encoders of the BERT family, as transformers and sentence-transformers save them, run by our own forward pass.
//!
//! Read are `config.json`, `model.safetensors` and `tokenizer.json`, and where they are there `1_Pooling/config.json` (else the
//! mean over tokens), `modules.json`, `sentence_bert_config.json` (the longest sequence) and
//! `config_sentence_transformers.json` (the default prompt). BERT, MiniLM, E5, BGE, RoBERTa, XLM-RoBERTa and DistilBERT have
//! the layers that we know; a model with others is refused, never run wrongly.

use rayon::prelude::*;
use serde_json::Value;
use tamis_nn::{
    Fingerprint, Matrix, Monitor,
    encoder::{Dtype, EncoderWeights, OutputTokens, Packed, PrepackedLayers, Scratch},
    hub::{
        config::Config,
        files::{ModelFiles, read_json},
        tensors::read_encoder,
        tokenizer::TextTokenizer,
    },
};

use crate::{Error, Place, Result, embed::Embedder};

/// Tokens of a packed batch, at least. Measured: with more, less of a batch is in the cache; with fewer, panels are read for too few rows.
const BATCH_TOKENS: usize = 512;
/// Texts that are tokenized and sorted by length together.
const WINDOW: usize = 4096;

/// A sentence encoder in memory.
pub struct Encoder {
    /// Without its layers.
    weights: EncoderWeights,
    layers: PrepackedLayers,
    tokenizer: TextTokenizer,
    pooling: Vec<Pooling>,
    /// Put before every text.
    prompt: String,
    fingerprint: Fingerprint,
}

/// How token vectors become a sentence's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pooling {
    First,
    Mean,
    Max,
    /// The sum over the square root of the length.
    MeanSqrt,
}

impl Encoder {
    /// Loads a model from a folder or, by its id, from the Hugging Face hub, to be run in these numbers.
    ///
    /// # Errors
    ///
    /// If a file is missing or broken, the architecture or pooling is not one of those above, or the tokenizer has tokens
    /// that the model does not know.
    pub fn load(name: &str, dtype: Dtype) -> Result<Self> {
        let files = Self::files(name)?;
        let config = Config::read(
            &files.need("config.json")?,
            "embed the texts with your own tools and pass the array: `embedder vectors.npy`",
        )?;
        let weights_path = files.need("model.safetensors")?;
        let bytes = std::fs::read(&weights_path).map_err(Error::io(&weights_path, "read"))?;
        let mut weights = read_encoder(&config, &weights_path, &bytes)?;

        let tokenizer_path = files.need("tokenizer.json")?;
        let tokenizer_bytes = std::fs::read(&tokenizer_path).map_err(Error::io(&tokenizer_path, "read"))?;
        let positions = weights.position_embeddings.rows() - weights.shape.first_position;
        let longest = files
            .json("sentence_bert_config.json")?
            .and_then(|json| json["max_seq_length"].as_u64())
            .map_or(positions, |told| positions.min(told as usize));
        let tokenizer = TextTokenizer::read(&tokenizer_path, &tokenizer_bytes, &weights, longest)?;

        check_modules(&files)?;
        let pooling = read_pooling(&files)?;
        let prompt = files
            .json("config_sentence_transformers.json")?
            .and_then(|json| {
                let name = json["default_prompt_name"].as_str()?;
                json["prompts"][name].as_str().map(ToOwned::to_owned)
            })
            .unwrap_or_default();
        let fingerprint = Fingerprint::of([
            match dtype {
                Dtype::Float32 => "encoder 1",
                Dtype::Int8 => "encoder 1 int8",
            }
            .as_bytes(),
            &serde_json::to_vec(&config.raw).unwrap_or_default(),
            blake3::hash(&bytes).as_bytes(),
            blake3::hash(&tokenizer_bytes).as_bytes(),
            format!("{longest} {pooling:?} {prompt}").as_bytes(),
        ]);
        let layers = weights.prepack(0..weights.layers.len(), dtype);
        weights.layers.clear();
        Ok(Self {
            weights,
            layers,
            tokenizer,
            pooling,
            prompt,
            fingerprint,
        })
    }

    /// Where the files of the encoder of this name are.
    ///
    /// # Errors
    ///
    /// If the name is that of a folder that is not there.
    pub fn files(name: &str) -> Result<ModelFiles> {
        Ok(ModelFiles::locate(
            name,
            "embedder",
            "`lexical`, a model's folder, a model id of the hub, or a .npy or .safetensors file",
        )?)
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let tokens = if self.prompt.is_empty() {
            self.tokenizer.one(text)
        } else {
            self.tokenizer.one(&format!("{}{text}", self.prompt))
        };
        Ok(tokens?.tokens)
    }

    /// One sentence's vector from its tokens', at unit length.
    fn pool(&self, tokens: &[f32], out: &mut [f32]) {
        let hidden = self.weights.shape.hidden;
        let count = (tokens.len() / hidden).max(1) as f32;
        for (pooling, out) in self.pooling.iter().zip(out.chunks_exact_mut(hidden)) {
            match pooling {
                Pooling::First => out.copy_from_slice(&tokens[..hidden]),
                Pooling::Max => {
                    out.fill(f32::NEG_INFINITY);
                    for token in tokens.chunks_exact(hidden) {
                        out.iter_mut().zip(token).for_each(|(out, x)| *out = out.max(*x));
                    }
                }
                Pooling::Mean | Pooling::MeanSqrt => {
                    let divisor = if *pooling == Pooling::Mean { count } else { count.sqrt() };
                    out.fill(0.0);
                    for token in tokens.chunks_exact(hidden) {
                        out.iter_mut().zip(token).for_each(|(out, x)| *out += x);
                    }
                    out.iter_mut().for_each(|x| *x /= divisor);
                }
            }
        }
        let norm = out.iter().map(|x| x * x).sum::<f32>().sqrt();
        if norm > 0.0 {
            out.iter_mut().for_each(|x| *x /= norm);
        }
    }

    /// Embeds one window of texts into `out`: sorted by length, packed, one batch a thread at a time.
    fn embed_window(&self, texts: &[&str], out: &mut [f32], monitor: &dyn Monitor) -> Result<()> {
        let tokens: Vec<Vec<u32>> = texts.par_iter().map(|text| self.tokens(text)).collect::<Result<_>>()?;
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(tokens[i].len()));
        let mut batches: Vec<&[usize]> = Vec::new();
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            let mut sum = 0;
            let full = rest.iter().position(|&i| {
                sum += tokens[i].len();
                sum >= BATCH_TOKENS
            });
            let (batch, tail) = rest.split_at(full.map_or(rest.len(), |last| last + 1));
            batches.push(batch);
            rest = tail;
        }
        let (dim, hidden) = (self.dim(), self.weights.shape.hidden);
        let embedded: Vec<Vec<f32>> = batches
            .par_iter()
            .map_init(Scratch::default, |scratch, batch| {
                monitor.proceed()?;
                let tokens_packed: Vec<u32> = batch.iter().flat_map(|&i| &tokens[i]).copied().collect();
                let mut starts = vec![0];
                for &i in *batch {
                    starts.push(starts[starts.len() - 1] + tokens[i].len());
                }
                let packed = Packed {
                    tokens: &tokens_packed,
                    types: &[],
                    starts: &starts,
                };
                let vectors = self.weights.forward(&self.layers, packed, OutputTokens::All, scratch);
                let mut pooled = vec![0.0; batch.len() * dim];
                for (range, out) in starts.windows(2).zip(pooled.chunks_exact_mut(dim)) {
                    self.pool(&vectors[range[0] * hidden..range[1] * hidden], out);
                }
                monitor.advance(batch.len() as u64);
                Ok(pooled)
            })
            .collect::<Result<_>>()?;
        for (&i, vector) in order
            .iter()
            .zip(embedded.iter().flat_map(|vectors| vectors.chunks_exact(dim)))
        {
            if let Some(x) = vector.iter().find(|x| !x.is_finite()) {
                return Err(Error::NotFinite {
                    place: "the encoder's vector of a text".into(),
                    found: x.to_string(),
                });
            }
            out[i * dim..(i + 1) * dim].copy_from_slice(vector);
        }
        Ok(())
    }
}

impl Embedder for Encoder {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn dim(&self) -> usize {
        self.weights.shape.hidden * self.pooling.len()
    }

    fn embed(&self, texts: &[&str], monitor: &dyn Monitor) -> Result<Matrix> {
        let mut out = Matrix::zeros(texts.len(), self.dim());
        let dim = self.dim();
        for (texts, out) in texts.chunks(WINDOW).zip(out.as_mut_slice().chunks_mut(WINDOW * dim)) {
            self.embed_window(texts, out, monitor)?;
        }
        Ok(out)
    }

    fn count_tokens(&self, text: &str) -> u32 {
        self.tokens(text).map_or(0, |tokens| tokens.len() as u32)
    }
}

/// Refuses what comes after pooling and is not a mere normalisation, such as a dense layer.
fn check_modules(files: &ModelFiles) -> Result<()> {
    let Some(path) = files.find("modules.json")? else {
        return Ok(());
    };
    let modules = read_json(&path)?;
    for module in modules.as_array().into_iter().flatten() {
        let kind = module["type"].as_str().unwrap_or_default();
        if !["Transformer", "Pooling", "Normalize"]
            .iter()
            .any(|known| kind.ends_with(known))
        {
            return Err(Error::data(
                Place::file(&path),
                "the modules Transformer, Pooling and Normalize only",
                format!("{kind:?}"),
            )
            .with_hint("embed the texts with sentence-transformers and pass the array: `embedder vectors.npy`"));
        }
    }
    Ok(())
}

fn read_pooling(files: &ModelFiles) -> Result<Vec<Pooling>> {
    let Some(path) = files.find("1_Pooling/config.json")? else {
        return Ok(vec![Pooling::Mean]);
    };
    let config = read_json(&path)?;
    let mut pooling = Vec::new();
    for (key, value) in config.as_object().into_iter().flatten() {
        if !key.starts_with("pooling_mode_") || value != &Value::Bool(true) {
            continue;
        }
        pooling.push(match key.as_str() {
            "pooling_mode_cls_token" => Pooling::First,
            "pooling_mode_max_tokens" => Pooling::Max,
            "pooling_mode_mean_tokens" => Pooling::Mean,
            "pooling_mode_mean_sqrt_len_tokens" => Pooling::MeanSqrt,
            other => {
                return Err(Error::data(
                    Place::file(&path),
                    "pooling by the first token, the mean, the maximum or the mean over the root of the length",
                    other.to_owned(),
                ));
            }
        });
    }
    // sentence-transformers puts them one behind the other in this order, whatever the file's.
    pooling.sort_by_key(|&pooling| {
        [Pooling::First, Pooling::Max, Pooling::Mean, Pooling::MeanSqrt]
            .iter()
            .position(|&known| known == pooling)
    });
    if pooling.is_empty() {
        return Err(Error::data(
            Place::file(&path),
            "at least one pooling mode that is true",
            "none",
        ));
    }
    Ok(pooling)
}

//! Sentence encoders of the BERT family, as transformers and sentence-transformers save them, run by our own forward pass.
//!
//! Read are `config.json`, `model.safetensors` and `tokenizer.json`, and where they are there `1_Pooling/config.json` (else the
//! mean over tokens), `modules.json`, `sentence_bert_config.json` (the longest sequence) and
//! `config_sentence_transformers.json` (the default prompt). BERT, MiniLM, E5, BGE, RoBERTa, XLM-RoBERTa and DistilBERT have
//! the layers that we know; a model with others is refused, never run wrongly.

use std::path::Path;

use rayon::prelude::*;
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;
use tokenizers::{Tokenizer, TruncationParams};

use super::{Embedder, hub::ModelFiles, numbers};
use crate::{
    Error, Fingerprint, Matrix, Monitor, Place, Result,
    nn::{
        elementwise::Activation,
        encoder::{EncoderShape, EncoderWeights, Layer, Linear, Norm, Scratch},
    },
};

/// Tokens of a packed batch, at least; measured: smaller ones leave products too narrow, larger ones leave the cache.
const BATCH_TOKENS: usize = 1024;
/// How many tokens more than its tokenizer a model may know: some pad their matrices, or leave places for new tokens.
const SPARE_TOKENS: usize = 1024;
/// Texts that are tokenized and sorted by length together.
const WINDOW: usize = 4096;

/// A sentence encoder in memory.
pub struct Encoder {
    weights: EncoderWeights,
    tokenizer: Tokenizer,
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
    /// Loads a model from a folder or, by its id, from the Hugging Face hub.
    ///
    /// # Errors
    ///
    /// If a file is missing or broken, the architecture or pooling is not one of those above, or the tokenizer has tokens
    /// that the model does not know.
    pub fn load(name: &str) -> Result<Self> {
        let files = ModelFiles::locate(name)?;
        let config_path = files.need("config.json")?;
        let config = Config::read(&config_path)?;
        let weights_path = files.need("model.safetensors")?;
        let bytes = std::fs::read(&weights_path).map_err(Error::io(&weights_path, "read"))?;
        let weights = config.weights(&weights_path, &bytes)?;

        let tokenizer_path = files.need("tokenizer.json")?;
        let tokenizer_bytes = std::fs::read(&tokenizer_path).map_err(Error::io(&tokenizer_path, "read"))?;
        let longest = {
            let positions = weights.positions.rows() - weights.shape.first_position;
            let told = optional_json(&files, "sentence_bert_config.json")?
                .and_then(|json| json["max_seq_length"].as_u64())
                .map_or(positions, |told| told as usize);
            told.min(positions)
        };
        let tokenizer = load_tokenizer(&tokenizer_path, &tokenizer_bytes, weights.words.rows(), longest)?;

        check_modules(&files)?;
        let pooling = read_pooling(&files)?;
        let prompt = optional_json(&files, "config_sentence_transformers.json")?
            .and_then(|json| {
                let name = json["default_prompt_name"].as_str()?;
                json["prompts"][name].as_str().map(ToOwned::to_owned)
            })
            .unwrap_or_default();
        let fingerprint = Fingerprint::of([
            "encoder 1".as_bytes(),
            &serde_json::to_vec(&config.raw).unwrap_or_default(),
            blake3::hash(&bytes).as_bytes(),
            blake3::hash(&tokenizer_bytes).as_bytes(),
            format!("{longest} {pooling:?} {prompt}").as_bytes(),
        ]);
        Ok(Self {
            weights,
            tokenizer,
            pooling,
            prompt,
            fingerprint,
        })
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = if self.prompt.is_empty() {
            self.tokenizer.encode_fast(text, true)
        } else {
            self.tokenizer.encode_fast(format!("{}{text}", self.prompt), true)
        };
        let encoding = encoding.map_err(|error| {
            Error::data(
                Place::file("tokenizer.json"),
                "a text it can tokenize",
                error.to_string(),
            )
        })?;
        Ok(encoding.get_ids().to_vec())
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
                if monitor.cancelled() {
                    return Err(Error::Interrupted);
                }
                let packed: Vec<u32> = batch.iter().flat_map(|&i| &tokens[i]).copied().collect();
                let mut starts = vec![0];
                for &i in *batch {
                    starts.push(starts[starts.len() - 1] + tokens[i].len());
                }
                let vectors = self.weights.forward(&packed, &starts, scratch);
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

/// What `config.json` says.
struct Config {
    raw: Value,
    family: Family,
    layers: usize,
    shape: EncoderShape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Bert,
    DistilBert,
}

#[derive(Deserialize)]
struct RawConfig {
    model_type: String,
    #[serde(alias = "dim")]
    hidden_size: usize,
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: usize,
    #[serde(alias = "activation", default = "gelu")]
    hidden_act: String,
    #[serde(default = "small")]
    layer_norm_eps: f32,
    #[serde(default)]
    pad_token_id: usize,
    position_embedding_type: Option<String>,
}

fn gelu() -> String {
    "gelu".into()
}

fn small() -> f32 {
    1e-12
}

impl Config {
    fn read(path: &Path) -> Result<Self> {
        let raw = read_json(path)?;
        let wrong = |expected: &str, found: String| Error::data(Place::file(path), expected.to_owned(), found);
        let config: RawConfig = serde_json::from_value(raw.clone())
            .map_err(|error| wrong("the configuration of a BERT-family encoder", error.to_string()))?;
        let family = match config.model_type.as_str() {
            "bert" | "roberta" | "xlm-roberta" | "camembert" => Family::Bert,
            "distilbert" => Family::DistilBert,
            other => {
                return Err(wrong(
                    "model_type bert, roberta, xlm-roberta, camembert or distilbert",
                    format!("{other:?}"),
                )
                .with_hint("embed the texts with your own tools and pass the array: `--embedder vectors.npy`"));
            }
        };
        if config
            .position_embedding_type
            .as_deref()
            .is_some_and(|kind| kind != "absolute")
        {
            return Err(wrong(
                "absolute position embeddings",
                format!("{:?}", config.position_embedding_type),
            ));
        }
        let activation = match config.hidden_act.as_str() {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            other => {
                return Err(wrong(
                    "activation gelu, gelu_new, gelu_pytorch_tanh or relu",
                    format!("{other:?}"),
                ));
            }
        };
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        if heads == 0 || hidden == 0 || !hidden.is_multiple_of(heads) {
            return Err(wrong(
                "a hidden size that the heads divide",
                format!("{hidden} and {heads} heads"),
            ));
        }
        let first_position = if matches!(config.model_type.as_str(), "bert" | "distilbert") {
            0
        } else {
            config.pad_token_id + 1
        };
        Ok(Self {
            raw,
            family,
            layers: config.num_hidden_layers,
            shape: EncoderShape {
                hidden,
                heads,
                activation,
                norm_epsilon: config.layer_norm_eps,
                first_position,
            },
        })
    }

    /// The tensors, by the names that transformers gives them.
    fn weights(&self, path: &Path, bytes: &[u8]) -> Result<EncoderWeights> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| {
            Error::data(
                Place::file(path),
                "a safetensors file",
                format!("a broken header ({error})"),
            )
        })?;
        let tensors = Tensors::new(path, &tensors)?;
        let hidden = self.shape.hidden;
        let words = tensors.matrix("embeddings.word_embeddings.weight", None, hidden)?;
        let mut positions = tensors.matrix("embeddings.position_embeddings.weight", None, hidden)?;
        if self.family == Family::Bert && tensors.has("embeddings.token_type_embeddings.weight") {
            let types = tensors.matrix("embeddings.token_type_embeddings.weight", None, hidden)?;
            for row in positions.as_mut_slice().chunks_exact_mut(hidden) {
                row.iter_mut().zip(types.row(0)).for_each(|(x, t)| *x += t);
            }
        }
        if positions.rows() <= self.shape.first_position + 2 {
            return Err(Error::data(
                Place::file(path),
                "position embeddings",
                format!("{} rows", positions.rows()),
            ));
        }
        Ok(EncoderWeights {
            words,
            positions,
            norm: tensors.norm("embeddings.LayerNorm", hidden)?,
            layers: (0..self.layers)
                .map(|l| self.layer(&tensors, l))
                .collect::<Result<_>>()?,
            shape: self.shape.clone(),
        })
    }

    fn layer(&self, tensors: &Tensors<'_>, l: usize) -> Result<Layer> {
        let hidden = self.shape.hidden;
        let (base, names) = match self.family {
            Family::Bert => (
                format!("encoder.layer.{l}"),
                [
                    "attention.self.query",
                    "attention.self.key",
                    "attention.self.value",
                    "attention.output.dense",
                    "attention.output.LayerNorm",
                    "intermediate.dense",
                    "output.dense",
                    "output.LayerNorm",
                ],
            ),
            Family::DistilBert => (
                format!("transformer.layer.{l}"),
                [
                    "attention.q_lin",
                    "attention.k_lin",
                    "attention.v_lin",
                    "attention.out_lin",
                    "sa_layer_norm",
                    "ffn.lin1",
                    "ffn.lin2",
                    "output_layer_norm",
                ],
            ),
        };
        let [query, key, value, out, attention_norm, inner, outer, out_norm] =
            names.map(|name| format!("{base}.{name}"));
        let parts = [query, key, value]
            .iter()
            .map(|name| tensors.linear(name, hidden, Some(hidden)))
            .collect::<Result<Vec<Linear>>>()?;
        let weight = parts.iter().flat_map(|part| part.weight.as_slice()).copied().collect();
        let inner = tensors.linear(&inner, hidden, None)?;
        Ok(Layer {
            attention: Linear {
                weight: Matrix::from_vec(weight, 3 * hidden, hidden),
                bias: parts.into_iter().flat_map(|part| part.bias).collect(),
            },
            attention_out: tensors.linear(&out, hidden, Some(hidden))?,
            attention_norm: tensors.norm(&attention_norm, hidden)?,
            outer: tensors.linear(&outer, inner.weight.rows(), Some(hidden))?,
            inner,
            out_norm: tensors.norm(&out_norm, hidden)?,
        })
    }
}

/// The tensors of a file, whatever the model's own name stands before theirs.
struct Tensors<'a> {
    path: &'a Path,
    tensors: &'a SafeTensors<'a>,
    prefix: String,
}

impl<'a> Tensors<'a> {
    fn new(path: &'a Path, tensors: &'a SafeTensors<'a>) -> Result<Self> {
        const ANCHOR: &str = "embeddings.word_embeddings.weight";
        let prefix = tensors.names().into_iter().find_map(|name| name.strip_suffix(ANCHOR));
        let prefix = prefix
            .ok_or_else(|| Error::data(Place::file(path), format!("a tensor named {ANCHOR}"), "none"))?
            .to_owned();
        Ok(Self { path, tensors, prefix })
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.tensor(&format!("{}{name}", self.prefix)).is_ok()
    }

    /// The numbers of a tensor whose last side is `cols`, and how many rows of them there are.
    fn numbers(&self, name: &str, rows: Option<usize>, cols: usize) -> Result<(Vec<f32>, usize)> {
        let name = format!("{}{name}", self.prefix);
        let tensor = self
            .tensors
            .tensor(&name)
            .map_err(|_| Error::data(Place::file(self.path), format!("a tensor named {name}"), "none"))?;
        let (found_rows, found_cols) = match *tensor.shape() {
            [rows, cols] => (rows, cols),
            [cols] => (1, cols),
            _ => (0, 0),
        };
        if found_cols != cols || found_rows == 0 || rows.is_some_and(|rows| rows != found_rows) {
            return Err(Error::data(
                Place::file(self.path),
                format!(
                    "{name} of shape ({}, {cols})",
                    rows.map_or("any".to_owned(), |rows| rows.to_string())
                ),
                format!("{:?}", tensor.shape()),
            ));
        }
        Ok((numbers::of_tensor(self.path, &tensor)?, found_rows))
    }

    fn matrix(&self, name: &str, rows: Option<usize>, cols: usize) -> Result<Matrix> {
        let (numbers, rows) = self.numbers(name, rows, cols)?;
        Ok(Matrix::from_vec(numbers, rows, cols))
    }

    fn linear(&self, name: &str, inputs: usize, outputs: Option<usize>) -> Result<Linear> {
        let weight = self.matrix(&format!("{name}.weight"), outputs, inputs)?;
        let (bias, _) = self.numbers(&format!("{name}.bias"), Some(1), weight.rows())?;
        Ok(Linear { weight, bias })
    }

    /// A layer norm; old files call its parts gamma and beta.
    fn norm(&self, name: &str, hidden: usize) -> Result<Norm> {
        let [gain, shift] = if self.has(&format!("{name}.gamma")) {
            ["gamma", "beta"]
        } else {
            ["weight", "bias"]
        };
        Ok(Norm {
            gain: self.numbers(&format!("{name}.{gain}"), Some(1), hidden)?.0,
            shift: self.numbers(&format!("{name}.{shift}"), Some(1), hidden)?.0,
        })
    }
}

fn load_tokenizer(path: &Path, bytes: &[u8], vocabulary: usize, longest: usize) -> Result<Tokenizer> {
    let broken = |found: String| Error::data(Place::file(path), "a tokenizer that fits the model", found);
    let mut tokenizer =
        Tokenizer::from_bytes(bytes).map_err(|error| broken(format!("one that cannot be read ({error})")))?;
    let misfit =
        |found: String| broken(found).with_hint("tokenizer.json and model.safetensors must come from the same model");
    let known = tokenizer.get_vocab_size(true);
    if known + SPARE_TOKENS < vocabulary {
        return Err(misfit(format!("{known} tokens, and the model knows {vocabulary}")));
    }
    if let Some((token, id)) = tokenizer.get_vocab(true).into_iter().max_by_key(|&(_, id)| id)
        && id as usize >= vocabulary
    {
        return Err(misfit(format!(
            "token {token:?} with number {id}, and the model knows {vocabulary} tokens"
        )));
    }
    let truncation = TruncationParams {
        max_length: longest,
        ..TruncationParams::default()
    };
    tokenizer
        .with_padding(None)
        .with_truncation(Some(truncation))
        .map_err(|error| broken(error.to_string()))?;
    Ok(tokenizer)
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
            .with_hint("embed the texts with sentence-transformers and pass the array: `--embedder vectors.npy`"));
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

fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    serde_json::from_str(&text).map_err(|error| {
        Error::data(
            Place::line(path, error.line() as u64),
            "JSON",
            format!("a mistake ({error})"),
        )
    })
}

fn optional_json(files: &ModelFiles, name: &str) -> Result<Option<Value>> {
    files.find(name)?.map(|path| read_json(&path)).transpose()
}

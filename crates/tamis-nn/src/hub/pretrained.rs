//! A model's files read into memory: what every use of a model begins with, be it embedded with or fine-tuned.

use std::{collections::BTreeSet, path::PathBuf};

use serde_json::Value;

use crate::{
    Error, Fingerprint, Place, Result,
    encoder::EncoderWeights,
    hub::{
        config::Config,
        files::{ModelFiles, read_json},
        modules::Modules,
        tensors::WeightFile,
        tokenizer::TextTokenizer,
    },
};

/// The file of a model's weights where it has but one.
pub const WEIGHTS: &str = "model.safetensors";

/// What the files of a model hold.
pub struct Pretrained {
    /// What its `config.json` says.
    pub config: Config,
    /// Where its parts are.
    pub modules: Modules,
    /// Its weights, a file or several shards.
    pub weights: Vec<WeightFile>,
    /// The path of its `tokenizer.json`.
    pub tokenizer_path: PathBuf,
    tokenizer_bytes: Vec<u8>,
    /// The most tokens of a sequence, as its files say.
    longest: usize,
}

impl Pretrained {
    /// Reads a model's files. `way_out` is what a user can do whose model is not one of those that work.
    ///
    /// # Errors
    ///
    /// If a file is missing or broken, or the architecture is not one that we know.
    pub fn read(files: &ModelFiles, way_out: &str) -> Result<Self> {
        let modules = Modules::read(files)?;
        let config = Config::read(&files.need(&modules.in_transformer("config.json"))?, way_out)?;
        let weights = weight_paths(files, |file| modules.in_transformer(file))?
            .into_iter()
            .map(WeightFile::read);
        let weights = weights.collect::<Result<_>>()?;
        let tokenizer_path = files.need(&modules.in_transformer("tokenizer.json"))?;
        Ok(Self {
            config,
            weights,
            tokenizer_bytes: std::fs::read(&tokenizer_path).map_err(Error::io(&tokenizer_path, "read"))?,
            tokenizer_path,
            longest: longest(files, &modules)?,
            modules,
        })
    }

    /// The model's tokenizer, for sequences of at most `most` tokens, and never more than the model takes.
    ///
    /// # Errors
    ///
    /// If it is broken or does not fit the model.
    pub fn tokenizer(&self, encoder: &EncoderWeights, most: Option<usize>) -> Result<TextTokenizer> {
        let positions = encoder.position_embeddings.rows() - encoder.shape.first_position;
        let longest = positions.min(self.longest).min(most.unwrap_or(usize::MAX));
        TextTokenizer::read(&self.tokenizer_path, &self.tokenizer_bytes, encoder, longest)
    }

    /// Parts of a fingerprint: the configuration, each file of weights, and the tokenizer.
    pub fn identity(&self) -> Vec<Vec<u8>> {
        let hash = |bytes: &[u8]| blake3::hash(bytes).as_bytes().to_vec();
        let mut parts = vec![self.config.raw.to_string().into_bytes()];
        parts.extend(self.weights.iter().map(|file| hash(&file.bytes)));
        parts.push(hash(&self.tokenizer_bytes));
        parts
    }
}

/// The tokenizer of a model that is not loaded, to count tokens with.
///
/// # Errors
///
/// If it is missing or broken.
pub fn tokenizer_alone(files: &ModelFiles) -> Result<TextTokenizer> {
    let path = files.need(&Modules::read(files)?.in_transformer("tokenizer.json"))?;
    let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    TextTokenizer::without_model(&path, &bytes)
}

/// The fingerprint of the contents of every file that decides what a model does, as far as it is there: whoever loads the
/// model says what is missing.
///
/// # Errors
///
/// If a file cannot be read, or the hub cannot be reached.
pub fn fingerprint(files: &ModelFiles) -> Result<Fingerprint> {
    let modules = Modules::read(files)?;
    let in_transformer = [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "sentence_bert_config.json",
    ];
    let mut names = in_transformer.map(|name| modules.in_transformer(name)).to_vec();
    names.extend(["modules.json", "config_sentence_transformers.json"].map(ToOwned::to_owned));
    names.extend(modules.pooling_config());
    let mut parts = Vec::new();
    for name in names {
        if let Some(path) = files.find(&name)? {
            parts.extend([name, Fingerprint::of_file(&path)?.to_string()]);
        }
    }
    for path in weight_paths(files, |file| modules.in_transformer(file)).unwrap_or_default() {
        parts.push(Fingerprint::of_file(&path)?.to_string());
    }
    Ok(Fingerprint::of(parts))
}

/// The files of the weights: one, or the shards that an index names. `named` gives a file its place in the model.
pub(super) fn weight_paths(files: &ModelFiles, named: impl Fn(&str) -> String) -> Result<Vec<PathBuf>> {
    let whole = named(WEIGHTS);
    if let Some(path) = files.find(&whole)? {
        return Ok(vec![path]);
    }
    let Some(index) = files.find(&named("model.safetensors.index.json"))? else {
        return Ok(vec![files.need(&whole)?]);
    };
    let json = read_json(&index)?;
    let shards: Option<BTreeSet<&str>> = json["weight_map"]
        .as_object()
        .and_then(|map| map.values().map(Value::as_str).collect());
    let beside = |shards: &BTreeSet<&str>| !shards.is_empty() && !shards.iter().any(|name| name.contains(['/', '\\']));
    let shards = shards.filter(beside).ok_or_else(|| {
        let expected = "weight_map, with the file of each tensor beside this one";
        Error::data(Place::file(&index), expected, json["weight_map"].to_string())
            .with_hint("load the model with transformers and save it anew: `save_pretrained(folder)`")
    })?;
    shards.into_iter().map(|name| files.need(&named(name))).collect()
}

/// The most tokens of a sequence: what sentence-transformers was told, else what the tokenizer was, which is an enormous
/// number where there is no limit.
fn longest(files: &ModelFiles, modules: &Modules) -> Result<usize> {
    let number = |file: &str, key: &str| -> Result<Option<usize>> {
        let json = files.json(&modules.in_transformer(file))?.unwrap_or_default();
        Ok(json[key].as_f64().map(|number| number as usize))
    };
    Ok(match number("sentence_bert_config.json", "max_seq_length")? {
        Some(longest) => longest,
        None => number("tokenizer_config.json", "model_max_length")?.unwrap_or(usize::MAX),
    })
}

//! Language models as transformers and peft save them: loaded, and saved as adapters or whole.
//!
//! Tensors have transformers' names, `model.layers.0.self_attn.q_proj.weight` and so on, and adapters peft's
//! (`base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`): what is written here is loaded there unchanged.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    Error, Fingerprint, Matrix, Place, Result,
    decoder::{DecoderLayer, DecoderWeights, HeadNorms, Lora, Projection, weights::NamedTensor},
    hub::{
        chat_template::ChatTemplate,
        decoder_config::DecoderConfig,
        files::{ModelFiles, TokenizerFiles, in_float32, write_json},
        pretrained::weight_paths,
        tensors::{Named, Tensors, WeightFile},
        tokenizer::TextTokenizer,
    },
    kernels::{linear::Linear, packed::ProductDtype},
    train::LanguageModel,
};

/// What a folder of adapters is known by.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The weights of adapters.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// A language model in memory.
#[derive(Debug, Clone)]
pub struct LoadedLanguageModel {
    /// What its `config.json` says.
    pub config: DecoderConfig,
    /// The model, without adapters.
    pub model: LanguageModel,
    /// The tokenizer.
    pub tokenizer: TextTokenizer,
    /// How it writes conversations.
    pub template: ChatTemplate,
    /// The tokenizer's files, to be saved beside what becomes of the model.
    pub tokenizer_files: TokenizerFiles,
    /// Of the configuration, the weights and the tokenizer.
    pub fingerprint: Fingerprint,
}

/// About how many bytes a model takes while it is loaded, from its configuration and the sizes of its files: these and its weights in 32
/// bits.
///
/// # Errors
///
/// As [`load`], of the configuration and of files that are missing.
pub fn loading_bytes(files: &ModelFiles, way_out: &str) -> Result<u64> {
    let config = DecoderConfig::read(&files.need("config.json")?, way_out)?;
    let mut stored = 0;
    for path in weight_paths(files, str::to_owned)? {
        stored += std::fs::metadata(&path).map_err(Error::io(&path, "read"))?.len();
    }
    let shape = &config.shape;
    let size = |projection: &Projection| projection.sizes(shape).map(|size| size as u64).iter().product::<u64>();
    let layers = (Projection::ALL.iter().map(size).sum::<u64>()).saturating_mul(config.layers as u64);
    let tables = if config.tied { 1 } else { 2 };
    let words = config.raw["vocab_size"].as_u64().unwrap_or(0);
    let numbers = layers.saturating_add(words.saturating_mul(tables * shape.hidden as u64));
    Ok(numbers.saturating_mul(4).saturating_add(stored))
}

/// Loads a language model that multiplies in these numbers, for sequences of at most `longest` tokens, and never more than it has positions.
///
/// # Errors
///
/// If a file is missing or broken, the architecture is not one that we know, or the tokenizer does not fit. `way_out` is what a user can do
/// whose model is not one of those that work.
pub fn load(files: &ModelFiles, dtype: ProductDtype, longest: usize, way_out: &str) -> Result<LoadedLanguageModel> {
    let config = DecoderConfig::read(&files.need("config.json")?, way_out)?;
    let hash = |bytes: &[u8]| blake3::hash(bytes).as_bytes().to_vec();
    let weights = weight_paths(files, str::to_owned)?.into_iter().map(WeightFile::read);
    let weights: Vec<WeightFile> = weights.collect::<Result<_>>()?;
    let mut identity = vec![b"language model 1".to_vec(), config.raw.to_string().into_bytes()];
    identity.extend(weights.iter().map(|file| hash(&file.bytes)));
    let decoder = decoder(&Tensors::beside(&WeightFile::parse_all(&weights)?, TOKENS)?, &config)?;
    drop(weights);
    let path = files.need("tokenizer.json")?;
    identity.push(hash(&std::fs::read(&path).map_err(Error::io(&path, "read"))?));
    let (tokenizer, template) = reader(files, &config, decoder.token_embeddings.rows(), longest)?;
    for name in ["tokenizer_config.json", "chat_template.jinja"] {
        if let Some(path) = files.find(name)? {
            identity.push(hash(&std::fs::read(&path).map_err(Error::io(&path, "read"))?));
        }
    }
    Ok(LoadedLanguageModel {
        template,
        tokenizer,
        tokenizer_files: files.tokenizer_files(str::to_owned)?,
        fingerprint: Fingerprint::of(identity),
        model: LanguageModel::new(decoder, dtype),
        config,
    })
}

/// What reads conversations for a language model, without its weights: the tokenizer, for sequences of at most `longest` tokens, and the chat
/// template.
///
/// # Errors
///
/// As those of [`load`], but for the weights.
pub fn load_reader(files: &ModelFiles, longest: usize, way_out: &str) -> Result<(TextTokenizer, ChatTemplate)> {
    let config = DecoderConfig::read(&files.need("config.json")?, way_out)?;
    let vocabulary = config.raw["vocab_size"].as_u64().unwrap_or(u64::MAX);
    reader(files, &config, vocabulary as usize, longest)
}

fn reader(
    files: &ModelFiles,
    config: &DecoderConfig,
    vocabulary: usize,
    longest: usize,
) -> Result<(TextTokenizer, ChatTemplate)> {
    let path = files.need("tokenizer.json")?;
    let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    let tokenizer = TextTokenizer::of_decoder(&path, &bytes, vocabulary, longest.min(config.shape.positions))?;
    let template = match ChatTemplate::read(files, str::to_owned)? {
        Some(template) => template,
        None => ChatTemplate::plain(&end_of_sequence(config, &tokenizer)),
    };
    Ok((tokenizer, template))
}

/// How the token is written that ends what a model says.
fn end_of_sequence(config: &DecoderConfig, tokenizer: &TextTokenizer) -> String {
    let id = match &config.raw["eos_token_id"] {
        Value::Array(several) => several.first().and_then(Value::as_u64),
        one => one.as_u64(),
    };
    id.and_then(|id| tokenizer.token(id as u32)).unwrap_or_default()
}

const TOKENS: &str = "embed_tokens.weight";

/// The decoder of a model with this configuration.
fn decoder(tensors: &Tensors<'_>, config: &DecoderConfig) -> Result<DecoderWeights> {
    let shape = &config.shape;
    let vector = |name: &str, length: usize| Ok::<_, Error>(tensors.numbers(name, Some(1), length)?.0);
    let linear = |l: usize, projection: Projection| -> Result<Linear> {
        let name = format!("layers.{l}.{}", projection.path());
        let [inputs, outputs] = projection.sizes(shape);
        let bias = format!("{name}.bias");
        Ok(Linear {
            weight: tensors.matrix(&format!("{name}.weight"), Some(outputs), inputs)?,
            bias: if tensors.has(&bias) {
                vector(&bias, outputs)?
            } else {
                Vec::new()
            },
        })
    };
    let layer = |l: usize| -> Result<DecoderLayer> {
        let mut projections: [Linear; 7] = Default::default();
        for (projection, to) in Projection::ALL.into_iter().zip(&mut projections) {
            *to = linear(l, projection)?;
        }
        let norm = |name: &str, length| vector(&format!("layers.{l}.{name}.weight"), length);
        let head_norms = config.head_norms.then(|| {
            Ok::<_, Error>(HeadNorms {
                query: norm("self_attn.q_norm", shape.heads.width)?,
                key: norm("self_attn.k_norm", shape.heads.width)?,
            })
        });
        Ok(DecoderLayer {
            attention_norm: norm("input_layernorm", shape.hidden)?,
            projections,
            head_norms: head_norms.transpose()?,
            feed_forward_norm: norm("post_attention_layernorm", shape.hidden)?,
        })
    };
    let token_embeddings = tensors.matrix(TOKENS, None, shape.hidden)?;
    let vocabulary = token_embeddings.rows();
    let head = || -> Result<Matrix> {
        tensors
            .in_full()
            .matrix("lm_head.weight", Some(vocabulary), shape.hidden)
    };
    Ok(DecoderWeights {
        head: (!config.tied).then(head).transpose()?,
        layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
        norm: vector("norm.weight", shape.hidden)?,
        token_embeddings,
        shape: shape.clone(),
    })
}

/// A language model to be saved.
pub struct LanguageModelFiles<'a> {
    /// The configuration of the model that it was made from.
    pub config: &'a DecoderConfig,
    /// The tokenizer's files.
    pub tokenizer_files: &'a TokenizerFiles,
}

impl LanguageModelFiles<'_> {
    /// Writes adapters as peft saves them, and the tokenizer beside them. `base` is what the model that they belong to is called. The
    /// weights come last, so that a folder without them is not taken for adapters.
    ///
    /// # Errors
    ///
    /// If a file cannot be written, or one of the tokenizer's cannot be read.
    pub fn save_adapters(&self, lora: &mut Lora, base: &str, folder: &Path) -> Result<()> {
        self.begin(folder)?;
        let settings = &lora.settings;
        let targets: Vec<&str> = settings.target_modules.iter().map(|module| module.name()).collect();
        let config = json!({
            "base_model_name_or_path": base,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": whole_where_it_is(settings.alpha),
            "lora_dropout": settings.dropout,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": settings.rank,
            "target_modules": targets,
            "task_type": "CAUSAL_LM",
            "use_rslora": false,
        });
        write_json(&folder.join(ADAPTER_CONFIG), &config)?;
        write_tensors(&folder.join(ADAPTER_WEIGHTS), &lora.tensors_mut())
    }

    /// Writes the whole model as transformers saves it, in `f32`. The weights come last.
    ///
    /// # Errors
    ///
    /// If a file cannot be written, or one of the tokenizer's cannot be read.
    pub fn save_model(&self, weights: &mut DecoderWeights, folder: &Path) -> Result<()> {
        self.begin(folder)?;
        let mut config = self.config.raw.clone();
        in_float32(&mut config);
        write_json(&folder.join("config.json"), &config)?;
        write_tensors(&folder.join("model.safetensors"), &weights.tensors_mut())
    }

    fn begin(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
        self.tokenizer_files.copy_to(folder)
    }
}

/// A number as JSON, without a fraction where it has none: what peft's own files have.
fn whole_where_it_is(number: f32) -> Value {
    if number.fract() == 0.0 {
        json!(number as i64)
    } else {
        json!(number)
    }
}

fn write_tensors(path: &Path, tensors: &[NamedTensor<'_>]) -> Result<()> {
    let mut named = Named::default();
    for tensor in tensors {
        named.push(tensor.name.clone(), tensor.shape.clone(), tensor.values);
    }
    named.write(path)
}

/// Refuses a folder of adapters where a whole model is needed, and says how to make one.
///
/// # Errors
///
/// If the folder holds adapters and no model.
pub fn refuse_adapters(files: &ModelFiles) -> Result<()> {
    if let ModelFiles::Folder(folder) = files
        && folder.join(ADAPTER_CONFIG).exists()
        && !folder.join("config.json").exists()
    {
        return Err(Error::data(Place::file(folder), "a whole model", "adapters alone")
            .with_hint("merge them into their model first: peft's `merge_and_unload`, or fine-tune with `merge`"));
    }
    Ok(())
}

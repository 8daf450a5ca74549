//! What the `config.json` of a decoder says.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{
    Error, Result,
    decoder::DecoderShape,
    hub::{
        config::Fields,
        files::{ModelFiles, read_json},
    },
    kernels::{
        causal_attention::GroupedHeads,
        rotary::{Rotary, Scaling},
    },
    named, named_enum,
};

/// Decoders that differ in what their configuration leaves out, and in a part or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecoderFamily {
    /// Llama, SmolLM, TinyLlama.
    Llama,
    /// With a window, in its first version.
    Mistral,
    /// With biases of queries, keys and values.
    Qwen2,
    /// With norms of queries and keys.
    Qwen3,
}

named_enum!(DecoderFamily, "model_type", Error, {
    Llama => "llama": "Llama, SmolLM, TinyLlama",
    Mistral => "mistral": "Mistral",
    Qwen2 => "qwen2": "Qwen2 and Qwen2.5",
    Qwen3 => "qwen3": "Qwen3",
});

/// A decoder's configuration: what we read of it, and the rest as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Where it stands.
    pub path: PathBuf,
    /// The whole file.
    pub raw: Value,
    /// The number of layers.
    pub layers: usize,
    /// The sizes and choices.
    pub shape: DecoderShape,
    /// Whether the token embeddings score the vocabulary, too.
    pub tied: bool,
    /// Whether queries and keys have norms.
    pub head_norms: bool,
}

impl DecoderConfig {
    /// Reads a configuration. What it does not say is what transformers takes. `way_out` is what a user can do whose model is not one of
    /// those that work.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is not the configuration of a decoder that we know.
    pub fn read(path: &Path, way_out: &str) -> Result<Self> {
        let raw = read_json(path)?;
        let fields = Fields {
            path,
            raw: &raw,
            way_out,
        };
        let kind = raw["model_type"].as_str().unwrap_or_default();
        let family = named::find::<DecoderFamily>(kind).ok_or_else(|| {
            let expected = format!("model_type {}", named::listed::<DecoderFamily>());
            fields.unknown(&expected, &format!("{kind:?}"))
        })?;
        if !raw["quantization_config"].is_null() {
            let hint = "load the model with transformers, call `dequantize()` and save it anew";
            let error = fields.wrong("weights that are not quantized", &"quantization_config");
            return Err(error.with_hint(hint));
        }
        Ok(Self {
            path: path.to_owned(),
            layers: fields.count("num_hidden_layers", 32)?,
            shape: fields.decoder_shape(family)?,
            tied: raw["tie_word_embeddings"] == true,
            head_norms: family == DecoderFamily::Qwen3,
            raw,
        })
    }
}

impl Fields<'_> {
    fn decoder_shape(&self, family: DecoderFamily) -> Result<DecoderShape> {
        let (hidden, heads) = (self.count("hidden_size", 4096)?, self.count("num_attention_heads", 32)?);
        let groups = match (&self.raw["num_key_value_heads"], family) {
            (Value::Null, DecoderFamily::Mistral) => 8,
            (Value::Null, _) => heads,
            _ => self.count("num_key_value_heads", heads)?,
        };
        let width = match (&self.raw["head_dim"], family) {
            (Value::Null, DecoderFamily::Qwen3) => 128,
            (Value::Null, _) => hidden / heads,
            _ => self.count("head_dim", 1)?,
        };
        if !heads.is_multiple_of(groups) {
            let found = format!("{heads} heads and {groups} key-value heads");
            return Err(self.wrong("heads that the key-value heads divide", &found));
        }
        if width == 0 || !width.is_multiple_of(2) {
            return Err(self.wrong("heads of an even width", &width));
        }
        match self.raw["hidden_act"].as_str() {
            None | Some("silu" | "swish") => {}
            Some(other) => return Err(self.unknown("hidden_act silu", &format!("{other:?}"))),
        }
        let positions = self.count("max_position_embeddings", 2048)?;
        Ok(DecoderShape {
            hidden,
            intermediate: self.count("intermediate_size", 11008)?,
            heads: GroupedHeads {
                groups,
                per_group: heads / groups,
                width,
                window: self.window(family)?,
            },
            norm_epsilon: self.number("rms_norm_eps", 1e-6)?,
            rotary: self.rotary(width, positions)?,
            positions,
        })
    }

    /// How many tokens back a query sees.
    fn window(&self, family: DecoderFamily) -> Result<Option<usize>> {
        if family == DecoderFamily::Mistral {
            return Ok(match self.raw.get("sliding_window") {
                None => Some(4096),
                Some(Value::Null) => None,
                Some(_) => Some(self.count("sliding_window", 4096)?),
            });
        }
        if self.raw["use_sliding_window"] == true {
            return Err(self.unknown("attention to all that stands before", &"use_sliding_window true"));
        }
        Ok(None)
    }

    fn rotary(&self, width: usize, positions: usize) -> Result<Rotary> {
        // transformers 5 keeps all of it under `rope_parameters`.
        let newer = &self.raw["rope_parameters"];
        let scaling = if newer.is_object() {
            newer
        } else {
            &self.raw["rope_scaling"]
        };
        let theta = match newer["rope_theta"].as_f64() {
            Some(theta) => theta as f32,
            None => self.number("rope_theta", 10000.0)?,
        };
        if let Some(part) = self.raw["partial_rotary_factor"].as_f64()
            && (part - 1.0).abs() > f64::EPSILON
        {
            return Err(self.unknown(
                "positions that turn whole heads",
                &format!("partial_rotary_factor {part}"),
            ));
        }
        Ok(Rotary::new(width, theta, self.scaling(scaling, positions as f32)?))
    }

    /// How positions are stretched: `rope_scaling`.
    fn scaling(&self, scaling: &Value, positions: f32) -> Result<Scaling> {
        let told = |key: &str| scaling[key].as_f64().map(|number| number as f32);
        let need = |key: &str| -> Result<f32> {
            let number = told(key).filter(|number| *number > 0.0);
            number.ok_or_else(|| self.wrong(&format!("rope_scaling with a number above 0 in {key}"), scaling))
        };
        let original = told("original_max_position_embeddings").unwrap_or(positions);
        let kind = [&scaling["rope_type"], &scaling["type"]]
            .into_iter()
            .find_map(Value::as_str);
        Ok(match kind.unwrap_or("default") {
            "default" => Scaling::None,
            "linear" => Scaling::Linear {
                factor: need("factor")?,
            },
            "llama3" => Scaling::Llama3 {
                factor: need("factor")?,
                low_freq_factor: need("low_freq_factor")?,
                high_freq_factor: need("high_freq_factor")?,
                original_positions: need("original_max_position_embeddings")?,
            },
            "yarn" => {
                let factor = need("factor")?;
                let magnitude = |weight: f32| {
                    if factor <= 1.0 {
                        1.0
                    } else {
                        0.1 * weight * factor.ln() + 1.0
                    }
                };
                let attention_factor = match (told("attention_factor"), told("mscale"), told("mscale_all_dim")) {
                    (Some(attention_factor), ..) => attention_factor,
                    (None, Some(one), Some(all)) if one * all != 0.0 => magnitude(one) / magnitude(all),
                    _ => magnitude(1.0),
                };
                Scaling::Yarn {
                    factor,
                    beta_fast: told("beta_fast").filter(|beta| *beta != 0.0).unwrap_or(32.0),
                    beta_slow: told("beta_slow").filter(|beta| *beta != 0.0).unwrap_or(1.0),
                    original_positions: original,
                    attention_factor,
                    truncate: scaling["truncate"] != false,
                }
            }
            other => {
                let expected = "rope_type default, linear, llama3 or yarn";
                return Err(self.unknown(expected, &format!("{other:?}")));
            }
        })
    }
}

/// Whether the model of these files is a decoder: as its configuration names its type, whatever else it says.
///
/// # Errors
///
/// If the configuration cannot be read.
pub fn is_decoder(files: &ModelFiles) -> Result<bool> {
    let Some(config) = files.json("config.json")? else {
        return Ok(false);
    };
    let kind = config["model_type"].as_str().unwrap_or_default();
    let writes = |name: &Value| name.as_str().is_some_and(|name| name.ends_with("ForCausalLM"));
    Ok(named::find::<DecoderFamily>(kind).is_some()
        || config["architectures"]
            .as_array()
            .is_some_and(|all| all.iter().any(writes)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: &Value) -> Result<DecoderConfig> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.json");
        std::fs::write(&path, config.to_string()).expect("writes");
        DecoderConfig::read(&path, "the way out").map_err(|error| match error {
            Error::Data {
                expected, found, hint, ..
            } => Error::setting("config", expected, found).with_hint(hint.unwrap_or_default()),
            other => other,
        })
    }

    #[test]
    fn what_a_configuration_leaves_out_is_what_transformers_takes() {
        let config = read(&json!({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4})).expect("reads");
        let heads = config.shape.heads;
        assert_eq!(
            (heads.groups, heads.per_group, heads.width, heads.window),
            (4, 1, 16, None)
        );
        assert!(!config.tied && !config.head_norms && config.layers == 32);
        let config = read(&json!({"model_type": "mistral", "num_hidden_layers": 2})).expect("reads");
        assert_eq!((config.shape.heads.groups, config.shape.heads.window), (8, Some(4096)));
        let config = read(&json!({"model_type": "mistral", "sliding_window": null})).expect("reads");
        assert_eq!(config.shape.heads.window, None);
        let config = read(&json!({"model_type": "qwen3", "hidden_size": 64})).expect("reads");
        assert!(config.head_norms && config.shape.heads.width == 128);
    }

    #[test]
    fn what_does_not_work_is_named_with_what_does() {
        let refused = |config: Value| read(&config).map(|_| ()).expect_err("is refused").to_string();
        insta::assert_snapshot!(refused(json!({"model_type": "gemma2"})), @r#"config: expected model_type llama, mistral, qwen2 or qwen3, found "gemma2""#);
        insta::assert_snapshot!(refused(json!({"model_type": "llama", "quantization_config": {}})), @"config: expected weights that are not quantized, found quantization_config");
        insta::assert_snapshot!(refused(json!({"model_type": "llama", "hidden_act": "gelu"})), @r#"config: expected hidden_act silu, found "gelu""#);
        insta::assert_snapshot!(refused(json!({"model_type": "llama", "num_attention_heads": 9, "num_key_value_heads": 2, "hidden_size": 72})), @"config: expected heads that the key-value heads divide, found 9 heads and 2 key-value heads");
        insta::assert_snapshot!(refused(json!({"model_type": "qwen2", "use_sliding_window": true})), @"config: expected attention to all that stands before, found use_sliding_window true");
        insta::assert_snapshot!(refused(json!({"model_type": "llama", "rope_scaling": {"type": "longrope"}})), @r#"config: expected rope_type default, linear, llama3 or yarn, found "longrope""#);
        insta::assert_snapshot!(refused(json!({"model_type": "llama", "rope_scaling": {"type": "linear"}})), @r#"config: expected rope_scaling with a number above 0 in factor, found {"type":"linear"}"#);
    }
}

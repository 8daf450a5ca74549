//! What a model's `config.json` says.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Error, Place, Result, encoder::EncoderShape, hub::files::read_json, kernels::elementwise::Activation};

/// A configuration: what we read of it, and the rest as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where it stands.
    pub path: PathBuf,
    /// The whole file.
    pub raw: Value,
    /// How its tensors are named and which head stands on it.
    pub family: Family,
    /// The number of layers.
    pub layers: usize,
    /// The sizes and choices of the encoder.
    pub shape: EncoderShape,
    /// What training drops.
    pub dropout: DropoutRates,
    /// The standard deviation of new weights.
    pub initializer_range: f32,
}

/// Models whose tensors have the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// BERT, and what is saved as one: MiniLM, E5, BGE.
    Bert,
    /// RoBERTa, XLM-RoBERTa, CamemBERT.
    Roberta,
    /// DistilBERT.
    DistilBert,
}

/// The shares of numbers that are dropped in training, from 0 to below 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DropoutRates {
    /// Of the embeddings and of what is added to a residual.
    pub hidden: f32,
    /// Of the attention's weights.
    pub attention: f32,
    /// In the head.
    pub classifier: f32,
}

impl Config {
    /// Reads a configuration. What it does not say is what transformers takes. `way_out` is what a user can do whose model is
    /// not one of those that work.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is not the configuration of an encoder that we know.
    pub fn read(path: &Path, way_out: &str) -> Result<Self> {
        let raw = read_json(path)?;
        let fields = Fields {
            path,
            raw: &raw,
            way_out,
        };
        let family = fields.family()?;
        fields.check_attention()?;
        Ok(Self {
            path: path.to_owned(),
            family,
            layers: fields.count(family.keys().layers, if family == Family::DistilBert { 6 } else { 12 })?,
            shape: fields.shape(family)?,
            dropout: fields.dropout(family)?,
            initializer_range: fields.number("initializer_range", 0.02)?,
            raw,
        })
    }

    /// The labels of `id2label` by their numbers; `None` where the file has no labels.
    ///
    /// # Errors
    ///
    /// If they are not numbered 0, 1, 2 and so on.
    pub fn labels(&self) -> Result<Option<Vec<String>>> {
        let Some(map) = self.raw["id2label"].as_object().filter(|map| !map.is_empty()) else {
            return Ok(None);
        };
        (0..map.len())
            .map(|id| {
                map.get(&id.to_string())
                    .map(|label| label.as_str().map_or_else(|| label.to_string(), ToOwned::to_owned))
            })
            .collect::<Option<Vec<String>>>()
            .map(Some)
            .ok_or_else(|| {
                Error::data(
                    Place::file(&self.path),
                    format!("id2label with the numbers 0 to {}", map.len() - 1),
                    format!("{:?}", map.keys().collect::<Vec<_>>()),
                )
            })
    }
}

/// What a family calls its settings.
struct Keys {
    hidden: &'static str,
    layers: &'static str,
    heads: &'static str,
    activation: &'static str,
    dropout: &'static str,
    attention_dropout: &'static str,
    classifier_dropout: &'static str,
}

impl Family {
    fn keys(self) -> Keys {
        match self {
            Self::Bert | Self::Roberta => Keys {
                hidden: "hidden_size",
                layers: "num_hidden_layers",
                heads: "num_attention_heads",
                activation: "hidden_act",
                dropout: "hidden_dropout_prob",
                attention_dropout: "attention_probs_dropout_prob",
                classifier_dropout: "classifier_dropout",
            },
            Self::DistilBert => Keys {
                hidden: "dim",
                layers: "n_layers",
                heads: "n_heads",
                activation: "activation",
                dropout: "dropout",
                attention_dropout: "attention_dropout",
                classifier_dropout: "seq_classif_dropout",
            },
        }
    }
}

/// The fields of a file, read with an error each.
pub(super) struct Fields<'a> {
    pub(super) path: &'a Path,
    pub(super) raw: &'a Value,
    /// What a user can do whose model is not one of those that work.
    pub(super) way_out: &'a str,
}

impl Fields<'_> {
    pub(super) fn wrong(&self, expected: &str, found: &dyn ToString) -> Error {
        Error::data(Place::file(self.path), expected, found.to_string())
    }

    pub(super) fn unknown(&self, expected: &str, found: &dyn ToString) -> Error {
        self.wrong(expected, found).with_hint(self.way_out)
    }

    pub(super) fn count(&self, key: &str, default: usize) -> Result<usize> {
        match (self.raw.get(key), self.raw[key].as_u64()) {
            (None, _) => Ok(default),
            (_, Some(count)) if count > 0 => Ok(count as usize),
            _ => Err(self.wrong(&format!("{key}, a number from 1 on"), &self.raw[key])),
        }
    }

    pub(super) fn number(&self, key: &str, default: f32) -> Result<f32> {
        match &self.raw[key] {
            Value::Null => Ok(default),
            value => {
                let number = value.as_f64().map(|number| number as f32);
                number.ok_or_else(|| self.wrong(&format!("{key}, a number"), value))
            }
        }
    }

    fn share(&self, key: &str, default: f32) -> Result<f32> {
        let share = self.number(key, default)?;
        if (0.0..1.0).contains(&share) {
            Ok(share)
        } else {
            Err(self.wrong(&format!("{key} from 0 to below 1"), &share))
        }
    }

    fn family(&self) -> Result<Family> {
        match self.raw["model_type"].as_str().unwrap_or_default() {
            "bert" => Ok(Family::Bert),
            "roberta" | "xlm-roberta" | "camembert" => Ok(Family::Roberta),
            "distilbert" => Ok(Family::DistilBert),
            other => {
                let expected = "model_type bert, roberta, xlm-roberta, camembert or distilbert";
                Err(self.unknown(expected, &format!("{other:?}")))
            }
        }
    }

    /// Refuses attention that is not of every token to every other, with positions added to words.
    fn check_attention(&self) -> Result<()> {
        if let Some(kind) = self.raw["position_embedding_type"]
            .as_str()
            .filter(|&kind| kind != "absolute")
        {
            return Err(self.unknown("absolute position embeddings", &format!("{kind:?}")));
        }
        if self.raw["is_decoder"] == true {
            return Err(self.unknown("an encoder", &"is_decoder true"));
        }
        Ok(())
    }

    fn activation(&self, key: &str) -> Result<Activation> {
        match &self.raw[key] {
            Value::Null => Ok(Activation::Gelu),
            value => match value.as_str().unwrap_or_default() {
                "gelu" => Ok(Activation::Gelu),
                "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
                "relu" => Ok(Activation::Relu),
                _ => Err(self.unknown("activation gelu, gelu_new, gelu_pytorch_tanh or relu", value)),
            },
        }
    }

    fn shape(&self, family: Family) -> Result<EncoderShape> {
        let keys = family.keys();
        let (hidden, heads) = (self.count(keys.hidden, 768)?, self.count(keys.heads, 12)?);
        if !hidden.is_multiple_of(heads) {
            let found = format!("{hidden} and {heads} heads");
            return Err(self.wrong("a hidden size that the heads divide", &found));
        }
        Ok(EncoderShape {
            hidden,
            heads,
            activation: self.activation(keys.activation)?,
            norm_epsilon: self.number("layer_norm_eps", 1e-12)?,
            // RoBERTa counts positions from behind that of its padding token, whose number is 1 where it is not told.
            first_position: match family {
                Family::Roberta => self.raw["pad_token_id"].as_u64().unwrap_or(1) as usize + 1,
                Family::Bert | Family::DistilBert => 0,
            },
        })
    }

    fn dropout(&self, family: Family) -> Result<DropoutRates> {
        let keys = family.keys();
        let hidden = self.share(keys.dropout, 0.1)?;
        let classifier = if family == Family::DistilBert { 0.2 } else { hidden };
        Ok(DropoutRates {
            hidden,
            attention: self.share(keys.attention_dropout, 0.1)?,
            classifier: self.share(keys.classifier_dropout, classifier)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: &Value) -> Result<Config> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.json");
        std::fs::write(&path, config.to_string()).expect("writes");
        Config::read(&path, "take another")
    }

    #[test]
    fn what_is_not_told_is_what_transformers_takes() {
        let bert = json!({"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2});
        let config = read(&bert).expect("reads");
        assert_eq!(
            config.dropout,
            DropoutRates {
                hidden: 0.1,
                attention: 0.1,
                classifier: 0.1
            }
        );
        assert_eq!((config.initializer_range, config.shape.norm_epsilon), (0.02, 1e-12));
        assert_eq!(
            (config.shape.first_position, config.shape.activation),
            (0, Activation::Gelu)
        );
        assert_eq!(config.labels().expect("none"), None);

        let mut roberta = bert.clone();
        roberta["model_type"] = "xlm-roberta".into();
        roberta["hidden_dropout_prob"] = 0.25.into();
        roberta["classifier_dropout"] = Value::Null;
        let config = read(&roberta).expect("reads");
        assert_eq!((config.family, config.shape.first_position), (Family::Roberta, 2));
        assert_eq!(config.dropout.classifier, 0.25);

        let distilbert = json!({"model_type": "distilbert", "dim": 8, "n_layers": 2, "n_heads": 2, "activation": "relu",
            "dropout": 0.5, "attention_dropout": 0.0});
        let config = read(&distilbert).expect("reads");
        assert_eq!(
            config.dropout,
            DropoutRates {
                hidden: 0.5,
                attention: 0.0,
                classifier: 0.2
            }
        );
        assert_eq!(config.shape.activation, Activation::Relu);
    }

    #[test]
    fn a_config_of_transformers_5_is_read() {
        let config = json!({"model_type": "bert", "architectures": null, "dtype": "float32", "rope_parameters": null,
            "hidden_size": 24, "num_hidden_layers": 2, "transformers_version": "5.0.0", "is_decoder": false});
        let config = read(&config).expect("reads");
        assert_eq!((config.shape.hidden, config.shape.heads, config.layers), (24, 12, 2));
        assert_eq!(config.shape.norm_epsilon, 1e-12);
        assert_eq!(config.labels().expect("none"), None);
    }

    #[test]
    fn a_value_of_another_kind_is_refused() {
        for (key, value, found) in [
            (
                "layer_norm_eps",
                json!("small"),
                r#"expected layer_norm_eps, a number, found "small""#,
            ),
            (
                "hidden_act",
                json!(5),
                "expected activation gelu, gelu_new, gelu_pytorch_tanh or relu, found 5",
            ),
            (
                "hidden_size",
                Value::Null,
                "expected hidden_size, a number from 1 on, found null",
            ),
            ("is_decoder", json!(true), "expected an encoder, found is_decoder true"),
        ] {
            let mut config = json!({"model_type": "bert"});
            config[key] = value;
            let error = read(&config).expect_err("is refused").to_string();
            assert!(error.ends_with(found), "{error}");
        }
    }

    #[test]
    fn labels_come_in_the_order_of_their_numbers() {
        let mut config =
            json!({"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2});
        let labels: Vec<String> = (0..11).map(|id| format!("label {id}")).collect();
        config["id2label"] = labels
            .iter()
            .enumerate()
            .map(|(id, label)| (id.to_string(), json!(label)))
            .collect();
        assert_eq!(read(&config).expect("reads").labels().expect("labels"), Some(labels));
        config["id2label"] = json!({"0": "a", "2": "b"});
        let error = read(&config).expect("reads").labels().expect_err("a gap");
        assert!(
            error
                .to_string()
                .ends_with(r#"expected id2label with the numbers 0 to 1, found ["0", "2"]"#),
            "{error}"
        );
    }

    #[test]
    fn an_architecture_that_we_do_not_know_is_refused_by_name() {
        let mut config = json!({"model_type": "deberta-v2"});
        let error = read(&config).expect_err("unknown");
        assert!(
            error.to_string().ends_with(
                r#"expected model_type bert, roberta, xlm-roberta, camembert or distilbert, found "deberta-v2""#
            ),
            "{error}"
        );
        assert_eq!(error.hint(), Some("take another"));
        config = json!({"model_type": "bert", "hidden_size": 9, "num_hidden_layers": 2, "num_attention_heads": 2});
        let error = read(&config).expect_err("9 by 2");
        assert!(
            error
                .to_string()
                .ends_with("expected a hidden size that the heads divide, found 9 and 2 heads")
        );
        config["hidden_size"] = 8.into();
        config["hidden_dropout_prob"] = 1.0.into();
        let error = read(&config).expect_err("all dropped");
        assert!(
            error
                .to_string()
                .ends_with("expected hidden_dropout_prob from 0 to below 1, found 1")
        );
        config["position_embedding_type"] = "relative_key".into();
        assert!(
            read(&config)
                .expect_err("relative")
                .to_string()
                .contains("absolute position embeddings")
        );
    }
}

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
    /// Reads a configuration. `way_out` is what a user can do whose model is not one of those that work.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is not the configuration of an encoder that we know.
    pub fn read(path: &Path, way_out: &str) -> Result<Self> {
        let raw = read_json(path)?;
        let wrong = |expected: &str, found: String| Error::data(Place::file(path), expected, found);
        let model_type = raw["model_type"].as_str().unwrap_or_default();
        let family = match model_type {
            "bert" => Family::Bert,
            "roberta" | "xlm-roberta" | "camembert" => Family::Roberta,
            "distilbert" => Family::DistilBert,
            other => {
                return Err(wrong(
                    "model_type bert, roberta, xlm-roberta, camembert or distilbert",
                    format!("{other:?}"),
                )
                .with_hint(way_out));
            }
        };
        let [
            hidden_key,
            layers_key,
            heads_key,
            activation_key,
            dropout_key,
            attention_key,
            classifier_key,
        ] = match family {
            Family::Bert | Family::Roberta => [
                "hidden_size",
                "num_hidden_layers",
                "num_attention_heads",
                "hidden_act",
                "hidden_dropout_prob",
                "attention_probs_dropout_prob",
                "classifier_dropout",
            ],
            Family::DistilBert => [
                "dim",
                "n_layers",
                "n_heads",
                "activation",
                "dropout",
                "attention_dropout",
                "seq_classif_dropout",
            ],
        };
        let count = |key: &str| match raw[key].as_u64() {
            Some(count) if count > 0 => Ok(count as usize),
            _ => Err(wrong(&format!("{key}, a number from 1 on"), raw[key].to_string())),
        };
        let (hidden, layers, heads) = (count(hidden_key)?, count(layers_key)?, count(heads_key)?);
        if !hidden.is_multiple_of(heads) {
            return Err(wrong(
                "a hidden size that the heads divide",
                format!("{hidden} and {heads} heads"),
            ));
        }
        if let Some(kind) = raw["position_embedding_type"]
            .as_str()
            .filter(|&kind| kind != "absolute")
        {
            return Err(wrong("absolute position embeddings", format!("{kind:?}")).with_hint(way_out));
        }
        let activation = match raw[activation_key].as_str().unwrap_or("gelu") {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            other => {
                return Err(wrong(
                    "activation gelu, gelu_new, gelu_pytorch_tanh or relu",
                    format!("{other:?}"),
                )
                .with_hint(way_out));
            }
        };
        let number = |key: &str, default: f32| raw[key].as_f64().map_or(default, |number| number as f32);
        let share = |key: &str, default: f32| {
            let share = number(key, default);
            if (0.0..1.0).contains(&share) {
                Ok(share)
            } else {
                Err(wrong(&format!("{key} from 0 to below 1"), share.to_string()))
            }
        };
        let dropped = share(dropout_key, 0.1)?;
        let dropout = DropoutRates {
            hidden: dropped,
            attention: share(attention_key, 0.1)?,
            classifier: share(classifier_key, if family == Family::DistilBert { 0.2 } else { dropped })?,
        };
        // RoBERTa counts positions from behind that of its padding token, whose number is 1 where it is not told.
        let first_position = match family {
            Family::Roberta => raw["pad_token_id"].as_u64().unwrap_or(1) as usize + 1,
            Family::Bert | Family::DistilBert => 0,
        };
        Ok(Self {
            path: path.to_owned(),
            family,
            layers,
            shape: EncoderShape {
                hidden,
                heads,
                activation,
                norm_epsilon: number("layer_norm_eps", 1e-12),
                first_position,
            },
            dropout,
            initializer_range: number("initializer_range", 0.02),
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

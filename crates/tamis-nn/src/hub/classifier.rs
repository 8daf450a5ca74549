//! Classifiers and multiple-choice models as transformers saves them: loaded, with a new head where there is none, and saved.
//!
//! A head is what transformers' `…ForSequenceClassification` and `…ForMultipleChoice` put on an encoder. It is called
//!
//! ```text
//! BERT                        bert.pooler.dense      classifier             tanh
//! RoBERTa, classification     classifier.dense       classifier.out_proj    tanh
//! RoBERTa, multiple choice    roberta.pooler.dense   classifier             tanh
//! DistilBERT                  pre_classifier         classifier             ReLU
//! ```
//!
//! A model without a head gets one: the dense layer is its pooler's if it has one (transformers does so for BERT, and not for
//! RoBERTa's classifiers), all else is drawn as transformers draws it, from a normal distribution with biases of zero.

use std::path::Path;

use rand::RngExt;
use serde_json::{Value, json};

use crate::{
    Error, Fingerprint, Matrix, Place, Result,
    encoder::head::Head,
    hub::{
        config::{Config, Family},
        files::{ModelFiles, TokenizerFiles, in_float32, write_json},
        pretrained::Pretrained,
        tensors::{Named, Tensors, WeightFile},
        tokenizer::TextTokenizer,
    },
    kernels::{elementwise::Activation, linear::Linear},
    seed::Seed,
    train::EncoderClassifier,
};

/// What a head scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind<'a> {
    /// One score a label, in this order.
    Labels(&'a [String]),
    /// One score for a question with one of its choices.
    Choice,
}

/// Which model is loaded, and what for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// A folder, or a model id of the hub.
    pub name: &'a str,
    /// The setting that named it, such as `model`, for messages.
    pub setting: &'a str,
    /// What the head is to score.
    pub head: HeadKind<'a>,
    /// Whether a head that the model has is replaced.
    pub new_head: bool,
    /// The most tokens of a sequence; the model's own limit where it is lower, or none is told.
    pub longest: Option<usize>,
    /// What a new head is drawn from.
    pub seed: Seed,
}

/// A model in memory.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What its `config.json` says.
    pub config: Config,
    /// The model; its head's scores are in the order that was asked for.
    pub model: EncoderClassifier,
    /// The labels of a loaded head in the order of its file; `None` where the head is new.
    pub head_labels: Option<Vec<String>>,
    /// The tokenizer.
    pub tokenizer: TextTokenizer,
    /// The tokenizer's files, to be saved beside what becomes of the model.
    pub tokenizer_files: TokenizerFiles,
    /// Of the configuration, the weights and the tokenizer; a new head is not in it, nor the longest sequence.
    pub fingerprint: Fingerprint,
}

/// A model to be saved.
#[derive(Debug, Clone, Copy)]
pub struct ClassifierFiles<'a> {
    /// The configuration of the model that it was made from.
    pub config: &'a Config,
    /// The model.
    pub model: &'a EncoderClassifier,
    /// What the head scores.
    pub kind: HeadKind<'a>,
    /// The tokenizer's files.
    pub tokenizer_files: &'a TokenizerFiles,
}

/// Where the files of the model of this name are; `setting` is what the user named it with.
///
/// # Errors
///
/// If the name is that of a folder that is not there.
pub fn files(name: &str, setting: &str) -> Result<ModelFiles> {
    ModelFiles::locate(name, setting, "a model's folder or a model id of the hub")
}

/// Loads a model with a head for a task.
///
/// A head counts as one if the configuration names no architecture, or one for sequence classification or multiple choice. Its
/// scores are put in the order of the labels asked for, and those of other labels are left out.
///
/// # Errors
///
/// If a file is missing or broken, the architecture is not one that we know, the tokenizer does not fit, or the model has a head
/// that lacks some of the labels, or scores more than one thing where choices are scored.
pub fn load(request: &Request<'_>) -> Result<Loaded> {
    let Request { name, setting, .. } = *request;
    let files = files(name, setting)?;
    let way_out = format!("name a model of one of these kinds with `{setting}`");
    let pretrained = Pretrained::read(&files, &way_out)?;
    let shards = WeightFile::parse_all(&pretrained.weights)?;
    let tensors = Tensors::new(&shards)?;
    let encoder = tensors.encoder(&pretrained.config)?;
    let (head, head_labels) = match loaded_head(request, &pretrained.config, &tensors)? {
        Some((head, labels)) => (head, Some(labels)),
        None => (new_head(request, &pretrained.config, &tensors)?, None),
    };
    let tokenizer = pretrained.tokenizer(&encoder, request.longest)?;
    if tokenizer.one("")?.tokens.is_empty() {
        return Err(Error::data(
            Place::file(&pretrained.tokenizer_path),
            "a tokenizer that begins every text with a token such as [CLS]",
            "one that adds none",
        ));
    }
    let parts = pretrained.identity();
    Ok(Loaded {
        fingerprint: Fingerprint::of(std::iter::once("classifier 1".into()).chain(parts)),
        model: EncoderClassifier {
            encoder,
            head,
            dropout: pretrained.config.dropout,
        },
        head_labels,
        tokenizer,
        tokenizer_files: files.tokenizer_files(|file| pretrained.modules.in_transformer(file))?,
        config: pretrained.config,
    })
}

const WAY_OUT: &str = "replace the head by a new one with `new_head`";

/// The head of the file and its labels, if it has one that is wanted.
fn loaded_head(request: &Request<'_>, config: &Config, tensors: &Tensors<'_>) -> Result<Option<(Head, Vec<String>)>> {
    let in_full = tensors.in_full();
    let scores = if config.family == Family::Roberta && in_full.has("classifier.out_proj.weight") {
        "classifier.out_proj"
    } else {
        "classifier"
    };
    let known = config.raw["architectures"][0]
        .as_str()
        .is_none_or(|name| name.ends_with("ForSequenceClassification") || name.ends_with("ForMultipleChoice"));
    if request.new_head || !known || !in_full.has(&format!("{scores}.weight")) {
        return Ok(None);
    }
    let hidden = config.shape.hidden;
    let dense = match config.family {
        Family::DistilBert => in_full.linear("pre_classifier", hidden, Some(hidden))?,
        Family::Roberta if scores == "classifier.out_proj" => {
            in_full.linear("classifier.dense", hidden, Some(hidden))?
        }
        Family::Bert | Family::Roberta => tensors.linear(POOLER, hidden, Some(hidden))?,
    };
    let scores_in_file = in_full.linear(scores, hidden, None)?;
    let outputs = scores_in_file.bias.len();
    // transformers does not write the names that it gives to labels without one.
    let labels = config
        .labels()?
        .unwrap_or_else(|| (0..outputs).map(|id| format!("LABEL_{id}")).collect());
    let order = match request.head {
        HeadKind::Choice if outputs == 1 => vec![0],
        HeadKind::Choice => {
            return Err(Error::data(
                Place::file(tensors.path()),
                format!("{scores}.weight of shape (1, {hidden}), one score for each choice"),
                format!("[{outputs}, {hidden}]"),
            )
            .with_hint(WAY_OUT));
        }
        HeadKind::Labels(wanted) => order_of_labels(wanted, &labels, outputs, config)?,
    };
    let head = Head {
        dense,
        activation: activation(config.family),
        scores: Linear {
            weight: scores_in_file.weight.gather(&order),
            bias: order.iter().map(|&i| scores_in_file.bias[i as usize]).collect(),
        },
    };
    Ok(Some((head, labels)))
}

/// The place of each label that is wanted among those of a head with so many scores.
fn order_of_labels(wanted: &[String], labels: &[String], outputs: usize, config: &Config) -> Result<Vec<u32>> {
    let wrong =
        |expected: String, found: String| Error::data(Place::file(&config.path), expected, found).with_hint(WAY_OUT);
    if labels.len() != outputs {
        let expected = format!("id2label with {outputs} labels, one for each score");
        return Err(wrong(expected, labels.len().to_string()));
    }
    let place_of = |label: &String| labels.iter().position(|known| known == label);
    let missing: Vec<&String> = wanted.iter().filter(|label| place_of(label).is_none()).collect();
    if missing.is_empty() {
        return Ok(wanted.iter().filter_map(place_of).map(|place| place as u32).collect());
    }
    let listed = |labels: &[&String]| {
        let more = labels.len().saturating_sub(5);
        let names: Vec<String> = labels.iter().take(5).map(|label| format!("{label:?}")).collect();
        let names = names.join(", ");
        if more > 0 {
            format!("{names} and {more} more")
        } else {
            names
        }
    };
    Err(wrong(
        format!("the labels of the data, {} among them", listed(&missing)),
        listed(&labels.iter().collect::<Vec<_>>()),
    ))
}

fn new_head(request: &Request<'_>, config: &Config, tensors: &Tensors<'_>) -> Result<Head> {
    let hidden = config.shape.hidden;
    let outputs = match request.head {
        HeadKind::Labels(labels) => labels.len(),
        HeadKind::Choice => 1,
    };
    let drawn = |name: &str, outputs: usize| Linear {
        weight: Matrix::from_vec(
            normal(request.seed.derive(name), outputs * hidden, config.initializer_range),
            outputs,
            hidden,
        ),
        bias: vec![0.0; outputs],
    };
    Ok(Head {
        dense: if tensors.has(&format!("{POOLER}.weight")) {
            tensors.linear(POOLER, hidden, Some(hidden))?
        } else {
            drawn("dense", hidden)
        },
        activation: activation(config.family),
        scores: drawn("scores", outputs),
    })
}

/// Behind the model's own name.
const POOLER: &str = "pooler.dense";

fn activation(family: Family) -> Activation {
    match family {
        Family::Bert | Family::Roberta => Activation::Tanh,
        Family::DistilBert => Activation::Relu,
    }
}

/// Numbers from a normal distribution around 0, by Box and Muller's method (1958).
fn normal(seed: Seed, count: usize, deviation: f32) -> Vec<f32> {
    let mut rng = seed.rng();
    (0..count)
        .map(|_| {
            let (radius, angle): (f64, f64) = (rng.random(), rng.random());
            let number = (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
            number as f32 * deviation
        })
        .collect()
}

impl ClassifierFiles<'_> {
    /// Writes `config.json`, the tokenizer's files and `model.safetensors` into a folder, as transformers saves them, in `f32`.
    /// The weights come last, so that a folder without them is not taken for a model.
    ///
    /// # Errors
    ///
    /// If a file cannot be written, or one of the tokenizer's cannot be read.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
        write_json(&folder.join("config.json"), &self.config_json())?;
        self.tokenizer_files.copy_to(folder)?;
        self.tensors().write(&folder.join("model.safetensors"))
    }

    /// The configuration that the model was made from, with what the head makes of it.
    fn config_json(&self) -> Value {
        let mut config = self.config.raw.clone();
        in_float32(&mut config);
        let Some(map) = config.as_object_mut() else {
            return config;
        };
        // What belonged to another head or to code of its own.
        for key in [
            "id2label",
            "label2id",
            "num_labels",
            "_num_labels",
            "problem_type",
            "auto_map",
        ] {
            map.remove(key);
        }
        let class = match map.get("model_type").and_then(Value::as_str) {
            Some("roberta") => "Roberta",
            Some("xlm-roberta") => "XLMRoberta",
            Some("camembert") => "Camembert",
            Some("distilbert") => "DistilBert",
            _ => "Bert",
        };
        let purpose = match self.kind {
            HeadKind::Labels(labels) => {
                let pairs = || labels.iter().enumerate();
                let id2label: Value = pairs().map(|(id, label)| (id.to_string(), json!(label))).collect();
                let label2id: Value = pairs().map(|(id, label)| (label.clone(), json!(id))).collect();
                map.insert("id2label".into(), id2label);
                map.insert("label2id".into(), label2id);
                map.insert("problem_type".into(), "single_label_classification".into());
                "SequenceClassification"
            }
            HeadKind::Choice => "MultipleChoice",
        };
        map.insert("architectures".into(), json!([format!("{class}For{purpose}")]));
        map.sort_keys();
        config
    }

    fn tensors(&self) -> Named<'_> {
        let family = self.config.family;
        let model = match family {
            Family::Bert => "bert",
            Family::Roberta => "roberta",
            Family::DistilBert => "distilbert",
        };
        let mut named = Named::default();
        named.encoder(model, family, &self.model.encoder);
        let pooler = format!("{model}.{POOLER}");
        let (dense, scores) = match (family, self.kind) {
            (Family::DistilBert, _) => ("pre_classifier", "classifier"),
            (Family::Roberta, HeadKind::Labels(_)) => ("classifier.dense", "classifier.out_proj"),
            (Family::Bert, _) | (Family::Roberta, HeadKind::Choice) => (pooler.as_str(), "classifier"),
        };
        named.linear(dense, &self.model.head.dense);
        named.linear(scores, &self.model.head.scores);
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        encoder::EncoderWeights,
        test_util::{tiny_encoder, tokenizer_json},
    };

    /// Writes the files of a tiny model of a family without a head, and returns its encoder.
    fn base(folder: &Path, model_type: &str) -> EncoderWeights {
        let mut encoder = tiny_encoder(20, 16);
        let mut config = json!({"model_type": model_type, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
            "torch_dtype": "float16", "architectures": ["Something"], "vocab_size": 20});
        let (model, family) = match model_type {
            "bert" => ("bert", Family::Bert),
            "distilbert" => {
                config = json!({"model_type": model_type, "dim": 8, "n_layers": 2, "n_heads": 2});
                encoder.token_type_embeddings = Matrix::zeros(0, 8);
                ("distilbert", Family::DistilBert)
            }
            _ => {
                encoder.token_type_embeddings = encoder.token_type_embeddings.gather(&[0]);
                encoder.shape.first_position = 2;
                ("roberta", Family::Roberta)
            }
        };
        let mut named = Named::default();
        named.encoder(model, family, &encoder);
        write(folder, &config, named);
        encoder
    }

    fn write(folder: &Path, config: &Value, named: Named<'_>) {
        std::fs::write(folder.join("config.json"), config.to_string()).expect("writes");
        let bytes = safetensors::serialize(named.0, None).expect("serialises");
        std::fs::write(folder.join("model.safetensors"), bytes).expect("writes");
        std::fs::write(folder.join("tokenizer.json"), tokenizer_json()).expect("writes");
        std::fs::write(folder.join("vocab.txt"), "a\nb\n").expect("writes");
    }

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn request<'a>(folder: &'a Path, head: HeadKind<'a>) -> Request<'a> {
        Request {
            name: folder.to_str().expect("a name"),
            setting: "model",
            head,
            new_head: false,
            longest: None,
            seed: Seed(3),
        }
    }

    fn save(loaded: &Loaded, kind: HeadKind<'_>, folder: &Path) {
        ClassifierFiles {
            config: &loaded.config,
            model: &loaded.model,
            kind,
            tokenizer_files: &loaded.tokenizer_files,
        }
        .save(folder)
        .expect("saves");
    }

    #[test]
    fn what_is_saved_is_what_was_in_memory() {
        let names = labels(&["no", "yes", "maybe"]);
        for model_type in ["bert", "roberta", "xlm-roberta", "camembert", "distilbert"] {
            for kind in [HeadKind::Labels(&names), HeadKind::Choice] {
                let folder = tempfile::tempdir().expect("a folder");
                let encoder = base(folder.path(), model_type);
                let mut new = load(&request(folder.path(), kind)).expect("loads");
                assert_eq!(new.model.encoder, encoder, "{model_type}");
                assert_eq!(new.head_labels, None);
                new.model.head.scores.bias[0] = 0.5;
                let out = folder.path().join("out");
                save(&new, kind, &out);

                let again = load(&request(&out, kind)).expect("loads again");
                assert_eq!(&again.model, &new.model, "{model_type}");
                let class = again.config.raw["architectures"][0].as_str().expect("a class");
                if kind == HeadKind::Choice {
                    assert!(class.ends_with("ForMultipleChoice"));
                    assert_eq!(again.config.raw.get("id2label"), None);
                } else {
                    assert!(class.ends_with("ForSequenceClassification"));
                    assert_eq!(again.head_labels.as_ref(), Some(&names));
                    assert_eq!(again.config.raw["label2id"], json!({"no": 0, "yes": 1, "maybe": 2}));
                }
                if model_type != "distilbert" {
                    assert_eq!(again.config.raw["torch_dtype"], "float32");
                }
                let mut files: Vec<_> = std::fs::read_dir(&out)
                    .expect("a folder")
                    .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
                    .collect();
                files.sort();
                assert_eq!(
                    files,
                    ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]
                );
                assert_eq!(
                    std::fs::read_to_string(out.join("tokenizer.json")).expect("reads"),
                    tokenizer_json()
                );
            }
        }
    }

    #[test]
    fn scores_stand_in_the_order_of_the_data_s_labels() {
        let folder = tempfile::tempdir().expect("a folder");
        base(folder.path(), "bert");
        let there = labels(&["a", "b", "c"]);
        let mut first = load(&request(folder.path(), HeadKind::Labels(&there))).expect("loads");
        first.model.head.scores.bias = vec![0.0, 1.0, 2.0];
        let out = folder.path().join("out");
        save(&first, HeadKind::Labels(&there), &out);

        let here = labels(&["c", "a"]);
        let second = load(&request(&out, HeadKind::Labels(&here))).expect("loads");
        assert_eq!(second.head_labels, Some(there));
        assert_eq!(second.model.head.scores.bias, [2.0, 0.0]);
        assert_eq!(
            second.model.head.scores.weight,
            first.model.head.scores.weight.gather(&[2, 0])
        );
        assert_eq!(second.model.head.dense, first.model.head.dense);

        let wrong = labels(&["c", "d", "e"]);
        let error = load(&request(&out, HeadKind::Labels(&wrong))).expect_err("is refused");
        let config = out.join("config.json");
        assert_eq!(
            error.to_string(),
            format!(
                r#"{}: expected the labels of the data, "d", "e" among them, found "a", "b", "c""#,
                config.display()
            )
        );
        assert_eq!(error.hint(), Some("replace the head by a new one with `new_head`"));
        let error = load(&request(&out, HeadKind::Choice)).expect_err("is refused");
        assert!(
            error
                .to_string()
                .ends_with("expected classifier.weight of shape (1, 8), one score for each choice, found [3, 8]"),
            "{error}"
        );
        // A new head keeps BERT's pooler.
        let new = Request {
            new_head: true,
            ..request(&out, HeadKind::Labels(&wrong))
        };
        let new = load(&new).expect("loads");
        assert_eq!(
            (new.head_labels, &new.model.head.dense),
            (None, &first.model.head.dense)
        );
        assert_eq!(new.model.head.scores.bias, [0.0; 3]);
    }

    #[test]
    fn weights_in_shards_are_those_of_one_file() {
        let names = labels(&["no", "yes"]);
        let folder = tempfile::tempdir().expect("a folder");
        base(folder.path(), "bert");
        let whole = load(&request(folder.path(), HeadKind::Labels(&names))).expect("loads");
        let path = folder.path().join("model.safetensors");
        let bytes = std::fs::read(&path).expect("reads");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
        let mut map = serde_json::Map::new();
        for (i, shard) in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
            .into_iter()
            .enumerate()
        {
            let of_shard: Vec<_> = tensors.iter().skip(i).step_by(2).collect();
            let bytes = safetensors::serialize(of_shard.clone(), None).expect("serialises");
            std::fs::write(folder.path().join(shard), bytes).expect("writes");
            map.extend(of_shard.into_iter().map(|(name, _)| (name.to_owned(), shard.into())));
        }
        let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
        std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).expect("writes");
        std::fs::remove_file(&path).expect("removes");
        let shards = load(&request(folder.path(), HeadKind::Labels(&names))).expect("loads");
        assert_eq!(shards.model, whole.model);
    }

    #[test]
    fn a_transformer_in_a_folder_of_its_own_is_found_with_its_longest_sequence() {
        let names = labels(&["no", "yes"]);
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("0_Transformer");
        std::fs::create_dir(&inner).expect("creates");
        base(&inner, "bert");
        let modules = json!([{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}]);
        std::fs::write(folder.path().join("modules.json"), modules.to_string()).expect("writes");
        let longest = || {
            let loaded = load(&request(folder.path(), HeadKind::Labels(&names))).expect("loads");
            loaded.tokenizer.longest()
        };
        let write = |name: &str, json: Value| std::fs::write(inner.join(name), json.to_string()).expect("writes");
        assert_eq!(longest(), 16);
        write("tokenizer_config.json", json!({"model_max_length": 1e30}));
        assert_eq!(longest(), 16);
        write("tokenizer_config.json", json!({"model_max_length": 12}));
        assert_eq!(longest(), 12);
        write(
            "sentence_bert_config.json",
            json!({"transformer_task": "feature-extraction"}),
        );
        assert_eq!(longest(), 12);
        write(
            "sentence_bert_config.json",
            json!({"max_seq_length": 10, "do_lower_case": false}),
        );
        assert_eq!(longest(), 10);
    }

    #[test]
    fn labels_without_names_have_those_of_transformers() {
        let folder = tempfile::tempdir().expect("a folder");
        base(folder.path(), "roberta");
        let names = labels(&["LABEL_1", "LABEL_0"]);
        let mut new = load(&request(folder.path(), HeadKind::Labels(&names))).expect("loads");
        new.model.head.scores.bias = vec![1.0, 0.0];
        let out = folder.path().join("out");
        save(&new, HeadKind::Labels(&names), &out);
        let mut config = new.config.raw.clone();
        config["architectures"] = json!(["RobertaForSequenceClassification"]);
        std::fs::write(out.join("config.json"), config.to_string()).expect("writes");
        let loaded = load(&request(&out, HeadKind::Labels(&names))).expect("loads");
        assert_eq!(loaded.model.head.scores.bias, [0.0, 1.0]);
        // What tells tokens apart is no head for sequences.
        config["architectures"] = json!(["RobertaForTokenClassification"]);
        std::fs::write(out.join("config.json"), config.to_string()).expect("writes");
        assert_eq!(load(&request(&out, HeadKind::Choice)).expect("loads").head_labels, None);
    }

    #[test]
    fn new_weights_are_normal_and_depend_on_the_seed_alone() {
        let drawn = normal(Seed(1), 10_000, 0.02);
        let mean = drawn.iter().map(|&x| f64::from(x)).sum::<f64>() / 1e4;
        let deviation = (drawn.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / 1e4).sqrt();
        // The mean of 10,000 strays by 0.0002, their deviation by 0.00014; four times that is borne.
        assert!(
            mean.abs() < 8e-4 && (deviation - 0.02).abs() < 6e-4,
            "{mean} {deviation}"
        );
        // 2.28 % of a normal distribution are above twice its deviation; of 10,000 that is 228, give or take 15.
        let far = drawn.iter().filter(|&&x| x > 0.04).count();
        assert!((168..288).contains(&far), "{far}");
        assert_eq!(normal(Seed(1), 3, 0.02), drawn[..3]);
        assert_ne!(normal(Seed(2), 3, 0.02), drawn[..3]);
    }

    #[test]
    fn what_is_missing_or_does_not_fit_is_named() {
        let names = labels(&["a", "b"]);
        let refused = |change: &dyn Fn(&Path)| {
            let folder = tempfile::tempdir().expect("a folder");
            base(folder.path(), "bert");
            change(folder.path());
            let error = load(&request(folder.path(), HeadKind::Labels(&names))).expect_err("is refused");
            assert!(matches!(error, Error::Data { .. } | Error::Setting { .. }), "{error}");
            let text = error.to_string().replace(&folder.path().display().to_string(), "MODEL");
            error
                .hint()
                .map_or(text.clone(), |hint| format!("{text}\n  hint: {hint}"))
        };
        let remove =
            |name: &'static str| move |folder: &Path| std::fs::remove_file(folder.join(name)).expect("removes");
        let configured = |config: Value| {
            move |folder: &Path| std::fs::write(folder.join("config.json"), config.to_string()).expect("writes")
        };
        let all = [
            refused(&|folder| {
                remove("tokenizer.json")(folder);
                remove("vocab.txt")(folder);
            }),
            refused(&remove("model.safetensors")),
            refused(&configured(json!({"model_type": "gpt2"}))),
            refused(&configured(
                json!({"model_type": "bert", "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2}),
            )),
            refused(&configured(
                json!({"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2}),
            )),
            refused(&configured(
                json!({"model_type": "distilbert", "dim": 8, "n_layers": 2, "n_heads": 2}),
            )),
            refused(&|folder| std::fs::write(folder.join("model.safetensors"), [0xff; 40]).expect("writes")),
            refused(&|folder| {
                let bytes = std::fs::read(folder.join("model.safetensors")).expect("reads");
                std::fs::write(folder.join("model.safetensors"), &bytes[..bytes.len() - 40]).expect("writes");
            }),
            refused(&|folder| {
                let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90\n";
                std::fs::write(folder.join("model.safetensors"), pointer).expect("writes");
            }),
            refused(&|folder| {
                std::fs::rename(folder.join("model.safetensors"), folder.join("pytorch_model.bin")).expect("renames");
            }),
            refused(&|folder| {
                std::fs::remove_file(folder.join("model.safetensors")).expect("removes");
                let index = json!({"weight_map": {"a": "model-00001-of-00002.safetensors"}});
                std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).expect("writes");
            }),
            refused(&|folder| {
                std::fs::remove_file(folder.join("model.safetensors")).expect("removes");
                std::fs::write(folder.join("model.safetensors.index.json"), "{}").expect("writes");
            }),
            refused(&|folder| std::fs::remove_file(folder.join("tokenizer.json")).expect("removes")),
        ];
        insta::assert_snapshot!(all.join("\n"));
        let error = load(&request(Path::new("./nowhere"), HeadKind::Choice)).expect_err("no folder");
        assert_eq!(
            error.to_string(),
            "model: expected a model's folder or a model id of the hub, found `./nowhere`"
        );
    }
}

//! Sentence encoders of the BERT family, as transformers and sentence-transformers save them, run by our own forward pass.
//!
//! `docs/reference/models.md` lists which files are read and what is refused. BERT, MiniLM, E5, BGE, RoBERTa, XLM-RoBERTa and
//! DistilBERT have the layers that we know; a model with others is refused, never run wrongly.

use std::borrow::Cow;

use rayon::prelude::*;
use tamis_nn::{
    Fingerprint, Matrix, Monitor,
    encoder::{Dtype, EncoderWeights, OutputTokens, Packed, PrepackedLayers, Scratch},
    hub::{
        files::{ModelFiles, read_json},
        modules::Modules,
        pretrained::Pretrained,
        tensors::{Tensors, WeightFile},
        tokenizer::TextTokenizer,
    },
    kernels::packed::ProductDtype,
};

use crate::{
    Error, Place, Result,
    embed::{
        Embedder, TextLength,
        pooling::{Pooling, PoolingConfig},
    },
};

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

impl Encoder {
    /// Loads a model from a folder or, by its id, from the Hugging Face hub, to be run in these numbers.
    ///
    /// # Errors
    ///
    /// If a file is missing or broken, the architecture or pooling is not one of those above, or the tokenizer has tokens
    /// that the model does not know.
    pub fn load(name: &str, dtype: Dtype) -> Result<Self> {
        let files = Self::files(name)?;
        let way_out = "embed the texts with your own tools and pass the array: `embedder vectors.npy`";
        let pretrained = Pretrained::read(&files, way_out)?;
        check_modules(&pretrained.modules)?;
        let pooling = PoolingConfig::read(&files, &pretrained.modules)?;
        let prompt = read_prompt(&files, pooling.include_prompt)?;
        let pooling = pooling.modes;

        let shards = WeightFile::parse_all(&pretrained.weights)?;
        let mut weights = Tensors::new(&shards)?.encoder(&pretrained.config)?;
        let tokenizer = pretrained.tokenizer(&weights, None)?;
        let kind = match dtype {
            Dtype::Float32 => "encoder 1".to_owned(),
            Dtype::Bfloat16 => format!("encoder 1 {}", ProductDtype::Bfloat16.identity()),
            Dtype::Int8 => "encoder 1 int8".to_owned(),
        };
        let of_texts = format!("{} {pooling:?} {prompt}", tokenizer.longest());
        let mut parts = pretrained.identity();
        parts.insert(0, kind.into());
        parts.push(of_texts.into());
        let layers = weights.prepack(0..weights.layers.len(), dtype);
        weights.layers.clear();
        Ok(Self {
            weights,
            layers,
            tokenizer,
            pooling,
            prompt,
            fingerprint: Fingerprint::of(parts),
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

    /// The text as the encoder reads it.
    fn prompted<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.prompt.is_empty() {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(format!("{}{text}", self.prompt))
        }
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer.one(&self.prompted(text))?.tokens)
    }

    /// One sentence's vector from its tokens', at unit length.
    fn pool(&self, tokens: &[f32], out: &mut [f32]) {
        let hidden = self.weights.shape.hidden;
        for (pooling, out) in self.pooling.iter().zip(out.chunks_exact_mut(hidden)) {
            pooling.pool(tokens, out);
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

    fn count_tokens(&self, text: &str) -> Result<TextLength> {
        let tokens = self.tokenizer.count(text)?;
        let read = match self.prompted(text) {
            Cow::Borrowed(_) => tokens,
            Cow::Owned(prompted) => self.tokenizer.count(&prompted)?,
        };
        Ok(TextLength {
            tokens: tokens as u32,
            truncated: read > self.tokenizer.longest(),
        })
    }
}

/// Refuses what comes after pooling and is not a mere normalisation, such as a dense layer.
fn check_modules(modules: &Modules) -> Result<()> {
    let known = |kind: &str| ["Transformer", "Pooling", "Normalize"].contains(&kind);
    match modules.list.iter().find(|module| !known(&module.kind)) {
        None => Ok(()),
        Some(module) => Err(Error::data(
            Place::file(modules.path.clone().unwrap_or_default()),
            "the modules Transformer, Pooling and Normalize only",
            format!("`{}`", module.kind),
        )
        .with_hint("embed the texts with sentence-transformers and pass the array: `embedder vectors.npy`")),
    }
}

/// What is put before every text: the prompt that `default_prompt_name` names, if any.
fn read_prompt(files: &ModelFiles, pooled: bool) -> Result<String> {
    const HINT: &str = "set default_prompt_name to null there, and put what is needed before your texts";
    let Some(path) = files.find("config_sentence_transformers.json")? else {
        return Ok(String::new());
    };
    let config = read_json(&path)?;
    let Some(name) = config["default_prompt_name"].as_str() else {
        return Ok(String::new());
    };
    let refused = |expected: String, found: &str| Error::data(Place::file(&path), expected, found).with_hint(HINT);
    match config["prompts"][name].as_str() {
        None => Err(refused(format!("a prompt named {name:?}, the default"), "none")),
        Some(prompt) if !pooled && !prompt.is_empty() => Err(refused(
            "no default prompt, or one that is pooled with the text".into(),
            "include_prompt false",
        )),
        Some(prompt) => Ok(prompt.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde_json::{Value, json};
    use tamis_nn::{Silent, test_util::write_tiny_bert};

    use super::*;

    fn write(folder: &Path, file: &str, json: &Value) {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("creates");
        fs::write(path, json.to_string()).expect("writes");
    }

    /// Loads the tiny model with more files, each a line of the table in `docs/reference/models.md`.
    fn load(files: &[(&str, Value)]) -> Result<Encoder> {
        let folder = tempfile::tempdir().expect("a folder");
        write_tiny_bert(folder.path());
        for (file, json) in files {
            write(folder.path(), file, json);
        }
        Encoder::load(&folder.path().to_string_lossy(), Dtype::Float32)
    }

    fn modules(kinds: &[(&str, &str)]) -> (&'static str, Value) {
        let module = |&(kind, path): &(&str, &str)| json!({"type": format!("sentence_transformers.models.{kind}"), "path": path});
        ("modules.json", kinds.iter().map(module).collect())
    }

    fn vector(encoder: &Encoder, text: &str) -> Vec<f32> {
        encoder.embed(&[text], &Silent).expect("embeds").as_slice().to_vec()
    }

    #[test]
    fn folders_of_each_writer_load() {
        let plain = load(&[]).expect("loads");
        let mean = vector(&plain, "a b c");
        assert_eq!(
            (plain.tokenizer.longest(), plain.pooling.as_slice()),
            (16, &[Pooling::Mean][..])
        );

        let limit = ("tokenizer_config.json", json!({"model_max_length": 12}));
        assert_eq!(
            load(std::slice::from_ref(&limit)).expect("loads").tokenizer.longest(),
            12
        );

        let usual = modules(&[
            ("Transformer", ""),
            ("Pooling", "1_Pooling"),
            ("Normalize", "2_Normalize"),
        ]);
        let flags =
            json!({"word_embedding_dimension": 8, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false});
        let before_5_4 = load(&[
            usual.clone(),
            limit.clone(),
            ("1_Pooling/config.json", flags),
            (
                "sentence_bert_config.json",
                json!({"max_seq_length": 10, "do_lower_case": false}),
            ),
        ]);
        let before_5_4 = before_5_4.expect("loads");
        assert_eq!(before_5_4.tokenizer.longest(), 10);
        assert_ne!(vector(&before_5_4, "a b c"), mean);

        let since_5_4 = load(&[
            usual.clone(),
            limit,
            (
                "1_Pooling/config.json",
                json!({"embedding_dimension": 8, "pooling_mode": "cls", "include_prompt": true}),
            ),
            (
                "sentence_bert_config.json",
                json!({"transformer_task": "feature-extraction"}),
            ),
        ]);
        let since_5_4 = since_5_4.expect("loads");
        assert_eq!(since_5_4.tokenizer.longest(), 12);
        assert_eq!(vector(&since_5_4, "a b c"), vector(&before_5_4, "a b c"));
        assert_ne!(since_5_4.fingerprint(), plain.fingerprint());

        let prompted = load(&[(
            "config_sentence_transformers.json",
            json!({"prompts": {"topic": "a ", "query": ""}, "default_prompt_name": "topic"}),
        )]);
        let prompted = prompted.expect("loads");
        assert_eq!(vector(&prompted, "b c"), mean);
        assert_ne!(prompted.fingerprint(), plain.fingerprint());
    }

    #[test]
    fn parts_are_found_in_the_folders_that_modules_json_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("0_Transformer");
        fs::create_dir(&inner).expect("creates");
        write_tiny_bert(&inner);
        let (file, json) = modules(&[("Transformer", "0_Transformer"), ("Pooling", "pool")]);
        write(folder.path(), file, &json);
        write(
            folder.path(),
            "pool/config.json",
            &json!({"pooling_mode": ["max", "mean"]}),
        );
        write(&inner, "sentence_bert_config.json", &json!({"max_seq_length": 9}));
        let encoder = Encoder::load(&folder.path().to_string_lossy(), Dtype::Float32).expect("loads");
        assert_eq!((encoder.dim(), encoder.tokenizer.longest()), (16, 9));
    }

    #[test]
    fn what_would_be_run_wrongly_is_refused_with_a_way_out() {
        let pooling = |mode: &str| ("1_Pooling/config.json", json!({"pooling_mode": mode}));
        let prompt = |json: Value| ("config_sentence_transformers.json", json);
        let topic = json!({"prompts": {"topic": "a "}, "default_prompt_name": "topic"});
        for (files, found) in [
            (
                vec![("config.json", json!({"model_type": "modernbert"}))],
                r#"found "modernbert""#,
            ),
            (
                vec![("config.json", json!({"model_type": "bert", "is_decoder": true}))],
                "found is_decoder true",
            ),
            (vec![pooling("lasttoken")], "found `lasttoken`"),
            (vec![pooling("weightedmean")], "found `weightedmean`"),
            (
                vec![modules(&[("Transformer", ""), ("Dense", "2_Dense")])],
                "found `Dense`",
            ),
            (
                vec![modules(&[("Transformer", ""), ("WeightedLayerPooling", "1")])],
                "found `WeightedLayerPooling`",
            ),
            (
                vec![prompt(json!({"prompts": {}, "default_prompt_name": "topic"}))],
                "found none",
            ),
            (
                vec![
                    prompt(topic),
                    (
                        "1_Pooling/config.json",
                        json!({"pooling_mode": "mean", "include_prompt": false}),
                    ),
                ],
                "found include_prompt false",
            ),
        ] {
            let error = load(&files).map(|_| ()).expect_err(found);
            assert!(error.to_string().ends_with(found), "{error}");
            assert!(error.hint().is_some(), "{error}");
        }
    }

    #[test]
    fn a_text_that_is_cut_counts_whole() {
        let encoder = load(&[("tokenizer_config.json", json!({"model_max_length": 5}))]).expect("loads");
        let length = |text: &str| encoder.count_tokens(text).expect("counts");
        assert_eq!(length("a b c"), TextLength::whole(5));
        assert_eq!((length("a b c d").tokens, length("a b c d").truncated), (6, true));
    }
}

//! Texts as a model's tokens, cut to its longest sequence as transformers cuts them with `truncation=True`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::{PostProcessor, Tokenizer, TruncationDirection, normalizers::Precompiled};

use crate::{Error, Place, Result, encoder::EncoderWeights, unwind::unless_it_panics};

/// How many tokens more than its tokenizer a model may know: some pad their matrices, or leave places for new tokens.
const SPARE_TOKENS: usize = 1024;

/// A model's tokenizer.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    path: PathBuf,
    longest: usize,
    /// Token types that the model tells apart; 0 where it has none or but one.
    types: usize,
}

/// A text or a pair of texts as tokens, with the special ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The tokens' numbers.
    pub tokens: Vec<u32>,
    /// The type of each token; empty where the model has none or but one.
    pub types: Vec<u8>,
    /// Whether the end of a text did not fit.
    pub truncated: bool,
}

impl TextTokenizer {
    /// Reads the bytes of a `tokenizer.json` that belongs to a model; no sequence will have more than `longest` tokens.
    ///
    /// # Errors
    ///
    /// If the file is broken, has tokens that the model does not know, or leaves no room for texts.
    pub fn read(path: &Path, bytes: &[u8], model: &EncoderWeights, longest: usize) -> Result<Self> {
        let tokenizer = Self {
            longest,
            types: Some(model.token_type_embeddings.rows())
                .filter(|&types| types > 1)
                .unwrap_or(0),
            ..Self::without_model(path, bytes)?
        };
        tokenizer.check_tokens(model.token_embeddings.rows())?;
        Ok(tokenizer)
    }

    /// Reads the bytes of a decoder's `tokenizer.json`; `vocabulary` is how many tokens the model knows.
    ///
    /// # Errors
    ///
    /// If the file is broken, or has tokens that the model does not know.
    pub fn of_decoder(path: &Path, bytes: &[u8], vocabulary: usize, longest: usize) -> Result<Self> {
        let tokenizer = Self {
            longest,
            ..Self::without_model(path, bytes)?
        };
        tokenizer.check_vocabulary(vocabulary)?;
        Ok(tokenizer)
    }

    /// Reads the bytes of a `tokenizer.json` for a use without its model, such as counting tokens: no sequence is cut.
    ///
    /// # Errors
    ///
    /// If the file is broken.
    pub fn without_model(path: &Path, bytes: &[u8]) -> Result<Self> {
        let broken = |reason: String| misfit(path, format!("one that cannot be read ({reason})"));
        let mut inner = parse(bytes).map_err(broken)?;
        inner
            .with_padding(None)
            .with_truncation(None)
            .map_err(|error| broken(error.to_string()))?;
        Ok(Self {
            inner,
            path: path.to_owned(),
            longest: usize::MAX,
            types: 0,
        })
    }

    fn other_model(&self, found: String) -> Error {
        misfit(&self.path, found).with_hint("tokenizer.json and model.safetensors must come from the same model")
    }

    /// Refuses a tokenizer of another model.
    fn check_vocabulary(&self, vocabulary: usize) -> Result<()> {
        let known = self.inner.get_vocab_size(true);
        if known + SPARE_TOKENS < vocabulary {
            return Err(self.other_model(format!("{known} tokens, and the model knows {vocabulary}")));
        }
        match self.inner.get_vocab(true).into_iter().max_by_key(|&(_, id)| id) {
            Some((token, id)) if id as usize >= vocabulary => Err(self.other_model(format!(
                "token {token:?} with number {id}, and the model knows {vocabulary} tokens"
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses a tokenizer of another model, and one that leaves no room for texts.
    fn check_tokens(&self, vocabulary: usize) -> Result<()> {
        self.check_vocabulary(vocabulary)?;
        let (special, longest) = (self.special(false).max(self.special(true)), self.longest);
        if special >= longest {
            return Err(misfit(
                &self.path,
                format!("{special} special tokens around a pair of texts, in sequences of at most {longest} tokens"),
            ));
        }
        // What is put around texts has numbers of its own, whatever the vocabulary says.
        let around = [self.one("")?, self.pair("", "")?];
        if let Some(id) = around.iter().flat_map(|texts| &texts.tokens).max()
            && *id as usize >= vocabulary
        {
            return Err(self.other_model(format!(
                "a special token with number {id}, and the model knows {vocabulary} tokens"
            )));
        }
        Ok(())
    }

    /// The most tokens that a sequence has.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// How many tokens a text has, uncut, with the special ones around it.
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    pub fn count(&self, text: &str) -> Result<usize> {
        Ok(self.bare(text)?.len() + self.special(false))
    }

    /// The tokens of one text.
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    pub fn one(&self, text: &str) -> Result<Tokens> {
        let mut encoding = self.bare(text)?;
        let room = self.longest - self.special(false);
        let truncated = encoding.len() > room;
        cut(&mut encoding, room);
        self.finish(encoding, None, truncated)
    }

    /// The tokens of a pair of texts. Where it is too long, the longer text is cut until both are equally long, then both.
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    pub fn pair(&self, first: &str, second: &str) -> Result<Tokens> {
        // The library would cut them too, but keeps what it cut off, and for a pair every piece of one text with every piece
        // of the other: gigabytes for two long ones.
        let (mut first, mut second) = (self.bare(first)?, self.bare(second)?);
        second.set_type_ids(vec![1; second.len()]);
        let room = self.longest - self.special(true);
        let truncated = first.len() + second.len() > room;
        let (first_room, second_room) = longest_first(first.len(), second.len(), room);
        cut(&mut first, first_room);
        cut(&mut second, second_room);
        self.finish(first, Some(second), truncated)
    }

    /// The tokens of a text that a language model reads, and each one's bytes in it; with what the tokenizer puts around texts, or without.
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    pub fn with_places(&self, text: &str, special: bool) -> Result<Vec<(u32, std::ops::Range<usize>)>> {
        let encoding = self.inner.encode(text, special).map_err(|error| self.failed(&error))?;
        let places = encoding.get_offsets().iter().map(|&(start, end)| start..end);
        Ok(encoding.get_ids().iter().copied().zip(places).collect())
    }

    /// How a token is written.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// How many tokens are put around one text, or around a pair.
    fn special(&self, pair: bool) -> usize {
        self.inner
            .get_post_processor()
            .map_or(0, |processor| processor.added_tokens(pair))
    }

    fn bare(&self, text: &str) -> Result<tokenizers::Encoding> {
        self.inner.encode_fast(text, false).map_err(|error| self.failed(&error))
    }

    fn finish(
        &self,
        first: tokenizers::Encoding,
        second: Option<tokenizers::Encoding>,
        truncated: bool,
    ) -> Result<Tokens> {
        let encoding = self
            .inner
            .post_process(first, second, true)
            .map_err(|error| self.failed(&error))?;
        let types = if self.types == 0 { &[] } else { encoding.get_type_ids() };
        if let Some(kind) = types.iter().find(|&&kind| kind as usize >= self.types.min(256)) {
            return Err(Error::data(
                Place::file(&self.path),
                format!("token types below {}, as the model has them", self.types),
                kind.to_string(),
            ));
        }
        Ok(Tokens {
            tokens: encoding.get_ids().to_vec(),
            types: types.iter().map(|&kind| kind as u8).collect(),
            truncated,
        })
    }

    fn failed(&self, error: &tokenizers::Error) -> Error {
        Error::data(Place::file(&self.path), "a text it can tokenize", error.to_string())
    }
}

/// The tokenizer in the bytes of a `tokenizer.json`, or what is wrong with them.
fn parse(bytes: &[u8]) -> std::result::Result<Tokenizer, String> {
    // The library panics where it reads a decoder from broken JSON; from a value that was read before it does not.
    let json: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    check_precompiled(&json["normalizer"])?;
    // Its parts index into what they read, such as a merge shorter than the prefix of its words.
    unless_it_panics(|| serde_json::from_value(json))
        .map_err(|_| "its parts do not fit together".to_owned())?
        .map_err(|error| error.to_string())
}

/// Reads every precompiled normalizer alone, since the library panics where it cannot.
fn check_precompiled(normalizer: &Value) -> std::result::Result<(), String> {
    if normalizer["type"] == "Precompiled" {
        serde_json::from_value::<Precompiled>(normalizer.clone()).map_err(|error| error.to_string())?;
    }
    let parts = normalizer["normalizers"].as_array();
    parts.into_iter().flatten().try_for_each(check_precompiled)
}

fn misfit(path: &Path, found: String) -> Error {
    Error::data(Place::file(path), "a tokenizer that fits the model", found)
}

fn cut(encoding: &mut tokenizers::Encoding, room: usize) {
    encoding.truncate(room, 0, TruncationDirection::Right);
    encoding.take_overflowing();
}

/// How many tokens of each text stay where `room` is for both: the strategy that transformers calls longest first.
fn longest_first(first: usize, second: usize, room: usize) -> (usize, usize) {
    if first + second <= room {
        return (first, second);
    }
    let short = first.min(second).min(room / 2);
    if first > second {
        (room - short, short)
    } else {
        (short, room - short)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::test_util::{tiny_encoder, tokenizer_json};

    fn of(longest: usize) -> TextTokenizer {
        TextTokenizer::read(
            Path::new("tokenizer.json"),
            tokenizer_json().as_bytes(),
            &tiny_encoder(20, 16),
            longest,
        )
        .expect("reads")
    }

    #[test]
    fn texts_and_pairs_are_cut_longest_first() {
        let tokens = of(8).one("a b zz").expect("tokens");
        assert_eq!((tokens.tokens, tokens.truncated), (vec![2, 4, 5, 1, 3], false));
        let tokens = of(8).one("a b c d e f").expect("tokens");
        assert_eq!((tokens.tokens, tokens.truncated), (vec![2, 4, 5, 6, 7, 8, 9, 3], false));
        let tokens = of(7).one("a b c d e f").expect("tokens");
        assert_eq!((tokens.tokens, tokens.truncated), (vec![2, 4, 5, 6, 7, 8, 3], true));
        assert_eq!(tokens.types, [0; 7]);
        // 3 of 8 are special, 5 are left: the second keeps its one, the first has 4.
        let tokens = of(8).pair("a b c d e f", "p").expect("tokens");
        assert_eq!(tokens.tokens, [2, 4, 5, 6, 7, 3, 19, 3]);
        assert_eq!((tokens.types, tokens.truncated), (vec![0, 0, 0, 0, 0, 0, 1, 1], true));
        let tokens = of(8).pair("a", "p").expect("tokens");
        assert_eq!((tokens.tokens, tokens.truncated), (vec![2, 4, 3, 19, 3], false));
    }

    #[test]
    fn room_is_shared_as_the_library_shares_it() {
        use tokenizers::{Encoding, TruncationParams, truncate_encodings};
        let encoding = |len: usize| {
            Encoding::from_tokens(
                (0..len as u32)
                    .map(|id| tokenizers::Token::new(id, "t".into(), (0, 1)))
                    .collect(),
                0,
            )
        };
        for (first, second, room) in (0..9).flat_map(|a| (0..9).flat_map(move |b| (1..9).map(move |room| (a, b, room))))
        {
            let settings = TruncationParams {
                max_length: room,
                ..TruncationParams::default()
            };
            let (a, b) = truncate_encodings(encoding(first), Some(encoding(second)), &settings).expect("truncates");
            let theirs = (a.len(), b.expect("a second").len());
            assert_eq!(
                longest_first(first, second, room),
                theirs,
                "{first}, {second} in {room}"
            );
        }
    }

    #[test]
    fn tokens_are_counted_uncut() {
        let of_four = of(4);
        assert_eq!(of_four.one("a b c d e f").expect("tokens").tokens.len(), 4);
        assert_eq!(of_four.count("a b c d e f").expect("counts"), 8);
        let alone = TextTokenizer::without_model(Path::new("t.json"), tokenizer_json().as_bytes()).expect("reads");
        assert_eq!(alone.count("a b c d e f").expect("counts"), 8);
        assert_eq!(alone.count("").expect("counts"), 2);
    }

    #[test]
    fn a_broken_file_is_an_error_and_no_panic() {
        let refused = |bytes: &[u8]| {
            let read = TextTokenizer::without_model(Path::new("t.json"), bytes);
            let error = read.map(|_| ()).expect_err(&String::from_utf8_lossy(bytes)).to_string();
            let expected = "t.json: expected a tokenizer that fits the model, found one that cannot be read (";
            assert!(error.starts_with(expected), "{error}");
        };
        let whole: Value = serde_json::from_str(&tokenizer_json()).expect("JSON");
        let decoder = json!({"type": "WordPiece", "prefix": "@", "cleanup": true});
        let with = |part: &str, value: &Value| {
            let mut changed = whole.clone();
            changed[part] = value.clone();
            changed.to_string()
        };
        let text = with("decoder", &decoder);
        refused(&text.as_bytes()[..text.len() / 2]);
        refused(text.replace(r#""prefix":"@""#, r#""prefix:"@""#).as_bytes());
        refused(&[0xff; 9]);
        for wrong in [
            json!(5),
            json!("a"),
            json!([1, 2]),
            json!({"type": 5}),
            json!({"type": "None"}),
        ] {
            for part in ["decoder", "normalizer", "pre_tokenizer", "post_processor", "model"] {
                refused(with(part, &wrong).as_bytes());
            }
        }
        let precompiled = |map: Value| json!({"type": "Precompiled", "precompiled_charsmap": map});
        for wrong in [json!(5), json!("?"), json!("AAAA")] {
            refused(with("normalizer", &precompiled(wrong.clone())).as_bytes());
            let nested = json!({"type": "Sequence", "normalizers": [precompiled(wrong)]});
            refused(with("normalizer", &nested).as_bytes());
        }
        let merges = json!({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]],
            "continuing_subword_prefix": "####"});
        refused(with("model", &merges).as_bytes());
    }

    #[test]
    fn a_special_token_that_the_model_does_not_know_is_refused() {
        let json = tokenizer_json().replace(r#""ids":[3]"#, r#""ids":[102]"#);
        let error = TextTokenizer::read(Path::new("t.json"), json.as_bytes(), &tiny_encoder(20, 16), 8)
            .expect_err("is refused");
        assert_eq!(
            error.to_string(),
            "t.json: expected a tokenizer that fits the model, found a special token with number 102, and the model knows 20 \
             tokens"
        );
    }

    #[test]
    fn a_tokenizer_of_another_model_is_refused() {
        let refused = |model: &EncoderWeights, longest: usize| {
            TextTokenizer::read(Path::new("t.json"), tokenizer_json().as_bytes(), model, longest)
                .expect_err("is refused")
                .to_string()
        };
        assert_eq!(
            refused(&tiny_encoder(19, 16), 8),
            r#"t.json: expected a tokenizer that fits the model, found token "p" with number 19, and the model knows 19 tokens"#
        );
        assert_eq!(
            refused(&tiny_encoder(20, 16), 3),
            "t.json: expected a tokenizer that fits the model, found 3 special tokens around a pair of texts, in sequences of \
             at most 3 tokens"
        );
    }
}

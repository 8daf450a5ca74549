//! Which embedder makes the vectors, as a setting names it.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// What makes the vectors of texts.
///
/// ```
/// use tamis::embed::EmbedderSpec;
///
/// assert_eq!(EmbedderSpec::from("vectors.npy"), EmbedderSpec::Vectors("vectors.npy".into()));
/// assert_eq!(EmbedderSpec::from("lexical"), EmbedderSpec::Lexical);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum EmbedderSpec {
    /// The language model's hidden states for prompts with responses, else lexical: `auto`.
    #[default]
    Auto,
    /// Hashed words and their pieces, fitted to the training texts: `lexical`.
    Lexical,
    /// A sentence encoder: its folder, or its id on the hub.
    Encoder(String),
    /// The means over a row's tokens of what the head of the language model reads that is to be fine-tuned: `hidden-states`. Of rows of
    /// responses alone.
    HiddenStates,
    /// A file of vectors made elsewhere, `.npy` or `.safetensors`.
    Vectors(PathBuf),
}

impl EmbedderSpec {
    /// This one, or the other where it is `auto`.
    pub(crate) fn or(&self, other: Self) -> Self {
        match self {
            Self::Auto => other,
            given => given.clone(),
        }
    }
}

impl From<&str> for EmbedderSpec {
    fn from(name: &str) -> Self {
        let path = PathBuf::from(name);
        match path.extension().and_then(|extension| extension.to_str()) {
            _ if name == "auto" => Self::Auto,
            _ if name == "lexical" => Self::Lexical,
            _ if name == "hidden-states" => Self::HiddenStates,
            Some("npy" | "safetensors") => Self::Vectors(path),
            _ => Self::Encoder(name.to_owned()),
        }
    }
}

impl From<String> for EmbedderSpec {
    fn from(name: String) -> Self {
        name.as_str().into()
    }
}

impl FromStr for EmbedderSpec {
    type Err = Infallible;

    fn from_str(name: &str) -> Result<Self, Infallible> {
        Ok(name.into())
    }
}

impl fmt::Display for EmbedderSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Lexical => f.write_str("lexical"),
            Self::HiddenStates => f.write_str("hidden-states"),
            Self::Encoder(name) => f.write_str(name),
            Self::Vectors(path) => path.display().fmt(f),
        }
    }
}

impl From<EmbedderSpec> for String {
    fn from(spec: EmbedderSpec) -> Self {
        spec.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_one_embedder_and_is_shown_as_it_was_given() {
        for (name, spec) in [
            ("auto", EmbedderSpec::Auto),
            ("lexical", EmbedderSpec::Lexical),
            ("hidden-states", EmbedderSpec::HiddenStates),
            ("a/b", EmbedderSpec::Encoder("a/b".into())),
            ("./lexical", EmbedderSpec::Encoder("./lexical".into())),
            ("a/b.npy", EmbedderSpec::Vectors("a/b.npy".into())),
            ("b.safetensors", EmbedderSpec::Vectors("b.safetensors".into())),
        ] {
            assert_eq!(EmbedderSpec::from(name), spec);
            assert_eq!(spec.to_string(), name);
        }
    }
}

//! Where a model's files are: in a folder, or on the Hugging Face hub by way of its usual cache.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use hf_hub::{
    Cache,
    api::sync::{ApiBuilder, ApiRepo},
};
use serde_json::Value;

use crate::{Error, Fingerprint, Place, Result, atomic_write::write_whole};

/// What a tokenizer may consist of, as transformers saves it; `tokenizer.json` alone says all, the others are for its readers.
const TOKENIZER_FILES: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "added_tokens.json",
];

/// Where a model's files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelFiles {
    /// A folder.
    Folder(PathBuf),
    /// A model id such as `sentence-transformers/all-MiniLM-L6-v2`.
    Hub(String),
}

impl ModelFiles {
    /// A folder if there is one of that name, else a model of the hub. `setting` is what the user named it with, and `expected`
    /// what that setting may be.
    ///
    /// # Errors
    ///
    /// If the name is that of a folder that is not there: it begins with `.` or `/`, or has more than one `/`.
    pub fn locate(name: &str, setting: &str, expected: &str) -> Result<Self> {
        let path = Path::new(name);
        if path.is_dir() {
            return Ok(Self::Folder(path.to_path_buf()));
        }
        let like_an_id = !name.starts_with(['.', '/', '~'])
            && name.split('/').count() <= 2
            && !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'));
        if path.exists() || !like_an_id {
            return Err(Error::setting(setting, expected, format!("`{name}`")));
        }
        Ok(Self::Hub(name.to_owned()))
    }

    /// The path of one of the model's files; `None` if it has no such file.
    ///
    /// # Errors
    ///
    /// If the hub cannot be reached.
    pub fn find(&self, file: &str) -> Result<Option<PathBuf>> {
        match self {
            Self::Folder(folder) => Ok(Some(folder.join(file)).filter(|path| path.is_file())),
            Self::Hub(model) => {
                if let Some(path) = Cache::from_env().model(model.clone()).get(file) {
                    return Ok(Some(path));
                }
                let failed = |reason: String| Error::Hub {
                    model: model.clone(),
                    file: file.to_owned(),
                    reason,
                };
                match repo(model).map_err(failed)?.get(file) {
                    Ok(path) => Ok(Some(path)),
                    Err(error) if error.to_string().contains("404") => Ok(None),
                    Err(error) => Err(failed(error.to_string())),
                }
            }
        }
    }

    /// The path of a file that every model must have.
    ///
    /// # Errors
    ///
    /// If it has none, or the hub cannot be reached.
    pub fn need(&self, file: &str) -> Result<PathBuf> {
        self.find(file)?.ok_or_else(|| {
            let name = match self {
                Self::Folder(folder) => folder.clone(),
                Self::Hub(model) => PathBuf::from(model),
            };
            // Older models have their weights as a pickle, larger ones in several files.
            let other = |other| file == "model.safetensors" && name.join(other).is_file();
            let (found, hint) = if other("pytorch_model.bin") {
                (
                    "pytorch_model.bin",
                    "load the model with transformers and save it anew: `save_pretrained(folder)` writes model.safetensors",
                )
            } else if other("model.safetensors.index.json") {
                (
                    "weights in several files",
                    "load the model with transformers and save it in one: `save_pretrained(folder, max_shard_size=\"50GB\")`",
                )
            } else {
                (
                    "no such file",
                    "a model saved by transformers or sentence-transformers has config.json, model.safetensors and tokenizer.json",
                )
            };
            Error::data(Place::file(name), format!("a model with {file}"), found).with_hint(hint)
        })
    }

    /// The fingerprint of what every model must have, as far as it is there: whoever loads the model says what is missing.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or the hub cannot be reached.
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        let mut contents = Vec::new();
        for name in ["config.json", "model.safetensors", "tokenizer.json"] {
            if let Some(path) = self.find(name)? {
                contents.push(Fingerprint::of_file(&path)?);
            }
        }
        Ok(Fingerprint::of(contents))
    }

    /// One of the model's JSON files; `None` if it has no such file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is no JSON, or the hub cannot be reached.
    pub fn json(&self, file: &str) -> Result<Option<Value>> {
        self.find(file)?.map(|path| read_json(&path)).transpose()
    }

    /// The files of the model's tokenizer, those that it has.
    ///
    /// Beside `tokenizer.json` they are for other readers only, so one that is not in the cache while the hub cannot be reached
    /// counts as one that is not there: a model in the cache can be used without a network.
    ///
    /// # Errors
    ///
    /// If there is no `tokenizer.json`.
    pub fn tokenizer_files(&self) -> Result<TokenizerFiles> {
        let mut files = vec![self.need(TOKENIZER_FILES[0])?];
        files.extend(
            TOKENIZER_FILES[1..]
                .iter()
                .filter_map(|name| self.find(name).ok().flatten()),
        );
        Ok(TokenizerFiles(files))
    }
}

/// The files of a tokenizer on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerFiles(Vec<PathBuf>);

impl TokenizerFiles {
    /// Copies them into a folder, byte for byte.
    ///
    /// # Errors
    ///
    /// If one cannot be read or written.
    pub fn copy_to(&self, folder: &Path) -> Result<()> {
        for from in &self.0 {
            let bytes = std::fs::read(from).map_err(Error::io(from, "read"))?;
            let to = folder.join(from.file_name().unwrap_or_default());
            write_whole(&to, &mut |out| out.write_all(&bytes).map_err(Error::io(&to, "write")))?;
        }
        Ok(())
    }
}

/// A JSON file, whatever it says.
///
/// # Errors
///
/// If it cannot be read or is no JSON.
pub fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    serde_json::from_str(&text).map_err(|error| {
        Error::data(
            Place::line(path, error.line() as u64),
            "JSON",
            format!("a mistake ({error})"),
        )
    })
}

fn repo(model: &str) -> std::result::Result<ApiRepo, String> {
    let api = ApiBuilder::from_env()
        .with_progress(false)
        .build()
        .map_err(|error| error.to_string())?;
    Ok(api.model(model.to_owned()))
}

//! Where a model's files are: in a folder, or on the Hugging Face hub by way of its usual cache.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    Error, Place, Result,
    atomic_write::write_whole,
    hub::remote::{HubEnvironment, HubModel},
};

/// What a tokenizer may consist of, as transformers saves it; `tokenizer.json` alone says all, the others are for its readers.
const TOKENIZER_FILES: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "added_tokens.json",
    "tokenizer.model",
    "chat_template.jinja",
];

/// Where a model's files come from.
#[derive(Debug, Clone)]
pub enum ModelFiles {
    /// A folder.
    Folder(PathBuf),
    /// A model id such as `sentence-transformers/all-MiniLM-L6-v2`, with `@` and a revision behind it or not.
    Hub(HubModel),
}

impl ModelFiles {
    /// A folder if there is one of that name, else a model of the hub. `setting` is what the user named it with, and `expected`
    /// what that setting may be.
    ///
    /// # Errors
    ///
    /// If there is no such folder, and the hub has no such ids.
    pub fn locate(name: &str, setting: &str, expected: &str) -> Result<Self> {
        let path = Path::new(name);
        if path.is_dir() {
            return Ok(Self::Folder(path.to_path_buf()));
        }
        HubModel::named(name, HubEnvironment::read())
            .filter(|_| !path.exists())
            .map(Self::Hub)
            .ok_or_else(|| Error::setting(setting, expected, format!("`{name}`")))
    }

    /// The path of one of the model's files; `None` if it has no such file, or if the hub cannot be reached and the cache has
    /// the model without it.
    ///
    /// # Errors
    ///
    /// If the hub cannot be reached and the model is not in the cache.
    pub fn find(&self, file: &str) -> Result<Option<PathBuf>> {
        self.look_for(file, false)
    }

    /// The path of a file that every model must have.
    ///
    /// # Errors
    ///
    /// If it has none, or the hub cannot be reached.
    pub fn need(&self, file: &str) -> Result<PathBuf> {
        self.look_for(file, true)?.ok_or_else(|| self.lacks(file))
    }

    fn look_for(&self, file: &str, required: bool) -> Result<Option<PathBuf>> {
        match self {
            Self::Folder(folder) => Ok(Some(folder.join(file)).filter(|path| path.is_file())),
            Self::Hub(model) => model.find(file, required),
        }
    }

    /// Says that the model has no such file, and what to do about it.
    fn lacks(&self, file: &str) -> Error {
        let (name, folder) = match self {
            Self::Folder(folder) => (folder.clone(), Some(folder)),
            Self::Hub(model) => (PathBuf::from(model.id()), None),
        };
        // Older models have their weights as a pickle, and their tokenizer in other files.
        let older = match Path::new(file).file_name().and_then(|name| name.to_str()) {
            Some("model.safetensors") => &["pytorch_model.bin", "pytorch_model.bin.index.json"][..],
            Some("tokenizer.json") => &["vocab.txt", "vocab.json", "sentencepiece.bpe.model"],
            _ => &[],
        };
        let beside = |other: &&&str| folder.is_some_and(|folder| folder.join(file).with_file_name(other).is_file());
        let (found, hint) = match older.iter().find(beside) {
            Some(&other) => (
                other,
                format!("load the model with transformers and save it anew: `save_pretrained(folder)` writes {file}"),
            ),
            None => (
                "no such file",
                "a model saved by transformers or sentence-transformers has config.json, model.safetensors and tokenizer.json"
                    .to_owned(),
            ),
        };
        Error::data(Place::file(name), format!("a model with {file}"), found).with_hint(hint)
    }

    /// One of the model's JSON files; `None` if it has no such file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is no JSON, or the hub cannot be reached.
    pub fn json(&self, file: &str) -> Result<Option<Value>> {
        self.find(file)?.map(|path| read_json(&path)).transpose()
    }

    /// The files of the model's tokenizer, those that it has. `named` gives a file its place in the model.
    ///
    /// # Errors
    ///
    /// If there is no `tokenizer.json`, or the hub cannot be reached.
    pub fn tokenizer_files(&self, named: impl Fn(&str) -> String) -> Result<TokenizerFiles> {
        let mut files = vec![self.need(&named(TOKENIZER_FILES[0]))?];
        for name in &TOKENIZER_FILES[1..] {
            files.extend(self.find(&named(name))?);
        }
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

/// Writes a JSON file for people and programs, its lines indented.
///
/// # Errors
///
/// If it cannot be written.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_whole(path, &mut |out| {
        serde_json::to_writer_pretty(&mut *out, value).map_err(|error| Error::io(path, "write")(error.into()))?;
        out.write_all(b"\n").map_err(Error::io(path, "write"))
    })
}

/// Says in a configuration that tells of a type of numbers that they are in 32 bits, as they are written here.
pub fn in_float32(config: &mut Value) {
    for key in ["dtype", "torch_dtype"] {
        if let Some(dtype) = config.get_mut(key) {
            *dtype = "float32".into();
        }
    }
}

//! The files of a model: in a folder, or on the Hugging Face hub by way of its usual cache.

use std::path::{Path, PathBuf};

use hf_hub::{
    Cache,
    api::sync::{ApiBuilder, ApiRepo},
};

use crate::{Error, Place, Result};

/// Where a model's files come from.
pub(super) enum ModelFiles {
    /// A folder.
    Folder(PathBuf),
    /// A model id such as `sentence-transformers/all-MiniLM-L6-v2`.
    Hub(String),
}

impl ModelFiles {
    /// A folder if there is one of that name, else a model of the hub.
    ///
    /// # Errors
    ///
    /// If the name is that of a folder that is not there: it begins with `.` or `/`, or has more than one `/`.
    pub(super) fn locate(name: &str) -> Result<Self> {
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
            return Err(Error::setting(
                "--embedder",
                "`lexical`, a model's folder, a model id of the hub, or a .npy or .safetensors file",
                format!("`{name}`"),
            ));
        }
        Ok(Self::Hub(name.to_owned()))
    }

    /// The path of one of the model's files; `None` if it has no such file.
    ///
    /// # Errors
    ///
    /// If the hub cannot be reached.
    pub(super) fn find(&self, file: &str) -> Result<Option<PathBuf>> {
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
    pub(super) fn need(&self, file: &str) -> Result<PathBuf> {
        self.find(file)?.ok_or_else(|| {
            let name = match self {
                Self::Folder(folder) => folder.clone(),
                Self::Hub(model) => PathBuf::from(model),
            };
            Error::data(Place::file(name), format!("a sentence encoder with {file}"), "no such file")
                .with_hint("a model saved by transformers or sentence-transformers has config.json, model.safetensors and tokenizer.json")
        })
    }
}

fn repo(model: &str) -> std::result::Result<ApiRepo, String> {
    let api = ApiBuilder::from_env()
        .with_progress(false)
        .build()
        .map_err(|error| error.to_string())?;
    Ok(api.model(model.to_owned()))
}

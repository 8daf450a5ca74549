//! The modules of a sentence-transformers model, as `modules.json` lists them: which folder holds the transformer, which the
//! pooling. A model without that file is a plain transformer.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::{
    Error, Place, Result,
    hub::files::{ModelFiles, read_json},
};

/// The modules of a model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Modules {
    /// The file that lists them, where there is one.
    pub path: Option<PathBuf>,
    /// In the order in which they are applied.
    pub list: Vec<Module>,
}

/// One module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The class without the Python module it stands in, which versions move: `Transformer`, `Pooling`, `Normalize`, `Dense`.
    pub kind: String,
    /// Its folder in the model's; empty for the model's own.
    pub folder: String,
}

impl Modules {
    /// Reads `modules.json`, if the model has one.
    ///
    /// # Errors
    ///
    /// If it is not a list of modules with folders inside the model's, or cannot be had.
    pub fn read(files: &ModelFiles) -> Result<Self> {
        let Some(path) = files.find("modules.json")? else {
            return Ok(Self::default());
        };
        let json = read_json(&path)?;
        let module = |entry: &Value| {
            let (kind, folder) = (entry["type"].as_str()?, entry["path"].as_str().unwrap_or_default());
            let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
            let folder = Path::new(folder).components().all(inside).then_some(folder)?;
            Some(Module {
                kind: kind.rsplit('.').next().unwrap_or(kind).to_owned(),
                folder: folder.trim_start_matches("./").trim_end_matches(['/', '.']).to_owned(),
            })
        };
        let list = json.as_array().and_then(|list| list.iter().map(module).collect());
        let list = list.ok_or_else(|| {
            let expected = "a list of modules, each with a type and a path inside the model's folder";
            Error::data(Place::file(&path), expected, json.to_string())
        })?;
        Ok(Self { path: Some(path), list })
    }

    /// The name of one of the transformer's files in the model: it may have a folder of its own, such as `0_Transformer`.
    pub fn in_transformer(&self, file: &str) -> String {
        self.within("Transformer", file).unwrap_or_else(|| file.to_owned())
    }

    /// The name of the pooling's configuration; `None` where no module pools.
    pub fn pooling_config(&self) -> Option<String> {
        match self.path {
            Some(_) => self.within("Pooling", "config.json"),
            None => Some("1_Pooling/config.json".to_owned()),
        }
    }

    fn within(&self, kind: &str, file: &str) -> Option<String> {
        let module = self.list.iter().find(|module| module.kind == kind)?;
        Some(match module.folder.as_str() {
            "" => file.to_owned(),
            folder => format!("{folder}/{file}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(modules: &Value) -> Result<Modules> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("modules.json"), modules.to_string()).expect("writes");
        Modules::read(&ModelFiles::Folder(folder.path().to_path_buf()))
    }

    #[test]
    fn folders_are_where_the_list_says() {
        for (transformer, pooling) in [
            (
                "sentence_transformers.models.Transformer",
                "sentence_transformers.models.Pooling",
            ),
            (
                "sentence_transformers.base.modules.transformer.Transformer",
                "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
            ),
        ] {
            let list = json!([{"type": transformer, "path": "0_Transformer"}, {"type": pooling, "path": "./pool/"}]);
            let modules = read(&list).expect("reads");
            assert_eq!(modules.in_transformer("config.json"), "0_Transformer/config.json");
            assert_eq!(modules.pooling_config().as_deref(), Some("pool/config.json"));
        }
        let modules =
            read(&json!([{"type": "Transformer", "path": ""}, {"type": "a.WeightedLayerPooling", "path": "1"}]));
        let modules = modules.expect("reads");
        assert_eq!(
            (modules.in_transformer("a"), modules.pooling_config()),
            ("a".to_owned(), None)
        );
    }

    #[test]
    fn folders_outside_the_model_are_refused() {
        for list in [
            json!([{"type": "Transformer", "path": "../a"}]),
            json!([{"type": "Transformer", "path": "/a"}]),
            json!([{"path": ""}]),
            json!({"type": "Transformer"}),
        ] {
            let error = read(&list).expect_err("is refused").to_string();
            assert!(error.contains("modules.json: expected a list of modules"), "{error}");
        }
    }
}

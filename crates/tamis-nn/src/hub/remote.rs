//! A model on the Hugging Face hub: its files in the hub's cache, and fetched into it where they are missing.
//!
//! The cache is the one that transformers and `hf download` fill:
//!
//! ```text
//! models--acme--mini/refs/main                          the commit that a branch or tag stands for
//! models--acme--mini/snapshots/<commit>/config.json     a file
//! models--acme--mini/.no_exist/<commit>/modules.json    the hub said that there is no such file
//! ```

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use hf_hub::{Cache, Repo, RepoType, api::sync::ApiBuilder};

use crate::{Error, Place, Result};

/// What the environment says about the hub, in the variables of `huggingface_hub`.
#[derive(Debug, Clone)]
pub struct HubEnvironment {
    cache: PathBuf,
    /// Nothing is asked of the hub.
    offline: bool,
    endpoint: Option<String>,
    token: Option<String>,
}

impl HubEnvironment {
    /// From `HF_HUB_OFFLINE`, `HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT` and `HF_TOKEN`.
    pub fn read() -> Self {
        Self::of(|name| std::env::var(name).ok())
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&str]| {
            let mut values = names.iter().filter_map(|name| variable(name));
            values.find(|value| !value.is_empty())
        };
        let caches = first(&["XDG_CACHE_HOME"]).map(PathBuf::from);
        let caches =
            caches.unwrap_or_else(|| PathBuf::from(first(&["HOME", "USERPROFILE"]).unwrap_or_default()).join(".cache"));
        let home = first(&["HF_HOME"]).map_or_else(|| caches.join("huggingface"), PathBuf::from);
        let cache = first(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).map_or_else(|| home.join("hub"), PathBuf::from);
        let offline = first(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]).unwrap_or_default();
        Self {
            cache,
            offline: is_on(&offline),
            endpoint: first(&["HF_ENDPOINT"]),
            token: first(&["HF_TOKEN"]).or_else(|| Cache::new(home.join("hub")).token()),
        }
    }
}

/// A model of the hub at one revision.
#[derive(Debug, Clone)]
pub struct HubModel {
    id: String,
    /// A branch, a tag or a commit.
    revision: String,
    environment: HubEnvironment,
    /// Why the hub gave no answer: it is not waited for again.
    unreachable: OnceLock<String>,
}

impl HubModel {
    /// The model of an id such as `acme/mini` or `acme/mini@v2`; `None` if the hub has no such ids.
    pub fn named(name: &str, environment: HubEnvironment) -> Option<Self> {
        let (id, revision) = name.split_once('@').unwrap_or((name, "main"));
        (is_id(id) && is_revision(revision)).then(|| Self {
            id: id.to_owned(),
            revision: revision.to_owned(),
            environment,
            unreachable: OnceLock::new(),
        })
    }

    /// The model's id, without the revision.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The path of one of the model's files; `None` if it has no such file.
    ///
    /// A file that is not `required` also counts as one that is not there while the hub gives no answer and the cache has the
    /// model: transformers works so, and a model in the cache can be used without a network.
    ///
    /// # Errors
    ///
    /// If the file cannot be had.
    pub fn find(&self, file: &str, required: bool) -> Result<Option<PathBuf>> {
        let commit = self.commit();
        if let Some(commit) = &commit {
            let path = self.in_cache("snapshots", commit, file);
            if path.is_file() {
                return Ok(Some(path));
            }
            if self.in_cache(".no_exist", commit, file).is_file() {
                return Ok(None);
            }
        }
        if self.environment.offline {
            return if required {
                Err(self.not_in_cache(file))
            } else {
                Ok(None)
            };
        }
        let cached = commit.as_ref().is_some_and(|commit| {
            let mut names = ["config.json", "modules.json"].iter();
            names.any(|name| self.in_cache("snapshots", commit, name).is_file())
        });
        // A model that is in the cache is completed from its own commit: files of two would not fit.
        match self.fetch(file, commit.unwrap_or_else(|| self.revision.clone())) {
            Err(_) if cached && !required => Ok(None),
            fetched => fetched.map_err(|reason| Error::Hub {
                model: self.id.clone(),
                file: file.to_owned(),
                reason,
            }),
        }
    }

    fn folder(&self) -> PathBuf {
        let repo = Repo::model(self.id.clone());
        self.environment.cache.join(repo.folder_name())
    }

    fn in_cache(&self, kind: &str, commit: &str, file: &str) -> PathBuf {
        self.folder().join(kind).join(commit).join(file)
    }

    /// The commit that the cache has of this revision.
    fn commit(&self) -> Option<String> {
        let folder = self.folder();
        match std::fs::read_to_string(folder.join("refs").join(&self.revision)) {
            Ok(commit) => Some(commit.trim().to_owned()),
            Err(_) => Some(self.revision.clone()).filter(|commit| folder.join("snapshots").join(commit).is_dir()),
        }
    }

    fn fetch(&self, file: &str, revision: String) -> std::result::Result<Option<PathBuf>, String> {
        if let Some(reason) = self.unreachable.get() {
            return Err(reason.clone());
        }
        let mut api = ApiBuilder::from_cache(Cache::new(self.environment.cache.clone()))
            .with_token(self.environment.token.clone())
            .with_progress(false);
        if let Some(endpoint) = &self.environment.endpoint {
            api = api.with_endpoint(endpoint.clone());
        }
        let repo = Repo::with_revision(self.id.clone(), RepoType::Model, revision);
        let fetched = api.build().and_then(|api| api.repo(repo).get(file));
        match fetched.map_err(|error| error.to_string()) {
            Ok(path) => Ok(Some(path)),
            Err(reason) if reason.ends_with("http status: 404") => Ok(None),
            Err(reason) => Err(self.unreachable.get_or_init(|| reason).clone()),
        }
    }

    fn not_in_cache(&self, file: &str) -> Error {
        let cache = self.environment.cache.display();
        Error::data(
            Place::file(&self.id),
            format!("{file} in the cache {cache}"),
            "no such file, and HF_HUB_OFFLINE is set",
        )
        .with_hint(format!(
            "unset HF_HUB_OFFLINE, or fill the cache before: `hf download {}`",
            self.id
        ))
    }
}

/// Whether a variable of the environment says yes, as the hub's own library reads it.
pub(crate) fn is_on(value: &str) -> bool {
    ["1", "TRUE", "YES", "ON"].contains(&value.to_ascii_uppercase().as_str())
}

/// Whether the hub could have a model of this id: the rules of `huggingface_hub`.
fn is_id(id: &str) -> bool {
    let is_name = |name: &str| {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        name.len() <= 96
            && name.starts_with(word)
            && name.ends_with(word)
            && name.chars().all(|c| word(c) || matches!(c, '-' | '.'))
    };
    let names: Vec<&str> = id.split('/').collect();
    names.len() <= 2
        && names.into_iter().all(is_name)
        && !id.contains("--")
        && !id.contains("..")
        && id.rsplit('.').next() != Some("git")
}

/// Whether it may name a branch, tag or commit; it becomes a path in the cache.
fn is_revision(revision: &str) -> bool {
    let is_part = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && !part.starts_with('.') && part.chars().all(known)
    };
    Path::new(revision).is_relative() && revision.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hub that refuses every connection.
    fn environment(cache: &Path, offline: &str) -> HubEnvironment {
        let cache = cache.to_str().expect("a name").to_owned();
        HubEnvironment::of(|name| match name {
            "HF_HUB_CACHE" => Some(cache.clone()),
            "HF_HUB_OFFLINE" => Some(offline.to_owned()),
            "HF_ENDPOINT" => Some("http://127.0.0.1:9".to_owned()),
            _ => None,
        })
    }

    fn model(cache: &Path, name: &str, offline: &str) -> HubModel {
        HubModel::named(name, environment(cache, offline)).expect("an id")
    }

    /// A cache with a `config.json` of `acme/mini`, at a commit called `abc`.
    fn cache() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "refs/main", "abc\n");
        write(folder.path(), "snapshots/abc/config.json", "{}");
        folder
    }

    fn write(cache: &Path, file: &str, text: &str) {
        let path = cache.join("models--acme--mini").join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("creates");
        std::fs::write(path, text).expect("writes");
    }

    #[test]
    fn offline_the_cache_is_all_there_is() {
        let cache = cache();
        for offline in ["1", "true", "YES", "On"] {
            let model = model(cache.path(), "acme/mini", offline);
            assert!(model.find("config.json", true).expect("finds").is_some());
            assert_eq!(model.find("modules.json", false).expect("none"), None);
            let error = model.find("model.safetensors", true).expect_err("not there");
            let expected = format!(
                "acme/mini: expected model.safetensors in the cache {}, found no such file, and HF_HUB_OFFLINE is set",
                cache.path().display()
            );
            assert_eq!(error.to_string(), expected);
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn a_cached_model_needs_no_hub_for_files_that_it_may_lack() {
        let cache = cache();
        let there = model(cache.path(), "acme/mini", "0");
        assert_eq!(there.find("modules.json", false).expect("none"), None);
        let error = there.find("model.safetensors", true).expect_err("not there");
        assert!(matches!(error, Error::Hub { .. }), "{error}");
        let other = model(cache.path(), "acme/other", "0");
        assert!(matches!(other.find("modules.json", false), Err(Error::Hub { .. })));
    }

    #[test]
    fn the_cache_knows_revisions_and_files_that_are_not_there() {
        let cache = cache();
        write(cache.path(), ".no_exist/abc/model.safetensors", "");
        let main = model(cache.path(), "acme/mini", "0");
        assert_eq!(main.find("model.safetensors", true).expect("the cache says so"), None);
        write(cache.path(), "refs/v2", "def");
        write(cache.path(), "snapshots/def/modules.json", "[]");
        for name in ["acme/mini@v2", "acme/mini@def"] {
            let found = model(cache.path(), name, "1")
                .find("modules.json", true)
                .expect("finds");
            assert!(found.is_some_and(|path| path.ends_with("def/modules.json")), "{name}");
        }
    }

    #[test]
    fn variables_are_those_of_huggingface_hub() {
        let cache = |set: &[(&str, &str)]| {
            let value = |name: &str| set.iter().find(|(known, _)| *known == name);
            HubEnvironment::of(|name| value(name).map(|(_, value)| (*value).to_owned())).cache
        };
        assert_eq!(cache(&[("HOME", "/h")]), Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "/f")]), Path::new("/f/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(
            cache(&[("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/c")]),
            Path::new("/c")
        );
        assert_eq!(
            cache(&[("HF_HUB_CACHE", "/a"), ("HUGGINGFACE_HUB_CACHE", "/c")]),
            Path::new("/a")
        );
    }

    #[test]
    fn what_is_no_id_is_not_looked_for() {
        let folder = Path::new("cache");
        let named = |name: &str| HubModel::named(name, environment(folder, "1")).is_some();
        for name in ["mini", "acme/mini", "a/b.c-d_e", "acme/mini@v2", "acme/mini@refs/pr/1"] {
            assert!(named(name), "{name}");
        }
        for name in [
            "", "..", "a/..", "../a", "a/b/c", "a/", "/a", ".a", "a--b", "a/b.git", "a b", "a@", "a@../b", "a@/b",
        ] {
            assert!(!named(name), "{name}");
        }
    }
}

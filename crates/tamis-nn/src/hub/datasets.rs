//! Files of data sets on the Hugging Face hub, by way of its usual cache.

use std::path::PathBuf;

use hf_hub::{Cache, Repo, RepoType, api::sync::ApiBuilder};

use crate::{Error, Place, Result, hub::remote::is_on};

/// The files that a name such as `datasets/owner/name/data/train-*.parquet` stands for, what follows `hf://`; a revision may stand behind the
/// repository's name: `datasets/owner/name@refs%2Fconvert%2Fparquet/...`.
///
/// # Errors
///
/// If it names no file of a data set, or one that the cache lacks and the hub does not give.
pub fn files(name: &str) -> Result<Vec<PathBuf>> {
    let place = format!("hf://{name}");
    let wrong = |found: &str| {
        Error::data(
            Place::file(&place),
            "a file of a data set: `hf://datasets/<owner>/<name>/<path>`",
            found.to_owned(),
        )
    };
    let mut parts = name.splitn(4, '/');
    let (Some("datasets"), Some(owner), Some(set), Some(path)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong("less"));
    };
    let (set, revision) = set.split_once('@').unwrap_or((set, "main"));
    let repo = Repo::with_revision(
        format!("{owner}/{set}"),
        RepoType::Dataset,
        revision.replace("%2F", "/"),
    );
    let failed = |file: &str, reason: String| Error::Hub {
        model: format!("datasets/{owner}/{set}"),
        file: file.to_owned(),
        reason,
    };
    if !path.contains(['*', '?']) {
        if let Some(path) = Cache::from_env().repo(repo.clone()).get(path) {
            return Ok(vec![path]);
        }
        if std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| is_on(&value)) {
            return Err(failed(
                path,
                "it is not in the cache, and HF_HUB_OFFLINE is set".to_owned(),
            ));
        }
    }
    let api = ApiBuilder::from_env()
        .with_progress(false)
        .build()
        .map_err(|error| failed(path, error.to_string()))?
        .repo(repo);
    let names = if path.contains(['*', '?']) {
        let info = api.info().map_err(|error| failed(path, error.to_string()))?;
        let mut names: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
        names.retain(|name| fits(path.as_bytes(), name.as_bytes()));
        names.sort_unstable();
        names
    } else {
        vec![path.to_owned()]
    };
    if names.is_empty() {
        return Err(wrong("a pattern that no file fits"));
    }
    names
        .iter()
        .map(|name| api.get(name).map_err(|error| failed(name, error.to_string())))
        .collect()
}

/// Whether a name fits a pattern, in which `*` stands for any letters of one folder's or file's name and `?` for one.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.first(), name.first()) {
        (None, None) => true,
        (Some(b'*'), Some(&letter)) => fits(&pattern[1..], name) || (letter != b'/' && fits(pattern, &name[1..])),
        (Some(b'*'), None) => fits(&pattern[1..], name),
        (Some(b'?'), Some(&letter)) if letter != b'/' => fits(&pattern[1..], &name[1..]),
        (Some(own), Some(other)) if own == other => fits(&pattern[1..], &name[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stay_in_their_folder() {
        let fits = |pattern: &str, name: &str| fits(pattern.as_bytes(), name.as_bytes());
        assert!(fits("data/train-*.parquet", "data/train-00000-of-00002.parquet"));
        assert!(fits("d?ta/*", "data/x"));
        assert!(!fits("*.parquet", "data/x.parquet"));
        assert!(!fits("data/train-*", "data/validation-0.parquet"));
    }

    #[test]
    fn a_name_without_a_file_is_refused() {
        for name in ["models/a/b/c", "datasets/a", "datasets/a/b"] {
            let error = files(name).expect_err("names no file").to_string();
            assert!(
                error.starts_with(&format!("hf://{name}: expected a file of a data set")),
                "{error}"
            );
        }
    }
}

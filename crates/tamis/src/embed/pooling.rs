//! How the vectors of tokens become a sentence's, as sentence-transformers has it.

use serde_json::Value;
use tamis_nn::hub::{
    files::{ModelFiles, read_json},
    modules::Modules,
};

use crate::{Error, Place, Result};

/// One way of pooling; the vectors of several stand one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    First,
    Mean,
    Max,
    /// The sum over the square root of the length.
    MeanSqrt,
}

/// What `config.json` of the pooling says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolingConfig {
    pub(crate) modes: Vec<Pooling>,
    /// Whether the tokens of a prompt are pooled with the text's.
    pub(crate) include_prompt: bool,
}

/// The keys of versions before 5.4, each `true` or `false`, in the order in which their vectors stand, whatever the file's.
const OLDER_KEYS: [(&str, &str); 6] = [
    ("pooling_mode_cls_token", "cls"),
    ("pooling_mode_max_tokens", "max"),
    ("pooling_mode_mean_tokens", "mean"),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("pooling_mode_weightedmean_tokens", "weightedmean"),
    ("pooling_mode_lasttoken", "lasttoken"),
];

impl PoolingConfig {
    /// Reads the pooling of a model; the mean where it has none.
    ///
    /// # Errors
    ///
    /// If the file cannot be had, or pools in a way that is not one of ours.
    pub(crate) fn read(files: &ModelFiles, modules: &Modules) -> Result<Self> {
        let path = match modules.pooling_config() {
            Some(name) => files.find(&name)?,
            None => None,
        };
        let Some(path) = path else {
            return Ok(Self {
                modes: vec![Pooling::Mean],
                include_prompt: true,
            });
        };
        let config = read_json(&path)?;
        let modes: Option<Vec<&str>> = match &config["pooling_mode"] {
            Value::Null => Some(older_modes(&config)),
            Value::String(mode) => Some(vec![mode]),
            Value::Array(modes) => modes.iter().map(Value::as_str).collect(),
            _ => None,
        };
        let modes = modes.filter(|modes| !modes.is_empty()).ok_or_else(|| {
            let expected = "pooling_mode, the name of one or a list of names";
            Error::data(Place::file(&path), expected, config["pooling_mode"].to_string())
        })?;
        let known = |mode: &str| {
            Pooling::named(mode).ok_or_else(|| {
                let expected = "pooling by cls, mean, max or mean_sqrt_len_tokens";
                Error::data(Place::file(&path), expected, format!("`{mode}`"))
                    .with_hint("embed the texts with sentence-transformers and pass the array: `embedder vectors.npy`")
            })
        };
        Ok(Self {
            modes: modes.into_iter().map(known).collect::<Result<_>>()?,
            include_prompt: config["include_prompt"] != false,
        })
    }
}

/// The modes of a file from before 5.4; the mean where none is on.
fn older_modes(config: &Value) -> Vec<&'static str> {
    let on = OLDER_KEYS.iter().filter(|(key, _)| config[*key] == true);
    let modes: Vec<&str> = on.map(|&(_, mode)| mode).collect();
    if modes.is_empty() { vec!["mean"] } else { modes }
}

impl Pooling {
    fn named(mode: &str) -> Option<Self> {
        Some(match mode {
            "cls" => Self::First,
            "max" => Self::Max,
            "mean" => Self::Mean,
            "mean_sqrt_len_tokens" => Self::MeanSqrt,
            _ => return None,
        })
    }

    /// Pools a sentence's tokens, shape `(tokens, out.len())`, into `out`.
    pub(crate) fn pool(self, tokens: &[f32], out: &mut [f32]) {
        let hidden = out.len();
        match self {
            Self::First => out.copy_from_slice(&tokens[..hidden]),
            Self::Max => {
                out.fill(f32::NEG_INFINITY);
                for token in tokens.chunks_exact(hidden) {
                    out.iter_mut().zip(token).for_each(|(out, x)| *out = out.max(*x));
                }
            }
            Self::Mean | Self::MeanSqrt => {
                let count = (tokens.len() / hidden).max(1) as f32;
                let divisor = if self == Self::Mean { count } else { count.sqrt() };
                out.fill(0.0);
                for token in tokens.chunks_exact(hidden) {
                    out.iter_mut().zip(token).for_each(|(out, x)| *out += x);
                }
                out.iter_mut().for_each(|x| *x /= divisor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: &Value) -> Result<PoolingConfig> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("1_Pooling")).expect("creates");
        std::fs::write(folder.path().join("1_Pooling/config.json"), config.to_string()).expect("writes");
        PoolingConfig::read(&ModelFiles::Folder(folder.path().to_path_buf()), &Modules::default())
    }

    #[test]
    fn modes_are_a_text_a_list_or_flags() {
        for (config, modes) in [
            (json!({"pooling_mode": "cls"}), vec![Pooling::First]),
            (
                json!({"pooling_mode": ["mean", "cls"]}),
                vec![Pooling::Mean, Pooling::First],
            ),
            (
                json!({"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true, "pooling_mode_lasttoken": false}),
                vec![Pooling::First, Pooling::Mean],
            ),
            (
                json!({"pooling_mode": "max", "pooling_mode_mean_tokens": true}),
                vec![Pooling::Max],
            ),
            (json!({"pooling_mode_mean_tokens": false}), vec![Pooling::Mean]),
            (json!({"embedding_dimension": 4}), vec![Pooling::Mean]),
        ] {
            assert_eq!(read(&config).expect("reads").modes, modes, "{config}");
        }
        assert!(!read(&json!({"include_prompt": false})).expect("reads").include_prompt);
    }

    #[test]
    fn other_modes_are_refused_with_a_way_out() {
        for config in [
            json!({"pooling_mode": "weightedmean"}),
            json!({"pooling_mode": ["mean", "lasttoken"]}),
            json!({"pooling_mode_lasttoken": true}),
            json!({"pooling_mode": "median"}),
        ] {
            let error = read(&config).expect_err("is refused");
            assert!(error.hint().is_some(), "{error}");
            let expected = "1_Pooling/config.json: expected pooling by cls, mean, max or mean_sqrt_len_tokens, found `";
            assert!(error.to_string().contains(expected), "{error}");
        }
        for config in [
            json!({"pooling_mode": []}),
            json!({"pooling_mode": 5}),
            json!({"pooling_mode": [true]}),
        ] {
            let error = read(&config).expect_err("is refused").to_string();
            assert!(
                error.contains("expected pooling_mode, the name of one or a list of names"),
                "{error}"
            );
        }
    }
}

//! How the words of a command line become values of the library.

use std::{collections::BTreeMap, ffi::OsStr, str::FromStr};

use clap::{
    Arg, Command,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use tamis::{Error, named::Named, search::Method, settings::StudyMethod};

/// Reads one of several names, which help and shells can then list.
#[derive(Clone)]
pub(crate) struct Names<T> {
    values: Vec<(T, &'static str)>,
    parser: PossibleValuesParser,
}

/// The values of an enum.
pub(crate) fn named<T: Named>() -> Names<T> {
    names(T::NAMES)
}

/// The methods of a study.
pub(crate) fn methods() -> Names<StudyMethod> {
    names(&StudyMethod::named())
}

/// The agents that search one problem.
pub(crate) fn agents() -> Names<Method> {
    let known = Method::NAMES.iter().copied();
    names(&known.filter(|(agent, ..)| *agent != Method::Auto).collect::<Vec<_>>())
}

fn names<T: Copy>(known: &[(T, &'static str, &'static str)]) -> Names<T> {
    let possible = known.iter().map(|&(_, name, help)| PossibleValue::new(name).help(help));
    Names {
        values: known.iter().map(|&(value, name, _)| (value, name)).collect(),
        parser: PossibleValuesParser::new(possible),
    }
}

impl<T: Copy + Send + Sync + 'static> TypedValueParser for Names<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let text = value.to_string_lossy();
        // Names in a list may have spaces around them, and `_` is as good as `-`.
        let name = text.trim().replace('_', "-");
        match self.values.iter().find(|(_, known)| *known == name) {
            Some((value, _)) => Ok(*value),
            None => Err(match self.parser.parse_ref(command, arg, OsStr::new(text.trim())) {
                Err(error) => error,
                Ok(_) => clap::Error::new(clap::error::ErrorKind::InvalidValue),
            }),
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        self.parser.possible_values()
    }
}

/// Reads a value as the library does; what is wrong with it comes with the way out.
pub(crate) fn parsed<T: FromStr<Err = Error>>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|error: Error| {
        let hint = error.hint().map_or_else(String::new, |hint| format!("; {hint}"));
        match error {
            Error::Setting { expected, .. } => format!("expected {expected}{hint}"),
            error => format!("{error}{hint}"),
        }
    })
}

/// A share, from 0 to 1 or in percent: `0.2` or `20%`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim_end().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    share.map_err(|_| "expected a share such as `0.2` or `20%`".to_owned())
}

/// Two words with `=` between them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pair {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Reads [`Pair`]s.
pub(crate) fn pair(text: &str) -> Result<Pair, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok(Pair {
            name: name.to_owned(),
            value: value.to_owned(),
        }),
        _ => Err("expected two words with `=` between them".to_owned()),
    }
}

/// The values of a repeated flag by their names, each of which is given once.
pub(crate) fn by_name(flag: &'static str, pairs: Vec<Pair>) -> tamis::Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for Pair { name, value } in pairs {
        if let Some(earlier) = values.insert(name.clone(), value.clone()) {
            let found = format!("`{name}={earlier}` and `{name}={value}`");
            return Err(Error::setting(flag, "every name once", found).with_hint("leave one of them out"));
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use tamis::{budget::Budget, metrics::MetricKind};

    use super::*;

    fn read<T: Copy + Send + Sync + 'static>(names: &Names<T>, text: &str) -> Result<T, clap::Error> {
        names.parse_ref(&Command::new("tamis"), None, OsStr::new(text))
    }

    #[test]
    fn names_are_read_with_either_dash_and_listed_with_their_meaning() {
        let metrics = named::<MetricKind>();
        for text in ["macro-f1", "macro_f1", " macro-f1"] {
            assert_eq!(read(&metrics, text).expect("a name"), MetricKind::MacroF1);
        }
        let error = read(&metrics, "f1").expect_err("no name").to_string();
        assert!(error.contains("accuracy, macro-f1, log-loss"), "{error}");
        let possible: Vec<PossibleValue> = metrics.possible_values().expect("names").collect();
        assert!(possible.iter().all(|value| value.get_help().is_some()) && possible.len() == 3);
        let methods = methods();
        assert_eq!(
            read(&methods, "random-search").expect("a name"),
            StudyMethod::Search(Method::Random)
        );
    }

    #[test]
    fn a_repeated_flag_has_every_name_once() {
        let pairs = |texts: &[&str]| texts.iter().map(|text| pair(text).expect("a pair")).collect();
        let fields = by_name("field", pairs(&["text=review", "label=stars"])).expect("two names");
        assert_eq!(fields["text"], "review");
        let twice = by_name("field", pairs(&["text=review", "text=title"])).expect_err("one name, twice");
        assert!(twice.to_string().contains("`text=review` and `text=title`"), "{twice}");
    }

    #[test]
    fn a_value_is_read_as_the_library_does() {
        assert_eq!(parsed::<Budget>("5%"), Ok(Budget::Percent(5.0)));
        let error = parsed::<Budget>("some").expect_err("no budget");
        assert!(
            error.starts_with("expected a percentage") && error.contains("; write it as `5%`"),
            "{error}"
        );
        assert_eq!(share("20 %"), Ok(0.2));
        assert!(share("a few").is_err());
        assert!(pair("text=a=b").is_ok_and(|pair| pair.name == "text" && pair.value == "a=b"));
        assert!(pair("text=").is_err() && pair("=b").is_err() && pair("text").is_err());
    }
}

//! The library's errors as Python's exceptions.

use pyo3::{
    exceptions::PyKeyboardInterrupt,
    prelude::*,
    types::{IntoPyDict, PyDict},
};
use tamis::Error;
use tamis_cli::Messages;

/// What goes into an exception: an error in the words of Python's users.
pub(crate) struct Failure {
    kind: Kind,
    message: String,
    hint: Option<String>,
    file: Option<String>,
    line: Option<u64>,
    setting: Option<String>,
}

enum Kind {
    Interrupted,
    Input,
    Other,
}

impl Failure {
    pub(crate) fn of(error: &anyhow::Error, messages: &Messages) -> Self {
        match error.downcast_ref::<Error>() {
            Some(error) => Self::of_library(error, messages),
            None => Self::other(format!("{error:#}")),
        }
    }

    pub(crate) fn of_library(error: &Error, messages: &Messages) -> Self {
        let (file, line) = match error {
            Error::Data { place, .. } => (Some(place.path.display().to_string()), place.line),
            Error::Io { path, .. } => (Some(path.display().to_string()), None),
            _ => (None, None),
        };
        Self {
            kind: match error {
                Error::Interrupted => Kind::Interrupted,
                error if error.is_input() => Kind::Input,
                _ => Kind::Other,
            },
            message: messages.error(error),
            hint: error.hint().map(|hint| messages.text(&hint)),
            file,
            line,
            setting: match error {
                Error::Setting { name, .. } => Some(name.clone()),
                _ => None,
            },
        }
    }

    pub(crate) fn other(message: String) -> Self {
        Self {
            kind: Kind::Other,
            message,
            hint: None,
            file: None,
            line: None,
            setting: None,
        }
    }

    /// The exception that Python's users see.
    pub(crate) fn into_exception(self, py: Python<'_>) -> PyErr {
        let class = match self.kind {
            Kind::Interrupted => {
                return PyKeyboardInterrupt::new_err("interrupted; the same call goes on: what is done is kept");
            }
            Kind::Input => "InputError",
            Kind::Other => "Error",
        };
        match self.made(py, class) {
            Ok(exception) => PyErr::from_value(exception),
            Err(error) => error,
        }
    }

    fn made<'py>(self, py: Python<'py>, class: &str) -> PyResult<Bound<'py, PyAny>> {
        let named: Bound<'py, PyDict> =
            [("hint", self.hint), ("file", self.file), ("setting", self.setting)].into_py_dict(py)?;
        named.set_item("line", self.line)?;
        py.import("tamis.errors")?
            .getattr(class)?
            .call((self.message,), Some(&named))
    }
}

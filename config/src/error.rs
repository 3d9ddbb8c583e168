//! Why a configuration cannot be used.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where in a file something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Place {
    /// The place of an octet of a text.
    pub(crate) fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        Self { line, column: before[start..].chars().count() + 1 }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, as far as it can be told.
    pub place: Option<Place>,
    /// What, with the key it is about.
    pub what: String,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// No TOML, an unknown key, a value of the wrong kind, a contradiction, or a named file that cannot be
    /// used: one line each, as `FILE:LINE:COLUMN: what`.
    #[error("{}", lines(path.as_deref(), faults))]
    Faults {
        /// Which file; none for a text that is in no file.
        path: Option<PathBuf>,
        /// What is wrong, at least one thing.
        faults: Vec<Fault>,
    },
    /// A value has no TOML form.
    #[error("cannot be written as TOML: {0}")]
    Dump(toml::ser::Error),
}

impl ConfigError {
    /// What is wrong with a text that is in no file.
    pub(crate) const fn faults(faults: Vec<Fault>) -> Self {
        Self::Faults { path: None, faults }
    }

    /// The same of a text that was read from this file.
    pub(crate) fn of_file(self, file: &Path) -> Self {
        match self {
            Self::Faults { faults, .. } => Self::Faults { path: Some(file.to_owned()), faults },
            other => other,
        }
    }
}

fn lines(path: Option<&Path>, faults: &[Fault]) -> String {
    let line = |fault: &Fault| {
        let at = match (path.map(Path::display), fault.place) {
            (Some(path), Some(at)) => format!("{path}:{}:{}: ", at.line, at.column),
            (Some(path), None) => format!("{path}: "),
            (None, Some(at)) => format!("line {}, column {}: ", at.line, at.column),
            (None, None) => String::new(),
        };
        at + &fault.what
    };
    faults.iter().map(line).collect::<Vec<_>>().join("\n")
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&lines(None, std::slice::from_ref(self)))
    }
}

//! Why a configuration cannot be used.

use std::path::PathBuf;

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
    /// Not TOML, an unknown key, or a value of the wrong kind; shows the line.
    #[error("{0}")]
    Syntax(#[from] Box<toml::de::Error>),
    /// Well-formed, but contradicts itself: one line a contradiction.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// A value has no TOML form.
    #[error("cannot be written as TOML: {0}")]
    Dump(#[from] toml::ser::Error),
}

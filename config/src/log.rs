//! `[log]`.

use serde::{Deserialize, Serialize};

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// Filter in the `tracing` syntax: `info`, `debug`, `info,weir_bgp=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned() }
    }
}

/// Words for how much is logged, least first.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Log {
    /// Checks the level. An unknown word would be taken for the name of a part of weir, of which
    /// everything is logged, and of the rest nothing.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
        for directive in self.level.split(',').map(str::trim) {
            let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level.trim());
            if !is_level(level) {
                let known = LEVELS.join(", ");
                return Err(format!(
                    "log.level: {level:?} is none of {known}, or of these by part: info,weir_bgp=debug"
                ));
            }
        }
        Ok(())
    }
}

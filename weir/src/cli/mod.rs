//! Subcommands with more to them than a few lines.

pub mod panel;

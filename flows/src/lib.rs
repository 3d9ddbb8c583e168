//! The archive of flow records: a process of its own, so that neither a hostile question nor a slow disk
//! touches detection.
//!
//! Records come over a local socket; whoever sends them drops what this process does not take, and never waits.
//! Records go to a log with checksums and each minute from there into Apache Parquet, which other programs read
//! as it is. Read [`archive::Archive`] and [`query::answer`] first.

pub mod archive;
pub mod catalog;
pub mod cli;
pub mod columns;
pub mod file;
pub mod filter;
pub mod log;
pub mod query;
pub mod server;
pub mod thin;

//! weir's BGP against real routers' software, read back with its own tools.
//!
//! Each test is a namespace of its own with one or more daemons and `speak`, the speaker on a
//! leash (an example of `weir-bgp`), driven through a pipe.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic")]

mod adapters;
mod bfd;
mod daemons;
mod matrix;
mod probe;
mod restart;
mod rpki;
mod rules;
mod sessions;
mod speaker;

//! The appliance: one core that decides, and the threads around it.
//!
//! [`Core`] is the single writer of every decision and has no clock: the daemon, the replay of a
//! capture and the tests drive the same one. [`daemon`] owns threads, sockets and time; nothing else here
//! does. Read [`Core`] and [`daemon::Daemon`] first.
//!
//! ```text
//! rx/<n> --slices--> core --Arc<Admitted>--> bgp
//!                    ^  |--incidents-------> store
//!    web --commands--+  +--Snapshot--------> web
//!    bgp --Observed--+
//! ```

pub mod agents;
pub mod allow;
pub mod capture;
pub mod cli;
pub mod core;
pub mod daemon;
pub mod demo;
pub mod init;
pub mod inspect;
pub mod logging;
pub mod manual;
pub mod replay;
pub mod score;
pub mod service;
pub mod text;

pub use core::{Core, Turn};

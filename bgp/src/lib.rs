//! .

pub mod guard;

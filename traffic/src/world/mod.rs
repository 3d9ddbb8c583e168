//! Worlds drawn by seed: some hosts with ordinary behaviours, one of which begins or grows, and,
//! on the attack side, an attack laid over. The fixed cases of [`crate::suite`] tell whether a
//! detector knows what it was shown; worlds tell whether it knows what it was not.
//!
//! A behaviour is a function that draws its particulars and makes [`Crowd`]s; a new one is a line
//! in `benign/mod.rs` or `attack/mod.rs`. Worlds of the same seed are the same for every feed but
//! for sizes that a feed of every packet could not carry.

mod attack;
mod benign;
mod compose;
mod crowd;
mod draw;
mod emit;
#[cfg(test)]
mod tests;

pub use compose::{Side, World};
pub use crowd::{Crowd, Growth, Population, Shape, Step, Talk};
pub(crate) use emit::CrowdEmitter;

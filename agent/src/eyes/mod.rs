//! What the node sees beside its rules' counters.

pub mod host;
mod sampler;
pub mod sflow;

pub use sampler::Sampler;

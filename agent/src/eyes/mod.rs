//! What the node sees beside its rules' counters.

pub mod capture;
pub mod host;
pub mod pcapng;
mod sampler;
pub mod sflow;

pub use sampler::Sampler;

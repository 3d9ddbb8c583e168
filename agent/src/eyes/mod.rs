//! What the node sees beside its rules' counters.

pub mod capture;
pub mod history;
pub mod host;
pub mod pcapng;
pub mod ring;
pub(crate) mod sampler;
pub mod sflow;

pub use sampler::Sampler;

//! Flow datagrams in, traffic by destination out.
//!
//! Routers send sFlow v5, NetFlow v5 and v9, and IPFIX; a [`Shard`] decodes them, applies the
//! sampling rate, and adds the traffic up for each protected host and service in slices of 100 ms.
//! A shard is pure: time is an argument. [`socket`] is the only place with sockets and a clock.
//! Nothing here decides anything. Read [`Shard`] and [`weir_model::Slice`] first.

mod accumulate;
mod bounds;
mod checkpoint;
mod config;
mod connections;
mod decode;
mod domain;
mod epoch;
mod error;
mod exporter;
mod fields;
pub mod inspect;
mod links;
mod names;
mod pending;
mod read;
mod registry;
mod roles;
mod sampling;
mod shard;
pub mod socket;
mod source;
mod tap;
mod template;
mod templates;
mod tenure;
mod time;

pub use checkpoint::{
    Checkpoint, DomainCheckpoint, ExporterCheckpoint, SamplingCheckpoint, TemplateCheckpoint,
};
pub use config::{Config, ExporterConfig, ReplicateConfig, TlsConfig, Tunnel};
pub use decode::packet::LinkType;
pub use error::{DecodeError, DecodeErrorKind};
pub use registry::Registry;
pub use shard::{Counters, Shard, UnlistedSender};
pub use tap::{Tap, TapState};

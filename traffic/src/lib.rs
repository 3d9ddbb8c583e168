//! What routers see and what attackers do, imitated: packets from seeded models, exporters that
//! turn them into sFlow v5, NetFlow v5 and v9 and IPFIX datagrams, scenes with exact truth.
//!
//! Pure: no clock, socket or thread; a seed gives the same octets everywhere. The demonstration,
//! the tests, the scorer and the benchmark share it. Read [`Scene`] and [`Source`] first.

pub mod attack;
pub mod background;
pub mod case;
pub mod encode;
pub mod exporter;
pub mod mix;
mod packet;
pub mod pcap;
mod rng;
mod scene;
pub mod score;
mod source;
pub mod suite;
pub mod world;

pub use exporter::{Datagram, ExporterSpec};
pub use packet::{Origin, Packet};
pub use rng::Rng;
pub use scene::{Attack, Scene, Stream, Via};
pub use source::{Locals, Peers, Port, Rate, SECOND_US, Source, Variant};

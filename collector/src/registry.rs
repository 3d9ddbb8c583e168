//! Numbers of exporters, the same in every shard.

use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use weir_model::ExporterId;

use crate::accumulate::Repeats;

/// Hands out one [`ExporterId`] for each exporter address. Locked only when a shard meets an
/// exporter for the first time, so it costs the receive path nothing. Also holds what the shards
/// learn together of exporters that report the same packets.
#[derive(Debug, Default)]
pub struct Registry {
    addresses: Mutex<Vec<IpAddr>>,
    repeats: Arc<Repeats>,
    definition_octets: Arc<AtomicUsize>,
}

impl Registry {
    /// The number of `address`, a new one if it is the first time, none beyond `limit` exporters.
    pub fn id(&self, address: IpAddr, limit: usize) -> Option<ExporterId> {
        let mut addresses =
            self.addresses.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let index = match addresses.iter().position(|a| *a == address) {
            Some(index) => index,
            None if addresses.len() < limit => {
                addresses.push(address);
                if addresses.len() > 1 {
                    self.repeats.begin();
                }
                addresses.len() - 1
            }
            None => return None,
        };
        u16::try_from(index).ok().map(ExporterId)
    }

    /// Octets of the templates of all exporters.
    pub(crate) fn definition_octets(&self) -> &Arc<AtomicUsize> {
        &self.definition_octets
    }

    pub(crate) fn repeats(&self) -> &Arc<Repeats> {
        &self.repeats
    }
}

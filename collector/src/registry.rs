//! Numbers of exporters, the same in every shard.

use std::net::IpAddr;
use std::sync::Mutex;

use weir_model::ExporterId;

/// Hands out one [`ExporterId`] for each exporter address. Locked only when a shard meets an
/// exporter for the first time, so it costs the receive path nothing.
#[derive(Debug, Default)]
pub struct Registry {
    addresses: Mutex<Vec<IpAddr>>,
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
                addresses.len() - 1
            }
            None => return None,
        };
        u16::try_from(index).ok().map(ExporterId)
    }
}

//! What is known beforehand of services: that a server does not run, or that a rush is due.
//!
//! A rush raises what is tolerated in volume and shape; the tests that need no baseline stay as they
//! are. Where nothing runs nothing is learned from the silence, what comes all the same is no
//! service's traffic, and nobody is harmed when it falls.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_model::{Expected, ExpectedTraffic, Inventory, IpNet, Rate, Service};

use crate::Detector;
use crate::watch::metric::{BITS, PACKETS};

/// Times the usual volume that a rush may bring before it is an alarm.
pub(crate) const SURGE: f64 = 4.0;

/// What is known of a service port.
pub(crate) fn of_service(
    inventory: &Inventory,
    host: IpAddr,
    protocol: u8,
    port: u16,
) -> Option<ExpectedTraffic> {
    if inventory.expected.is_empty() {
        return None;
    }
    inventory.expected_of(host, protocol, port).map(|e| e.traffic)
}

/// What is known of a host: a rush when one of its services expects one, silence when none of them
/// runs.
pub(crate) fn of_host(inventory: &Inventory, host: IpAddr) -> Option<ExpectedTraffic> {
    if inventory.expected.is_empty() {
        return None;
    }
    let services = inventory.services_of(host);
    let of = |s: &Service| of_service(inventory, host, s.protocol, s.port);
    if services.iter().any(|s| of(s) == Some(ExpectedTraffic::Surge)) {
        return Some(ExpectedTraffic::Surge);
    }
    let none_runs =
        !services.is_empty() && services.iter().all(|s| of(s) == Some(ExpectedTraffic::Silence));
    none_runs.then_some(ExpectedTraffic::Silence)
}

/// Whether a declared service runs, as far as is known.
pub(crate) fn runs(inventory: &Inventory, service: &Service) -> bool {
    of_service(inventory, service.address, service.protocol, service.port)
        != Some(ExpectedTraffic::Silence)
}

/// What is known beforehand of the hosts of a target.
fn within(inventory: &Inventory, target: IpNet) -> &[Expected] {
    let all = &inventory.expected;
    let from = all.partition_point(|e| e.address < target.network());
    let to = all.partition_point(|e| e.address <= target.broadcast());
    &all[from..to]
}

impl Detector {
    /// Tells hosts and services of which something was or is known beforehand what is known now.
    pub(crate) fn foretell(&mut self, before: &Inventory) {
        let all = before.expected.iter().chain(&self.inventory.expected);
        let hosts: BTreeSet<IpAddr> = all.map(|e| e.address).collect();
        let now = self.clock.secs();
        for host in hosts {
            let place = self.table.get(host);
            let Some(idle) = self.idle.get(place as usize) else { continue };
            if let Some(Some(warm)) = self.warm.get_mut(idle.warm as usize) {
                warm.series.foreknown = of_host(&self.inventory, host);
                warm.series.set_thresholds(&self.config, now);
            }
            for service in self.inventory.services_of(host) {
                let key = (place, service.protocol, service.port);
                if let Some(known) = self.services.get_mut(&key) {
                    known.series.foreknown =
                        of_service(&self.inventory, host, service.protocol, service.port);
                    known.series.set_thresholds(&self.config, now);
                }
            }
        }
    }

    /// What services of a target that do not run used to carry: nobody misses it.
    pub(crate) fn silenced(&self, target: IpNet) -> Rate {
        let mut sum = Rate::default();
        for expected in within(&self.inventory, target) {
            if expected.traffic != ExpectedTraffic::Silence {
                continue;
            }
            let key = (self.table.get(expected.address), expected.protocol, expected.port);
            if let Some(service) = self.services.get(&key) {
                sum.packets_per_sec += service.series.mean(PACKETS);
                sum.bits_per_sec += service.series.mean(BITS);
            }
        }
        sum
    }
}

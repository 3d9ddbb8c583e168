//! One second of traffic towards everything protected, added up for the live charts.

use weir_api::TrafficSecond;
use weir_model::{Class, LongFlow, Millis, Rate, Slice};

/// Packets and octets. Charts need no exact sums, and `f64` never overflows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Volume {
    packets: f64,
    bytes: f64,
}

impl Volume {
    fn add(&mut self, packets: f64, bytes: f64) {
        self.packets += packets;
        self.bytes += bytes;
    }

    fn rate(self) -> Rate {
        Rate { packets_per_sec: self.packets, bits_per_sec: self.bytes * 8.0 }
    }
}

/// The sums of one second.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    classes: [Volume; Class::COUNT],
    services: Volume,
    discarded: Volume,
}

#[expect(clippy::cast_precision_loss, reason = "a chart, not an account")]
const fn number(value: u64) -> f64 {
    value as f64
}

impl Totals {
    /// Takes a slice in.
    pub(crate) fn slice(&mut self, slice: &Slice) {
        for host in &slice.hosts {
            for (sum, part) in self.classes.iter_mut().zip(&host.inbound) {
                sum.add(number(part.packets), number(part.bytes));
            }
            self.discarded.add(number(host.dropped.packets), number(host.dropped.bytes));
        }
        for service in &slice.services {
            self.services.add(number(service.inbound.packets), number(service.inbound.bytes));
        }
    }

    /// Takes in what a flow that lasted longer carried in this second.
    pub(crate) fn long(&mut self, flow: &LongFlow, packets: f32, bytes: f32) {
        let (packets, bytes) = (f64::from(packets), f64::from(bytes));
        self.classes[flow.class as usize].add(packets, bytes);
        if flow.service_port != 0 {
            self.services.add(packets, bytes);
        }
    }

    /// Adds another part of the same second.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, part) in self.classes.iter_mut().zip(&other.classes) {
            sum.add(part.packets, part.bytes);
        }
        self.services.add(other.services.packets, other.services.bytes);
        self.discarded.add(other.discarded.packets, other.discarded.bytes);
    }

    /// As the API tells it.
    pub(crate) fn told(&self, second: u64) -> TrafficSecond {
        TrafficSecond {
            at: Millis::from_secs(second),
            classes: self.classes.map(Volume::rate),
            services: self.services.rate(),
            discarded: self.discarded.rate(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::{ClassVolume, HostSlice, ServiceSlice};

    #[test]
    fn classes_services_and_discards_are_kept_apart() {
        let host = "203.0.113.7".parse().unwrap();
        let volume = |packets| ClassVolume { packets, bytes: packets * 100 };
        let mut seen = HostSlice::empty(host, 10);
        seen.inbound[Class::Udp as usize] = volume(5);
        seen.inbound[Class::TcpSyn as usize] = volume(2);
        seen.dropped = volume(3);
        let service = ServiceSlice {
            host,
            protocol: 17,
            port: 53,
            slot: 10,
            inbound: volume(4),
            outbound: volume(9),
            variance: 0,
            sources: 0,
        };
        let slice = Slice { hosts: vec![seen], services: vec![service], ..Slice::default() };
        let mut totals = Totals::default();
        totals.slice(&slice);
        totals.slice(&slice);
        let told = totals.told(1);
        assert_eq!(told.classes[Class::Udp as usize].packets_per_sec, 10.0);
        assert_eq!(told.classes[Class::TcpSyn as usize].bits_per_sec, 3200.0);
        assert_eq!(told.services.packets_per_sec, 8.0);
        assert_eq!(told.discarded.packets_per_sec, 6.0);
        assert_eq!(told.at, Millis(1000));
    }
}

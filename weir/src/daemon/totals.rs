//! One second of traffic towards everything protected, added up for the live charts.

use weir_api::TrafficSecond;
use weir_model::{Class, ClassVolume, HostSlice, LongFlow, Millis, Rate, ServiceSlice};

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
    /// Takes what hosts and services carried in: as whole numbers, which the processor adds several at
    /// once, and made to floats once a call. No slice carries what overflows 64 bits, and a chart would
    /// not mind.
    pub(crate) fn take(&mut self, hosts: &[HostSlice], of_services: &[ServiceSlice]) {
        let mut classes = [[0_u64; 2]; Class::COUNT];
        let (mut discarded, mut services) = ([0_u64; 2], [0_u64; 2]);
        let add = |sum: &mut [u64; 2], part: &ClassVolume| {
            sum[0] = sum[0].wrapping_add(part.packets);
            sum[1] = sum[1].wrapping_add(part.bytes);
        };
        for host in hosts {
            for (sum, part) in classes.iter_mut().zip(&host.inbound) {
                add(sum, part);
            }
            add(&mut discarded, &host.dropped);
        }
        for service in of_services {
            add(&mut services, &service.inbound);
        }
        for (sum, [packets, bytes]) in self.classes.iter_mut().zip(classes) {
            sum.add(number(packets), number(bytes));
        }
        self.discarded.add(number(discarded[0]), number(discarded[1]));
        self.services.add(number(services[0]), number(services[1]));
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
        let mut totals = Totals::default();
        totals.take(&[seen], &[service]);
        totals.take(&[seen], &[service]);
        let told = totals.told(1);
        assert_eq!(told.classes[Class::Udp as usize].packets_per_sec, 10.0);
        assert_eq!(told.classes[Class::TcpSyn as usize].bits_per_sec, 3200.0);
        assert_eq!(told.services.packets_per_sec, 8.0);
        assert_eq!(told.discarded.packets_per_sec, 6.0);
        assert_eq!(told.at, Millis(1000));
    }
}

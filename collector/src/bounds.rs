//! What cannot be: a record beyond what wires carry is counted and shown, and nothing is judged by it.
//!
//! One record of 2^64 octets would outweigh a day of true ones. Three laws of nature bound a record:
//! a packet has at least an IPv4 header (20 octets), at most 65,535 octets, and an interface carries
//! what its speed times the flow's duration allows.

use crate::config::{Config, ExporterConfig};

/// Octets of the smallest IP header.
const LEAST_PACKET: u64 = 20;
/// Octets of the largest IP packet.
const LARGEST_PACKET: u64 = 65_535;
/// A flow is allowed what its interface carries in this much more than its duration: exporters'
/// clocks tick in steps, and caches hold packets back. Milliseconds.
const SLACK_MS: u64 = 1000;
/// How long a flow may have lasted whose record does not say. Milliseconds.
const UNTIMED_MS: u64 = 300_000;

/// What an exporter's records may say at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Octets that the fastest interface carries in a millisecond.
    octets_per_ms: u64,
    /// And in the slack: what is below needs no second look.
    slack_octets: u64,
}

/// A record's volume as it is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    /// Packets and layer-3 octets before scaling.
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) sampling: u32,
    /// From first packet to last, milliseconds; none when the record does not say.
    pub(crate) duration_ms: Option<u64>,
    /// Whether the octets are those of packets with their headers.
    pub(crate) whole_packets: bool,
}

impl Bounds {
    pub(crate) fn new(entry: Option<&ExporterConfig>, config: &Config) -> Self {
        let line_rate =
            entry.and_then(|e| e.line_rate_bits_per_sec).unwrap_or(config.line_rate_bits_per_sec);
        let octets_per_ms = (line_rate / 8000).max(1);
        Self { octets_per_ms, slack_octets: octets_per_ms.saturating_mul(SLACK_MS) }
    }

    /// An interface of this exporter carries `speed_bps`: what exceeds that needs a second look.
    pub(crate) fn interface(&mut self, speed_bps: u64) {
        if let known @ 1.. = speed_bps / 8000 {
            self.slack_octets = self.slack_octets.min(known.saturating_mul(SLACK_MS));
        }
    }

    /// Whether a record is certainly possible: nearly all are, by four comparisons. No product of two numbers of
    /// 32 bits overflows, and what is larger takes a second look.
    #[inline]
    pub(crate) fn surely(&self, packets: u64, bytes: u64, sampling: u32) -> bool {
        (packets | bytes) <= u64::from(u32::MAX)
            && packets * LEAST_PACKET <= bytes
            && bytes <= packets * LARGEST_PACKET
            && bytes * u64::from(sampling) <= self.slack_octets
    }

    /// Whether a record is possible, by an interface of `speed_bps` if that is known (else 0).
    #[cold]
    pub(crate) fn possible(&self, claim: Claim, speed_bps: u64) -> bool {
        let Claim { packets, bytes, sampling, duration_ms, whole_packets } = claim;
        // Octets that are not told (0) contradict nothing.
        if bytes > packets.saturating_mul(LARGEST_PACKET)
            || (whole_packets && bytes > 0 && packets.saturating_mul(LEAST_PACKET) > bytes)
        {
            return false;
        }
        // Of packets taken at random the true number may be lower, by chance, than they make it.
        let least = if sampling > 1 {
            let by_chance = packets.isqrt().saturating_mul(4).saturating_add(4);
            let part = u128::from(packets.saturating_sub(by_chance)) * u128::from(bytes);
            part / u128::from(packets.max(1)) * u128::from(sampling)
        } else {
            u128::from(bytes)
        };
        let octets_per_ms = match speed_bps / 8000 {
            0 => self.octets_per_ms,
            known => known.min(self.octets_per_ms),
        };
        let duration_ms = duration_ms.unwrap_or(UNTIMED_MS).saturating_add(SLACK_MS);
        least <= u128::from(octets_per_ms) * u128::from(duration_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { octets_per_ms: 1_250_000, slack_octets: 1_250_000_000 };

    fn possible(packets: u64, bytes: u64, sampling: u32, duration_ms: Option<u64>) -> bool {
        let claim = Claim { packets, bytes, sampling, duration_ms, whole_packets: true };
        BOUNDS.surely(packets, bytes, sampling) || BOUNDS.possible(claim, 0)
    }

    #[test]
    fn a_packet_is_as_long_as_packets_are() {
        assert!(possible(1, 20, 1, Some(0)));
        assert!(!possible(1, 19, 1, Some(0)));
        assert!(possible(1, 65_535, 1, Some(0)));
        assert!(!possible(1, 65_536, 1, Some(0)));
        assert!(!possible(1400, 1, 1, Some(0)));
        // Octets that are not told.
        assert!(possible(1400, 0, 1, Some(0)));
        assert!(!possible(u64::MAX, u64::MAX, 1, Some(100)));
    }

    #[test]
    fn a_flow_is_as_fast_as_its_interface() {
        // 10 Gbit/s by the setting.
        assert!(possible(10_000_000, 12_500_000_000, 1, Some(9_000)));
        assert!(!possible(10_000_000, 12_500_000_000, 1, Some(8_900)));
        // Who does not say how long is given the benefit of the doubt.
        assert!(possible(10_000_000, 12_500_000_000, 1, None));
        let claim = Claim {
            packets: 10_000_000,
            bytes: 12_500_000_000,
            sampling: 1,
            duration_ms: Some(60_000),
            whole_packets: true,
        };
        assert!(BOUNDS.possible(claim, 10_000_000_000));
        assert!(!BOUNDS.possible(claim, 1_000_000_000));
    }

    #[test]
    fn few_sampled_packets_prove_no_speed() {
        // One packet of 1500 octets at 1:10,000,000 is 120 Gbit in no time, by chance.
        assert!(possible(1, 1500, 10_000_000, Some(0)));
        assert!(possible(16, 24_000, 1_000_000, Some(0)));
        assert!(!possible(4000, 6_000_000, 1_000_000, Some(0)));
    }
}

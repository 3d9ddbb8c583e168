//! Records as a hosting network's exporters send them, from a seed. Shared by tests and the benchmark.

#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "a test may panic; each uses its own part"
)]

use weir_model::ArchivedFlow;

/// Time of the first record: 2026-12-01 12:00 UTC.
pub(crate) const EPOCH: u64 = 1_796_126_400_000;

/// Seeded randomness (xorshift64*).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// A record as exporters of a hosting network send them: servers of 203.0.113.0/24 and 2001:db8::/32,
/// clients from everywhere, some DNS reflection.
pub(crate) fn flow(chance: &mut Chance, number: u64, per_sec: u64) -> ArchivedFlow {
    let end = EPOCH + number * 1000 / per_sec;
    let v6 = chance.below(10) == 0;
    let near = 1 + chance.below(250) * chance.below(250) / 250;
    let far = chance.below(1 << 18).wrapping_mul(0x9E37_79B9) & 0xFFFF_FFFF;
    let server = if v6 {
        std::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(near)).into()
    } else {
        std::net::IpAddr::from([203, 0, 113, u8::try_from(near).unwrap()])
    };
    let client = if v6 {
        std::net::Ipv6Addr::from_bits((0x2a02 << 112) | u128::from(far) << 64 | 1).into()
    } else {
        std::net::Ipv4Addr::from_bits(u32::try_from(far).unwrap()).into()
    };
    let high = u16::try_from(32_768 + chance.below(28_000)).unwrap();
    let (protocol, service) =
        chance.pick(&[(6, 443), (6, 443), (6, 25_565), (17, 27_015), (17, 53), (1, 0)]);
    let reflected = protocol == 17 && service == 53;
    let inbound = reflected || chance.below(3) > 0;
    let ((src, src_port), (dst, dst_port)) = match (inbound, reflected) {
        (true, true) => ((client, 53), (server, high)),
        (true, false) => ((client, high), (server, service)),
        (false, _) => ((server, service), (client, high)),
    };
    let packets = if chance.below(3) == 0 { 1 + chance.below(200) } else { 1 };
    let length = chance.pick(&[60, 64, 100, 576, 1200, 1500]);
    ArchivedFlow {
        end,
        start: end - if packets > 1 { chance.below(60_000) } else { 0 },
        exporter: [192, 0, 2, 1 + u8::try_from(chance.below(2)).unwrap()].into(),
        in_if: u32::try_from(1 + chance.below(4)).unwrap(),
        out_if: u32::try_from(10 + chance.below(8)).unwrap(),
        src,
        dst,
        src_port: if protocol == 1 { 0 } else { src_port },
        dst_port: if protocol == 1 { 0x0800 } else { dst_port },
        protocol,
        tcp_flags: if protocol == 6 { chance.pick(&[0x02, 0x10, 0x18, 0x12, 0x04]) } else { 0 },
        forwarding: u8::try_from(chance.below(3)).unwrap(),
        octets: packets * length,
        packets,
        sampling: chance.pick(&[1, 1000, 1000]),
        thinned: 1,
    }
}

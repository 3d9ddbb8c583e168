//! What to expect of a host or service before it was seen: imagined packets that stand in for
//! normal traffic until real ones are known, so that a rule that would cut a service's players is
//! refused even where nobody has played yet.
//!
//! Lengths of SYNs are those of 1,392 SYNs in the captures of the nDPI test suite: 60 octets 40 %,
//! 52 33 %, 64 23 %, 48 3 %, 44 1.4 %, 40 none.

use weir_model::{Direction, Fragment, Range, Service};

use crate::watch::packets::Packet;

/// Most services of one host that get a stratum of their own.
pub(crate) const STRATA_SERVICES: usize = 8;

/// SYN lengths and their share in percent.
const SYN_LENGTHS: [(u16, f64); 5] = [(60, 40.0), (52, 33.0), (64, 23.0), (48, 3.0), (44, 1.4)];

/// A source port that a client would pick.
const CLIENT_PORTS: [u16; 4] = [1025, 33_211, 51_873, 61_234];

pub(crate) fn packet(protocol: u8, sport: u16, dport: u16, length: u16, flags: u8) -> Packet {
    Packet {
        src: 0,
        slot: 0,
        bytes: u64::from(length),
        packets: 1,
        hash: 0,
        src_port: sport,
        dst_port: dport,
        length_min: length,
        length_max: length,
        exporter: 0,
        protocol,
        tcp_flags: flags,
        icmp_type: 8,
        icmp_code: 0,
        ttl: 0,
        fragment: Fragment::None,
        vague: false,
        flags_said: protocol == 6,
        local: 0,
        direction: Direction::Inbound,
    }
}

/// Lengths of a client's first QUIC packets: padded to datagrams of 1,200 octets at the least (RFC 9000
/// §14.1), with 28 or 48 octets of headers.
pub(crate) const QUIC_INITIAL: Range = Range { from: 1_228, to: 1_500 };

/// New connections of QUIC: few among a server's packets, and all of its new visitors.
pub(crate) fn quic_initials() -> Vec<(Packet, f64)> {
    [1_228, 1_250, 1_258, 1_280, 1_378, 1_385]
        .into_iter()
        .zip(CLIENT_PORTS.iter().cycle())
        .map(|(length, &sport)| (packet(17, sport, 443, length, 0), 1.0))
        .collect()
}

/// SYNs to a port.
pub(crate) fn syns(port: u16) -> Vec<(Packet, f64)> {
    SYN_LENGTHS
        .iter()
        .zip(CLIENT_PORTS.iter().cycle())
        .map(|(&(length, share), &sport)| (packet(6, sport, port, length, 0x02), share))
        .collect()
}

/// A service's traffic without SYNs: any length, from clients' ports.
pub(crate) fn service(service: &Service) -> Vec<(Packet, f64)> {
    let steps: u16 = 48;
    let flags = |i: u16| match (service.protocol, i % 3) {
        (6, 0) => 0x10,
        (6, _) => 0x18,
        _ => 0,
    };
    (0..steps)
        .map(|i| {
            let sport = CLIENT_PORTS[usize::from(i % 4)];
            // Short packets are the common ones: steps grow from 6 to 54 octets. The first of a
            // TCP service is the bare ACK.
            let length = if i == 0 { 40 } else { 33 + i * 5 + i * i / 2 };
            (packet(service.protocol, sport, service.port, length, flags(i)), 1.0)
        })
        .collect()
}

/// Traffic of a host of which nothing is known.
pub(crate) fn host() -> Vec<(Packet, f64)> {
    let mut all = Vec::new();
    for port in [80, 443, 22] {
        all.extend(syns(port).into_iter().map(|(p, w)| (p, w * 0.01)));
    }
    for (sport, dport) in [(33_211, 443), (51_873, 80), (443, 40_211), (80, 51_002), (52_104, 22)] {
        for (length, flags) in [(40, 0x10), (52, 0x10), (1500, 0x10), (1400, 0x18), (600, 0x18)] {
            all.push((packet(6, sport, dport, length, flags), 1.0));
        }
    }
    for (sport, dport, length, weight) in [
        (53, 41_022, 110, 1.0),
        (53, 41_876, 180, 1.0),
        (53, 42_013, 290, 0.5),
        (123, 50_123, 76, 0.5),
        (443, 50_441, 80, 1.0),
        (443, 50_442, 1278, 1.0),
        (443, 50_443, 1378, 1.0),
        (443, 50_443, 1228, 1.0),
        (51_820, 51_820, 1420, 0.5),
        (4500, 4500, 1380, 0.2),
        (33_211, 7777, 70, 1.0),
        (33_211, 27_015, 110, 1.0),
        (51_873, 9987, 172, 1.0),
        (61_234, 30_120, 540, 1.0),
        (61_234, 28_015, 1100, 0.5),
    ] {
        all.push((packet(17, sport, dport, length, 0), weight));
    }
    all.push((packet(1, 0, 0, 84, 0), 0.1));
    let mut fragment = packet(17, 0, 0, 1200, 0);
    fragment.fragment = Fragment::Later;
    all.push((fragment, 0.1));
    all
}

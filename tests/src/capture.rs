//! Attack captures of the project's own making, for machines without the corpus.

use std::fs::File;
use std::io::BufWriter;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use weir_model::{Direction, Fragment, Millis};
use weir_traffic::encode::frame;
use weir_traffic::pcap::Writer;
use weir_traffic::{Origin, Packet, Rng};

/// Link type of Ethernet frames.
const ETHERNET: u32 = 1;

/// Packets of the flood: 1.2 s at 20,000 a second.
const PACKETS: u64 = 24_000;

/// Packets of [`ntp_flood`]: one second at 10,000 a second.
const ANSWERS: u64 = 10_000;

/// Writes a spoofed SYN flood on 10.10.10.10:25565: 40-octet SYNs, a new source each.
///
/// # Panics
/// When the file cannot be written.
pub fn syn_flood(path: &Path) -> PathBuf {
    let mut rng = Rng::new(7);
    write(
        path,
        (0..PACKETS).map(|number| Packet {
            at_us: number * 50,
            src: IpAddr::V4(Ipv4Addr::from(rng.below(u32::MAX - 1) | 0x0100_0000)),
            src_port: rng.between(1024, 65535),
            dst_port: 25565,
            protocol: 6,
            tcp_flags: weir_model::tcp_flags::SYN,
            length: 40,
            ttl: 240,
            ..blank()
        }),
    )
}

/// Writes NTP reflection on 10.10.10.10: answers of 468 octets from 400 reflectors.
///
/// # Panics
/// When the file cannot be written.
pub fn ntp_flood(path: &Path) -> PathBuf {
    let mut rng = Rng::new(11);
    write(
        path,
        (0..ANSWERS).map(|number| Packet {
            at_us: number * 100,
            src: IpAddr::V4(Ipv4Addr::from(0xc612_0000 + rng.below(400) * 251)),
            src_port: 123,
            dst_port: rng.between(1024, 65535),
            protocol: 17,
            length: 468,
            ttl: 52,
            ..blank()
        }),
    )
}

fn blank() -> Packet {
    Packet {
        at_us: 0,
        count: 1,
        src: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        dst: IpAddr::V4(Ipv4Addr::new(10, 10, 10, 10)),
        src_port: 0,
        dst_port: 0,
        protocol: 0,
        tcp_flags: 0,
        icmp_type: 0,
        icmp_code: 0,
        length: 0,
        ttl: 64,
        fragment: Fragment::None,
        direction: Direction::Inbound,
        origin: Origin::Attack(0),
    }
}

fn write(path: &Path, packets: impl Iterator<Item = Packet>) -> PathBuf {
    let file = BufWriter::new(File::create(path).expect("a file"));
    let mut writer = Writer::with_link_type(file, ETHERNET).expect("a header");
    let mut octets = Vec::new();
    for packet in packets {
        octets.clear();
        frame::ethernet(&mut octets, &packet, usize::MAX);
        writer.frame(Millis::from_secs(1_800_000_000), packet.at_us, &octets).expect("a frame");
    }
    writer.finish().expect("a whole file");
    path.to_owned()
}

/// What a capture holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets.
    pub packets: u64,
    /// Their layer-3 octets.
    pub bytes: u64,
}

/// Writes `packets` UDP packets of four lengths, in 300 flows from 200 sources towards 50 hosts of
/// a /24, and says what they add up to.
///
/// # Panics
/// When the file cannot be written.
pub fn known(path: &Path, packets: u64, net: [u8; 3]) -> Totals {
    let file = BufWriter::new(File::create(path).expect("a file"));
    let mut writer = Writer::with_link_type(file, ETHERNET).expect("a header");
    let mut totals = Totals::default();
    let mut octets = Vec::new();
    let octet = |n: u64, of: u64| u8::try_from(n % of + 1).expect("below 256");
    for number in 0..packets {
        let flow = number % 300;
        let length: u16 = [60, 200, 576, 1400][((flow + number / 300) % 4) as usize];
        let packet = Packet {
            at_us: number * 100,
            count: 1,
            src: IpAddr::V4(Ipv4Addr::new(198, 51, 100, octet(flow, 200))),
            dst: IpAddr::V4(Ipv4Addr::new(net[0], net[1], net[2], octet(flow, 50))),
            src_port: u16::try_from(1024 + flow).expect("a port"),
            dst_port: 30_120,
            protocol: 17,
            tcp_flags: 0,
            icmp_type: 0,
            icmp_code: 0,
            length,
            ttl: 57,
            fragment: Fragment::None,
            direction: Direction::Inbound,
            origin: Origin::Benign,
        };
        octets.clear();
        frame::ethernet(&mut octets, &packet, usize::MAX);
        writer.frame(Millis::from_secs(1_800_000_000), packet.at_us, &octets).expect("a frame");
        totals.packets += 1;
        totals.bytes += u64::from(length);
    }
    writer.finish().expect("a whole file");
    totals
}

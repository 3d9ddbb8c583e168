//! Reads captures: files of one datagram, or pcap and pcapng with UDP in it.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use weir_model::Millis;

/// A UDP payload with its sender and, from a capture, its time.
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) at: Option<Millis>,
    pub(crate) payload: Vec<u8>,
}

/// The folder of flow captures, if there is one.
pub(crate) fn corpus() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    let folder = std::env::var_os("WEIR_CORPUS").map_or(beside, PathBuf::from).join("flows");
    if folder.join("MANIFEST.json").exists() {
        return Some(folder);
    }
    println!("skipped: no corpus of flow captures (WEIR_CORPUS)");
    None
}

pub(crate) fn datagrams(path: &Path) -> Vec<Datagram> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("pcap" | "pcapng" | "cap") => captured(path),
        _ => {
            let from = SocketAddr::from(([192, 0, 2, 1], 2055));
            vec![Datagram { from, at: None, payload: std::fs::read(path).unwrap() }]
        }
    }
}

fn captured(path: &Path) -> Vec<Datagram> {
    let mut out = Vec::new();
    let mut take = |link: DataLink, at: Duration, frame: &[u8]| {
        if let Some((from, payload)) = udp(link, frame) {
            let at = Some(Millis(u64::try_from(at.as_millis()).unwrap()));
            out.push(Datagram { from, at, payload: payload.to_vec() });
        }
    };
    let magic = std::fs::read(path).unwrap()[..4].to_vec();
    if magic == [0x0a, 0x0d, 0x0d, 0x0a] {
        let mut reader = PcapNgReader::new(File::open(path).unwrap()).unwrap();
        let mut link = DataLink::ETHERNET;
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(block) => link = block.linktype,
                Block::EnhancedPacket(block) => take(link, block.timestamp, &block.data),
                _ => {}
            }
        }
    } else {
        let mut reader = PcapReader::new(File::open(path).unwrap()).unwrap();
        let link = reader.header().datalink;
        // Raw: some captures of the corpus have fractions of a second beyond a second.
        while let Some(packet) = reader.next_raw_packet() {
            let packet = packet.unwrap();
            take(link, Duration::from_secs(packet.ts_sec.into()), &packet.data);
        }
    }
    out
}

fn udp(link: DataLink, frame: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let ip = match link {
        DataLink::ETHERNET => {
            let mut at = 12;
            while frame.get(at..at + 2)? == [0x81, 0x00] {
                at += 4;
            }
            frame.get(at + 2..)?
        }
        DataLink::LINUX_SLL => frame.get(16..)?,
        DataLink::NULL | DataLink::LOOP => frame.get(4..)?,
        _ => frame,
    };
    let (source, body) = match ip.first()? >> 4 {
        4 if ip[9] == 17 => {
            let source: [u8; 4] = ip[12..16].try_into().unwrap();
            (IpAddr::V4(Ipv4Addr::from(source)), ip.get(usize::from(ip[0] & 15) * 4..)?)
        }
        6 if ip[6] == 17 => {
            let source: [u8; 16] = ip[8..24].try_into().unwrap();
            (IpAddr::V6(Ipv6Addr::from(source)), ip.get(40..)?)
        }
        _ => return None,
    };
    let port = u16::from_be_bytes([*body.first()?, *body.get(1)?]);
    let len = usize::from(u16::from_be_bytes([*body.get(4)?, *body.get(5)?]));
    Some((SocketAddr::new(source, port), body.get(8..len.min(body.len()))?))
}

//! What passed towards protected hosts, second by second, finely enough to tell exactly what any
//! FlowSpec rule or null-route would have hit.
//!
//! As text, `mix.csv`: a header line with the names of [`COLUMNS`] in any order, then a row for
//! each second and kind of packet. Columns that a generator does not know may be left out.

use std::io::{self, BufRead, Read as _, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rustc_hash::FxHashMap;
use weir_model::{Direction, FlagMatch, Fragment, FragmentMatch, Match, Range};

use crate::packet::Packet;

/// Columns of `mix.csv` as weir writes them; other names understood are in parentheses:
/// `second` (since the case's epoch), `dst`, `protocol` (`proto`), `src_port` (`sport`),
/// `dst_port` (`dport`), `length` (`len`, layer-3 octets of one packet), `tcp_flags` (`flags`),
/// `fragment` (`frag`: 0 no, 1 first, 2 later), `icmp_type`, `icmp_code`, `src_net`
/// (`src24`, `src`: a prefix or its address), and four sums.
pub const COLUMNS: [&str; 15] = [
    "second",
    "dst",
    "protocol",
    "src_port",
    "dst_port",
    "length",
    "tcp_flags",
    "fragment",
    "icmp_type",
    "icmp_code",
    "src_net",
    "benign_packets",
    "benign_bytes",
    "attack_packets",
    "attack_bytes",
];

/// A kind of packet within one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// Destination, protected.
    pub dst: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Layer-3 octets of one packet.
    pub length: u16,
    /// TCP control bits.
    pub tcp_flags: u8,
    /// Fragmentation.
    pub fragment: Fragment,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// First address of the source's /24 or /48.
    pub src_net: IpAddr,
}

/// Packets and layer-3 octets of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Benign packets.
    pub benign_packets: u64,
    /// Octets of benign packets.
    pub benign_bytes: u64,
    /// Attack packets.
    pub attack_packets: u64,
    /// Octets of attack packets.
    pub attack_bytes: u64,
}

impl Volume {
    /// Adds another; where a file's numbers are absurd, the sum stays at the highest there is.
    const fn add(&mut self, other: &Self) {
        self.benign_packets = self.benign_packets.saturating_add(other.benign_packets);
        self.benign_bytes = self.benign_bytes.saturating_add(other.benign_bytes);
        self.attack_packets = self.attack_packets.saturating_add(other.attack_packets);
        self.attack_bytes = self.attack_bytes.saturating_add(other.attack_bytes);
    }
}

/// One second of a case.
pub type Second = Vec<(Kind, Volume)>;

/// Everything that passed towards protected hosts after the learning time.
#[derive(Clone, Debug, Default)]
pub struct Mix {
    first: u64,
    seconds: Vec<Second>,
    open: FxHashMap<Kind, Volume>,
    open_second: u64,
}

/// First address of the prefix in which sources are told apart.
fn net_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(a) => {
            let [a, b, c, _] = a.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from(u128::from(a) >> 80 << 80)),
    }
}

impl Mix {
    /// A mix that begins with second `first`; what is before is left out.
    pub fn new(first: u64) -> Self {
        Self { first, seconds: Vec::new(), open: FxHashMap::default(), open_second: first }
    }

    /// Adds a packet; packets come in order of time.
    pub fn add(&mut self, packet: &Packet) {
        let second = packet.at_us / 1_000_000;
        if second < self.first || packet.direction != Direction::Inbound {
            return;
        }
        while self.open_second < second {
            self.close();
        }
        let kind = Kind {
            dst: packet.dst,
            protocol: packet.protocol,
            src_port: packet.src_port,
            dst_port: packet.dst_port,
            length: packet.length,
            tcp_flags: packet.tcp_flags,
            fragment: packet.fragment,
            icmp_type: packet.icmp_type,
            icmp_code: packet.icmp_code,
            src_net: net_of(packet.src),
        };
        let packets = u64::from(packet.count);
        let bytes = packets * u64::from(packet.length);
        let volume = self.open.entry(kind).or_default();
        if packet.is_attack() {
            volume.attack_packets += packets;
            volume.attack_bytes += bytes;
        } else {
            volume.benign_packets += packets;
            volume.benign_bytes += bytes;
        }
    }

    /// Ends the second being filled.
    pub fn close(&mut self) {
        let mut rows: Second = self.open.drain().collect();
        rows.sort_unstable_by_key(|row| row.0);
        self.seconds.push(rows);
        self.open_second += 1;
    }

    /// The seconds with their numbers since the case's epoch.
    pub fn seconds(&self) -> impl Iterator<Item = (u64, &Second)> {
        self.seconds.iter().enumerate().map(|(i, rows)| (self.first + i as u64, rows))
    }

    /// Writes it as `mix.csv`.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", COLUMNS.join(","))?;
        for (second, rows) in self.seconds() {
            for (k, v) in rows {
                writeln!(
                    out,
                    "{second},{},{},{},{},{},{},{},{},{},{}/{},{},{},{},{}",
                    k.dst,
                    k.protocol,
                    k.src_port,
                    k.dst_port,
                    k.length,
                    k.tcp_flags,
                    match k.fragment {
                        Fragment::None => 0,
                        Fragment::First => 1,
                        Fragment::Later => 2,
                    },
                    k.icmp_type,
                    k.icmp_code,
                    k.src_net,
                    if k.src_net.is_ipv4() { 24 } else { 48 },
                    v.benign_packets,
                    v.benign_bytes,
                    v.attack_packets,
                    v.attack_bytes,
                )?;
            }
        }
        Ok(())
    }

    /// Reads a `mix.csv`.
    ///
    /// # Errors
    /// What the reader says; a line that makes no sense is invalid data, with its number.
    pub fn read(input: impl BufRead) -> io::Result<Self> {
        let mut rows = Rows { input, line: String::new(), number: 0 };
        let header = rows.next()?.unwrap_or_default().to_owned();
        let columns = header.split(',').map(column).collect::<Vec<Option<usize>>>();
        for needed in [0, 1] {
            if !columns.contains(&Some(needed)) {
                return Err(rows.wrong(&format!("no column {}", COLUMNS[needed])));
            }
        }
        let mut mix = Self::default();
        let mut begun = false;
        while let Some(line) = rows.next()? {
            if line.trim().is_empty() {
                continue;
            }
            let (second, kind, volume) = match row(line, &columns) {
                Ok(row) => row,
                Err(column) => {
                    return Err(rows.wrong(&format!("{} makes no sense", COLUMNS[column])));
                }
            };
            if !begun {
                (mix.first, mix.open_second, begun) = (second, second, true);
            }
            if second < mix.open_second {
                return Err(rows.wrong(&format!("second {second} out of order")));
            }
            if second > SECONDS_MAX {
                return Err(rows.wrong(&format!("second {second} is later than {SECONDS_MAX}")));
            }
            while mix.open_second < second {
                mix.close();
            }
            let sum = mix.open.entry(kind).or_default();
            sum.add(&volume);
        }
        mix.close();
        Ok(mix)
    }
}

/// Latest second of a case, a month: a file cannot make us allocate without end.
pub(crate) const SECONDS_MAX: u64 = 31 * 86_400;

/// Longest line, octets.
const LINE_MAX: u64 = 4096;

/// The lines of a file, counted from 1.
struct Rows<R> {
    input: R,
    line: String,
    number: usize,
}

impl<R: BufRead> Rows<R> {
    fn next(&mut self) -> io::Result<Option<&str>> {
        self.line.clear();
        self.number += 1;
        let read = self.input.by_ref().take(LINE_MAX).read_line(&mut self.line);
        match read {
            Err(error) => {
                Err(io::Error::new(error.kind(), format!("line {}: {error}", self.number)))
            }
            Ok(0) => Ok(None),
            Ok(read) if read as u64 == LINE_MAX => {
                Err(self.wrong(&format!("longer than {LINE_MAX} octets")))
            }
            Ok(_) => Ok(Some(self.line.trim_end())),
        }
    }

    fn wrong(&self, what: &str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {what}", self.number))
    }
}

/// The place of a column's name in [`COLUMNS`].
fn column(name: &str) -> Option<usize> {
    let name = match name.trim() {
        "sec" | "t" => "second",
        "proto" => "protocol",
        "sport" => "src_port",
        "dport" => "dst_port",
        "len" => "length",
        "flags" => "tcp_flags",
        "frag" => "fragment",
        "src24" | "src/24" | "src" => "src_net",
        "benign_pkts" => "benign_packets",
        "attack_pkts" => "attack_packets",
        other => other,
    };
    COLUMNS.iter().position(|c| *c == name)
}

/// A row's second, kind and volume, or the column of [`COLUMNS`] that makes no sense.
fn row(line: &str, columns: &[Option<usize>]) -> Result<(u64, Kind, Volume), usize> {
    let mut cells = [""; COLUMNS.len()];
    for (cell, column) in line.split(',').zip(columns) {
        if let Some(column) = column {
            cells[*column] = cell.trim();
        }
    }
    let number =
        |i: usize| if cells[i].is_empty() { Ok(0) } else { cells[i].parse::<u64>().map_err(|_| i) };
    let octet = |i| number(i).and_then(|n| u8::try_from(n).map_err(|_| i));
    let short = |i| number(i).and_then(|n| u16::try_from(n).map_err(|_| i));
    let net = cells[10].split('/').next().unwrap_or("");
    let kind = Kind {
        dst: cells[1].parse().map_err(|_| 1usize)?,
        protocol: octet(2)?,
        src_port: short(3)?,
        dst_port: short(4)?,
        length: short(5)?,
        tcp_flags: octet(6)?,
        fragment: match cells[7] {
            "" | "0" | "none" | "false" => Fragment::None,
            "1" | "first" => Fragment::First,
            _ => Fragment::Later,
        },
        icmp_type: octet(8)?,
        icmp_code: octet(9)?,
        src_net: net.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    };
    let volume = Volume {
        benign_packets: number(11)?,
        benign_bytes: number(12)?,
        attack_packets: number(13)?,
        attack_bytes: number(14)?,
    };
    Ok((number(0)?, kind, volume))
}

fn among(list: &[Range], value: u16) -> bool {
    list.is_empty() || list.iter().any(|r| r.contains(value))
}

/// Whether a router that has `rule` finds these packets in it (RFC 8955 §4.2.2).
pub fn hits(rule: &Match, kind: &Kind) -> bool {
    let later = kind.fragment == Fragment::Later;
    let ported = matches!(kind.protocol, 6 | 17 | 132) && !later;
    let icmp = matches!(kind.protocol, 1 | 58) && !later;
    let tcp = kind.protocol == 6 && !later;
    rule.dst.contains(&IpNet::from(kind.dst))
        && rule.src.is_none_or(|src| src.contains(&kind.src_net))
        && (rule.protocols.is_empty() || rule.protocols.contains(&kind.protocol))
        && (rule.dst_ports.is_empty() || ported && among(&rule.dst_ports, kind.dst_port))
        && (rule.src_ports.is_empty() || ported && among(&rule.src_ports, kind.src_port))
        && (rule.icmp_types.is_empty() || icmp && rule.icmp_types.contains(&kind.icmp_type))
        && (rule.icmp_codes.is_empty() || icmp && rule.icmp_codes.contains(&kind.icmp_code))
        && (rule.tcp_flags.is_empty()
            || tcp
                && rule
                    .tcp_flags
                    .iter()
                    .any(|FlagMatch { mask, set }| kind.tcp_flags & mask == *set))
        && among(&rule.lengths, kind.length)
        && (rule.dscps.is_empty() || rule.dscps.contains(&0))
        && match rule.fragment {
            None => true,
            Some(FragmentMatch::IsFragment) => kind.fragment != Fragment::None,
            Some(FragmentMatch::NotFragment) => kind.fragment == Fragment::None,
            Some(FragmentMatch::First) => kind.fragment == Fragment::First,
            Some(FragmentMatch::Last) => later,
        }
}

#[cfg(test)]
mod tests {
    use weir_model::Millis;

    use super::*;
    use crate::scene::Scene;

    #[test]
    fn a_mix_survives_being_written_and_read() {
        let scene = Scene::demo(3);
        let (_, mix) = crate::case::play(&scene, Millis(0), |_| Ok::<(), ()>(())).unwrap();
        let mut text = Vec::new();
        mix.write(&mut text).unwrap();
        let read = Mix::read(text.as_slice()).unwrap();
        assert!(mix.seconds().count() > 40);
        let both = mix.seconds().zip(read.seconds());
        for ((a, rows), (b, again)) in both {
            assert!(a == b && rows == again, "second {a}");
        }
        let attack: u64 =
            mix.seconds().flat_map(|(_, rows)| rows).map(|(_, v)| v.attack_packets).sum();
        assert!((3_700_000..4_000_000).contains(&attack), "{attack}");
    }

    #[test]
    fn other_generators_names_and_missing_columns_are_understood() {
        let text = "second,dst,proto,sport,dport,len,flags,frag,src24,benign_pkts,benign_bytes,\
                    attack_pkts,attack_bytes\n7,203.0.113.7,17,123,30120,468,0,0,198.51.100.0/24,\
                    0,0,10,4680\n";
        let mix = Mix::read(text.as_bytes()).unwrap();
        let (second, rows) = mix.seconds().next().unwrap();
        assert_eq!((second, rows.len()), (7, 1));
        assert_eq!(rows[0].0.src_port, 123);
        assert_eq!(rows[0].1.attack_bytes, 4680);
        assert!(Mix::read("second,dst\n5,nonsense\n".as_bytes()).is_err());
        assert!(Mix::read("second,dst\n5,1.2.3.4\n4,1.2.3.4\n".as_bytes()).is_err());
    }

    #[test]
    fn rules_hit_what_a_router_would_hit() {
        let kind = Kind {
            dst: "203.0.113.7".parse().unwrap(),
            protocol: 17,
            src_port: 123,
            dst_port: 30120,
            length: 468,
            tcp_flags: 0,
            fragment: Fragment::None,
            icmp_type: 0,
            icmp_code: 0,
            src_net: "198.51.100.0".parse().unwrap(),
        };
        let rule = |f: fn(&mut Match)| {
            let mut m = Match::to_host("203.0.113.7".parse().unwrap());
            f(&mut m);
            m
        };
        assert!(hits(&rule(|_| ()), &kind));
        assert!(hits(&rule(|m| m.src_ports = vec![Range::exact(123)]), &kind));
        assert!(!hits(&rule(|m| m.src_ports = vec![Range::exact(53)]), &kind));
        assert!(hits(&rule(|m| m.lengths = vec![Range { from: 400, to: 500 }]), &kind));
        assert!(!hits(&rule(|m| m.fragment = Some(FragmentMatch::IsFragment)), &kind));
        let later = Kind { fragment: Fragment::Later, src_port: 0, dst_port: 0, ..kind };
        assert!(!hits(&rule(|m| m.src_ports = vec![Range { from: 0, to: 65535 }]), &later));
        assert!(hits(&rule(|m| m.fragment = Some(FragmentMatch::IsFragment)), &later));
        let syn = Kind { protocol: 6, tcp_flags: 0x02, ..kind };
        let flags = |m: &mut Match| m.tcp_flags = vec![FlagMatch { mask: 0x12, set: 0x02 }];
        assert!(hits(&rule(flags), &syn));
        assert!(!hits(&rule(flags), &Kind { tcp_flags: 0x12, ..syn }));
        assert!(!hits(&rule(flags), &kind));
    }
}

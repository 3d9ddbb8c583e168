//! Floods, as models. Sizes and ports are those that published measurements of the vectors name.

use weir_model::{Fragment, tcp_flags};

use crate::source::{Locals, Peers, Port, Rate, Source, Variant};

/// A protocol whose servers answer more than they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reflector {
    /// NTP monlist: source port 123, 468 octets.
    Ntp,
    /// DNS, large answers in fragments: source port 53.
    Dns,
    /// SSDP: source port 1900.
    Ssdp,
    /// CLDAP: source port 389.
    Cldap,
    /// Memcached: source port 11211.
    Memcached,
    /// CharGEN: source port 19.
    Chargen,
    /// SNMP: source port 161.
    Snmp,
    /// BACnet and DHDiscover together: source ports 47808 and 37810.
    BacnetDhdiscover,
    /// ISAKMP and NAT traversal: source ports 500 and 4500.
    Isakmp,
}

impl Reflector {
    /// The signature that names it.
    pub const fn subtype(self) -> &'static str {
        match self {
            Self::Ntp => "ntp-amplification",
            Self::Dns => "dns-amplification",
            Self::Ssdp => "ssdp-amplification",
            Self::Cldap => "cldap-amplification",
            Self::Memcached => "memcached-amplification",
            Self::Chargen => "chargen-amplification",
            Self::Snmp => "snmp-amplification",
            Self::BacnetDhdiscover => "bacnet-amplification",
            Self::Isakmp => "isakmp-amplification",
        }
    }

    /// Usual number of reflectors in use.
    pub const fn hosts(self) -> u32 {
        match self {
            Self::Memcached => 120,
            Self::Chargen => 400,
            _ => 3000,
        }
    }

    /// Shapes of the answers, towards a port.
    pub fn variants(self, port: &Port) -> Vec<Variant> {
        let udp = |remote, length| Variant::udp(Port::Fixed(remote), port.clone(), length);
        match self {
            Self::Ntp => {
                vec![udp(123, (468, 468)).weighing(0.97), udp(123, (104, 440)).weighing(0.03)]
            }
            Self::Dns => vec![
                Variant { fragment: Fragment::First, ..udp(53, (1500, 1500)) },
                Variant::later_fragment(17, (1200, 1500)),
                udp(53, (900, 1480)).weighing(0.4),
            ],
            Self::Ssdp => vec![udp(1900, (290, 420))],
            Self::Cldap => vec![
                Variant { fragment: Fragment::First, ..udp(389, (1500, 1500)) },
                Variant::later_fragment(17, (1100, 1500)),
                udp(389, (1300, 1480)).weighing(0.5),
            ],
            Self::Memcached => vec![udp(11211, (1428, 1428))],
            Self::Chargen => vec![udp(19, (600, 1400))],
            Self::Snmp => vec![
                udp(161, (200, 1400)).weighing(0.93),
                // Answers to the reflectors' victims that were closed: port unreachable.
                Variant::icmp(3, 3, (56, 120)).weighing(0.07),
            ],
            Self::BacnetDhdiscover => vec![
                udp(47808, (60, 360)).weighing(0.55),
                udp(37810, (400, 700)).weighing(0.43),
                Variant::icmp(3, 3, (56, 120)).weighing(0.02),
            ],
            Self::Isakmp => {
                vec![udp(500, (120, 420)).weighing(0.8), udp(4500, (120, 420)).weighing(0.2)]
            }
        }
    }
}

/// Answers of reflectors towards a host's port.
pub fn reflection(kind: Reflector, victim: Locals, port: &Port, rate: Rate) -> Source {
    let variants = kind.variants(port);
    Source::new(kind.subtype(), rate, Peers::Hosts(kind.hosts()), victim, variants).attack(0)
}

/// SYNs of 40 octets from made-up addresses.
pub fn syn_flood(victim: Locals, port: Port, rate: Rate) -> Source {
    let syn = Variant::tcp(Port::Random(1024, u16::MAX), port, (40, 40), tcp_flags::SYN);
    Source::new("syn-flood", rate, Peers::Spoofed, victim, vec![syn.with_ttl(30, 240)]).attack(0)
}

/// UDP of one length from a botnet.
pub fn udp_flood(victim: Locals, port: Port, length: (u16, u16), bots: u32, rate: Rate) -> Source {
    let udp = Variant::udp(Port::Random(1024, u16::MAX), port, length);
    Source::new("udp-flood", rate, Peers::Hosts(bots), victim, vec![udp]).attack(0)
}

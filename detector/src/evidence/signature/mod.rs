//! Known kinds of attack, one file each: to add one, add a file and a line in [`SIGNATURES`].

use weir_model::{Family, Fragment};

use crate::watch::packets::Packet;

mod ack_flood;
mod ard;
mod bacnet;
mod chargen;
mod cldap;
mod coap;
mod dhdiscover;
mod dns_amplification;
mod dns_query;
mod fragments;
mod gre_flood;
mod http_flood;
mod icmp_echo;
mod icmp_other;
mod icmp_unreachable;
mod isakmp;
mod mdns;
mod memcached;
mod mssql;
mod netbios;
mod ntp;
mod openvpn;
mod other_protocol;
mod plex;
mod portmap;
mod qotd;
mod rip;
mod rst_flood;
mod snmp;
mod ssdp;
mod steam;
mod syn_ack_reflection;
mod syn_flood;
mod tcp_flood;
mod tftp;
mod ubiquiti;
mod udp_flood;
mod wsd;
mod xmas_null;

/// Which packets may belong to a kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packets {
    /// UDP from one of these ports to a port above 1023 or to a declared service.
    AnswersFrom(&'static [u16]),
    /// UDP to one of these ports.
    UdpTo(&'static [u16]),
    /// Fragments after the first.
    Fragments,
    /// TCP with exactly the bits `set` of those in `mask`.
    TcpFlags {
        /// Bits looked at.
        mask: u8,
        /// Bits that are on.
        set: u8,
    },
    /// TCP with ACK to one of these ports, of which a fair share carries data (PSH).
    RequestsTo(&'static [u16]),
    /// TCP with combinations of flags that no implementation sends.
    TcpOdd,
    /// ICMP of one of these (protocol, type); all when empty.
    Icmp(&'static [(u8, u8)]),
    /// An IP protocol.
    Protocol(u8),
    /// Whatever is left.
    Any,
}

impl Packets {
    /// Whether `packet` may belong.
    pub(crate) fn holds(self, packet: &Packet) -> bool {
        let later = packet.fragment == Fragment::Later;
        match self {
            Self::AnswersFrom(ports) => {
                packet.protocol == 17 && !later && ports.contains(&packet.src_port)
            }
            Self::UdpTo(ports) => {
                packet.protocol == 17 && !later && ports.contains(&packet.dst_port)
            }
            // Flow records give the parts after the first no ports, and often nothing else.
            Self::Fragments => {
                later || (packet.protocol == 17 && packet.src_port == 0 && packet.dst_port == 0)
            }
            Self::TcpFlags { mask, set } => {
                packet.protocol == 6 && !later && packet.tcp_flags & mask == set
            }
            Self::RequestsTo(ports) => {
                packet.protocol == 6
                    && !later
                    && packet.tcp_flags & 0x14 == 0x10
                    && ports.contains(&packet.dst_port)
            }
            Self::TcpOdd => {
                let flags = packet.tcp_flags & 0x3f;
                packet.protocol == 6
                    && !later
                    && (flags & 0x03 == 0x03 || flags & 0x06 == 0x06 || flags & 0x39 == 0x29)
            }
            Self::Icmp(types) => {
                packet.is_icmp()
                    && !later
                    && (types.is_empty() || types.contains(&(packet.protocol, packet.icmp_type)))
            }
            Self::Protocol(protocol) => packet.protocol == protocol && !later,
            Self::Any => true,
        }
    }
}

impl Packets {
    /// The protocol of all such packets, where there is one.
    pub(crate) const fn protocol(self) -> Option<u8> {
        match self {
            Self::AnswersFrom(_) | Self::UdpTo(_) => Some(17),
            Self::TcpFlags { .. } | Self::TcpOdd | Self::RequestsTo(_) => Some(6),
            Self::Protocol(protocol) => Some(protocol),
            Self::Fragments | Self::Icmp(_) | Self::Any => None,
        }
    }
}

/// One kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Stable identifier: [`weir_model::Vector::subtype`], API, manual.
    pub id: &'static str,
    /// For people.
    pub title: &'static str,
    /// Family it belongs to.
    pub family: Family,
    /// Which packets may belong.
    pub packets: Packets,
    /// Smallest average layer-3 length of those packets, octets.
    pub length_min: u16,
    /// Largest average layer-3 length of those packets, octets.
    pub length_max: u16,
    /// Fewest distinct sources among the packets sampled.
    pub sources_min: u32,
    /// Tells an attack without knowing what is normal for the host.
    pub standalone: bool,
}

/// All kinds, the more particular first: a packet is put to the first kind whose conditions hold.
pub const SIGNATURES: &[Signature] = &[
    ntp::SIGNATURE,
    dns_amplification::SIGNATURE,
    ssdp::SIGNATURE,
    cldap::SIGNATURE,
    memcached::SIGNATURE,
    chargen::SIGNATURE,
    qotd::SIGNATURE,
    snmp::SIGNATURE,
    isakmp::SIGNATURE,
    bacnet::SIGNATURE,
    dhdiscover::SIGNATURE,
    ard::SIGNATURE,
    wsd::SIGNATURE,
    mdns::SIGNATURE,
    openvpn::SIGNATURE,
    ubiquiti::SIGNATURE,
    tftp::SIGNATURE,
    rip::SIGNATURE,
    plex::SIGNATURE,
    coap::SIGNATURE,
    netbios::SIGNATURE,
    portmap::SIGNATURE,
    mssql::SIGNATURE,
    steam::SIGNATURE,
    fragments::SIGNATURE,
    syn_flood::SIGNATURE,
    syn_ack_reflection::SIGNATURE,
    xmas_null::SIGNATURE,
    rst_flood::SIGNATURE,
    http_flood::SIGNATURE,
    ack_flood::SIGNATURE,
    gre_flood::SIGNATURE,
    icmp_unreachable::SIGNATURE,
    icmp_echo::SIGNATURE,
    icmp_other::SIGNATURE,
    dns_query::SIGNATURE,
    udp_flood::SIGNATURE,
    tcp_flood::SIGNATURE,
    other_protocol::SIGNATURE,
];

/// The signature with this identifier.
pub fn find(id: &str) -> Option<&'static Signature> {
    SIGNATURES.iter().find(|s| s.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_unique_and_the_last_one_takes_anything() {
        let mut ids: Vec<&str> = SIGNATURES.iter().map(|s| s.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), SIGNATURES.len());
        assert_eq!(SIGNATURES.last().map(|s| s.packets), Some(Packets::Any));
        assert_eq!(find("ntp-amplification").map(|s| s.family), Some(Family::UdpFlood));
    }
}

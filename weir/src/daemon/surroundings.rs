//! What weir depends on and no configuration names: the addresses from which this machine reaches its
//! exporters and peers, and the resolvers it asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use weir_config::Config;
use weir_model::{Infrastructure, Part};

/// Hosts towards which the own address is looked up at most.
const LOOKS_MAX: usize = 256;

/// Resolvers at most.
const RESOLVERS_MAX: usize = 8;

/// Where the system's resolvers stand.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Looks around. What cannot be read is left out.
pub(super) fn look(config: &Config) -> Vec<Infrastructure> {
    let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let mut all: Vec<Infrastructure> = resolvers(&text)
        .map(|address| Infrastructure {
            address,
            part: Part::Resolver,
            name: RESOLV_CONF.to_owned(),
        })
        .collect();
    let named = config.infrastructure();
    let others = named.iter().filter(|own| own.part != Part::Weir).chain(&all);
    let own = others.take(LOOKS_MAX).filter_map(|other| {
        let name = format!("address towards {}", other.name);
        own_address(other.address).map(|address| Infrastructure { address, part: Part::Weir, name })
    });
    let own: Vec<Infrastructure> = own.filter(|own| !own.address.is_loopback()).collect();
    all.extend(own);
    all
}

/// The address from which this machine would send there. Nothing is sent.
fn own_address(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(SocketAddr::new(to, 9)).ok()?;
    socket.local_addr().ok().map(|own| own.ip())
}

fn resolvers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            words.next().filter(|word| *word == "nameserver")?;
            // A zone after the address is not part of it.
            words.next()?.split('%').next()?.parse().ok()
        })
        .take(RESOLVERS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_as_the_system_reads_them() {
        let text = "# comment\nsearch example.net\nnameserver 203.0.113.53\n\
            nameserver\t2001:db8::53%eth0 trailing\nnameserver bogus\n nameserverx 192.0.2.1\n";
        let found: Vec<String> = resolvers(text).map(|ip| ip.to_string()).collect();
        assert_eq!(found, ["203.0.113.53", "2001:db8::53"]);
    }

    #[test]
    fn the_own_address_is_the_one_packets_leave_from() {
        let own = own_address(Ipv4Addr::LOCALHOST.into());
        assert_eq!(own, Some(Ipv4Addr::LOCALHOST.into()));
    }
}

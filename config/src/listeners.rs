//! Addresses on which weir listens: no two may be the same, or weir would not start.

use std::net::{IpAddr, SocketAddr};

use crate::Config;

/// A listener and the setting that asks for it.
type Listener = (&'static str, SocketAddr);

pub(crate) fn check(config: &Config, errors: &mut Vec<String>) {
    let tcp = tcp(config);
    let udp: Vec<Listener> = udp(config).collect();
    // With several sockets a listener, the kernel lets a wider and a narrower address live side by side.
    let shares = config.collector.sockets_per_listener > 1;
    clashes("TCP", &tcp, errors, |a, b| overlap(a.ip(), b.ip()));
    clashes("UDP", &udp, errors, |a, b| if shares { a == b } else { overlap(a.ip(), b.ip()) });
}

/// Every listener.
pub(crate) fn all(config: &Config) -> impl Iterator<Item = Listener> {
    udp(config).chain(tcp(config))
}

fn udp(config: &Config) -> impl Iterator<Item = Listener> {
    config.collector.listen.iter().map(|at| ("collector.listen", *at))
}

fn tcp(config: &Config) -> Vec<Listener> {
    let collector = &config.collector;
    let mut all: Vec<Listener> =
        collector.listen_tcp.iter().map(|at| ("collector.listen_tcp", *at)).collect();
    all.extend(collector.listen_tls.iter().map(|at| ("collector.listen_tls", *at)));
    all.extend(config.bgp.iter().filter_map(|bgp| bgp.listen).map(|at| ("bgp.listen", at)));
    all.push(("api.listen", config.api.listen));
    all.extend(config.agents.iter().map(|agents| ("agents.listen", agents.listen)));
    all.extend(config.owners.iter().map(|owners| ("owners.listen", owners.listen)));
    all
}

fn clashes(
    kind: &str,
    all: &[Listener],
    errors: &mut Vec<String>,
    clash: impl Fn(SocketAddr, SocketAddr) -> bool,
) {
    for (i, (key, address)) in all.iter().enumerate() {
        let other = all[..i].iter().find(|(_, other)| {
            // Port 0 takes a free one.
            address.port() != 0 && address.port() == other.port() && clash(*address, *other)
        });
        if let Some((other, taken)) = other {
            errors.push(format!("{key}: {kind} {address} is taken by {other} {taken}"));
        }
    }
}

/// Whether one port of both cannot be had: `[::]` takes IPv4 as well.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    let wide = |ip: IpAddr, other: IpAddr| {
        ip.is_unspecified() && (ip.is_ipv6() || ip.is_ipv4() == other.is_ipv4())
    };
    a == b || wide(a, b) || wide(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_overlap_as_the_kernel_has_it() {
        let check = |a: &str, b: &str, expected| {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!((overlap(a, b), overlap(b, a)), (expected, expected), "{a} {b}");
        };
        check("192.0.2.1", "192.0.2.1", true);
        check("192.0.2.1", "192.0.2.2", false);
        check("0.0.0.0", "192.0.2.1", true);
        check("0.0.0.0", "2001:db8::1", false);
        check("::", "192.0.2.1", true);
        check("::", "2001:db8::1", true);
        check("2001:db8::1", "2001:db8::2", false);
    }
}

//! Tunnels: few peers, any protocol, most of the traffic of a host in very few flows.

use weir_model::Fragment;

use crate::source::Port;
use crate::world::crowd::{Shape, Talk};
use crate::world::draw::{Draw, Place};

/// A way to wrap packets: name, protocol, near port, whether the far end uses the same port.
type Wrap = (&'static str, u8, u16, bool);

const WRAPS: &[Wrap] = &[
    ("wireguard", 17, 51_820, false),
    ("wireguard", 17, 51_820, true),
    ("openvpn", 17, 1194, false),
    ("nat-t", 17, 4500, true),
    ("nat-t", 17, 4500, false),
    ("l2tp", 17, 1701, true),
    ("vxlan", 17, 4789, true),
    ("esp", 50, 0, true),
    ("gre", 47, 0, true),
    ("ipip", 4, 0, true),
    ("6in4", 41, 0, true),
    ("sctp", 132, 2905, true),
];

fn wrap(draw: &Draw) -> Wrap {
    let mut wrap = draw.pick(WRAPS);
    if wrap.1 == 17 && draw.chance(0.25) {
        wrap.2 = draw.high_port();
    }
    wrap
}

/// What goes through a tunnel: full packets and small ones.
fn payload(draw: &Draw, big: f64) -> Vec<Shape> {
    let full = draw.short(1350, 1500);
    let mut shapes = vec![
        Shape::new(big, (full.saturating_sub(60), full)),
        Shape::new(1.0 - big, (72, draw.short(120, 300))),
    ];
    if draw.chance(0.1) {
        shapes.push(Shape::new(0.1, (1500, 1500)).fragment(Fragment::First));
        shapes.push(Shape::new(0.1, (60, 140)).fragment(Fragment::Later));
    }
    shapes
}

fn build(p: &mut Place<'_>, name: &str, peers: u32, ratio: f64, people: bool) {
    let (wrap, protocol, port, same) = wrap(p.draw);
    if protocol == 17 {
        p.declare(17, port, "vpn");
    }
    let population = if people {
        let size = f64::from(peers) * p.draw.wide(1.0, 3.0);
        p.draw.people(size)
    } else {
        p.draw.machines(peers)
    };
    let remote = match (protocol, same) {
        (17 | 132, true) => Port::Fixed(port),
        (17, false) => Port::Session,
        _ => Port::None,
    };
    let local = if port == 0 { Port::None } else { Port::Fixed(port) };
    // The heavier direction carries the load, the other what is drawn of it.
    let inward = p.draw.chance(0.5);
    let big = p.draw.even(0.3, 0.98);
    let (heavy, light) = (payload(p.draw, big), payload(p.draw, 0.15));
    let (inbound, outbound) = if inward {
        (Talk::new(1.0, heavy), Talk::new(ratio, light))
    } else {
        (Talk::new(ratio, light), Talk::new(1.0, heavy))
    };
    let skew = if peers > 1 { p.draw.even(0.0, 2.5) } else { 0.0 };
    let secs = if people { p.draw.wide(120.0, 3600.0) } else { 1e6 };
    let mut crowd = p
        .crowd(name, protocol, population)
        .ports(remote, local)
        .load(peers, p.level.clone(), secs)
        .talking(inbound, outbound);
    crowd.skew = skew;
    p.note(format!("{wrap}, {peers} peers, {} heavy", if inward { "in" } else { "out" }));
    p.add(crowd);
}

/// A hub of many road warriors.
pub(crate) fn hub(p: &mut Place<'_>) {
    let peers = p.draw.count(5, 600);
    let ratio = p.draw.wide(0.2, 1.0);
    build(p, "tunnel-hub", peers, ratio, true);
}

/// One to a few other sites.
pub(crate) fn site(p: &mut Place<'_>) {
    let peers = p.draw.count(1, 6);
    let ratio = p.draw.wide(0.03, 1.0);
    build(p, "site-tunnel", peers, ratio, false);
}

/// What a scrubbing service sends back, by GRE or IPIP; answers leave another way, or through it.
pub(crate) fn scrubbed(p: &mut Place<'_>) {
    let peers = p.draw.count(1, 4);
    let protocol = p.draw.pick(&[47, 47, 4]);
    let back = p.draw.pick(&[0.0, 0.0, 0.002, 0.5]);
    let big = p.draw.even(0.1, 0.9);
    let shapes = payload(p.draw, big);
    let keepalive = vec![Shape::new(1.0, (48, 48))];
    let crowd = p
        .crowd("gre-return", protocol, p.draw.machines(peers))
        .ports(Port::None, Port::None)
        .load(peers, p.level.clone(), 1e6)
        .talking(Talk::new(1.0, shapes), Talk::new(back, keepalive));
    p.note(format!("protocol {protocol}, {peers} senders, {back} back"));
    p.add(crowd);
}

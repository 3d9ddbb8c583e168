//! Cutting a measure to what the guard allows: a carpet of attacked hosts is met on its prefix,
//! but around never-touch hosts, outside foreign ground, and in pieces no wider than configured.

use ipnet::IpNet;
use weir_bgp::guard::{Guard, Refusal};
use weir_model::{Filter, Measure};

/// Prefixes looked at for one measure; with hosts to spare, a /48 would have thousands.
const LOOKS_MAX: usize = 512;

/// The measure itself where the guard allows it, else the fewest pieces that together are the same
/// without what is not allowed; of those `parts` of its target that it is meant for, or of all where there are none.
/// Where that makes more pieces than there is room for, and the measure is allowed as it is, it is that.
///
/// # Errors
/// The guard's refusal, when pieces do not help or there would be more than `room` of them.
pub(crate) fn pieces(
    measure: &Measure,
    parts: &[IpNet],
    guard: &Guard,
    room: usize,
) -> Result<Vec<Measure>, Refusal> {
    let whole = guard.judge_measure(measure).map(|()| vec![measure.clone()]);
    let target = measure.target();
    let within = |part: &&IpNet| target.contains(*part);
    let mut open = IpNet::aggregate(&parts.iter().filter(within).copied().collect());
    if open.is_empty() {
        open.push(target);
    }
    let mut found: Vec<Measure> = Vec::new();
    let mut looks = 0;
    while let Some(net) = open.pop() {
        looks += 1;
        if looks > LOOKS_MAX {
            return whole;
        }
        let piece = towards(measure, net);
        match guard.judge_measure(&piece) {
            Ok(()) if found.len() >= room => return whole,
            Ok(()) => found.push(piece),
            Err(
                Refusal::NotProtected(_)
                | Refusal::NeverTouch(_)
                | Refusal::Infrastructure { .. }
                | Refusal::TooWide { .. },
            ) => {
                // A host is not cut further: it is left out.
                let half = net.prefix_len().saturating_add(1);
                if let Ok(halves) = net.subnets(half) {
                    open.extend(halves);
                }
            }
            Err(refusal) => return Err(refusal),
        }
    }
    if found.is_empty() {
        return whole;
    }
    found.sort();
    Ok(found)
}

fn towards(measure: &Measure, net: IpNet) -> Measure {
    match measure {
        Measure::FlowSpec(filter) => {
            let mut packets = filter.packets.clone();
            packets.dst = net;
            Measure::FlowSpec(Filter { packets, action: filter.action })
        }
        Measure::Blackhole(_) => Measure::Blackhole(net),
        Measure::Scrub(_) => Measure::Scrub(net),
        Measure::Divert(_) => Measure::Divert(net),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_bgp::guard::Config;
    use weir_model::{Action, Inventory, Match};

    use super::*;

    #[test]
    fn a_prefix_is_cut_around_what_must_not_be_touched() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let inventory = Inventory::new(
            vec![net("203.0.112.0/22"), net("2001:db8::/48")].into(),
            vec![net("203.0.113.1/32"), net("203.0.115.0/25"), net("2001:db8::1/128")].into(),
            Vec::new(),
        );
        let guard = Guard::new(Config::default(), Arc::new(inventory));
        let among = |parts: &[IpNet], dst: &str, room: usize, expected: Result<&[&str], &str>| {
            let mut packets = Match::to(net(dst));
            packets.protocols = vec![17];
            let measure = Measure::FlowSpec(Filter { packets, action: Action::Drop });
            let got = pieces(&measure, parts, &guard, room);
            let got = got
                .as_ref()
                .map(|list| list.iter().map(|m| m.target().to_string()).collect::<Vec<_>>());
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{dst}"),
                (Err(got), Err(expected)) => assert_eq!(got.id(), expected, "{dst}"),
                (got, expected) => panic!("{dst}: {got:?}, expected {expected:?}"),
            }
        };
        let check = |dst: &str, room: usize, expected: Result<&[&str], &str>| {
            among(&[], dst, room, expected);
        };
        check("203.0.112.0/24", 1, Ok(&["203.0.112.0/24"]));
        check("203.0.115.0/24", 1, Ok(&["203.0.115.128/25"]));
        check(
            "203.0.112.0/23",
            9,
            Ok(&[
                "203.0.112.0/24",
                "203.0.113.0/32",
                "203.0.113.2/31",
                "203.0.113.4/30",
                "203.0.113.8/29",
                "203.0.113.16/28",
                "203.0.113.32/27",
                "203.0.113.64/26",
                "203.0.113.128/25",
            ]),
        );
        check("203.0.113.0/24", 7, Err("never-touch"));
        // Of a prefix only what is attacked, joined where the guard allows it.
        let parts = ["203.0.112.0/25", "203.0.112.128/25", "203.0.115.0/24", "198.51.100.0/24"];
        let parts: Vec<IpNet> = parts.map(net).into();
        among(&parts, "203.0.112.0/22", 4, Ok(&["203.0.112.0/24", "203.0.115.128/25"]));
        among(&parts, "203.0.112.0/22", 1, Err("never-touch"));
        among(&parts, "203.0.112.0/24", 4, Ok(&["203.0.112.0/24"]));
        // More pieces than there is room for: all of it, where that is allowed.
        let apart = ["203.0.112.0/26", "203.0.112.128/26"].map(net);
        among(&apart, "203.0.112.0/24", 2, Ok(&["203.0.112.0/26", "203.0.112.128/26"]));
        among(&apart, "203.0.112.0/24", 1, Ok(&["203.0.112.0/24"]));
        check("203.0.113.1/32", 8, Err("never-touch"));
        check("198.51.100.0/24", 8, Err("not-protected"));
        check("2001:db8::/48", 8, Err("never-touch"));
    }
}

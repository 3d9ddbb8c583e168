use super::*;
use crate::{Bounds, Inbound, Outbound, TotalLimits, TotalThresholds};

fn group(name: &str, prefixes: &[&str]) -> PolicyGroup {
    PolicyGroup {
        name: name.to_owned(),
        prefixes: prefixes.iter().map(|net| net.parse::<IpNet>().unwrap()).collect(),
        ..PolicyGroup::default()
    }
}

fn named(name: &str) -> Option<String> {
    Some(name.to_owned())
}

/// Transit (a /16) holds acme (a /24), which holds acme's VPNs (a /28); one more group inherits from acme though
/// it lies elsewhere; a template is used by two.
fn tree() -> Policies {
    let inbound = |multiplier, packets, bits| {
        Some(Box::new(Inbound {
            multiplier,
            packets_per_sec: packets,
            bits_per_sec: bits,
            ..Inbound::default()
        }))
    };
    let tag = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Policies::from(vec![
        PolicyGroup {
            mode: Some(Mode::Auto),
            notify: Some(vec!["noc".to_owned()]),
            inbound: inbound(Some(2.0), Some(Threshold::Fixed(1e6)), Some(Threshold::Auto)),
            tags: [tag("queue", "noc"), tag("rack", "1")].into(),
            ..group("transit", &["198.18.0.0/16"])
        },
        PolicyGroup {
            template: named("gentle"),
            tags: [tag("queue", "acme")].into(),
            ..group("acme", &["198.18.1.0/24", "198.18.2.0/24", "2001:db8:1::/48"])
        },
        PolicyGroup {
            class: Some(HostClass::Vpn),
            learning: Some(Learning::On),
            never: Some(Vec::new()),
            inbound: inbound(None, None, Some(Threshold::Off)),
            ..group("acme vpn", &["198.18.1.16/28"])
        },
        PolicyGroup { parent: named("acme"), ..group("acme lab", &["203.0.113.0/24"]) },
        PolicyGroup {
            never: Some(vec![Rung::Rtbh]),
            learning: Some(Learning::Frozen),
            template: named("base"),
            ..group("gentle", &[])
        },
        PolicyGroup {
            mode: Some(Mode::Approve),
            learning: Some(Learning::ObserveOnly),
            outbound: Some(Box::new(Outbound {
                syns_per_sec: Some(Threshold::Within(Bounds {
                    floor: Some(500.0),
                    ..Bounds::default()
                })),
                multiplier: Some(3.0),
                ..Outbound::default()
            })),
            ..group("base", &[])
        },
    ])
}

/// Everything that counts for an address, with whose word it is.
fn text(policies: &Policies, target: &str) -> Vec<String> {
    let Some(at) = policies.at(target.parse().unwrap()) else { return vec!["none".to_owned()] };
    let v = policies.values(at);
    let mut all = vec![v.path.iter().map(|g| g.name.as_str()).collect::<Vec<_>>().join(" < ")];
    let mut say = |key: &str, value: String, by: &PolicyGroup| {
        all.push(format!("{key} {value} ({})", by.name));
    };
    v.mode.iter().for_each(|s| say("mode", s.value.to_string(), s.by));
    v.never.iter().for_each(|s| say("never", format!("{:?}", s.value), s.by));
    v.learning.iter().for_each(|s| say("learning", format!("{:?}", s.value), s.by));
    v.class.iter().for_each(|s| say("class", s.value.id().to_owned(), s.by));
    v.notify.iter().for_each(|s| say("notify", s.value.join(" "), s.by));
    for (index, (way, name)) in THRESHOLDS.iter().enumerate() {
        let way = if *way == Direction::Inbound { "in" } else { "out" };
        if let Some(s) = &v.thresholds[index] {
            say(&format!("{way}.{name}"), format!("{:?}", s.value), s.by);
        }
    }
    for index in [2, 9, 11] {
        v.times(index)
            .iter()
            .for_each(|s| say(&format!("times {index}"), s.value.to_string(), s.by));
    }
    v.tags.iter().for_each(|(key, s)| say(&format!("tag {key}"), s.value.to_owned(), s.by));
    all
}

#[test]
fn what_a_group_does_not_say_its_template_says_then_its_parent() {
    let tree = tree();
    let check =
        |target: &str, expected: &[&str]| assert_eq!(text(&tree, target), expected, "{target}");
    check("192.0.2.1/32", &["none"]);
    check(
        "198.18.9.9/32",
        &[
            "transit",
            "mode auto (transit)",
            "notify noc (transit)",
            "in.packets_per_sec Fixed(1000000.0) (transit)",
            "in.bits_per_sec Auto (transit)",
            "times 2 2 (transit)",
            "tag queue noc (transit)",
            "tag rack 1 (transit)",
        ],
    );
    let acme = |path: &'static str| {
        [
            path,
            "mode approve (base)",
            "never [Rtbh] (gentle)",
            "learning Frozen (gentle)",
            "notify noc (transit)",
            "in.packets_per_sec Fixed(1000000.0) (transit)",
            "in.bits_per_sec Auto (transit)",
            "out.syns_per_sec Within(Bounds { multiplier: None, floor: Some(500.0), ceiling: None }) (base)",
            "times 2 2 (transit)",
            "times 9 3 (base)",
            "times 11 3 (base)",
            "tag queue acme (acme)",
            "tag rack 1 (transit)",
        ]
    };
    check("198.18.2.2/32", &acme("acme < transit"));
    check("203.0.113.9/32", &acme("acme lab < acme < transit"));
    // Nothing of IPv6 is in the parent, which holds all of IPv4.
    check("2001:db8:1::1/128", &acme("acme < transit"));
    check(
        "198.18.1.17/32",
        &[
            "acme vpn < acme < transit",
            "mode approve (base)",
            "never [] (acme vpn)",
            "learning On (acme vpn)",
            "class vpn (acme vpn)",
            "notify noc (transit)",
            "in.packets_per_sec Fixed(1000000.0) (transit)",
            "in.bits_per_sec Off (acme vpn)",
            "out.syns_per_sec Within(Bounds { multiplier: None, floor: Some(500.0), ceiling: None }) (base)",
            "times 2 2 (transit)",
            "times 9 3 (base)",
            "times 11 3 (base)",
            "tag queue acme (acme)",
            "tag rack 1 (transit)",
        ],
    );
    check("198.18.1.0/24", &acme("acme < transit"));
    check(
        "198.18.0.0/22",
        &text(&tree, "198.18.9.9/32").iter().map(String::as_str).collect::<Vec<_>>(),
    );
}

#[test]
fn groups_inside_a_prefix_are_found() {
    let tree = tree();
    let inside = |target: &str| {
        let found = tree.inside(target.parse().unwrap());
        found.map(|at| tree.groups()[at].name.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(inside("198.18.1.0/24"), ["acme", "acme vpn"]);
    assert_eq!(inside("198.18.1.17/32"), [""; 0]);
    assert_eq!(inside("198.18.0.0/15"), ["transit", "acme", "acme vpn", "acme"]);
    assert_eq!(inside("2001:db8::/32"), ["acme"]);
}

#[test]
fn a_circle_is_found_and_ends() {
    let circle = |groups: Vec<PolicyGroup>| {
        let policies = Policies::from(groups);
        (0..policies.groups().len()).for_each(|at| drop(policies.values(at)));
        policies.circle().map(str::to_owned)
    };
    let heir = |name: &str, net: &str, parent: &str| PolicyGroup {
        parent: named(parent),
        ..group(name, &[net])
    };
    let of =
        |name: &str, template: &str| PolicyGroup { template: named(template), ..group(name, &[]) };
    assert_eq!(tree().circle(), None);
    let self_heir = vec![heir("a", "198.18.0.0/16", "a")];
    assert_eq!(circle(self_heir).as_deref(), Some("a"));
    // One link is given, the other follows from the prefixes.
    let mixed = vec![heir("a", "198.18.0.0/16", "b"), group("b", &["198.18.1.0/24"])];
    assert_eq!(circle(mixed).as_deref(), Some("a"));
    assert_eq!(circle(vec![of("t", "u"), of("u", "t")]).as_deref(), Some("t"));
    let deep = |levels: u8| {
        (8..8 + levels).map(|len| group(&format!("g{len}"), &[&format!("10.0.0.0/{len}")]))
    };
    assert_eq!(circle(deep(17).collect()), None);
    assert_eq!(circle(deep(18).collect()).as_deref(), Some("g25"));
}

#[test]
fn a_total_is_of_its_own_group_and_what_its_templates_say() {
    let limits = |packets, bits| TotalLimits { packets_per_sec: packets, bits_per_sec: bits };
    let total = |inbound| Some(TotalThresholds { inbound, ..TotalThresholds::default() });
    let fixed = |value| Some(Threshold::Fixed(value));
    let policies = Policies::from(vec![
        PolicyGroup { total: total(limits(fixed(1e6), fixed(1e9))), ..group("template", &[]) },
        PolicyGroup { template: named("template"), ..group("acme", &["203.0.113.0/25"]) },
        PolicyGroup {
            total: total(limits(Some(Threshold::Off), None)),
            ..group("reseller", &["203.0.113.0/24", "2001:db8::/48"])
        },
        // Neither has a total of its own: a parent's is the parent's.
        group("lab", &["203.0.113.0/28"]),
        group("elsewhere", &["198.51.100.0/24"]),
    ]);
    let said =
        |at: usize| policies.total(at).map(|all| all.map(|said| said.map(|said| said.value)));
    assert_eq!(said(1), Some([fixed(1e6), fixed(1e9), None, None]));
    assert_eq!(said(2), Some([Some(Threshold::Off), None, None, None]));
    assert_eq!((said(3), said(4)), (None, None));
    let totals = policies.totals();
    let told: Vec<(&str, Option<usize>, usize)> = totals
        .iter()
        .map(|total| {
            (policies.groups()[total.group].name.as_str(), total.above, total.prefixes.len())
        })
        .collect();
    assert_eq!(told, [("reseller", None, 4), ("acme", Some(0), 2)], "a template has no hosts");
}

#[test]
fn what_at_least_comes_is_inherited_by_services_and_told_of_the_nearest_total() {
    let total = |least| {
        Some(TotalThresholds { least_bits_per_sec: Some(least), ..TotalThresholds::default() })
    };
    let policies = Policies::from(vec![
        PolicyGroup {
            service_least_bits_per_sec: Some(Least::Auto),
            total: total(Least::Fixed(5e6)),
            ..group("acme", &["203.0.113.0/24"])
        },
        PolicyGroup {
            service_least_bits_per_sec: Some(Least::Off),
            ..group("matches", &["203.0.113.0/28"])
        },
        group("lab", &["203.0.113.64/28"]),
        group("elsewhere", &["198.51.100.0/24"]),
    ]);
    let of = |said: Option<Said<'_, Least>>| said.map(|said| (said.value, said.by.name.clone()));
    let told = |at: usize| {
        let values = policies.values(at);
        (of(values.service_least), of(values.total_least))
    };
    let acme = |value| Some((value, "acme".to_owned()));
    assert_eq!(told(0), (acme(Least::Auto), acme(Least::Fixed(5e6))));
    assert_eq!(told(1), (Some((Least::Off, "matches".to_owned())), acme(Least::Fixed(5e6))));
    assert_eq!(told(2), (acme(Least::Auto), acme(Least::Fixed(5e6))));
    assert_eq!(told(3), (None, None));
    // A total is watched for that alone, and a parent's is the parent's.
    assert_eq!(policies.totals().iter().map(|total| total.group).collect::<Vec<_>>(), [0]);
}

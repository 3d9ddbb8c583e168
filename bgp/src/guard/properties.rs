//! Whatever is wished for, in whatever order: nothing leaves that breaks a rule.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use weir_model::{FragmentMatch, Range, Redirect, Rung};

use super::tests::inventory;
use super::*;

/// Prefixes in and around the protected ones, of any length.
fn any_net() -> impl Strategy<Value = IpNet> {
    let bases4 = prop::sample::select(vec![0xcb00_7100_u32, 0xc633_6400, 0xc633_0000, 0x0a00_0000]);
    let v4 = (bases4, any::<u16>(), prop_oneof![Just(32u8), Just(24), 0..=32u8]).prop_map(
        |(base, host, len)| {
            let address = Ipv4Addr::from(base | u32::from(host & 0x01ff));
            IpNet::V4(Ipv4Net::new(address, len).unwrap())
        },
    );
    let v6 = (any::<u8>(), any::<u16>(), prop_oneof![Just(128u8), Just(48), 0..=128u8]).prop_map(
        |(site, host, len)| {
            let address = Ipv6Addr::from([0x2001, 0xdb8, u16::from(site), 0, 0, 0, 0, host]);
            IpNet::V6(Ipv6Net::new(address, len).unwrap())
        },
    );
    // Two in three with the host bits cleared: otherwise nearly all would be refused for that.
    (prop_oneof![2 => v4, 1 => v6], 0..3u8).prop_map(|(n, t)| if t > 0 { n.trunc() } else { n })
}

fn any_range() -> impl Strategy<Value = Range> {
    prop_oneof![
        any::<u16>().prop_map(Range::exact),
        Just(Range { from: 0, to: u16::MAX }),
        (any::<u16>(), any::<u16>()).prop_map(|(from, to)| Range { from, to }),
    ]
}

fn any_measure() -> impl Strategy<Value = Measure> {
    let action = prop_oneof![
        3 => Just(Action::Drop),
        1 => (0..30_000u64).prop_map(|bytes_per_sec| Action::RateLimit { bytes_per_sec }),
        1 => (0..300u64).prop_map(|packets_per_sec| Action::RateLimitPackets { packets_per_sec }),
        1 => Just(Action::Redirect(Redirect::RouteTarget { asn: 1, value: 1 })),
        1 => Just(Action::Mark { dscp: 8 }),
    ];
    let lists = (
        prop::collection::vec(any_range(), 0..3),
        prop::collection::vec(any_range(), 0..2),
        prop::collection::vec(prop_oneof![Just(6u8), Just(17)], 0..2),
    );
    let rule = (any_net(), prop::option::of(any_net()), lists, any::<bool>(), action).prop_map(
        |(dst, src, (dst_ports, lengths, protocols), fragment, action)| {
            let mut packets = Match::to(dst);
            packets.src = src;
            packets.dst_ports = dst_ports;
            packets.lengths = lengths;
            packets.protocols = protocols;
            packets.fragment = fragment.then_some(FragmentMatch::IsFragment);
            Measure::FlowSpec(Filter { packets, action })
        },
    );
    prop_oneof![
        3 => rule,
        2 => any_net().prop_map(Measure::Blackhole),
        1 => any_net().prop_map(Measure::Scrub),
        1 => any_net().prop_map(Measure::Divert),
    ]
}

fn any_mitigation() -> impl Strategy<Value = Mitigation> {
    let originator = prop_oneof![
        4 => (1..4u64).prop_map(|id| Originator::Incident(IncidentId(id))),
        1 => prop_oneof![Just("eve"), Just(""), Just("  ")]
            .prop_map(|name| Originator::Operator(name.into())),
    ];
    let state = prop_oneof![
        6 => Just(MitigationState::Active),
        1 => Just(MitigationState::Proposed),
        1 => Just(MitigationState::Withdrawn),
    ];
    (any_measure(), originator, state, 0..300u64, 1..200_000u64).prop_map(
        |(measure, originator, state, since, runs)| Mitigation {
            id: MitigationId(since),
            originator,
            measure,
            rung: Rung::Drop,
            state,
            since: Millis::from_secs(since),
            expires: Millis::from_secs(since + runs),
            ended: None,
            peers: Vec::new(),
            note: String::new(),
            worth: 0,
        },
    )
}

fn any_config() -> impl Strategy<Value = Config> {
    (1..5u32, 1..12u32, 0..3u32, 1..6u32, any::<bool>()).prop_map(
        |(max_per_incident, max_total, max_rtbh_total, max_changes_per_min, allow_redirect)| {
            Config {
                max_per_incident,
                max_total,
                max_rtbh_total,
                max_changes_per_min,
                allow_redirect,
                ..Config::default()
            }
        },
    )
}

/// Every address pair of the rule, spelled out again without the guard's own helpers.
fn check_one(m: &Mitigation, config: &Config, inventory: &Inventory, now: Millis) {
    let net = m.measure.target();
    assert!(inventory.protected.iter().any(|p| p.contains(&net)), "unprotected {net}");
    for never in inventory.never_touch.iter() {
        assert!(!never.contains(&net) && !net.contains(&never), "{net} touches {never}");
    }
    let (width, hole) = match net {
        IpNet::V4(_) => (config.max_width4, config.rtbh_min_len4),
        IpNet::V6(_) => (config.max_width6, config.rtbh_min_len6),
    };
    let said = match &m.measure {
        Measure::FlowSpec(filter) => {
            filter.packets.protocols.len() == 1
                && (!filter.packets.src_ports.is_empty()
                    || !filter.packets.tcp_flags.is_empty()
                    || filter.packets.fragment.is_some())
        }
        _ => false,
    };
    let narrow = match net {
        IpNet::V4(_) => config.max_width4_narrow,
        IpNet::V6(_) => config.max_width6_narrow,
    };
    assert!(net.prefix_len() >= if said { narrow } else { width }, "{net} is too wide");
    if matches!(m.measure, Measure::Blackhole(_)) {
        assert!(net.prefix_len() >= hole, "black hole {net} is too wide");
    }
    if let Measure::FlowSpec(filter) = &m.measure {
        assert!(config.allow_redirect || !matches!(filter.action, Action::Redirect(_)));
        if filter.action == Action::Drop && filter.packets.components() == 0 {
            assert!(net.prefix_len() >= hole, "a drop of all of {net}");
        }
    }
    assert!(m.state == MitigationState::Active && m.expires > now);
    assert!(m.expires.since(now) <= config.max_ttl_secs * 1000);
    assert!(!matches!(&m.originator, Originator::Operator(name) if name.trim().is_empty()));
}

fn check_all(admitted: &Admitted, config: &Config) {
    let list = admitted.mitigations();
    let holes = list.iter().filter(|m| discards_everything(&m.measure)).count();
    assert!(list.len() <= config.max_total as usize);
    assert!(holes <= config.max_rtbh_total as usize);
    let mut by_incident: BTreeMap<IncidentId, u32> = BTreeMap::new();
    for m in list {
        if let Originator::Incident(id) = m.originator {
            *by_incident.entry(id).or_default() += 1;
        }
    }
    assert!(by_incident.values().all(|n| *n <= config.max_per_incident));
    assert!(list.windows(2).all(|w| w[0].measure < w[1].measure), "sorted, one per measure");
    let routes: BTreeSet<Measure> = list.iter().map(|m| route(&m.measure)).collect();
    assert_eq!(routes.len(), list.len(), "one per route");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sorting_by_what_is_read_once_is_sorting_by_route(
        measures in prop::collection::vec(any_measure(), 0..40),
    ) {
        let mut plain: Vec<&Measure> = measures.iter().collect();
        plain.sort_by(|a, b| by_route(a, b));
        let quick = sort_by_route(measures.iter().collect(), |m| *m);
        prop_assert!(quick.iter().zip(&plain).all(|(a, b)| std::ptr::eq(*a, *b)));
    }

    #[test]
    fn nothing_leaves_that_breaks_a_rule(
        config in any_config(),
        wishes in prop::collection::vec(
            (prop::collection::vec(any_mitigation(), 0..12), 0..40_000u64),
            1..8,
        ),
    ) {
        let inventory = inventory();
        let mut guard = Guard::new(config.clone(), Arc::clone(&inventory));
        let mut now = Millis(0);
        let mut entered: Vec<Millis> = Vec::new();
        let mut before: Option<Admitted> = None;
        for (mitigations, passes) in wishes {
            now = now + passes;
            let desired = DesiredState { generation: 1, mitigations: mitigations.into() };
            let admitted = guard.admit(&desired, now);
            for m in admitted.mitigations() {
                check_one(m, &config, &inventory, now);
                prop_assert!(desired.mitigations.contains(m), "invented {}", m.measure);
            }
            check_all(&admitted, &config);
            prop_assert_eq!(
                admitted.mitigations().len() + admitted.refused().len(),
                desired.mitigations.len(),
                "every wish is admitted or refused with a reason"
            );
            if let Some(before) = &before {
                let is_new = |m: &&Mitigation| {
                    before.mitigations().iter().all(|b| b.measure != m.measure)
                };
                let fresh = admitted.mitigations().iter().filter(is_new).count();
                entered.extend(std::iter::repeat_n(now, fresh));
                let in_a_minute = entered.iter().filter(|at| now.since(**at) < 60_000).count();
                prop_assert!(in_a_minute <= config.max_changes_per_min as usize);
                let same = before.mitigations() == admitted.mitigations();
                prop_assert_eq!(same, before.generation() == admitted.generation());
            }
            before = Some(admitted);
        }
    }
}

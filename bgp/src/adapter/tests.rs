use weir_model::{
    Action, Filter, FlagMatch, FragmentMatch, Match, Millis, Mitigation, MitigationId,
    MitigationState, Originator, Range, Rung,
};

use super::*;

pub(super) fn config(kind: Kind) -> AdapterConfig {
    let json = format!(
        r#"{{"name": "daemon", "kind": {}, "local_as": 65010, "include": "weir.conf",
            "neighbors": ["127.0.0.3"]}}"#,
        serde_json::to_string(&kind).unwrap()
    );
    let config: AdapterConfig = serde_json::from_str(&json).unwrap();
    assert_eq!(config.check(), Ok(()));
    config
}

fn filter(dst: &str, action: Action, change: impl FnOnce(&mut Match)) -> Measure {
    let mut packets = Match::to(dst.parse().unwrap());
    change(&mut packets);
    Measure::FlowSpec(Filter { packets: packets.normalise(), action })
}

fn wanted(measures: Vec<Measure>) -> Wanted {
    let mut rib = AdjRibOut::new(Reach::new(Families::ALL, Profile::Generic.capabilities()));
    let mut mitigations: Vec<Mitigation> = measures
        .into_iter()
        .map(|measure| Mitigation {
            id: MitigationId(1),
            originator: Originator::Operator("test".into()),
            measure,
            rung: Rung::Drop,
            state: MitigationState::Active,
            since: Millis(0),
            expires: Millis(0),
            ended: None,
            peers: Vec::new(),
            note: String::new(),
            worth: 0,
        })
        .collect();
    mitigations.sort_by(|a, b| a.measure.cmp(&b.measure));
    assert_eq!(rib.want(&mitigations), []);
    rib.routes().collect()
}

pub(super) fn everything() -> Wanted {
    wanted(vec![
        Measure::Blackhole("203.0.113.7/32".parse().unwrap()),
        Measure::Blackhole("2001:db8::7/128".parse().unwrap()),
        filter("203.0.113.7/32", Action::Drop, |m| {
            m.src = Some("198.51.96.0/19".parse().unwrap());
            m.protocols = vec![17];
            m.dst_ports = vec![Range::exact(25565), Range { from: 27000, to: 27050 }];
            m.lengths = vec![Range { from: 200, to: 1400 }];
            m.dscps = vec![46];
            m.fragment = Some(FragmentMatch::NotFragment);
        }),
        filter("203.0.113.8/32", Action::RateLimit { bytes_per_sec: 125_000_000 }, |m| {
            m.protocols = vec![6, 17];
            m.icmp_types = vec![8];
            m.tcp_flags = vec![FlagMatch { mask: 0x12, set: 2 }, FlagMatch { mask: 0x3f, set: 0 }];
        }),
        filter("2001:db8::7/128", Action::Drop, |m| {
            m.protocols = vec![17];
            m.src_ports = vec![Range::exact(53)];
        }),
    ])
}

#[test]
fn birds_file_is_in_birds_language() {
    assert_eq!(
        bird::generate(&config(Kind::Bird), &everything()),
        "# Written by weir; changes are overwritten.
protocol static weir_v4 { ipv4 { table weir4; };
  route 203.0.113.7/32 blackhole { bgp_next_hop = 192.0.2.1; bgp_community.add((65535, 666)); bgp_community.add((65535, 65281)); bgp_large_community.add((65010, 2003134834, 0)); };
}
protocol static weir_v6 { ipv6 { table weir6; };
  route 2001:db8::7/128 blackhole { bgp_next_hop = 100::1; bgp_community.add((65535, 666)); bgp_community.add((65535, 65281)); bgp_large_community.add((65010, 2003134834, 0)); };
}
protocol static weir_f4 { flow4 { table weirf4; };
  route flow4 { dst 203.0.113.8/32; proto 6,17; icmp type 8; tcp flags 0x2/0x2 && 0x0/0x10,0x0/0x3f; } { bgp_ext_community.add((generic, 0x80060000, 0x4cee6b28)); bgp_large_community.add((65010, 2003134834, 0)); };
  route flow4 { dst 203.0.113.7/32; src 198.51.96.0/19; proto 17; dport 25565,27000..27050; length 200..1400; dscp 46; fragment !is_fragment && !first_fragment; } { bgp_ext_community.add((generic, 0x80060000, 0x0)); bgp_large_community.add((65010, 2003134834, 0)); };
}
protocol static weir_f6 { flow6 { table weirf6; };
  route flow6 { dst 2001:db8::7/128; next header 17; sport 53; } { bgp_ext_community.add((generic, 0x80060000, 0x0)); bgp_large_community.add((65010, 2003134834, 0)); };
}
"
    );
}

/// As ExaBGP 4.2.21 prints them; the second rule is somebody else's.
const SHOWN: &str = "\
neighbor 127.0.0.3 local-ip 127.0.0.1 local-as 65010 peer-as 65020 router-id 10.0.0.10 family-allowed in-open ipv4 unicast 198.51.100.0/24 next-hop 192.0.2.77
neighbor 127.0.0.3 local-ip 127.0.0.1 local-as 65010 peer-as 65020 router-id 10.0.0.10 family-allowed in-open ipv4 flow flow destination-ipv4 203.0.113.9/32 extended-community rate-limit:0 large-community 65099:2003134834:5
neighbor 127.0.0.4 local-ip 127.0.0.1 local-as 65010 peer-as 65020 router-id 10.0.0.10 family-allowed in-open ipv4 unicast 203.0.113.7/32 next-hop 192.0.2.1 large-community 65010:2003134834:6
neighbor 127.0.0.3 local-ip 127.0.0.1 local-as 65010 peer-as 65020 router-id 10.0.0.10 family-allowed in-open ipv4 unicast 203.0.113.7/32 next-hop 192.0.2.1 community [ blackhole no-export ] large-community 65010:2003134834:7
neighbor 127.0.0.3 local-ip 127.0.0.1 local-as 65010 peer-as 65020 router-id 10.0.0.10 family-allowed in-open ipv4 flow flow destination-ipv4 203.0.113.7/32 protocol =udp destination-port [ =25565 >=27000&<=27050 ] extended-community rate-limit:0 large-community 65010:2003134834:8
done
";

#[test]
fn exabgp_keeps_what_is_wanted_and_loses_only_weirs_own() {
    let config = config(Kind::Exabgp);
    let neighbor = "127.0.0.3".parse().unwrap();
    let present = exabgp::read(&config, neighbor, SHOWN);
    assert_eq!(
        present.into_iter().collect::<Vec<_>>(),
        [
            (7, "neighbor 127.0.0.3 withdraw route 203.0.113.7/32 next-hop 192.0.2.1".to_owned()),
            (
                8,
                "neighbor 127.0.0.3 withdraw flow route destination-ipv4 203.0.113.7/32 \
                 protocol =udp destination-port [ =25565 >=27000&<=27050 ]"
                    .to_owned()
            ),
        ]
    );
    let present = exabgp::read(&config, neighbor, SHOWN);
    let commands = exabgp::changes(&config, neighbor, &everything(), &present);
    assert_eq!(commands.len(), 2 + 5);
    assert!(commands[..2].iter().all(|c| c.contains(" withdraw ")));
    let announced = commands[2..].join("\n");
    for text in [
        "announce route 203.0.113.7/32 next-hop 192.0.2.1 community [ 65535:666 65535:65281 ] \
         large-community [ 65010:2003134834:",
        "match { destination 203.0.113.7/32; source 198.51.96.0/19; protocol [ =17 ]; \
         destination-port [ =25565 >=27000&<=27050 ]; packet-length [ >=200&<=1400 ]; \
         dscp [ =46 ]; fragment [ !is-fragment&!first-fragment ]; } \
         then { extended-community [ 0x8006000000000000 ]; large-community [ ",
        "tcp-flags [ =syn&!ack !fin&!syn&!rst&!push&!ack&!urgent ]; } \
         then { extended-community [ 0x800600004cee6b28 ]; ",
        "match { destination 2001:db8::7/128/0; next-header [ =17 ]; source-port [ =53 ]; }",
    ] {
        assert!(announced.contains(text), "{text}\nin\n{announced}");
    }
    // Shown as it was announced, it stays as it is.
    let shown: String = commands[2..]
        .iter()
        .map(|c| {
            let number = c.split(&format!("{MARK}:")).nth(1).unwrap().split(' ').next().unwrap();
            format!("neighbor 127.0.0.3 x ipv4 flow flow y large-community 65010:{MARK}:{number}\n")
        })
        .collect();
    let present = exabgp::read(&config, neighbor, &shown);
    assert!(exabgp::changes(&config, neighbor, &everything(), &present).is_empty());
}

#[test]
fn exabgps_own_routes_are_not_replaced() {
    let shown = "neighbor 127.0.0.3 x ipv4 unicast 203.0.113.7/32 next-hop 192.0.2.77\n";
    let (wanted, refused) = exabgp::split(&config(Kind::Exabgp), &everything(), shown);
    assert_eq!((wanted.len(), refused.len()), (4, 1));
}

#[test]
fn frr_gets_black_holes_and_keeps_other_networks() {
    let running = " network 198.51.100.0/24\n  network 203.0.113.9/32 route-map WEIR-RTBH4\n  \
                   network 203.0.113.1/32 route-map OTHER\n network 2001:db8::9/128 route-map WEIR-RTBH6\n";
    let present = frr::read(running);
    let texts: Vec<_> = present.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["203.0.113.9/32", "2001:db8::9/128"]);
    let wanted: BTreeSet<IpNet> =
        ["203.0.113.7/32", "2001:db8::9/128"].iter().map(|n| n.parse().unwrap()).collect();
    assert_eq!(
        frr::changes(&wanted, &present),
        [
            "address-family ipv4 unicast",
            "network 203.0.113.7/32 route-map WEIR-RTBH4",
            "exit-address-family",
            "address-family ipv4 unicast",
            "no network 203.0.113.9/32 route-map WEIR-RTBH4",
            "exit-address-family",
        ]
    );
    let operators = frr::others(running);
    let texts: Vec<_> = operators.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["198.51.100.0/24", "203.0.113.1/32"]);
    assert!(!config(Kind::Frr).originates().contains(Family::Ipv4FlowSpec));
}

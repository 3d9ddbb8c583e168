use std::path::PathBuf;

use serde_json::Value;
use weir_model::{Action, FlagMatch, FragmentMatch, IpNet, Match, Range};

use super::*;

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|o| format!("{o:02x}")).collect()
}

/// Decodes, encodes again, and compares with weir's own reading.
fn check(afi: Afi, octets: &str, packets: Option<&str>) {
    let nlri = decode(afi, &unhex(octets)).unwrap();
    assert_eq!(hex(&encode_nlri(&nlri).unwrap()), octets);
    let read = Match::try_from(&nlri).ok();
    assert_eq!(read.as_ref().map(ToString::to_string).as_deref(), packets, "{octets}");
    if let Some(read) = read {
        assert_eq!(hex(&encode(&read).unwrap()), octets);
    }
}

#[test]
fn examples_of_the_rfcs() {
    // RFC 8955 §4.3.
    check(Afi::Ipv4, "0b0118c00002038106048119", None);
    check(Afi::Ipv4, "120118c000020218cb0071040389458b911f90", None);
    // RFC 8956 §3.8, decoded only: routers disagree on offsets.
    let octets = unhex("1201200020010db8026840123456789a038106");
    let nlri = decode(Afi::Ipv6, &octets).unwrap();
    assert_eq!(
        nlri.components[1],
        Component::Source(Prefix { bits: 0x1234_5678_9a00_0000, len: 104, offset: 64 })
    );
    assert_eq!(encode_nlri(&nlri), Err(EncodeError::Offset(64)));
}

#[test]
fn what_weir_says_comes_back() {
    let host = |text: &str| Match::to(text.parse::<IpNet>().unwrap());
    let check = |m: Match, octets: &str| {
        let m = m.normalise();
        assert_eq!(hex(&encode(&m).unwrap()), octets, "{m}");
        let afi = if m.dst.addr().is_ipv4() { Afi::Ipv4 } else { Afi::Ipv6 };
        assert_eq!(Match::try_from(&decode(afi, &unhex(octets)).unwrap()).as_ref(), Ok(&m));
    };
    check(host("203.0.113.7/32"), "060120cb007107");
    check(host("0.0.0.0/0"), "020100");
    let mut m = host("203.0.113.7/32");
    m.protocols = vec![17];
    m.src_ports =
        vec![Range::exact(123), Range { from: 0, to: 52 }, Range { from: 1000, to: 2000 }];
    m.lengths = vec![Range { from: 400, to: 65535 }];
    check(m.clone(), "180120cb007107038111060534017b1303e8d507d00a930190");
    m.dst_ports = vec![Range { from: 0, to: 65535 }];
    assert!(encode(&m).is_ok());
    let mut m = host("203.0.113.7/32");
    m.protocols = vec![6];
    m.tcp_flags = vec![FlagMatch { mask: 0x12, set: 0x02 }, FlagMatch { mask: 0x3f, set: 0 }];
    check(m, "100120cb0071070381060901024210823f");
    for (fragment, tail) in [
        (FragmentMatch::IsFragment, "0c8102"),
        (FragmentMatch::NotFragment, "0c8206"),
        (FragmentMatch::First, "0c8104"),
        (FragmentMatch::Last, "0c8108"),
    ] {
        let mut m = host("203.0.113.7/32");
        m.fragment = Some(fragment);
        check(m, &format!("090120cb007107{tail}"));
    }
    let mut m = host("2001:db8::7/128");
    m.src = Some("2001:db8:ff00::/40".parse().unwrap());
    check(m, "1b01800020010db800000000000000000000000702280020010db8ff");
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let mut m = Match::to("203.0.113.7/32".parse().unwrap());
    m.src = Some("2001:db8::/32".parse().unwrap());
    assert_eq!(encode(&m), Err(EncodeError::Family(2)));
    m.src = None;
    m.tcp_flags = vec![FlagMatch { mask: 2, set: 16 }];
    assert_eq!(encode(&m), Err(EncodeError::Flags));
    m.tcp_flags.clear();
    m.dst_ports = (0..90).map(|i| Range::exact(1000 + 2 * i)).collect();
    assert_eq!(encode(&m), Err(EncodeError::TooLong(6 + 1 + 90 * 3)));
    m.dst_ports.clear();
    m.dscps = vec![64];
    assert_eq!(encode(&m), Err(EncodeError::Value { component: 11, value: 64 }));
}

#[test]
fn malformed_octets_are_named() {
    let check = |octets: &str, error| {
        assert_eq!(decode(Afi::Ipv4, &unhex(octets)), Err(error), "{octets}");
    };
    check("", DecodeError::Truncated);
    check("00", DecodeError::Empty);
    check("05", DecodeError::Truncated);
    check("f1", DecodeError::Truncated);
    check("0201210000", DecodeError::Trailing);
    check("020121", DecodeError::Prefix(33));
    check("030120cb", DecodeError::Truncated);
    check("050118c0000203", DecodeError::Trailing);
    check("090118c00002038106", DecodeError::Truncated);
    check("080118c00002039100", DecodeError::Truncated);
    check("090118c0000203910006", DecodeError::Width(3));
    check("080118c00002018106", DecodeError::Order(1));
    check("080118c000020e8106", DecodeError::Component(14));
    check("080118c000020d8106", DecodeError::Component(13));
    check("080118c000020c8110", DecodeError::Reserved(12));
    check("0b0118c00002038106038111", DecodeError::Order(3));
    // A list that never ends.
    check("080118c00002030106", DecodeError::Truncated);
    // What the RFC tells a receiver to overlook: AND on the first operator, a reserved operator
    // bit, bits beyond the prefix.
    let nlri = decode(Afi::Ipv4, &unhex("080117c0000303c906")).unwrap();
    assert_eq!(hex(&encode_nlri(&nlri).unwrap()), "080117c00002038106");
}

#[test]
fn a_bad_rule_among_others_loses_only_itself() {
    let octets = unhex("060120cb007107020121060120cb007108");
    let all: Vec<bool> = decode_all(Afi::Ipv4, &octets).map(|(_, r)| r.is_ok()).collect();
    assert_eq!(all, [true, false, true]);
    assert_eq!(decode_all(Afi::Ipv4, &unhex("060120cb007107ff")).count(), 2);
}

#[test]
fn actions_are_communities() {
    let check = |action: Action, octets: &str| {
        let (community, _) = communities(&action);
        assert_eq!(hex(&community.unwrap()), octets);
        assert_eq!(TrafficAction::decode(community.unwrap()).unwrap().to_action(), Some(action));
    };
    check(Action::Drop, "8006000000000000");
    check(Action::RateLimit { bytes_per_sec: 125_000_000 }, "800600004cee6b28");
    check(Action::RateLimitPackets { packets_per_sec: 1000 }, "800c0000447a0000");
    check(
        Action::Redirect(weir_model::Redirect::RouteTarget { asn: 65010, value: 666 }),
        "8008fdf20000029a",
    );
    check(
        Action::Redirect(weir_model::Redirect::NextHop("192.0.2.1".parse().unwrap())),
        "010cc00002010000",
    );
    check(
        Action::Redirect(weir_model::Redirect::RouteTarget { asn: 4_200_000_001, value: 7 }),
        "8208fa56ea010007",
    );
    check(
        Action::Redirect(weir_model::Redirect::Copy("192.0.2.1".parse().unwrap())),
        "010cc00002010001",
    );
    check(Action::Mark { dscp: 46 }, "800900000000002e");
    let nan = [0x80, 6, 0, 0, 0x7f, 0xc0, 0, 0];
    assert_eq!(TrafficAction::decode(nan), Err(ActionError::Rate));
    assert_eq!(TrafficAction::decode([0; 8]), Err(ActionError::Unknown));
}

/// Where the recorded rules of three other encoders lie, when they are at hand.
fn vectors() -> Option<Vec<Value>> {
    let roots = [
        std::env::var_os("WEIR_CORPUS").map(|c| PathBuf::from(c).join("..")),
        Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared")),
    ];
    let file = "bgp-peers/vectors/flowspec.json";
    let text = roots.iter().flatten().find_map(|r| std::fs::read_to_string(r.join(file)).ok())?;
    serde_json::from_str(&text).ok()
}

/// `[[[op, value], ..and..], ..or..]` as terms.
fn numeric(spec: &Value) -> Vec<NumericTerm> {
    let mut terms = Vec::new();
    for group in spec.as_array().unwrap() {
        for (i, term) in group.as_array().unwrap().iter().enumerate() {
            let op = term[0].as_str().unwrap();
            terms.push(NumericTerm {
                and: i > 0,
                lt: op.contains('<') || op == "!=",
                gt: op.contains('>') || op == "!=",
                eq: op.contains('=') && op != "!=",
                value: term[1].as_u64().unwrap(),
            });
        }
    }
    terms
}

fn bit_terms(spec: &Value) -> Vec<BitTerm> {
    let mut terms = Vec::new();
    for group in spec.as_array().unwrap() {
        for (i, term) in group.as_array().unwrap().iter().enumerate() {
            let value = u16::try_from(term[2].as_u64().unwrap()).unwrap();
            terms.push(BitTerm { and: i > 0, not: term[0] == 1, all: term[1] == 1, value });
        }
    }
    terms
}

fn rule_of(spec: &Value) -> Nlri {
    let afi = if spec["fam"] == 4 { Afi::Ipv4 } else { Afi::Ipv6 };
    let prefix = |net: &str| {
        let Ok(nlri) = Nlri::try_from(&Match::to(net.parse().unwrap())) else { panic!("{net}") };
        let Component::Destination(p) = nlri.components[0] else { panic!("{net}") };
        p
    };
    let mut components = Vec::new();
    for (key, value) in spec.as_object().unwrap() {
        components.push(match key.as_str() {
            "fam" | "act" => continue,
            "dst" => Component::Destination(prefix(value.as_str().unwrap())),
            "src" => Component::Source(prefix(value.as_str().unwrap())),
            "proto" => Component::Numeric(NumericField::Protocol, numeric(value)),
            "port" => Component::Numeric(NumericField::Port, numeric(value)),
            "dport" => Component::Numeric(NumericField::DstPort, numeric(value)),
            "sport" => Component::Numeric(NumericField::SrcPort, numeric(value)),
            "itype" => Component::Numeric(NumericField::IcmpType, numeric(value)),
            "icode" => Component::Numeric(NumericField::IcmpCode, numeric(value)),
            "plen" => Component::Numeric(NumericField::Length, numeric(value)),
            "dscp" => Component::Numeric(NumericField::Dscp, numeric(value)),
            "label" => Component::Numeric(NumericField::FlowLabel, numeric(value)),
            "tcp" => Component::Bits(BitField::TcpFlags, bit_terms(value)),
            "frag" => Component::Bits(BitField::Fragment, bit_terms(value)),
            other => panic!("component {other}"),
        });
    }
    components.sort_by_key(Component::code);
    Nlri { afi, components }
}

fn action_of(spec: &Value) -> TrafficAction {
    match spec[0].as_str().unwrap() {
        #[expect(clippy::cast_possible_truncation, reason = "the wire carries a float")]
        "rate" => TrafficAction::RateBytes { asn: 0, rate: spec[1].as_f64().unwrap() as f32 },
        "mark" => TrafficAction::Mark(u8::try_from(spec[1].as_u64().unwrap()).unwrap()),
        "redirect" => {
            let (asn, value) = spec[1].as_str().unwrap().split_once(':').unwrap();
            TrafficAction::RedirectAs2 { asn: asn.parse().unwrap(), value: value.parse().unwrap() }
        }
        other => panic!("action {other}"),
    }
}

#[test]
fn three_other_encoders_agree() {
    let Some(vectors) = vectors() else {
        println!("skipped: three_other_encoders_agree (bgp-peers/vectors/flowspec.json not found)");
        return;
    };
    assert!(vectors.len() >= 26);
    for vector in &vectors {
        let name = vector["name"].as_str().unwrap();
        let octets = vector["nlri"].as_str().unwrap();
        let rule = rule_of(&vector["rule"]);
        assert_eq!(hex(&encode_nlri(&rule).unwrap()), octets, "{name}");
        assert_eq!(decode(rule.afi, &unhex(octets)).as_ref(), Ok(&rule), "{name}");
        if let Ok(packets) = Match::try_from(&rule) {
            // weir sorts its lists: the octets may differ in the order of terms, not in meaning.
            let own = decode(rule.afi, &encode(&packets).unwrap()).unwrap();
            assert_eq!(Match::try_from(&own), Ok(packets), "{name}");
        }
        let action = action_of(&vector["rule"]["act"]);
        let community = vector["ext"].as_str().unwrap();
        assert_eq!(hex(&action.encode()), community, "{name}");
        let octets: ExtendedCommunity = unhex(community).try_into().unwrap();
        assert_eq!(TrafficAction::decode(octets), Ok(action), "{name}");
    }
}

//! Every rule, action and black hole against every daemon, read back with the daemon's own tool.

use std::time::Instant;

use serde_json::{Value, json};
use weir_model::{Measure, Observed};
use weir_tests::lab::Lab;

use crate::daemons::*;
use crate::rules::*;
use crate::speaker::Speaker;

#[test]
fn bird_shows_every_rule_and_action() {
    let Some(mut lab) =
        Lab::new("bird_shows_every_rule_and_action", &["bird", "birdc", "tshark", "mkfifo"])
    else {
        return;
    };
    Bird::default().start(&mut lab);
    let tshark = records(&mut lab);
    let mut speaker =
        Speaker::start(&mut lab, "speak", &[json!({"name": "bird", "address": "127.0.0.3"})]);
    speaker.want(&everything());
    let count = everything().len();
    let routes =
        lab.wait_for("every route", 20, |lab| Some(bird_routes(lab)).filter(|r| r.len() == count));
    for (measure, expected, _) in rules() {
        let (words, action) = expected.split_once("} ").unwrap();
        let found = routes.iter().find(|r| r.contains(&format!("{words}}}")));
        let found = found.unwrap_or_else(|| panic!("{measure}: {words}\nin {routes:#?}"));
        assert!(found.contains(action), "{found} lacks {action}");
        assert!(found.contains("BGP.large_community: (65010, 2003134834, 0)"), "{found}");
    }
    for (net, hop) in [("203.0.113.7/32", "192.0.2.1"), ("2001:db8:0:1::7/128", "100::1")] {
        let found = routes.iter().find(|r| r.starts_with(net)).unwrap();
        assert!(found.contains(&format!("BGP.next_hop: {hop}")), "{found}");
        assert!(found.contains("BGP.community: (65535,666) (65535,65281)"), "{found}");
    }
    // Withdrawn one by one and all at once.
    speaker.want(&everything()[..3]);
    lab.wait_for("three routes", 10, |lab| (bird_routes(lab).len() == 3).then_some(()));
    speaker.want(&[]);
    lab.wait_for("no route", 10, |lab| bird_routes(lab).is_empty().then_some(()));
    assert_eq!(speaker.status(&lab, "bird").unwrap().flaps, 0);
    assert_eq!(malformed(&mut lab, tshark), "");
}

#[test]
fn gobgp_shows_every_rule_and_action_and_gets_them_again_after_its_restart() {
    let Some(mut lab) = Lab::new(
        "gobgp_shows_every_rule_and_action_and_gets_them_again_after_its_restart",
        &["gobgpd", "gobgp", "mkfifo"],
    ) else {
        return;
    };
    let daemon = start_gobgp(&mut lab, "gobgpd", false);
    let mut speaker =
        Speaker::start(&mut lab, "speak", &[json!({"name": "gobgp", "address": "127.0.0.2"})]);
    speaker.want(&everything());
    let count = everything().len();
    let all = |lab: &Lab| Some(gobgp_routes(lab)).filter(|r| r.len() == count);
    let routes = lab.wait_for("every route", 20, all);
    for (measure, _, expected) in rules() {
        let (words, action) = expected.split_once("] ").unwrap();
        let found = routes.iter().find(|r| r.contains(&format!(" {words}] ")));
        let found = found.unwrap_or_else(|| panic!("{measure}: {words}\nin {routes:#?}"));
        assert!(found.contains(action), "{found} lacks {action}");
    }
    assert!(
        routes.iter().any(|r| r.contains("203.0.113.7/32") && r.contains("blackhole, no-export"))
    );
    // kill -9, not a good-bye: it comes back empty.
    lab.kill(daemon);
    start_gobgp(&mut lab, "gobgpd-again", false);
    lab.wait_for("every route again", 40, all);
    speaker.say("withdraw");
    lab.wait_for("no route", 10, |lab| gobgp_routes(lab).is_empty().then_some(()));
}

#[test]
fn frr_takes_every_rule_without_a_reset() {
    let Some(mut lab) = Lab::new("frr_takes_every_rule_without_a_reset", &["vtysh", "mkfifo"])
    else {
        return;
    };
    start_frr(&mut lab, "frr", FRR, "127.0.0.4");
    let mut speaker =
        Speaker::start(&mut lab, "speak", &[json!({"name": "frr", "address": "127.0.0.4"})]);
    speaker.want(&everything());
    lab.wait_for("every route", 20, |lab| (frr_counts(lab) == [1, 1, 13, 4]).then_some(()));
    let text = vtysh(&lab, "show bgp ipv4 flowspec detail");
    for part in ["203.0.113.1/32", "FS:rate 125000000.000000", "FS:redirect VRF RT:65010:666"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let route = vtysh(&lab, "show bgp ipv4 unicast 203.0.113.7/32");
    assert!(route.contains("blackhole no-export"), "{route}");
    speaker.want(&many(1000));
    lab.wait_for("1000 rules", 20, |lab| (frr_counts(lab) == [0, 0, 1000, 0]).then_some(()));
    speaker.want(&[]);
    lab.wait_for("no rule", 20, |lab| (frr_counts(lab) == [0; 4]).then_some(()));
    let status = speaker.status(&lab, "frr").unwrap();
    assert_eq!(status.flaps, 0, "{status:?}\n{}", lab.logs());
}

#[test]
fn exabgp_reads_every_rule() {
    let Some(mut lab) = Lab::new("exabgp_reads_every_rule", &["exabgp", "env", "mkfifo"]) else {
        return;
    };
    start_exabgp(&mut lab);
    let mut speaker =
        Speaker::start(&mut lab, "speak", &[json!({"name": "exabgp", "address": "127.0.0.5"})]);
    speaker.want(&everything());
    // Each rule is one UPDATE with one rule; ExaBGP prints the rule as it understood it.
    let flows = |lab: &Lab, part: &str| -> Vec<String> {
        let text = std::fs::read_to_string(lab.path("received.json")).unwrap_or_default();
        text.lines()
            .filter_map(|l| serde_json::from_str::<Value>(l).ok())
            .map(|v| v["neighbor"]["message"]["update"][part].to_string())
            .filter(|t| t.contains("flow"))
            .collect()
    };
    let announced = lab
        .wait_for("every rule", 30, |lab| Some(flows(lab, "announce")).filter(|f| f.len() >= 17));
    for text in [
        "flow destination-ipv4 203.0.113.1/32 source-ipv4 198.51.96.0/19 protocol =udp \
         destination-port [ =25565 =27015 ] source-port [ >=1&<=1023 ] packet-length [ >=200&<=1400 ] dscp [ =0 =46 ]",
        "flow destination-ipv4 203.0.113.2/32 protocol =tcp tcp-flags [ =syn&!ack ]",
        "flow destination-ipv6 2001:db8:0:1::1/128/0",
    ] {
        assert!(announced.iter().any(|a| a.contains(text)), "{text}\nin {announced:#?}");
    }
    speaker.want(&[]);
    lab.wait_for("every withdrawal", 20, |lab| (flows(lab, "withdraw").len() >= 17).then_some(()));
    assert_eq!(speaker.status(&lab, "exabgp").unwrap().flaps, 0);
}

#[test]
fn openbgpd_gets_black_holes_and_no_family_it_did_not_ask_for() {
    let test = "openbgpd_gets_black_holes_and_no_family_it_did_not_ask_for";
    let Some(mut lab) = Lab::new(test, &["bgpctl", "mkfifo"]) else { return };
    if start_openbgpd(&mut lab, test).is_none() {
        return;
    }
    let mut speaker =
        Speaker::start(&mut lab, "speak", &[json!({"name": "openbgpd", "address": "127.0.0.6"})]);
    speaker.want(&everything());
    let rib = |lab: &Lab| bgpctl(lab, &["show", "rib", "detail"]);
    let text = lab.wait_for("both black holes", 30, |lab| {
        Some(rib(lab)).filter(|t| t.contains("203.0.113.7/32") && t.contains("2001:db8:0:1::7/128"))
    });
    assert!(text.contains("BLACKHOLE") && text.contains("NO_EXPORT"), "{text}");
    let status = speaker.wait_established(&lab, "openbgpd");
    assert_eq!(status.families, ["ipv4-unicast", "ipv6-unicast"]);
    let refused = speaker.reports(&lab);
    let refused = refused.iter().filter(|r| matches!(r, Observed::Refused { .. })).count();
    assert_eq!(refused, 17, "each rule is refused, once");
    speaker.want(&[]);
    lab.wait_for("no route", 10, |lab| (!rib(lab).contains("203.0.113.7/32")).then_some(()));
    assert_eq!(speaker.status(&lab, "openbgpd").unwrap().flaps, 0);
}

#[test]
fn a_diversion_is_a_route_of_its_own_kind_to_those_who_divert() {
    let test = "a_diversion_is_a_route_of_its_own_kind_to_those_who_divert";
    let programs = ["bird", "birdc", "gobgpd", "gobgp", "vtysh", "mkfifo"];
    let Some(mut lab) = Lab::new(test, &programs) else { return };
    Bird::default().start(&mut lab);
    start_gobgp(&mut lab, "gobgpd", false);
    start_frr(&mut lab, "frr", FRR, "127.0.0.4");
    let divert = json!({
        "next_hop4": "192.0.2.9", "next_hop6": "2001:db8:f::9",
        "communities": ["65010:100", "4200000001:7:8"],
    });
    let peers = [
        json!({"name": "bird", "address": "127.0.0.3", "divert": divert}),
        json!({"name": "gobgp", "address": "127.0.0.2"}),
        json!({"name": "frr", "address": "127.0.0.4", "divert": divert}),
    ];
    let mut speaker = Speaker::start(&mut lab, "speak", &peers);
    for peer in ["bird", "gobgp", "frr"] {
        speaker.wait_established(&lab, peer);
    }
    let net = |net: &str| Measure::Divert(net.parse().unwrap());
    let hole = hole("203.0.113.7/32");
    let (as4, at_bird, at_gobgp) = redirect_as4();
    speaker.want(&[as4, hole.clone(), net("203.0.113.0/24"), net("2001:db8:5::/48")]);
    let routes =
        lab.wait_for("BIRD's routes", 20, |lab| Some(bird_routes(lab)).filter(|r| r.len() == 4));
    assert!(routes.iter().any(|r| r.contains(at_bird)), "{routes:#?}");
    for (prefix, hop) in [("203.0.113.0/24", "192.0.2.9"), ("2001:db8:5::/48", "2001:db8:f::9")] {
        let found = routes.iter().find(|r| r.starts_with(prefix)).unwrap();
        assert!(found.contains(&format!("BGP.next_hop: {hop}")), "{found}");
        assert!(found.contains("BGP.community: (65010,100) "), "{found}");
        assert!(found.contains("(4200000001, 7, 8)"), "{found}");
    }
    let found = routes.iter().find(|r| r.starts_with("203.0.113.7/32")).unwrap();
    assert!(found.contains("BGP.community: (65535,666)"), "{found}");
    lab.wait_for("FRR's routes", 20, |lab| (frr_counts(lab) == [2, 1, 1, 0]).then_some(()));
    let route = vtysh(&lab, "show bgp ipv4 unicast 203.0.113.0/24");
    assert!(route.contains("192.0.2.9") && route.contains("65010:100"), "{route}");
    assert!(!route.contains("blackhole"), "{route}");
    // Who does not divert has the others alone, and is not asked again.
    let routes =
        lab.wait_for("GoBGP's", 20, |lab| Some(gobgp_routes(lab)).filter(|r| r.len() == 2));
    assert!(routes.iter().any(|r| r.contains("203.0.113.7/32")), "{routes:#?}");
    assert!(routes.iter().any(|r| r.contains(at_gobgp)), "{routes:#?}");
    let refused = speaker.refused(&lab);
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused.iter().all(|(_, why)| why == "the peer does not divert (bgp.peer.divert)"));
    speaker.want(&[hole]);
    lab.wait_for("an end in BIRD", 10, |lab| (bird_routes(lab).len() == 1).then_some(()));
    lab.wait_for("an end in FRR", 10, |lab| (frr_counts(lab) == [1, 0, 0, 0]).then_some(()));
}

#[test]
fn a_thousand_rules_come_and_go() {
    let test = "a_thousand_rules_come_and_go";
    let Some(mut lab) = Lab::new(test, &["bird", "birdc", "gobgpd", "gobgp", "mkfifo"]) else {
        return;
    };
    Bird::default().start(&mut lab);
    start_gobgp(&mut lab, "gobgpd", false);
    let peers = [
        json!({"name": "bird", "address": "127.0.0.3"}),
        json!({"name": "gobgp", "address": "127.0.0.2"}),
    ];
    let mut speaker = Speaker::start(&mut lab, "speak", &peers);
    speaker.wait_established(&lab, "bird");
    speaker.wait_established(&lab, "gobgp");
    let started = Instant::now();
    speaker.want(&many(1000));
    lab.wait_for("1000 rules in BIRD", 20, |lab| {
        birdc(lab, "show route table flowtab4 count").contains("1000 of 1000").then_some(())
    });
    lab.wait_for("1000 rules in GoBGP", 20, |lab| {
        let table = gobgp(lab, &["global", "rib", "-a", "ipv4-flowspec"]);
        (table.lines().filter(|l| l.starts_with("*>")).count() == 1000).then_some(())
    });
    println!("1000 rules in two peers after {:?}", started.elapsed());
    speaker.want(&[]);
    lab.wait_for("none in BIRD", 20, |lab| {
        birdc(lab, "show route table flowtab4 count").contains("0 of 0").then_some(())
    });
    lab.wait_for("none in GoBGP", 20, |lab| {
        let table = gobgp(lab, &["global", "rib", "-a", "ipv4-flowspec"]);
        (table.lines().filter(|l| l.starts_with("*>")).count() == 0).then_some(())
    });
    for peer in ["bird", "gobgp"] {
        assert_eq!(speaker.status(&lab, peer).unwrap().flaps, 0);
    }
}

//! How sessions come up, stay up, and do not come up.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_model::{Action, Match, Measure, Observed, PeerState, Range};
use weir_tests::lab::Lab;

use crate::daemons::*;
use crate::rules::*;
use crate::speaker::Speaker;

/// BIRD with a key and GTSM, and a speaker with what `extra` makes of the right settings.
fn guarded(test: &str, extra: &Value) -> Option<(Lab, Speaker)> {
    let mut lab = Lab::new(test, &["bird", "birdc", "mkfifo"])?;
    let extra_settings = "ttl security on; password \"weir-s3cret\";";
    Bird { multihop: " 1", extra: extra_settings, ..Bird::default() }.start(&mut lab);
    let mut peer = json!({
        "name": "bird", "address": "127.0.0.3", "ttl_security": true, "password": "weir-s3cret",
    });
    for (key, value) in extra.as_object().unwrap() {
        peer[key] = value.clone();
    }
    let mut speaker = Speaker::start(&mut lab, "speak", &[peer]);
    speaker.want(&holes());
    Some((lab, speaker))
}

#[test]
fn a_session_with_key_and_ttl_comes_up() {
    let test = "a_session_with_key_and_ttl_comes_up";
    let Some((lab, _speaker)) = guarded(test, &json!({})) else { return };
    lab.wait_for("both routes", 20, |lab| (bird_routes(lab).len() == 2).then_some(()));
}

#[test]
fn a_wrong_key_or_ttl_gets_no_session() {
    let test = "a_wrong_key_or_ttl_gets_no_session";
    for extra in
        [json!({"password": "guess"}), json!({"password": null}), json!({"ttl_security": false})]
    {
        let Some((lab, _speaker)) = guarded(test, &extra) else { return };
        // Three attempts' time; the right settings need less than one.
        let deadline = Instant::now() + Duration::from_secs(4);
        lab.wait_for("no session", 30, |lab| {
            assert!(!birdc(lab, "show protocols weir").contains("Established"), "{extra}");
            (Instant::now() > deadline).then_some(())
        });
    }
}

#[test]
fn a_full_peer_is_left_alone() {
    let test = "a_full_peer_is_left_alone";
    let Some(mut lab) = Lab::new(test, &["bird", "birdc", "mkfifo"]) else { return };
    Bird { ipv4: "import limit 3 action restart;", ..Bird::default() }.start(&mut lab);
    let mut speaker =
        Speaker::start(&mut lab, "speak", &[json!({"name": "bird", "address": "127.0.0.3"})]);
    let holes: Vec<Measure> = (1..=5).map(|n| hole(&format!("203.0.113.{n}/32"))).collect();
    speaker.want(&holes);
    let status = lab.wait_for("the peer's NOTIFICATION", 20, |lab| {
        speaker.status(lab, "bird").filter(|s| s.flaps > 0)
    });
    assert_eq!(
        status.last_error.as_deref(),
        Some("peer sent NOTIFICATION 6/1 maximum number of prefixes reached")
    );
    // No flapping: the next attempt is the better part of a minute away.
    let deadline = Instant::now() + Duration::from_secs(8);
    lab.wait_for("quiet", 10, |lab| {
        assert_eq!(speaker.status(lab, "bird").unwrap().flaps, 1);
        (Instant::now() > deadline).then_some(())
    });
}

#[test]
fn a_peer_may_dial_and_may_ask_again() {
    let test = "a_peer_may_dial_and_may_ask_again";
    let Some(mut lab) = Lab::new(test, &["bird", "birdc", "tshark", "mkfifo"]) else { return };
    let tshark = records(&mut lab);
    Bird { neighbor: "127.0.0.1 port 1791", dials: true, ..Bird::default() }.start(&mut lab);
    let peer = json!({"name": "bird", "address": "127.0.0.3", "passive": true});
    let mut speaker = Speaker::start(&mut lab, "speak", &[peer]);
    speaker.want(&everything());
    let count = everything().len();
    lab.wait_for("every route", 30, |lab| (bird_routes(lab).len() == count).then_some(()));
    let seen = |lab: &Lab| lab.log("speak").matches("\"announced\"").count();
    let before = lab.wait_for("every report", 5, |lab| Some(seen(lab)).filter(|n| *n >= count));
    birdc(&lab, "reload in weir");
    lab.wait_for("everything once more", 10, |lab| (seen(lab) >= before + count).then_some(()));
    assert_eq!(bird_routes(&lab).len(), count);
    assert_eq!(speaker.status(&lab, "bird").unwrap().flaps, 0);
    lab.signal(tshark, "INT");
}

#[test]
fn a_session_over_ipv6_with_key_and_ttl_carries_everything() {
    let test = "a_session_over_ipv6_with_key_and_ttl_carries_everything";
    let Some(mut lab) = Lab::new(test, &["bird", "birdc", "mkfifo"]) else { return };
    for address in ["fd00::1/128", "fd00::3/128"] {
        lab.run(&["ip", "addr", "add", address, "dev", "lo"]);
    }
    let bird = Bird {
        local: "fd00::3",
        neighbor: "fd00::1",
        multihop: " 1",
        extra: "ttl security on; password \"weir-s3cret\";",
        ..Bird::default()
    };
    bird.start(&mut lab);
    let peer = json!({
        "name": "bird", "address": "fd00::3", "local_address": "fd00::1", "ttl_security": true,
        "password": "weir-s3cret",
    });
    let mut speaker = Speaker::start(&mut lab, "speak", &[peer]);
    speaker.want(&everything());
    let count = everything().len();
    lab.wait_for("every route", 20, |lab| (bird_routes(lab).len() == count).then_some(()));
    speaker.want(&[]);
    lab.wait_for("no route", 10, |lab| bird_routes(lab).is_empty().then_some(()));
    assert_eq!(speaker.status(&lab, "bird").unwrap().flaps, 0);
}

#[test]
fn within_one_as_rules_need_no_unicast_route() {
    let test = "within_one_as_rules_need_no_unicast_route";
    let Some(mut lab) = Lab::new(test, &["bird", "birdc", "mkfifo"]) else { return };
    let config = Bird { asn: "65010", ..Bird::default() }
        .text()
        .replace(
            "ipv4 table master4; ipv6 table master6;",
            "ipv4 table master4 { trie yes; }; ipv6 table master6 { trie yes; };",
        )
        .replace(
            "flow4 { table flowtab4;",
            "flow4 { table flowtab4; validate on; base table master4;",
        )
        .replace(
            "flow6 { table flowtab6;",
            "flow6 { table flowtab6; validate on; base table master6;",
        );
    start_bird(&mut lab, "bird", &config);
    let peer =
        json!({"name": "bird", "address": "127.0.0.3", "remote_as": 65010, "local_pref": 321});
    let mut speaker = Speaker::start(&mut lab, "speak", &[peer]);
    speaker.want(&everything());
    let count = everything().len();
    let routes =
        lab.wait_for("every route", 20, |lab| Some(bird_routes(lab)).filter(|r| r.len() == count));
    for route in routes {
        assert!(route.contains("BGP.as_path:") && !route.contains("BGP.as_path: 65010"), "{route}");
        assert!(route.contains("BGP.local_pref: 321"), "{route}");
        // BIRD calls a rule that fails validation unreachable (RFC 8955 §6, RFC 9117), and a black hole
        // whose next hop leads nowhere here.
        assert!(!route.starts_with("flow") || !route.contains("unreachable"), "{route}");
    }
}

#[test]
fn two_connections_at_once_become_one() {
    let test = "two_connections_at_once_become_one";
    let Some(mut lab) = Lab::new(test, &["bird", "birdc", "ss", "mkfifo"]) else { return };
    let bird = Bird { neighbor: "127.0.0.1 port 1791", dials: true, ..Bird::default() };
    bird.start(&mut lab);
    let peer = json!({"name": "bird", "address": "127.0.0.3"});
    let mut speaker = Speaker::start(&mut lab, "speak", &[peer]);
    speaker.want(&holes());
    // Again and again both sides dial within the same second.
    for round in 0..4 {
        lab.wait_for("both routes", 30, |lab| (bird_routes(lab).len() == 2).then_some(()));
        lab.wait_for("one connection", 10, |lab| {
            let sockets = lab.ask(&["ss", "-Htn", "state", "established", "src", "127.0.0.3"]);
            (sockets.lines().count() == 1).then_some(())
        });
        let before = speaker.status(&lab, "bird").unwrap().flaps;
        assert!(before <= round, "{before} after {round} restarts\n{}", lab.logs());
        birdc(&lab, "restart weir");
        lab.wait_for("the end of the session", 10, |lab| {
            speaker.status(lab, "bird").filter(|s| s.flaps > before)
        });
    }
}

#[test]
fn peers_that_ask_for_a_refresh_get_everything_again() {
    let test = "peers_that_ask_for_a_refresh_get_everything_again";
    let Some(mut lab) = Lab::new(test, &["gobgpd", "gobgp", "vtysh", "mkfifo"]) else { return };
    start_gobgp(&mut lab, "gobgpd", false);
    start_frr(&mut lab, "frr", FRR, "127.0.0.4");
    let peers = [("gobgp", "127.0.0.2"), ("frr", "127.0.0.4")];
    let peers = peers.map(|(name, address)| json!({"name": name, "address": address}));
    let mut speaker = Speaker::start(&mut lab, "speak", &peers);
    speaker.want(&everything());
    let count = everything().len();
    let seen = |lab: &Lab, peer: &str| {
        let announced =
            |r: &Observed| matches!(r, Observed::Announced { peer: p, .. } if p == peer);
        speaker.reports(lab).iter().filter(|r| announced(r)).count()
    };
    lab.wait_for("every report", 30, |lab| {
        (seen(lab, "gobgp") >= count && seen(lab, "frr") >= count).then_some(())
    });
    gobgp(&lab, &["neighbor", "127.0.0.1", "softresetin"]);
    for family in ["ipv4 unicast", "ipv6 unicast", "ipv4 flowspec", "ipv6 flowspec"] {
        vtysh(&lab, &format!("clear bgp {family} 127.0.0.1 soft in"));
    }
    lab.wait_for("the black hole once more at FRR", 10, |lab| {
        (seen(lab, "frr") > count).then_some(())
    });
    assert_eq!(gobgp_routes(&lab).len(), count);
    assert_eq!(frr_counts(&lab), [1, 1, 13, 4]);
    for peer in ["gobgp", "frr"] {
        assert_eq!(speaker.status(&lab, peer).unwrap().flaps, 0);
    }
}

/// FRR 8.4 ends the session with 3/9 over a list of six values, which RFC 8955 allows.
fn poison() -> Measure {
    rule("203.0.113.66/32", Action::Drop, |m: &mut Match| {
        m.protocols = vec![17];
        m.dst_ports = (1..=6).map(|n| Range::exact(n * 1000)).collect();
    })
}

#[test]
fn a_rule_that_resets_frr_is_not_sent_again() {
    let test = "a_rule_that_resets_frr_is_not_sent_again";
    let Some(mut lab) = Lab::new(test, &["vtysh", "mkfifo"]) else { return };
    start_frr(&mut lab, "frr", FRR, "127.0.0.4");
    let mut speaker =
        Speaker::start(&mut lab, "speak", &[json!({"name": "frr", "address": "127.0.0.4"})]);
    let mut wanted = many(20);
    speaker.want(&wanted);
    lab.wait_for("20 rules", 20, |lab| (frr_counts(lab)[2] == 20).then_some(()));
    // What the session outlives by five seconds is above suspicion.
    let proven = Instant::now() + Duration::from_secs(6);
    lab.wait_for("the proof", 10, |_| (Instant::now() > proven).then_some(()));
    wanted.push(poison());
    speaker.want(&wanted);
    let refused =
        lab.wait_for("the refusal", 20, |lab| Some(speaker.refused(lab)).filter(|r| !r.is_empty()));
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].0, poison());
    assert!(refused[0].1.contains("ended the session over it"), "{refused:?}");
    // Everything else is back at once, and the session stays.
    lab.wait_for("20 rules again", 20, |lab| (frr_counts(lab)[2] == 20).then_some(()));
    let quiet = Instant::now() + Duration::from_secs(6);
    lab.wait_for("quiet", 10, |lab| {
        let status = speaker.status(lab, "frr").unwrap();
        assert_eq!(status.flaps, 1, "{status:?}\n{}", lab.logs());
        (Instant::now() > quiet).then_some(())
    });
    // The next step of the ladder goes through.
    wanted.pop();
    wanted.push(hole("203.0.113.66/32"));
    speaker.want(&wanted);
    lab.wait_for("the black hole", 10, |lab| (frr_counts(lab)[..3] == [1, 0, 20]).then_some(()));
    assert_eq!(speaker.status(&lab, "frr").unwrap().state, PeerState::Established);
}

#[test]
fn frrs_profile_keeps_from_it_what_resets_it() {
    let test = "frrs_profile_keeps_from_it_what_resets_it";
    let Some(mut lab) = Lab::new(test, &["vtysh", "mkfifo"]) else { return };
    start_frr(&mut lab, "frr", FRR, "127.0.0.4");
    let peer = json!({"name": "frr", "address": "127.0.0.4", "profile": "frr"});
    let mut speaker = Speaker::start(&mut lab, "speak", &[peer]);
    speaker.wait_established(&lab, "frr");
    // A range takes two comparisons where a value takes one.
    let ranges = |count: u16| {
        let all = (1..=count).map(|n| range(n * 1000, n * 1000 + 9));
        rule("203.0.113.67/32", Action::Drop, |m| {
            m.protocols = vec![17];
            m.src_ports = all.collect();
        })
    };
    let five = rule("203.0.113.68/32", Action::Drop, |m| {
        m.protocols = vec![17];
        m.dst_ports = (1..=5).map(|n| Range::exact(n * 1000)).collect();
    });
    speaker.want(&[poison(), ranges(3), ranges(2), five]);
    lab.wait_for("two rules", 20, |lab| (frr_counts(lab)[2] == 2).then_some(()));
    let refused: Vec<Measure> = speaker.refused(&lab).into_iter().map(|(m, _)| m).collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused.contains(&poison()) && refused.contains(&ranges(3)), "{refused:?}");
    assert_eq!(speaker.status(&lab, "frr").unwrap().flaps, 0);
}

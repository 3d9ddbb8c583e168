//! The test of a peer against real daemons: what it says, and that it leaves nothing behind.

use serde_json::{Value, json};
use weir_model::{PeerProbe, ProbeStage};
use weir_tests::lab::Lab;

use crate::daemons::*;
use crate::speaker::{Speaker, program};

/// Tests a peer with `extra` over the usual settings, as AS `local_as`.
fn probe(lab: &Lab, local_as: u32, extra: &Value) -> PeerProbe {
    let mut peer = json!({
        "name": "router", "address": "127.0.0.3", "port": 1790, "remote_as": 65020,
        "local_address": "127.0.0.1",
    });
    for (key, value) in extra.as_object().unwrap() {
        peer[key] = value.clone();
    }
    let section = json!({"local_as": local_as, "router_id": "10.0.0.10", "peer": [peer]});
    let config = lab.write("probe.json", &section.to_string());
    let speak = program();
    let answer = lab.ask(&[speak.to_str().unwrap(), "--test", config.to_str().unwrap()]);
    serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"))
}

fn says(found: &PeerProbe, words: &str) {
    assert!(found.findings.iter().any(|f| f.contains(words)), "{words}: {found:?}");
}

#[test]
fn a_router_is_tested_without_a_session_and_one_comes_up_after() {
    let test = "a_router_is_tested_without_a_session_and_one_comes_up_after";
    let Some(mut lab) = Lab::new(test, &["bird", "birdc", "mkfifo"]) else { return };
    Bird::default().start(&mut lab);
    let good = |lab: &Lab| Some(probe(lab, 65010, &json!({}))).filter(|found| found.good);
    let found = lab.wait_for("a good test", 20, good);
    assert_eq!(found.stage, ProbeStage::Accepted, "{found:?}");
    assert_eq!(found.families.len(), 4, "{found:?}");
    assert_eq!(found.open.as_ref().map(|open| open.asn), Some(65020));
    let seen = lab.log("bird");
    assert!(!seen.contains("Established") && bird_routes(&lab).is_empty(), "{seen}");
    // What it leaves behind keeps no session from coming up.
    let speaker =
        Speaker::start(&mut lab, "speak", &[json!({"name": "bird", "address": "127.0.0.3"})]);
    speaker.wait_established(&lab, "bird");
}

#[test]
fn what_a_router_does_not_carry_or_is_not_is_named() {
    let test = "what_a_router_does_not_carry_or_is_not_is_named";
    let Some(mut lab) = Lab::new(test, &["bird", "birdc", "mkfifo"]) else { return };
    let text = Bird::default().text();
    let plain: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("flow4 {") && !line.contains("flow6 {"))
        .collect();
    start_bird(&mut lab, "bird", &plain.join("\n"));
    let answered = |lab: &Lab| {
        Some(probe(lab, 65010, &json!({}))).filter(|found| found.stage == ProbeStage::Accepted)
    };
    let found = lab.wait_for("an answer", 20, answered);
    assert!(!found.good);
    assert_eq!(found.missing, ["ipv4-flowspec", "ipv6-flowspec"]);
    let other = probe(&lab, 65010, &json!({"remote_as": 65099}));
    assert_eq!(other.stage, ProbeStage::OpenReceived, "{other:?}");
    says(&other, "it says that it is AS65020");
    // The router knows weir by another AS.
    let stranger = probe(&lab, 65011, &json!({}));
    assert!(!stranger.good, "{stranger:?}");
    says(&stranger, "it needs a neighbour 127.0.0.1 with remote AS 65011");
    let nobody = probe(&lab, 65010, &json!({"address": "127.0.0.4"}));
    assert_eq!(nobody.stage, ProbeStage::Unreachable, "{nobody:?}");
}

#[test]
fn a_key_on_one_side_only_is_silence_that_is_explained() {
    let test = "a_key_on_one_side_only_is_silence_that_is_explained";
    let Some(mut lab) = Lab::new(test, &["bird", "birdc", "mkfifo"]) else { return };
    Bird { multihop: " 1", extra: "password \"weir-s3cret\";", ..Bird::default() }.start(&mut lab);
    let good = |lab: &Lab| {
        Some(probe(lab, 65010, &json!({"password": "weir-s3cret"}))).filter(|found| found.good)
    };
    lab.wait_for("a good test", 20, good);
    let found = probe(&lab, 65010, &json!({}));
    assert_eq!(found.stage, ProbeStage::Unreachable, "{found:?}");
    says(&found, "a TCP MD5 password there");
}

#[test]
fn gobgp_is_tested_likewise() {
    let test = "gobgp_is_tested_likewise";
    let Some(mut lab) = Lab::new(test, &["gobgpd", "gobgp", "mkfifo"]) else { return };
    start_gobgp(&mut lab, "gobgpd", false);
    let address = json!({"address": "127.0.0.2"});
    let good = |lab: &Lab| Some(probe(lab, 65010, &address)).filter(|found| found.good);
    lab.wait_for("a good test", 20, good);
    let stranger = probe(&lab, 65011, &address);
    // It may also wait after the test before, and then hangs up on everybody.
    assert!(stranger.stage < ProbeStage::Accepted && !stranger.good, "{stranger:?}");
}

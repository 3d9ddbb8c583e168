//! weir's view of who may originate what, with stayrtr as the cache and a file that changes.

use serde_json::{Value, json};
use weir_model::Measure;
use weir_tests::lab::{Lab, Pid};

use crate::daemons::*;
use crate::rules::*;
use crate::speaker::Speaker;

fn write_roas(lab: &Lab, roas: &[(&str, u32, u8)]) {
    let roas: Vec<Value> = roas
        .iter()
        .map(|(prefix, asn, max)| {
            json!({"prefix": prefix, "maxLength": max, "asn": format!("AS{asn}"), "ta": "test"})
        })
        .collect();
    // Never a file in part: stayrtr reads it at any time.
    let whole = lab.write("vrps.new", &json!({"roas": roas}).to_string());
    std::fs::rename(whole, lab.path("vrps.json")).unwrap();
}

fn start_stayrtr(lab: &mut Lab, name: &str) -> Pid {
    let cache = lab.path("vrps.json");
    let cache = cache.to_str().unwrap().to_owned();
    let mut command = vec!["stayrtr", "-bind", "127.0.0.9:8282", "-metrics.addr", "127.0.0.9:9847"];
    command.extend(["-checktime=false", "-refresh", "1", "-rtr.refresh", "1", "-rtr.retry", "1"]);
    command.extend(["-cache", &cache]);
    lab.spawn(name, &command)
}

fn unicast(lab: &Lab) -> Vec<String> {
    let routes = bird_routes(lab);
    routes.iter().filter_map(|r| r.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn origins_are_followed_as_the_cache_changes() {
    let test = "origins_are_followed_as_the_cache_changes";
    let Some(mut lab) = Lab::new(test, &["stayrtr", "bird", "birdc", "mkfifo"]) else { return };
    // The first half is weir's own, too short for a black hole; the second somebody else's.
    let own = ("203.0.113.0/25", 65010, 25);
    let other = ("203.0.113.128/25", 64999, 32);
    write_roas(&lab, &[own, other]);
    let cache = start_stayrtr(&mut lab, "stayrtr");
    lab.wait_for("stayrtr", 15, |lab| {
        lab.log("stayrtr").contains("new cache file: Updating sha256").then_some(())
    });
    Bird::default().start(&mut lab);
    let peer = |name: &str, extra: Value| {
        let mut peer = json!({
            "name": name, "port": 1790, "address": "127.0.0.3", "remote_as": 65020,
            "local_address": "127.0.0.1", "connect_retry_secs": 1,
        });
        for (key, value) in extra.as_object().unwrap() {
            peer[key] = value.clone();
        }
        peer
    };
    let section = json!({
        "rpki": {"cache": "127.0.0.9:8282"}, "peer": [peer("bird", json!({}))],
    });
    let mut speaker = Speaker::with(&mut lab, "speak", &section);
    lab.wait_for("RPKI data", 20, |lab| {
        lab.log("speak").contains("RPKI data received").then_some(())
    });
    let rule_there = rule("203.0.113.200/32", weir_model::Action::Drop, |m| m.protocols = vec![17]);
    let wanted: Vec<Measure> =
        vec![hole("203.0.113.7/32"), hole("203.0.113.200/32"), rule_there.clone()];
    speaker.want(&wanted);
    // Invalid by length alone is announced; where another AS is the origin, nothing is.
    lab.wait_for("the black hole of weir's own half", 20, |lab| {
        (unicast(lab) == ["203.0.113.7/32"]).then_some(())
    });
    let refused =
        lab.wait_for("two refusals", 10, |lab| Some(speaker.refused(lab)).filter(|r| r.len() == 2));
    assert!(refused.iter().all(|(_, why)| why.contains("RPKI: AS65010 is not the origin")));
    assert!(lab.log("speak").contains("longer than the ROA allows"), "{}", lab.log("speak"));
    // The ROA changes hands: what was refused is announced.
    write_roas(&lab, &[own, ("203.0.113.128/25", 65010, 32)]);
    lab.wait_for("all three", 20, |lab| (bird_routes(lab).len() == 3).then_some(()));
    // And back: what was announced is withdrawn.
    write_roas(&lab, &[own, other]);
    lab.wait_for("one route", 20, |lab| (unicast(lab) == ["203.0.113.7/32"]).then_some(()));
    // A cache that is gone says nothing new; its last word stands until it expires, and weir's
    // sessions do not wait for it.
    lab.kill(cache);
    speaker.want(&[hole("203.0.113.8/32"), hole("203.0.113.201/32")]);
    lab.wait_for("the new black hole", 10, |lab| {
        (unicast(lab) == ["203.0.113.8/32"]).then_some(())
    });
    // It comes back with another session and other data.
    write_roas(&lab, &[own]);
    start_stayrtr(&mut lab, "stayrtr-again");
    lab.wait_for("both black holes", 30, |lab| (bird_routes(lab).len() == 2).then_some(()));
    assert_eq!(speaker.status(&lab, "bird").unwrap().flaps, 0);
}

#[test]
fn without_a_cache_nothing_is_refused() {
    let test = "without_a_cache_nothing_is_refused";
    let Some(mut lab) = Lab::new(test, &["bird", "birdc", "mkfifo"]) else { return };
    Bird::default().start(&mut lab);
    let section = json!({
        "rpki": {"cache": "127.0.0.9:8282"},
        "peer": [{"name": "bird", "port": 1790, "address": "127.0.0.3", "remote_as": 65020,
                  "local_address": "127.0.0.1", "connect_retry_secs": 1}],
    });
    let mut speaker = Speaker::with(&mut lab, "speak", &section);
    speaker.want(&holes());
    lab.wait_for("both routes", 20, |lab| (bird_routes(lab).len() == 2).then_some(()));
    assert_eq!(speaker.refused(&lab), []);
}

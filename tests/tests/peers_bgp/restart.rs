//! What each daemon keeps when weir is killed, stops, and comes back.

use serde_json::json;
use weir_tests::lab::Lab;

use crate::daemons::*;
use crate::rules::*;
use crate::speaker::Speaker;

#[test]
fn graceful_restart_keeps_routes_until_the_next_end_of_rib() {
    let test = "graceful_restart_keeps_routes_until_the_next_end_of_rib";
    let Some(mut lab) = Lab::new(test, &["bird", "birdc", "mkfifo"]) else { return };
    Bird::default().start(&mut lab);
    let peer = json!({"name": "bird", "address": "127.0.0.3"});
    let mut first = Speaker::start(&mut lab, "first", std::slice::from_ref(&peer));
    first.want(&everything());
    let count = everything().len();
    lab.wait_for("every route", 20, |lab| (bird_routes(lab).len() == count).then_some(()));
    // kill -9: BIRD keeps all four families, as stale.
    lab.kill(first.pid);
    lab.wait_for("BIRD to see it", 10, |lab| {
        birdc(lab, "show protocols all weir")
            .contains("Neighbor graceful restart active")
            .then_some(())
    });
    assert_eq!(bird_routes(&lab).len(), count);
    // A new weir that does not know yet what it wants: the routes stay.
    let mut second = Speaker::start(&mut lab, "second", std::slice::from_ref(&peer));
    second.wait_established(&lab, "bird");
    assert_eq!(bird_routes(&lab).len(), count);
    second.want(&everything()[..3]);
    lab.wait_for("only what is still wanted", 10, |lab| {
        (bird_routes(lab).len() == 3).then_some(())
    });
    // Stopping with `hold` leaves them too.
    second.say("hold");
    lab.wait_for_end(second.pid, 10);
    assert_eq!(bird_routes(&lab).len(), 3);
    // Without graceful restart they go at once.
    let without = json!({"name": "bird", "address": "127.0.0.3", "graceful_restart_secs": 0});
    let mut third = Speaker::start(&mut lab, "third", &[without]);
    third.want(&everything()[..5]);
    lab.wait_for("five routes", 20, |lab| (bird_routes(lab).len() == 5).then_some(()));
    lab.kill(third.pid);
    lab.wait_for("none", 10, |lab| bird_routes(lab).is_empty().then_some(()));
}

/// Announces everything, kills the speaker, and asks `kept` how many routes of each family are
/// left once `noticed` says that the daemon has seen it.
fn left_after_kill(
    lab: &mut Lab,
    address: &str,
    counts: impl Fn(&Lab) -> Vec<u64>,
    expected: &[u64],
    noticed: impl Fn(&Lab) -> bool,
) -> Vec<u64> {
    let peer = json!({"name": "peer", "address": address});
    let mut speaker = Speaker::start(lab, "first", std::slice::from_ref(&peer));
    speaker.want(&everything());
    lab.wait_for("every route", 30, |lab| (counts(lab) == expected).then_some(()));
    lab.kill(speaker.pid);
    lab.wait_for("the daemon to see it", 15, |lab| noticed(lab).then_some(()));
    counts(lab)
}

fn gobgp_counts(lab: &Lab) -> Vec<u64> {
    GOBGP_FAMILIES
        .iter()
        .map(|f| {
            let table = gobgp(lab, &["global", "rib", "-a", f]);
            // A stale route is marked `S`.
            table.lines().filter(|l| l.starts_with("*>") || l.starts_with("S*>")).count() as u64
        })
        .collect()
}

fn gobgp_lost(lab: &Lab) -> bool {
    !gobgp(lab, &["neighbor"]).contains("Establ")
}

#[test]
fn gobgp_keeps_nothing_unless_told_to() {
    let test = "gobgp_keeps_nothing_unless_told_to";
    let Some(mut lab) = Lab::new(test, &["gobgpd", "gobgp", "mkfifo"]) else { return };
    start_gobgp(&mut lab, "gobgpd", false);
    left_after_kill(&mut lab, "127.0.0.2", gobgp_counts, &[1, 1, 13, 4], gobgp_lost);
    lab.wait_for("no route", 5, |lab| (gobgp_counts(lab) == [0; 4]).then_some(()));
}

#[test]
fn gobgp_keeps_all_four_families_when_told_to() {
    let test = "gobgp_keeps_all_four_families_when_told_to";
    let Some(mut lab) = Lab::new(test, &["gobgpd", "gobgp", "mkfifo"]) else { return };
    start_gobgp(&mut lab, "gobgpd", true);
    let left = left_after_kill(&mut lab, "127.0.0.2", gobgp_counts, &[1, 1, 13, 4], gobgp_lost);
    assert_eq!(left, [1, 1, 13, 4], "{}", lab.logs());
    // What weir no longer wants goes with the End-of-RIB of its next session.
    let peer = json!({"name": "peer", "address": "127.0.0.2"});
    let mut second = Speaker::start(&mut lab, "second", &[peer]);
    second.want(&everything()[..3]);
    lab.wait_for("only what is still wanted", 40, |lab| {
        (gobgp_counts(lab) == [0, 0, 3, 0]).then_some(())
    });
}

#[test]
fn frr_keeps_black_holes_and_no_rules() {
    let test = "frr_keeps_black_holes_and_no_rules";
    let Some(mut lab) = Lab::new(test, &["vtysh", "mkfifo"]) else { return };
    start_frr(&mut lab, "frr", FRR, "127.0.0.4");
    let lost = |lab: &Lab| !frr_is_up(lab);
    left_after_kill(&mut lab, "127.0.0.4", frr_counts, &[1, 1, 13, 4], lost);
    let text = lab.wait_for("no rule", 10, |lab| {
        let rules = vtysh(lab, "show bgp ipv4 flowspec");
        (!rules.contains("203.0.113")).then(|| vtysh(lab, "show bgp ipv4 unicast"))
    });
    assert!(text.contains("203.0.113.7/32"), "{text}");
}

#[test]
fn openbgpd_keeps_black_holes() {
    let test = "openbgpd_keeps_black_holes";
    let Some(mut lab) = Lab::new(test, &["bgpctl", "mkfifo"]) else { return };
    if start_openbgpd(&mut lab, test).is_none() {
        return;
    }
    let counts = |lab: &Lab| {
        let rib = bgpctl(lab, &["show", "rib"]);
        vec![["203.0.113.7/32", "2001:db8:0:1::7/128"].iter().filter(|n| rib.contains(**n)).count()
            as u64]
    };
    let lost = |lab: &Lab| !bgpctl(lab, &["show", "neighbor", "127.0.0.1"]).contains("Established");
    let left = left_after_kill(&mut lab, "127.0.0.6", counts, &[2], lost);
    assert_eq!(left, [2], "{}", bgpctl(&lab, &["show", "neighbor", "127.0.0.1"]));
}

#[test]
fn every_daemon_forgets_what_is_withdrawn_on_stop() {
    let test = "every_daemon_forgets_what_is_withdrawn_on_stop";
    let programs = ["bird", "birdc", "gobgpd", "gobgp", "vtysh", "mkfifo"];
    let Some(mut lab) = Lab::new(test, &programs) else { return };
    Bird::default().start(&mut lab);
    start_gobgp(&mut lab, "gobgpd", true);
    start_frr(&mut lab, "frr", FRR, "127.0.0.4");
    let peers = [("bird", "127.0.0.3"), ("gobgp", "127.0.0.2"), ("frr", "127.0.0.4")];
    let peers = peers.map(|(name, address)| json!({"name": name, "address": address}));
    let mut speaker = Speaker::start(&mut lab, "speak", &peers);
    speaker.want(&everything());
    let count = everything().len();
    lab.wait_for("every route everywhere", 40, |lab| {
        let all = bird_routes(lab).len() == count
            && gobgp_routes(lab).len() == count
            && frr_counts(lab) == [1, 1, 13, 4];
        all.then_some(())
    });
    speaker.say("withdraw");
    assert_eq!(lab.wait_for_end(speaker.pid, 15), Some(0));
    // Graceful restart does not keep what was withdrawn.
    assert_eq!(bird_routes(&lab), [""; 0]);
    assert_eq!(gobgp_counts(&lab), [0; 4]);
    let unicast = vtysh(&lab, "show bgp ipv4 unicast");
    assert!(!unicast.contains("203.0.113"), "{unicast}");
}

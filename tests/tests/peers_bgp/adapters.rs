//! Daemons that weir drives: what was there before, what is wanted, what is the operator's, and what
//! happens when one of them is restarted or weir is killed.
//!
//! Each has, before weir comes, a route of the operator's, a black hole that an earlier weir left
//! over, and a route of the operator's to a destination for which weir wants a black hole too.

use std::process::Command;

use serde_json::json;
use weir_model::{Measure, Observed};
use weir_tests::lab::{Lab, Pid};
use weir_tests::weir_binary;

use crate::daemons::*;
use crate::rules::*;
use crate::speaker::Speaker;

/// weir's mark, with the number of a route that is no longer wanted.
const LEFT_OVER: &str = "65010:2003134834:5";

/// Everything but what no daemon has words for: redirection to an IPv6 address.
fn sayable() -> Vec<Measure> {
    let mut list = everything();
    list.retain(|m| !m.to_string().contains("redirect 2001:db8::9"));
    assert_eq!(list.len(), everything().len() - 1);
    list
}

/// Whether GoBGP shows every rule with its action. Daemons spell some of them in other terms of the
/// same meaning: `spells` says which for which.
fn assert_all_rules(routes: &[String], spells: &[(&str, &str)]) {
    for (measure, _, expected) in rules().into_iter().filter(|(m, ..)| sayable().contains(m)) {
        let (words, action) = expected.split_once("] ").unwrap();
        let spelled = |words: String, (ours, theirs): &(&str, &str)| words.replace(ours, theirs);
        let words = spells.iter().fold(words.to_owned(), spelled);
        let found = routes.iter().find(|r| r.contains(&format!(" {words}] ")));
        let found = found.unwrap_or_else(|| panic!("{measure}: {words}\nin {routes:#?}"));
        assert!(found.contains(action), "{found} lacks {action}");
    }
}

const BIRD_SPELLS: &[(&str, &str)] = &[
    ("!is-fragment+first-fragment", "!is-fragment&!first-fragment"),
    ("source-port: <=52 >=1024", "source-port: >=0&<=52 >=1024&<=65535"),
    ("packet-length: >=1400", "packet-length: >=1400&<=65535"),
];

const EXABGP_SPELLS: &[(&str, &str)] = &[
    ("!is-fragment+first-fragment", "!is-fragment&!first-fragment"),
    ("!FSRPAU", "!F&!S&!R&!P&!A&!U"),
];

fn wait_for_refusal(lab: &Lab, speaker: &Speaker, measure: &Measure) -> String {
    lab.wait_for(&format!("the refusal of {measure}"), 15, |lab| {
        speaker.refused(lab).into_iter().find(|(m, _)| m == measure).map(|(_, why)| why)
    })
}

/// Whether every measure was reported as announced.
fn wait_for_reports(lab: &Lab, speaker: &Speaker, measures: &[Measure]) {
    lab.wait_for("every report", 15, |lab| {
        let reports = speaker.reports(lab);
        let announced = |wanted: &&Measure| {
            reports
                .iter()
                .any(|r| matches!(r, Observed::Announced { measure, .. } if measure == *wanted))
        };
        measures.iter().all(|m| announced(&m)).then_some(())
    });
}

// ----------------------------------------------------------------------------------------- GoBGP

/// The operator's routes and the left-over one; GoBGP forgets all of them when it is restarted.
fn gobgp_with_routes(lab: &mut Lab, name: &str) -> Pid {
    let pid = start_gobgp_alone(lab, name);
    lab.wait_for("GoBGP", 15, |lab| (!gobgp(lab, &["global"]).is_empty()).then_some(()));
    let add = ["global", "rib", "add"];
    let unicast = |words: &[&str]| gobgp(lab, &[&add[..], words].concat());
    unicast(&["198.51.100.0/24", "nexthop", "192.0.2.77"]);
    unicast(&["203.0.113.250/32", "nexthop", "192.0.2.77"]);
    unicast(&["203.0.113.99/32", "nexthop", "192.0.2.1", "large-community", LEFT_OVER]);
    let rule =
        ["-a", "ipv4-flowspec", "match", "destination", "203.0.113.200/32", "then", "discard"];
    gobgp(lab, &[&add[..], &rule].concat());
    pid
}

fn gobgp_is_as_wanted(lab: &Lab) -> Option<Vec<String>> {
    let routes = gobgp_routes(lab);
    // The operator's three, and weir's.
    (routes.len() == 3 + sayable().len() && !routes.iter().any(|r| r.contains("203.0.113.99")))
        .then_some(routes)
}

#[test]
fn gobgp_is_driven_and_keeps_the_operators_routes() {
    let test = "gobgp_is_driven_and_keeps_the_operators_routes";
    let Some(mut lab) = Lab::new(test, &["gobgpd", "gobgp", "mkfifo"]) else { return };
    let daemon = gobgp_with_routes(&mut lab, "gobgpd");
    let adapter = json!({
        "name": "gobgp", "kind": "gobgp", "control": GOBGP_API, "local_as": 65010,
    });
    let mut speaker = Speaker::drive(&mut lab, "speak", &adapter);
    let mut wanted = everything();
    wanted.push(hole("203.0.113.250/32"));
    speaker.want(&wanted);
    let routes = lab.wait_for("every route", 20, gobgp_is_as_wanted);
    assert_all_rules(&routes, &[]);
    let find = |net: &str| routes.iter().find(|r| r.contains(net)).unwrap();
    assert!(find("203.0.113.7/32 ").contains("blackhole, no-export"), "{routes:#?}");
    assert!(find("198.51.100.0/24").contains("192.0.2.77"));
    assert!(find("203.0.113.250/32").contains("192.0.2.77"), "the operator's, not weir's");
    assert!(find("203.0.113.200/32").contains("discard"));
    let why = wait_for_refusal(&lab, &speaker, &hole("203.0.113.250/32"));
    assert!(why.contains("not weir's"), "{why}");
    wait_for_reports(&lab, &speaker, &sayable());
    // It comes back with the operator's routes only, and gets weir's again.
    lab.kill(daemon);
    gobgp_with_routes(&mut lab, "gobgpd-again");
    lab.wait_for("every route again", 30, gobgp_is_as_wanted);
    // What a killed weir leaves behind, the next one finds.
    lab.kill(speaker.pid);
    let mut second = Speaker::drive(&mut lab, "second", &adapter);
    second.want(&sayable()[..3]);
    lab.wait_for("three routes", 15, |lab| (gobgp_routes(lab).len() == 3 + 3).then_some(()));
    second.say("withdraw");
    assert_eq!(lab.wait_for_end(second.pid, 15), Some(0));
    assert_eq!(gobgp_routes(&lab).len(), 3, "{:#?}", gobgp_routes(&lab));
}

#[test]
fn gobgp_takes_thousands_of_rules() {
    let test = "gobgp_takes_thousands_of_rules";
    let Some(mut lab) = Lab::new(test, &["gobgpd", "gobgp", "mkfifo"]) else { return };
    start_gobgp_alone(&mut lab, "gobgpd");
    let adapter = json!({
        "name": "gobgp", "kind": "gobgp", "control": GOBGP_API, "local_as": 65010,
    });
    let mut speaker = Speaker::drive(&mut lab, "speak", &adapter);
    speaker.want(&many(3000));
    lab.wait_for("3000 rules", 30, |lab| (gobgp_routes(lab).len() == 3000).then_some(()));
    speaker.want(&[]);
    lab.wait_for("none", 30, |lab| gobgp_routes(lab).is_empty().then_some(()));
}

// ------------------------------------------------------------------------------------------ BIRD

/// BIRD as an operator sets it up for weir, towards GoBGP as the router.
const BIRD: &str = r#"
log stderr all;
router id 10.0.0.10;
ipv4 table weir4; ipv6 table weir6; flow4 table weirf4; flow6 table weirf6;
protocol device { }
protocol static operator { ipv4 { table weir4; }; route 198.51.100.0/24 blackhole { bgp_next_hop = 192.0.2.77; }; }
include "weir.conf";
protocol bgp edge1 {
  local 127.0.0.1 as 65010;
  neighbor 127.0.0.2 port 1790 as 65020;
  multihop; hold time 30; connect retry time 1; connect delay time 1; error wait time 1, 3;
  ipv4 { table weir4; import none; export all; next hop keep; };
  ipv6 { table weir6; import none; export all; next hop keep; };
  flow4 { table weirf4; import none; export all; };
  flow6 { table weirf6; import none; export all; };
}
"#;

/// What an earlier weir left in the file.
const BIRD_LEFT_OVER: &str = "protocol static weir_v4 { ipv4 { table weir4; };
  route 203.0.113.99/32 blackhole { bgp_next_hop = 192.0.2.1; };
}
";

/// The operator's route and weir's, as the router has them.
fn routed(count: usize) -> impl Fn(&Lab) -> Option<Vec<String>> {
    move |lab: &Lab| {
        let routes = gobgp_routes(lab);
        let operators = routes.iter().any(|r| r.contains("198.51.100.0/24"));
        // What an earlier weir left may go after the rest has come.
        let left = routes.iter().any(|r| r.contains("203.0.113.99/32"));
        (operators && !left && routes.len() == 1 + count).then_some(routes)
    }
}

#[test]
fn bird_is_driven_and_keeps_the_operators_routes() {
    let test = "bird_is_driven_and_keeps_the_operators_routes";
    let programs = ["bird", "birdc", "gobgpd", "gobgp", "mkfifo"];
    let Some(mut lab) = Lab::new(test, &programs) else { return };
    start_gobgp(&mut lab, "gobgpd", false);
    let include = lab.write("weir.conf", BIRD_LEFT_OVER);
    let daemon = start_bird(&mut lab, "bird", BIRD);
    lab.wait_for("the left-over route at the router", 30, |lab| {
        gobgp_routes(lab).iter().any(|r| r.contains("203.0.113.99/32")).then_some(())
    });
    let adapter = json!({
        "name": "bird", "kind": "bird", "control": lab.path("bird.ctl"), "include": include,
        "local_as": 65010,
    });
    let mut speaker = Speaker::drive(&mut lab, "speak", &adapter);
    speaker.want(&everything());
    let count = sayable().len();
    let routes = lab.wait_for("every route at the router", 30, routed(count));
    assert_all_rules(&routes, BIRD_SPELLS);
    assert!(
        routes.iter().any(|r| r.contains("203.0.113.7/32") && r.contains("blackhole, no-export"))
    );
    // BIRD reads the file itself when it comes back.
    lab.kill(daemon);
    lab.wait_for("its end at the router", 15, |lab| gobgp_routes(lab).is_empty().then_some(()));
    start_bird(&mut lab, "bird-again", BIRD);
    lab.wait_for("every route again", 40, routed(count));
    // A killed weir's routes stay; without weir, `weir release` takes them out.
    lab.kill(speaker.pid);
    assert!(routed(count)(&lab).is_some());
    release(
        &lab,
        &format!("kind = \"bird\"\ncontrol = {:?}\ninclude = {include:?}", lab.path("bird.ctl")),
    );
    lab.wait_for("the operator's route alone", 10, routed(0));
    // weir comes back, with less.
    let mut second = Speaker::drive(&mut lab, "second", &adapter);
    second.want(&sayable()[..3]);
    lab.wait_for("three routes", 15, routed(3));
    second.say("withdraw");
    assert_eq!(lab.wait_for_end(second.pid, 15), Some(0));
    lab.wait_for("none of weir's", 10, routed(0));
}

/// `weir release` with one adapter.
fn release(lab: &Lab, adapter: &str) {
    let config = format!(
        "[protect]\nprefixes = [\"203.0.113.0/24\"]\n[bgp]\nlocal_as = 65010\n\
         router_id = \"10.0.0.10\"\n[[bgp.adapter]]\nname = \"daemon\"\nlocal_as = 65010\n{adapter}\n"
    );
    let config = lab.write("weir.toml", &config);
    let out = Command::new(weir_binary())
        .args(["release", "--config", config.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

// ---------------------------------------------------------------------------------------- ExaBGP

const EXABGP: &str = r"
neighbor 127.0.0.2 {
  router-id 10.0.0.10; local-address 127.0.0.1; local-as 65010; peer-as 65020; hold-time 30;
  family { ipv4 unicast; ipv6 unicast; ipv4 flow; ipv6 flow; }
  static {
    route 198.51.100.0/24 next-hop 192.0.2.77;
    route 203.0.113.250/32 next-hop 192.0.2.77;
    route 203.0.113.99/32 next-hop 192.0.2.1 large-community [ @LEFT_OVER@ ];
  }
  flow {
    route operator { match { destination 203.0.113.200/32; } then { discard; } }
  }
}
";

/// The pipes of one test, where ExaBGP looks for them.
struct Pipes(String);

impl Pipes {
    fn new(lab: &Lab) -> Self {
        let pipes = Self(lab.namespace().to_owned());
        lab.run(&["mkdir", "-p", "/run/exabgp"]);
        for end in [".in", ".out"] {
            lab.run(&["mkfifo", "-m", "600", &format!("{}{end}", pipes.base())]);
        }
        pipes
    }

    fn base(&self) -> String {
        format!("/run/exabgp/{}", self.0)
    }

    fn start(&self, lab: &mut Lab, name: &str) -> Pid {
        let pipes = format!("exabgp.api.pipename={}", self.0);
        let settings =
            ["exabgp.api.cli=true", "exabgp.api.ack=true", "exabgp.tcp.port=1790", &pipes];
        spawn_exabgp(lab, name, &EXABGP.replace("@LEFT_OVER@", LEFT_OVER), &settings)
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        for end in [".in", ".out"] {
            // Nothing depends on it being gone.
            let _ = std::fs::remove_file(format!("{}{end}", self.base()));
        }
    }
}

#[test]
fn exabgp_is_driven_and_keeps_the_operators_routes() {
    let test = "exabgp_is_driven_and_keeps_the_operators_routes";
    let programs = ["exabgp", "env", "gobgpd", "gobgp", "mkfifo"];
    let Some(mut lab) = Lab::new(test, &programs) else { return };
    start_gobgp(&mut lab, "gobgpd", false);
    let pipes = Pipes::new(&lab);
    let daemon = pipes.start(&mut lab, "exabgp");
    // All four of its own, the left-over one among them.
    lab.wait_for("ExaBGP's own routes at the router", 30, |lab| {
        (gobgp_routes(lab).len() == 4).then_some(())
    });
    let adapter = json!({
        "name": "exabgp", "kind": "exabgp", "control": pipes.base(), "local_as": 65010,
        "neighbors": ["127.0.0.2"],
    });
    let mut speaker = Speaker::drive(&mut lab, "speak", &adapter);
    let mut wanted = everything();
    wanted.push(hole("203.0.113.250/32"));
    speaker.want(&wanted);
    let as_wanted = |lab: &Lab| {
        let routes = gobgp_routes(lab);
        let left = routes.iter().any(|r| r.contains("203.0.113.99"));
        (!left && routes.len() == 3 + sayable().len()).then_some(routes)
    };
    let routes = lab.wait_for("every route at the router", 30, as_wanted);
    assert_all_rules(&routes, EXABGP_SPELLS);
    let find = |net: &str| routes.iter().find(|r| r.contains(net)).unwrap();
    assert!(find("203.0.113.250/32").contains("192.0.2.77"), "the operator's, not weir's");
    wait_for_refusal(&lab, &speaker, &hole("203.0.113.250/32"));
    wait_for_reports(&lab, &speaker, &sayable());
    // It forgets everything that did not come from its configuration.
    lab.kill(daemon);
    lab.wait_for("its end at the router", 15, |lab| gobgp_routes(lab).is_empty().then_some(()));
    pipes.start(&mut lab, "exabgp-again");
    lab.wait_for("every route again", 60, as_wanted);
    lab.kill(speaker.pid);
    let mut second = Speaker::drive(&mut lab, "second", &adapter);
    second.want(&[]);
    lab.wait_for("the operator's alone", 20, |lab| (gobgp_routes(lab).len() == 3).then_some(()));
}

// ------------------------------------------------------------------------------------------- FRR

const FRR_ORIGIN: &str = "frr defaults traditional
log stdout informational
router bgp 65010
 bgp router-id 10.0.0.10
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 no bgp network import-check
 timers bgp 10 30
 neighbor 127.0.0.2 remote-as 65020
 neighbor 127.0.0.2 port 1790
 neighbor 127.0.0.2 disable-connected-check
 neighbor 127.0.0.2 ebgp-multihop 2
 neighbor 127.0.0.2 update-source 127.0.0.1
 neighbor 127.0.0.2 timers connect 1
 address-family ipv4 unicast
  neighbor 127.0.0.2 activate
  neighbor 127.0.0.2 attribute-unchanged next-hop
  network 198.51.100.0/24 route-map OPERATOR
  network 203.0.113.250/32 route-map OPERATOR
  network 203.0.113.99/32 route-map WEIR-RTBH4
 exit-address-family
 address-family ipv6 unicast
  neighbor 127.0.0.2 activate
  neighbor 127.0.0.2 attribute-unchanged next-hop
 exit-address-family
exit
route-map OPERATOR permit 10
 set ip next-hop 192.0.2.77
exit
route-map WEIR-RTBH4 permit 10
 set community blackhole
 set ip next-hop 192.0.2.1
exit
route-map WEIR-RTBH6 permit 10
 set community blackhole
 set ipv6 next-hop global 100::1
exit
";

#[test]
fn frr_is_driven_and_keeps_the_operators_networks() {
    let test = "frr_is_driven_and_keeps_the_operators_networks";
    let Some(mut lab) = Lab::new(test, &["vtysh", "gobgpd", "gobgp", "mkfifo"]) else { return };
    start_gobgp(&mut lab, "gobgpd", false);
    let daemon = start_frr(&mut lab, "frr", FRR_ORIGIN, "127.0.0.1");
    lab.wait_for("FRR's own routes at the router", 30, |lab| {
        (gobgp_routes(lab).len() == 3).then_some(())
    });
    let adapter = json!({
        "name": "frr", "kind": "frr", "control": lab.path("vty"), "local_as": 65010,
    });
    let mut speaker = Speaker::drive(&mut lab, "speak", &adapter);
    let mut wanted = everything();
    wanted.push(hole("203.0.113.250/32"));
    speaker.want(&wanted);
    let as_wanted = |lab: &Lab| {
        let routes = gobgp_routes(lab);
        let left = routes.iter().any(|r| r.contains("203.0.113.99"));
        (!left && routes.len() == 2 + holes().len()).then_some(routes)
    };
    let routes = lab.wait_for("both black holes at the router", 30, as_wanted);
    let find = |net: &str| routes.iter().find(|r| r.contains(net)).unwrap();
    assert!(find("203.0.113.7/32").contains("192.0.2.1"), "{routes:#?}");
    assert!(find("203.0.113.7/32").contains("blackhole"), "{routes:#?}");
    assert!(find("2001:db8:0:1::7/128").contains("100::1"), "{routes:#?}");
    assert!(!find("203.0.113.250/32").contains("blackhole"), "the operator's, not weir's");
    wait_for_refusal(&lab, &speaker, &hole("203.0.113.250/32"));
    wait_for_reports(&lab, &speaker, &holes());
    // It comes back with what its configuration says, the left-over route again.
    lab.kill(daemon);
    start_frr(&mut lab, "frr-again", FRR_ORIGIN, "127.0.0.1");
    lab.wait_for("FRR", 15, |lab| {
        vtysh(lab, "show running-config").contains("network").then_some(())
    });
    lab.wait_for("both black holes again", 40, |lab| {
        let running = vtysh(lab, "show running-config");
        (running.contains("203.0.113.7/32") && !running.contains("203.0.113.99"))
            .then(|| as_wanted(lab))
            .flatten()
    });
    speaker.want(&[]);
    lab.wait_for("the operator's alone", 20, |lab| (gobgp_routes(lab).len() == 2).then_some(()));
}

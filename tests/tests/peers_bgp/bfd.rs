//! BFD with BIRD over a link, IPv4 and IPv6: a router that falls silent is noticed long before its hold time.

use std::time::Instant;

use serde_json::json;
use weir_model::{BfdState, PeerState, PeerStatus};
use weir_tests::lab::{Lab, Side};

use crate::speaker::Speaker;

const PROGRAMS: &[&str] = &["ip", "bird", "birdc", "sysctl"];

const BIRD: &str = r#"
log stderr all;
router id 10.9.0.2;
protocol device { }
protocol bfd { interface "*" { interval 100 ms; multiplier 3; }; }
template bgp weir {
  local port 1790 as 65020;
  passive yes;
  hold time 90;
  bfd on;
}
protocol bgp weir4 from weir { neighbor 10.9.0.1 as 65010; ipv4 { import all; export none; }; }
protocol bgp weir6 from weir { neighbor 2001:db8:9::1 as 65010; ipv6 { import all; export none; }; }
"#;

/// A link between the laboratory and a side.
fn link(lab: &Lab, side: &Side) {
    lab.run(&["ip", "link", "add", "link0", "type", "veth", "peer", "name", "link1"]);
    lab.run(&["ip", "link", "set", "link1", "netns", side.namespace()]);
    let ours = ["10.9.0.1/24", "2001:db8:9::1/64"];
    let theirs = ["10.9.0.2/24", "2001:db8:9::2/64"];
    for address in ours {
        lab.run(&["ip", "address", "add", address, "dev", "link0", "nodad"]);
    }
    lab.run(&["ip", "link", "set", "link0", "up"]);
    for address in theirs {
        lab.run_in(side, &["ip", "address", "add", address, "dev", "link1", "nodad"]);
    }
    lab.run_in(side, &["ip", "link", "set", "link1", "up"]);
}

fn is_up(status: &PeerStatus) -> bool {
    let bfd = status.bfd.as_ref().map(|bfd| bfd.state);
    status.state == PeerState::Established && bfd == Some(BfdState::Up)
}

#[test]
fn a_router_that_falls_silent_is_noticed_within_a_second() {
    let test = "a_router_that_falls_silent_is_noticed_within_a_second";
    let Some(mut lab) = Lab::new(test, PROGRAMS) else { return };
    let router = lab.side("rtr");
    link(&lab, &router);
    let config = lab.write("bird.conf", BIRD);
    let control = lab.path("bird.ctl");
    let (config, control) = (config.to_str().unwrap(), control.to_str().unwrap());
    let bird = lab.spawn_in(&router, "bird", &["bird", "-f", "-c", config, "-s", control]);
    lab.wait_for("bird", 10, |lab| lab.path("bird.ctl").exists().then_some(()));
    let peer = |name: &str, address: &str, family: &str| {
        json!({
            "name": name, "address": address, "port": 1790, "remote_as": 65020,
            "families": [family], "hold_time_secs": 90, "connect_retry_secs": 1,
            "bfd": {"min_tx_ms": 100, "min_rx_ms": 100},
        })
    };
    let peers =
        [peer("four", "10.9.0.2", "ipv4-unicast"), peer("six", "2001:db8:9::2", "ipv6-unicast")];
    let mut speaker = Speaker::with(&mut lab, "weir", &json!({"peer": peers}));
    speaker.want(&[]);
    for name in ["four", "six"] {
        let up = |lab: &Lab| speaker.status(lab, name).filter(is_up);
        let status = lab.wait_for(&format!("BFD with {name}"), 30, up);
        assert_eq!(status.bfd.unwrap().error, None);
    }
    let shown = lab.run_in(&router, &["birdc", "-s", control, "show", "bfd", "sessions"]);
    assert_eq!(shown.matches(" Up ").count(), 2, "{shown}");

    let silent = Instant::now();
    lab.signal(bird, "STOP");
    for name in ["four", "six"] {
        let status = lab.wait_for(&format!("{name} is lost"), 20, |lab| {
            speaker.status(lab, name).filter(|s| s.state != PeerState::Established)
        });
        let why = status.last_error.clone().unwrap_or_default();
        println!("{name}: lost after {} ms: {why}", silent.elapsed().as_millis());
        // The hold time is 90 s.
        assert!(why.contains("BFD"), "{status:#?}");
        let bfd = status.bfd.unwrap();
        assert_eq!((bfd.state, bfd.lost), (BfdState::Down, 1));
        assert_eq!(bfd.diagnostic.as_deref(), Some("control detection time expired"));
    }
    lab.signal(bird, "CONT");
    for name in ["four", "six"] {
        lab.wait_for(&format!("{name} is back"), 30, |lab| speaker.status(lab, name).filter(is_up));
    }
}

//! What an agent does not take, whoever says it.

use weir_agent::controller::State;
use weir_agent::protocol::{Signer, hex};

use crate::live::{Live, attack, mitigation};
use crate::world::{NODE4, now};

/// Changes what the appliance has stored, as someone with its disk could.
fn tamper(live: &Live, change: impl Fn(&mut State)) {
    let path = live.world.outside.path("appliance").join("agents.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut state: State = serde_json::from_str(&text).unwrap();
    change(&mut state);
    std::fs::write(&path, serde_json::to_string(&state).unwrap()).unwrap();
}

#[test]
fn a_second_join_under_a_name_that_is_up_does_not_disarm_the_first() {
    let Some(live) = Live::new("agent same name", "") else { return };
    live.want_and_wait(&[mitigation(1, NODE4, 60_000)]);
    let token = live.server.token(None, &[], now()).unwrap().to_string();
    let other = live.world.outside.path("other");
    live.world.outside.write("other.toml", &format!("state = {other:?}\nrun = {other:?}\n"));
    let url = live.url();
    let both = ["sh", "-c", "exec \"$@\" 2>&1", "sh", live.program()];
    let join = |more: &[&str]| {
        let command = ["--config", "other.toml", "join", &url, &token, "--name", "node1"];
        live.world.outside.ask(&[&both[..], &command, more].concat())
    };
    let refused = join(&[]);
    assert!(refused.contains("is up") && refused.contains("--replace"), "{refused}");
    assert_eq!(attack(&live.world, 50), 0, "still in force");
    live.want_and_wait(&[mitigation(1, NODE4, 60_000), mitigation(2, NODE4, 60_000)]);

    let taken = join(&["--replace"]);
    assert!(taken.contains("joined as node1"), "{taken}");
    // The first machine is told, and keeps what it has until its lease ends: nothing of the other's is its own.
    live.world.node.wait_for("the first agent is told", 20, |_| {
        live.ask(&["status"]).contains("another machine has joined").then_some(())
    });
    assert!(live.ask(&["rules"]).contains("m1 applied"));
    let doctor = [&both[..], &["--config", "agent.toml", "doctor"]].concat();
    let doctor = live.world.node.ask(&doctor);
    assert!(doctor.contains("FAIL appliance") && doctor.contains("another machine"), "{doctor}");
    assert_eq!(attack(&live.world, 50), 0);
    let controller = live.server.controller();
    let node = &controller.nodes()["node1"];
    assert!(node.last_seen.is_none(), "nobody reports as the second machine");
    assert!(node.events.iter().any(|e| e.kind == "replaced"), "{:?}", node.events);
}

#[test]
fn a_forged_snapshot_changes_nothing_and_an_old_one_neither() {
    let Some(mut live) = Live::new("agent forged", "") else { return };
    live.want_and_wait(&[mitigation(1, NODE4, 60_000)]);
    let path = live.world.outside.path("appliance").join("agents.json");
    live.server.save().unwrap();
    let old = std::fs::read_to_string(&path).unwrap();
    live.want_and_wait(&[mitigation(2, NODE4, 60_000)]);
    live.want_and_wait(&[mitigation(1, NODE4, 60_000), mitigation(2, NODE4, 60_000)]);

    // Whoever holds the TLS key but not the signing key: a relay, or a stolen backup of half.
    live.appliance_dies();
    tamper(&live, |state| {
        state.signing_key = hex(Signer::generate().unwrap().pkcs8());
        state.epoch += 10;
    });
    let key = std::fs::read_to_string(&path).unwrap();
    live.appliance_returns();
    live.want(&[]);
    assert!(live.wait_event("refused").contains("signature"), "{key}");
    assert!(live.ask(&["rules"]).contains("m2 applied"));
    assert_eq!(attack(&live.world, 100), 0, "what was in force still is");

    // An old state with the right key: refused until the appliance counts on from where the node is.
    live.appliance_dies();
    std::fs::write(&path, old).unwrap();
    live.appliance_returns();
    live.want(&[mitigation(3, NODE4, 60_000)]);
    live.world.node.wait_for("the new epoch", 20, |_| {
        live.ask(&["rules"]).contains("m3 applied").then_some(())
    });
    // There was something to refuse only if the snapshot overtook the node's report.
    let controller = live.server.controller();
    let events = &controller.nodes()["node1"].events;
    let mut refused = events.iter().filter(|e| e.kind == "refused");
    assert!(refused.all(|e| e.text.contains("older")), "{events:?}");
}

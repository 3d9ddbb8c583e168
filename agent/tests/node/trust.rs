//! What an agent does not take, whoever says it.

use weir_agent::controller::State;
use weir_agent::protocol::{Signer, hex};

use crate::live::{Live, attack, mitigation};
use crate::world::NODE4;

/// Changes what the appliance has stored, as someone with its disk could.
fn tamper(live: &Live, change: impl Fn(&mut State)) {
    let path = live.world.outside.path("appliance").join("agents.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut state: State = serde_json::from_str(&text).unwrap();
    change(&mut state);
    std::fs::write(&path, serde_json::to_string(&state).unwrap()).unwrap();
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

//! Dry runs.

use std::sync::Arc;

use weir_model::{Action, Command, CommandError, Filter, Inventory, Match, Measure, Mode, Service};

use super::{World, attack, candidate, limit_from, net};

fn service(address: &str, protocol: u8, port: u16) -> Service {
    let address = address.parse().unwrap();
    Service { address, protocol, port, name: "lobby".into(), game: "minecraft".into() }
}

fn with_services(mut world: World) -> World {
    let services = vec![
        service("203.0.113.7", 17, 30120),
        service("203.0.113.7", 6, 30120),
        service("203.0.113.8", 17, 30120),
    ];
    let protected = vec![net("203.0.113.0/24")].into();
    let inventory = Inventory::new(protected, Vec::new().into(), services);
    world.mitigator.set_inventory(Arc::new(inventory));
    world
}

fn add(measure: Measure) -> Command {
    Command::Add { measure, ttl_secs: 60, by: "eve".into() }
}

#[test]
fn a_dry_run_says_what_changes_and_changes_nothing() {
    let mut world = with_services(World::auto());
    world.attack(1, 300.0, 3);
    let before = (world.desired(), world.actions().len());
    let packets = candidate(123, 1.0, 0.0).packets;
    let drop = Measure::FlowSpec(Filter { packets, action: Action::Drop });
    let dry = world.mitigator.dry_run(&add(drop.clone()), world.now).unwrap();
    assert_eq!(dry.adds, [drop]);
    assert_eq!(dry.removes[0].to_string(), limit_from(123, 300_000));
    assert_eq!(dry.normal_share, Some(0.001));
    assert_eq!(dry.services.len(), 1, "the UDP service of the target");
    assert_eq!((world.desired(), world.actions().len()), (before.0, 0));
}

#[test]
fn a_dry_run_tells_harm_and_refusal() {
    let world = with_services(World::auto());
    let run = |measure| world.mitigator.dry_run(&add(measure), world.now);
    let hole = run(Measure::Blackhole(net("203.0.113.7/32"))).unwrap();
    assert_eq!((hole.normal_share, hole.services.len()), (Some(1.0), 2));
    assert!(matches!(run(Measure::Blackhole(net("192.0.2.1/32"))), Err(CommandError::Refused(_))));
    let mut packets = Match::to(net("203.0.113.0/24"));
    packets.protocols = vec![17];
    let unmeasured = run(Measure::FlowSpec(Filter { packets, action: Action::Drop })).unwrap();
    assert_eq!((unmeasured.normal_share, unmeasured.services.len()), (None, 2));
}

#[test]
fn leaving_observe_mode_can_be_tried_out() {
    let mut world = World::new(|c| c.mode = Mode::Observe);
    world.attack(1, 300.0, 3);
    let auto = Command::SetMode { mode: Mode::Auto, by: "eve".into() };
    let dry = world.mitigator.dry_run(&auto, world.now).unwrap();
    assert_eq!(dry.adds[0].to_string(), limit_from(123, 300_000));
    assert_eq!(world.mitigator.mode(), Mode::Observe);
}

#[test]
fn a_proposal_is_shown_with_what_it_would_change() {
    let mut world = World::new(|c| c.mode = Mode::Approve);
    world.attack_as(1, |at| attack(1, 300.0, at));
    let proposals = world.mitigator.proposals(world.now);
    assert_eq!(proposals.len(), 1);
    assert_eq!(proposals[0].1.adds[0].to_string(), limit_from(123, 300_000));
}

//! What was put in force by hand may last longer, and be another one under the same number.

use weir_model::{Action, Command, CommandError, Filter, Match, Measure, MitigationId, Range};

use super::{World, limit_from, net};

fn rule(action: Action) -> Measure {
    let mut packets = Match::to(net("203.0.113.9/32"));
    packets.protocols = vec![17];
    packets.src_ports = vec![Range::exact(53)];
    Measure::FlowSpec(Filter { packets, action })
}

fn add(world: &mut World, measure: Measure) -> MitigationId {
    let add = Command::Add { measure, ttl_secs: 60, by: "eve".into() };
    MitigationId(world.command(&add).unwrap().unwrap())
}

fn change(id: MitigationId, measure: Option<Measure>, ttl_secs: Option<u64>) -> Command {
    Command::Change { mitigation: id, measure, ttl_secs, by: "bob".into() }
}

const DROPPED: &str = "flowspec dst 203.0.113.9/32 proto 17 sport 53 drop";

#[test]
fn a_measure_by_hand_is_given_more_time() {
    let mut world = World::auto();
    let id = add(&mut world, rule(Action::Drop));
    world.wait(50);
    world.command(&change(id, None, Some(60))).unwrap();
    world.wait(50);
    assert_eq!(world.desired(), [DROPPED]);
    world.restart(|_| {});
    world.wait(1);
    assert_eq!(world.desired(), [DROPPED], "the new time holds over a restart");
    world.command(&change(id, None, Some(2))).unwrap();
    world.wait(3);
    assert_eq!(world.desired(), [""; 0], "less time is a change, too");
    let ended = world.command(&change(id, None, Some(60)));
    assert!(matches!(ended, Err(CommandError::Conflict(_))));
}

#[test]
fn a_measure_by_hand_is_replaced_in_its_place() {
    let mut world = World::auto();
    let id = add(&mut world, rule(Action::Drop));
    let limit = rule(Action::RateLimitPackets { packets_per_sec: 500 });
    let dry = world.mitigator.dry_run(&change(id, Some(limit.clone()), None), world.now).unwrap();
    assert_eq!(
        (&dry.adds[..], &dry.removes[..]),
        (&[limit.clone()][..], &[rule(Action::Drop)][..])
    );
    world.wait(30);
    world.command(&change(id, Some(limit.clone()), None)).unwrap();
    assert_eq!(world.desired(), [limit.to_string()]);
    // Another match is another route: still one measure, the same number, the same time.
    let mut wider = Match::to(net("203.0.113.9/32"));
    wider.protocols = vec![17];
    let marked = Measure::FlowSpec(Filter { packets: wider, action: Action::Mark { dscp: 8 } });
    world.command(&change(id, Some(marked.clone()), None)).unwrap();
    assert_eq!(world.desired(), [marked.to_string()]);
    world.wait(31);
    assert_eq!(world.desired(), [""; 0]);
}

#[test]
fn a_change_passes_the_same_guard_and_names_what_is_by_hand() {
    let mut world = World::auto();
    let id = add(&mut world, rule(Action::Drop));
    let refused = |world: &mut World, command: &Command| {
        assert!(matches!(world.command(command), Err(CommandError::Refused(_))), "{command:?}");
    };
    refused(&mut world, &change(id, Some(Measure::Blackhole(net("192.0.2.1/32"))), None));
    refused(&mut world, &change(id, Some(Measure::Divert(net("203.0.113.9/32"))), None));
    refused(&mut world, &change(id, None, Some(1 << 60)));
    let other = add(&mut world, Measure::Blackhole(net("203.0.113.8/32")));
    let same = change(other, Some(rule(Action::Mark { dscp: 8 })), None);
    assert!(matches!(world.command(&same), Err(CommandError::Conflict(_))), "a match stands once");
    let unknown = change(MitigationId(1), None, Some(60));
    assert!(matches!(world.command(&unknown), Err(CommandError::NotFound)));
    assert_eq!(world.desired(), [DROPPED, "blackhole 203.0.113.8/32"]);
    world.attack(1, 300.0, 3);
    let own =
        world.mitigator.mitigations().find(|m| m.measure.to_string() == limit_from(123, 300_000));
    let own = change(own.unwrap().id, None, Some(60));
    assert!(
        matches!(world.command(&own), Err(CommandError::Conflict(_))),
        "incidents renew theirs"
    );
}

#[test]
fn a_full_guard_lets_a_change_pass() {
    let mut world = World::auto();
    let mut last = None;
    for host in 1..=200_u8 {
        let hole = Measure::Blackhole(net(&format!("203.0.113.{host}/32")));
        let hole = Command::Add { measure: hole, ttl_secs: 60, by: "eve".into() };
        if let Ok(Some(id)) = world.command(&hole) {
            last = Some(MitigationId(id));
        }
    }
    let full = world.desired().len();
    let another = Measure::Blackhole(net("203.0.113.250/32"));
    world.command(&change(last.unwrap(), Some(another), None)).unwrap();
    assert_eq!(world.desired().len(), full);
    assert!(world.desired().contains(&"blackhole 203.0.113.250/32".to_owned()));
}

#[test]
fn one_person_makes_no_black_hole_of_a_rule() {
    let mut world = World::new(|c| c.two_person_rtbh = true);
    let id = add(&mut world, rule(Action::Drop));
    let hole = change(id, Some(Measure::Blackhole(net("203.0.113.9/32"))), None);
    assert!(matches!(world.command(&hole), Err(CommandError::Conflict(_))));
    assert_eq!(world.desired(), [DROPPED]);
}

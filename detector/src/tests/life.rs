//! The life of an incident: merged, judged again, ended.

use weir_model::{IncidentId, Metric};

use super::*;

/// NTP answers to a host of the /24.
fn ntp(i: u32, host: u8) -> Sample {
    let mut sample = sample(i % 300, 123, 17, 4000, 468);
    sample.record.dst = IpAddr::from([203, 0, 113, host]);
    sample
}

impl World {
    /// So many seconds of players and so many sampled packets a slot of an attack on their host.
    fn under(&mut self, secs: u32, packets: u32, attack: impl Fn(u32) -> Sample) {
        for t in 0..secs * 10 {
            self.players();
            self.send(packets, |i| attack(t * packets + i));
            self.tick();
        }
    }

    fn open_now(&self) -> Vec<(IpNet, IncidentId)> {
        self.detector.incidents.values().map(|a| (a.target, a.id)).collect()
    }
}

#[test]
fn hosts_of_a_carpet_become_one_incident() {
    let mut world = World::new(1);
    world.play(400);
    world.under(5, 10, |i| ntp(i, 7));
    let host: IpNet = "203.0.113.7/32".parse().unwrap();
    let prefix: IpNet = "203.0.113.0/24".parse().unwrap();
    let open = world.open_now();
    assert_eq!(open.len(), 1, "{:?}", world.said);
    let (target, first) = open[0];
    assert_eq!(target, host);
    // The same from the same, to everybody there.
    for t in 0..50 {
        world.players();
        world.send(100, |i| ntp(t * 100 + i, 7 + u8::try_from(i).unwrap()));
        world.tick();
    }
    let open: Vec<IpNet> = world.open_now().into_iter().map(|(target, _)| target).collect();
    assert_eq!(open, [prefix]);
    let opened = world.said.iter().find(|v| v.target == prefix).unwrap();
    assert_eq!(
        (opened.phase, opened.vectors[0].subtype.as_str()),
        (Phase::Opened, "ntp-amplification")
    );
    let last = world.said.iter().rfind(|v| v.incident == first).unwrap();
    assert_eq!((last.phase, last.at), (Phase::Ended, opened.at), "one takes the other's place");
    let after = world.said.iter().filter(|v| v.at > opened.at);
    assert!(after.clone().count() > 0 && after.clone().all(|v| v.target == prefix));
}

#[test]
fn separability_is_judged_again_while_the_attack_goes_on() {
    let mut world = World::new(1);
    world.play(400);
    let mut told = Vec::new();
    // What is told, and how long it took, in slots.
    let mut turn = |world: &mut World, separable: bool, attack: &dyn Fn(u32) -> Sample| {
        let (from, said) = (world.slot, world.said.len());
        world.under(8, 30, attack);
        let first = world.said[said..].iter().find(|v| v.separable == separable);
        told.push(first.map(|v| v.at.slot() - from));
        assert_eq!(world.said.last().unwrap().separable, separable);
    };
    turn(&mut world, true, &|i| ntp(i, 7));
    // More of the same as ever: nothing tells it from the players.
    turn(&mut world, false, &|i| player(i + 77_777));
    turn(&mut world, true, &|i| ntp(i, 7));
    assert!(told.iter().all(|t| t.is_some_and(|slots| slots <= 50)), "{told:?}");
    let first = world.said[0].incident;
    assert!(world.said.iter().all(|v| v.incident == first && v.phase != Phase::Ended));
}

/// A world with an incident whose threshold is 29,160 packets a second.
fn attacked() -> World {
    let mut world = World::new(1);
    world.play(400);
    world.under(5, 30, |i| ntp(i, 7));
    let reason = &world.said[0].reason;
    assert_eq!((reason.metric, reason.threshold), (Metric::PacketsPerSec, 29_160.0));
    world
}

#[test]
fn an_incident_ends_after_thirty_seconds_below_seven_tenths_of_its_threshold() {
    // Ten thousand packets a second are the players', and so many thousand are left of the attack.
    for (left, ends) in [(12, false), (6, true)] {
        let mut world = attacked();
        let from = world.slot;
        for t in 0..500 {
            world.players();
            world.send(u32::from(t % 10 < 6) * left / 6, |i| ntp(t * 6 + i, 7));
            world.tick();
        }
        // What is left then may well open another one.
        let first = world.said[0].incident;
        let last = world.said.iter().rfind(|v| v.incident == first).unwrap();
        assert_eq!(last.phase == Phase::Ended, ends, "{left}: {last:?}");
        let after = last.at.slot() - from;
        assert!(!ends || (300..340).contains(&after), "{after}");
    }
}

#[test]
fn quiet_is_counted_when_nothing_older_can_still_arrive() {
    let mut world = attacked();
    // From now on exports come up to twenty seconds late.
    world.lag = 200;
    let from = world.slot;
    world.play(70);
    let last = world.said.last().unwrap();
    assert_eq!(last.phase, Phase::Ended);
    let after = last.at.slot() - from;
    assert!((500..540).contains(&after), "{after}");
}

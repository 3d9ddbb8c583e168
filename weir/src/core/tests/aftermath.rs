//! A rule that drops everything ends the attack in sight, and the players with it.

use weir_model::{
    Action, Class, ClassVolume, Filter, FlowRecord, HostSlice, IncidentState, Match, Measure,
    MitigationState, Mode, Sample,
};

use super::*;

const VICTIM: &str = "203.0.113.7";

/// One sampled UDP datagram of a hundred.
fn datagram(src: u32, src_port: u16, dst_port: u16, length: u16) -> FlowRecord {
    FlowRecord {
        src: IpAddr::from(src.to_be_bytes()),
        dst: VICTIM.parse().unwrap(),
        src_port,
        dst_port,
        protocol: 17,
        ttl: 60,
        length_min: length,
        length_max: length,
        bytes: u64::from(length),
        sampling: 100,
        ..FlowRecord::EMPTY
    }
}

struct World {
    core: Core,
    slot: u64,
    decisions: Vec<Decision>,
}

impl World {
    fn new() -> Self {
        let mut config = Config::default();
        config.protect.prefixes = ["203.0.113.0/24".parse().unwrap()].into_iter().collect();
        config.mitigator.mode = Mode::Approve;
        config.detector.end_quiet_secs = 1;
        let protected = config.protect.prefixes.clone();
        let inventory = Arc::new(Inventory::new(protected, Vec::new().into(), Vec::new()));
        let core = Core::new(&config, &inventory);
        Self { core, slot: 18_000_000_000, decisions: Vec::new() }
    }

    fn now(&self) -> Millis {
        Millis::from_slot(self.slot)
    }

    /// So many seconds with four sampled datagrams of players a slot or none, and forty of NTP or none.
    fn pass(&mut self, secs: u64, players: bool, attack: bool) {
        for _ in 0..secs * 10 {
            let mut records = Vec::new();
            let turn = u32::try_from(self.slot % 100_000).unwrap() * 64;
            for i in 0..4 * u32::from(players) {
                let mixed = (turn + i).wrapping_mul(2_654_435_761) >> 7;
                let port = 40_000 + u16::try_from(mixed % 9000).unwrap();
                let length = 50 + u16::try_from(mixed % 300).unwrap();
                records.push(datagram(0x0a00_0000 + mixed % 40, port, 28_015, length));
            }
            for i in 0..40 * u32::from(attack) {
                records.push(datagram((turn + i).wrapping_mul(2_654_435_761), 123, 4000, 468));
            }
            self.tick(&records);
        }
    }

    fn tick(&mut self, records: &[FlowRecord]) {
        let watermark = Millis::from_slot(self.slot - 5);
        let mut slice = Slice { slot: self.slot, watermark, ..Slice::default() };
        let mut host = HostSlice::empty(VICTIM.parse().unwrap(), self.slot);
        for record in records {
            let packets = record.scaled_packets();
            host.inbound[Class::of(record) as usize]
                .add(ClassVolume { packets, bytes: record.scaled_bytes() });
            host.variance += packets * u64::from(record.sampling);
            slice.samples.push(Sample { record: *record, weight: 1 });
        }
        if !records.is_empty() {
            slice.hosts.push(host);
        }
        self.core.slice(&slice);
        self.slot += 1;
        let turn = self.core.advance(self.now());
        self.decisions.extend(turn.decisions);
    }

    fn at(&self, action: &str) -> Option<Millis> {
        self.decisions.iter().find(|d| d.action == action).map(|d| d.at)
    }
}

#[test]
fn a_rule_by_hand_that_hides_the_attack_is_still_found_to_starve_the_players() {
    let mut world = World::new();
    world.pass(300, true, false);
    world.pass(5, true, true);
    let incident = Arc::clone(world.core.mitigator().incidents().next().expect("an attack"));
    assert!(incident.verdict.legitimate.is_some(), "{incident:?}");
    let target = VICTIM.parse::<IpAddr>().unwrap();
    let packets = Match { protocols: vec![17], ..Match::to(target.into()) };
    let measure = Measure::FlowSpec(Filter { packets, action: Action::Drop });
    let add = Command::Add { measure: measure.clone(), ttl_secs: 3600, by: "eve".into() };
    world.core.command(&add, world.now()).unwrap();
    let at = world.now();
    world.core.observed(&Observed::Announced { peer: "edge".into(), measure, at });
    // From now on nothing comes through.
    world.pass(20, false, false);
    let (ended, taken_back) = (world.at("end").unwrap(), world.at("roll-back"));
    assert!(taken_back.is_some_and(|at| at > ended), "{:#?}", world.decisions);
    let incident = world.core.mitigator().incidents().next().unwrap();
    assert_eq!(incident.state, IncidentState::Closed);
    let by_hand = world.core.mitigator().mitigations().next().unwrap();
    assert_eq!(by_hand.state, MitigationState::Withdrawn);
    assert_eq!(by_hand.note, "rolled back: legitimate traffic fell to 0 %");
}

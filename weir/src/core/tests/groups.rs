//! Customers with policies of their own: the same attack, other decisions; and a recording of it.

use std::fmt::Write as _;

use weir_model::{
    Class, ClassVolume, Direction, FlowRecord, HostSlice, Inbound, Measure, MetricSlice,
    MitigationState, Mode, OwnMetric, OwnMetrics, PolicyGroup, Rung, Sample, Threshold,
};

use super::*;

/// A host of nobody's group, one of acme's, one of the laboratory's.
const HOSTS: [&str; 3] = ["203.0.113.7", "203.0.113.71", "203.0.113.135"];

fn datagram(to: &str, src: u32, ports: (u16, u16), length: u16) -> FlowRecord {
    FlowRecord {
        src: IpAddr::from(src.to_be_bytes()),
        dst: to.parse().unwrap(),
        src_port: ports.0,
        dst_port: ports.1,
        protocol: 17,
        ttl: 60,
        length_min: length,
        length_max: length,
        bytes: u64::from(length),
        sampling: 100,
        ..FlowRecord::EMPTY
    }
}

fn config(groups: Vec<PolicyGroup>) -> Config {
    let mut config = Config::default();
    config.protect.prefixes = ["203.0.113.0/24".parse().unwrap()].into_iter().collect();
    config.protect.groups = groups;
    config.mitigator.mode = Mode::Auto;
    config.mitigator.ladder.retain(|step| step.rung == Rung::Rtbh);
    config.mitigator.ladder[0].above_bits_per_sec = 50_000_000;
    config
}

fn customers() -> Vec<PolicyGroup> {
    let group = |name: &str, prefix: &str| PolicyGroup {
        name: name.to_owned(),
        prefixes: FromIterator::from_iter([prefix.parse().unwrap()]),
        ..PolicyGroup::default()
    };
    let inbound = Inbound { multiplier: Some(4.0), ..Inbound::default() };
    vec![
        PolicyGroup {
            inbound: Some(Box::new(inbound)),
            never: Some(vec![Rung::Rtbh]),
            ..group("acme", "203.0.113.64/26")
        },
        PolicyGroup { mode: Some(Mode::Observe), ..group("lab", "203.0.113.128/26") },
    ]
}

struct World {
    core: Core,
    slot: u64,
    /// What was given to the core, and when.
    inputs: Vec<(Millis, String)>,
    decisions: Vec<Decision>,
    metrics: OwnMetrics,
}

impl World {
    fn new(config: &Config) -> Self {
        let core = Core::new(config, &Arc::new(config.inventory()));
        let metrics = OwnMetrics::from(config.detector.metrics.clone());
        Self { core, slot: 18_000_000_000, inputs: Vec::new(), decisions: Vec::new(), metrics }
    }

    /// Records an input as a recording has it, and applies what was recorded.
    fn give(&mut self, input: &Input) {
        let now = Millis::from_slot(self.slot);
        let text = serde_json::to_string(input).unwrap();
        let Self { core, decisions, .. } = self;
        let input = serde_json::from_str(&text).unwrap();
        core.replay(input, now, &mut |turn| decisions.extend(turn.decisions));
        self.inputs.push((now, text));
    }

    /// So many seconds with four sampled datagrams of players a slot for each host, and `attack` of NTP.
    fn pass(&mut self, secs: u64, attack: u32) {
        for _ in 0..secs * 10 {
            let watermark = Millis::from_slot(self.slot - 5);
            let mut slice = Slice { slot: self.slot, watermark, ..Slice::default() };
            let turn = u32::try_from(self.slot % 100_000).unwrap() * 1024;
            for to in HOSTS {
                let mut host = HostSlice::empty(to.parse().unwrap(), self.slot);
                let players = (0..4).map(|i: u32| {
                    let mixed = (turn + i).wrapping_mul(2_654_435_761) >> 7;
                    let port = 40_000 + u16::try_from(mixed % 9000).unwrap();
                    let length = 50 + u16::try_from(mixed % 300).unwrap();
                    datagram(to, 0x0a00_0000 + mixed % 40, (port, 28_015), length)
                });
                let flood = (0..attack).map(|i| {
                    datagram(to, (turn + i).wrapping_mul(2_654_435_761), (123, 4000), 468)
                });
                for record in players.chain(flood) {
                    let packets = record.scaled_packets();
                    host.inbound[Class::of(&record) as usize]
                        .add(ClassVolume { packets, bytes: record.scaled_bytes() });
                    host.variance += packets * u64::from(record.sampling);
                    self.measure(&record, &mut slice);
                    slice.samples.push(Sample { record, weight: 1 });
                }
                slice.hosts.push(host);
            }
            self.give(&Input::Slice(Box::new(slice)));
            self.slot += 1;
            self.give(&Input::Advance);
        }
    }

    fn measure(&self, record: &FlowRecord, slice: &mut Slice) {
        slice.metrics_key = self.metrics.key();
        let patterns = self.metrics.compile(Direction::Inbound);
        for (bit, _) in patterns.iter().filter(|(_, pattern)| pattern.holds(record)) {
            let (packets, bytes) = (record.scaled_packets(), record.scaled_bytes());
            slice.metrics.push(MetricSlice {
                host: record.dst,
                metric: u8::try_from(bit.trailing_zeros()).unwrap(),
                slot: slice.slot,
                volume: ClassVolume { packets, bytes },
                variance: packets * u64::from(record.sampling),
            });
        }
    }

    /// Of each host: whether it has an incident, and what became of its mitigations.
    fn outcome(&self) -> String {
        let mut text = String::new();
        for host in HOSTS {
            let target = host.parse::<IpAddr>().unwrap().into();
            let mut incidents = self.core.mitigator().incidents();
            let incident = incidents.find(|incident| incident.verdict.target == target);
            let group = incident.map_or("-", |i| i.group.as_deref().unwrap_or("nobody's"));
            let _ = write!(text, "{host} {group}:");
            let is_its = |measure: &Measure| *measure == Measure::Blackhole(target);
            for m in self.core.mitigator().mitigations().filter(|m| is_its(&m.measure)) {
                let _ = write!(text, " {} {:?}", m.rung, m.state);
            }
            text.push('\n');
        }
        text
    }
}

#[test]
fn customers_are_treated_as_their_policies_say() {
    let config = config(customers());
    let mut world = World::new(&config);
    world.pass(320, 0);
    assert_eq!(world.decisions, []);
    // 15,000 packets a second beside 4,000 of players: above what weir learned, below four times as much.
    world.pass(10, 15);
    assert_eq!(
        world.outcome(),
        "203.0.113.7 nobody's: rtbh Active\n203.0.113.71 -:\n203.0.113.135 lab: rtbh Simulated\n"
    );
    // Ten times as much is above four times as well, but acme is never black-holed.
    world.pass(10, 150);
    let outcome = world.outcome();
    assert!(outcome.contains("203.0.113.71 acme:\n"), "{outcome}");
    let acme = "203.0.113.71/32".parse().unwrap();
    let never = |d: &Decision| d.target == acme && d.detail.contains("never for group acme");
    assert!(world.decisions.iter().any(never), "{:#?}", world.decisions);
    let announced =
        world.core.mitigator().mitigations().filter(|m| m.state == MitigationState::Active);
    assert_eq!(announced.count(), 1);
}

#[test]
fn groups_changed_during_an_attack_replay_byte_for_byte() {
    let before = config(customers());
    let mut world = World::new(&before);
    world.pass(320, 0);
    world.pass(10, 15);
    let desired = world.outcome();
    let mut groups = customers();
    groups[0].inbound = None;
    groups[0].never = None;
    let after = config(groups).inventory();
    world.give(&Input::Inventory(Arc::new(after)));
    // What stays allowed stays.
    let first = |text: &str| text.lines().next().unwrap().to_owned();
    assert_eq!(first(&world.outcome()), first(&desired));
    world.pass(5, 15);
    assert!(world.outcome().contains("203.0.113.71 acme: rtbh Active"), "{}", world.outcome());
    let mut again = Core::new(&before, &Arc::new(before.inventory()));
    let mut decisions = Vec::new();
    for (now, input) in &world.inputs {
        let input = serde_json::from_str(input).unwrap();
        again.replay(input, *now, &mut |turn| decisions.extend(turn.decisions));
    }
    let text = |list: &[Decision]| serde_json::to_string(list).unwrap();
    assert_eq!(text(&decisions), text(&world.decisions));
}

#[test]
fn a_metric_of_ones_own_leads_to_a_rule_within_its_match_and_replays() {
    let mut config = config(customers());
    config.mitigator.ladder = Config::default().mitigator.ladder;
    config.mitigator.ladder.retain(|step| step.rung == Rung::Drop);
    config.mitigator.ladder[0].above_packets_per_sec = Some(1000);
    config.mitigator.ladder[0].above_bits_per_sec = 1_000_000;
    config.detector.metrics = vec![OwnMetric {
        name: "time".to_owned(),
        packets: "udp src port 123 dst port 4000-4010".parse().unwrap(),
        direction: Direction::Inbound,
        packets_per_sec: Some(Threshold::Fixed(2000.0)),
        bits_per_sec: None,
        groups: vec!["acme".to_owned(), "lab".to_owned()],
    }];
    let inventory = Arc::new(config.inventory());
    let mut world = World::new(&config);
    world.pass(320, 0);
    // 6,000 packets a second: below every threshold of weir, but of another shape than usual.
    world.pass(12, 6);
    let own = config.detector.metrics[0].packets.towards("203.0.113.0/24".parse().unwrap());
    let told: Vec<String> = world
        .core
        .mitigator()
        .incidents()
        .map(|i| format!("{} {}", i.verdict.target, i.verdict.reason.name()))
        .collect();
    assert!(
        told.starts_with(&["203.0.113.71/32 time".into(), "203.0.113.135/32 time".into()]),
        "{told:?}"
    );
    assert!(told[2..].iter().all(|other| !other.ends_with("time")), "not of the groups: {told:?}");
    let mut announced = Vec::new();
    let nobodys = HOSTS[0].parse::<IpAddr>().unwrap().into();
    for m in world.core.mitigator().mitigations().filter(|m| m.measure.target() != nobodys) {
        let Measure::FlowSpec(filter) = &m.measure else { panic!("{m:?}") };
        assert_eq!(own.meet(&filter.packets).as_ref(), Some(&filter.packets), "{filter}");
        announced.push(format!("{} {:?}", filter.packets.dst, m.state));
    }
    announced.sort();
    assert_eq!(announced, ["203.0.113.135/32 Simulated", "203.0.113.71/32 Active"]);
    let mut again = Core::new(&config, &inventory);
    let mut decisions = Vec::new();
    for (now, input) in &world.inputs {
        let input = serde_json::from_str(input).unwrap();
        again.replay(input, *now, &mut |turn| decisions.extend(turn.decisions));
    }
    let text = |list: &[Decision]| serde_json::to_string(list).unwrap();
    assert_eq!(text(&decisions), text(&world.decisions));
    assert!(text(&decisions).contains(r#""name":"time""#));
}

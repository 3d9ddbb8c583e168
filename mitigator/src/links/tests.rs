use weir_model::{ExporterId, SamplingSource};

use super::*;

const START: Millis = Millis(1_000_000_000);

fn exporter(last_seen: Millis, in_bytes: u64) -> ExporterStatus {
    ExporterStatus {
        sampling_doubted: 0,
        id: ExporterId(1),
        address: "192.0.2.1".parse().unwrap(),
        agent: None,
        name: "edge1".to_owned(),
        protocol: None,
        last_seen,
        datagrams: 1,
        records: 1,
        decode_errors: 0,
        unknown_templates: 0,
        lost: 0,
        templates: 0,
        sampling: 1,
        sampling_source: SamplingSource::Record,
        lag_ms: 0,
        lag_p50_ms: 0,
        active_timeout_ms: 0,
        duplicates: 0,
        drops: Vec::new(),
        clock_skew_ms: 0,
        troubles: Vec::new(),
        interfaces: Vec::new(),
        links: vec![
            LinkCount { index: 7, in_bytes, out_bytes: in_bytes / 10 },
            // Of another uplink.
            LinkCount { index: 8, in_bytes: 1 << 40, out_bytes: 0 },
        ],
    }
}

fn uplink() -> UplinkConfig {
    UplinkConfig {
        name: "transit-a".to_owned(),
        exporter: "edge1".to_owned(),
        interfaces: vec![7],
        capacity_bits_per_sec: 100_000_000,
        alarm_percent: 80.0,
        limit_percent: 95.0,
        least_bits_per_sec: None,
        inbound_bits_per_sec: None,
        outbound_bits_per_sec: None,
    }
}

struct World {
    links: Links,
    totals: Vec<GroupTotal>,
    absences: Vec<Absence>,
    allow: AllowLists,
    attacks: BTreeMap<String, f64>,
    now: Millis,
    counted: u64,
    heard: Millis,
}

impl World {
    fn new(config: UplinkConfig) -> Self {
        let mut links = Links::default();
        links.set(&[config], 120);
        Self {
            links,
            totals: Vec::new(),
            absences: Vec::new(),
            allow: AllowLists::default(),
            attacks: BTreeMap::new(),
            now: START,
            counted: 0,
            heard: START,
        }
    }

    /// So many seconds at so many bits a second; nothing is heard at none. What begins and ends.
    fn pass(&mut self, secs: u64, bits_per_sec: Option<u64>) -> Vec<(ConditionKind, bool, u64)> {
        let mut all = Vec::new();
        for _ in 0..secs {
            self.now = self.now + 1000;
            if let Some(bits) = bits_per_sec {
                self.counted += bits / 8;
                self.heard = self.now;
            }
            let told = Told {
                exporters: &[exporter(self.heard, self.counted)],
                totals: &self.totals,
                absences: &self.absences,
            };
            let changes = self.links.look(told, &self.allow, &self.attacks, self.now);
            let after = self.now.since(START) / 1000;
            all.extend(changes.into_iter().map(|(c, begins)| (c.kind, begins, after)));
        }
        all
    }
}

#[test]
fn a_full_uplink_is_told_of_once_and_is_over_once() {
    let mut world = World::new(uplink());
    assert_eq!(world.pass(30, Some(50_000_000)), []);
    let status = &world.links.uplinks()[0];
    assert_eq!((status.inbound_bits_per_sec, status.outbound_bits_per_sec), (5e7, 5e6));
    assert!(status.known && status.percent() == 50.0);
    let told = world.pass(60, Some(90_000_000));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(matches!(told[0], (ConditionKind::UplinkFull, true, 40..=55)), "{told:?}");
    // Around the limit nothing is told again.
    for rate in [78_000_000, 82_000_000, 77_000_000] {
        assert_eq!(world.pass(30, Some(rate)), []);
    }
    let over = world.pass(120, Some(50_000_000));
    assert!(matches!(over[..], [(ConditionKind::UplinkFull, false, 240..=260)]), "{over:?}");
}

#[test]
fn traffic_that_vanishes_is_told_of_where_its_level_is_known() {
    // Learned: not in the first ten minutes.
    let mut world = World::new(uplink());
    assert_eq!(world.pass(300, Some(40_000_000)), []);
    assert_eq!(world.pass(120, Some(0)), []);
    let mut world = World::new(uplink());
    assert_eq!(world.pass(900, Some(40_000_000)), []);
    let told = world.pass(120, Some(0));
    assert!(matches!(told[..], [(ConditionKind::TrafficVanished, true, 955..=975)]), "{told:?}");
    let text = world.links.conditions(world.now).now[0].text.clone();
    assert!(
        text.starts_with("inbound ") && text.ends_with("below 5 % of normal (2 Mbit/s)"),
        "{text}"
    );
    // It does not become normal within hours.
    assert_eq!(world.pass(7200, Some(0)), []);
    let over = world.pass(90, Some(40_000_000));
    assert!(matches!(over[..], [(ConditionKind::TrafficVanished, false, _)]), "{over:?}");
    // Set: at once, and by that number.
    let mut world = World::new(UplinkConfig { least_bits_per_sec: Some(20_000_000), ..uplink() });
    assert_eq!(world.pass(30, Some(40_000_000)), []);
    assert_eq!(world.pass(90, Some(10_000_000)).len(), 1);
    // Never.
    let mut world = World::new(UplinkConfig { least_bits_per_sec: Some(0), ..uplink() });
    assert_eq!(world.pass(900, Some(40_000_000)), []);
    assert_eq!(world.pass(300, Some(0)), []);
}

#[test]
fn of_a_silent_exporter_nothing_else_is_said() {
    let mut world = World::new(uplink());
    assert_eq!(world.pass(900, Some(90_000_000)).len(), 1, "full");
    let told = world.pass(600, None);
    assert!(matches!(told[..], [(ConditionKind::ExporterSilent, true, 1019..=1021)]), "{told:?}");
    let conditions = world.links.conditions(world.now);
    assert!(conditions.settled && conditions.now.len() == 2, "{conditions:?}");
    assert!(!world.links.uplinks()[0].known);
    let over = world.pass(1, Some(90_000_000));
    assert!(matches!(over[..], [(ConditionKind::ExporterSilent, false, _)]), "{over:?}");
    // What is watched no more is over; what is new begins anew.
    world.links.set(&[], 0);
    let gone = world.pass(1, Some(90_000_000));
    assert!(matches!(gone[..], [(ConditionKind::UplinkFull, false, _)]), "{gone:?}");
}

#[test]
fn a_count_that_begins_anew_is_no_traffic() {
    let mut world = World::new(uplink());
    world.counted = 1 << 50;
    assert_eq!(world.pass(20, Some(40_000_000)), []);
    world.counted = 0;
    assert_eq!(world.pass(20, Some(40_000_000)), []);
    let rate = world.links.uplinks()[0].inbound_bits_per_sec;
    assert!((rate - 4e7).abs() < 1.0, "{rate}");
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let check = |change: fn(&mut UplinkConfig), key: &str| {
        let mut config = uplink();
        change(&mut config);
        assert!(config.check().unwrap_err().starts_with(key));
    };
    assert_eq!(uplink().check(), Ok(()));
    check(|c| c.name.clear(), "name");
    check(|c| c.interfaces.clear(), "interfaces");
    check(|c| c.interfaces.push(0), "interfaces");
    check(|c| c.capacity_bits_per_sec = 0, "capacity_bits_per_sec");
    check(|c| c.alarm_percent = 0.0, "alarm_percent");
    check(|c| c.limit_percent = f64::NAN, "limit_percent");
}

#[test]
fn exporters_that_share_a_name_are_told_apart() {
    let mut links = Links::default();
    links.set(&[], 120);
    let mut gone = exporter(START, 0);
    (gone.id, gone.address) = (ExporterId(2), "192.0.2.2".parse().unwrap());
    let mut told = Vec::new();
    for secs in 0..200 {
        let now = START + secs * 1000;
        let exporters = [exporter(now, 0), gone.clone()];
        let seen = Told { exporters: &exporters, ..Told::default() };
        told.extend(links.look(seen, &AllowLists::default(), &BTreeMap::new(), now));
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].0.subject.as_str(), told[0].1), ("edge1 (192.0.2.2)", true));
}

#[test]
fn after_a_start_nothing_is_over_before_it_is_known() {
    let mut world = World::new(uplink());
    world.pass(310, Some(0));
    let conditions = world.links.conditions(world.now);
    let vanished = (ConditionKind::TrafficVanished, "transit-a".to_owned());
    assert!(conditions.settled && conditions.unknown.contains(&vanished), "{conditions:?}");
    // A level that is set is known at once.
    let mut world = World::new(UplinkConfig { least_bits_per_sec: Some(1_000_000), ..uplink() });
    world.pass(300, Some(2_000_000));
    assert!(world.links.conditions(world.now).unknown.is_empty());
    // An exporter not heard since the start may have been silent before.
    let mut world = World::new(uplink());
    world.pass(100, None);
    let silent = (ConditionKind::ExporterSilent, "edge1".to_owned());
    assert!(world.links.conditions(world.now).unknown.contains(&silent));
}

#[test]
fn an_attack_does_not_teach_what_is_normal_and_a_day_does() {
    let mut world = World::new(uplink());
    world.pass(900, Some(4_000_000));
    // An hour of attack at twenty times as much; the night after is no failure.
    world.pass(3600, Some(80_000_000));
    let after = world.pass(600, Some(2_000_000));
    assert!(after.iter().all(|(kind, ..)| *kind != ConditionKind::TrafficVanished), "{after:?}");
    // Customers moved away for good: after a day that is normal.
    let mut world = World::new(uplink());
    world.pass(900, Some(40_000_000));
    let told = world.pass(200, Some(1_500_000));
    assert!(matches!(told[..], [(ConditionKind::TrafficVanished, true, _)]), "{told:?}");
    let over = world.pass(2 * 86_400, Some(1_500_000));
    assert!(matches!(over[..], [(ConditionKind::TrafficVanished, false, _)]), "{over:?}");
}

#[test]
fn an_uplinks_total_is_told_above_what_is_set_and_above_what_is_learned() {
    let said = |inbound| UplinkConfig { inbound_bits_per_sec: Some(inbound), ..uplink() };
    let told = (ConditionKind::TotalExceeded, true);
    let kinds = |changes: Vec<(ConditionKind, bool, u64)>| -> Vec<(ConditionKind, bool)> {
        changes.into_iter().map(|(kind, begins, _)| (kind, begins)).collect()
    };
    let mut set = World::new(said(Threshold::Fixed(40e6)));
    set.pass(60, Some(30_000_000));
    assert_eq!(kinds(set.pass(30, Some(60_000_000))), [told]);
    assert_eq!(kinds(set.pass(100, Some(30_000_000))), [(told.0, false)]);
    // Nothing is known in the first minutes.
    let mut auto = World::new(said(Threshold::Auto));
    assert_eq!(auto.pass(300, Some(60_000_000)), []);
    let mut auto = World::new(said(Threshold::Auto));
    auto.pass(900, Some(10_000_000));
    assert_eq!(auto.pass(30, Some(20_000_000)), []);
    assert_eq!(kinds(auto.pass(3600, Some(60_000_000))), [told], "it does not become normal");
    // What incidents explain does not either, below a threshold.
    let mut attacked = World::new(said(Threshold::Auto));
    attacked.pass(900, Some(10_000_000));
    attacked.attacks.insert("edge1".to_owned(), 15e6);
    attacked.pass(7200, Some(25_000_000));
    attacked.attacks.clear();
    assert_eq!(kinds(attacked.pass(30, Some(40_000_000))), [told]);
}

#[test]
fn a_groups_total_is_told_once_it_lasts() {
    let mut world = World::new(uplink());
    let total = |above| GroupTotal {
        group: "acme".to_owned(),
        learning: false,
        measures: Vec::new(),
        above,
        text: "inbound 5 Gbit/s".to_owned(),
    };
    world.totals = vec![total(Some(true))];
    assert_eq!(world.pass(8, Some(1_000_000)), []);
    assert_eq!(world.pass(10, Some(1_000_000)).len(), 1);
    let conditions = world.links.conditions(world.now).now;
    assert_eq!(conditions[0].subject, "group acme");
    world.totals = vec![total(None)];
    assert_eq!(world.pass(300, Some(1_000_000)), [], "it stays as it was");
    world.totals = vec![total(Some(false))];
    assert_eq!(world.pass(100, Some(1_000_000)).len(), 1);
    world.totals = vec![total(Some(true))];
    world.pass(20, Some(1_000_000));
    // The group has no total any more.
    world.totals = Vec::new();
    assert_eq!(world.pass(2, Some(1_000_000)).len(), 1);
}

#[test]
fn what_has_vanished_is_told_after_a_minute_and_in_the_name_of_its_group() {
    let mut world = World::new(uplink());
    let absence = |vanished| Absence {
        subject: "service 203.0.113.7 udp 27015".to_owned(),
        group: "acme".to_owned(),
        vanished,
        text: "inbound 0 kbit/s".to_owned(),
    };
    world.absences = vec![absence(Some(true))];
    assert_eq!(world.pass(58, Some(1_000_000)), []);
    assert_eq!(world.pass(10, Some(1_000_000)).len(), 1);
    let told = world.links.conditions(world.now).now;
    assert_eq!(
        (told[0].kind, told[0].group.as_deref()),
        (ConditionKind::TrafficVanished, Some("acme"))
    );
    world.absences = vec![absence(None)];
    assert_eq!(world.pass(300, Some(1_000_000)), [], "it stays as it was");
    world.absences = vec![absence(Some(false))];
    assert_eq!(world.pass(100, Some(1_000_000)).len(), 1);
}

#[test]
fn an_allow_list_that_waits_is_told_of_until_somebody_decides() {
    let mut world = World::new(uplink());
    let mut list: weir_model::AllowList =
        serde_json::from_str(r#"{"name": "web", "prefixes": ["198.51.100.0/24"]}"#).unwrap();
    list.waits = Some(START);
    world.allow = AllowLists::from(vec![list.clone()]);
    assert_eq!(world.pass(3, Some(1_000_000)).len(), 1);
    let told = world.links.conditions(world.now).now;
    assert_eq!(
        (told[0].subject.as_str(), told[0].kind.id()),
        ("allow list web", "allow-list-waits")
    );
    list.waits = None;
    world.allow = AllowLists::from(vec![list]);
    let over = world.pass(3, Some(1_000_000));
    assert!(matches!(over[..], [(ConditionKind::AllowListWaits, false, _)]), "{over:?}");
}

//! One datagram does not govern how others' are read: not their times, their volume, their interfaces.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]

mod support;

use support::*;
use weir_collector::Shard;
use weir_model::{FlowRecord, Millis};

const ABSOLUTE: [(u16, u16); 9] =
    [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 8), (2, 8), (152, 8), (153, 8)];

/// A flow of 1000 packets to 203.0.113.7 from `src`, that ended `ago` before `now` on its own clock.
fn absolute(src: u8, now: u64, ago: u64, octets: u64, packets: u64) -> Vec<u8> {
    let head = bytes().raw(&[198, 51, 100, src]).raw(&[203, 0, 113, 7]).u16(123).u16(4000).u8(17);
    head.u64(octets).u64(packets).u64(now - ago - 150).u64(now - ago).0
}

fn define(id: u16) -> Vec<u8> {
    set(2, &template(id, &iana(&ABSOLUTE)))
}

fn secs(ms: u64) -> u32 {
    u32::try_from(ms / 1000).unwrap()
}

#[test]
fn a_header_with_a_wrong_clock_moves_no_other_datagrams_records() {
    for (domain, off) in [(99, 1_800_000), (1, 1_800_000), (1, -1_800_000), (1, 600_000)] {
        let mut shard = shard(&config());
        let at = |now: Millis, off: i64| secs(now.0.saturating_add_signed(off));
        records(&mut shard, &ipfix_at(at(NOW, 0), 0, 1, &[define(256)]), NOW);
        for n in 0..400_u64 {
            let now = NOW + n * 50;
            if n % 3 == 0 {
                records(&mut shard, &ipfix_at(at(now, off), 0, domain, &[]), now);
            }
            let data = set(256, &absolute(1, now.0, 50, 46_800, 100));
            let flows = records(&mut shard, &ipfix_at(at(now, 0), 0, 1, &[data]), now);
            assert_eq!((flows[0].start, flows[0].end), (now - 200, now - 50), "{domain} {off} {n}");
        }
        assert!(shard.exporters()[0].clock_skew_ms.abs() <= 1000);
    }
}

#[test]
fn each_line_card_has_its_clock() {
    let mut shard = shard(&config());
    for n in 0..200_u64 {
        let now = NOW + n * 50;
        for (domain, off) in [(1, 0), (2, 600_000), (3, 7_200_000)] {
            let theirs = now.0 + off;
            let data = set(256, &absolute(1, theirs, 50, 46_800, 100));
            let datagram = ipfix_at(secs(theirs), 0, domain, &[define(256), data]);
            let flow = records(&mut shard, &datagram, now)[0];
            let late = now.since(flow.end);
            assert!(late <= 1050, "domain {domain}, datagram {n}: {late} ms");
        }
    }
    // The one that is furthest off is shown.
    let skew = shard.exporters()[0].clock_skew_ms;
    assert!((7_198_000..=7_201_000).contains(&skew), "{skew}");
}

#[test]
fn what_cannot_be_is_counted_and_nothing_is_judged_by_it() {
    let mut shard = shard(&config());
    let mut send = |octets, packets| {
        let data = set(256, &absolute(1, NOW.0, 50, octets, packets));
        records(&mut shard, &ipfix(0, 1, &[define(256), data]), NOW).len()
    };
    assert_eq!(send(46_800, 100), 1);
    for (octets, packets) in [
        (u64::MAX, u64::MAX),
        ((1 << 63) + 5, 1 << 40),
        (1 << 60, 1),
        (100, 1400),
        (1 << 45, 1 << 32),
    ] {
        assert_eq!(send(octets, packets), 0, "{octets} {packets}");
    }
    let status = &shard.exporters()[0];
    let told = status.drops.iter().find(|drop| drop.reason == "implausible").unwrap();
    assert_eq!((told.count, shard.counters().implausible), (5, 5));
}

#[test]
fn a_counted_interface_bounds_its_records() {
    let mut shard = shard(&config());
    // The agent on the router counts a port of 1 Gbit/s; its flows come as NetFlow version 5.
    let counters = bytes().u32(1).u32(6).u64(1_000_000_000).u32(1).u32(3).u64(0).raw(&[0; 56]).0;
    let sample = tlv(2, &bytes().u32(1).u32(1).u32(1).raw(&tlv(1, &counters)).0);
    records(&mut shard, &sflow(1, &[sample]), NOW);
    let record = |octets: u32, port: u8| {
        let mut record = v5_record([198, 51, 100, 1], [203, 0, 113, 7], 80, 900, 1000);
        record[13] = port;
        record[16..24].copy_from_slice(&bytes().u32(octets / 1000).u32(octets).0);
        v5(1000, 0, 0, &[record])
    };
    assert_eq!(records(&mut shard, &record(100_000_000, 1), NOW).len(), 1);
    // 320 Gbit/s: more than that port carries, and possible for another.
    assert_eq!(records(&mut shard, &record(4_000_000_000, 1), NOW).len(), 0);
    assert_eq!(records(&mut shard, &record(4_000_000_000, 2), NOW).len(), 1);
    assert_eq!(shard.counters().implausible, 1);
}

#[test]
fn a_sampling_rate_that_nobody_has_is_not_applied() {
    let packet =
        ethernet(0x0800, &ipv4(17, [198, 51, 100, 1], [203, 0, 113, 7], &udp(123, 9, &[0; 400])));
    let sample = |rate| flow_sample(1, rate, 0, &[raw_header(1, 446, &packet)]);
    let mut shard = shard(&config());
    for (said, applied) in [(4_000_000_000, 1), (u32::MAX, 1), (10_000_001, 1), (1000, 1000)] {
        assert_eq!(records(&mut shard, &sflow(1, &[sample(said)]), NOW)[0].sampling, applied);
    }
    assert_eq!(shard.counters().implausible, 3);
}

fn expanded(source: u32, input: u32, output: u32) -> Vec<u8> {
    let packet =
        ethernet(0x0800, &ipv4(17, [198, 51, 100, 1], [203, 0, 113, 7], &udp(123, 9, &[0; 400])));
    let head = bytes().u32(1).u32(0).u32(source).u32(1000).u32(0).u32(0);
    let head = head.u32(0).u32(input).u32(0).u32(output).u32(1);
    tlv(3, &head.raw(&raw_header(1, 446, &packet)).0)
}

/// An sFlow datagram of an agent behind 192.0.2.1.
fn of_agent(agent: u8, sub_agent: u32, samples: &[Vec<u8>]) -> Vec<u8> {
    let count = u32::try_from(samples.len()).unwrap();
    let head = bytes().u32(5).u32(1).raw(&[10, 0, 0, agent]).u32(sub_agent).u32(1).u32(1000);
    head.u32(count).raw(&samples.concat()).0
}

#[test]
fn an_agents_interfaces_are_its_own() {
    let mut shard = shard(&config());
    // Agents 1 and 2 share an address, 3 is one with two sub-agents.
    for (agent, sub_agent) in [(1, 0), (3, 1)] {
        let datagram = of_agent(agent, sub_agent, &[expanded(5, 5, 6)]);
        assert_eq!(records(&mut shard, &datagram, NOW).len(), 1);
    }
    for (agent, sub_agent, count) in [(2, 0, 1), (3, 2, 1), (1, 0, 0), (3, 1, 0)] {
        // Sampled at the egress of port 6, from port 5.
        let datagram = of_agent(agent, sub_agent, &[expanded(6, 5, 6)]);
        assert_eq!(records(&mut shard, &datagram, NOW).len(), count, "agent {agent}/{sub_agent}");
    }
    let names: Vec<_> = shard.exporters().into_iter().map(|exporter| exporter.name).collect();
    assert_eq!(names, ["192.0.2.1", "10.0.0.3", "10.0.0.2"]);
}

/// Somebody behind the one address, with what it says: time of arrival and datagram.
struct Speaker {
    said: Vec<(Millis, Vec<u8>)>,
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

impl Speaker {
    /// A domain of version 9 or IPFIX, with a clock, definitions and a sampler of its own.
    fn domain(version: u16, domain: u32, chance: &mut Chance) -> Self {
        let off = [0, 600_000, 3_600_000][chance.below(3) as usize];
        let rate = 1 + chance.below(1000) as u32;
        let turned = chance.below(2) == 1;
        let mut fields = ABSOLUTE;
        if turned {
            fields.swap(0, 1);
        }
        let with_direction = [&fields[..], &[(10, 4), (61, 1)]].concat();
        let sets = if version == 9 { (0, 1) } else { (2, 3) };
        let options = if version == 9 {
            v9_options_template(300, &[(1, 4, 0)], &iana(&[(34, 4)]))
        } else {
            options_template(300, 1, &iana(&[(149, 4), (34, 4)]))
        };
        let option = bytes().u32(domain).u32(rate).0;
        let learned = vec![
            set(sets.0, &template(256, &iana(&with_direction))),
            set(sets.1, &options),
            set(300, &option),
        ];
        let mut said = Vec::new();
        let mut now = NOW + chance.below(1000);
        for n in 0..60_u32 {
            now = now + 20 + chance.below(300);
            let theirs = now.0 + off;
            let direction = u8::from(chance.below(3) == 0);
            let body = absolute(domain as u8, theirs, chance.below(900), 46_800, 100);
            let body = bytes().raw(&body).u32(5).u8(direction).0;
            let data = set(256, &body);
            let all = if n % 20 == 0 { [learned.clone(), vec![data]].concat() } else { vec![data] };
            let datagram = if version == 9 {
                let mut datagram = v9(1_000_000 + n, n, domain, &all);
                datagram[8..12].copy_from_slice(&secs(theirs).to_be_bytes());
                datagram
            } else {
                ipfix_at(secs(theirs), n, domain, &all)
            };
            said.push((now, datagram));
        }
        Self { said }
    }

    /// An sFlow agent that samples some ports both ways.
    fn agent(agent: u8, chance: &mut Chance) -> Self {
        let mut now = NOW + chance.below(1000);
        let said = (0..60).map(|_| {
            now = now + 20 + chance.below(300);
            let source = 5 + chance.below(2) as u32;
            (now, of_agent(agent, 0, &[expanded(source, 5, 6)]))
        });
        Self { said: said.collect() }
    }
}

/// What comes of datagrams, each with the number of its speaker: the records of each speaker.
fn heard(said: &[(Millis, usize, Vec<u8>)], speakers: usize) -> Vec<Vec<FlowRecord>> {
    let mut shard: Shard = shard(&config());
    let mut out = vec![Vec::new(); speakers];
    for (now, speaker, datagram) in said {
        let mut flows = records(&mut shard, datagram, *now);
        // The number is one of this run.
        flows.iter_mut().for_each(|flow| flow.exporter = Default::default());
        out[*speaker].extend(flows);
    }
    out
}

#[test]
fn nobody_behind_an_address_changes_what_another_says() {
    for seed in 0..40 {
        let mut chance = Chance(seed);
        let mut speakers: Vec<Speaker> = (1..=6)
            .map(|domain| {
                Speaker::domain(if domain % 2 == 0 { 9 } else { 10 }, domain, &mut chance)
            })
            .collect();
        speakers.extend((1..=3).map(|agent| Speaker::agent(agent, &mut chance)));
        let mut together = Vec::new();
        let mut alone = Vec::new();
        for (number, speaker) in speakers.iter().enumerate() {
            let said: Vec<_> = speaker
                .said
                .iter()
                .map(|(now, datagram)| (*now, number, datagram.clone()))
                .collect();
            alone.push(heard(&said, speakers.len()).swap_remove(number));
            together.extend(said);
        }
        together.sort_by_key(|(now, number, _)| (*now, *number));
        let together = heard(&together, speakers.len());
        for (number, (alone, together)) in alone.iter().zip(&together).enumerate() {
            assert!(!alone.is_empty(), "seed {seed}: speaker {number} says nothing");
            assert_eq!(alone, together, "seed {seed}: speaker {number}");
        }
    }
}

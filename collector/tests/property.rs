//! Over worlds drawn from seeds: what one exporter, agent or domain sends never changes another's records. Each
//! speaker's records are the same whether it speaks alone or among all the others, in whatever order, with
//! whatever clocks, reboots, templates and options they have.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]

mod support;

use std::net::SocketAddr;

use support::mutate::{Rng, mutate, seeds};
use support::*;
use weir_collector::Shard;
use weir_model::{ExporterId, FlowRecord, Millis};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    V9,
    Ipfix,
    Sflow,
    /// Damaged datagrams of its own domain.
    Wild,
}

const KINDS: [Kind; 7] =
    [Kind::V9, Kind::V9, Kind::Ipfix, Kind::Ipfix, Kind::Sflow, Kind::Sflow, Kind::Wild];

/// Who speaks: an observation domain behind an address, or an sFlow agent.
struct Speaker {
    kind: Kind,
    from: SocketAddr,
    /// Of version 9 and IPFIX, and the last octet of an agent's address.
    domain: u32,
    /// Its clock is so much ahead, milliseconds.
    ahead: i64,
    began: Millis,
    sequence: u32,
    /// In which order its template has the fields that all have.
    fields: Vec<(u16, u16)>,
    rate: u32,
    said: u32,
}

const FIELDS: [(u16, u16); 10] =
    [(8, 4), (12, 4), (4, 1), (1, 4), (2, 4), (10, 4), (14, 4), (61, 1), (302, 2), (6, 1)];

impl Speaker {
    fn draw(rng: &mut Rng, index: usize) -> Self {
        let kind = KINDS[index % KINDS.len()];
        // Few addresses, so that many are behind one.
        let from = format!("192.0.2.{}:50000", 1 + rng.below(3)).parse().unwrap();
        let ahead = [0, 600_000, -600_000, 1_800_000][rng.below(4)];
        let rate = [1, 100, 1000, 4096][rng.below(4)];
        let mut speaker = Self {
            kind,
            from,
            domain: 1 + index as u32,
            ahead,
            began: NOW,
            sequence: rng.next() as u32 >> 8,
            fields: Vec::new(),
            rate,
            said: 0,
        };
        speaker.shuffle(rng);
        speaker
    }

    fn shuffle(&mut self, rng: &mut Rng) {
        let mut fields = FIELDS.to_vec();
        for n in (1..fields.len()).rev() {
            fields.swap(n, rng.below(n + 1));
        }
        self.fields = fields;
    }

    fn message(&mut self, now: Millis, sets: &[Vec<u8>], records: u32) -> Vec<u8> {
        let secs = (now.0.saturating_add_signed(self.ahead) / 1000) as u32;
        let out = if self.kind == Kind::V9 {
            let mut out = v9(now.since(self.began) as u32, self.sequence, self.domain, sets);
            out[8..12].copy_from_slice(&secs.to_be_bytes());
            out
        } else {
            ipfix_at(secs, self.sequence, self.domain, sets)
        };
        self.sequence += if self.kind == Kind::V9 { 1 } else { records };
        out
    }

    fn record(&self, rng: &mut Rng, speaker: u8) -> Vec<u8> {
        let mut out = bytes();
        for (field, _) in &self.fields {
            out = match field {
                8 => out.raw(&[198, 51, 100, speaker]),
                12 => out.raw(&[203, 0, 113, 7]),
                4 => out.u8([6, 17][rng.below(2)]),
                1 => out.u32(10_000),
                2 => out.u32(1 + rng.below(100) as u32),
                10 | 14 => out.u32(1 + rng.below(4) as u32),
                61 => out.u8(rng.below(2) as u8),
                302 => out.u16(rng.below(3) as u16),
                _ => out.u8(rng.below(64) as u8),
            };
        }
        out.0
    }

    fn option(&self, rng: &mut Rng) -> [Vec<u8>; 2] {
        // Scope and value: the domain, an interface, a template, a selector.
        let scopes = [(149, self.domain), (10, 1 + rng.below(4) as u32), (145, 256), (302, 1)];
        let (scope, value) = if self.said < 2 { scopes[0] } else { scopes[rng.below(4)] };
        let rate = if self.said < 2 { self.rate } else { [1, 10, 1000, 60_000][rng.below(4)] };
        if self.kind == Kind::V9 {
            let options = v9_options_template(300, &iana(&[(1, 4)]), &iana(&[(34, 4)]));
            return [set(1, &options), set(300, &bytes().u32(0).u32(rate).0)];
        }
        let options = options_template(300, 1, &iana(&[(scope, 4), (34, 4)]));
        [set(3, &options), set(300, &bytes().u32(value).u32(rate).0)]
    }

    /// Its next datagram.
    fn speak(&mut self, rng: &mut Rng, now: Millis, speaker: u8) -> Vec<u8> {
        self.said += 1;
        if self.kind == Kind::Wild {
            return self.wild(rng);
        }
        if self.kind == Kind::Sflow {
            return self.samples(rng, speaker);
        }
        if self.said > 20 && rng.below(40) == 0 {
            // It starts anew with another template of the same number.
            (self.began, self.sequence) = (now, 0);
            self.shuffle(rng);
            self.said = 0;
        }
        let mut sets = Vec::new();
        if self.said < 2 || rng.below(8) == 0 {
            let kind = if self.kind == Kind::V9 { 0 } else { 2 };
            sets.push(set(kind, &template(256, &iana(&self.fields))));
        }
        let mut told = 0;
        if self.said < 2 || rng.below(8) == 0 {
            sets.extend(self.option(rng));
            told = 1;
        }
        let count = 1 + rng.below(4) as u32;
        let records: Vec<_> = (0..count).map(|_| self.record(rng, speaker)).collect();
        sets.push(set(256, &records.concat()));
        self.message(now, &sets, count + told)
    }

    fn samples(&mut self, rng: &mut Rng, speaker: u8) -> Vec<u8> {
        self.sequence += 1;
        let body = udp(123, 9, &[0; 400]);
        let packet = ethernet(0x0800, &ipv4(17, [198, 51, 100, speaker], [203, 0, 113, 7], &body));
        let mut sample = || {
            let (source, input) = (1 + rng.below(3) as u32, 1 + rng.below(3) as u32);
            let head = bytes().u32(1).u32(0).u32(source).u32(self.rate).u32(0).u32(0);
            let head = head.u32(0).u32(input).u32(0).u32(1 + rng.below(3) as u32).u32(1);
            tlv(3, &head.raw(&raw_header(1, 446, &packet)).0)
        };
        let samples = [sample(), sample()].concat();
        let agent = [10, 0, 0, self.domain as u8];
        let head = bytes().u32(5).u32(1).raw(&agent).u32(0).u32(self.sequence).u32(self.said * 100);
        head.u32(2).raw(&samples).0
    }

    fn wild(&self, rng: &mut Rng) -> Vec<u8> {
        let seeds = seeds();
        let [v9, ipfix] = [9, 10].map(|version| {
            seeds.iter().find(|seed| seed.starts_with(&[0, version])).unwrap().clone()
        });
        let mut out = [v9, ipfix][rng.below(2)].clone();
        mutate(rng, &mut out);
        // Whatever it says, it says of itself.
        let (version, domain) = (rng.below(2) as u8 + 9, self.domain.to_be_bytes());
        out.resize(out.len().max(20), 0);
        out[..2].copy_from_slice(&[0, version]);
        let at = if version == 9 { 16 } else { 12 };
        out[at..at + 4].copy_from_slice(&domain);
        out
    }
}

/// What was sent: by which speaker, from where, when.
type Sent = (usize, SocketAddr, Millis, Vec<u8>);

fn world(seed: u64, speakers: usize, datagrams: usize) -> Vec<Sent> {
    let mut rng = Rng(seed);
    let mut all: Vec<_> = (0..speakers).map(|n| Speaker::draw(&mut rng, n)).collect();
    let mut now = NOW;
    let mut sent = Vec::new();
    for _ in 0..datagrams {
        now = now + rng.below(400) as u64;
        let n = rng.below(speakers);
        let datagram = all[n].speak(&mut rng, now, n as u8);
        sent.push((n, all[n].from, now, datagram));
    }
    sent
}

/// The records of one speaker among those that are heard. Numbers of exporters are given in the order in
/// which they are heard, and no part of a record's meaning.
fn heard<'a>(sent: impl Iterator<Item = &'a Sent>, of: usize) -> Vec<FlowRecord> {
    let mut shard: Shard = shard(&config());
    let mut out = Vec::new();
    for (speaker, from, now, datagram) in sent {
        let _ = shard.records(*from, datagram, *now, |record| {
            if *speaker == of {
                out.push(FlowRecord { exporter: ExporterId(0), ..*record });
            }
        });
    }
    out
}

#[test]
fn what_one_sends_never_changes_anothers_records() {
    const SPEAKERS: usize = 14;
    let mut records = 0;
    for seed in 0..24 {
        let sent = world(seed, SPEAKERS, 900);
        // Damaged datagrams seldom say their own domain's rate, and then another's may count.
        for of in (0..SPEAKERS).filter(|of| KINDS[of % KINDS.len()] != Kind::Wild) {
            let alone = heard(sent.iter().filter(|(speaker, ..)| *speaker == of), of);
            let among = heard(sent.iter(), of);
            let differ = alone.iter().zip(&among).position(|(a, b)| a != b);
            assert!(
                alone == among,
                "seed {seed}, speaker {of}: {} records alone, {} among others; {:?} differs",
                alone.len(),
                among.len(),
                differ.map(|n| (n, alone[n], among[n])),
            );
            records += alone.len();
        }
    }
    assert!(records > 20_000, "{records}");
}

//! Two ends and what lies between them, in virtual time.

use proptest::prelude::*;

use super::*;

const MS: u64 = 1000;

/// Two ends of a path that loses what `loses` says.
struct Path {
    ends: [Session; 2],
    now: u64,
    /// When each end last sent, and what came of each end, with the time.
    sent: [Vec<u64>; 2],
    changes: Vec<(usize, u64, Change)>,
    /// Octets under way: to whom, when they arrive.
    wire: Vec<(u64, usize, Packet)>,
    loses: Box<dyn FnMut(usize, u64) -> bool>,
}

impl Path {
    fn new(configs: [Config; 2], seed: u64) -> Self {
        let end = |of: usize| {
            let number = u32::try_from(of).unwrap() + 7;
            Session::new(&configs[of], number, seed + of as u64, seed % (900 * MS))
        };
        Self {
            ends: [end(0), end(1)],
            now: 0,
            sent: [Vec::new(), Vec::new()],
            changes: Vec::new(),
            wire: Vec::new(),
            loses: Box::new(|_, _| false),
        }
    }

    fn run(&mut self, ms: u64) {
        let until = self.now + ms * MS;
        loop {
            let ends = self.ends.iter().filter_map(Session::deadline);
            let at = ends.chain(self.wire.iter().map(|(at, ..)| *at)).min().unwrap_or(u64::MAX);
            if at > until {
                break;
            }
            self.now = self.now.max(at);
            let now = self.now;
            let due = |(at, ..): &mut (u64, usize, Packet)| *at <= now;
            let arrived: Vec<_> = self.wire.extract_if(.., due).collect();
            for (_, to, packet) in arrived {
                let packet = Packet::read(&packet.write()).unwrap();
                self.act(to, |end, out| end.handle(now, &packet, out));
            }
            for of in 0..2 {
                self.act(of, |end, out| end.tick(now, out));
            }
        }
        self.now = until;
    }

    fn act(
        &mut self,
        of: usize,
        act: impl FnOnce(&mut Session, &mut Vec<Packet>) -> Option<Change>,
    ) {
        let mut out = Vec::new();
        let change = act(&mut self.ends[of], &mut out);
        self.changes.extend(change.map(|change| (of, self.now, change)));
        for packet in out {
            self.sent[of].push(self.now);
            if !(self.loses)(of, self.now) {
                self.wire.push((self.now + 2 * MS, 1 - of, packet));
            }
        }
    }

    fn up(configs: [Config; 2], seed: u64) -> Self {
        let mut path = Self::new(configs, seed);
        path.run(5000);
        assert_eq!(path.ends.each_ref().map(Session::state), [State::Up, State::Up]);
        path.changes.clear();
        path.sent.iter_mut().for_each(Vec::clear);
        path
    }
}

#[test]
fn a_silent_peer_is_lost_after_the_detection_time_and_found_again() {
    let mut path = Path::up([Config::default(), Config::default()], 3);
    let begin = path.now;
    path.loses = Box::new(move |of, at| of == 1 && at < begin + 4_000 * MS);
    path.run(4000);
    // 900 ms after the last packet, which was sent up to 300 ms before.
    let [(0, at, Change::Lost(Diagnostic::EXPIRED)), (1, later, Change::Lost(why))] =
        path.changes[..]
    else {
        panic!("{:?}", path.changes);
    };
    assert!((600..=905).contains(&((at - begin) / MS)), "{} ms", (at - begin) / MS);
    // The other end is heard all the time, and told.
    assert_eq!((later - at, why), (2 * MS, Diagnostic::EXPIRED));
    path.changes.clear();
    path.run(5000);
    assert_eq!(path.changes.len(), 2);
    assert!(path.changes.iter().all(|(_, _, change)| *change == Change::Up));
    assert_eq!(path.ends[0].diagnostic(), Diagnostic::EXPIRED);
    assert_eq!(path.ends[1].diagnostic(), Diagnostic::NEIGHBOUR);
}

#[test]
fn sessions_that_are_not_up_send_once_a_second() {
    let mut path = Path::new([Config::default(), Config::default()], 9);
    path.loses = Box::new(|_, _| true);
    path.run(60_000);
    for sent in &path.sent {
        assert!((59..=81).contains(&sent.len()), "{}", sent.len());
    }
    assert!(path.changes.is_empty());
}

#[test]
fn other_intervals_are_agreed_on_without_a_loss() {
    for seed in 0..50 {
        let mut path = Path::up([Config::default(), Config::default()], seed);
        let slow = Config { min_tx_ms: 2000, min_rx_ms: 1500, multiplier: 5 };
        path.ends[0].set(&slow);
        path.run(20_000);
        assert_eq!(path.changes, [], "seed {seed}");
        // What the other end sends each 1,500 ms; and what this end sends each 2,000.
        assert_eq!(path.ends[0].detection(), Some(3 * 1500 * MS));
        assert_eq!(path.ends[1].detection(), Some(5 * 2000 * MS));
        path.ends[0].set(&Config { min_tx_ms: 50, min_rx_ms: 50, multiplier: 3 });
        path.run(20_000);
        assert_eq!(path.changes, [], "seed {seed}");
        assert_eq!(path.ends[0].detection(), Some(3 * 300 * MS));
    }
}

#[test]
fn a_peer_taken_down_by_its_operator_is_not_lost() {
    let mut path = Path::up([Config::default(), Config::default()], 5);
    let last = path.ends[1].end();
    assert_eq!((last.state, last.diagnostic), (State::AdminDown, Diagnostic::ADMIN));
    let mut out = Vec::new();
    let change = path.ends[0].handle(path.now, &last, &mut out);
    assert_eq!(change, Some(Change::AdminDown));
    assert_eq!(path.ends[0].state(), State::Down);
}

#[test]
fn a_peer_that_begins_anew_is_lost_at_once() {
    let mut path = Path::up([Config::default(), Config::default()], 6);
    path.ends[1] = Session::new(&Config::default(), 99, 1, path.now);
    path.run(3000);
    let (first, rest) = path.changes.split_first().unwrap();
    assert!(matches!(first, (0, _, Change::Lost(Diagnostic::NONE))), "{first:?}");
    assert_eq!(rest.iter().filter(|(_, _, change)| *change == Change::Up).count(), 2);
}

#[test]
fn demand_mode_of_the_peer_is_heeded() {
    let mut path = Path::up([Config::default(), Config::default()], 8);
    let mut out = Vec::new();
    let asks = Packet {
        state: State::Up,
        demand: true,
        multiplier: 3,
        mine: 8,
        yours: 7,
        min_tx: 300_000,
        min_rx: 300_000,
        ..Packet::default()
    };
    path.ends[0].handle(path.now, &asks, &mut out);
    path.ends[0].tick(path.now + 800 * MS, &mut out);
    assert_eq!(out, []);
    // A question is answered all the same.
    path.ends[0].handle(path.now + 800 * MS, &Packet { poll: true, ..asks }, &mut out);
    assert!(out.iter().any(|packet| packet.last && !packet.poll), "{out:?}");
}

#[test]
fn what_is_no_packet_is_discarded() {
    let sound = Packet { multiplier: 3, mine: 1, yours: 2, state: State::Up, ..Packet::default() };
    let octets = sound.write();
    assert_eq!(Packet::read(&octets), Some(sound));
    let with = |at: usize, octet: u8| {
        let mut octets = octets;
        octets[at] = octet;
        Packet::read(&octets)
    };
    assert_eq!(with(0, 0), None, "version 0");
    assert_eq!(with(1, 0xc4), None, "authenticated, without keys here");
    assert_eq!(with(1, 0xc1), None, "multipoint");
    assert_eq!(with(2, 0), None, "no multiplier");
    assert_eq!(with(3, 23), None, "too short");
    assert_eq!(with(3, 25), None, "longer than it is");
    assert_eq!(with(7, 0), None, "nobody's number");
    assert_eq!(with(11, 0), None, "up with nobody");
    assert_eq!(Packet::read(&octets[..23]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Up within seconds, whatever the intervals; lost never while fewer packets in a row are missed than the
    /// sender said; and if all are missed, no later than it said.
    #[test]
    fn only_silence_is_a_loss(
        seed in any::<u32>(),
        tx in prop::array::uniform2(50_u16..2000),
        rx in prop::array::uniform2(50_u16..2000),
        multipliers in prop::array::uniform2(2_u8..8),
    ) {
        let config = |n: usize| Config {
            min_tx_ms: tx[n], min_rx_ms: rx[n], multiplier: multipliers[n],
        };
        let mut path = Path::new([config(0), config(1)], u64::from(seed));
        path.run(12_000);
        prop_assert_eq!(path.ends.each_ref().map(Session::state), [State::Up, State::Up]);
        path.changes.clear();
        // Up to all but one of so many packets in a row are missed.
        let mut missed = [0; 2];
        let mut dice = u64::from(seed) | 1;
        path.loses = Box::new(move |of, _| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let lose = dice % 3 > 0 && missed[of] + 1 < u32::from(multipliers[of]);
            missed[of] = if lose { missed[of] + 1 } else { 0 };
            lose
        });
        path.run(60_000);
        prop_assert_eq!(&path.changes, &[]);
        let detection = path.ends[0].detection().unwrap();
        let begin = path.now;
        path.loses = Box::new(|of, _| of == 1);
        path.run(detection / MS + 10);
        let lost = path.changes.iter().any(|(of, at, change)| {
            *of == 0 && matches!(change, Change::Lost(_)) && at - begin <= detection + 5 * MS
        });
        prop_assert!(lost, "{:?}", path.changes);
    }

    #[test]
    fn nothing_from_the_network_breaks_it(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..60),
    ) {
        let mut session = Session::new(&Config::default(), 7, 1, 0);
        let mut now = 0;
        for mut octets in packets {
            if octets.len() >= 4 {
                octets[0] = octets[0] & 0x1f | 0x20;
                octets[3] = 24;
            }
            let mut out = Vec::new();
            if let Some(packet) = Packet::read(&octets) {
                session.handle(now, &packet, &mut out);
            }
            now += 100 * MS;
            session.tick(now, &mut out);
            prop_assert!(out.len() <= 2);
            session.deadline();
        }
    }
}

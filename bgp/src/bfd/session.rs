//! One session's state machine (RFC 5880 §6), without I/O. Times and intervals are microseconds of a monotonic
//! clock.

use super::Config;
use super::packet::{Diagnostic, Packet, State};

/// Sending goes no faster while the session is not up (§6.8.3).
const SLOW: u64 = 1_000_000;

/// What a session came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Both hear each other.
    Up,
    /// Nothing was heard for the detection time, or the peer says that it hears nothing: the path is dead.
    Lost(Diagnostic),
    /// The peer's operator took BFD down: that says nothing of the path (RFC 5882 §3.2).
    AdminDown,
}

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    settings: Settings,
    /// What held before a change that the peer has not acknowledged yet.
    before: Option<Settings>,
    mine: u32,
    state: State,
    diagnostic: Diagnostic,
    polling: bool,
    peer: Peer,
    heard: Option<u64>,
    next_tx: u64,
    jitter: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    tx: u64,
    rx: u64,
    multiplier: u8,
}

impl Settings {
    fn of(config: &Config) -> Self {
        Self {
            tx: u64::from(config.min_tx_ms) * 1000,
            rx: u64::from(config.min_rx_ms) * 1000,
            multiplier: config.multiplier,
        }
    }
}

/// What the peer has said.
#[derive(Clone, Copy, Debug)]
struct Peer {
    number: u32,
    state: State,
    demand: bool,
    min_tx: u64,
    min_rx: u64,
    multiplier: u64,
}

impl Peer {
    /// Nothing yet (§6.8.1).
    const UNKNOWN: Self =
        Self { number: 0, state: State::Down, demand: false, min_tx: 0, min_rx: 1, multiplier: 0 };
}

impl Session {
    /// A session that begins to send at `now`. `mine` is its number, unique in the process and not 0.
    pub fn new(config: &Config, mine: u32, seed: u64, now: u64) -> Self {
        Self {
            settings: Settings::of(config),
            before: None,
            mine,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            polling: false,
            peer: Peer::UNKNOWN,
            heard: None,
            next_tx: now,
            jitter: seed | 1,
        }
    }

    /// Its number.
    pub const fn number(&self) -> u32 {
        self.mine
    }

    /// Its state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Why it last left Up.
    pub const fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// After how long without a packet the peer is taken for dead; `None` while that is not agreed on
    /// (§6.8.4).
    pub fn detection(&self) -> Option<u64> {
        let rx = self.before.map_or(self.settings.rx, |before| before.rx.max(self.settings.rx));
        (self.peer.multiplier > 0).then(|| self.peer.multiplier * rx.max(self.peer.min_tx))
    }

    /// Other intervals; the session stays up (§6.8.3).
    pub fn set(&mut self, config: &Config) {
        let next = Settings::of(config);
        if next != self.settings && self.state == State::Up {
            self.before.get_or_insert(self.settings);
            self.polling = true;
        }
        self.settings = next;
    }

    /// When [`Session::tick`] has something to do.
    pub fn deadline(&self) -> Option<u64> {
        let tx = self.is_sending().then_some(self.next_tx);
        tx.into_iter().chain(self.expires()).min()
    }

    fn expires(&self) -> Option<u64> {
        Some(self.heard? + self.detection()?)
    }

    /// Whether packets go out periodically (§6.8.7).
    fn is_sending(&self) -> bool {
        let quiet = self.peer.demand
            && self.state == State::Up
            && self.peer.state == State::Up
            && !self.polling;
        self.peer.min_rx > 0 && !quiet
    }

    /// Takes a packet of the peer; what is to be sent at once is appended.
    pub fn handle(&mut self, now: u64, packet: &Packet, out: &mut Vec<Packet>) -> Option<Change> {
        if packet.yours != 0 && packet.yours != self.mine {
            return None;
        }
        self.peer = Peer {
            number: packet.mine,
            state: packet.state,
            demand: packet.demand,
            min_tx: u64::from(packet.min_tx),
            min_rx: u64::from(packet.min_rx),
            multiplier: u64::from(packet.multiplier),
        };
        if packet.last {
            self.polling = false;
            self.before = None;
        }
        self.heard = Some(now);
        let before = self.state;
        let change = self.follow(packet);
        if packet.poll {
            out.push(Packet { poll: false, last: true, ..self.packet() });
        }
        if self.state != before {
            self.next_tx = now;
        } else if self.state != State::Up {
            self.next_tx = self.next_tx.min(now + SLOW);
        } else {
            // What was planned while the peer allowed less comes no later than it may come now.
            self.next_tx = self.next_tx.min(now + self.interval());
        }
        change
    }

    /// The state that follows from the peer's (§6.8.6).
    fn follow(&mut self, packet: &Packet) -> Option<Change> {
        match (self.state, packet.state) {
            (State::AdminDown, _) | (State::Down, State::AdminDown | State::Up) => None,
            (state, State::AdminDown) => {
                self.leave(Diagnostic::NEIGHBOUR);
                (state == State::Up).then_some(Change::AdminDown)
            }
            (State::Down, State::Down) => {
                self.state = State::Init;
                None
            }
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.state = State::Up;
                // The intervals of a session that is up are others than those of one that is not.
                self.polling = true;
                Some(Change::Up)
            }
            (State::Up, State::Down) => {
                self.leave(Diagnostic::NEIGHBOUR);
                Some(Change::Lost(packet.diagnostic))
            }
            (State::Init, State::Down) | (State::Up, State::Init | State::Up) => None,
        }
    }

    fn leave(&mut self, why: Diagnostic) {
        self.state = State::Down;
        self.diagnostic = why;
        self.polling = false;
        self.before = None;
    }

    /// Does what is due; what is to be sent is appended.
    pub fn tick(&mut self, now: u64, out: &mut Vec<Packet>) -> Option<Change> {
        let mut change = None;
        if self.expires().is_some_and(|at| at <= now) {
            let was_up = self.state == State::Up;
            if matches!(self.state, State::Up | State::Init) {
                self.leave(Diagnostic::EXPIRED);
                change = was_up.then_some(Change::Lost(Diagnostic::EXPIRED));
                self.next_tx = now;
            }
            // Whoever comes back may have another number (§6.8.1).
            self.heard = None;
            self.peer = Peer::UNKNOWN;
        }
        if self.is_sending() && self.next_tx <= now {
            out.push(self.packet());
            self.next_tx = now + self.jittered();
        }
        change
    }

    /// The last word of a session that ends in good order (§6.8.16).
    pub fn end(&mut self) -> Packet {
        self.leave(Diagnostic::ADMIN);
        self.state = State::AdminDown;
        self.packet()
    }

    fn packet(&self) -> Packet {
        let whole = |us: u64| u32::try_from(us).unwrap_or(u32::MAX);
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.polling,
            last: false,
            demand: false,
            multiplier: self.settings.multiplier,
            mine: self.mine,
            yours: self.peer.number,
            min_tx: whole(self.wanted()),
            min_rx: whole(self.settings.rx),
        }
    }

    /// How often we would send.
    fn wanted(&self) -> u64 {
        if self.state == State::Up { self.settings.tx } else { self.settings.tx.max(SLOW) }
    }

    /// How often we send. A longer interval counts once the peer knows of it.
    fn interval(&self) -> u64 {
        let before = self.before.map_or(u64::MAX, |before| before.tx);
        self.wanted().min(before).max(self.peer.min_rx)
    }

    /// Three quarters to all of the interval, 90 % where one missed packet is too many (§6.8.7).
    fn jittered(&mut self) -> u64 {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let interval = self.interval();
        let most = if self.settings.multiplier == 1 { interval / 10 * 9 } else { interval };
        let least = interval / 4 * 3;
        least + self.jitter % (most - least + 1)
    }
}

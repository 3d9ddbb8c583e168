//! The session's state machine (RFC 4271 §8), without I/O: events and `now` in, actions out.
//!
//! A peer has at most two connections, one that weir dialled and one that the peer dialled, until
//! their OPENs decide which is kept (§6.8, RFC 6286). Timers are deadlines: the driver sleeps
//! until [`Peer::deadline`] and sends [`Input::Tick`]. `now` is monotonic.
//!
//! ```text
//!   dialling:    Idle -> Connect -> (connection) ;  Connect -> Active -> Connect ...
//!   connection:  OpenSent -> OpenConfirm -> Established
//! ```

mod active;
mod connect;
mod connection;
mod established;
mod idle;
mod open_confirm;
mod open_sent;

use std::net::Ipv4Addr;

use weir_model::{Millis, PeerState};

use crate::wire::{
    Families, Family, GracefulRestart, Message, Notification, OpenSettings, cease, codes,
};
use connection::{Connection, Phase};

/// Longest wait for an OPEN, milliseconds (RFC 4271 §8.2.2 suggests four minutes).
const OPEN_WAIT_MS: u64 = 240_000;

/// Longest wait for a TCP connection, milliseconds: a router that came back is to be dialled
/// anew, not to be waited for.
const CONNECT_WAIT_MS: u64 = 20_000;

/// Wait after the peer has more than it takes (6/1, 6/8) and nothing was learned from it: a session
/// that ends for its content ends again.
const PENALTY_MS: u64 = 60_000;

/// First wait after the peer took offence at an UPDATE (3/x), milliseconds: what it takes is to be
/// back at once. It doubles while the peer goes on taking offence, up to [`PENALTY_MS`].
const OFFENCE_MS: u64 = 500;

/// Longest wait before dialling again, and for an answer, while measures wait for the peer,
/// milliseconds.
const URGENT_RETRY_MS: u64 = 2_000;
const URGENT_CONNECT_MS: u64 = 4_000;

/// A session up for this long forgets earlier failures.
const STABLE_MS: u64 = 60_000;

/// Which of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// weir dialled.
    Active,
    /// The peer dialled.
    Passive,
}

impl Role {
    /// The other connection.
    pub const fn other(self) -> Self {
        match self {
            Self::Active => Self::Passive,
            Self::Passive => Self::Active,
        }
    }
}

/// What the machine knows of the peer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What weir says of itself.
    pub open: OpenSettings,
    /// The peer's AS number.
    pub remote_as: u32,
    /// Only wait to be dialled.
    pub passive: bool,
    /// First wait before dialling again, milliseconds; it doubles up to `retry_max_ms`.
    pub retry_ms: u64,
    /// Longest wait before dialling again, milliseconds.
    pub retry_max_ms: u64,
    /// Seed of the jitter.
    pub seed: u64,
}

/// What both sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Families both speak.
    pub families: Families,
    /// Hold time, seconds; 0 for none.
    pub hold_secs: u16,
    /// The peer reads four-octet AS numbers.
    pub as4: bool,
    /// The peer's identifier.
    pub peer_id: Ipv4Addr,
    /// The peer's graceful-restart capability.
    pub graceful_restart: Option<GracefulRestart>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Begin.
    Start,
    /// End for good: with a NOTIFICATION, or without one so that a peer with graceful restart
    /// keeps the routes.
    Stop(Option<Notification>),
    /// The dialled connection is there.
    Connected,
    /// It could not be made.
    ConnectFailed,
    /// The peer dialled.
    Accepted,
    /// A message.
    Message(Role, Message),
    /// The peer's octets cannot be followed; what to answer.
    Malformed(Role, Notification),
    /// The connection is gone, or cannot be written to.
    Closed(Role, String),
    /// BFD has found the path to the peer dead.
    PathDown,
    /// A deadline may have passed.
    Tick,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down {
    /// The peer said why.
    Received(Notification),
    /// weir said why.
    Sent(Notification),
    /// The connection broke.
    Closed(String),
    /// weir stops, without a NOTIFICATION.
    Held,
    /// The peer did not answer weir's call in time; seconds.
    Unanswered(u64),
}

impl std::fmt::Display for Down {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Received(n) => write!(f, "peer sent NOTIFICATION {n}"),
            Self::Sent(n) => write!(f, "sent NOTIFICATION {n}"),
            Self::Closed(why) => write!(f, "connection lost: {why}"),
            Self::Held => f.write_str("stopped, routes left to the peer's graceful restart"),
            Self::Unanswered(secs) => write!(f, "no answer within {secs} s"),
        }
    }
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Dial the peer.
    Dial,
    /// Give up dialling.
    StopDialling,
    /// Close the connection just accepted.
    Refuse,
    /// Write octets.
    Send(Role, Vec<u8>),
    /// Close, after what was sent.
    Close(Role),
    /// The session is up: announce.
    Up(Role, Negotiated),
    /// The session that was up is gone.
    Down(Down),
    /// A connection ended before the session was up.
    Failed(Down),
    /// The peer wants the family once more.
    Refresh(Family),
}

/// How far dialling is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dial {
    /// Not started, stopped, or passive only.
    Off,
    /// Dials at `until` and takes no call before: the peer refused our routes.
    Penalty(Millis),
    /// Dials at `until`.
    Waiting(Millis),
    /// A connection is being made; given up at `until`.
    Dialling(Millis),
    /// The connection is there, or another one carries the session.
    Done,
}

/// One peer's machine.
#[derive(Debug)]
pub struct Peer {
    settings: Settings,
    started: bool,
    dial: Dial,
    connections: [Option<Connection>; 2],
    failures: u32,
    /// How often in a row the peer took offence at what was sent.
    offences: u32,
    /// Measures wait for the session.
    urgent: bool,
    jitter: u64,
}

/// What the end of a session says about a next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// Nothing.
    No,
    /// An UPDATE was wrong for the peer (3/x).
    Update,
    /// There was too much (6/1, 6/8).
    TooMuch,
}

impl Peer {
    /// A machine at rest.
    pub const fn new(settings: Settings) -> Self {
        // A xorshift state must not be 0.
        let jitter = settings.seed | 1;
        Self {
            settings,
            started: false,
            dial: Dial::Off,
            connections: [None, None],
            failures: 0,
            offences: 0,
            urgent: false,
            jitter,
        }
    }

    /// The state to show: that of the connection that is furthest.
    pub fn state(&self) -> PeerState {
        let phase = self.connections.iter().flatten().map(|c| c.phase.state()).max();
        phase.unwrap_or(match self.dial {
            Dial::Dialling(_) => PeerState::Connect,
            Dial::Waiting(_) => PeerState::Active,
            Dial::Off if self.started => PeerState::Active,
            Dial::Off | Dial::Penalty(_) | Dial::Done => PeerState::Idle,
        })
    }

    /// The connection that carries the session, if it is up.
    pub fn established(&self) -> Option<Role> {
        [Role::Active, Role::Passive].into_iter().find(|r| {
            self.connections[*r as usize]
                .as_ref()
                .is_some_and(|c| matches!(c.phase, Phase::Established { .. }))
        })
    }

    /// When to send the next [`Input::Tick`].
    pub fn deadline(&self) -> Option<Millis> {
        let dial = match self.dial {
            Dial::Penalty(at) | Dial::Waiting(at) | Dial::Dialling(at) => Some(at),
            Dial::Off | Dial::Done => None,
        };
        self.connections.iter().flatten().filter_map(Connection::deadline).chain(dial).min()
    }

    /// A session has been up: later OPENs no longer say that weir has just restarted.
    pub const fn restarted(&mut self) {
        self.settings.open.restarting = false;
    }

    /// Another first wait before dialling again, milliseconds; counts from the next one on.
    pub const fn set_retry(&mut self, retry_ms: u64) {
        self.settings.retry_ms = retry_ms;
    }

    /// Takes one event; appends what follows from it.
    pub fn handle(&mut self, now: Millis, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Start => self.start(now, out),
            Input::Stop(notification) => self.stop(notification, out),
            Input::Connected => self.connected(now, out),
            Input::ConnectFailed => self.connect_failed(now),
            Input::Accepted => self.accepted(now, out),
            Input::Message(role, message) => self.message(now, role, message, out),
            Input::Malformed(role, notification) => self.fail(now, role, notification, out),
            Input::Closed(role, why) => self.gone(now, role, Down::Closed(why), out),
            Input::PathDown => self.path_down(now, out),
            Input::Tick => self.tick(now, out),
        }
    }

    fn message(&mut self, now: Millis, role: Role, message: Message, out: &mut Vec<Output>) {
        let Some(connection) = &self.connections[role as usize] else { return };
        if let Message::Notification(notification) = message {
            return self.gone(now, role, Down::Received(notification), out);
        }
        match connection.phase {
            Phase::OpenSent => self.in_open_sent(now, role, message, out),
            Phase::OpenConfirm(_) => self.in_open_confirm(now, role, message, out),
            Phase::Established { .. } => self.in_established(now, role, message, out),
        }
    }

    fn tick(&mut self, now: Millis, out: &mut Vec<Output>) {
        for role in [Role::Active, Role::Passive] {
            let Some(connection) = &mut self.connections[role as usize] else { continue };
            if connection.hold_at.is_some_and(|at| at <= now) {
                self.fail(now, role, Notification::new(codes::HOLD_TIMER, 0), out);
            } else if connection.keepalive_at.is_some_and(|at| at <= now) {
                let interval = connection.keepalive_ms;
                connection.keepalive_at = Some(now + jittered(&mut self.jitter, interval));
                out.push(Output::Send(role, crate::wire::keepalive().to_vec()));
            }
        }
        match self.dial {
            Dial::Penalty(at) | Dial::Waiting(at) if at <= now => self.dial(now, out),
            Dial::Dialling(at) if at <= now => {
                out.push(Output::StopDialling);
                out.push(Output::Failed(Down::Unanswered(self.connect_wait_ms() / 1000)));
                self.connect_failed(now);
            }
            _ => {}
        }
    }

    /// The session that is up ends (RFC 9384); a peer with graceful restart keeps the routes for its time.
    fn path_down(&mut self, now: Millis, out: &mut Vec<Output>) {
        if let Some(role) = self.established() {
            self.fail(now, role, Notification::new(codes::CEASE, cease::BFD_DOWN), out);
        }
    }

    /// Ends a connection for a fault of the peer or of time.
    fn fail(&mut self, now: Millis, role: Role, why: Notification, out: &mut Vec<Output>) {
        if self.connections[role as usize].is_some() {
            out.push(Output::Send(role, why.write()));
            self.gone(now, role, Down::Sent(why), out);
        }
    }

    /// A connection is over.
    fn gone(&mut self, now: Millis, role: Role, why: Down, out: &mut Vec<Output>) {
        let Some(connection) = self.connections[role as usize].take() else { return };
        out.push(Output::Close(role));
        let refused = match &why {
            Down::Received(n) => match n.cause() {
                (codes::UPDATE, ..) => Refused::Update,
                (codes::CEASE, cease::MAX_PREFIXES | cease::RESOURCES, _) => Refused::TooMuch,
                _ => Refused::No,
            },
            _ => Refused::No,
        };
        let collision = matches!(&why, Down::Received(n) | Down::Sent(n)
            if n.code == codes::CEASE && n.subcode == cease::COLLISION);
        if let Phase::Established { since, .. } = connection.phase {
            if now.since(since) >= STABLE_MS {
                self.failures = 0;
                self.offences = 0;
            }
            out.push(Output::Down(why));
        } else {
            out.push(Output::Failed(why));
        }
        // The other connection goes on in its stead.
        let go_on = collision || refused == Refused::No;
        if self.connections[role.other() as usize].is_some() && go_on {
            if role == Role::Active {
                self.dial = Dial::Done;
            }
            return;
        }
        self.back_off(now, refused);
    }
}

/// Three quarters to all of `ms` (RFC 4271 §10).
fn jittered(state: &mut u64, ms: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    let span = ms / 4;
    ms - if span == 0 { 0 } else { *state % (span + 1) }
}

#[cfg(test)]
mod tests;

//! The control packet (RFC 5880 §4.1): 24 octets.

/// Octets of a packet without authentication.
pub(crate) const LENGTH: usize = 24;

const VERSION: u8 = 1;
const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const AUTHENTICATED: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// State of a session (RFC 5880 §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Held down by an operator.
    AdminDown,
    /// The other side is not heard.
    #[default]
    Down,
    /// The other side is heard, and does not know it yet.
    Init,
    /// Both hear each other.
    Up,
}

impl State {
    const fn of(number: u8) -> Self {
        match number & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }
}

/// Why a session last left Up (RFC 5880 §4.1), 0-31.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// It was never up.
    pub const NONE: Self = Self(0);
    /// Nothing was heard for the detection time.
    pub const EXPIRED: Self = Self(1);
    /// The other side said that it is down.
    pub const NEIGHBOUR: Self = Self(3);
    /// An operator took it down.
    pub const ADMIN: Self = Self(7);
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbor signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            _ => "unknown diagnostic",
        })
    }
}

/// A control packet. Intervals are microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session last left Up.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// The sender waits for an answer with `last`.
    pub poll: bool,
    /// The answer to `poll` (the F bit).
    pub last: bool,
    /// The sender wants no periodic packets while both are up.
    pub demand: bool,
    /// Packets that may be missed before the sender is taken for dead.
    pub multiplier: u8,
    /// The sender's number of the session.
    pub mine: u32,
    /// The receiver's, as far as the sender knows it.
    pub yours: u32,
    /// How often the sender would send.
    pub min_tx: u32,
    /// How often the sender can receive; 0 for never.
    pub min_rx: u32,
}

impl Packet {
    /// Reads a datagram as RFC 5880 §6.8.6 has it discarded or taken; `None` for discarded.
    pub fn read(octets: &[u8]) -> Option<Self> {
        let (head, numbers) = octets.get(..LENGTH)?.split_at(4);
        let [version, flags, multiplier, length] = *head else { return None };
        let wrong = version >> 5 != VERSION
            || usize::from(length) < LENGTH
            || usize::from(length) > octets.len()
            || flags & (AUTHENTICATED | MULTIPOINT) != 0
            || multiplier == 0;
        if wrong {
            return None;
        }
        let number = |n: usize| {
            let octets = numbers.get(4 * n..4 * n + 4)?;
            Some(u32::from_be_bytes(octets.try_into().ok()?))
        };
        let packet = Self {
            diagnostic: Diagnostic(version & 0x1f),
            state: State::of(flags >> 6),
            poll: flags & POLL != 0,
            last: flags & FINAL != 0,
            demand: flags & DEMAND != 0,
            multiplier,
            mine: number(0)?,
            yours: number(1)?,
            min_tx: number(2)?,
            min_rx: number(3)?,
        };
        let nobodys = packet.yours == 0 && !matches!(packet.state, State::Down | State::AdminDown);
        (packet.mine != 0 && !nobodys).then_some(packet)
    }

    /// As it is sent. The echo interval is 0: echo packets are not looped back.
    pub fn write(&self) -> [u8; LENGTH] {
        let mut octets = [0; LENGTH];
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        octets[0] = VERSION << 5 | self.diagnostic.0 & 0x1f;
        octets[1] = self.state.number() << 6
            | bit(self.poll, POLL)
            | bit(self.last, FINAL)
            | bit(self.demand, DEMAND);
        octets[2] = self.multiplier;
        octets[3] = 24;
        let numbers = [self.mine, self.yours, self.min_tx, self.min_rx, 0];
        for (place, number) in octets[4..].chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        octets
    }
}

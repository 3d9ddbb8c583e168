//! How a synchronisation stands, for people.

use std::fmt;

use serde::{Deserialize, Serialize};
use weir_model::Millis;

use super::scan::Scan;
use crate::listing::Flavour;

/// Why a pass was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection.
    Connect(String),
    /// No complete answer in time.
    Timeout,
    /// A body above the cap.
    TooLarge,
    /// 401.
    KeyRefused,
    /// 403 because of where weir asks from.
    AddressRefused,
    /// The key may not read this list.
    KeyLacks(&'static str),
    /// Sent to the login page: what a panel does to callers without a key, and a proxy to all.
    Login,
    /// Sent elsewhere; weir never carries a key to another address.
    Redirected,
    /// A web page instead of data.
    Html,
    /// Data of another shape.
    Shape(String),
    /// No Application API at this address.
    NotAPanel,
    /// Ordered to wait again and again.
    Throttled,
    /// More rows than weir takes.
    TooMany(&'static str),
    /// Rows and totals do not agree, time after time.
    Inconsistent,
    /// Another HTTP status.
    Status(u16),
}

impl Failure {
    /// Whether smaller pages may help.
    pub(super) const fn is_about_size(&self) -> bool {
        matches!(self, Self::Timeout | Self::TooLarge | Self::Status(500..=599))
    }

    const fn connection(&self) -> Connection {
        match self {
            Self::KeyRefused | Self::AddressRefused | Self::KeyLacks(_) => Connection::Refused,
            Self::Throttled => Connection::Throttled,
            Self::Connect(_) | Self::Timeout | Self::Status(_) => Connection::Down,
            _ => Connection::Strange,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "no connection: {why}"),
            Self::Timeout => f.write_str("no complete answer in time"),
            Self::TooLarge => f.write_str("an answer was larger than weir reads"),
            Self::KeyRefused => f.write_str("the panel does not know the key"),
            Self::AddressRefused => {
                f.write_str("the key may not be used from this address; see its list of addresses")
            }
            Self::KeyLacks(what) => write!(f, "the key may not read {what}"),
            Self::Login => f.write_str("the panel, or a proxy before it, asks for a login"),
            Self::Redirected => f.write_str("the panel lies at another address; set its final url"),
            Self::Html => f.write_str("a web page came instead of data"),
            Self::Shape(why) => f.write_str(why),
            Self::NotAPanel => f.write_str("no Application API at this url"),
            Self::Throttled => f.write_str("the panel keeps asking to wait"),
            Self::TooMany(what) => write!(f, "the panel lists more {what} than weir takes"),
            Self::Inconsistent => f.write_str("rows and totals of the panel do not agree"),
            Self::Status(status) => write!(f, "the panel answered with status {status}"),
        }
    }
}

/// The connection to a panel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connection {
    /// No pass has ended yet.
    #[default]
    Starting,
    /// The last pass was complete.
    Ok,
    /// No answer, or an error of the server.
    Down,
    /// The key does not suffice.
    Refused,
    /// The panel asks to wait.
    Throttled,
    /// Something answers, but not as a panel should.
    Strange,
}

/// How the synchronisation of a panel stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Connection.
    pub connection: Connection,
    /// Which software, once known.
    pub flavour: Option<Flavour>,
    /// When the last complete pass ended.
    pub last_success: Option<Millis>,
    /// When the last pass began.
    pub last_attempt: Option<Millis>,
    /// When the next one begins; `None` while one is under way.
    pub next_poll: Option<Millis>,
    /// Failed passes since the last complete one.
    pub failures: u32,
    /// Why the last pass failed; `None` after a complete one.
    pub error: Option<String>,
    /// Ports that vanished and are held.
    pub held: usize,
    /// Whether the key may not read eggs: games are then guessed.
    pub key_lacks_eggs: bool,
    /// Whether the key may not read users though owners are wanted.
    pub key_lacks_users: bool,
    /// What the key could change, when it was checked: `["servers"]`.
    pub key_writes: Vec<String>,
    /// Requests a minute that the panel allows.
    pub rate_limit: Option<u32>,
    /// Complete passes.
    pub passes: u64,
    /// Requests sent.
    pub requests: u64,
    /// Requests of the last complete pass.
    pub pass_requests: u32,
    /// Length of the last complete pass, milliseconds.
    pub pass_ms: u64,
    /// Orders to wait.
    pub throttled: u64,
    /// Lists begun anew because they changed on the way.
    pub restarts: u64,
    /// Rows that came twice.
    pub duplicates: u64,
    /// Unusable rows, such as a port of 0.
    pub skipped: u64,
    /// Webhooks and requests for an earlier pass.
    pub hints: u64,
}

impl Status {
    pub(super) fn scanned(&mut self, scan: &Scan, now: Millis) {
        self.connection = Connection::Ok;
        self.last_success = Some(now);
        self.failures = 0;
        self.error = None;
        self.passes += 1;
        self.pass_requests = scan.requests;
        self.pass_ms = now.since(scan.started);
        self.duplicates += scan.duplicates();
        self.skipped += scan.skipped;
    }

    pub(super) fn failed(&mut self, failure: Failure) {
        self.connection = failure.connection();
        self.failures = self.failures.saturating_add(1);
        self.error = Some(failure.to_string());
    }

    /// What an operator should look at, in words; empty when all is well.
    pub fn alarms(&self, now: Millis, interval_ms: u64) -> Vec<String> {
        let mut alarms = Vec::new();
        if let Some(error) = &self.error {
            // One failed pass is a hiccup, unless it is about the key, which waiting cannot mend.
            let stale = self.last_success.is_none_or(|at| now.since(at) > 3 * interval_ms);
            if self.failures > 1 || stale || self.connection == Connection::Refused {
                alarms.push(match self.last_success {
                    Some(at) => format!("{error}; the listing of {at} stays in force"),
                    None => format!("{error}; nothing is known of this panel yet"),
                });
            }
        }
        if self.held > 0 {
            alarms.push(format!(
                "{} ports vanished at once and are held until they return or an operator accepts",
                self.held
            ));
        }
        if self.key_lacks_eggs {
            alarms.push("the key may not read eggs: games are guessed from programs".to_owned());
        }
        if self.key_lacks_users {
            alarms.push("the key may not read users: no customer is named".to_owned());
        }
        if !self.key_writes.is_empty() {
            alarms.push(format!(
                "the key may change {}: use one that may only read",
                self.key_writes.join(", ")
            ));
        }
        alarms
    }
}

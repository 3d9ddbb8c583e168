//! The conversation with a cache, without I/O (RFC 8210 §8).

use weir_model::Millis;

use super::pdu::{self, Pdu};
use super::{Table, Vrp};

/// Timing until the cache says otherwise: refresh, retry, expire, seconds (RFC 8210 §6).
const TIMING: [u64; 3] = [3_600, 600, 7_200];

/// Longest wait before a cache is tried again while nothing is known, seconds: it may start after
/// weir.
const RETRY_EMPTY: u64 = 10;

/// Bounds of what a cache may ask for, seconds (RFC 8210 §6).
const BOUNDS: [(u64, u64); 3] = [(1, 86_400), (1, 7_200), (600, 172_800)];

/// Changes of one answer held at most; a longer one is asked for as a whole.
const CHANGES_MAX: usize = 500_000;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The connection is there.
    Connected,
    /// It is gone.
    Closed,
    /// A message.
    Pdu(Pdu),
    /// A deadline may have passed.
    Tick,
}

/// Something to do.
#[derive(Debug)]
pub enum Output {
    /// Connect.
    Connect,
    /// Write.
    Send(Vec<u8>),
    /// Close, and wait.
    Close,
    /// The cache's data, whole.
    Replace(Table),
    /// What came (`true`) and went.
    Change(Vec<(bool, Vrp)>),
    /// The data is too old to be used.
    Forget,
}

#[derive(Debug)]
enum Answer {
    None,
    Whole(Table),
    Changes(Vec<(bool, Vrp)>),
}

/// One cache's session.
#[derive(Debug)]
pub struct Session {
    connected: bool,
    /// Session and serial number of the data held.
    data: Option<(u16, u32)>,
    answer: Answer,
    /// Whether everything was asked for.
    whole: bool,
    /// A query has no answer yet.
    asked: bool,
    timing: [u64; 3],
    next: Option<Millis>,
    expires: Option<Millis>,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            connected: false,
            data: None,
            answer: Answer::None,
            whole: true,
            asked: false,
            timing: TIMING,
            next: Some(Millis(0)),
            expires: None,
        }
    }
}

impl Session {
    /// When to send the next [`Input::Tick`].
    pub fn deadline(&self) -> Option<Millis> {
        self.next.into_iter().chain(self.expires).min()
    }

    /// Takes one event; appends what follows.
    pub fn handle(&mut self, now: Millis, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Connected => {
                self.connected = true;
                self.query(now, out);
            }
            Input::Closed => {
                self.connected = false;
                self.answer = Answer::None;
                if self.asked {
                    // A cache that was restarted may hang up on the numbers of its last session
                    // (stayrtr 0.5.1 does): the next query asks for everything.
                    self.data = None;
                }
                let retry = self.timing[1];
                let retry = if self.expires.is_some() { retry } else { retry.min(RETRY_EMPTY) };
                self.next = Some(now + retry * 1000);
            }
            Input::Pdu(pdu) => self.pdu(now, pdu, out),
            Input::Tick => self.tick(now, out),
        }
    }

    fn tick(&mut self, now: Millis, out: &mut Vec<Output>) {
        if self.expires.is_some_and(|at| at <= now) {
            self.expires = None;
            self.data = None;
            out.push(Output::Forget);
        }
        if self.next.is_some_and(|at| at <= now) {
            self.next = None;
            if self.connected { self.query(now, out) } else { out.push(Output::Connect) }
        }
    }

    fn query(&mut self, now: Millis, out: &mut Vec<Output>) {
        self.answer = Answer::None;
        self.asked = true;
        self.whole = self.data.is_none();
        out.push(Output::Send(match self.data {
            Some((session, serial)) => pdu::serial_query(pdu::VERSION, session, serial),
            None => pdu::reset_query(pdu::VERSION).to_vec(),
        }));
        // A cache that does not answer is asked again.
        self.next = Some(now + self.timing[1] * 1000);
    }

    fn pdu(&mut self, now: Millis, pdu: Pdu, out: &mut Vec<Output>) {
        match pdu {
            Pdu::SerialNotify { session, serial } => {
                if self.data != Some((session, serial)) && matches!(self.answer, Answer::None) {
                    self.query(now, out);
                }
            }
            Pdu::CacheResponse { session } => {
                self.asked = false;
                if self.data.is_some_and(|(known, _)| known != session) {
                    // Another session's serial numbers mean nothing (RFC 8210 §5.5).
                    self.data = None;
                    self.query(now, out);
                    return;
                }
                self.answer = if self.whole {
                    Answer::Whole(Table::default())
                } else {
                    Answer::Changes(Vec::new())
                };
            }
            Pdu::Prefix { announce, vrp } => match &mut self.answer {
                Answer::Whole(table) if announce => table.insert(vrp),
                Answer::Whole(table) => table.remove(vrp),
                Answer::Changes(list) if list.len() < CHANGES_MAX => list.push((announce, vrp)),
                Answer::Changes(_) => self.start_over(now, out),
                Answer::None => {}
            },
            Pdu::EndOfData { session, serial, timing } => {
                self.end_of_data(now, (session, serial), timing, out);
            }
            Pdu::CacheReset => self.start_over(now, out),
            // 2: no data yet; ask again later. Others: this connection leads nowhere.
            Pdu::ErrorReport(2) => self.next = Some(now + self.timing[1] * 1000),
            Pdu::ErrorReport(_) => {
                self.data = None;
                out.push(Output::Close);
                self.handle(now, Input::Closed, out);
            }
            Pdu::Other => {}
        }
    }

    fn start_over(&mut self, now: Millis, out: &mut Vec<Output>) {
        self.data = None;
        self.query(now, out);
    }

    fn end_of_data(
        &mut self,
        now: Millis,
        data: (u16, u32),
        timing: Option<[u32; 3]>,
        out: &mut Vec<Output>,
    ) {
        match std::mem::replace(&mut self.answer, Answer::None) {
            Answer::None => return,
            Answer::Whole(table) => out.push(Output::Replace(table)),
            Answer::Changes(list) if list.is_empty() => {}
            Answer::Changes(list) => out.push(Output::Change(list)),
        }
        self.data = Some(data);
        if let Some(asked) = timing {
            for ((own, asked), (low, high)) in self.timing.iter_mut().zip(asked).zip(BOUNDS) {
                *own = u64::from(asked).clamp(low, high);
            }
        }
        let [refresh, _, expire] = self.timing;
        self.next = Some(now + refresh * 1000);
        self.expires = Some(now + expire * 1000);
    }
}

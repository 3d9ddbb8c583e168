//! The queue: what waits, what is under way, what became of it.
//!
//! A letter is tried until its receiver takes it, refuses it for good, or its tries are used up; then it is a
//! dead letter, which a person can send again. Waits grow and are spread a little, and a receiver that says
//! when to come back is believed. A receiver that fails five times in a row is left alone for a while and
//! then tried with one letter: its circuit is open. Everything is bounded.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use weir_model::{DeliveryId, Millis, Outcome, TRIES_MAX, TRY_TIMEOUT_MS, back_off_ms};

/// Letters that wait or are under way; beyond this the oldest waiting one is dropped and counted.
pub const DELIVERIES_MAX: usize = 1024;

/// Entries of the delivery log.
pub const LOG_MAX: usize = 256;

/// Dead letters kept; the oldest give way.
pub const DEAD_MAX: usize = 256;

/// Letters under way to one receiver at once: a slow one must not hold up the others.
const UNDER_WAY_MAX: usize = 4;

/// Failures in a row that open a receiver's circuit.
const CIRCUIT_FAILURES: u32 = 5;

/// How long an open circuit stays so at first, and at most, milliseconds.
const CIRCUIT_MS: (u64, u64) = (10_000, 300_000);

/// Longest wait that a receiver may ask for, milliseconds.
const RETRY_AFTER_MAX_MS: u64 = 3_600_000;

/// Longest wait between two tries of what is tried until it is too old, milliseconds.
const PATIENT_MS: u64 = 300_000;

/// Octets of an answer that the log keeps.
const SAID_MAX: usize = 300;

/// Somebody who is told something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Its name.
    pub name: String,
    /// Whether it is told anything; a test reaches it all the same.
    pub enabled: bool,
    /// Tries of one letter.
    pub tries_max: u32,
    /// A letter older than this is not tried again, milliseconds.
    pub age_max_ms: u64,
    /// Least time between two tries, milliseconds.
    pub every_ms: u64,
}

impl Receiver {
    /// A generic webhook: four tries within a minute.
    pub fn webhook(name: &str, enabled: bool) -> Self {
        let name = name.to_owned();
        Self { name, enabled, tries_max: TRIES_MAX, age_max_ms: u64::MAX, every_ms: 0 }
    }
}

/// One thing to tell one receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter<T> {
    /// Its number.
    pub id: DeliveryId,
    /// To whom.
    pub to: String,
    /// What about, in a word.
    pub event: String,
    /// What it says, or what is needed to say it.
    pub content: T,
    /// When it was queued.
    pub queued: Millis,
    /// Tries made.
    pub tries: u32,
    /// When it is next tried.
    pub due: Millis,
    /// Whether it goes out although its receiver is switched off or its circuit is open.
    #[serde(default)]
    pub test: bool,
    /// When the present try counts as failed.
    #[serde(skip)]
    under_way: Option<Millis>,
}

/// A letter that is to go out now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due<T> {
    /// To report its answer under.
    pub id: DeliveryId,
    /// To whom.
    pub to: String,
    /// What about.
    pub event: String,
    /// What it says.
    pub content: T,
}

/// What a receiver answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What became of the try.
    pub outcome: Outcome,
    /// Whether another try can help, where the status alone does not say it.
    pub passing: Option<bool>,
    /// When the receiver wants to be asked again, milliseconds from now.
    pub retry_after_ms: Option<u64>,
    /// The beginning of what it said.
    pub said: String,
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, passing: None, retry_after_ms: None, said: String::new() }
    }
}

/// What became of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// Its number.
    pub id: DeliveryId,
    /// To whom.
    pub to: String,
    /// What about.
    pub event: String,
    /// When it was queued.
    pub queued: Millis,
    /// When it ended.
    pub ended: Millis,
    /// Tries made.
    pub tries: u32,
    /// How the last one ended.
    pub outcome: Outcome,
    /// Whether it was taken.
    pub taken: bool,
    /// The beginning of what the receiver said.
    pub said: String,
}

/// A letter that nobody took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter<T> {
    /// The letter.
    pub letter: Letter<T>,
    /// When it was given up.
    pub at: Millis,
    /// Why.
    pub why: String,
}

/// A letter that left the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended<T> {
    /// To whom it went.
    pub to: String,
    /// What it said.
    pub content: T,
    /// Whether it was taken.
    pub taken: bool,
}

/// How it goes with one receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Failures in a row.
    pub failures: u32,
    /// Nothing goes out before this.
    pub until: Millis,
    /// The pace that its service allows.
    next: Millis,
    /// Why the last try failed, if it did.
    pub trouble: String,
}

impl Line {
    /// Whether the receiver is left alone for a while.
    pub const fn is_open(&self) -> bool {
        self.failures >= CIRCUIT_FAILURES
    }
}

/// What the state file keeps.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "T: Serialize", deserialize = "T: Deserialize<'de>"))]
pub struct Kept<T> {
    last: DeliveryId,
    waiting: Vec<Letter<T>>,
    dead: Vec<DeadLetter<T>>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { last: DeliveryId::default(), waiting: Vec::new(), dead: Vec::new() }
    }
}

/// All letters.
#[derive(Clone, Debug)]
pub struct Outbox<T> {
    receivers: BTreeMap<String, Receiver>,
    lines: BTreeMap<String, Line>,
    waiting: BTreeMap<DeliveryId, Letter<T>>,
    dead: VecDeque<DeadLetter<T>>,
    log: VecDeque<DeliveryRecord>,
    last: DeliveryId,
    dropped: u64,
    changed: bool,
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self {
            receivers: BTreeMap::new(),
            lines: BTreeMap::new(),
            waiting: BTreeMap::new(),
            dead: VecDeque::new(),
            log: VecDeque::new(),
            last: DeliveryId::default(),
            dropped: 0,
            changed: false,
        }
    }
}

impl<T: Clone> Outbox<T> {
    /// Takes back what the last run left; what was under way then is tried again.
    pub fn restore(&mut self, kept: Kept<T>) {
        self.last = self.last.max(kept.last);
        self.waiting.extend(kept.waiting.into_iter().take(DELIVERIES_MAX).map(|l| (l.id, l)));
        self.dead.extend(kept.dead.into_iter().take(DEAD_MAX));
    }

    /// What the state file is to keep.
    pub fn kept(&self) -> Kept<T> {
        Kept {
            last: self.last,
            waiting: self.waiting.values().cloned().collect(),
            dead: self.dead.iter().cloned().collect(),
        }
    }

    /// Whether there is something new for the state file since this was last asked.
    pub const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// Puts other receivers in the place of those known. What waits for one that is gone or switched off is
    /// dropped, and the log says so.
    pub fn set_receivers(&mut self, receivers: Vec<Receiver>, now: Millis) {
        self.receivers = receivers.into_iter().map(|r| (r.name.clone(), r)).collect();
        self.lines.retain(|name, _| self.receivers.contains_key(name));
        let gone = |letter: &Letter<T>| match self.receivers.get(&letter.to) {
            Some(receiver) => !receiver.enabled && !letter.test,
            None => true,
        };
        let gone: Vec<DeliveryId> =
            self.waiting.values().filter(|l| gone(l)).map(|l| l.id).collect();
        for id in gone {
            if let Some(letter) = self.waiting.remove(&id) {
                self.changed = true;
                let why = Outcome::Failed("the channel was removed or switched off".into());
                self.note(&letter, &why.into(), false, now);
            }
        }
    }

    /// Queues a letter whose content is made from its number; `None` when there is no such receiver, or it is
    /// switched off and this is no test.
    pub fn queue(
        &mut self,
        to: &str,
        event: &str,
        test: bool,
        content: impl FnOnce(DeliveryId) -> T,
        now: Millis,
    ) -> Option<DeliveryId> {
        self.receivers.get(to).filter(|receiver| receiver.enabled || test)?;
        if self.waiting.len() >= DELIVERIES_MAX
            && let Some(oldest) =
                self.waiting.iter().find(|(_, l)| l.under_way.is_none()).map(|(id, _)| *id)
        {
            self.waiting.remove(&oldest);
            self.dropped = self.dropped.saturating_add(1);
        }
        self.last = DeliveryId::next(now, self.last);
        let id = self.last;
        let letter = Letter {
            id,
            to: to.to_owned(),
            event: event.to_owned(),
            content: content(id),
            queued: now,
            tries: 0,
            due: now,
            test,
            under_way: None,
        };
        self.waiting.insert(id, letter);
        self.changed = true;
        Some(id)
    }

    /// Letters that go out now. Each goes out once; its answer is reported with [`Outbox::done`].
    pub fn due(&mut self, now: Millis) -> Vec<Due<T>> {
        let mut under_way: BTreeMap<String, usize> = BTreeMap::new();
        for letter in self.waiting.values().filter(|letter| letter.under_way.is_some()) {
            *under_way.entry(letter.to.clone()).or_default() += 1;
        }
        let mut due = Vec::new();
        for letter in self.waiting.values_mut() {
            let Some(receiver) = self.receivers.get(&letter.to) else { continue };
            let line = self.lines.entry(letter.to.clone()).or_default();
            let busy = under_way.entry(letter.to.clone()).or_default();
            let places = if line.is_open() { 1 } else { UNDER_WAY_MAX };
            let closed = *busy >= places || line.until > now || line.next > now;
            if letter.under_way.is_some() || letter.due > now || (closed && !letter.test) {
                continue;
            }
            *busy += 1;
            line.next = now + receiver.every_ms;
            letter.tries = letter.tries.saturating_add(1);
            letter.under_way = Some(now + TRY_TIMEOUT_MS);
            due.push(Due {
                id: letter.id,
                to: letter.to.clone(),
                event: letter.event.clone(),
                content: letter.content.clone(),
            });
        }
        due
    }

    /// Letters whose try has had its time: each is to be reported as failed.
    pub fn late(&self, now: Millis) -> Vec<DeliveryId> {
        let late = |l: &Letter<T>| l.under_way.is_some_and(|until| until <= now);
        self.waiting.values().filter(|l| late(l)).map(|l| l.id).collect()
    }

    /// Takes in what became of a try; answers that come after its time are ignored. Returns the letter when it
    /// has left the queue.
    pub fn done(&mut self, id: DeliveryId, answer: &Answer, now: Millis) -> Option<Ended<T>> {
        let letter = self.waiting.get_mut(&id)?;
        letter.under_way.take()?;
        self.changed = true;
        let taken = answer.outcome.is_success() && answer.passing.is_none();
        let passing = answer.passing.unwrap_or_else(|| answer.outcome.is_passing());
        let line = self.lines.entry(letter.to.clone()).or_default();
        if taken {
            (line.failures, line.trouble) = (0, String::new());
        } else {
            line.trouble = told(answer);
        }
        let pause = answer.retry_after_ms.map(|ms| ms.min(RETRY_AFTER_MAX_MS));
        if !taken && passing {
            line.failures = line.failures.saturating_add(1);
            let over = line.failures.saturating_sub(CIRCUIT_FAILURES).min(10);
            let open = line.is_open().then(|| {
                let ms = (CIRCUIT_MS.0 << over).min(CIRCUIT_MS.1);
                ms + spread(id, line.failures, ms)
            });
            if let Some(ms) = pause.into_iter().chain(open).max() {
                line.until = line.until.max(now + ms);
            }
            let receiver = self.receivers.get(&letter.to);
            let again = receiver.is_some_and(|receiver| {
                letter.tries < receiver.tries_max && now.since(letter.queued) < receiver.age_max_ms
            });
            if again {
                let wait = match letter.tries {
                    tries if tries < TRIES_MAX => back_off_ms(tries),
                    tries => (back_off_ms(TRIES_MAX) << (tries - 3).min(8)).min(PATIENT_MS),
                };
                let wait = wait + spread(id, letter.tries, wait);
                letter.due = now + wait.max(pause.unwrap_or(0));
                return None;
            }
        }
        let letter = self.waiting.remove(&id)?;
        self.note(&letter, answer, taken, now);
        let ended = Ended { to: letter.to.clone(), content: letter.content.clone(), taken };
        if !taken && !letter.test {
            if self.dead.len() >= DEAD_MAX {
                self.dead.pop_front();
            }
            self.dead.push_back(DeadLetter { letter, at: now, why: told(answer) });
        }
        Some(ended)
    }

    /// Puts a dead letter back into the queue under its old number, so that whoever remembers numbers still
    /// tells it once; `false` when there is none, or nobody any more whom it could go to.
    pub fn resend(&mut self, id: DeliveryId, now: Millis) -> bool {
        let Some(place) = self.dead.iter().position(|dead| dead.letter.id == id) else {
            return false;
        };
        if !self.receivers.contains_key(&self.dead[place].letter.to) {
            return false;
        }
        let Some(dead) = self.dead.remove(place) else { return false };
        let (tries, queued, due) = (0, now, now);
        self.waiting.insert(id, Letter { tries, queued, due, ..dead.letter });
        self.changed = true;
        true
    }

    fn note(&mut self, letter: &Letter<T>, answer: &Answer, taken: bool, now: Millis) {
        if self.log.len() >= LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(DeliveryRecord {
            id: letter.id,
            to: letter.to.clone(),
            event: letter.event.clone(),
            queued: letter.queued,
            ended: now,
            tries: letter.tries,
            outcome: answer.outcome.clone(),
            taken,
            said: cut(&answer.said, SAID_MAX),
        });
    }

    /// Whether a letter waits or is under way.
    pub fn has(&self, id: DeliveryId) -> bool {
        self.waiting.contains_key(&id)
    }

    /// Whom a letter that waits or is under way goes to, and what it says.
    pub fn content(&self, id: DeliveryId) -> Option<(String, T)> {
        self.waiting.get(&id).map(|letter| (letter.to.clone(), letter.content.clone()))
    }

    /// Takes a letter back; nobody is told of it.
    pub fn withdraw(&mut self, id: DeliveryId) {
        self.changed |= self.waiting.remove(&id).is_some();
    }

    /// When there is next something to do, if anything waits.
    pub fn next_due(&self) -> Option<Millis> {
        let at = |letter: &Letter<T>| {
            let line = self.lines.get(&letter.to).filter(|_| !letter.test);
            let ready = line.map_or(letter.due, |l| letter.due.max(l.until).max(l.next));
            letter.under_way.unwrap_or(ready)
        };
        self.waiting.values().map(at).min()
    }

    /// What became of the last letters, oldest first.
    pub fn log(&self) -> impl DoubleEndedIterator<Item = &DeliveryRecord> {
        self.log.iter()
    }

    /// Letters that nobody took, oldest first.
    pub fn dead(&self) -> impl DoubleEndedIterator<Item = &DeadLetter<T>> {
        self.dead.iter()
    }

    /// How it goes with a receiver.
    pub fn line(&self, name: &str) -> Line {
        self.lines.get(name).cloned().unwrap_or_default()
    }

    /// Letters that wait or are under way, to all or to one.
    pub fn waiting(&self, to: Option<&str>) -> usize {
        self.waiting.values().filter(|letter| to.is_none_or(|to| letter.to == to)).count()
    }

    /// Letters dropped because too many waited, since the start.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// What went wrong, in a line.
fn told(answer: &Answer) -> String {
    let said = cut(&answer.said, SAID_MAX);
    if said.is_empty() { answer.outcome.to_string() } else { format!("{}: {said}", answer.outcome) }
}

/// The beginning of a text, in one line.
fn cut(text: &str, max: usize) -> String {
    let one_line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut cut = String::new();
    for c in one_line {
        if cut.len() + c.len_utf8() > max {
            break;
        }
        cut.push(c);
    }
    cut.trim().to_owned()
}

/// Up to a fifth of a wait, so that what failed together does not come back together. A hash and no chance:
/// the same letters go out at the same times again.
fn spread(id: DeliveryId, tries: u32, wait_ms: u64) -> u64 {
    let mut x = id.0 ^ (u64::from(tries) << 56) ^ 0x9e37_79b9_7f4a_7c15;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) % (wait_ms / 5).max(1)
}

#[cfg(test)]
mod tests;

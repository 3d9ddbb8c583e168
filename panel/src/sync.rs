//! When to ask a panel what, and when its answer may be used: a pure state machine.
//!
//! - One pass lists servers, nodes, eggs when they are due, and users when owners are wanted. A
//!   pass counts only when every page came and the number of distinct rows is the total the panel
//!   named; when the total changes on the way, the list begins anew, at most [`RESTARTS_MAX`] times.
//! - At most a quarter of the advertised rate is used; an order to wait is obeyed.
//! - When many ports vanish at once they are *held*: what is new is taken, what vanished stays
//!   until it returns or an operator accepts. A restored database or a crippled key must not turn
//!   customers into strangers.
//! - A failed pass changes nothing: the last good listing stays in force.
//!
//! ```text
//!   Idle --next_poll--> Asking --reply--> Asking ... --last page--> Idle, Apply
//!    ^                   |  ^
//!    |                   v  |  budget spent, or 429
//!    +--- failure --- Resting
//! ```

mod budget;
mod hold;
mod scan;
mod status;

use std::sync::Arc;

use weir_model::Millis;

use crate::config::PanelConfig;
use crate::listing::{Egg, Flavour, Listing};
use crate::parse;
use budget::Budget;
use scan::{Scan, Step};

pub use status::{Connection, Failure, Status};

/// Most times a list is begun anew in one pass.
pub(crate) const RESTARTS_MAX: u32 = 3;
/// Most orders to wait obeyed in one pass before it is given up.
pub(crate) const THROTTLED_MAX: u32 = 3;
/// Most servers of a panel.
pub(crate) const SERVERS_MAX: usize = 50_000;
/// Most allocations of a panel.
pub(crate) const ALLOCATIONS_MAX: usize = 200_000;
/// Most nodes, eggs or nests of a panel.
pub(crate) const NODES_MAX: usize = 5_000;
/// Most customers of a panel.
pub(crate) const USERS_MAX: usize = 200_000;
/// Eggs change rarely and are heavy: each repeats its install script.
const EGGS_MAX_AGE_MS: u64 = 600_000;
/// A hint waits this long, so that a burst of webhooks costs one pass.
const HINT_DELAY_MS: u64 = 3_000;
/// Hints cannot make passes come closer together than this.
const HINT_SPACING_MS: u64 = 10_000;
/// Longest pause between two tries of a panel that fails.
const BACKOFF_MS_MAX: u64 = 900_000;
/// Longest order to wait that is obeyed to the letter.
const RETRY_AFTER_SECS_MAX: u64 = 3_600;

/// What happens to a panel's synchronisation.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Begins, with the last good listing of an earlier run.
    Start(Option<Arc<Listing>>),
    /// Time passed.
    Wake,
    /// Something may have changed: a webhook or an operator asks for a pass soon.
    Hint,
    /// An operator accepts that the held ports are gone.
    Accept,
    /// An answer to a request.
    Reply {
        /// Number of the request.
        request: u64,
        /// The answer.
        reply: Reply,
    },
    /// A request that got no answer.
    NoReply {
        /// Number of the request.
        request: u64,
        /// Why.
        failure: Failure,
    },
}

/// An answer of the panel's web server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// `X-RateLimit-Limit`: requests a minute.
    pub rate_limit: Option<u32>,
    /// `X-RateLimit-Remaining`.
    pub rate_remaining: Option<u32>,
    /// `Retry-After`, seconds.
    pub retry_after_secs: Option<u64>,
    /// `Location`.
    pub location: Option<String>,
    /// Body, already capped by whoever read it.
    pub body: Vec<u8>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// GET this path and query of the panel.
    Get {
        /// Number to answer with.
        request: u64,
        /// Path and query, from `/api/application` on.
        path: String,
    },
    /// Send [`Event::Wake`] at this instant.
    WakeAt(Millis),
    /// This listing is in force from now on; keep a copy of it.
    Apply(Arc<Listing>),
}

/// Pages in a row that a panel has to answer before it is asked for larger ones.
const GOOD_PAGES: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Asking { request: u64, step: Step },
    Resting { step: Step, until: Millis },
}

/// The synchronisation of one panel.
#[derive(Debug)]
pub struct Sync {
    interval_ms: u64,
    page_size_max: u32,
    page_size: u32,
    /// Pages read in a row since the size was last changed.
    good_pages: u32,
    hold_shrink: f64,
    owners: bool,
    random: u64,
    budget: Budget,
    state: State,
    scan: Scan,
    next_poll: Millis,
    last_start: Option<Millis>,
    hinted: bool,
    requests: u64,
    flavour: Flavour,
    flavour_known: bool,
    eggs: Vec<Egg>,
    eggs_read: Option<Millis>,
    in_force: Option<Arc<Listing>>,
    waiting_for_accept: Option<Arc<Listing>>,
    status: Status,
}

impl Sync {
    /// The synchronisation of a panel. `seed` spreads several panels over time; `key` is looked at
    /// for its prefix only.
    pub fn new(config: &PanelConfig, key: &str, seed: u64) -> Self {
        let pelican = key.starts_with("papp_");
        Self {
            interval_ms: config.interval.ms,
            page_size_max: config.page_size,
            page_size: config.page_size,
            good_pages: 0,
            hold_shrink: config.hold_shrink,
            owners: config.owners,
            random: seed,
            budget: Budget::default(),
            state: State::Idle,
            scan: Scan::default(),
            next_poll: Millis(u64::MAX),
            last_start: None,
            hinted: false,
            requests: 0,
            // Only a first guess: keys survive a move from one panel to the other.
            flavour: if pelican { Flavour::Pelican } else { Flavour::Pterodactyl },
            flavour_known: false,
            eggs: Vec::new(),
            eggs_read: None,
            in_force: None,
            waiting_for_accept: None,
            status: Status::default(),
        }
    }

    /// How it stands.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The listing in force.
    pub fn listing(&self) -> Option<&Arc<Listing>> {
        self.in_force.as_ref()
    }

    /// What a complete pass found while ports are held: what accepting would put in force.
    pub fn unheld(&self) -> Option<&Arc<Listing>> {
        self.waiting_for_accept.as_ref()
    }

    /// Takes an event and says what is to be done.
    pub fn step(&mut self, event: Event, now: Millis) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Start(last_good) => self.start(last_good, now, &mut actions),
            Event::Wake => self.wake(now, &mut actions),
            Event::Hint => self.hint(now, &mut actions),
            Event::Accept => self.accept(now, &mut actions),
            Event::Reply { request, reply } => {
                if let State::Asking { request: awaited, step } = self.state
                    && awaited == request
                {
                    self.budget.learn(&reply, now);
                    self.status.rate_limit = reply.rate_limit.or(self.status.rate_limit);
                    self.reply(step, &reply, now, &mut actions);
                }
            }
            Event::NoReply { request, failure } => {
                if let State::Asking { request: awaited, .. } = self.state
                    && awaited == request
                {
                    self.fail(failure, now, &mut actions);
                }
            }
        }
        self.status.next_poll = (self.state == State::Idle).then_some(self.next_poll);
        actions
    }

    fn start(&mut self, last_good: Option<Arc<Listing>>, now: Millis, actions: &mut Vec<Action>) {
        if let Some(listing) = last_good {
            self.status.last_success = Some(listing.taken);
            self.flavour = listing.flavour;
            actions.push(Action::Apply(Arc::clone(&listing)));
            self.in_force = Some(listing);
        }
        // Several panels behind one proxy should not be asked in the same instant.
        self.next_poll = now + self.random_below(2_000);
        actions.push(Action::WakeAt(self.next_poll));
    }

    fn wake(&mut self, now: Millis, actions: &mut Vec<Action>) {
        match self.state {
            State::Idle if now >= self.next_poll => {
                self.scan = Scan::begin(now);
                self.last_start = Some(now);
                self.hinted = false;
                self.status.last_attempt = Some(now);
                self.ask(Step::Servers { page: 1 }, now, actions);
            }
            State::Idle if self.next_poll < Millis(u64::MAX) => {
                actions.push(Action::WakeAt(self.next_poll));
            }
            State::Resting { step, until } if now >= until => self.ask(step, now, actions),
            State::Resting { until, .. } => actions.push(Action::WakeAt(until)),
            State::Idle | State::Asking { .. } => {}
        }
    }

    fn hint(&mut self, now: Millis, actions: &mut Vec<Action>) {
        self.status.hints += 1;
        if self.state != State::Idle {
            self.hinted = true;
            return;
        }
        let earliest = self.earliest_hinted(now);
        if earliest < self.next_poll {
            self.next_poll = earliest;
            actions.push(Action::WakeAt(earliest));
        }
    }

    fn earliest_hinted(&self, now: Millis) -> Millis {
        let spaced = self.last_start.map_or(now, |start| start + HINT_SPACING_MS);
        spaced.max(now + HINT_DELAY_MS).max(self.budget.not_before())
    }

    fn accept(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let Some(listing) = self.waiting_for_accept.take() else { return };
        self.status.held = 0;
        self.in_force = Some(Arc::clone(&listing));
        actions.push(Action::Apply(listing));
        self.hint(now, actions);
    }

    fn ask(&mut self, step: Step, now: Millis, actions: &mut Vec<Action>) {
        if let Err(until) = self.budget.spend(now) {
            self.state = State::Resting { step, until };
            actions.push(Action::WakeAt(until));
            return;
        }
        self.requests += 1;
        self.scan.requests += 1;
        self.status.requests += 1;
        self.state = State::Asking { request: self.requests, step };
        let path = step.path(self.flavour, self.page_size, self.owners);
        actions.push(Action::Get { request: self.requests, path });
    }

    fn reply(&mut self, step: Step, reply: &Reply, now: Millis, actions: &mut Vec<Action>) {
        match reply.status {
            200 => match self.scan.take(step, self.flavour, &reply.body) {
                Ok(next) => self.advance(step, next, now, actions),
                Err(Failure::KeyLacks("users")) => {
                    self.refused(Step::Users { page: 1 }, now, actions)
                }
                Err(failure) => self.fail(failure, now, actions),
            },
            429 => self.throttled(step, reply, now, actions),
            401 => self.fail(Failure::KeyRefused, now, actions),
            403 => {
                let detail = parse::error_detail(&reply.body).unwrap_or_default();
                if detail.contains("IP address") {
                    self.fail(Failure::AddressRefused, now, actions);
                } else {
                    self.refused(step, now, actions);
                }
            }
            404 if matches!(step, Step::Eggs { .. })
                && !self.flavour_known
                && !self.scan.turned =>
            {
                self.scan.turned = true;
                self.flavour = match self.flavour {
                    Flavour::Pterodactyl => Flavour::Pelican,
                    Flavour::Pelican => Flavour::Pterodactyl,
                };
                self.ask(Step::Eggs { page: 1 }, now, actions);
            }
            404 if matches!(step, Step::Eggs { .. }) && self.flavour_known => {
                // The panel was replaced by the other kind at the same address.
                self.flavour_known = false;
                self.reply(step, reply, now, actions);
            }
            404 => self.fail(Failure::NotAPanel, now, actions),
            300..=399 => {
                let to = reply.location.as_deref().unwrap_or_default();
                let login = to.contains("/login");
                self.fail(if login { Failure::Login } else { Failure::Redirected }, now, actions);
            }
            status => self.fail(Failure::Status(status), now, actions),
        }
    }

    /// A list that the key may not read: without servers or nodes there is no pass; without eggs
    /// the games are guessed from programs, without users nobody is named.
    fn refused(&mut self, step: Step, now: Millis, actions: &mut Vec<Action>) {
        match step {
            Step::Servers { .. } => self.fail(Failure::KeyLacks("servers"), now, actions),
            Step::Nodes { .. } => self.fail(Failure::KeyLacks("nodes"), now, actions),
            Step::Eggs { .. } => {
                self.status.key_lacks_eggs = true;
                self.status.flavour = Some(self.flavour);
                self.eggs_read = Some(now);
                self.scan.eggs_done = true;
                self.follow(step, now, actions);
            }
            Step::Users { .. } => {
                self.status.key_lacks_users = true;
                self.owners = false;
                if self.scan.servers_done() {
                    self.finish(now, actions);
                } else {
                    self.scan.restart_servers();
                    self.ask(Step::Servers { page: 1 }, now, actions);
                }
            }
        }
    }

    fn throttled(&mut self, step: Step, reply: &Reply, now: Millis, actions: &mut Vec<Action>) {
        self.status.throttled += 1;
        self.scan.throttled += 1;
        let secs = reply.retry_after_secs.unwrap_or(60).clamp(1, RETRY_AFTER_SECS_MAX);
        let until = now + secs * 1000;
        self.budget.rest_until(until);
        if self.scan.throttled > THROTTLED_MAX {
            self.fail(Failure::Throttled, now, actions);
        } else {
            self.state = State::Resting { step, until };
            actions.push(Action::WakeAt(until));
        }
    }

    fn advance(&mut self, step: Step, next: scan::Next, now: Millis, actions: &mut Vec<Action>) {
        match next {
            scan::Next::Page(page) => {
                let servers = matches!(step, Step::Servers { .. });
                let page = if servers { self.grow(page) } else { page };
                self.ask(step.at(page), now, actions);
            }
            scan::Next::Again => {
                self.status.restarts += 1;
                self.scan.restarts += 1;
                if self.scan.restarts > RESTARTS_MAX {
                    self.fail(Failure::Inconsistent, now, actions);
                } else {
                    self.ask(step.at(1), now, actions);
                }
            }
            scan::Next::Done => {
                if matches!(step, Step::Eggs { .. }) {
                    self.flavour_known = true;
                    self.status.flavour = Some(self.flavour);
                    self.status.key_lacks_eggs = false;
                    self.eggs = self.scan.take_eggs();
                    self.eggs_read = Some(now);
                }
                self.follow(step, now, actions);
            }
        }
    }

    /// After some good pages asks for twice as many rows, within a pass: with the smallest pages one pass over a
    /// large panel takes the better part of an hour. `page` is the next one; where it is in the new size.
    fn grow(&mut self, page: u32) -> u32 {
        self.good_pages += 1;
        let read = page.saturating_sub(1);
        let fits = self.page_size.saturating_mul(2) <= self.page_size_max;
        // Only where both sizes begin a page at this row.
        if !fits || self.good_pages < GOOD_PAGES || !read.is_multiple_of(2) {
            return page;
        }
        self.page_size *= 2;
        self.good_pages = 0;
        read / 2 + 1
    }

    /// Servers, then nodes, so that a server's node is always listed; then eggs if due.
    fn follow(&mut self, done: Step, now: Millis, actions: &mut Vec<Action>) {
        let eggs_due = !self.scan.eggs_done
            && (self.eggs_read.is_none_or(|at| now.since(at) >= EGGS_MAX_AGE_MS)
                || (!self.status.key_lacks_eggs && self.scan.has_unknown_egg(&self.eggs)));
        match done {
            Step::Servers { .. } => self.ask(Step::Nodes { page: 1 }, now, actions),
            Step::Nodes { .. } if eggs_due => self.ask(Step::Eggs { page: 1 }, now, actions),
            Step::Nodes { .. } | Step::Eggs { .. } if self.owners => {
                self.ask(Step::Users { page: 1 }, now, actions);
            }
            _ => self.finish(now, actions),
        }
    }

    fn finish(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let scan = std::mem::take(&mut self.scan);
        self.status.scanned(&scan, now);
        let listing = scan.listing(self.flavour, self.eggs.clone(), now);
        let held =
            self.in_force.as_ref().and_then(|old| hold::hold(old, &listing, self.hold_shrink));
        let listing = Arc::new(listing);
        let effective = match held {
            Some((merged, count)) => {
                self.status.held = count;
                self.waiting_for_accept = Some(listing);
                Arc::new(merged)
            }
            None => {
                self.status.held = 0;
                self.waiting_for_accept = None;
                listing
            }
        };
        let same = self.in_force.as_ref().is_some_and(|old| old.says_the_same(&effective));
        self.in_force = Some(Arc::clone(&effective));
        if !same {
            actions.push(Action::Apply(effective));
        }
        // What few pages cannot grow back, passes do: one doubling per eight.
        if self.status.passes.is_multiple_of(8) {
            self.page_size = (self.page_size * 2).min(self.page_size_max);
        }
        let pause = self.spread(self.interval_ms);
        self.rest_until(now + pause, now, actions);
    }

    fn fail(&mut self, failure: Failure, now: Millis, actions: &mut Vec<Action>) {
        if failure.is_about_size() {
            self.page_size = (self.page_size / 2).max(25);
            self.good_pages = 0;
        }
        self.scan = Scan::default();
        self.status.failed(failure);
        let doublings = self.status.failures.saturating_sub(1).min(6);
        let pause = self
            .interval_ms
            .saturating_mul(1 << doublings)
            .min(BACKOFF_MS_MAX.max(self.interval_ms));
        let pause = self.spread(pause);
        self.hinted = false;
        self.rest_until((now + pause).max(self.budget.not_before()), now, actions);
    }

    fn rest_until(&mut self, at: Millis, now: Millis, actions: &mut Vec<Action>) {
        self.state = State::Idle;
        self.next_poll = if self.hinted { at.min(self.earliest_hinted(now)) } else { at };
        self.hinted = false;
        actions.push(Action::WakeAt(self.next_poll));
    }

    /// The pause less up to a tenth, so that panels do not fall into step and "every 60 s" holds.
    fn spread(&mut self, pause_ms: u64) -> u64 {
        pause_ms - self.random_below(pause_ms / 10 + 1)
    }

    /// Splitmix64: chance here only spreads load.
    fn random_below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

#[cfg(test)]
mod tests;

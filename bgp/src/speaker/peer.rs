//! One peer's task.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::Ready;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use weir_model::{
    KeptBack, Measure, Millis, Observed, PeerLimit, PeerRoutes, PeerStanding, PeerState,
    PeerStatus, RouteDoubt, RpkiState,
};

use super::announce::Writer;
use super::connection::Connection;
use super::desk::Order;
use super::origin::OriginCheck;
use super::running::PeerStart;
use super::standing::{Clocks, EPOCH, PeerMemory, route_id};
use super::{Stop, Word, listener, wall};
use crate::bfd;
use crate::config::PeerConfig;
use crate::fsm::{self, Down, Input, Negotiated, Output, Role};
use crate::guard::Admitted;
use crate::rib::{AdjRibOut, Blame, Change};
use crate::rpki;
use crate::wire::{Notification, OpenSettings, cease, codes};

/// Longest wait between two attempts to dial.
const RETRY_MAX_MS: u64 = 120_000;

/// Reports queued above which no further route is written.
const REPORTS_MAX: usize = 4096;

/// Connections that take their last words at a time.
const CLOSING_MAX: usize = 8;

/// How long withdrawals may take when weir stops.
const WITHDRAW_WAIT: Duration = Duration::from_secs(5);

/// A session up for so long has taken what is on the wire, milliseconds.
const PROOF_MS: u64 = 10_000;

/// A connection that takes nothing for so long is dead, where no hold time is agreed on.
const SEND_HOLD_MS: u64 = 480_000;

type Dialling = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// What woke the task.
enum Event {
    Io(Role, io::Result<Ready>),
    Dialled(io::Result<TcpStream>),
    Accepted(TcpStream),
    /// The desired state, or what is known of origins, changed.
    Desired,
    Order(Order),
    Policy,
    /// What BFD finds.
    Bfd,
    Word,
    Reported,
    Tick,
}

pub(super) struct PeerTask {
    config: PeerConfig,
    local_as: u32,
    machine: fsm::Peer,
    rib: AdjRibOut,
    origin: Option<OriginCheck>,
    /// When the task's clock showed [`EPOCH`].
    started: Instant,
    connections: [Option<Connection>; 2],
    dialling: Option<Dialling>,
    closing: JoinSet<()>,
    session: Option<(Role, Writer, Negotiated)>,
    status: PeerStatus,
    /// The state that was reported last.
    told: Option<PeerStatus>,
    /// Measures kept back, as of that version of the table.
    kept_back: u32,
    seen_version: u64,
    reports: VecDeque<Observed>,
    updates_received: u64,
    accepted: mpsc::Receiver<TcpStream>,
    orders: mpsc::Receiver<Order>,
    policy: watch::Receiver<Policy>,
    origins: watch::Receiver<rpki::Table>,
    desired: watch::Receiver<Admitted>,
    observed: mpsc::Sender<Observed>,
    word: watch::Receiver<Word>,
    bfd: watch::Receiver<bfd::Status>,
    /// How often BFD had found the path dead when it was last looked at.
    lost: u64,
}

/// What holds for a peer and changes without another session.
#[derive(Clone, PartialEq)]
pub(super) struct Policy {
    pub(super) peer: PeerConfig,
    /// Who is to be the origin of what is announced; not asked for without a cache.
    pub(super) origin_as: Option<u32>,
}

/// The task's ends of what ties it to the rest.
pub(super) struct Ends {
    pub(super) policy: watch::Receiver<Policy>,
    pub(super) origins: watch::Receiver<rpki::Table>,
    pub(super) accepted: mpsc::Receiver<TcpStream>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) desired: watch::Receiver<Admitted>,
    pub(super) observed: mpsc::Sender<Observed>,
    pub(super) word: watch::Receiver<Word>,
    pub(super) bfd: watch::Receiver<bfd::Status>,
}

impl PeerTask {
    pub(super) fn new(start: &PeerStart, seed: u64, memory: &PeerMemory, ends: Ends) -> Self {
        let PeerStart { peer, local_as, router_id, origin_as } = start.clone();
        let secs = peer.graceful_restart_secs;
        let open = OpenSettings {
            asn: local_as,
            hold_secs: peer.hold_time_secs,
            id: router_id,
            families: peer.families.iter().copied().collect(),
            restart_secs: (secs > 0).then_some(secs),
            restarting: true,
            long_lived_secs: (peer.long_lived_restart_secs > 0)
                .then_some(peer.long_lived_restart_secs),
        };
        let mut rib = AdjRibOut::new(peer.reach());
        let clocks = Clocks { now: EPOCH, wall: wall() };
        rib.restore(EPOCH, clocks.recall(&memory.standing), &memory.proven);
        let machine = fsm::Peer::new(fsm::Settings {
            open,
            remote_as: peer.remote_as,
            passive: peer.passive,
            retry_ms: u64::from(peer.connect_retry_secs) * 1000,
            retry_max_ms: RETRY_MAX_MS,
            seed,
        });
        let status = PeerStatus {
            name: peer.name.clone(),
            address: peer.address,
            asn: peer.remote_as,
            state: PeerState::Idle,
            since: wall(),
            families: Vec::new(),
            announced: 0,
            flaps: 0,
            failures: 0,
            last_error: None,
            kept_back: 0,
            rpki: None,
            standing: PeerStanding::default(),
            bfd: None,
        };
        let Ends { policy, origins, accepted, orders, desired, observed, word, bfd } = ends;
        let origin = origin_as.map(|asn| OriginCheck::new(origins.clone(), asn, peer.rpki));
        Self {
            config: peer,
            local_as,
            machine,
            rib,
            origin,
            started: Instant::now(),
            connections: [None, None],
            dialling: None,
            closing: JoinSet::new(),
            session: None,
            status,
            told: None,
            kept_back: 0,
            seen_version: u64::MAX,
            reports: VecDeque::new(),
            updates_received: 0,
            accepted,
            orders,
            policy,
            origins,
            desired,
            observed,
            word,
            bfd,
            lost: 0,
        }
    }

    /// The task's clock, monotonic.
    fn now(&self) -> Millis {
        EPOCH + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Runs until told to end; says what was found out about the peer.
    pub(super) async fn run(mut self) -> PeerMemory {
        self.take_desired();
        self.step(Input::Start);
        let mut word = *self.word.borrow_and_update();
        while word == Word::Run {
            let event = self.wait().await;
            if matches!(event, Event::Word) {
                word = *self.word.borrow_and_update();
            } else {
                self.take(event);
                // A flood of other events must not hold back the timers.
                if self.machine.deadline().is_some_and(|at| at <= self.now()) {
                    self.take(Event::Tick);
                }
                self.settle();
            }
        }
        let memory = self.memory();
        self.end(word).await;
        memory
    }

    /// What a next task is to know of the peer.
    fn memory(&mut self) -> PeerMemory {
        self.update_status();
        let stood = self.session.is_some() && wall().since(self.status.since) >= PROOF_MS;
        PeerMemory {
            standing: self.status.standing.clone(),
            proven: self.rib.on_wire().filter(|_| stood).cloned().collect(),
        }
    }

    async fn wait(&mut self) -> Event {
        let deadline = self.deadline();
        let sleep = tokio::time::sleep_until(deadline.unwrap_or(self.started));
        let [active, passive] = &self.connections;
        tokio::select! {
            biased;
            told = self.word.changed() => {
                if told.is_err() {
                    // Whoever ran weir is gone: leave the routes to graceful restart.
                    let (sender, receiver) = watch::channel(Word::Stop(Stop::Hold));
                    self.word = receiver;
                    drop(sender);
                }
                Event::Word
            }
            ready = ready(active.as_ref()) => Event::Io(Role::Active, ready),
            ready = ready(passive.as_ref()) => Event::Io(Role::Passive, ready),
            Ok(()) = self.policy.changed() => Event::Policy,
            Ok(()) = self.bfd.changed() => Event::Bfd,
            Ok(()) = self.desired.changed() => Event::Desired,
            () = origins_changed(self.origin.as_mut()) => Event::Desired,
            dialled = dialled(self.dialling.as_mut()) => Event::Dialled(dialled),
            Some(stream) = self.accepted.recv() => Event::Accepted(stream),
            Some(order) = self.orders.recv() => Event::Order(order),
            Ok(permit) = self.observed.reserve(), if !self.reports.is_empty() => {
                if let Some(report) = self.reports.pop_front() {
                    permit.send(report);
                }
                Event::Reported
            }
            Some(_) = self.closing.join_next() => Event::Reported,
            () = sleep, if deadline.is_some() => Event::Tick,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let stalled = self
            .connections
            .iter()
            .flatten()
            .filter_map(|c| c.stalled_since().map(|at| at + self.send_hold_ms()));
        let next = [self.machine.deadline(), self.rib.deadline()];
        let at = next.into_iter().flatten().chain(stalled).min()?;
        Some(self.started + Duration::from_millis(at.since(EPOCH)))
    }

    fn send_hold_ms(&self) -> u64 {
        match &self.session {
            Some((_, _, negotiated)) if negotiated.hold_secs > 0 => {
                u64::from(negotiated.hold_secs) * 1000
            }
            _ => SEND_HOLD_MS,
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Io(role, ready) => self.io(role, ready),
            Event::Dialled(Ok(stream)) => {
                self.dialling = None;
                self.connections[Role::Active as usize] = Some(Connection::new(stream));
                self.step(Input::Connected);
            }
            Event::Dialled(Err(error)) => {
                self.dialling = None;
                self.note_failure(format!("cannot connect: {error}"));
                self.step(Input::ConnectFailed);
            }
            Event::Accepted(stream) => {
                if self.connections[Role::Passive as usize].is_none() {
                    self.connections[Role::Passive as usize] = Some(Connection::new(stream));
                    self.step(Input::Accepted);
                }
            }
            Event::Desired => self.take_desired(),
            Event::Order(order) => self.obey(order),
            Event::Policy => self.take_policy(),
            Event::Bfd => self.take_bfd(),
            Event::Tick => {
                let now = self.now();
                let limit = self.send_hold_ms();
                for role in [Role::Active, Role::Passive] {
                    let stalled = self.connections[role as usize]
                        .as_ref()
                        .and_then(Connection::stalled_since);
                    if stalled.is_some_and(|at| now.since(at) >= limit) {
                        // RFC 9687: a peer that takes nothing does not get a NOTIFICATION either.
                        self.step(Input::Closed(role, "the peer takes no data".into()));
                    }
                }
                self.step(Input::Tick);
            }
            Event::Reported | Event::Word => {}
        }
    }

    /// Answers; whoever asked may have hung up.
    fn obey(&mut self, order: Order) {
        match order {
            Order::Show(reply) => {
                self.update_status();
                let kept_back = self.rib.kept_back();
                let _ = reply.send(PeerRoutes {
                    peer: self.status.clone(),
                    announced: self.rib.on_wire().cloned().collect(),
                    kept_back: kept_back
                        .map(|(measure, why)| KeptBack { measure: measure.clone(), why })
                        .collect(),
                });
            }
            Order::Lift(id, reply) => {
                let standing = self.rib.standing();
                let all = standing.banned.iter().chain(&standing.suspected);
                let mut named = all.filter(|d| id.as_ref() == Some(&route_id(&d.measure)));
                let lifted = match (&id, named.next()) {
                    (None, _) => self.rib.lift(None),
                    (Some(_), Some(doubt)) => self.rib.lift(Some(&doubt.measure)),
                    (Some(_), None) => false,
                };
                tracing::info!(peer = %self.config.name, ?id, lifted, "route sent again by order");
                let _ = reply.send(lifted);
            }
        }
    }

    /// Goes on as is configured now: the session stays, and what is written in other words, or was
    /// not for this peer, is written.
    fn take_policy(&mut self) {
        let Policy { peer, origin_as } = self.policy.borrow_and_update().clone();
        tracing::info!(peer = %peer.name, "another policy towards the BGP peer; its session goes on");
        self.config = peer;
        self.machine.set_retry(u64::from(self.config.connect_retry_secs) * 1000);
        match (&mut self.origin, origin_as) {
            (Some(check), Some(asn)) => check.ask_for(asn, self.config.rpki),
            (origin, asn) => {
                let check = |asn| OriginCheck::new(self.origins.clone(), asn, self.config.rpki);
                *origin = asn.map(check);
            }
        }
        let refusals = self.rib.set_reach(self.config.reach());
        self.refuse(refusals);
        if let Some((_, writer, negotiated)) = &mut self.session {
            let next = Writer::new(&self.config, self.local_as, negotiated);
            self.rib.write_again(|key, route| {
                let (key, route) = (key.clone(), route.clone());
                let change = Change::Announce { key, route, replaces: None };
                writer.write(&change).ok() != next.write(&change).ok()
            });
            *writer = next;
        }
        self.take_desired();
    }

    /// Ends a session whose path BFD has found dead; one that is not up yet has nothing to lose.
    fn take_bfd(&mut self) {
        let bfd::Status { shown, lost, .. } = self.bfd.borrow_and_update().clone();
        self.status.bfd = shown;
        if std::mem::replace(&mut self.lost, lost) < lost {
            self.step(Input::PathDown);
        }
    }

    fn take_desired(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        if desired.generation() == 0 {
            return;
        }
        let (admitted, refused) = match &mut self.origin {
            Some(check) => check.admit(&self.config.name, desired.mitigations()),
            None => (Cow::Borrowed(desired.mitigations()), Vec::new()),
        };
        let refusals = self.rib.want(&admitted);
        self.refuse(refused);
        self.refuse(refusals);
    }

    fn refuse(&mut self, refusals: Vec<crate::rib::Refusal>) {
        let at = wall();
        for refusal in refusals {
            self.report_refused(refusal.measure, refusal.why, at);
        }
    }

    fn report_refused(&mut self, measure: Measure, why: String, at: Millis) {
        tracing::warn!(peer = %self.config.name, %measure, why, "measure not for this BGP peer");
        let peer = self.config.name.clone();
        self.reports.push_back(Observed::Refused { peer, measure, at, why });
    }

    fn io(&mut self, role: Role, ready: io::Result<Ready>) {
        let now = self.now();
        let Some(connection) = &mut self.connections[role as usize] else { return };
        let result = ready.and_then(|ready| {
            if ready.is_writable() {
                connection.write(now, &mut self.reports)?;
            }
            if ready.is_readable() || ready.is_read_closed() || ready.is_error() {
                connection.read()
            } else {
                Ok(true)
            }
        });
        // What came before the end still counts: a NOTIFICATION is followed by a close.
        loop {
            let Some(connection) = &mut self.connections[role as usize] else { return };
            match connection.next_message() {
                Ok(Some(message)) => {
                    if matches!(message, crate::wire::Message::Update(_)) {
                        self.updates_received += 1;
                    }
                    self.step(Input::Message(role, message));
                }
                Ok(None) => break,
                Err(notification) => self.step(Input::Malformed(role, notification)),
            }
        }
        match result {
            Ok(true) => {}
            Ok(false) => self.step(Input::Closed(role, "the peer closed it".into())),
            Err(error) => self.step(Input::Closed(role, error.to_string())),
        }
    }

    /// Feeds the machine and does what it says.
    fn step(&mut self, input: Input) {
        let now = self.now();
        let mut out = Vec::new();
        self.machine.handle(now, input, &mut out);
        for output in out {
            self.act(now, output);
        }
    }

    fn act(&mut self, now: Millis, output: Output) {
        match output {
            Output::Dial => self.dialling = Some(Box::pin(listener::dial(self.config.clone()))),
            Output::StopDialling => self.dialling = None,
            Output::Refuse => self.close(Role::Passive),
            Output::Send(role, octets) => {
                if let Some(connection) = &mut self.connections[role as usize] {
                    connection.send(now, &octets);
                }
            }
            Output::Close(role) => self.close(role),
            Output::Up(role, negotiated) => self.up(role, negotiated),
            Output::Down(why) => self.down(&why),
            Output::Failed(why) => self.failed(&why),
            Output::Refresh(family) => {
                tracing::info!(peer = %self.config.name, %family, "BGP peer asks for a refresh");
                self.rib.refresh(family);
            }
        }
    }

    /// A session did not come up.
    fn failed(&mut self, why: &Down) {
        let secret = self.config.password.is_some() || self.config.password_file.is_some();
        let hint = match why {
            // The kernel drops what is signed otherwise, in silence, on either side.
            Down::Unanswered(_) if secret => {
                "; a TCP MD5 password that differs from the peer's looks like this"
            }
            Down::Unanswered(_) => "; a peer that expects a TCP MD5 password looks like this",
            _ => "",
        };
        self.note_failure(format!("{why}{hint}"));
    }

    /// Says why there is no session: loudly when the reason is a new one, a line for each attempt
    /// would tell nothing more.
    fn note_failure(&mut self, why: String) {
        self.status.failures += 1;
        let peer = &self.config.name;
        if self.status.last_error.as_ref() == Some(&why) {
            tracing::debug!(%peer, why, "BGP session did not come up");
        } else {
            tracing::warn!(%peer, why, "BGP session did not come up");
        }
        self.status.last_error = Some(why);
    }

    fn close(&mut self, role: Role) {
        let Some(connection) = self.connections[role as usize].take() else { return };
        if self.closing.len() < CLOSING_MAX {
            self.closing.spawn(connection.linger());
        }
    }

    fn up(&mut self, role: Role, negotiated: Negotiated) {
        tracing::info!(
            peer = %self.config.name,
            address = %self.config.address,
            asn = self.config.remote_as,
            families = ?negotiated.families,
            hold_secs = negotiated.hold_secs,
            "BGP session up"
        );
        self.machine.restarted();
        let refusals = self.rib.up(self.now(), negotiated.families);
        self.refuse(refusals);
        self.status.families = negotiated.families.iter().map(|f| f.to_string()).collect();
        let writer = Writer::new(&self.config, self.local_as, &negotiated);
        self.session = Some((role, writer, negotiated));
    }

    fn down(&mut self, why: &Down) {
        tracing::warn!(
            peer = %self.config.name,
            %why,
            updates_received = self.updates_received,
            "BGP session down"
        );
        self.session = None;
        self.status.flaps += 1;
        self.status.families.clear();
        self.status.last_error = Some(why.to_string());
        let (blame, data) = match why {
            Down::Received(n) => match n.cause() {
                (codes::UPDATE, _, data) => (Blame::Update, data),
                (codes::CEASE, cease::MAX_PREFIXES | cease::RESOURCES, data) => {
                    (Blame::TooMuch, data)
                }
                _ => (Blame::Nothing, &[][..]),
            },
            Down::Closed(_) => (Blame::Silent, &[][..]),
            Down::Sent(_) | Down::Held | Down::Unanswered(_) => (Blame::Nothing, &[][..]),
        };
        let ended = self.rib.down(self.now(), blame, data);
        let at = wall();
        let peer = &self.config.name;
        self.reports.extend(ended.gone.into_iter().map(|measure| Observed::Withdrawn {
            peer: peer.clone(),
            measure,
            at,
        }));
        for refusal in &ended.banned {
            tracing::error!(
                peer = %self.config.name,
                measure = %refusal.measure,
                %why,
                "the BGP peer ended the session over a route; it is not sent for some time"
            );
        }
        for limit in &self.rib.standing().limits {
            let (family, routes) = (limit.family, limit.routes);
            if blame == Blame::TooMuch {
                tracing::error!(
                    peer = %self.config.name,
                    %family,
                    routes,
                    %why,
                    "the BGP peer takes fewer routes than are wanted; those worth most are sent"
                );
            }
        }
        if ended.understood && blame == Blame::TooMuch {
            self.machine.learned(self.now());
        } else if ended.understood {
            // The fault is found: the other routes need not wait for their peer.
            self.machine.pardon(self.now());
        }
        self.refuse(ended.banned);
        self.refuse(ended.left_out);
    }

    /// Writes routes while there is room, and reports the state if it changed.
    fn settle(&mut self) {
        self.write_routes();
        let urgent = self.session.is_none() && self.rib.is_wanted();
        self.machine.set_urgent(self.now(), urgent);
        self.update_status();
        let settled = self.rib.is_settled(self.now());
        let news = self.told.as_ref().is_none_or(|told| {
            // While routes are being written their number is no news.
            let number = if settled { self.status.announced } else { told.announced };
            let now = (self.status.state, number, &self.status.last_error);
            now != (told.state, told.announced, &told.last_error)
                || (self.status.kept_back, self.status.rpki) != (told.kept_back, told.rpki)
                || self.status.standing != told.standing
                || self.status.bfd != told.bfd
        });
        if news {
            self.told = Some(self.status.clone());
            // States that flicker while a peer is away tell nothing twice.
            if let Some(Observed::Peer(last)) = self.reports.back_mut() {
                *last = self.status.clone();
            } else {
                self.reports.push_back(Observed::Peer(self.status.clone()));
            }
        }
    }

    fn update_status(&mut self) {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let state = self.machine.state();
        if state != self.status.state {
            self.status.state = state;
            self.status.since = wall();
        }
        self.status.announced = count(self.rib.announced());
        let version = self.rib.version();
        let changed = self.seen_version != version;
        self.seen_version = version;
        if changed {
            self.kept_back = count(self.rib.kept_back().count());
        }
        self.status.kept_back = self.kept_back;
        self.status.rpki = self.origin.as_ref().map(OriginCheck::state);
        if let Some(RpkiState::Checking { refused }) = self.status.rpki {
            self.status.kept_back = self.status.kept_back.saturating_add(refused);
        }
        if changed {
            let clocks = Clocks { now: self.now(), wall: wall() };
            let standing = clocks.tell(self.rib.standing());
            if !is_same(&standing, &self.status.standing) {
                self.status.standing = standing;
            }
        }
    }

    fn write_routes(&mut self) {
        let now = self.now();
        let flushed = self.session.as_ref().is_some_and(|(role, ..)| {
            self.connections[*role as usize].as_ref().is_some_and(Connection::is_flushed)
        });
        let refusals = self.rib.tick(now, flushed);
        self.refuse(refusals);
        let Some((role, writer, _)) = &self.session else { return };
        let Some(connection) = &mut self.connections[*role as usize] else { return };
        let mut refused = Vec::new();
        while connection.has_room() && self.reports.len() < REPORTS_MAX {
            let Some(change) = self.rib.next_change(now) else { break };
            match writer.write(&change) {
                Ok(octets) => {
                    connection.send(now, &octets);
                    report(&self.config.name, change, connection);
                }
                Err(error) => {
                    if let Change::Announce { route, .. } = change {
                        refused.push((route.measure, error.to_string()));
                    }
                }
            }
        }
        // Try at once: the verdict is to be on the wire now, not after another turn.
        let written = connection.write(now, &mut self.reports);
        let role = *role;
        for (measure, why) in refused {
            self.report_refused(measure, why, wall());
        }
        if let Err(error) = written {
            self.step(Input::Closed(role, error.to_string()));
        }
    }

    async fn end(mut self, word: Word) {
        if word.withdraws() {
            self.rib.clear();
            let _ = tokio::time::timeout(WITHDRAW_WAIT, self.flush()).await;
        }
        let restart = self.session.as_ref().and_then(|(_, _, n)| n.graceful_restart);
        let farewell = match word {
            Word::Run | Word::Stop(Stop::Run | Stop::Hold) => None,
            // A peer that does not keep the routes is told why it loses them.
            Word::Anew if restart.is_some() => None,
            Word::Anew | Word::Instead => {
                Some(Notification::new(codes::CEASE, cease::CONFIG_CHANGE))
            }
            Word::Gone => Some(Notification::new(codes::CEASE, cease::DECONFIGURED)),
            Word::Stop(Stop::Withdraw) => Some(Notification::shutdown("weir stops")),
        };
        // Some keep routes over a NOTIFICATION that is no Hard Reset (RFC 8538 §4).
        let kept = restart.is_some_and(|restart| restart.notification);
        let farewell = farewell.map(|why| if kept { why.hard() } else { why });
        self.step(Input::Stop(farewell));
        self.settle();
        while self.closing.join_next().await.is_some() {}
        while let Some(report) = self.reports.pop_front() {
            let told = match word {
                // The core may be gone already, or wait for us: its queue is not worth a deadlock.
                Word::Run | Word::Stop(_) => self.observed.try_send(report).is_ok(),
                _ => self.observed.send(report).await.is_ok(),
            };
            if !told {
                break;
            }
        }
    }

    /// Goes on until every withdrawal is written.
    async fn flush(&mut self) {
        loop {
            self.settle();
            let Some((role, ..)) = &self.session else { return };
            let written =
                self.connections[*role as usize].as_ref().is_none_or(Connection::is_flushed);
            if self.rib.is_settled(self.now()) && written {
                return;
            }
            match self.wait().await {
                Event::Desired | Event::Policy | Event::Word => {}
                event => self.take(event),
            }
        }
    }
}

/// Whether two tell the same: the clocks drift against each other by a little.
fn is_same(a: &PeerStanding, b: &PeerStanding) -> bool {
    let doubt = |d: &RouteDoubt| (d.id.clone(), d.measure.clone(), d.why.clone(), d.offences);
    let limit = |l: &PeerLimit| (l.family.clone(), l.routes, l.said);
    let doubts = |a: &[RouteDoubt], b: &[RouteDoubt]| a.iter().map(doubt).eq(b.iter().map(doubt));
    doubts(&a.suspected, &b.suspected)
        && doubts(&a.banned, &b.banned)
        && a.limits.iter().map(limit).eq(b.limits.iter().map(limit))
}

/// Queues what becomes true once the change is written.
fn report(peer: &str, change: Change, connection: &mut Connection) {
    let at = wall();
    let peer = peer.to_owned();
    match change {
        Change::Announce { route, replaces, .. } => {
            if let Some(measure) = replaces {
                let peer = peer.clone();
                connection.report_when_written(Observed::Withdrawn { peer, measure, at });
            }
            let measure = route.measure;
            connection.report_when_written(Observed::Announced { peer, measure, at });
        }
        Change::Withdraw { route, .. } => {
            let measure = route.measure;
            connection.report_when_written(Observed::Withdrawn { peer, measure, at });
        }
        Change::EndOfRib(_) => {}
    }
}

async fn ready(connection: Option<&Connection>) -> io::Result<Ready> {
    match connection {
        Some(connection) => connection.ready().await,
        None => std::future::pending().await,
    }
}

async fn origins_changed(origin: Option<&mut OriginCheck>) {
    match origin {
        Some(origin) => origin.changed().await,
        None => std::future::pending().await,
    }
}

async fn dialled(dialling: Option<&mut Dialling>) -> io::Result<TcpStream> {
    match dialling {
        Some(dialling) => dialling.await,
        None => std::future::pending().await,
    }
}

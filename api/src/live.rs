//! One stream of what happens, made from the snapshots alone: the core does nothing for it, and a slow or
//! dead browser costs a place in a ring, never a decision.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{broadcast, oneshot};
use utoipa::ToSchema;
use weir_model::{
    Condition, Direction, Family, Goodput, HostRate, Incident, IncidentId, IncidentState, IpNet,
    Millis, Mitigation, MitigationId, Mode, PeerState, Rate, Reason, Rung, Snapshot, Stance,
    UplinkStatus,
};
use weir_store::health::Trouble;

use crate::app::App;
use crate::routes::traffic::TOP;
use crate::{Question, TrafficSecond};

/// Events kept for readers that come back.
pub(crate) const EVENTS_KEPT: usize = 4096;

/// Events that a slow reader may lag behind before it is told what it lost.
const LAG_MAX: usize = 1024;

/// How often the latest snapshot is looked at: the core makes one a second.
const GLANCE: Duration = Duration::from_millis(200);

macro_rules! topics {
    ($( $(#[doc = $doc:literal])* $name:ident = $id:literal, $state:literal; )*) => {
        /// What an event is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Topic { $( $(#[doc = $doc])* $name, )* }

        impl Topic {
            /// All topics.
            pub(crate) const ALL: &[Self] = &[$( Self::$name, )*];

            /// Stable identifier: the event's name on the stream.
            pub(crate) const fn id(self) -> &'static str {
                match self { $( Self::$name => $id, )* }
            }

            /// Whether the last event says all there is to know, so that a new reader gets it at once.
            const fn is_state(self) -> bool {
                match self { $( Self::$name => $state, )* }
            }
        }
    };
}

topics! {
    /// Once a second: the whole in a few numbers.
    Status = "status", true;
    /// An incident opened, changed or closed.
    Incident = "incident", false;
    /// A mitigation began, changed or ended.
    Mitigation = "mitigation", false;
    /// Once a second: the exporters.
    Exporters = "exporters", true;
    /// A BGP peer changed.
    Peers = "peers", true;
    /// Once a second: the newest second of traffic, and the busiest hosts.
    Traffic = "traffic", true;
}

impl Topic {
    /// The topic of an identifier.
    pub(crate) fn of_id(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|topic| topic.id() == id)
    }
}

/// Something that happened, as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) seq: u64,
    pub(crate) topic: Topic,
    /// Whose traffic it is about; what is about everybody's is not for tenants.
    pub(crate) target: Option<IpNet>,
    pub(crate) data: String,
}

#[derive(Debug, Default)]
struct Ring {
    last: u64,
    recent: VecDeque<Arc<Event>>,
    /// The last event that is no state and no longer here; 0 before the first.
    forgotten: u64,
    latest: HashMap<Topic, Arc<Event>>,
}

/// Where events are published and read.
#[derive(Debug)]
pub(crate) struct Hub {
    /// Tells this run's event ids from another's.
    boot: u64,
    ring: Mutex<Ring>,
    events: broadcast::Sender<Arc<Event>>,
}

/// What a reader begins with.
pub(crate) struct Start {
    /// Events it has not seen.
    pub(crate) backlog: Vec<Arc<Event>>,
    /// Whether some of them are gone.
    pub(crate) lost: bool,
    /// What follows.
    pub(crate) events: broadcast::Receiver<Arc<Event>>,
}

impl Hub {
    pub(crate) fn new(now: Millis) -> Self {
        Self { boot: now.0, ring: Mutex::default(), events: broadcast::channel(LAG_MAX).0 }
    }

    pub(crate) fn publish(&self, topic: Topic, target: Option<IpNet>, what: &impl Serialize) {
        let Ok(data) = serde_json::to_string(what) else { return };
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.last += 1;
        let event = Arc::new(Event { seq: ring.last, topic, target, data });
        if topic.is_state() {
            ring.latest.insert(topic, Arc::clone(&event));
        } else {
            if ring.recent.len() == EVENTS_KEPT {
                ring.forgotten = ring.recent.pop_front().map_or(0, |event| event.seq);
            }
            ring.recent.push_back(Arc::clone(&event));
        }
        // Sent under the lock, so that a reader that starts misses none and sees none twice. Fails
        // when nobody listens.
        let _ = self.events.send(event);
    }

    /// Begins after the event with this id, or with what is true now.
    pub(crate) fn start(&self, after: Option<&str>) -> Start {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let events = self.events.subscribe();
        let state = ring.latest.values().cloned();
        let (mut backlog, lost): (Vec<_>, _) = match after {
            None => (state.collect(), false),
            Some(id) => {
                let seq = id
                    .split_once('-')
                    .filter(|(boot, _)| boot.parse() == Ok(self.boot))
                    .and_then(|(_, seq)| seq.parse::<u64>().ok());
                // Another run's id, or one that is not ours: begin anew and say so.
                let after = seq.unwrap_or(ring.last);
                let lost = seq.is_none() || after < ring.forgotten;
                let missed = ring.recent.iter().filter(|event| event.seq > after).cloned();
                (
                    missed
                        .chain(state.filter(|event| event.seq > after || seq.is_none()))
                        .collect(),
                    lost,
                )
            }
        };
        backlog.sort_by_key(|event| event.seq);
        Start { backlog, lost, events }
    }

    /// The id under which a reader comes back.
    pub(crate) fn id(&self, seq: u64) -> String {
        format!("{}-{seq}", self.boot)
    }
}

/// An incident in a few words: what lists and live views show.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Brief {
    /// Its number.
    id: IncidentId,
    /// Whether it goes on.
    state: IncidentState,
    /// When it opened.
    opened: Millis,
    /// When it ended.
    closed: Option<Millis>,
    /// Host or prefix.
    #[schema(value_type = String)]
    target: IpNet,
    /// Towards or from the target.
    direction: Direction,
    /// Family.
    family: Family,
    /// 0-100.
    confidence: u8,
    /// Traffic now.
    rate: Rate,
    /// Highest so far.
    peak: Rate,
    /// What routers say they discarded, on top of the traffic now.
    discarded: Rate,
    /// How the target's legitimate traffic fares.
    legitimate: Option<Goodput>,
    /// Why.
    reason: Reason,
    /// The rung that stands: in force, proposed or simulated.
    rung: Option<Rung>,
    /// The hardest rung that a router or node was seen to have.
    reached: Option<Rung>,
    /// Held by an operator.
    held: bool,
    /// Mitigations that wait for approval.
    proposed: Vec<MitigationId>,
    /// Mitigations that a router or node has.
    active: usize,
    /// One sentence.
    summary: String,
}

impl Brief {
    pub(crate) fn of(incident: &Incident) -> Self {
        use weir_model::MitigationState::Proposed;
        let verdict = &incident.verdict;
        let proposed = incident.mitigations.iter().filter(|m| m.state == Proposed);
        Self {
            id: incident.id,
            state: incident.state,
            opened: incident.opened,
            closed: incident.closed,
            target: verdict.target,
            direction: verdict.direction,
            family: verdict.family,
            confidence: verdict.confidence,
            rate: verdict.rate,
            peak: verdict.peak,
            discarded: verdict.discarded,
            legitimate: verdict.legitimate,
            reason: verdict.reason.clone(),
            rung: incident.rung,
            reached: incident.reached,
            held: incident.held,
            proposed: proposed.map(|m| m.id).collect(),
            active: incident.mitigations.iter().filter(|m| m.is_in_force()).count(),
            summary: incident.told(),
        }
    }
}

/// The whole in a few numbers.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Overview {
    /// Of when.
    pub(crate) at: Millis,
    /// How far weir acts by itself.
    pub(crate) mode: Mode,
    /// What a person said about it, as far as it outranks the configuration file.
    pub(crate) stance: Option<Stance>,
    /// Incidents that go on.
    pub(crate) incidents_open: usize,
    /// Mitigations in force.
    pub(crate) mitigations_active: usize,
    /// Mitigations that wait for approval.
    pub(crate) mitigations_proposed: usize,
    /// Exporters that sent something in the last 90 seconds.
    pub(crate) exporters_ok: usize,
    /// Exporters that did not.
    pub(crate) exporters_silent: usize,
    /// Exporters whose sampling rate nobody knows: their traffic is counted too low.
    pub(crate) exporters_without_sampling: usize,
    /// BGP sessions that are up.
    pub(crate) peers_up: usize,
    /// BGP sessions configured.
    pub(crate) peers: usize,
    /// Routes that are not sent to a BGP peer because of how sessions ended.
    pub(crate) routes_banned: usize,
    /// Measures kept from a BGP peer because another AS is the origin of their target.
    pub(crate) rpki_refused: usize,
    /// BGP peers whose RPKI data has become too old to be used.
    pub(crate) rpki_lapsed: usize,
    /// Files that do not take what they are given; weir goes on without them.
    pub(crate) store: Vec<StoreTrouble>,
    /// Links out of the network.
    pub(crate) uplinks: Vec<UplinkStatus>,
    /// What is wrong beside attacks: a full uplink, traffic that has vanished, a silent exporter.
    pub(crate) conditions: Vec<Condition>,
}

/// A file that does not take what it is given.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct StoreTrouble {
    /// `state`, `audit` or `history`.
    part: &'static str,
    /// Since when.
    since: Millis,
    /// What it answered last.
    error: String,
    /// Records that wait in memory until it takes them.
    waiting: usize,
}

impl From<Trouble> for StoreTrouble {
    fn from(trouble: Trouble) -> Self {
        let Trouble { part, since, error, waiting } = trouble;
        Self { part: part.id(), since, error, waiting }
    }
}

/// An exporter that is silent for longer is reported.
const SILENT_MS: u64 = 90_000;

impl Overview {
    pub(crate) fn of(snapshot: &Snapshot, troubles: Vec<Trouble>) -> Self {
        use weir_model::{MitigationState, RpkiState, SamplingSource};
        let exporters = &snapshot.exporters;
        let ok = |seen: Millis| snapshot.at.since(seen) < SILENT_MS;
        let exporters_ok = exporters.iter().filter(|e| ok(e.last_seen)).count();
        let unknown =
            |e: &&weir_model::ExporterStatus| e.sampling_source == SamplingSource::Unknown;
        let proposed = |m: &&Mitigation| m.state == MitigationState::Proposed;
        let open = |i: &&Arc<Incident>| i.state == IncidentState::Open;
        let up = |p: &&weir_model::PeerStatus| p.state == PeerState::Established;
        let lapsed = |p: &&weir_model::PeerStatus| p.rpki == Some(RpkiState::Lapsed);
        let refused = |p: &weir_model::PeerStatus| match p.rpki {
            Some(RpkiState::Checking { refused }) => usize::try_from(refused).unwrap_or(usize::MAX),
            _ => 0,
        };
        Self {
            at: snapshot.at,
            mode: snapshot.mode,
            stance: snapshot.stance.clone(),
            incidents_open: snapshot.incidents.iter().filter(open).count(),
            mitigations_active: snapshot.desired.mitigations.len(),
            mitigations_proposed: snapshot.mitigations.iter().filter(proposed).count(),
            exporters_ok,
            exporters_silent: exporters.len() - exporters_ok,
            exporters_without_sampling: exporters.iter().filter(unknown).count(),
            peers_up: snapshot.peers.iter().filter(up).count(),
            peers: snapshot.peers.len(),
            routes_banned: snapshot.peers.iter().map(|p| p.standing.banned.len()).sum(),
            rpki_refused: snapshot.peers.iter().map(refused).max().unwrap_or(0),
            rpki_lapsed: snapshot.peers.iter().filter(lapsed).count(),
            store: troubles.into_iter().map(StoreTrouble::from).collect(),
            uplinks: snapshot.uplinks.clone(),
            conditions: snapshot.conditions.now.clone(),
        }
    }
}

/// A second of traffic as it is told.
#[derive(Serialize)]
struct Told<'a> {
    second: &'a TrafficSecond,
    top: &'a [HostRate],
}

/// Asks for the seconds that have passed and publishes them.
async fn follow_traffic(app: &App, after: &mut Millis) {
    let Some(questions) = &app.inner.handles.questions else { return };
    let (reply, answer) = oneshot::channel();
    let question = Question::Traffic { after: *after, hosts: TOP, reply };
    // A queue that is full means a second that is told late.
    if questions.try_send(question).is_err() {
        return;
    }
    let Ok(traffic) = answer.await else { return };
    for second in &traffic.seconds {
        if *after > Millis(0) {
            app.inner.live.publish(Topic::Traffic, None, &Told { second, top: &traffic.top });
        }
        *after = second.at;
    }
}

/// Compares each snapshot with the one before and publishes what changed.
pub(crate) async fn follow(app: App) {
    let mut glance = tokio::time::interval(GLANCE);
    let mut told = Millis(0);
    let mut before = Arc::new(Snapshot::default());
    let mut known = HashMap::new();
    loop {
        glance.tick().await;
        let now = app.inner.handles.snapshot.load_full();
        if Arc::ptr_eq(&now, &before) {
            continue;
        }
        compare(&app.inner.live, &before, &now, app.troubles(), &mut known);
        before = now;
        follow_traffic(&app, &mut told).await;
    }
}

fn compare(
    hub: &Hub,
    before: &Snapshot,
    now: &Snapshot,
    troubles: Vec<Trouble>,
    known: &mut HashMap<IncidentId, Arc<Incident>>,
) {
    hub.publish(Topic::Status, None, &Overview::of(now, troubles));
    for incident in now.incidents.iter().rev() {
        let same = known
            .get(&incident.id)
            .is_some_and(|old| Arc::ptr_eq(old, incident) || Brief::of(old) == Brief::of(incident));
        if !same {
            let target = Some(incident.verdict.target);
            hub.publish(Topic::Incident, target, &Brief::of(incident));
        }
    }
    *known = now.incidents.iter().map(|incident| (incident.id, Arc::clone(incident))).collect();
    let old: HashMap<MitigationId, &Mitigation> =
        before.mitigations.iter().map(|m| (m.id, m)).collect();
    for mitigation in now.mitigations.iter().rev() {
        if old.get(&mitigation.id) != Some(&mitigation) {
            hub.publish(Topic::Mitigation, Some(mitigation.measure.target()), mitigation);
        }
    }
    if now.exporters != before.exporters {
        hub.publish(Topic::Exporters, None, &now.exporters);
    }
    if now.peers != before.peers {
        hub.publish(Topic::Peers, None, &now.peers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seqs(start: &Start) -> Vec<u64> {
        start.backlog.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn a_reader_that_comes_back_gets_what_it_missed() {
        let hub = Hub::new(Millis(7));
        for n in 0..6 {
            let topic = if n % 2 == 0 { Topic::Status } else { Topic::Incident };
            hub.publish(topic, None, &n);
        }
        let fresh = hub.start(None);
        assert_eq!((seqs(&fresh), fresh.lost), (vec![5], false), "the state as it is");
        let back = hub.start(Some("7-2"));
        assert_eq!((seqs(&back), back.lost), (vec![4, 5, 6], false));
        let other_run = hub.start(Some("6-2"));
        assert_eq!((seqs(&other_run), other_run.lost), (vec![5], true));
        assert!(hub.start(Some("nonsense")).lost);
        assert_eq!(hub.id(3), "7-3");
    }

    #[test]
    fn what_is_too_old_is_called_lost() {
        let hub = Hub::new(Millis(7));
        for n in 0..EVENTS_KEPT + 10 {
            hub.publish(Topic::Incident, None, &n);
        }
        let back = hub.start(Some("7-5"));
        assert!(back.lost);
        assert_eq!(back.backlog.len(), EVENTS_KEPT);
        assert!(!hub.start(Some("7-10")).lost);
        // Of states only the present one is kept, and nothing is lost by that.
        let hub = Hub::new(Millis(7));
        hub.publish(Topic::Incident, None, &0);
        for n in 0..3 {
            hub.publish(Topic::Peers, None, &n);
        }
        for n in 0..EVENTS_KEPT {
            hub.publish(Topic::Incident, None, &n);
        }
        assert!(!hub.start(Some("7-1")).lost, "only what the reader has is gone");
        hub.publish(Topic::Incident, None, &0);
        assert!(hub.start(Some("7-1")).lost);
    }
}

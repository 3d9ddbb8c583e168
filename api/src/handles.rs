//! The API's only ways to the rest of weir: what it reads, what it sends, what it asks.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;
use weir_model::{
    Class, Command, CommandError, DryRun, HostBaselines, HostRate, IpNet, Millis, MitigationId,
    PeerProbe, PeerRoutes, Rate, Snapshot,
};
use weir_store::Health;
use weir_store::history::{Point, Step};

use crate::{Metrics, allow, nodes, panels, settings};

/// A command and where its outcome goes.
#[derive(Debug)]
pub struct Request {
    /// What is asked.
    pub command: Command,
    /// Receives the outcome; may have hung up.
    pub reply: oneshot::Sender<Result<Option<MitigationId>, CommandError>>,
}

/// A question about traffic, and where its answer goes.
#[derive(Debug)]
pub enum Question {
    /// The busiest hosts, busiest first.
    Busiest {
        /// How many at most.
        limit: usize,
        /// By packets; by bits otherwise.
        by_packets: bool,
        /// Inside these prefixes; empty means anywhere.
        within: Vec<IpNet>,
        /// Receives the answer.
        reply: oneshot::Sender<Vec<HostRate>>,
    },
    /// A host's baselines and thresholds.
    Baselines {
        /// The host.
        host: IpAddr,
        /// Receives the answer; `None` when the host was never seen.
        reply: oneshot::Sender<Option<HostBaselines>>,
    },
    /// The series of a host, or of an IPv4 /24 or IPv6 /48, oldest first.
    Series {
        /// Which.
        net: IpNet,
        /// Grain.
        step: Step,
        /// First instant.
        from: Millis,
        /// End, not included.
        to: Millis,
        /// Receives the answer.
        reply: oneshot::Sender<Vec<Point>>,
    },
    /// The last seconds of everything protected.
    Traffic {
        /// Only what is newer.
        after: Millis,
        /// Busiest hosts of the newest second, at most so many.
        hosts: usize,
        /// Receives the answer.
        reply: oneshot::Sender<Traffic>,
    },
}

/// A question to what decides and what tells others, and where its answer goes.
#[derive(Debug)]
pub enum Ask {
    /// What a command would change.
    DryRun {
        /// The command.
        command: Box<Command>,
        /// Receives the answer.
        reply: oneshot::Sender<Result<DryRun, CommandError>>,
    },
    /// What webhooks were told.
    Deliveries {
        /// Receives the answer.
        reply: oneshot::Sender<Deliveries>,
    },
    /// A test of a BGP peer, which announces nothing.
    ProbePeer {
        /// Its name.
        name: String,
        /// Receives what was found; `None` when there is no such peer. Dropped while another test runs.
        reply: oneshot::Sender<Option<PeerProbe>>,
    },
    /// What a BGP peer has, and what it has not and why.
    ShowPeer {
        /// Its name.
        name: String,
        /// Receives the answer; `None` when there is no such peer.
        reply: oneshot::Sender<Option<PeerRoutes>>,
    },
    /// Forget what was concluded of a peer's route, so that it is sent again.
    LiftPeer {
        /// Its name.
        name: String,
        /// The route's number; all of them, and limits, when absent.
        route: Option<String>,
        /// Receives whether there was anything; `None` when there is no such peer.
        reply: oneshot::Sender<Option<bool>>,
    },
    /// Forget what was learned of whoever exports from an address.
    ForgetExporter {
        /// The address.
        address: IpAddr,
        /// Receives that it was passed on.
        reply: oneshot::Sender<()>,
    },
    /// A test message to a webhook or channel.
    TestHook {
        /// Its name.
        name: String,
        /// Receives the delivery's number; `None` when there is no such webhook.
        reply: oneshot::Sender<Option<u64>>,
    },
    /// How it goes with everybody who is told something.
    Channels {
        /// Receives the answer.
        reply: oneshot::Sender<Channels>,
    },
    /// Puts a dead letter back into the queue.
    Resend {
        /// Its number.
        delivery: u64,
        /// Receives whether there is one, and somebody to tell.
        reply: oneshot::Sender<bool>,
    },
    /// Keeps channels quiet for a while.
    Mute {
        /// What and how long.
        mute: Muted,
        /// Receives whether there is such a channel, and room for another mute.
        reply: oneshot::Sender<bool>,
    },
}

/// Everybody who is told something.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Channels {
    /// Webhooks and channels, by name.
    pub channels: Vec<Channel>,
    /// Messages that nobody took, newest first.
    pub dead: Vec<Dead>,
    /// What is muted.
    pub mutes: Vec<Muted>,
}

/// A webhook or channel.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// What it is: `webhook`, `discord`, `mail`, ...
    pub service: String,
    /// Whether it is told anything beside tests.
    pub enabled: bool,
    /// Messages that wait or are under way.
    pub waiting: usize,
    /// Conversations that are not over.
    pub conversations: usize,
    /// Failures in a row.
    pub failures: u32,
    /// Why the last message was not taken; empty when it was.
    pub trouble: String,
    /// Nothing is sent before this.
    pub until: Option<Millis>,
}

/// A message that nobody took.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Dead {
    /// Its number.
    pub id: u64,
    /// To whom it was to go.
    pub to: String,
    /// What about.
    pub event: String,
    /// When it was given up.
    pub at: Millis,
    /// Tries made.
    pub tries: u32,
    /// Why.
    pub why: String,
}

/// Channels that are quiet for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Muted {
    /// Which channel; all when absent.
    pub channel: Option<String>,
    /// Attacks on which group; all when absent.
    pub group: Option<String>,
    /// Until when.
    pub until: Millis,
    /// Who said so.
    pub by: String,
}

/// What webhooks were told, newest first.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Deliveries {
    /// Ended deliveries.
    pub deliveries: Vec<Delivery>,
    /// Deliveries that wait or are under way.
    pub waiting: usize,
    /// Deliveries dropped since the start because too many waited.
    pub dropped: u64,
    /// Scrubbing services and prefixes that they have not agreed about after all retries.
    pub stuck: Vec<String>,
}

/// One delivery.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Delivery {
    /// Its number.
    pub id: u64,
    /// To which webhook.
    pub to: String,
    /// What about.
    pub event: String,
    /// When it was queued.
    pub queued: Millis,
    /// When it ended.
    pub ended: Millis,
    /// Tries made.
    pub tries: u32,
    /// Whether the receiver took it.
    pub taken: bool,
    /// How the last try ended.
    pub outcome: String,
    /// The beginning of what the receiver said.
    pub said: String,
}

/// One second of traffic towards everything protected.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct TrafficSecond {
    /// Its beginning.
    pub at: Millis,
    /// By class: TCP SYN, TCP SYN-ACK, TCP RST, other TCP, UDP, ICMP, later fragments, other.
    #[schema(value_type = Vec<Rate>)]
    pub classes: [Rate; Class::COUNT],
    /// Of all this, what goes to declared services.
    pub services: Rate,
    /// What routers say they discarded, on top of all this.
    pub discarded: Rate,
}

/// The last seconds of everything protected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Traffic {
    /// Oldest first.
    pub seconds: Vec<TrafficSecond>,
    /// The busiest hosts of the newest second, busiest first.
    pub top: Vec<HostRate>,
}

/// What does not change while weir runs.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// When weir started.
    pub started: Millis,
    /// Sockets that take flows, as bound.
    pub flow_listeners: Vec<SocketAddr>,
}

/// The API's only handles on the rest of weir.
#[derive(Clone, Debug)]
pub struct Handles {
    /// The latest snapshot, replaced whole by the core.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where commands go.
    pub commands: mpsc::Sender<Request>,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Whether listeners are bound and the first desired state is out.
    pub ready: Arc<AtomicBool>,
    /// Whether the files take what they are given.
    pub health: Arc<Health>,
    /// Where questions about traffic go; none where nobody can answer.
    pub questions: Option<mpsc::Sender<Question>>,
    /// What does not change while weir runs.
    pub facts: Arc<Facts>,
    /// Nodes with agents; none where agents are not awaited.
    pub agents: Option<Arc<dyn nodes::Nodes>>,
    /// Game panels; none where none is configured.
    pub panels: Option<Arc<dyn panels::Desk>>,
    /// Lists of far ends that are wanted.
    pub allow: Arc<dyn allow::Desk>,
    /// What may be set while weir runs.
    pub settings: Arc<dyn settings::Desk>,
    /// Where other questions go; none where nobody can answer.
    pub asks: Option<mpsc::Sender<Ask>>,
    /// Socket of the archive of flow records; empty where there is none.
    pub flows: PathBuf,
}

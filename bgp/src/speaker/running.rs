//! The tasks of a running speaker, and how they follow another configuration: only what changed is
//! touched, and a session only where it takes another one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use weir_model::Observed;

use super::listener::{self, Route as ListenerRoute};
use super::peer::{self, PeerTask, Policy};
use super::prepared::{Listener, Prepared};
use super::standing::PeerMemory;
use super::{Desk, SpeakerError, Stop, Word, wall};
use crate::adapter::{self, AdapterConfig};
use crate::bfd;
use crate::config::{Config, PeerConfig};
use crate::guard::Admitted;
use crate::rpki;

/// Connections accepted for one peer and not yet looked at.
const ACCEPTED_MAX: usize = 4;

/// Everything that runs.
pub(super) struct Running {
    desired: watch::Receiver<Admitted>,
    observed: mpsc::Sender<Observed>,
    desk: Desk,
    /// What was found out about peers that do not run.
    memory: BTreeMap<String, PeerMemory>,
    config: Option<Config>,
    tasks: JoinSet<Ended>,
    live: BTreeMap<String, Live>,
    /// What starts once whoever is in its way has ended, by name.
    waiting: BTreeMap<String, Start>,
    /// How many tasks were started: no two dial in step.
    started: u64,
    origins: watch::Sender<rpki::Table>,
    /// The cache is asked also while there is no peer.
    _wanted: watch::Receiver<rpki::Table>,
    /// What keeps the table, and from which cache.
    cache: Option<(std::net::SocketAddr, AbortHandle)>,
    routes: watch::Sender<Vec<ListenerRoute>>,
    listener: Option<(std::net::TcpListener, AbortHandle)>,
    helpers: JoinSet<()>,
    /// BFD's thread, while a peer asks for it.
    bfd: Option<bfd::Hub>,
}

/// A task that has ended, and what it had found out.
struct Ended {
    name: String,
    memory: Option<PeerMemory>,
}

/// A running task.
struct Live {
    word: watch::Sender<Word>,
    is_ending: bool,
    kind: Kind,
}

enum Kind {
    Peer { runs: Box<PeerStart>, policy: watch::Sender<Policy>, bfd: watch::Sender<bfd::Status> },
    Adapter { config: watch::Sender<AdapterConfig> },
}

/// What is to run.
enum Start {
    Peer(Box<PeerStart>),
    Adapter(Box<AdapterConfig>),
}

/// A peer with what it has from the whole configuration.
#[derive(Clone)]
pub(super) struct PeerStart {
    pub(super) peer: PeerConfig,
    pub(super) local_as: u32,
    pub(super) router_id: Ipv4Addr,
    pub(super) origin_as: Option<u32>,
}

impl PeerStart {
    fn all(config: &Config) -> impl Iterator<Item = Self> + '_ {
        let origin_as = config.rpki.as_ref().map(|rpki| rpki.origin_as.unwrap_or(config.local_as));
        config.peers.iter().map(move |peer| Self {
            peer: peer.clone(),
            local_as: config.local_as_of(peer),
            router_id: config.router_id,
            origin_as,
        })
    }

    /// What the running task is told, so that the other takes its place; `None` when it goes on.
    fn ends_for(&self, next: &Self) -> Option<Word> {
        let (own, other) = (&self.peer, &next.peer);
        if (self.local_as, self.router_id) == (next.local_as, next.router_id)
            && !own.needs_another_session(other)
        {
            return None;
        }
        let same = (own.address, own.port, own.remote_as, self.local_as)
            == (other.address, other.port, other.remote_as, next.local_as);
        let kept = own.graceful_restart_secs > 0 && other.graceful_restart_secs > 0;
        Some(if same && kept { Word::Anew } else { Word::Instead })
    }

    fn policy(&self) -> Policy {
        Policy { peer: self.peer.clone(), origin_as: self.origin_as }
    }
}

impl Start {
    fn all(config: Option<&Config>) -> BTreeMap<String, Self> {
        let mut all = BTreeMap::new();
        for start in config.into_iter().flat_map(PeerStart::all) {
            all.insert(start.peer.name.clone(), Self::Peer(Box::new(start)));
        }
        for adapter in config.into_iter().flat_map(|config| &config.adapters) {
            all.insert(adapter.name.clone(), Self::Adapter(Box::new(adapter.clone())));
        }
        all
    }

    fn address(&self) -> Option<(IpAddr, u16)> {
        match self {
            Self::Peer(start) => Some((start.peer.address, start.peer.port)),
            Self::Adapter(_) => None,
        }
    }
}

impl Live {
    fn end(&mut self, word: Word) {
        self.is_ending = true;
        self.word.send_replace(word);
    }

    fn address(&self) -> Option<(IpAddr, u16)> {
        match &self.kind {
            Kind::Peer { runs, .. } => Some((runs.peer.address, runs.peer.port)),
            Kind::Adapter { .. } => None,
        }
    }

    /// Goes on as `next` says, or is told to end.
    fn follow(&mut self, next: &Start) {
        match (&mut self.kind, next) {
            (Kind::Peer { runs, policy, .. }, Start::Peer(next)) => match runs.ends_for(next) {
                Some(word) => {
                    tracing::info!(peer = %next.peer.name, "BGP session is opened anew: its parameters have changed");
                    self.end(word);
                }
                None => {
                    runs.clone_from(next);
                    let next = next.policy();
                    policy.send_if_modified(|policy| {
                        let new = *policy != next;
                        *policy = next;
                        new
                    });
                }
            },
            (Kind::Adapter { config }, Start::Adapter(next)) => {
                if config.borrow().is_another_daemon(next) {
                    self.end(Word::Instead);
                } else {
                    config.send_if_modified(|config| {
                        let new = config != &**next;
                        config.clone_from(next);
                        new
                    });
                }
            }
            _ => self.end(Word::Instead),
        }
    }
}

impl Running {
    pub(super) fn new(
        desired: watch::Receiver<Admitted>,
        observed: mpsc::Sender<Observed>,
        desk: Desk,
        memory: BTreeMap<String, PeerMemory>,
        origins: watch::Sender<rpki::Table>,
    ) -> Self {
        let wanted = origins.subscribe();
        Self {
            desired,
            observed,
            desk,
            memory,
            config: None,
            tasks: JoinSet::new(),
            live: BTreeMap::new(),
            waiting: BTreeMap::new(),
            started: 0,
            origins,
            _wanted: wanted,
            cache: None,
            routes: watch::Sender::new(Vec::new()),
            listener: None,
            helpers: JoinSet::new(),
            bfd: None,
        }
    }

    pub(super) async fn run(
        mut self,
        changes: Option<mpsc::Receiver<Prepared>>,
        mut stop: watch::Receiver<Stop>,
    ) -> Result<(), SpeakerError> {
        let mut changes = changes;
        let mut stopping = false;
        while !(stopping && self.tasks.is_empty()) {
            tokio::select! {
                biased;
                stopped = stop.wait_for(|stop| *stop != Stop::Run), if !stopping => {
                    // Whoever ran weir is gone: leave the routes to graceful restart.
                    let word = stopped.map_or(Stop::Hold, |stop| *stop);
                    stopping = true;
                    self.waiting.clear();
                    for live in self.live.values_mut() {
                        live.end(Word::Stop(word));
                    }
                }
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(Ended { name, memory }) => {
                        self.desk.close(&name);
                        let was = self.live.remove(&name).map(|live| *live.word.borrow());
                        // What was found out about another router says nothing of the next.
                        let memory = memory.filter(|_| was != Some(Word::Instead));
                        self.memory.extend(memory.map(|memory| (name, memory)));
                        self.start_what_can();
                        self.watch_paths();
                    }
                    // A fault of weir: its end is seen, and it is started again.
                    Err(_) => return Err(SpeakerError::Task),
                },
                Some(next) = next(changes.as_mut()), if !stopping => self.change(next),
            }
        }
        self.helpers.shutdown().await;
        Ok(())
    }

    /// Puts another configuration in force.
    pub(super) fn change(&mut self, Prepared { config, listener }: Prepared) {
        let before = std::mem::replace(&mut self.config, config);
        self.listen(listener, before.as_ref());
        self.ask_cache();
        let mut next = Start::all(self.config.as_ref());
        self.memory.retain(|name, _| next.contains_key(name));
        for (name, live) in self.live.iter_mut().filter(|(_, live)| !live.is_ending) {
            match next.get(name) {
                Some(start) => live.follow(start),
                None => live.end(Word::Gone),
            }
            if !live.is_ending {
                next.remove(name);
            }
        }
        self.waiting = next;
        self.start_what_can();
        self.watch_paths();
    }

    fn listen(&mut self, listener: Listener, before: Option<&Config>) {
        match listener {
            Listener::Other(socket) => {
                if let Some((_, accepting)) = self.listener.take() {
                    accepting.abort();
                }
                let both = socket.map(|socket| {
                    let listener = TcpListener::from_std(socket.try_clone()?)?;
                    std::io::Result::Ok((socket, listener))
                });
                match both.transpose() {
                    Ok(None) => {}
                    Ok(Some((socket, listener))) => {
                        let routes = self.routes.subscribe();
                        let accepting = self.helpers.spawn(listener::accept(listener, routes));
                        self.listener = Some((socket, accepting));
                    }
                    Err(error) => tracing::error!(%error, "peers cannot dial: no more descriptors"),
                }
            }
            Listener::Same => {
                let Some((socket, _)) = &self.listener else { return };
                let peers = |config: Option<&Config>| {
                    config.map(|config| config.peers.clone()).unwrap_or_default()
                };
                let (old, new) = (peers(before), peers(self.config.as_ref()));
                let ipv6 = socket.local_addr().is_ok_and(|address| address.is_ipv6());
                if let Err(error) = listener::sign(socket, ipv6, &old, &new) {
                    tracing::error!(%error, "TCP MD5: peers whose password has changed cannot dial");
                }
            }
        }
    }

    /// Keeps the table of origins from the configured cache. What another cache said counts until
    /// the new one has answered, or has not for too long.
    fn ask_cache(&mut self) {
        let wanted = self.config.as_ref().and_then(|config| config.rpki.as_ref());
        let wanted = wanted.map(|rpki| rpki.cache);
        if wanted == self.cache.as_ref().map(|(cache, _)| *cache) {
            return;
        }
        if let Some((_, asking)) = self.cache.take() {
            asking.abort();
        }
        match wanted {
            Some(cache) => {
                let asking = self.helpers.spawn(rpki::run(cache, self.origins.clone()));
                self.cache = Some((cache, asking));
            }
            None => drop(self.origins.send_replace(rpki::Table::default())),
        }
    }

    /// Has BFD watch the path to those peers that run and ask for it, and to no others.
    fn watch_paths(&mut self) {
        let mut wanted = Vec::new();
        for live in self.live.values().filter(|live| !live.is_ending) {
            let Kind::Peer { runs, bfd, .. } = &live.kind else { continue };
            if let Some(config) = runs.peer.bfd {
                wanted.push((runs.peer.address, runs.peer.local_address, config, bfd.clone()));
            }
        }
        if wanted.is_empty() {
            // Its last words go to every peer.
            self.bfd = None;
            return;
        }
        if self.bfd.is_none() {
            match bfd::Hub::start(wall().0) {
                Ok(hub) => self.bfd = Some(hub),
                Err(error) => tracing::error!(%error, "BFD does not run: no thread for it"),
            }
        }
        let Some(hub) = &self.bfd else { return };
        hub.keep(wanted.iter().map(|(peer, ..)| *peer).collect());
        for (peer, local, config, told) in wanted {
            hub.watch(peer, local, config, told);
        }
    }

    /// Starts what waits, unless one of the same name or with the same neighbour is still ending.
    fn start_what_can(&mut self) {
        for (name, start) in std::mem::take(&mut self.waiting) {
            let address = start.address();
            let in_the_way = self.live.iter().any(|(other, live)| {
                *other == name || address.is_some() && live.address() == address
            });
            if in_the_way {
                self.waiting.insert(name, start);
            } else {
                self.start(name, start);
            }
        }
        self.routes.send_modify(|routes| routes.retain(ListenerRoute::is_open));
    }

    fn start(&mut self, name: String, start: Start) {
        self.started += 1;
        let (word, heard) = watch::channel(Word::Run);
        let kind = match start {
            Start::Peer(runs) => {
                let (policy, policies) = watch::channel(runs.policy());
                let (sender, accepted) = mpsc::channel::<TcpStream>(ACCEPTED_MAX);
                let route = ListenerRoute::new(&runs.peer, sender);
                self.routes.send_modify(|routes| routes.push(route));
                let memory = self.memory.remove(&name).unwrap_or_default();
                let (bfd, paths) = watch::channel(bfd::Status::default());
                let ends = peer::Ends {
                    policy: policies,
                    origins: self.origins.subscribe(),
                    accepted,
                    orders: self.desk.open(&name),
                    desired: self.desired.clone(),
                    observed: self.observed.clone(),
                    word: heard,
                    bfd: paths,
                };
                let task = PeerTask::new(&runs, wall().0 ^ self.started << 32, &memory, ends);
                let name = name.clone();
                self.tasks.spawn(async move { Ended { name, memory: Some(task.run().await) } });
                Kind::Peer { runs, policy, bfd }
            }
            Start::Adapter(adapter) => {
                let (config, configs) = watch::channel(*adapter);
                let (desired, observed) = (self.desired.clone(), self.observed.clone());
                let name = name.clone();
                self.tasks.spawn(async move {
                    adapter::run(configs, desired, observed, heard).await;
                    Ended { name, memory: None }
                });
                Kind::Adapter { config }
            }
        };
        self.live.insert(name, Live { word, is_ending: false, kind });
    }
}

/// The next configuration; none ever comes where nobody can send one.
async fn next(changes: Option<&mut mpsc::Receiver<Prepared>>) -> Option<Prepared> {
    match changes {
        Some(changes) => changes.recv().await,
        None => std::future::pending().await,
    }
}

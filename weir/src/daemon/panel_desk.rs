//! What the API sees of the panels, and what it may ask of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use crossbeam_channel::Sender;
use serde::Serialize;
use tracing::warn;
use weir_api::panels::{self, Refusal};
use weir_config::Config;
use weir_model::{PanelNode, PanelOrder, PanelPort, PanelServer, PanelStatus};
use weir_panel::owner::{Portal, Share};
use weir_panel::runner::{Command, PanelState, Update};
use weir_panel::{AllocationView, PanelConfig, PanelSnapshot, Unmapped};

use super::now;
use super::owners::{Owners, chance};
use super::panels::Panels;
use super::store_thread::Work;

/// The desk: empty until the synchronisation runs, because the API starts before it.
#[derive(Debug)]
pub(crate) struct Desk {
    configured: ArcSwap<Vec<PanelConfig>>,
    /// Whether there are pages for owners.
    pages: AtomicBool,
    store: Sender<Work>,
    running: OnceLock<Running>,
}

#[derive(Debug)]
struct Running {
    latest: Arc<ArcSwap<Update>>,
    commands: Sender<Command>,
    portal: Arc<Mutex<Portal>>,
}

impl Desk {
    pub(crate) fn new(config: &Config, store: Sender<Work>) -> Self {
        let (configured, pages) = (ArcSwap::default(), AtomicBool::new(false));
        let desk = Self { configured, pages, store, running: OnceLock::new() };
        desk.configure(config);
        desk
    }

    /// Goes by another configuration.
    pub(crate) fn configure(&self, config: &Config) {
        self.configured.store(Arc::new(config.panels.clone()));
        self.pages.store(config.owners.is_some(), Ordering::Relaxed);
    }

    fn is_configured(&self, panel: &str) -> bool {
        self.configured.load().iter().any(|configured| configured.name == panel)
    }

    /// Called once, when the synchronisation runs.
    pub(crate) fn open(&self, panels: &Panels, owners: &Owners) {
        let portal = Arc::clone(&owners.portal);
        let running = Running { latest: panels.shared(), commands: panels.commands(), portal };
        // A second call would change nothing.
        let _ = self.running.set(running);
    }

    fn running(&self) -> Result<&Running, Refusal> {
        self.running.get().ok_or(Refusal::Busy)
    }

    fn portal(&self) -> Result<&Arc<Mutex<Portal>>, Refusal> {
        let running = self.running()?;
        let pages = self.pages.load(Ordering::Relaxed);
        pages.then_some(&running.portal).ok_or(Refusal::NoPages)
    }

    fn snapshot(&self, panel: &str) -> Result<Option<Arc<PanelSnapshot>>, Refusal> {
        let update = self.running()?.latest.load();
        let state = update.panels.iter().find(|state| state.name == panel);
        Ok(state.ok_or(Refusal::Unknown)?.snapshot.clone())
    }

    /// Links outlive this run: the store keeps their hashes.
    fn keep(&self, portal: &mut Portal) {
        let shares = Box::new(portal.links().shares().clone());
        if self.store.try_send(Work::Shares(now(), shares)).is_err() {
            warn!("a shared link will not outlive this run: the store is busy");
        }
    }
}

impl panels::Desk for Desk {
    fn panels(&self) -> Vec<PanelStatus> {
        let update = self.running.get().map(|running| running.latest.load_full());
        let state = |name: &str| {
            update.as_ref().and_then(|update| update.panels.iter().find(|p| p.name == name))
        };
        self.configured.load().iter().map(|panel| status(panel, state(&panel.name))).collect()
    }

    fn servers(&self, panel: &str) -> Option<Vec<PanelServer>> {
        if !self.is_configured(panel) {
            return None;
        }
        let snapshot = self.snapshot(panel).ok().flatten();
        Some(snapshot.map(|snapshot| servers(&snapshot)).unwrap_or_default())
    }

    fn order(&self, panel: &str, order: PanelOrder) -> Result<(), Refusal> {
        if !self.is_configured(panel) {
            return Err(Refusal::Unknown);
        }
        let command = match order {
            PanelOrder::Sync => Command::Hint(Some(panel.to_owned())),
            PanelOrder::Accept => Command::Accept(panel.to_owned()),
        };
        self.running()?.commands.try_send(command).map_err(|_| Refusal::Busy)
    }

    fn share(&self, panel: &str, server: &str, by: &str) -> Result<String, Refusal> {
        let portal = self.portal()?;
        let snapshot = self.snapshot(panel)?.ok_or(Refusal::Unknown)?;
        if !snapshot.servers.iter().any(|known| known.uuid == server) {
            return Err(Refusal::Unknown);
        }
        let share = Share {
            panel: panel.to_owned(),
            server: server.to_owned(),
            made: now(),
            by: by.to_owned(),
        };
        let random = chance().ok_or(Refusal::Busy)?;
        let mut portal = portal.lock().unwrap_or_else(PoisonError::into_inner);
        let token = portal.links().share(share, random);
        self.keep(&mut portal);
        Ok(portal.share_url(token.reveal()))
    }

    fn unshare(&self, panel: &str, server: &str) -> Result<usize, Refusal> {
        let mut portal = self.portal()?.lock().unwrap_or_else(PoisonError::into_inner);
        let links = portal.links().revoke(panel, server);
        if links > 0 {
            self.keep(&mut portal);
        }
        Ok(links)
    }
}

/// The word that a unit variant has in JSON.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn status(panel: &PanelConfig, state: Option<&PanelState>) -> PanelStatus {
    let mut out = PanelStatus {
        name: panel.name.clone(),
        url: panel.url.clone(),
        mode: word(&panel.mode),
        connection: "starting".to_owned(),
        ..PanelStatus::default()
    };
    let Some(state) = state else { return out };
    let from = &state.status;
    out.flavour = from.flavour.as_ref().map(word);
    out.connection = word(&from.connection);
    out.alarms.clone_from(&state.alarms);
    out.error.clone_from(&from.error);
    out.last_success = from.last_success;
    out.next_poll = from.next_poll;
    out.held = from.held;
    out.pass_requests = from.pass_requests;
    out.pass_ms = from.pass_ms;
    out.rate_limit = from.rate_limit;
    let Some(snapshot) = &state.snapshot else { return out };
    out.servers = snapshot.servers.len();
    out.allocations = snapshot.allocations.len();
    out.unmapped = snapshot.unmapped().count();
    out.services = snapshot.services.len();
    out.conflicts = snapshot.conflicts;
    out.nodes = snapshot
        .nodes
        .iter()
        .map(|node| PanelNode {
            id: node.id,
            name: node.name.clone(),
            fqdn: node.fqdn.clone(),
            addresses: node.addresses.clone(),
            mapped: node.mapped,
            unmapped: node.unmapped,
            services: node.services,
            system_ports: node.system_ports.clone(),
            system_mapped: node.system_mapped,
        })
        .collect();
    out
}

fn servers(snapshot: &PanelSnapshot) -> Vec<PanelServer> {
    let mut out: Vec<PanelServer> = Vec::with_capacity(snapshot.servers.len());
    for server in &snapshot.servers {
        let node = snapshot.nodes.iter().find(|node| node.id == server.node);
        out.push(PanelServer {
            uuid: server.uuid.clone(),
            name: server.name.clone(),
            state: word(&server.state),
            node: node.map(|node| node.name.clone()).unwrap_or_default(),
            customer: server.customer.clone(),
            game: server.game.clone(),
            game_why: server.game_why.clone(),
            ports: Vec::new(),
        });
    }
    // Servers are sorted by number.
    for allocation in &snapshot.allocations {
        if let Ok(at) = snapshot.servers.binary_search_by_key(&allocation.server, |s| s.id) {
            out[at].ports.push(port(allocation));
        }
    }
    out
}

fn port(allocation: &AllocationView) -> PanelPort {
    let role = &allocation.role;
    PanelPort {
        port: allocation.port,
        primary: allocation.primary,
        held: allocation.held,
        addresses: allocation.addresses.clone(),
        via: allocation.via.as_ref().map(word),
        unmapped: allocation.unmapped.map(|why| Unmapped::as_str(why).to_owned()),
        role: role.role.as_str().to_owned(),
        protocols: String::from(role.protocols),
        confidence: role.confidence,
        why: role.why.clone(),
    }
}

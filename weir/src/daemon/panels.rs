//! Game panels: what they say becomes part of what is protected.
//!
//! ```text
//!   panel/<name> --Report--> panels --Update--> inventory desk --> core, rx/<n>
//! ```

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use crossbeam_channel::{Sender, bounded};
use tracing::{error, warn};
use weir_api::Metrics;
use weir_api::metrics::IntGaugeVec;
use weir_config::Config;
use weir_panel::Connection;
use weir_panel::client::Timeouts;
use weir_panel::runner::{self, Command, Setup, Update};

use super::inventory::Desk;
use super::spawn as spawn_thread;

/// Hints and orders that may wait; more of them mean the same.
const COMMANDS_MAX: usize = 64;

/// The running synchronisation.
#[derive(Debug)]
pub(crate) struct Panels {
    commands: Sender<Command>,
    latest: Arc<ArcSwap<Update>>,
    thread: JoinHandle<()>,
}

impl Panels {
    pub(crate) fn latest(&self) -> Arc<Update> {
        self.latest.load_full()
    }

    /// The latest state, for whoever outlives this handle.
    pub(crate) fn shared(&self) -> Arc<ArcSwap<Update>> {
        Arc::clone(&self.latest)
    }

    /// Where hints go.
    pub(crate) fn commands(&self) -> Sender<Command> {
        self.commands.clone()
    }

    pub(crate) fn stop(self) {
        // The thread may have ended already.
        let _ = self.commands.send(Command::Stop);
        super::join("panels", [self.thread]);
    }
}

/// Starts the synchronisation; nothing when no panel is configured.
pub(crate) fn spawn(
    config: &Config,
    desk: &Arc<Desk>,
    metrics: &Arc<Metrics>,
    failed: &Sender<String>,
) -> anyhow::Result<Option<Panels>> {
    if config.panels.is_empty() {
        return Ok(None);
    }
    for panel in &config.panels {
        panel.read_key().map_err(|why| anyhow!("panel {:?}: {why}", panel.name))?;
    }
    for panel in &config.panels {
        let name = [panel.name.as_str()];
        metrics.panel_up.with_label_values(&name).set(0);
        let _ = metrics.panel_requests.with_label_values(&name);
    }
    let in_memory = config.store.path.as_os_str() == ":memory:";
    let setup = Setup {
        config: config.panel_section(),
        protected: config.protect.prefixes.clone(),
        state: config.store.path.parent().filter(|_| !in_memory).map(ToOwned::to_owned),
        timeouts: Timeouts::default(),
    };
    let latest = Arc::new(ArcSwap::from_pointee(Update::default()));
    let (commands, from) = bounded(COMMANDS_MAX);
    let mut bridge = Bridge {
        desk: Arc::clone(desk),
        latest: Arc::clone(&latest),
        metrics: Arc::clone(metrics),
    };
    let thread = spawn_thread("panels", failed, move || {
        if let Err(error) = runner::run(&setup, &from, |update| bridge.take(update)) {
            error!(%error, "panels are not synchronised");
        }
    })
    .context("thread panels")?;
    Ok(Some(Panels { commands, latest, thread }))
}

struct Bridge {
    desk: Arc<Desk>,
    latest: Arc<ArcSwap<Update>>,
    metrics: Arc<Metrics>,
}

/// Panels are few and named by the operator: their names are a closed set.
fn count(metrics: &Metrics, update: &Update) {
    let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    for panel in &update.panels {
        let (name, status) = (panel.name.as_str(), &panel.status);
        let set = |family: &IntGaugeVec, value| family.with_label_values(&[name]).set(value);
        set(&metrics.panel_up, i64::from(status.connection == Connection::Ok));
        let success = status.last_success.map_or(0, |at| at.0 / 1000);
        set(&metrics.panel_success, i64::try_from(success).unwrap_or(i64::MAX));
        set(&metrics.panel_held, whole(status.held));
        Metrics::raise(&metrics.panel_requests, &[name], status.requests);
        if let Some(snapshot) = &panel.snapshot {
            set(&metrics.panel_ports, whole(snapshot.services.len()));
            set(&metrics.panel_unmapped, whole(snapshot.unmapped().count()));
        }
    }
}

impl Bridge {
    fn take(&mut self, update: Update) {
        for panel in &update.panels {
            let before = self.latest.load();
            let known = before.panels.iter().find(|p| p.name == panel.name);
            if known.is_none_or(|k| k.alarms != panel.alarms) {
                for alarm in &panel.alarms {
                    warn!(panel = %panel.name, %alarm, "panel");
                }
            }
        }
        count(&self.metrics, &update);
        self.latest.store(Arc::new(update.clone()));
        self.desk.panels(update);
    }
}

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

use super::inventory::{Desk, PATIENCE};
use super::spawn as spawn_thread;

/// Hints and orders that may wait; more of them mean the same.
const COMMANDS_MAX: usize = 64;

/// Configurations that may wait for the synchronisation.
const SETUPS_MAX: usize = 4;

/// The running synchronisation.
#[derive(Debug)]
pub(crate) struct Panels {
    commands: Sender<Command>,
    setups: Sender<Setup>,
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

    /// Where other configurations go.
    pub(crate) fn way(&self, metrics: &Arc<Metrics>) -> Way {
        Way { setups: self.setups.clone(), metrics: Arc::clone(metrics) }
    }

    pub(crate) fn stop(self) {
        // The thread may have ended already.
        let _ = self.commands.send(Command::Stop);
        super::join("panels", [self.thread]);
    }
}

/// How the synchronisation follows the configuration file.
#[derive(Debug)]
pub(crate) struct Way {
    setups: Sender<Setup>,
    metrics: Arc<Metrics>,
}

impl Way {
    /// Also when only a file that holds a key has changed.
    pub(crate) fn put_in_force(&self, before: &Config, setup: Setup) {
        for panel in &before.panels {
            if !setup.config.panels.iter().any(|own| own.name == panel.name) {
                forget(&self.metrics, &panel.name);
            }
        }
        begin(&self.metrics, &setup);
        if self.setups.send_timeout(setup, PATIENCE).is_err() {
            error!("the panels' thread does not take what has changed: restart weir");
        }
    }
}

/// What a configuration asks for, once the keys can be read.
pub(crate) fn prepare(config: &Config) -> anyhow::Result<Setup> {
    for panel in &config.panels {
        panel.read_key().map_err(|why| anyhow!("panel {:?}: {why}", panel.name))?;
    }
    let in_memory = config.store.path.as_os_str() == ":memory:";
    Ok(Setup {
        config: config.panel_section(),
        protected: config.protect.prefixes.clone(),
        state: config.store.path.parent().filter(|_| !in_memory).map(ToOwned::to_owned),
        timeouts: Timeouts::default(),
    })
}

/// Starts the synchronisation, also when no panel is configured yet.
pub(crate) fn spawn(
    config: &Config,
    desk: &Arc<Desk>,
    metrics: &Arc<Metrics>,
    failed: &Sender<String>,
) -> anyhow::Result<Panels> {
    let setup = prepare(config)?;
    begin(metrics, &setup);
    let latest = Arc::new(ArcSwap::from_pointee(Update::default()));
    let (commands, from) = bounded(COMMANDS_MAX);
    let (setups, others) = bounded(SETUPS_MAX);
    let mut bridge = Bridge {
        desk: Arc::clone(desk),
        latest: Arc::clone(&latest),
        metrics: Arc::clone(metrics),
    };
    let thread = spawn_thread("panels", failed, move || {
        if let Err(error) = runner::run(&setup, &others, &from, |update| bridge.take(update)) {
            error!(%error, "panels are not synchronised");
        }
    })
    .context("thread panels")?;
    Ok(Panels { commands, setups, latest, thread })
}

/// A panel has its series before it has answered.
fn begin(metrics: &Metrics, setup: &Setup) {
    for panel in &setup.config.panels {
        let name = [panel.name.as_str()];
        let _ = metrics.panel_up.with_label_values(&name);
        let _ = metrics.panel_requests.with_label_values(&name);
    }
}

/// Takes the series of a panel away that is no longer configured.
fn forget(metrics: &Metrics, name: &str) {
    // A series that was never made is gone already.
    let gauges = [
        &metrics.panel_up,
        &metrics.panel_success,
        &metrics.panel_held,
        &metrics.panel_ports,
        &metrics.panel_unmapped,
    ];
    for family in gauges {
        let _ = family.remove_label_values(&[name]);
    }
    let _ = metrics.panel_requests.remove_label_values(&[name]);
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

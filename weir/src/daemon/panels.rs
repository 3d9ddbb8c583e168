//! Game panels: what they say becomes part of what is protected.
//!
//! ```text
//!   panel/<name> --Report--> panels --Inventory--> core
//!                                 +--Shared------> rx/<n>
//! ```
//! What the operator declares goes before what a panel says of the same port.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use crossbeam_channel::{Sender, bounded};
use tracing::{error, info, warn};
use weir_api::Metrics;
use weir_api::metrics::IntGaugeVec;
use weir_collector::socket::SharedInventory;
use weir_config::Config;
use weir_model::{Inventory, Service};
use weir_panel::Connection;
use weir_panel::client::Timeouts;
use weir_panel::runner::{self, Command, Setup, Update};

use super::channels::Control;
use super::spawn as spawn_thread;

/// Hints and orders that may wait; more of them mean the same.
const COMMANDS_MAX: usize = 64;

/// How long the core may take to accept a new inventory before the panels say so in the log.
const PATIENCE: Duration = Duration::from_secs(5);

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

    pub(crate) fn hint(&self, name: Option<&str>) {
        // Full: a poll is about to come anyway.
        let _ = self.commands.try_send(Command::Hint(name.map(str::to_owned)));
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
    inventory: &Arc<SharedInventory>,
    control: &Sender<Control>,
    metrics: &Arc<Metrics>,
    failed: &Sender<String>,
) -> anyhow::Result<Option<Panels>> {
    if config.panels.is_empty() {
        return Ok(None);
    }
    for panel in &config.panels {
        panel.read_key().map_err(|why| anyhow!("panel {:?}: {why}", panel.name))?;
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
    let declared = config.protect.inventory();
    let mut bridge = Bridge {
        in_force: Arc::new(declared.clone()),
        declared,
        shared: Arc::clone(inventory),
        control: control.clone(),
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
    declared: Inventory,
    in_force: Arc<Inventory>,
    shared: Arc<SharedInventory>,
    control: Sender<Control>,
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
        let merged = merge(&self.declared, &update);
        self.latest.store(Arc::new(update));
        if merged == *self.in_force {
            return;
        }
        info!(
            services = merged.services.len(),
            groups = merged.groups.len(),
            expected = merged.expected.len(),
            "the panels changed what is protected"
        );
        let merged = Arc::new(merged);
        self.in_force = Arc::clone(&merged);
        self.shared.set(Arc::clone(&merged));
        if self.control.send_timeout(Control::Inventory(merged), PATIENCE).is_err() {
            warn!("the core does not take the inventory");
        }
    }
}

/// Declared services and those of panels; what is declared stays as it is.
pub(crate) fn merge(declared: &Inventory, update: &Update) -> Inventory {
    let key = |s: &Service| (s.address, s.protocol, s.port);
    let own: BTreeSet<_> = declared.services.iter().map(key).collect();
    let new = update.services.iter().filter(|s| !own.contains(&key(s))).cloned();
    let all = declared.services.iter().cloned().chain(new).collect();
    Inventory::new(declared.protected.clone(), declared.never_touch.clone(), all)
        .with(update.groups.clone(), update.expected.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_goes_before_what_a_panel_says() {
        let service = |port, name: &str| Service {
            address: "203.0.113.7".parse().unwrap(),
            protocol: 17,
            port,
            name: name.to_owned(),
            game: String::new(),
        };
        let protected = FromIterator::from_iter(["203.0.113.0/24".parse().unwrap()]);
        let declared =
            Inventory::new(protected, FromIterator::from_iter([]), vec![service(30120, "z")]);
        let services = vec![service(30120, "a"), service(28015, "b")];
        let merged = merge(&declared, &Update { services, ..Update::default() });
        let names: Vec<&str> = merged.services.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["b", "z"]);
        assert_eq!(merged.protected, declared.protected);
    }
}

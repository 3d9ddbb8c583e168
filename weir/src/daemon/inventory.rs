//! The one place where what is protected is put together: the file, what operators set while weir runs, and
//! what panels say. What is declared goes before what a panel says of the same port.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::Sender;
use serde_json::Value;
use tracing::{info, warn};
use weir_api::Metrics;
use weir_api::settings::Reload;
use weir_bgp::config::OnStop;
use weir_collector::socket::{SharedExporters, SharedInventory};
use weir_config::{Config, Settings};
use weir_mitigator::RungConfig;
use weir_model::{AllowLists, Infrastructure, Inventory, Snapshot};
use weir_panel::runner::Update;
use weir_store::notes::Setting;

use super::channels::Control;
use super::notify::Notify;
use super::now;
use crate::allow::Shelf;
use crate::logging::Level;

/// How long the core may take to accept a new inventory before the log says so.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Makes inventories, and hands each new one to the core and the receive threads.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(super) control: Sender<Control>,
    shared: Arc<SharedInventory>,
    pub(super) exporters: Arc<SharedExporters>,
    pub(super) notify: Notify,
    pub(super) metrics: Arc<Metrics>,
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    /// The file that is read again on request.
    pub(super) path: Option<PathBuf>,
    pub(super) level: Level,
    /// Where allow lists are kept that were read.
    pub(super) kept_lists: Option<PathBuf>,
    pub(super) state: Mutex<State>,
    /// What else follows the file; there once weir has started.
    pub(super) parts: Mutex<Option<super::parts::Parts>>,
}

/// What the desk is given.
pub(crate) struct Parts {
    pub(crate) control: Sender<Control>,
    pub(crate) shared: Arc<SharedInventory>,
    pub(crate) exporters: Arc<SharedExporters>,
    pub(crate) notify: Notify,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) path: Option<PathBuf>,
    pub(crate) level: Level,
    pub(crate) surroundings: Vec<Infrastructure>,
    pub(crate) shelf: Shelf,
    pub(crate) kept_lists: Option<PathBuf>,
}

#[derive(Debug)]
pub(super) struct State {
    /// What the file says, as far as it is in force.
    pub(super) file: Config,
    pub(super) settings: Settings,
    panels: Update,
    /// What weir depends on and no configuration names.
    pub(super) surroundings: Vec<Infrastructure>,
    in_force: Arc<Inventory>,
    /// Allow lists that are read, and all that are in force.
    pub(super) shelf: Shelf,
    pub(super) allow: Arc<AllowLists>,
}

impl State {
    /// What is protected when the file says so, with settings and panels.
    pub(super) fn merged(&self, file: &Config) -> Inventory {
        let known = &self.in_force.policies;
        let allow = if file.protect.allow == self.file.protect.allow {
            Arc::clone(&self.allow)
        } else {
            Arc::new(self.shelf.in_force(&file.protect.allow))
        };
        let declared = self.settings.renewed(&file.protect, now(), known).allowing(allow);
        let declared = declared.measuring(&file.detector.metrics);
        spare(merge(&declared, &self.panels), file, &self.surroundings)
    }
}

/// The same, sparing what weir depends on: what the configuration names and what was found around it.
pub(crate) fn spare(
    inventory: Inventory,
    file: &Config,
    surroundings: &[Infrastructure],
) -> Inventory {
    let all = file.infrastructure().into_iter().chain(surroundings.iter().cloned()).collect();
    inventory.sparing(all, &file.protect.touchable)
}

/// What operators set in earlier runs. A value that no longer fits is left out, with a warning: weir starts.
pub(crate) fn kept(file: &Config, found: &[Setting]) -> Settings {
    let mut settings = Settings::default();
    for setting in found {
        let value = setting.body.as_deref().and_then(|body| serde_json::from_str(body).ok());
        let mut trial = settings.clone();
        match trial.take(&setting.name, value.as_ref()).and_then(|()| trial.check(file)) {
            Ok(_) => settings = trial,
            Err(why) => warn!(setting = setting.name, why, "a setting no longer fits"),
        }
    }
    settings
}

impl Desk {
    pub(crate) fn new(
        file: &Config,
        settings: Settings,
        in_force: Arc<Inventory>,
        parts: Parts,
    ) -> Self {
        let file = file.clone();
        let Parts {
            control,
            shared,
            exporters,
            notify,
            metrics,
            snapshot,
            path,
            level,
            surroundings,
            shelf,
            kept_lists,
        } = parts;
        let allow = Arc::clone(&in_force.allow);
        let panels = Update::default();
        let state = State { file, settings, panels, surroundings, in_force, shelf, allow };
        super::allow::measure(&metrics, &state.shelf.status(now()));
        Self {
            control,
            shared,
            exporters,
            notify,
            metrics,
            snapshot,
            path,
            level,
            kept_lists,
            state: Mutex::new(state),
            parts: Mutex::new(None),
        }
    }

    /// weir has started: from now on the file can be read again.
    pub(crate) fn follow(&self, parts: super::parts::Parts) {
        *self.parts.lock().unwrap_or_else(PoisonError::into_inner) = Some(parts);
    }

    /// weir stops: the file is not read again.
    pub(crate) fn leave(&self) -> Option<super::parts::Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What is done with the routes when weir stops.
    pub(crate) fn on_stop(&self) -> OnStop {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.file.bgp.as_ref().map(|bgp| bgp.on_stop).unwrap_or_default()
    }

    /// Panels said something.
    pub(crate) fn panels(&self, update: Update) {
        self.change(|state| state.panels = update);
    }

    /// An exclusion may have ended.
    pub(crate) fn tick(&self) {
        self.change(|_| {});
    }

    pub(super) fn ladder(&self, ladder: &[RungConfig]) {
        info!(steps = ladder.len(), "the ladder has changed");
        self.send(Control::Ladder(ladder.to_vec()), "ladder");
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.renew(&mut state);
    }

    /// Puts in force what is protected now, if that is something else than before.
    pub(super) fn renew(&self, state: &mut State) {
        let made = state.merged(&state.file);
        if made == *state.in_force {
            return;
        }
        info!(
            prefixes = made.protected.len(),
            never_touch = made.never_touch.len(),
            services = made.services.len(),
            groups = made.policies.groups().len(),
            expected = made.expected.len(),
            metrics = made.metrics.list().len(),
            "what is protected has changed"
        );
        let made = Arc::new(made);
        state.in_force = Arc::clone(&made);
        self.shared.set(Arc::clone(&made));
        self.send(Control::Inventory(made), "inventory");
    }
}

impl weir_api::settings::Desk for Desk {
    fn names(&self) -> &'static [&'static str] {
        &Settings::NAMES
    }

    fn check(&self, name: &str, value: Option<&Value>) -> Result<Vec<String>, String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (present, file) = (state.settings.clone(), state.file.clone());
        drop(state);
        let mut trial = present.clone();
        trial.take(name, value)?;
        let warnings = trial.check(&file)?;
        // What was wrong before is not this change's doing.
        let known = present.check(&file).unwrap_or_default();
        let new = warnings.iter().filter(|warning| !known.contains(warning));
        Ok(new.map(ToString::to_string).collect())
    }

    fn complete(&self, name: &str, before: Option<&Value>, given: Value) -> Result<Value, String> {
        Settings::complete(name, before, given)
    }

    fn shown(&self, name: &str, value: &Value) -> Value {
        Settings::shown(name, value)
    }

    fn told(&self, name: &str, before: Option<&Value>, value: &Value) -> Value {
        Settings::told(name, before, value)
    }

    fn of_file(&self, name: &str) -> Value {
        Settings::of_file(name, &self.state.lock().unwrap_or_else(PoisonError::into_inner).file)
    }

    fn hidden(&self, name: &str) -> Vec<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let hidden = state.settings.hides(&state.file).into_iter().find(|h| h.name == name);
        hidden.map(|hidden| hidden.missing).unwrap_or_default()
    }

    fn reload(&self, check: bool) -> Result<Reload, String> {
        Self::reload(self, check)
    }

    fn apply(&self, name: &str, value: Option<&Value>) {
        self.change(|state| {
            if let Err(why) = state.settings.take(name, value) {
                warn!(setting = name, why, "a setting was not taken");
                return;
            }
            // Under the lock, so that of two changes the later one holds.
            match name {
                "channels" => self.notify.channels(state.settings.channels.clone()),
                "ladder" => {
                    let own = state.settings.ladder.as_ref();
                    self.ladder(own.unwrap_or(&state.file.mitigator.ladder));
                }
                _ => {}
            }
        });
    }

    fn in_force(&self) -> Result<String, String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let config = state.settings.in_force(&state.file, now());
        drop(state);
        weir_config::dump(&config).map_err(|error| error.to_string())
    }
}

/// Declared services and those of panels; what is declared stays as it is.
fn merge(declared: &Inventory, update: &Update) -> Inventory {
    let key = |s: &weir_model::Service| (s.address, s.protocol, s.port);
    let own: BTreeSet<_> = declared.services.iter().map(key).collect();
    let new = update.services.iter().filter(|s| !own.contains(&key(s))).cloned();
    let all = declared.services.iter().cloned().chain(new).collect();
    let made = Inventory::new(declared.protected.clone(), declared.never_touch.clone(), all)
        .with(update.groups.clone(), update.expected.clone())
        .under(Arc::clone(&declared.policies))
        .allowing(Arc::clone(&declared.allow));
    Inventory { metrics: Arc::clone(&declared.metrics), ..made }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::Service;

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
        let declared = declared.measuring(&[weir_model::OwnMetric {
            name: "sip".to_owned(),
            packets: "udp dst port 5060".parse().unwrap(),
            direction: weir_model::Direction::Inbound,
            packets_per_sec: Some(weir_model::Threshold::Auto),
            bits_per_sec: None,
            groups: Vec::new(),
        }]);
        let merged = merge(&declared, &Update { services, ..Update::default() });
        let names: Vec<&str> = merged.services.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["b", "z"]);
        assert_eq!((&merged.protected, &merged.metrics), (&declared.protected, &declared.metrics));
    }
}

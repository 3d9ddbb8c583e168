//! The one place where what is protected is put together: the file, what operators set while weir runs, and
//! what panels say. What is declared goes before what a panel says of the same port.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;
use serde_json::Value;
use tracing::{info, warn};
use weir_collector::socket::SharedInventory;
use weir_config::{Config, Settings};
use weir_mitigator::RungConfig;
use weir_model::Inventory;
use weir_panel::runner::Update;
use weir_store::notes::Setting;

use super::channels::Control;
use super::notify::Notify;
use super::now;

/// How long the core may take to accept a new inventory before the log says so.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes inventories, and hands each new one to the core and the receive threads.
#[derive(Debug)]
pub(crate) struct Desk {
    file: Config,
    control: Sender<Control>,
    shared: Arc<SharedInventory>,
    notify: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    settings: Settings,
    panels: Update,
    in_force: Arc<Inventory>,
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
        control: Sender<Control>,
        shared: Arc<SharedInventory>,
        notify: Notify,
    ) -> Self {
        let state = State { settings, panels: Update::default(), in_force };
        Self { file: file.clone(), control, shared, notify, state: Mutex::new(state) }
    }

    /// Panels said something.
    pub(crate) fn panels(&self, update: Update) {
        self.change(|state| state.panels = update);
    }

    /// An exclusion may have ended.
    pub(crate) fn tick(&self) {
        self.change(|_| {});
    }

    /// `None` lets the file decide.
    fn ladder(&self, set: Option<&Vec<RungConfig>>) {
        let ladder = set.unwrap_or(&self.file.mitigator.ladder).clone();
        info!(steps = ladder.len(), "the ladder has changed");
        if self.control.send_timeout(Control::Ladder(ladder), PATIENCE).is_err() {
            warn!("the core does not take the ladder");
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let made = merge(&state.settings.inventory(&self.file.protect, now()), &state.panels);
        if made == *state.in_force {
            return;
        }
        info!(
            prefixes = made.protected.len(),
            never_touch = made.never_touch.len(),
            services = made.services.len(),
            groups = made.policies.len(),
            expected = made.expected.len(),
            "what is protected has changed"
        );
        let made = Arc::new(made);
        state.in_force = Arc::clone(&made);
        self.shared.set(Arc::clone(&made));
        if self.control.send_timeout(Control::Inventory(made), PATIENCE).is_err() {
            warn!("the core does not take the inventory");
        }
    }
}

impl weir_api::settings::Desk for Desk {
    fn names(&self) -> &'static [&'static str] {
        &Settings::NAMES
    }

    fn check(&self, name: &str, value: Option<&Value>) -> Result<Vec<String>, String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let present = state.settings.clone();
        drop(state);
        let mut trial = present.clone();
        trial.take(name, value)?;
        let warnings = trial.check(&self.file)?;
        // What was wrong before is not this change's doing.
        let known = present.check(&self.file).unwrap_or_default();
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
        Settings::of_file(name, &self.file)
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
                "ladder" => self.ladder(state.settings.ladder.as_ref()),
                _ => {}
            }
        });
    }

    fn in_force(&self) -> Result<String, String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let config = state.settings.in_force(&self.file, now());
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
    Inventory::new(declared.protected.clone(), declared.never_touch.clone(), all)
        .with(update.groups.clone(), update.expected.clone())
        .grouped(declared.policies.clone())
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
        let merged = merge(&declared, &Update { services, ..Update::default() });
        let names: Vec<&str> = merged.services.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["b", "z"]);
        assert_eq!(merged.protected, declared.protected);
    }
}

//! The configuration file read again while weir runs: checked and compared whole, then put in force without
//! touching what did not change. A file that cannot be used changes nothing.

use std::sync::{Arc, PoisonError};

use tracing::{error, info, warn};
use weir_api::settings::{Changed, Hidden, Reload};
use weir_bgp::guard::Guard;
use weir_config::{Config, Difference, Plan, Settings};
use weir_model::{IncidentState, Mode, Originator};

use super::channels::Control;
use super::inventory::{Desk, PATIENCE, State};
use super::{metrics, notify, now};
use crate::core::Tuning;

/// What is said of each run-time setting that stands in for something of the file.
pub(crate) fn warn_of_hidden(settings: &Settings, file: &Config) {
    for hidden in settings.hides(file) {
        warn!(
            setting = hidden.name,
            not_in_force = %hidden.missing.join(", "),
            "in the file, not in force: a setting made at run time stands in for it; \
             `weir settings clear {}` lets the file decide", hidden.name
        );
    }
}

impl Desk {
    /// Reads the file again, and says what came of it in the log and in the metrics.
    ///
    /// # Errors
    /// In words, when the file cannot be used: then everything stays as it is.
    pub(crate) fn reload(&self, check: bool) -> Result<Reload, String> {
        let outcome = self.try_reload(check);
        if check {
            return outcome;
        }
        let success = i64::from(outcome.is_ok());
        let none: [&str; 0] = [];
        self.metrics.reload_success.with_label_values(&none).set(success);
        match &outcome {
            Err(why) => {
                error!(error = %why, "the configuration file cannot be used: nothing has changed")
            }
            Ok(reload) => {
                self.metrics.reload_at.with_label_values(&none).set(metrics::seconds(now()));
                for warning in &reload.warnings {
                    warn!(%warning, "configuration");
                }
                if !reload.needs_restart.is_empty() {
                    warn!("needs a restart: {}", keys(&reload.needs_restart));
                }
                // Last: whoever waits for it finds all the rest said.
                info!(changed = keys(&reload.changed), "the configuration file was read again");
            }
        }
        outcome
    }

    fn try_reload(&self, check: bool) -> Result<Reload, String> {
        let path = self.path.as_deref().ok_or("weir was started without a file")?;
        let (file, warnings) = weir_config::load(path).map_err(|error| error.to_string())?;
        // Held to the end, so that of two reloads the later one holds.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Plan { config, live, restart } =
            weir_config::plan(&state.file, &file).map_err(|error| error.to_string())?;
        state.settings.check(&config).map_err(|why| {
            format!("it does not go with what was set at run time (`weir settings`): {why}")
        })?;
        let (told, _) = notify::with_secrets(&config).map_err(|error| format!("{error:#}"))?;
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = parts.as_mut().ok_or("weir is starting, or stopping")?;
        let ready = parts.prepare(&state.file, &config, check).map_err(|why| format!("{why:#}"))?;
        let reload = Reload {
            check,
            changed: live.into_iter().map(changed).collect(),
            needs_restart: restart.into_iter().map(changed).collect(),
            not_in_force: state.settings.hides(&config).into_iter().map(hidden).collect(),
            ends: self.ends(&state, &config),
            warnings: warnings.iter().map(ToString::to_string).collect(),
        };
        if !check {
            warn_of_hidden(&state.settings, &config);
            let before = self.put_in_force(&mut state, config, told);
            parts.put_in_force(ready, &before, &state.file);
        }
        Ok(reload)
    }

    /// What is in force now and would not be with this configuration, in words.
    fn ends(&self, state: &State, next: &Config) -> Vec<String> {
        let inventory = Arc::new(state.merged(next));
        let guard = Guard::new(next.guard.clone(), inventory);
        let ladder = state.settings.ladder.as_ref().unwrap_or(&next.mitigator.ladder);
        let quiet = next.mitigator.mode != state.file.mitigator.mode
            && next.mitigator.mode == Mode::Observe;
        let snapshot = self.snapshot.load();
        let mut all = Vec::new();
        for m in snapshot.desired.mitigations.iter() {
            let by_hand = matches!(m.originator, Originator::Operator(_));
            let why = match guard.judge(m) {
                Err(refusal) => refusal.to_string(),
                Ok(()) if by_hand => continue,
                Ok(()) if quiet => "the mode becomes observe".to_owned(),
                Ok(()) if !ladder.iter().any(|step| step.rung == m.rung) => {
                    format!("{} is no longer a step of the ladder", m.rung)
                }
                Ok(()) => continue,
            };
            all.push(format!("{} ends: {why}", m.measure));
        }
        let running = state.file.bgp.iter();
        for (peer, anew) in running.flat_map(|bgp| bgp.sessions_that_end(next.bgp.as_ref())) {
            all.push(match anew {
                true => format!("the session with {peer} is opened anew"),
                false => format!("the session with {peer} ends: it is no longer configured"),
            });
        }
        let open = snapshot.incidents.iter().filter(|i| i.state == IncidentState::Open).count();
        if quiet && open > 0 {
            all.push(format!("{open} open attacks are only watched from then on"));
        }
        all
    }

    /// Returns what was in force before.
    fn put_in_force(&self, state: &mut State, next: Config, told: notify::Told) -> Config {
        let before = std::mem::replace(&mut state.file, next);
        let next = &state.file;
        if before.log.level != next.log.level
            && let Err(error) = self.level.set(&next.log.level)
        {
            warn!(%error, "the log's level stays");
        }
        if before.exporters() != next.exporters() {
            let kept: Vec<_> =
                next.collector.exporters.iter().filter_map(|e| e.name.as_ref()).collect();
            let names = before.collector.exporters.iter().filter_map(|e| e.name.as_ref());
            names
                .filter(|name| !kept.contains(name))
                .for_each(|n| metrics::forget_exporter(&self.metrics, n));
            self.exporters.set(Arc::new(next.exporters()));
        }
        for uplink in &before.uplinks {
            if !next.uplinks.iter().any(|own| own.name == uplink.name) {
                metrics::forget_uplink(&self.metrics, &uplink.name);
            }
        }
        let tuning = Tuning::of(next);
        if tuning != Tuning::of(&before) {
            self.send(Control::Tuned(Box::new(tuning)), "settings");
        }
        if before.mitigator.ladder != next.mitigator.ladder && state.settings.ladder.is_none() {
            self.ladder(&next.mitigator.ladder);
        }
        if before.protect.allow != next.protect.allow {
            state.shelf.configure(&state.file.protect.allow);
            self.allow_changed(state);
        }
        state.surroundings = super::surroundings::look(&state.file);
        // Also when only a file that holds a key has changed.
        self.notify.own(told);
        self.renew(state);
        before
    }

    /// Tells the core; it takes control messages between two slices.
    pub(super) fn send(&self, message: Control, what: &str) {
        if self.control.send_timeout(message, PATIENCE).is_err() {
            warn!(what, "the core does not take what has changed");
        }
    }
}

fn keys(list: &[Changed]) -> String {
    let keys = list.iter().map(|changed| changed.key.as_str()).collect::<Vec<_>>();
    if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") }
}

fn changed(Difference { key, before, after, why }: Difference) -> Changed {
    Changed { key, before, after, why: why.map(str::to_owned) }
}

fn hidden(weir_config::Hidden { name, missing }: weir_config::Hidden) -> Hidden {
    Hidden { name: name.to_owned(), missing }
}

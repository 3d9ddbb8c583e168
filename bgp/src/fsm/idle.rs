//! Idle: before the start, after the stop, and while backing off.

use weir_model::Millis;

use super::{Dial, Down, Input, Output, PENALTY_MS, Peer, Role, jittered};
use crate::wire::Notification;

impl Peer {
    pub(super) fn start(&mut self, now: Millis, out: &mut Vec<Output>) {
        if self.started {
            return;
        }
        self.started = true;
        if !self.settings.passive {
            self.dial(now, out);
        }
    }

    pub(super) fn stop(&mut self, notification: Option<Notification>, out: &mut Vec<Output>) {
        self.started = false;
        if matches!(self.dial, Dial::Dialling(_)) {
            out.push(Output::StopDialling);
        }
        self.dial = Dial::Off;
        let established = self.established();
        for role in [Role::Active, Role::Passive] {
            if self.connections[role as usize].take().is_none() {
                continue;
            }
            if let Some(notification) = &notification {
                out.push(Output::Send(role, notification.write()));
            }
            out.push(Output::Close(role));
            if established == Some(role) {
                out.push(Output::Down(notification.clone().map_or(Down::Held, Down::Sent)));
            }
        }
    }

    /// Waits before the next attempt: doubling from `retry_ms`, with jitter so that the peers of
    /// a restarted router do not dial in step.
    pub(super) fn back_off(&mut self, now: Millis, refused: bool) {
        if !self.started {
            return;
        }
        let doubled = self.settings.retry_ms.saturating_mul(1 << self.failures.min(16));
        let mut wait = doubled.min(self.settings.retry_max_ms);
        self.failures = self.failures.saturating_add(1);
        if refused {
            wait = wait.max(PENALTY_MS);
        }
        let until = now + jittered(&mut self.jitter, wait);
        self.dial = match (refused, self.settings.passive) {
            (true, _) => Dial::Penalty(until),
            (false, true) => Dial::Off,
            (false, false) => Dial::Waiting(until),
        };
    }

    /// What the peer took offence at is found and will not be sent again: the long wait is cut
    /// down to the usual one.
    pub fn pardon(&mut self, now: Millis) {
        if matches!(self.dial, Dial::Penalty(_)) {
            self.failures = self.failures.saturating_sub(1);
            self.back_off(now, false);
        }
    }

    /// Starts once more with what is to be said anew, such as other families.
    pub fn restart(&mut self, now: Millis, why: Notification, out: &mut Vec<Output>) {
        self.handle(now, Input::Stop(Some(why)), out);
        self.handle(now, Input::Start, out);
    }
}

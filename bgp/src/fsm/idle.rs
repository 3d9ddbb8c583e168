//! Idle: before the start, after the stop, and while backing off.

use weir_model::Millis;

use super::{
    CONNECT_WAIT_MS, Dial, Down, Input, OFFENCE_MS, Output, PENALTY_MS, Peer, Refused, Role,
    URGENT_CONNECT_MS, URGENT_RETRY_MS, jittered,
};
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
    pub(super) fn back_off(&mut self, now: Millis, refused: Refused) {
        if !self.started {
            return;
        }
        let doubled = self.settings.retry_ms.saturating_mul(1 << self.failures.min(16));
        let longest = if self.urgent { URGENT_RETRY_MS } else { self.settings.retry_max_ms };
        let usual = doubled.min(longest);
        let wait = match refused {
            Refused::No => {
                self.failures = self.failures.saturating_add(1);
                usual
            }
            Refused::Update => {
                let wait = self.offence_ms();
                self.offences = self.offences.saturating_add(1);
                wait
            }
            Refused::TooMuch => PENALTY_MS.max(usual),
        };
        let until = now + jittered(&mut self.jitter, wait);
        self.dial = match (refused, self.settings.passive) {
            (Refused::Update | Refused::TooMuch, _) => Dial::Penalty(until),
            (Refused::No, true) => Dial::Off,
            (Refused::No, false) => Dial::Waiting(until),
        };
    }

    const fn offence_ms(&self) -> u64 {
        let shift = if self.offences < 7 { self.offences } else { 7 };
        let wait = OFFENCE_MS << shift;
        if wait < PENALTY_MS { wait } else { PENALTY_MS }
    }

    /// The peer had more than it takes, and now it is known how much that is: the long wait is cut
    /// down to that after an offence.
    pub fn learned(&mut self, now: Millis) {
        if matches!(self.dial, Dial::Penalty(_)) {
            self.back_off(now, Refused::Update);
        }
    }

    /// What the peer took offence at is found and will not be sent again.
    pub fn pardon(&mut self, now: Millis) {
        self.offences = 0;
        self.learned(now);
    }

    /// Whether measures wait for this peer: then it is called every few seconds, and what waits
    /// already waits no longer than that.
    pub fn set_urgent(&mut self, now: Millis, urgent: bool) {
        if std::mem::replace(&mut self.urgent, urgent) || !urgent {
            return;
        }
        match &mut self.dial {
            Dial::Waiting(until) if until.since(now) > URGENT_RETRY_MS => {
                *until = now + jittered(&mut self.jitter, URGENT_RETRY_MS);
            }
            Dial::Dialling(until) => *until = (*until).min(now + URGENT_CONNECT_MS),
            _ => {}
        }
    }

    /// How long a call may go unanswered, milliseconds.
    pub(super) const fn connect_wait_ms(&self) -> u64 {
        if self.urgent { URGENT_CONNECT_MS } else { CONNECT_WAIT_MS }
    }

    /// Starts once more with what is to be said anew, such as other families.
    pub fn restart(&mut self, now: Millis, why: Notification, out: &mut Vec<Output>) {
        self.handle(now, Input::Stop(Some(why)), out);
        self.handle(now, Input::Start, out);
    }
}

//! Connect: a TCP connection is being made.

use weir_model::Millis;

use super::connection::Connection;
use super::{Dial, Output, Peer, Refused, Role};

impl Peer {
    pub(super) fn dial(&mut self, now: Millis, out: &mut Vec<Output>) {
        if self.settings.passive {
            // The penalty is over: calls are taken again.
            self.dial = Dial::Off;
        } else if self.connections.iter().all(Option::is_none) {
            self.dial = Dial::Dialling(now + self.connect_wait_ms());
            out.push(Output::Dial);
        } else {
            // A connection that the peer made is under way; dialling would only collide with it.
            self.dial = Dial::Done;
        }
    }

    pub(super) fn connected(&mut self, now: Millis, out: &mut Vec<Output>) {
        if !matches!(self.dial, Dial::Dialling(_)) || self.established().is_some() {
            // Stopped or superseded meanwhile; the driver's connection is surplus.
            out.push(Output::Close(Role::Active));
            return;
        }
        self.dial = Dial::Done;
        self.open(now, Role::Active, out);
    }

    pub(super) fn connect_failed(&mut self, now: Millis) {
        if matches!(self.dial, Dial::Dialling(_)) {
            self.back_off(now, Refused::No);
        }
    }

    /// Takes a fresh connection into OpenSent.
    pub(super) fn open(&mut self, now: Millis, role: Role, out: &mut Vec<Output>) {
        match self.settings.open.write() {
            Ok(message) => {
                self.connections[role as usize] = Some(Connection::new(now));
                out.push(Output::Send(role, message));
            }
            // Cannot happen with four families; without an OPEN there is no session to have.
            Err(_) => {
                out.push(Output::Close(role));
                self.back_off(now, Refused::No);
            }
        }
    }
}

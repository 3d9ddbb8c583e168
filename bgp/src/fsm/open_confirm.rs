//! OpenConfirm: the peer's first KEEPALIVE is awaited.

use weir_model::Millis;

use super::connection::Phase;
use super::{Dial, Output, Peer, Role};
use crate::wire::{Message, Notification, cease, codes};

impl Peer {
    pub(super) fn in_open_confirm(
        &mut self,
        now: Millis,
        role: Role,
        message: Message,
        out: &mut Vec<Output>,
    ) {
        if message != Message::Keepalive {
            return self.fail(now, role, Notification::new(codes::FSM, 2), out);
        }
        let Some(connection) = &mut self.connections[role as usize] else { return };
        let Phase::OpenConfirm(negotiated) = &connection.phase else { return };
        let negotiated = negotiated.clone();
        connection.heard(now);
        connection.phase = Phase::Established { since: now, negotiated: negotiated.clone() };
        if matches!(self.dial, Dial::Dialling(_)) {
            out.push(Output::StopDialling);
        }
        self.dial = Dial::Done;
        out.push(Output::Up(role, negotiated));
        // Whatever the other connection was about to become, this one carries the session.
        self.fail(now, role.other(), Notification::new(codes::CEASE, cease::COLLISION), out);
    }
}

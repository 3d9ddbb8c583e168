//! Established: the session is up.

use weir_model::Millis;

use super::connection::Phase;
use super::{Output, Peer, Role};
use crate::wire::{Message, Notification, codes};

impl Peer {
    pub(super) fn in_established(
        &mut self,
        now: Millis,
        role: Role,
        message: Message,
        out: &mut Vec<Output>,
    ) {
        let Some(connection) = &mut self.connections[role as usize] else { return };
        let Phase::Established { negotiated, .. } = &connection.phase else { return };
        match message {
            Message::Keepalive | Message::Update(_) => connection.heard(now),
            Message::RouteRefresh(family) => {
                if let Some(family) = family.filter(|f| negotiated.families.contains(*f)) {
                    out.push(Output::Refresh(family));
                }
                connection.heard(now);
            }
            Message::Open(_) => self.fail(now, role, Notification::new(codes::FSM, 3), out),
            Message::Notification(_) => {}
        }
    }
}

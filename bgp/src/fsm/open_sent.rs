//! OpenSent: the peer's OPEN is awaited, then held against the configuration and the other
//! connection.

use std::net::Ipv4Addr;

use weir_model::Millis;

use super::connection::Phase;
use super::{Negotiated, Output, Peer, Role, jittered};
use crate::wire::{self, Message, Notification, Open, cease, codes};

/// A session younger than this is taken to collide with a second connection rather than to be
/// replaced by it.
const COLLISION_MS: u64 = 10_000;

impl Peer {
    pub(super) fn in_open_sent(
        &mut self,
        now: Millis,
        role: Role,
        message: Message,
        out: &mut Vec<Output>,
    ) {
        let Message::Open(open) = message else {
            return self.fail(now, role, Notification::new(codes::FSM, 1), out);
        };
        if let Err(error) = self.acceptable(&open) {
            return self.fail(now, role, error, out);
        }
        let lost = Notification::new(codes::CEASE, cease::COLLISION);
        match self.keeps(now, role, &open) {
            Keep::Only => {}
            Keep::Other => return self.fail(now, role, lost, out),
            Keep::This => self.fail(now, role.other(), lost, out),
        }
        self.confirm(now, role, &open, out);
    }

    fn acceptable(&self, open: &Open) -> Result<(), Notification> {
        if open.asn != self.settings.remote_as {
            return Err(Notification::new(codes::OPEN, 2));
        }
        // Within an AS identifiers are unique (RFC 6286 §2.2).
        if open.asn == self.settings.open.asn && open.id == self.settings.open.id {
            return Err(Notification::new(codes::OPEN, 3));
        }
        Ok(())
    }

    /// Collision detection (RFC 4271 §6.8).
    fn keeps(&self, now: Millis, role: Role, open: &Open) -> Keep {
        match self.connections[role.other() as usize].as_ref().map(|c| &c.phase) {
            // Of a connection in OpenSent nothing is known yet: it is decided at its own OPEN.
            None | Some(Phase::OpenSent) => Keep::Only,
            Some(Phase::OpenConfirm(_)) => {
                let own = (self.settings.open.id, self.settings.open.asn);
                if dominant(own, (open.id, open.asn)) == role { Keep::This } else { Keep::Other }
            }
            Some(Phase::Established { since, negotiated }) => {
                // A peer that restarts calls before its old connection is seen to be dead
                // (RFC 4724 §5).
                let restarted = negotiated.graceful_restart.is_some()
                    && open.graceful_restart.is_some()
                    && role == Role::Passive
                    && now.since(*since) >= COLLISION_MS;
                if restarted { Keep::This } else { Keep::Other }
            }
        }
    }

    fn confirm(&mut self, now: Millis, role: Role, open: &Open, out: &mut Vec<Output>) {
        let own = &self.settings.open;
        let negotiated = Negotiated {
            families: own.families.and(open.families),
            hold_secs: own.hold_secs.min(open.hold_secs),
            as4: open.as4,
            peer_id: open.id,
            graceful_restart: open.graceful_restart.filter(|_| own.restart_secs.is_some()),
        };
        let Some(connection) = &mut self.connections[role as usize] else { return };
        let hold_ms = u64::from(negotiated.hold_secs) * 1000;
        connection.hold_ms = hold_ms;
        connection.keepalive_ms = hold_ms / 3;
        connection.hold_at = (hold_ms > 0).then_some(now + hold_ms);
        connection.keepalive_at =
            (hold_ms > 0).then(|| now + jittered(&mut self.jitter, hold_ms / 3));
        connection.phase = Phase::OpenConfirm(negotiated);
        out.push(Output::Send(role, wire::keepalive().to_vec()));
    }
}

enum Keep {
    /// There is no other to decide against.
    Only,
    This,
    Other,
}

/// Which connection is kept: the one made by the side with the higher identifier, of equal ones by
/// the side with the higher AS (RFC 6286 §2.3).
fn dominant(own: (Ipv4Addr, u32), peer: (Ipv4Addr, u32)) -> Role {
    if own > peer { Role::Active } else { Role::Passive }
}

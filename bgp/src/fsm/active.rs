//! Active: waiting to be dialled.

use weir_model::Millis;

use super::{Dial, Output, Peer, Role};

impl Peer {
    pub(super) fn accepted(&mut self, now: Millis, out: &mut Vec<Output>) {
        let busy = self.connections[Role::Passive as usize].is_some();
        let penalty = matches!(self.dial, Dial::Penalty(at) if at > now);
        if !self.started || busy || penalty {
            out.push(Output::Refuse);
            return;
        }
        self.open(now, Role::Passive, out);
    }
}

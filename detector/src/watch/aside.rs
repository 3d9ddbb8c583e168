//! What an incident explains is set aside: it never becomes normal of anything, neither of the host that is
//! attacked nor of the prefixes around it, nor of the hosts in a prefix that is.
//!
//! Of a prefix only the part that attacks explain is left out, so that one in which somebody is always
//! attacked has a normal all the same.

use weir_model::{IncidentId, IpNet};

use crate::Detector;
use crate::watch::metric::{METRICS, is_bits, values};
use crate::watch::packets::{Packet, local_of};
use crate::watch::series::Kind;
use crate::watch::window::SLOTS_PER_SEC;

/// Seconds of before an incident opened that are gone over again: those still in quarantine.
const BEFORE_SECS: u64 = 31;

impl Detector {
    /// Sets aside what open incidents explain of the seconds that are about to be closed.
    pub(crate) fn set_aside(&mut self) {
        let to = self.watermark.secs();
        let ids: Vec<IncidentId> = self.incidents.keys().copied().collect();
        for id in ids {
            let Some(active) = self.incidents.get_mut(&id) else { continue };
            let (target, from) = (active.target, active.aside.max(to.saturating_sub(BEFORE_SECS)));
            active.aside = active.aside.max(to);
            if from >= to {
                continue;
            }
            let around = self.around(target);
            let explained: Vec<(u64, [u64; METRICS])> =
                (from..to).map(|second| (second, self.explained_in(target, second))).collect();
            for at in around {
                let Some(Some(warm)) = self.warm.get_mut(at as usize) else { continue };
                for (second, values) in &explained {
                    warm.series.set_aside(*second, values);
                }
            }
            self.set_aside_of_totals(target, &explained);
        }
    }

    /// Takes back what the prefixes around a host have kept of it as normal since before the attack was found.
    pub(crate) fn take_back(&mut self, target: IpNet) {
        if target.prefix_len() < target.max_prefix_len() {
            return;
        }
        let from = self.clock.slot().saturating_sub(BEFORE_SECS * SLOTS_PER_SEC);
        let local = local_of(target.addr());
        for at in self.around(target) {
            if let Some(Some(warm)) = self.warm.get_mut(at as usize) {
                warm.profile.forget(local, from);
                warm.sent.forget(local, from);
            }
        }
    }

    /// What a target carried in a second beyond its average.
    pub(crate) fn explained_in(&self, target: IpNet, second: u64) -> [u64; METRICS] {
        let Some(warm) = self.warm_of(target) else { return [0; METRICS] };
        let now = values(&warm.series.window.second(second));
        std::array::from_fn(|i| {
            let unit = if is_bits(i) { 8.0 } else { 1.0 };
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "an average is positive, and `as` saturates"
            )]
            let usual = (warm.series.baselines[i].mean() * unit) as u64;
            now[i].saturating_sub(usual)
        })
    }

    /// Keeps the traffic of hosts out of what is normal for them while their prefix is attacked: those that
    /// are among the packets looked at.
    pub(crate) fn suspect_hosts_of<'p>(
        &mut self,
        target: IpNet,
        packets: impl Iterator<Item = &'p Packet>,
    ) {
        let until = self.clock.secs() + 60;
        let IpNet::V4(_) = target else { return };
        let mut hosts: Vec<u32> = packets.map(|p| p.local).collect();
        hosts.sort_unstable();
        hosts.dedup();
        for host in hosts {
            let address = std::net::IpAddr::from(host.to_be_bytes());
            let Some(idle) = self.idle.get(self.table.get(address) as usize) else { continue };
            if let Some(Some(warm)) = self.warm.get_mut(idle.warm as usize)
                && warm.series.kind == Kind::Host
            {
                warm.suspect(until);
            }
        }
    }
}

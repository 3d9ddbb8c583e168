//! Prefixes wider than a /24 or /48, up to all that is protected: a carpet over a /20 may be a megabit an
//! address, nothing in any /24, and a full link.
//!
//! Their sums are of their parts: traffic of the present is gathered a slot at a time and handed up, so
//! that a record costs the same however many lengths are looked at.

use weir_model::IpNet;

use crate::Detector;
use crate::watch::cell::Cell;
use crate::watch::intake::Time;
use crate::watch::table::{NONE, carpet, wider};

/// A wider prefix, beside its series.
#[derive(Debug)]
pub(crate) struct Wide {
    /// Place of its series.
    pub(crate) at: u32,
    /// Place of the next wider one, [`NONE`] of the widest.
    pub(crate) up: u32,
    /// What has been gathered, and of which slot.
    slot: u64,
    cell: Cell,
}

impl Wide {
    fn new(at: u32, up: u32) -> Self {
        Self { at, up, slot: 0, cell: Cell::default() }
    }
}

impl Detector {
    /// Place among the wider prefixes of the one around `net`, made with those around it; [`NONE`] where
    /// `net` is all that is protected there.
    pub(crate) fn wide_around(&mut self, net: IpNet, since: u64) -> u32 {
        let Some(wider) = wider(net, &self.inventory.protected) else { return NONE };
        let at = self.prefix(wider, since);
        if let Some(known) = self.wide.iter().position(|wide| wide.at == at) {
            return u32::try_from(known).unwrap_or(NONE);
        }
        if at == NONE {
            return NONE;
        }
        let up = self.wide_around(wider, since);
        self.wide.push(Wide::new(at, up));
        u32::try_from(self.wide.len() - 1).unwrap_or(NONE)
    }

    /// Finds the prefixes around each /24 and /48 anew: what is protected has changed.
    pub(crate) fn rewiden(&mut self) {
        self.flush_wide();
        self.wide.clear();
        let mut narrow: Vec<(IpNet, u32)> =
            self.prefixes.iter().map(|(net, at)| (*net, *at)).collect();
        narrow.retain(|(net, _)| carpet(net.addr()) == *net);
        narrow.sort_unstable();
        let since = self.since.unwrap_or_else(|| self.clock.secs());
        for (net, at) in narrow {
            let wide = self.wide_around(net, since);
            if let Some(Some(warm)) = self.warm.get_mut(at as usize) {
                warm.wide = wide;
            }
        }
    }

    /// Places of the prefixes around a host or prefix, narrowest first, without itself.
    pub(crate) fn around(&self, target: IpNet) -> Vec<u32> {
        let mut places = Vec::new();
        let mut at = if target.prefix_len() == target.max_prefix_len() {
            let idle = self.idle.get(self.table.get(target.addr()) as usize);
            let prefix = idle.map_or(NONE, |idle| idle.prefix);
            places.extend((prefix != NONE).then_some(prefix));
            prefix
        } else {
            self.prefixes.get(&target).copied().unwrap_or(NONE)
        };
        let warm = self.warm.get(at as usize).and_then(Option::as_deref);
        let mut wide = warm.map_or(NONE, |warm| match self.wide.iter().find(|w| w.at == at) {
            Some(wide) => wide.up,
            None => warm.wide,
        });
        while let Some(next) = self.wide.get(wide as usize) {
            (at, wide) = (next.at, next.up);
            places.push(at);
        }
        places
    }

    /// Adds traffic to the prefixes wider than a /24 or /48, from place `wide` up.
    pub(crate) fn add_wide(&mut self, wide: u32, time: Time, cell: &Cell) {
        let Time::Slot(slot) = time else {
            let mut next = wide;
            while let Some(Wide { at, up, .. }) = self.wide.get(next as usize) {
                (next, _) = (*up, self.add_warm(*at, time, cell));
            }
            return;
        };
        let Some(gathered) = self.wide.get_mut(wide as usize) else { return };
        if gathered.slot == slot {
            gathered.cell.add(cell);
            return;
        }
        let (before, sum) = (gathered.slot, std::mem::replace(&mut gathered.cell, *cell));
        gathered.slot = slot;
        self.hand_up(wide, before, &sum);
    }

    /// Hands on what was gathered.
    fn hand_up(&mut self, wide: u32, slot: u64, sum: &Cell) {
        let Some(Wide { at, up, .. }) = self.wide.get(wide as usize) else { return };
        let (at, up) = (*at, *up);
        if *sum != Cell::default() {
            self.add_warm(at, Time::Slot(slot), sum);
            if up != NONE {
                self.add_wide(up, Time::Slot(slot), sum);
            }
        }
    }

    /// Hands on all that was gathered: at the end of a slice.
    pub(crate) fn flush_wide(&mut self) {
        // Wider ones are made before those in them.
        for wide in (0..self.wide.len()).rev() {
            let Wide { slot, cell, .. } = &mut self.wide[wide];
            let (slot, sum) = (*slot, std::mem::take(cell));
            self.hand_up(u32::try_from(wide).unwrap_or(NONE), slot, &sum);
        }
    }
}

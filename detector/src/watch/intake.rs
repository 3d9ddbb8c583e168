//! Slices in: cells to the hosts and prefixes they belong to, samples to their profiles.

use std::net::IpAddr;

use weir_model::{
    Direction, ExpectedTraffic, FINE_SLOTS, HostSlice, IpNet, LongFlow, Millis, Sample,
    ServiceSlice, Slice, prefetch,
};

use crate::Detector;
use crate::watch::cell::{Cell, Narrow, saturate};
use crate::watch::foreknown;
use crate::watch::hash::{mix, nth};
use crate::watch::host::{Idle, Warm};
use crate::watch::metric::part_samples;
use crate::watch::packets::{NOW_MAX, NOW_QUIET_MAX, Packet, quiet_share};
use crate::watch::pool;
use crate::watch::series::{Kind, Series};
use crate::watch::table::{NONE, carpet};
use crate::watch::window::SLOTS_PER_SEC;

/// Cells of quiet hosts kept until the slot's end, so that a host that wakes up loses none.
const COLD_CELLS_MAX: usize = 1 << 18;
/// Hosts looked up together.
const GROUP: usize = 32;
/// Samples looked at in one slot.
const SAMPLES_MAX: usize = 1 << 16;
/// Steps of 16 seconds after which an idle host may give way to a new one, and how many are looked at.
const GIVE_WAY_STEPS: u32 = 2;
const GIVE_WAY_LOOKS: usize = 16;
/// Slots in which all watched hosts are looked after once, however quiet.
pub(crate) const SWEEP: usize = 100;

/// When traffic passed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Time {
    Slot(u64),
    /// So late that only the second is known.
    Late(u64),
    /// A share of a long flow: known to the second only.
    Second(u64),
}

impl Time {
    /// The time of what passed in `slot` and arrived in `now`. Slots that were added up by whole seconds
    /// say nothing of their share of one.
    pub(crate) fn of(slot: u64, now: u64) -> Self {
        let slot = slot.min(now);
        if now - slot < FINE_SLOTS { Self::Slot(slot) } else { Self::Late(slot / SLOTS_PER_SEC) }
    }
}

/// Traffic of a quiet host, kept in case it wakes up.
#[derive(Debug)]
pub(crate) struct Cold<C> {
    place: u32,
    time: Time,
    cell: C,
}

/// The cells of a slot's quiet hosts: most in a cache line each, the few that are too large apart.
#[derive(Debug, Default)]
pub(crate) struct ColdCells {
    narrow: Vec<Cold<Narrow>>,
    wide: Vec<Cold<Cell>>,
}

const _: () = assert!(size_of::<Cold<Narrow>>() <= 64, "a cache line");

impl ColdCells {
    /// Keeps one, unless there are too many.
    fn push(&mut self, place: u32, time: Time, cell: &Cell) {
        if self.narrow.len() + self.wide.len() >= COLD_CELLS_MAX {
            return;
        }
        match Narrow::of(cell) {
            Some(cell) => self.narrow.push(Cold { place, time, cell }),
            None => self.wide.push(Cold { place, time, cell: *cell }),
        }
    }

    fn clear(&mut self) {
        self.narrow.clear();
        self.wide.clear();
    }

    /// Those of hosts that `wanted` names by their place.
    fn of(&self, wanted: impl Fn(u32) -> bool) -> impl Iterator<Item = (u32, Time, Cell)> {
        let narrow = self.narrow.iter().map(|cold| (cold.place, cold.time, cold.cell.wide()));
        let wide = self.wide.iter().map(|cold| (cold.place, cold.time, cold.cell));
        narrow.chain(wide).filter(move |(place, ..)| wanted(*place))
    }
}

/// A sample on its way to its host's profile.
#[derive(Debug)]
pub(crate) struct Pending {
    host: u32,
    packet: Packet,
}

/// A declared service's traffic over time.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) series: Series,
    touched: bool,
}

/// Place of its host, protocol, port.
pub(crate) type ServiceKey = (u32, u8, u16);

pub(crate) fn add(series: &mut Series, time: Time, cell: &Cell) -> bool {
    match time {
        Time::Slot(slot) => series.window.add(slot, cell),
        Time::Late(second) => {
            series.window.expect_late();
            series.window.add_second(second, cell)
        }
        Time::Second(second) => {
            series.window.lengthen();
            series.window.add_second(second, cell)
        }
    }
}

impl Detector {
    /// Takes what one shard saw in a slot; any number per slot, in any order.
    pub fn slice(&mut self, slice: &Slice) {
        self.counters.slices_lost += u64::from(slice.lost_slices);
        let lowest = self.next_watermark.map_or(slice.watermark, |w| w.min(slice.watermark));
        self.next_watermark = Some(lowest);
        let arrival = Millis::from_slot(slice.slot).secs();
        self.since.get_or_insert(arrival);
        self.begin_totals(arrival);
        for group in slice.hosts.chunks(GROUP) {
            let places = self.warm_cache(group);
            for (host, place) in group.iter().zip(places) {
                let cell = Cell::of_host(host);
                self.seen.0 = self.seen.0.saturating_add(cell.total());
                self.seen.1 = self.seen.1.saturating_add(cell.variance);
                self.two_way.sent(cell.out_packets);
                let time = Time::of(host.slot, slice.slot);
                if place == NONE {
                    self.cell(host.host, time, arrival, &cell);
                } else {
                    self.cell_at(place, time, arrival, &cell);
                }
            }
        }
        for service in &slice.services {
            self.service(service, slice.slot, arrival);
        }
        for flow in &slice.long_flows {
            self.long_flow(flow, slice.slot, arrival);
        }
        if slice.metrics_key != 0 {
            self.own_metrics(slice);
        }
        self.expected.extend_from_slice(&slice.expected);
        self.waited.extend_from_slice(&slice.waited);
        for sample in &slice.samples {
            self.sample(sample, slice.slot, arrival);
        }
        self.flush_wide();
        self.flush_totals();
    }

    /// Looks at what a group of hosts will need, one level after the other, so that the cache misses
    /// of a level overlap; one host at a time would wait for each. Says where they are, [`NONE`] of those
    /// not known yet.
    fn warm_cache(&self, group: &[HostSlice]) -> [u32; GROUP] {
        for host in group {
            self.table.fetch(host.host);
        }
        let mut places = [NONE; GROUP];
        for (place, host) in places.iter_mut().zip(group) {
            *place = self.table.get(host.host);
            if let Some(idle) = self.idle.get(*place as usize) {
                prefetch(idle);
            }
        }
        // Of each host the watched one, if it is one, and its prefix.
        let mut next = [[NONE; 2]; GROUP];
        for (next, place) in next.iter_mut().zip(places) {
            if let Some(idle) = self.idle.get(place as usize) {
                *next = [idle.warm, idle.prefix];
                next.iter().for_each(|at| self.fetch_place(*at));
            }
        }
        for at in next.as_flattened() {
            self.fetch_head(*at);
        }
        for (both, host) in next.into_iter().zip(group) {
            for at in both {
                if let Some(Some(warm)) = self.warm.get(at as usize) {
                    warm.series.window.fetch(host.slot);
                }
            }
        }
        places
    }

    /// Has the place of a watched host fetched.
    pub(crate) fn fetch_place(&self, at: u32) {
        if let Some(place) = self.warm.get(at as usize) {
            prefetch(place);
        }
    }

    /// Has fetched what is looked at first of a watched host.
    fn fetch_head(&self, at: u32) {
        if let Some(Some(warm)) = self.warm.get(at as usize) {
            prefetch(&warm.touched);
            prefetch(&warm.series.window);
        }
    }

    /// Has fetched what is looked at of a watched host when it is looked after.
    pub(crate) fn fetch_series(&self, at: u32) {
        self.fetch_head(at);
        if let Some(Some(warm)) = self.warm.get(at as usize) {
            prefetch(&warm.series.thresholds);
            prefetch(&warm.series.last_traffic);
        }
    }

    /// The place of a host, made when it is protected and there is room.
    pub(crate) fn place(&mut self, address: IpAddr, arrival: u64) -> Option<u32> {
        let place = self.table.get(address);
        if place != NONE {
            return Some(place);
        }
        if !self.inventory.protected.contains(address) {
            return None;
        }
        let dense = self.table.is_dense(address);
        let reused = if !dense && self.table.sparse_len() >= self.config.ipv6_hosts_max {
            let Some(place) = self.give_way(arrival) else {
                self.counters.hosts_refused += 1;
                return None;
            };
            Some(place)
        } else {
            None
        };
        let next = reused.map_or(self.idle.len(), |place| place as usize);
        let place = u32::try_from(next).ok().filter(|p| *p != NONE)?;
        let since = self.since.unwrap_or(arrival);
        let prefix = self.prefix(carpet(address), since);
        let idle = Idle::new(address, saturate(arrival), prefix);
        match self.idle.get_mut(next) {
            Some(place) => *place = idle,
            None => self.idle.push(idle),
        }
        self.table.set(address, place);
        Some(place)
    }

    /// Forgets an idle host so that there is room for another, and hands over its place: the first that has
    /// been quiet for a while, of the few looked at.
    fn give_way(&mut self, arrival: u64) -> Option<u32> {
        let quiet = saturate(arrival / 16).saturating_sub(GIVE_WAY_STEPS);
        for _ in 0..GIVE_WAY_LOOKS.min(self.idle.len()) {
            let at = self.hand % self.idle.len();
            self.hand = at + 1;
            let idle = &self.idle[at];
            let free = idle.warm == NONE
                && idle.step() < quiet
                && !self.table.is_dense(idle.address)
                && self.inventory.services_of(idle.address).is_empty();
            if free {
                let address = idle.address;
                self.table.forget(address);
                return u32::try_from(at).ok();
            }
        }
        None
    }

    /// The place of a prefix, made when there is room.
    pub(crate) fn prefix(&mut self, net: IpNet, since: u64) -> u32 {
        if let Some(&at) = self.prefixes.get(&net) {
            return at;
        }
        if self.prefixes.len() >= self.config.prefixes_max {
            self.counters.prefixes_refused += 1;
            return NONE;
        }
        let slot = self.clock.slot().max(since * SLOTS_PER_SEC);
        let mut warm = Warm::new(net, Kind::Prefix, since, slot, &self.config);
        warm.series.heed(self.rules_of(net), &self.config, slot / SLOTS_PER_SEC);
        self.detail(&mut warm);
        if carpet(net.addr()) == net {
            warm.wide = self.wide_around(net, since);
            warm.total = self.total_of_prefix(net);
        }
        let Some(at) = self.store(Box::new(warm)) else { return NONE };
        self.prefixes.insert(net, at);
        self.sweep[sweep_slot(net.addr())].push(at);
        at
    }

    /// Finds room for a watched host or prefix.
    fn store(&mut self, warm: Box<Warm>) -> Option<u32> {
        if let Some(at) = self.free.pop() {
            self.warm[at as usize] = Some(warm);
            return Some(at);
        }
        let at = u32::try_from(self.warm.len()).ok().filter(|at| *at != NONE)?;
        self.warm.push(Some(warm));
        Some(at)
    }

    fn cell(&mut self, address: IpAddr, time: Time, arrival: u64, cell: &Cell) {
        if let Some(place) = self.place(address, arrival) {
            self.cell_at(place, time, arrival, cell);
            return;
        }
        self.counters.cells += 1;
        // A host for which there is no room is part of its prefix all the same.
        if self.inventory.protected.contains(address) {
            let since = self.since.unwrap_or(arrival);
            let prefix = self.prefix(carpet(address), since);
            self.add_prefix(prefix, time, cell);
            self.add_total(address, prefix, time, cell);
        }
    }

    /// Adds to a /24 or /48, and to those around it.
    fn add_prefix(&mut self, at: u32, time: Time, cell: &Cell) {
        self.add_warm(at, time, cell);
        if let Some(Some(warm)) = self.warm.get(at as usize)
            && warm.wide != NONE
        {
            self.add_wide(warm.wide, time, cell);
        }
    }

    fn cell_at(&mut self, place: u32, time: Time, arrival: u64, cell: &Cell) {
        self.counters.cells += 1;
        let Idle { prefix, warm, address, .. } = self.idle[place as usize];
        self.add_prefix(prefix, time, cell);
        self.add_total(address, prefix, time, cell);
        if warm != NONE {
            self.add_warm(warm, time, cell);
            return;
        }
        let idle = &mut self.idle[place as usize];
        let packets = cell.total() + u64::from(cell.out_packets);
        idle.add(packets, cell.variance, saturate(arrival / 16));
        // Whoever is busy at the slot's end was so when last added to.
        if idle.packets >= self.config.warm_packets_per_sec.saturating_mul(16) {
            self.busy.push(place);
        }
        self.cold.push(place, time, cell);
    }

    pub(crate) fn add_warm(&mut self, at: u32, time: Time, cell: &Cell) {
        let Some(Some(warm)) = self.warm.get_mut(at as usize) else { return };
        if !add(&mut warm.series, time, cell) {
            self.counters.late += 1;
        }
        if !warm.touched {
            warm.touched = true;
            self.touched_warm.push(at);
        }
    }

    fn service(&mut self, slice: &ServiceSlice, slot: u64, arrival: u64) {
        let time = Time::of(slice.slot, slot);
        let packets = saturate(slice.inbound.packets);
        let (class, service_udp) = if slice.protocol == 17 {
            // What comes to a server that does not run is no service's traffic.
            if self.runs(slice.host, slice.protocol, slice.port) {
                let cell = Cell { service_udp: packets, ..Cell::default() };
                self.cell(slice.host, time, arrival, &cell);
            }
            (weir_model::Class::Udp, packets)
        } else {
            (weir_model::Class::TcpOther, 0)
        };
        let mut cell = Cell {
            bytes: slice.inbound.bytes,
            variance: slice.variance,
            service_udp,
            out_packets: saturate(slice.outbound.packets),
            out_bytes: slice.outbound.bytes,
            ..Cell::default()
        };
        cell.packets[class as usize] = packets;
        self.service_cell((slice.host, slice.protocol, slice.port), time, arrival, &cell);
    }

    /// Whether a declared service runs, as far as is known.
    fn runs(&self, host: IpAddr, protocol: u8, port: u16) -> bool {
        foreknown::of_service(&self.inventory, host, protocol, port)
            != Some(ExpectedTraffic::Silence)
    }

    /// Adds to a declared service's own series.
    fn service_cell(&mut self, of: (IpAddr, u8, u16), time: Time, arrival: u64, cell: &Cell) {
        let since = self.since.unwrap_or(arrival);
        let Some(place) = self.place(of.0, arrival) else { return };
        let key = (place, of.1, of.2);
        if !self.services.contains_key(&key) && self.service_series(of, since, arrival).is_none() {
            return;
        }
        if let Some(service) = self.services.get_mut(&key) {
            add(&mut service.series, time, cell);
            if !service.touched {
                service.touched = true;
                self.touched_services.push(key);
            }
        }
    }

    /// A declared service's own series, made when there is none yet; none when it is not declared.
    pub(crate) fn service_series(
        &mut self,
        of: (IpAddr, u8, u16),
        since: u64,
        arrival: u64,
    ) -> Option<&mut Series> {
        let (host, protocol, port) = of;
        self.inventory.service(host, protocol, port)?;
        let key = (self.place(host, arrival)?, protocol, port);
        if !self.services.contains_key(&key) {
            let slot = self.clock.slot().max(since * SLOTS_PER_SEC);
            let mut series = Series::new(Kind::Service, since, slot, &self.config);
            series.foreknown = foreknown::of_service(&self.inventory, host, protocol, port);
            series.heed(self.rules_of(host.into()), &self.config, slot / SLOTS_PER_SEC);
            self.services.insert(key, Box::new(Service { series, touched: false }));
            self.sweep_services[sweep_slot(host)].push(key);
        }
        self.services.get_mut(&key).map(|service| &mut service.series)
    }

    /// Spreads a long flow over its seconds.
    fn long_flow(&mut self, flow: &LongFlow, slot: u64, arrival: u64) {
        let newest = slot / SLOTS_PER_SEC;
        let to_service = flow.protocol == 17
            && flow.service_port != 0
            && self.runs(flow.host, flow.protocol, flow.service_port);
        if !flow.outbound {
            self.seen.0 = self.seen.0.saturating_add(flow.volume.packets);
            self.seen.1 = self.seen.1.saturating_add(flow.variance);
        }
        if flow.outbound {
            self.two_way.sent(saturate(flow.volume.packets));
        }
        for (second, volume, variance) in flow.by_second() {
            // What is older than the windows need not be written at all.
            if second + 128 < newest {
                continue;
            }
            let mut cell = Cell::default();
            let packets = saturate(volume.packets);
            if flow.outbound {
                cell.out_packets = packets;
                cell.out_bytes = volume.bytes;
            } else {
                cell.packets[flow.class as usize] = packets;
                cell.bytes = volume.bytes;
                cell.variance = variance;
                if to_service {
                    cell.service_udp = packets;
                }
            }
            let time = Time::Second(second.min(newest));
            self.cell(flow.host, time, arrival, &cell);
            if flow.service_port != 0 {
                let of = (flow.host, flow.protocol, flow.service_port);
                self.service_cell(of, time, arrival, &cell);
            }
        }
    }

    /// Has no alarm rest on what had waited for its template: it says what is normal, minutes late. A quiet
    /// host that becomes busy by it is looked at as well.
    pub(crate) fn disregard(&mut self) {
        for (host, until) in std::mem::take(&mut self.waited) {
            let place = self.table.get(host);
            let Some(Idle { warm, prefix, .. }) = self.idle.get(place as usize) else { continue };
            for at in [*warm, *prefix] {
                if let Some(Some(warm)) = self.warm.get_mut(at as usize) {
                    warm.told = warm.told.max(until.min(self.clock).secs());
                }
            }
        }
    }

    /// Tells hosts what their long flows are expected to carry: those that are watched by now.
    pub(crate) fn expect(&mut self) {
        for expectation in std::mem::take(&mut self.expected) {
            let place = self.table.get(expectation.host);
            let Some(idle) = self.idle.get(place as usize) else { continue };
            if let Some(Some(warm)) = self.warm.get_mut(idle.warm as usize) {
                warm.expected.get_or_insert_default().note(&expectation);
            }
        }
    }

    fn sample(&mut self, sample: &Sample, slot: u64, arrival: u64) {
        if !Packet::counts(sample) {
            return;
        }
        for way in [Direction::Inbound, Direction::Outbound] {
            let host = match way {
                Direction::Inbound => sample.record.dst,
                Direction::Outbound => sample.record.src,
            };
            if self.table.get(host) == NONE && !self.inventory.protected.contains(host) {
                continue;
            }
            let Some(host) = self.place(host, arrival) else { continue };
            if self.pending.len() >= SAMPLES_MAX {
                self.counters.samples_refused += 1;
                continue;
            }
            self.pending.push(Pending { host, packet: Packet::new(sample, slot, way) });
        }
    }

    /// Gives windows and baselines to quiet hosts that became busy.
    pub(crate) fn wake(&mut self) {
        if self.busy.is_empty() {
            self.cold.clear();
            return;
        }
        let mut busy = std::mem::take(&mut self.busy);
        busy.sort_unstable();
        busy.dedup();
        let mut woken: Vec<(IpAddr, u32)> = Vec::new();
        let used = self.warm.len() - self.free.len() - self.prefixes.len();
        let room = self.config.warm_hosts_max.saturating_sub(used);
        for &place in &busy {
            let idle = &self.idle[place as usize];
            // Three samples at the least: one sampled packet alone is no business.
            let samples = part_samples(idle.packets, idle.packets, idle.variance);
            if idle.warm == NONE && (samples >= 3.0 || idle.variance == 0) {
                if room == 0 {
                    self.counters.warm_refused += 1;
                } else {
                    woken.push((idle.address, place));
                }
            }
        }
        woken.sort_unstable();
        for (address, place) in woken {
            self.warm_up(address, place);
        }
        let mut cold = std::mem::take(&mut self.cold);
        // A search among the few that are busy costs less than a look at every quiet host.
        for (place, time, cell) in cold.of(|place| busy.binary_search(&place).is_ok()) {
            self.add_warm(self.idle[place as usize].warm, time, &cell);
        }
        cold.clear();
        self.cold = cold;
        busy.clear();
        self.busy = busy;
    }

    /// Begins to watch a host in detail.
    pub(crate) fn warm_up(&mut self, address: IpAddr, place: u32) {
        let used = self.warm.len() - self.free.len() - self.prefixes.len();
        if used >= self.config.warm_hosts_max {
            self.counters.warm_refused += 1;
            return;
        }
        let met = u64::from(self.idle[place as usize].since);
        // A host that was silent until now has been watched all the same.
        let since = self.since.map_or(met, |since| since.min(met));
        let slot = self.clock.slot();
        let mut warm = Warm::new(IpNet::from(address), Kind::Host, since, slot, &self.config);
        warm.met = met;
        let second = slot / SLOTS_PER_SEC;
        let rules = self.rules_of(warm.target);
        if warm.series.learning(&self.config, second) {
            let kinds = pool::kinds(&self.inventory, warm.target, rules.as_deref());
            warm.series.borrowed = self.pool.normal(kinds);
        }
        warm.series.foreknown = foreknown::of_host(&self.inventory, address);
        warm.series.heed(rules, &self.config, second);
        if !self.inventory.services_of(address).is_empty() {
            self.detail(&mut warm);
        }
        let Some(at) = self.store(Box::new(warm)) else { return };
        self.idle[place as usize].warm = at;
        self.sweep[sweep_slot(address)].push(at);
    }

    /// Has packets kept of a host's normal traffic, if there is room for one more.
    fn detail(&mut self, warm: &mut Warm) {
        warm.detailed = self.profiles < self.config.profiles_max;
        if warm.detailed {
            self.profiles += 1;
        } else {
            self.counters.profiles_refused += 1;
        }
    }

    /// Hands samples to the profiles of watched hosts and prefixes.
    pub(crate) fn keep_samples(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        let now = self.clock.secs();
        let mut alike = std::mem::take(&mut self.alike);
        for Pending { host, mut packet } in pending.drain(..) {
            // Packets of one flow in one datagram have the same content. Kept or thinned out together
            // they would tell no more than one of them.
            let before = alike.entry(u64::from(host) << 32 | u64::from(packet.hash)).or_default();
            packet.hash = nth(packet.hash, *before);
            *before += 1;
            let Idle { prefix, warm, .. } = self.idle[host as usize];
            // What is attacked anywhere is normal nowhere: a host's attack not of its prefix, a prefix's
            // not of its hosts.
            let attacked = self.warm_place(warm).is_some_and(|w| w.series.suspected(now));
            let mut carpet = false;
            let mut next = self.warm_place(prefix).map_or(NONE, |w| w.wide);
            let mut at = prefix;
            while let Some(Some(around)) = self.warm.get_mut(at as usize) {
                let own = around.series.suspected(now);
                carpet |= around.carpet_until >= now;
                let normal = around.detailed && !own && !attacked;
                around.profile_of(packet.direction).push(packet, normal);
                (at, next) = self.wide.get(next as usize).map_or((NONE, NONE), |w| (w.at, w.up));
            }
            if let Some(Some(warm)) = self.warm.get_mut(warm as usize) {
                let normal = warm.detailed && !attacked && !carpet;
                warm.profile_of(packet.direction).push(packet, normal);
                warm.meet(&packet);
            }
        }
        self.pending = pending;
        alike.clear();
        self.alike = alike;
    }

    /// What is watched at a place.
    fn warm_place(&self, at: u32) -> Option<&Warm> {
        self.warm.get(at as usize)?.as_deref()
    }

    /// Thins the evidence of what was touched: after it was judged, so that the first slot of an
    /// attack is judged by all that is known of it.
    pub(crate) fn thin(&mut self, touched: &[u32]) {
        let (slot, now) = (self.clock.slot(), self.clock.secs());
        let share = quiet_share(self.warm.len() - self.free.len());
        for &at in touched {
            if let Some(Some(warm)) = self.warm.get_mut(at as usize) {
                let eager = warm.series.kind == Kind::Prefix && warm.detailed;
                let capacity = if eager || warm.series.suspected(now) {
                    NOW_MAX
                } else if warm.detailed || warm.series.window.is_fine() {
                    NOW_QUIET_MAX
                } else {
                    share
                };
                warm.profile.trim(slot, capacity);
                warm.sent.trim(slot, capacity);
            }
        }
    }

    /// Services that were touched in this slot, in order.
    pub(crate) fn take_touched_services(&mut self) -> Vec<(IpAddr, ServiceKey)> {
        let mut touched: Vec<(IpAddr, ServiceKey)> = self
            .touched_services
            .drain(..)
            .map(|key| (self.idle[key.0 as usize].address, key))
            .collect();
        touched.sort_unstable_by_key(|(host, key)| (*host, key.1, key.2));
        for (_, key) in &touched {
            if let Some(service) = self.services.get_mut(key) {
                service.touched = false;
            }
        }
        touched
    }
}

/// The slot of a ten-second round in which a host is looked after: by its address, so that it does
/// not depend on when it was first seen.
pub(crate) fn sweep_slot(address: IpAddr) -> usize {
    let wide = match address {
        IpAddr::V4(a) => u64::from(u32::from(a)),
        IpAddr::V6(a) => {
            let a = u128::from(a);
            #[expect(clippy::cast_possible_truncation, reason = "halves of an address")]
            let folded = (a >> 64) as u64 ^ a as u64;
            folded
        }
    };
    usize::try_from(mix(0, wide) % SWEEP as u64).unwrap_or(0)
}

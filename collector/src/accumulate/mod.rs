//! Records to [`Slice`]: sums for each protected host and declared service.
//!
//! Idle hosts cost 16 octets: a place in a dense index that says where, in the slice being filled,
//! the host's sums are. The sums are made in the slice's own vectors, so sealing is a swap. Records
//! come in small groups: the places of a whole group are looked up before any is used, so that
//! their cache misses overlap.

mod expect;
mod hash;
mod own;
mod ranges;
mod repeats;
mod route;
mod samples;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use weir_model::{
    Class, ClassVolume, Direction, ExporterId, FINE_SLOTS, FlowRecord, Forwarding, HostSlice,
    Inventory, LongFlow, Millis, ServiceSlice, Slice, prefetch, tcp_flags,
};

use crate::config::Config;
use crate::decode::{LONG_FLOW_MS, Visit};
use crate::time::Timeouts;
use expect::Expected;
use hash::source_bit;
use own::Own;
use ranges::{Place, Ranges};
use repeats::Watch;
use samples::Reservoir;

pub(crate) use repeats::Repeats;
pub(crate) use route::{Router, Share};

/// Records looked up together.
const GROUP: usize = 32;
/// No entry.
const NONE: u32 = u32::MAX;

/// Things that did not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overflow {
    pub(crate) hosts: u64,
    pub(crate) ipv6_merged: u64,
    pub(crate) long_flows: u64,
}

/// Where a host's sums are in the present slice.
#[derive(Clone, Copy, Debug)]
struct HostPlace {
    /// The slice for which `head` holds.
    epoch: u32,
    /// Its newest entry in `hosts`, or [`NONE`].
    head: u32,
    /// First of its declared services in `services`.
    services: u32,
    /// How many.
    service_count: u32,
}

/// Records that wait to be added up, and the places of the hosts they go to and come from.
#[derive(Debug)]
struct Group {
    records: [FlowRecord; GROUP],
    places: [(u32, u32); GROUP],
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct ServicePlace {
    protocol: u8,
    port: u16,
    epoch: u32,
    head: u32,
}

/// The slice being filled.
#[derive(Debug)]
pub(crate) struct Accumulator {
    ranges: Ranges,
    places: Vec<HostPlace>,
    dense: usize,
    /// Hosts without a place in the dense index, for the present slice. Its keys come from the
    /// network, so it uses the standard library's keyed hash; nothing iterates over it.
    mapped: HashMap<IpAddr, u32>,
    services: Vec<ServicePlace>,
    inventory: Arc<Inventory>,
    epoch: u32,
    /// Records that wait; absent while they are being added up.
    group: Option<Box<Group>>,
    hosts: Vec<HostSlice>,
    /// For each of `hosts`, the same host's entry of another slot.
    host_next: Vec<u32>,
    service_sums: Vec<ServiceSlice>,
    service_next: Vec<u32>,
    long_flows: Vec<LongFlow>,
    /// What metrics of an operator's own count; none when there are none.
    own: Option<Box<Own>>,
    expected: Expected,
    samples: Reservoir,
    slot: u64,
    overflow: Overflow,
    /// The hosts that are this accumulator's to add up, when there are several.
    share: Option<Share>,
    /// Finds what another exporter has told of.
    watch: Watch,
    /// Whether the records that come have waited for their template.
    waiting: bool,
    /// Hosts of those that did, and until when what they tell passed.
    waited: BTreeMap<IpAddr, Millis>,
    max_hosts: usize,
    max_mapped: usize,
    max_long_flows: usize,
}

impl Overflow {
    pub(crate) fn add(&mut self, other: Self) {
        self.hosts = self.hosts.wrapping_add(other.hosts);
        self.ipv6_merged = self.ipv6_merged.wrapping_add(other.ipv6_merged);
        self.long_flows = self.long_flows.wrapping_add(other.long_flows);
    }
}

impl Visit for Accumulator {
    #[inline]
    fn record(&mut self, record: &FlowRecord) {
        self.make(|| *record);
    }

    #[inline]
    fn make(&mut self, new: impl FnOnce() -> FlowRecord) {
        self.make_if(|record| {
            *record = new();
            true
        });
    }

    #[inline]
    fn make_if(&mut self, fill: impl FnOnce(&mut FlowRecord) -> bool) {
        let Some(mut group) = self.group.take() else { return };
        let at = group.len;
        if let Some(record) = group.records.get_mut(at)
            && fill(record)
        {
            record.waited |= self.waiting;
            let places = (self.place(&record.dst), self.place(&record.src));
            self.fetch_places(places);
            if let Some(found) = group.places.get_mut(at) {
                *found = places;
            }
            group.len += 1;
            if group.len >= GROUP {
                self.add_group(&mut group);
            }
        }
        self.group = Some(group);
    }

    fn waited(&mut self, waited: bool) {
        self.waiting = waited;
    }

    fn timeouts(&mut self, exporter: ExporterId, timeouts: Timeouts) {
        self.expected.timeouts(exporter, timeouts);
    }
}

impl Accumulator {
    pub(crate) fn new(config: &Config, inventory: Arc<Inventory>) -> Self {
        let mut accumulator = Self {
            ranges: Ranges::default(),
            places: Vec::new(),
            dense: 0,
            mapped: HashMap::new(),
            services: Vec::new(),
            inventory: Arc::default(),
            epoch: 1,
            group: Some(Box::new(Group {
                records: [FlowRecord::EMPTY; GROUP],
                places: [(NONE, NONE); GROUP],
                len: 0,
            })),
            hosts: Vec::new(),
            host_next: Vec::new(),
            service_sums: Vec::new(),
            service_next: Vec::new(),
            long_flows: Vec::new(),
            own: None,
            expected: Expected::new(config.max_long_flows_per_slice),
            samples: Reservoir::new(config.max_samples_per_slice),
            slot: 0,
            overflow: Overflow::default(),
            share: None,
            watch: Watch::default(),
            waiting: false,
            waited: BTreeMap::new(),
            max_hosts: config.max_hosts_per_slice,
            max_mapped: config.max_ipv6_hosts_per_slice,
            max_long_flows: config.max_long_flows_per_slice,
        };
        accumulator.set_inventory(inventory);
        accumulator
    }

    /// One of several accumulators that share the hosts, and the room for what they see.
    pub(crate) fn of_share(config: &Config, inventory: Arc<Inventory>, share: Share) -> Self {
        let mut accumulator = Self::new(config, inventory);
        accumulator.share = Some(share);
        let part = |limit: usize| limit.div_ceil(share.of as usize);
        accumulator.max_hosts = part(config.max_hosts_per_slice);
        accumulator.max_mapped = part(config.max_ipv6_hosts_per_slice);
        accumulator.max_long_flows = part(config.max_long_flows_per_slice);
        accumulator.expected = Expected::new(accumulator.max_long_flows);
        accumulator.samples = Reservoir::new(part(config.max_samples_per_slice));
        accumulator
    }

    /// Leaves out what other exporters have told of, as all who share `repeats` have learned.
    pub(crate) fn leave_out(&mut self, repeats: Arc<Repeats>) {
        self.watch = Watch::new(repeats);
    }

    /// Protects something else from now on. What the present slice holds stays in it.
    pub(crate) fn set_inventory(&mut self, inventory: Arc<Inventory>) {
        self.flush();
        self.ranges = Ranges::new(&inventory.protected);
        self.dense = usize::try_from(self.ranges.dense()).unwrap_or(0);
        self.places =
            vec![HostPlace { epoch: 0, head: NONE, services: 0, service_count: 0 }; self.dense];
        self.mapped.clear();
        self.services = inventory
            .services
            .iter()
            .map(|s| ServicePlace { protocol: s.protocol, port: s.port, epoch: 0, head: NONE })
            .collect();
        let mut from = 0;
        while let Some(service) = inventory.services.get(from) {
            let count = inventory.services_of(service.address).len().max(1);
            if let Some(Place::Dense(index)) = self.ranges.place(&service.address) {
                let place = &mut self.places[index as usize];
                place.services = u32::try_from(from).unwrap_or(NONE);
                place.service_count = u32::try_from(count).unwrap_or(0);
            }
            from += count;
        }
        if self.own.as_ref().map_or(0, |own| own.key()) != inventory.metrics.key() {
            self.own = Own::new(&inventory.metrics);
            // Their numbers are those of other metrics now.
            self.long_flows.iter_mut().for_each(|flow| flow.metrics = 0);
        }
        self.inventory = inventory;
    }

    /// The slot that arrivals belong to now: no event can be later.
    pub(crate) fn arrive(&mut self, now: Millis) {
        self.slot = self.slot.max(now.slot());
    }

    pub(crate) fn overflow(&self) -> Overflow {
        self.overflow
    }

    /// Adds up the records waiting in the group.
    pub(crate) fn flush(&mut self) {
        if let Some(mut group) = self.group.take() {
            self.add_group(&mut group);
            self.group = Some(group);
        }
    }

    /// Has the places of a record's hosts fetched, long before they are looked at.
    #[inline]
    fn fetch_places(&self, (inbound, outbound): (u32, u32)) {
        for place in [inbound, outbound] {
            if let Some(place) = self.places.get(place as usize) {
                prefetch(place);
            }
        }
    }

    fn add_group(&mut self, group: &mut Group) {
        let waiting = std::mem::take(&mut group.len).min(GROUP);
        let records = &group.records[..waiting];
        // First all sums are fetched, so that their cache misses overlap, then added to.
        for (record, (inbound, outbound)) in records.iter().zip(&group.places) {
            for place in [*inbound, *outbound] {
                if let Some(place) = self.places.get(place as usize)
                    && place.epoch == self.epoch
                    && let Some(host) = self.hosts.get(place.head as usize)
                {
                    prefetch(&host.slot);
                    prefetch(&host.inbound[Class::of(record) as usize].packets);
                }
            }
        }
        for (record, (inbound, outbound)) in records.iter().zip(&group.places) {
            if (*inbound != NONE || *outbound != NONE)
                && !self.leaves_out(record, *inbound, *outbound)
            {
                self.add(record, *inbound, *outbound);
            }
        }
    }

    #[inline]
    fn leaves_out(&mut self, record: &FlowRecord, inbound: u32, outbound: u32) -> bool {
        let host = if inbound == NONE { record.src } else { record.dst };
        self.watch.leaves_out(record, host, outbound != NONE, self.slot / 10)
    }

    /// The place of a protected address, made if it has none yet; [`NONE`] if it is not protected.
    #[inline(always)]
    fn place(&mut self, address: &IpAddr) -> u32 {
        match self.ranges.place(address) {
            None => NONE,
            Some(Place::Dense(index)) if self.share.is_none() => index,
            Some(place) => self.other_place(*address, place),
        }
    }

    /// The place where it is not just a number: of a host that may be another share's, or that has no
    /// place in the dense index.
    #[inline(never)]
    fn other_place(&mut self, address: IpAddr, place: Place) -> u32 {
        match place {
            _ if self.share.is_some_and(|share| !share.holds(address)) => NONE,
            Place::Dense(index) => index,
            Place::Mapped => self.mapped_place(address),
        }
    }

    fn mapped_place(&mut self, address: IpAddr) -> u32 {
        if let Some(place) = self.mapped.get(&address) {
            return *place;
        }
        // Full: a flood of random addresses is added up by /64 (IPv4 by /24), in a reserve of the
        // same size, so that it is still seen and the sums made so far stay.
        let address = if self.mapped.len() < self.max_mapped {
            address
        } else {
            self.overflow.ipv6_merged = self.overflow.ipv6_merged.wrapping_add(1);
            let network = network_of(address);
            if let Some(place) = self.mapped.get(&network) {
                return *place;
            }
            if self.mapped.len() >= self.max_mapped.saturating_mul(2) {
                self.overflow.hosts = self.overflow.hosts.wrapping_add(1);
                return NONE;
            }
            network
        };
        let from = self.inventory.services.partition_point(|s| s.address < address);
        let place = HostPlace {
            epoch: 0,
            head: NONE,
            services: u32::try_from(from).unwrap_or(NONE),
            service_count: u32::try_from(self.inventory.services_of(address).len()).unwrap_or(0),
        };
        let index = u32::try_from(self.places.len()).unwrap_or(NONE);
        self.places.push(place);
        self.mapped.insert(address, index);
        index
    }

    fn add(&mut self, record: &FlowRecord, inbound: u32, outbound: u32) {
        let volume = ClassVolume { packets: record.scaled_packets(), bytes: record.scaled_bytes() };
        let variance = volume.packets.saturating_mul(u64::from(record.sampling));
        let class = Class::of(record);
        // Of a record that two shares see, the one with the destination keeps the evidence.
        if record.waited {
            self.note_waited(record, inbound, outbound);
        } else if inbound != NONE
            || self.share.is_none()
            || self.ranges.place(&record.dst).is_none()
        {
            self.samples.offer(record);
        }
        let duration = record.end.since(record.start);
        if duration > LONG_FLOW_MS && record.forwarding != Forwarding::Dropped {
            for (place, outbound) in [(inbound, false), (outbound, true)] {
                if place != NONE {
                    self.add_long(record, class, volume, variance, place, outbound);
                }
            }
            return;
        }
        self.settle(record, volume, inbound, outbound);
        // A short flow stands at its middle: at most half a second from where any of it was.
        let slot = self.grain((record.end - duration / 2).slot());
        if inbound != NONE {
            let bit = source_bit(record.src);
            let at = self.host_at(inbound, slot, record.dst);
            if let Some(host) = self.hosts.get_mut(at) {
                if record.forwarding == Forwarding::Dropped {
                    host.dropped.add(volume);
                } else {
                    host.inbound[class as usize].add(volume);
                    host.variance = host.variance.saturating_add(variance);
                    host.sources |= bit;
                    let service = self.service_at(
                        inbound,
                        record.protocol,
                        record.dst_port,
                        slot,
                        record.dst,
                    );
                    if let Some(service) = self.service_sums.get_mut(service) {
                        service.inbound.add(volume);
                        service.variance = service.variance.saturating_add(variance);
                        service.sources |= bit;
                    }
                    self.own_metrics(record, at, Direction::Inbound, volume, variance);
                }
            }
        }
        if outbound != NONE && record.forwarding != Forwarding::Dropped {
            let at = self.host_at(outbound, slot, record.src);
            if let Some(host) = self.hosts.get_mut(at) {
                host.outbound.add(volume);
                let flags = record.tcp_flags & (tcp_flags::SYN | tcp_flags::ACK);
                if record.protocol == 6 && flags == tcp_flags::SYN {
                    host.outbound_syn = host.outbound_syn.saturating_add(volume.packets);
                }
                let service =
                    self.service_at(outbound, record.protocol, record.src_port, slot, record.src);
                if let Some(service) = self.service_sums.get_mut(service) {
                    service.outbound.add(volume);
                }
                self.own_metrics(record, at, Direction::Outbound, volume, variance);
            }
        }
    }

    /// Adds a record up for the metrics of an operator's own that mean it, at its host's entry.
    #[inline(always)]
    fn own_metrics(
        &mut self,
        record: &FlowRecord,
        at: usize,
        way: Direction,
        volume: ClassVolume,
        variance: u64,
    ) {
        if let Some(own) = &mut self.own
            && let Some(host) = self.hosts.get(at)
        {
            own.add(record, way, (at, host), volume, variance, self.max_hosts);
        }
    }

    /// Remembers of whom a record speaks that is no news, and until when.
    #[cold]
    fn note_waited(&mut self, record: &FlowRecord, inbound: u32, outbound: u32) {
        for (place, host) in [(inbound, record.dst), (outbound, record.src)] {
            if place != NONE {
                let until = self.waited.entry(host).or_default();
                *until = record.end.max(*until);
            }
        }
    }

    /// The last record of a long flow may be short: what was expected of that flow ends with it.
    #[inline]
    fn settle(&mut self, record: &FlowRecord, volume: ClassVolume, inbound: u32, outbound: u32) {
        if self.expected.may_follow(record) && record.forwarding != Forwarding::Dropped {
            for (place, outbound) in [(inbound, false), (outbound, true)] {
                if place != NONE {
                    self.expected.exported_short(record, volume, outbound, self.slot);
                }
            }
        }
    }

    /// Slots of the last seconds as they are, older ones by the second.
    #[inline]
    fn grain(&self, slot: u64) -> u64 {
        let slot = slot.min(self.slot);
        if self.slot - slot < FINE_SLOTS { slot } else { slot / 10 * 10 + 5 }
    }

    /// The entry of a host and slot, made if need be; beyond all entries when there is no room.
    #[inline(always)]
    fn host_at(&mut self, place: u32, slot: u64, address: IpAddr) -> usize {
        // Nearly always it is the newest one.
        if let Some(known) = self.places.get(place as usize)
            && known.epoch == self.epoch
            && self.hosts.get(known.head as usize).is_some_and(|host| host.slot == slot)
        {
            return known.head as usize;
        }
        self.other_host_at(place, slot, address)
    }

    #[inline(never)]
    fn other_host_at(&mut self, place: u32, slot: u64, address: IpAddr) -> usize {
        let beyond = usize::MAX;
        let Some(place) = self.places.get_mut(place as usize) else { return beyond };
        if place.epoch != self.epoch {
            (place.epoch, place.head) = (self.epoch, NONE);
        }
        let mut at = place.head;
        while let Some(host) = self.hosts.get(at as usize) {
            if host.slot == slot {
                return at as usize;
            }
            at = self.host_next[at as usize];
        }
        if self.hosts.len() >= self.max_hosts {
            self.overflow.hosts = self.overflow.hosts.wrapping_add(1);
            return beyond;
        }
        let index = self.hosts.len();
        self.host_next.push(place.head);
        place.head = u32::try_from(index).unwrap_or(NONE);
        let merged = self.mapped.len() > self.max_mapped && !self.mapped.contains_key(&address);
        let host = if merged { network_of(address) } else { address };
        self.hosts.push(HostSlice::empty(host, slot));
        index
    }

    #[inline]
    fn service_at(
        &mut self,
        place: u32,
        protocol: u8,
        port: u16,
        slot: u64,
        host: IpAddr,
    ) -> usize {
        let beyond = usize::MAX;
        let Some(index) = self.service_index(place, protocol, port) else { return beyond };
        let service = &mut self.services[index];
        if service.epoch != self.epoch {
            (service.epoch, service.head) = (self.epoch, NONE);
        }
        let mut at = service.head;
        while let Some(sums) = self.service_sums.get(at as usize) {
            if sums.slot == slot {
                return at as usize;
            }
            at = self.service_next[at as usize];
        }
        if self.service_sums.len() >= self.max_hosts {
            self.overflow.hosts = self.overflow.hosts.wrapping_add(1);
            return beyond;
        }
        let index = self.service_sums.len();
        self.service_next.push(service.head);
        service.head = u32::try_from(index).unwrap_or(NONE);
        self.service_sums.push(ServiceSlice {
            host,
            protocol,
            port,
            slot,
            inbound: ClassVolume::default(),
            outbound: ClassVolume::default(),
            variance: 0,
            sources: 0,
        });
        index
    }

    #[inline]
    fn service_index(&self, place: u32, protocol: u8, port: u16) -> Option<usize> {
        let place = self.places.get(place as usize)?;
        if place.service_count == 0 {
            return None;
        }
        let from = place.services as usize;
        let own = self.services.get(from..from + place.service_count as usize)?;
        own.iter().position(|s| s.protocol == protocol && s.port == port).map(|i| from + i)
    }

    fn add_long(
        &mut self,
        record: &FlowRecord,
        class: Class,
        volume: ClassVolume,
        variance: u64,
        place: u32,
        outbound: bool,
    ) {
        if self.long_flows.len() >= self.max_long_flows {
            self.overflow.long_flows = self.overflow.long_flows.wrapping_add(1);
            return;
        }
        let (host, port) =
            if outbound { (record.src, record.src_port) } else { (record.dst, record.dst_port) };
        let service = self.service_index(place, record.protocol, port);
        self.long_flows.push(LongFlow {
            host,
            outbound,
            class,
            protocol: record.protocol,
            service_port: service.map_or(0, |_| port),
            start: record.start,
            end: record.end,
            volume,
            variance,
            metrics: self.own.as_ref().map_or(0, |own| {
                own.meant(record, if outbound { Direction::Outbound } else { Direction::Inbound })
            }),
        });
        self.expected.exported(record, volume, outbound, self.slot);
    }

    /// Fills `slice` with what came since the last time, and takes its emptied vectors in exchange.
    pub(crate) fn seal(&mut self, slot: u64, slice: &mut Slice) {
        self.flush();
        slice.hosts.clear();
        slice.services.clear();
        slice.long_flows.clear();
        std::mem::swap(&mut slice.hosts, &mut self.hosts);
        std::mem::swap(&mut slice.services, &mut self.service_sums);
        std::mem::swap(&mut slice.long_flows, &mut self.long_flows);
        slice.metrics.clear();
        slice.metrics_key = 0;
        if let Some(own) = &mut self.own {
            own.seal(slice);
        }
        self.expected.seal(slot, &mut slice.expected);
        self.samples.take(&mut slice.samples);
        slice.waited.clear();
        slice.waited.extend(std::mem::take(&mut self.waited));
        self.host_next.clear();
        self.service_next.clear();
        self.mapped.clear();
        self.places.truncate(self.dense);
        self.epoch = self.epoch.wrapping_add(1);
    }
}

/// The network that stands for an address once there is no room for single ones.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(a) => IpAddr::V4((a.to_bits() & 0xffff_ff00).into()),
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() >> 64 << 64)),
    }
}

//! Packets kept as evidence: what a host normally receives, and what it receives now.
//!
//! Everything is chosen by the content of a record, never by its place, so that the same traffic
//! over one shard or eight leaves the same evidence.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weir_model::{Direction, Forwarding, Fragment, Sample};

use crate::watch::cell::saturate;
use crate::watch::hash::mix;

/// Packets kept of the present, per host.
pub(crate) const NOW_MAX: usize = 384;
/// The same where nothing is suspected: enough to compare shapes by.
pub(crate) const NOW_QUIET_MAX: usize = 128;
/// Packets of the present kept of all quiet hosts together, where each has as many as these leave it.
const NOW_QUIET_ALL: usize = 1 << 20;
/// What is left to each at the least.
const NOW_QUIET_MIN: usize = 6;

/// Packets of the present that each of so many hosts may keep that are far from any threshold and have
/// no shape to compare.
pub(crate) fn quiet_share(hosts: usize) -> usize {
    (NOW_QUIET_ALL / hosts.max(1)).clamp(NOW_QUIET_MIN, NOW_QUIET_MAX)
}
/// Packets kept of what is normal, per host.
pub(crate) const AGED_MAX: usize = 192;
/// Packets kept of the minute that is still in quarantine, per host.
pub(crate) const RECENT_MAX: usize = 64;
/// Length of the present, slots, where exports come at once.
pub(crate) const NOW_SLOTS: u64 = 100;
/// Length of the present, slots, at most: where flows are exported once a minute.
pub(crate) const NOW_SLOTS_MAX: u64 = 900;

/// A record reduced to what rules and signatures look at. Packed, for there may be millions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[repr(Rust, packed(4))]
pub(crate) struct Packet {
    /// The far end (the source of what comes in), IPv4 mapped into IPv6.
    pub(crate) src: u128,
    /// Slot of arrival.
    pub(crate) slot: u64,
    /// Octets it stands for.
    pub(crate) bytes: u64,
    /// Packets it stands for.
    pub(crate) packets: u32,
    /// Content hash.
    pub(crate) hash: u32,
    /// Last 32 bits of the protected address.
    pub(crate) local: u32,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    /// Shortest and longest layer-3 length.
    pub(crate) length_min: u16,
    pub(crate) length_max: u16,
    pub(crate) exporter: u16,
    pub(crate) protocol: u8,
    pub(crate) tcp_flags: u8,
    pub(crate) icmp_type: u8,
    pub(crate) icmp_code: u8,
    pub(crate) ttl: u8,
    pub(crate) fragment: Fragment,
    pub(crate) direction: Direction,
    /// Whether only the average length of several packets is known.
    #[serde(default)]
    pub(crate) vague: bool,
    /// Whether its TCP control bits are known: where an exporter leaves them out, 0 is not a packet without any.
    #[serde(default)]
    pub(crate) flags_said: bool,
}

fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// Last 32 bits of a protected address, as in [`Packet::local`].
#[expect(clippy::cast_possible_truncation, reason = "the last 32 bits")]
pub(crate) fn local_of(address: IpAddr) -> u32 {
    wide(address) as u32
}

/// The address behind [`Packet::src`].
pub(crate) fn narrow(address: u128) -> IpAddr {
    std::net::Ipv6Addr::from(address).to_canonical()
}

impl Packet {
    /// Reduces a sample that was received in `slot`, seen from the protected end.
    #[expect(clippy::cast_possible_truncation, reason = "halves of addresses and hashes")]
    pub(crate) fn new(sample: &Sample, slot: u64, direction: Direction) -> Self {
        let r = &sample.record;
        let (far, near) = match direction {
            Direction::Inbound => (r.src, r.dst),
            Direction::Outbound => (r.dst, r.src),
        };
        let (src, local) = (wide(far), wide(near) as u32);
        let weight = u64::from(sample.weight);
        let mut hash = mix(slot ^ u64::from(local) << 32, (src >> 64) as u64 ^ src as u64);
        hash = mix(hash, u64::from(r.src_port) << 16 | u64::from(r.dst_port));
        hash = mix(hash, r.bytes ^ r.packets << 40 ^ u64::from(r.ttl) << 32);
        hash = mix(hash, r.start.0 ^ r.end.0 << 24 ^ u64::from(r.tcp_flags) << 16);
        let (length_min, length_max, vague) = r.length_range();
        Self {
            src,
            slot,
            bytes: r.scaled_bytes().saturating_mul(weight),
            packets: saturate(r.scaled_packets().saturating_mul(weight)).max(1),
            hash: (hash >> 16) as u32,
            local,
            src_port: r.src_port,
            dst_port: r.dst_port,
            length_min,
            length_max,
            exporter: r.exporter.0,
            protocol: r.protocol,
            tcp_flags: r.single_flags(),
            icmp_type: r.icmp_type,
            icmp_code: r.icmp_code,
            ttl: r.ttl,
            fragment: r.likely_fragment(),
            direction,
            vague,
            flags_said: r.tcp_flags_said || r.tcp_flags != 0,
        }
    }

    /// The port on the protected side.
    pub(crate) const fn local_port(&self) -> u16 {
        match self.direction {
            Direction::Inbound => self.dst_port,
            Direction::Outbound => self.src_port,
        }
    }

    /// The port on the far side.
    pub(crate) const fn remote_port(&self) -> u16 {
        match self.direction {
            Direction::Inbound => self.src_port,
            Direction::Outbound => self.dst_port,
        }
    }

    /// Average layer-3 length.
    pub(crate) fn length(&self) -> u16 {
        u16::try_from(self.bytes / u64::from(self.packets.max(1))).unwrap_or(u16::MAX)
    }

    /// Whether the router let it pass.
    pub(crate) fn counts(sample: &Sample) -> bool {
        sample.record.forwarding != Forwarding::Dropped
    }

    /// SYN without ACK.
    pub(crate) const fn is_syn(&self) -> bool {
        self.protocol == 6 && self.tcp_flags & 0x12 == 0x02
    }

    /// Whether its TCP control bits are these of those in `mask`, for certain.
    pub(crate) const fn has_flags(&self, mask: u8, set: u8) -> bool {
        self.flags_said && self.may_have_flags(mask, set)
    }

    /// Whether they may be: nobody knows where the exporter does not say.
    pub(crate) const fn may_have_flags(&self, mask: u8, set: u8) -> bool {
        let known = self.flags_said || self.protocol != 6;
        (!known || self.tcp_flags & mask == set) && !self.lacks_header()
    }

    /// Whether it may belong to a TCP connection that is established.
    pub(crate) const fn may_be_established(&self) -> bool {
        self.protocol == 6 && (!self.flags_said || self.tcp_flags & 0x12 == 0x10)
    }

    /// A TCP segment too short for its own header, of which nobody reads flags: neither weir nor a router.
    pub(crate) const fn lacks_header(&self) -> bool {
        let least = if self.src >> 32 == 0xffff { 40 } else { 60 };
        self.protocol == 6 && self.length_max > 0 && self.length_max < least
    }

    /// ICMP of either version.
    pub(crate) const fn is_icmp(&self) -> bool {
        self.protocol == 1 || self.protocol == 58
    }

    /// The first octets of the source that one rule could name: IPv4 /24, IPv6 /48.
    pub(crate) const fn src_prefix(&self) -> u128 {
        if self.src >> 32 == 0xffff { self.src >> 8 } else { self.src >> 80 }
    }

    /// Coarse kind, for comparing shapes: protocol, what the ports say, length, fragment, flags.
    pub(crate) fn shape(&self, service: bool) -> u64 {
        let port = |p: u16| if p < 1024 { u64::from(p) } else { 1024 };
        let flags = if self.protocol == 6 { u64::from(self.tcp_flags & 0x16) } else { 0 };
        // Octaves from 64 up: finer bins would hold too few packets each to be compared.
        let length = 16 - (self.length() >> 6).leading_zeros();
        u64::from(self.protocol)
            | u64::from(service) << 8
            | u64::from(length) << 16
            | port(self.src_port) << 32
            | u64::from(self.fragment == Fragment::Later) << 48
            | flags << 49
    }
}

/// A packet with its place in a weighted sample: the larger the key, the sooner it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    key: f32,
    packet: Packet,
}

const _: () = assert!(size_of::<Kept>() <= 68, "there may be millions");

impl Kept {
    fn new(packet: Packet) -> Self {
        let uniform = (f64::from(packet.hash) + 1.0) / 4_294_967_296.0;
        #[expect(clippy::cast_possible_truncation, reason = "an order, not an account")]
        let key = (f64::from(packet.packets) / uniform) as f32;
        Self { key, packet }
    }

    /// Makes the packet stand for at least `packets` of its kind.
    fn stand_for(&mut self, packets: f32) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and `as` saturates"
        )]
        let packets = packets as u32;
        let had = u64::from(self.packet.packets.max(1));
        if u64::from(packets) > had {
            let length = self.packet.bytes / had;
            self.packet.packets = packets;
            self.packet.bytes = length.saturating_mul(u64::from(packets));
        }
    }
}

/// A weighted sample of bounded size ("priority sampling": key = weight / uniform hash).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Reservoir {
    kept: Vec<Kept>,
}

impl Reservoir {
    fn push(&mut self, packet: Packet, capacity: usize) {
        self.kept.push(Kept::new(packet));
        // Cut at twice the capacity: amortised, and the survivors are the same either way.
        if self.kept.len() >= capacity * 2 {
            self.cut(capacity);
        }
    }

    fn cut(&mut self, capacity: usize) {
        self.kept.sort_by(|a, b| {
            b.key.total_cmp(&a.key).then_with(|| order(&a.packet).cmp(&order(&b.packet)))
        });
        self.kept.truncate(capacity);
    }
}

/// A total order by content.
fn order(p: &Packet) -> (u32, u64, u128, u16, u16, u64, u32) {
    (p.hash, p.slot, p.src, p.src_port, p.dst_port, p.bytes, p.packets)
}

/// What a host receives: now, lately (in quarantine), and normally.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Form", into = "Form")]
pub(crate) struct Profile {
    now: Vec<Kept>,
    /// Length of the present, slots.
    horizon: u64,
    /// What may be normal and what is, where packets are kept of that.
    past: Option<Box<Past>>,
    /// Minute that `recent` belongs to.
    minute: u64,
    /// Minutes that went into `aged`.
    pub(crate) minutes: u32,
}

/// What was received before.
#[derive(Clone, Debug, Default)]
struct Past {
    recent: Reservoir,
    /// Filled before `recent`, still in quarantine.
    waiting: Reservoir,
    aged: Reservoir,
}

/// A profile in a checkpoint, without what is soon stale.
#[derive(Serialize, Deserialize)]
struct Form {
    recent: Reservoir,
    waiting: Reservoir,
    aged: Reservoir,
    minute: u64,
    minutes: u32,
}

impl From<Form> for Profile {
    fn from(form: Form) -> Self {
        let Form { recent, waiting, aged, minute, minutes } = form;
        let empty = [&recent, &waiting, &aged].iter().all(|r| r.kept.is_empty());
        let past = (!empty).then(|| Box::new(Past { recent, waiting, aged }));
        Self { now: Vec::new(), horizon: 0, past, minute, minutes }
    }
}

impl From<Profile> for Form {
    fn from(profile: Profile) -> Self {
        let Past { recent, waiting, aged } = profile.past.map(|past| *past).unwrap_or_default();
        Self { recent, waiting, aged, minute: profile.minute, minutes: profile.minutes }
    }
}

/// Gives back what a list has to spare.
fn shrink(list: &mut Vec<Kept>) {
    if list.capacity() > 2 * list.len() + 8 {
        list.shrink_to_fit();
    }
}

/// Makes room for one more, at first for as many as a quiet host may have and one to be thinned out:
/// what is grown in steps leaves holes behind.
fn grow(list: &mut Vec<Kept>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 2).max(NOW_QUIET_MIN + 1));
    }
}

impl Profile {
    /// Adds one packet received now, which may become `normal`; [`Profile::trim`] is due at the end
    /// of the slot.
    pub(crate) fn push(&mut self, packet: Packet, normal: bool) {
        grow(&mut self.now);
        self.now.push(Kept::new(packet));
        if normal {
            self.past.get_or_insert_default().recent.push(packet, RECENT_MAX);
        }
    }

    /// Forgets what is no longer the present, and thins what is too much: the heavier stay, and
    /// stand for those that went.
    pub(crate) fn trim(&mut self, slot: u64, capacity: usize) {
        let horizon = self.horizon.clamp(NOW_SLOTS, NOW_SLOTS_MAX);
        if self.now.len() <= capacity {
            return;
        }
        self.now.retain(|k| k.packet.slot + horizon > slot);
        if self.now.len() <= capacity {
            return;
        }
        self.now.sort_by(|a, b| {
            b.key.total_cmp(&a.key).then_with(|| order(&a.packet).cmp(&order(&b.packet)))
        });
        let bar = self.now[capacity].key;
        self.now.truncate(capacity);
        for kept in &mut self.now {
            kept.stand_for(bar);
        }
    }

    /// Octets on the heap.
    pub(crate) fn heap(&self) -> usize {
        let past = self.past.as_deref().map_or(0, |past| {
            let kept = [&past.recent, &past.waiting, &past.aged].map(|r| r.kept.capacity());
            kept.iter().sum::<usize>() * size_of::<Kept>() + size_of::<Past>()
        });
        past + self.now.capacity() * size_of::<Kept>()
    }

    /// Gives back the memory of what is no longer the present.
    pub(crate) fn rest(&mut self, slot: u64) {
        let horizon = self.horizon.clamp(NOW_SLOTS, NOW_SLOTS_MAX);
        self.now.retain(|k| k.packet.slot + horizon > slot);
        shrink(&mut self.now);
        if let Some(Past { recent, waiting, aged }) = self.past.as_deref_mut() {
            [recent, waiting, aged].into_iter().for_each(|list| shrink(&mut list.kept));
        }
    }

    /// Sets the length of the present: as long as exports may lag.
    pub(crate) const fn set_horizon(&mut self, slots: u64) {
        self.horizon = slots;
    }

    /// Once in a while: moves minutes on. What was received while under suspicion is forgotten.
    pub(crate) fn tick(&mut self, minute: u64, attacked: bool) {
        if minute == self.minute {
            return;
        }
        self.minute = minute;
        let Some(Past { recent, waiting, aged }) = self.past.as_deref_mut() else { return };
        if attacked {
            recent.kept.clear();
            waiting.kept.clear();
            return;
        }
        recent.cut(RECENT_MAX);
        let released = std::mem::replace(waiting, std::mem::take(recent));
        if released.kept.is_empty() {
            return;
        }
        self.minutes = self.minutes.saturating_add(1);
        // Old packets yield slowly: half their weight every quarter of an hour.
        const DECAY: f32 = 0.955;
        for kept in &mut aged.kept {
            kept.key *= DECAY;
        }
        aged.kept.extend(released.kept);
        aged.cut(AGED_MAX);
    }

    /// Forgets what is in quarantine of one protected address since a slot.
    pub(crate) fn forget(&mut self, local: u32, from: u64) {
        let Some(past) = self.past.as_deref_mut() else { return };
        for list in [&mut past.recent, &mut past.waiting] {
            list.kept.retain(|k| k.packet.local != local || k.packet.slot < from);
        }
    }

    /// What is kept of the present, in no order.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Packet> {
        self.now.iter().map(|k| &k.packet)
    }

    /// What arrived in the last `slots` slots, in an order that depends on content only.
    pub(crate) fn latest(&self, slot: u64, slots: u64) -> Vec<Packet> {
        let mut now: Vec<Packet> =
            self.now.iter().map(|k| k.packet).filter(|p| p.slot + slots > slot).collect();
        now.sort_by_key(order);
        now
    }

    /// What is normal: aged packets with the number of packets each stands for, made equal for
    /// those that a fair draw would have kept anyway.
    pub(crate) fn normal(&self) -> Vec<(Packet, f64)> {
        let aged = self.past.as_deref().map_or([].as_slice(), |past| &past.aged.kept);
        let mut kept: Vec<&Kept> = aged.iter().collect();
        kept.sort_by_key(|k| order(&k.packet));
        // Priority sampling: each kept packet stands for at least the threshold key.
        let full = kept.len() >= AGED_MAX;
        let least = kept.iter().map(|k| k.key).fold(f32::INFINITY, f32::min);
        let least = if full { f64::from(least) } else { 0.0 };
        kept.iter().map(|k| (k.packet, f64::from(k.packet.packets).max(least))).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use weir_model::FlowRecord;

    use super::*;

    /// One sampled packet towards 203.0.113.7.
    pub(crate) fn sample(src: u32, sport: u16, protocol: u8, dport: u16, length: u16) -> Sample {
        Sample {
            record: FlowRecord {
                src: IpAddr::from(src.to_be_bytes()),
                dst: "203.0.113.7".parse().unwrap(),
                src_port: sport,
                dst_port: dport,
                protocol,
                tcp_flags: if protocol == 6 { 0x10 } else { 0 },
                ttl: 60,
                length_min: length,
                length_max: length,
                bytes: u64::from(length),
                sampling: 1000,
                ..FlowRecord::EMPTY
            },
            weight: 1,
        }
    }

    /// The same, reduced.
    pub(crate) fn inbound(sample: &Sample, slot: u64) -> Packet {
        Packet::new(sample, slot, Direction::Inbound)
    }

    #[test]
    fn quiet_hosts_share_what_is_kept_of_the_present() {
        assert_eq!([0, 1, 8192].map(quiet_share), [NOW_QUIET_MAX; 3]);
        assert_eq!([16_384, 200_000].map(quiet_share), [64, NOW_QUIET_MIN]);
    }

    #[test]
    fn the_aged_sample_does_not_depend_on_order() {
        let packets: Vec<Packet> =
            (0..2000).map(|i| inbound(&sample(i, 4000, 17, 28015, 100), 7)).collect();
        let fill = |iter: &mut dyn Iterator<Item = &Packet>| {
            let mut profile = Profile::default();
            profile.tick(1, false);
            for p in iter {
                profile.push(*p, true);
            }
            profile.tick(2, false);
            profile.tick(3, false);
            profile.trim(7, NOW_MAX);
            (profile.normal(), profile.latest(7, 100))
        };
        let (forward, now) = fill(&mut packets.iter());
        assert_eq!((forward.clone(), now), fill(&mut packets.iter().rev()));
        assert_eq!(forward.len(), RECENT_MAX);
    }

    #[test]
    fn what_came_under_suspicion_never_becomes_normal() {
        let mut profile = Profile::default();
        profile.tick(1, false);
        for i in 0..100 {
            profile.push(inbound(&sample(i, 4000, 17, 28015, 100), 600), true);
        }
        profile.tick(2, true);
        profile.tick(3, false);
        profile.tick(4, false);
        assert!(profile.normal().is_empty());
    }
}

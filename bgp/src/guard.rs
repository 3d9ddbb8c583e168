//! The last step before the wire: nothing reaches an adapter but what passed here.
//!
//! Invariants of an [`Admitted`] state, whatever was desired:
//! - every destination lies inside a protected prefix and shares no address with a never-touch one
//!   or with what weir itself depends on;
//! - no FlowSpec rule names a source of an allow list;
//! - nothing is wider than the configured maximum, and what discards all traffic of its
//!   destination is held to the stricter limits of black holes, however it is spelled;
//! - every entry has an open incident or a named operator behind it and has not expired;
//! - the caps per incident, of black holes, and in total hold;
//! - at most so many new measures enter in any minute. Withdrawals are never held back.
//!
//! Only [`Guard::admit`] makes an [`Admitted`], so an adapter that takes nothing else cannot be
//! given anything unchecked.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weir_model::{
    Action, AllowName, DesiredState, Filter, FragmentMatch, IncidentId, Inventory, Match, Measure,
    Millis, Mitigation, MitigationId, MitigationState, Originator, Part, Redirect,
};

mod everything;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// A rate limit of this many octets a second (100 kbit/s) or fewer is judged as a drop: nothing a player
/// does survives it.
pub const NEAR_DROP_BYTES_PER_SEC: u64 = 12_500;

/// A rate limit of this many packets a second or fewer is judged as a drop.
pub const NEAR_DROP_PACKETS_PER_SEC: u64 = 100;

/// Longest window of changes remembered; a larger `max_changes_per_min` is cut to this.
pub const CHANGES_REMEMBERED_MAX: u32 = 100_000;

const MINUTE_MS: u64 = 60_000;

/// Section `[guard]`: what may never be exceeded, whoever asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Shortest IPv4 prefix that a mitigation may name, 8-32.
    pub max_width4: u8,
    /// Shortest IPv6 prefix that a mitigation may name, 16-128.
    pub max_width6: u8,
    /// Shortest IPv4 prefix of a FlowSpec rule that also names a protocol with source ports (at
    /// most 1,024), flags or fragments, 8-32: one rule on the reflectors' port can then meet a
    /// carpet over a /20.
    pub max_width4_narrow: u8,
    /// The same for IPv6, 16-128.
    pub max_width6_narrow: u8,
    /// Shortest IPv4 prefix that may be black-holed, 8-32.
    pub rtbh_min_len4: u8,
    /// Shortest IPv6 prefix that may be black-holed, 16-128.
    pub rtbh_min_len6: u8,
    /// Maximum number of active mitigations of one incident.
    pub max_per_incident: u32,
    /// Maximum number of active mitigations.
    pub max_total: u32,
    /// Maximum number of active black holes.
    pub max_rtbh_total: u32,
    /// Maximum number of new mitigations in any 60 seconds. The first state after a start does not
    /// count: it resumes what was active.
    pub max_changes_per_min: u32,
    /// Longest time a measure may still have to run, seconds.
    pub max_ttl_secs: u64,
    /// Whether FlowSpec may redirect traffic, which can leak it into another routing table.
    pub allow_redirect: bool,
    /// Longest IPv4 prefix that may be diverted by a route, 8-32: what is longer than a /24 is carried
    /// by nobody beyond the own network. Set it to 32 where the filter stands in it.
    pub divert_max_len4: u8,
    /// The same of IPv6, 16-128.
    pub divert_max_len6: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_width4: 24,
            max_width6: 48,
            max_width4_narrow: 16,
            max_width6_narrow: 32,
            rtbh_min_len4: 32,
            rtbh_min_len6: 128,
            max_per_incident: 16,
            max_total: 1000,
            max_rtbh_total: 16,
            max_changes_per_min: 120,
            max_ttl_secs: 86_400,
            allow_redirect: false,
            divert_max_len4: 24,
            divert_max_len6: 48,
        }
    }
}

/// Source ports that a rule may list to be one on certain services.
const NARROW_PORTS_MAX: u32 = 1_024;

/// Whether a rule says of a protocol which packets it means, beyond where they go to.
fn is_narrow(measure: &Measure) -> bool {
    let Measure::FlowSpec(filter) = measure else { return false };
    let m = &filter.packets;
    let ports: u32 = m.src_ports.iter().map(|r| u32::from(r.to.saturating_sub(r.from)) + 1).sum();
    let says = (1..=NARROW_PORTS_MAX).contains(&ports)
        || !m.tcp_flags.is_empty()
        || matches!(m.fragment, Some(FragmentMatch::IsFragment | FragmentMatch::Last));
    m.protocols.len() == 1 && says
}

/// What is wrong with a [`Config`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value} is outside {from}-{to}")]
pub struct ConfigError {
    /// The setting.
    pub field: &'static str,
    /// Its value.
    pub value: u64,
    /// Smallest legal value.
    pub from: u64,
    /// Largest legal value.
    pub to: u64,
}

impl Config {
    /// Checks every setting against its range.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting out of range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let settings = [
            ("max_width4", u64::from(self.max_width4), 8, 32),
            ("max_width6", u64::from(self.max_width6), 16, 128),
            ("max_width4_narrow", u64::from(self.max_width4_narrow), 8, 32),
            ("max_width6_narrow", u64::from(self.max_width6_narrow), 16, 128),
            ("rtbh_min_len4", u64::from(self.rtbh_min_len4), 8, 32),
            ("rtbh_min_len6", u64::from(self.rtbh_min_len6), 16, 128),
            ("divert_max_len4", u64::from(self.divert_max_len4), 8, 32),
            ("divert_max_len6", u64::from(self.divert_max_len6), 16, 128),
            (
                "max_changes_per_min",
                u64::from(self.max_changes_per_min),
                1,
                u64::from(CHANGES_REMEMBERED_MAX),
            ),
            ("max_ttl_secs", self.max_ttl_secs, 10, 30 * 86_400),
        ];
        settings.into_iter().try_for_each(|(field, value, from, to)| {
            if (from..=to).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError { field, value, from, to })
            }
        })
    }
}

/// Which rule a measure broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not wholly inside one protected prefix.
    #[error("{0} is not inside a protected prefix")]
    NotProtected(IpNet),
    /// Shares an address with a never-touch prefix.
    #[error("{0} overlaps a never-touch prefix")]
    NeverTouch(IpNet),
    /// Holds a host that weir itself depends on.
    #[error("{net} holds {address}, {}: nothing is announced for it (protect.touchable)", part.title())]
    Infrastructure {
        /// The destination asked for.
        net: IpNet,
        /// The host.
        address: IpAddr,
        /// What it is.
        part: Part,
    },
    /// Names a source of an allow list.
    #[error(
        "its source {source_net} has addresses of the allow list {list}, which no rule may hit"
    )]
    Allowed {
        /// The source asked for.
        source_net: IpNet,
        /// The list.
        list: AllowName,
    },
    /// Wider than `[guard]` allows.
    #[error("{net} is wider than the allowed /{min_len}")]
    TooWide {
        /// The destination asked for.
        net: IpNet,
        /// Shortest allowed length.
        min_len: u8,
    },
    /// A route for so few addresses would not be carried as far as it has to be.
    #[error("{net} is longer than the /{max_len} that may be diverted")]
    TooLong {
        /// The destination asked for.
        net: IpNet,
        /// Longest allowed length.
        max_len: u8,
    },
    /// No router could install it as meant.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// Redirection is switched off.
    #[error("redirect actions are not allowed (guard.allow_redirect)")]
    Redirect,
    /// Nobody is named as asking for it.
    #[error("no open incident and no named operator behind it")]
    NoOriginator,
    /// Its state is not active.
    #[error("not active")]
    NotActive,
    /// It has run out.
    #[error("expired")]
    Expired,
    /// It would run longer than allowed.
    #[error("would run longer than {max_secs} s")]
    TtlTooLong {
        /// Longest allowed, seconds.
        max_secs: u64,
    },
    /// An entry with the same route stands before it.
    #[error("the same match is already in force")]
    Duplicate,
    /// Too many measures for one incident.
    #[error("the incident already has {cap} measures")]
    IncidentCap {
        /// `[guard] max_per_incident`.
        cap: u32,
    },
    /// Too many measures in all.
    #[error("{cap} measures are already in force")]
    TotalCap {
        /// `[guard] max_total`.
        cap: u32,
    },
    /// Too many black holes in all.
    #[error("{cap} black holes are already in force")]
    RtbhCap {
        /// `[guard] max_rtbh_total`.
        cap: u32,
    },
    /// Too many new measures in a minute; it enters when the minute allows.
    #[error("more than {cap} new measures in a minute")]
    ChangeRate {
        /// `[guard] max_changes_per_min`.
        cap: u32,
    },
}

impl Refusal {
    /// Stable identifier for metrics labels.
    pub const fn id(self) -> &'static str {
        match self {
            Self::NotProtected(_) => "not-protected",
            Self::NeverTouch(_) => "never-touch",
            Self::Infrastructure { .. } => "infrastructure",
            Self::Allowed { .. } => "allow-list",
            Self::TooWide { .. } => "too-wide",
            Self::TooLong { .. } => "too-long",
            Self::Malformed(_) => "malformed",
            Self::Redirect => "redirect",
            Self::NoOriginator => "no-originator",
            Self::NotActive => "not-active",
            Self::Expired => "expired",
            Self::TtlTooLong { .. } => "ttl-too-long",
            Self::Duplicate => "duplicate",
            Self::IncidentCap { .. } => "incident-cap",
            Self::TotalCap { .. } => "total-cap",
            Self::RtbhCap { .. } => "rtbh-cap",
            Self::ChangeRate { .. } => "change-rate",
        }
    }

    /// Whether the same measure may pass later without anything about it changing.
    pub const fn is_passing(self) -> bool {
        matches!(
            self,
            Self::IncidentCap { .. }
                | Self::TotalCap { .. }
                | Self::RtbhCap { .. }
                | Self::ChangeRate { .. }
        )
    }
}

/// A desired state that passed the guard. The default is the state before anything was loaded:
/// generation 0, which no admission ever yields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    generation: u64,
    mitigations: Arc<[Mitigation]>,
    refused: Arc<[(MitigationId, Refusal)]>,
}

impl Admitted {
    /// What is to be in force, sorted by measure, one entry per measure.
    pub fn mitigations(&self) -> &[Mitigation] {
        &self.mitigations
    }

    /// The same list, shared.
    pub fn shared(&self) -> Arc<[Mitigation]> {
        Arc::clone(&self.mitigations)
    }

    /// The same state less what is kept back: a part of what may be announced may be announced.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&Mitigation) -> bool) -> Self {
        Self {
            mitigations: self.mitigations.iter().filter(|m| keep(m)).cloned().collect(),
            ..self.clone()
        }
    }

    /// Rises by one whenever the list changes; 0 before the first admission.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// What was desired and kept back, by number, with the rule it broke.
    pub fn refused(&self) -> &[(MitigationId, Refusal)] {
        &self.refused
    }
}

/// The guard: limits, what is protected, and what it admitted last.
#[derive(Clone, Debug)]
pub struct Guard {
    config: Config,
    inventory: Arc<Inventory>,
    admitted: Admitted,
    /// Times at which new measures entered within the last minute, oldest first.
    changes: VecDeque<Millis>,
}

impl Guard {
    /// A guard that has admitted nothing yet.
    pub fn new(config: Config, inventory: Arc<Inventory>) -> Self {
        Self { config, inventory, admitted: Admitted::default(), changes: VecDeque::new() }
    }

    /// Takes another inventory; what it no longer covers goes at the next admission.
    pub fn set_inventory(&mut self, inventory: Arc<Inventory>) {
        self.inventory = inventory;
    }

    /// Takes other limits; they hold from the next admission on.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// The limits in use.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What is protected.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// What was admitted last.
    pub const fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    /// Judges one mitigation by itself: where it points, how wide it is, who wants it. Caps, rates
    /// and expiry depend on everything else and on time, and are for [`Guard::admit`].
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn judge(&self, mitigation: &Mitigation) -> Result<(), Refusal> {
        if let Originator::Operator(name) = &mitigation.originator
            && name.trim().is_empty()
        {
            return Err(Refusal::NoOriginator);
        }
        self.judge_measure(&mitigation.measure)
    }

    /// Judges a measure alone, for a dry run.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn judge_measure(&self, measure: &Measure) -> Result<(), Refusal> {
        let net = measure.target();
        if net.trunc() != net {
            return Err(Refusal::Malformed("destination has host bits"));
        }
        if self.inventory.protected.covering_net(net).is_none() {
            return Err(Refusal::NotProtected(net));
        }
        if let Some(own) = self.inventory.infrastructure_in(net) {
            return Err(Refusal::Infrastructure { net, address: own.address, part: own.part });
        }
        if self.inventory.never_touch.overlaps(net) {
            return Err(Refusal::NeverTouch(net));
        }
        let min_len = self.min_len(measure);
        if net.prefix_len() < min_len {
            return Err(Refusal::TooWide { net, min_len });
        }
        match measure {
            Measure::FlowSpec(filter) => {
                well_formed(&filter.packets)?;
                if let Some(source_net) = filter.packets.src
                    && let Some(list) = self.inventory.allow.named_by(&filter.packets)
                {
                    return Err(Refusal::Allowed { source_net, list: list.name });
                }
                match filter.action {
                    Action::RateLimit { bytes_per_sec: 0 }
                    | Action::RateLimitPackets { packets_per_sec: 0 } => {
                        Err(Refusal::Malformed("a rate of 0 is spelled drop"))
                    }
                    Action::Redirect(_) if !self.config.allow_redirect => Err(Refusal::Redirect),
                    Action::Redirect(to) => leads_elsewhere(to, net),
                    Action::Mark { dscp: 64.. } => Err(Refusal::Malformed("DSCP above 63")),
                    _ => Ok(()),
                }
            }
            Measure::Divert(_) => {
                let max_len = match net {
                    IpNet::V4(_) => self.config.divert_max_len4,
                    IpNet::V6(_) => self.config.divert_max_len6,
                };
                if net.prefix_len() > max_len {
                    return Err(Refusal::TooLong { net, max_len });
                }
                Ok(())
            }
            Measure::Blackhole(_) | Measure::Scrub(_) => Ok(()),
        }
    }

    /// Whether one more mitigation would be let through beside those desired, in the place of one
    /// with the same route or number. Changes nothing.
    ///
    /// # Errors
    /// The rule it would break.
    pub fn would_admit(
        &self,
        desired: &DesiredState,
        extra: &Mitigation,
        now: Millis,
    ) -> Result<(), Refusal> {
        let same = route(&extra.measure);
        let apart = |m: &&Mitigation| m.id != extra.id && route(&m.measure) != same;
        let others = desired.mitigations.iter().filter(apart);
        let wanted = Some(extra).into_iter().chain(others);
        let desired =
            DesiredState { generation: desired.generation, mitigations: wanted.cloned().collect() };
        let admitted = self.clone().admit(&desired, now);
        let refused = admitted.refused.iter().find(|(id, _)| *id == extra.id);
        refused.map_or(Ok(()), |(_, refusal)| Err(*refusal))
    }

    /// Lets through what keeps every rule and names what does not. Under a cap, what is already in
    /// force goes first, then the oldest decision: a flood of new wishes cannot push out a measure
    /// that works.
    pub fn admit(&mut self, desired: &DesiredState, now: Millis) -> Admitted {
        self.forget_old_changes(now);
        // By route, so that what would replace each other stands side by side.
        let wishes = sort_by_route(desired.mitigations.iter().collect(), |m| &m.measure);
        let mut order: Vec<Turn<'_>> = Vec::with_capacity(wishes.len());
        // What is in force stands in the same order, each route once: one walk beside it.
        let mut in_force = self.admitted.mitigations.iter().map(|m| &m.measure).peekable();
        for (at, mitigation) in wishes.iter().enumerate() {
            let route = match (order.last(), at.checked_sub(1).map(|before| wishes[before])) {
                (Some(last), Some(before))
                    if by_route(&before.measure, &mitigation.measure).is_eq() =>
                {
                    last.route
                }
                _ => at,
            };
            while in_force.next_if(|own| by_route(own, &mitigation.measure).is_lt()).is_some() {}
            let is_new = in_force.peek().is_none_or(|own| **own != mitigation.measure);
            let key = (is_new, mitigation.since, mitigation.id);
            order.push(Turn { key, mitigation, route });
        }
        order.sort_by(|a, b| {
            a.key.cmp(&b.key).then_with(|| a.mitigation.measure.cmp(&b.mitigation.measure))
        });

        let resuming = self.admitted.generation == 0;
        let mut room = Room::default();
        // One place a route.
        let mut passed: Vec<Option<&Mitigation>> = vec![None; wishes.len()];
        let mut refused = Vec::new();
        for Turn { key: (is_new, ..), mitigation, route } in order {
            let counts = is_new && !resuming;
            let verdict = self
                .judge(mitigation)
                .and_then(|()| self.in_time(mitigation, now))
                .and_then(|()| {
                    if passed[route].is_some() {
                        Err(Refusal::Duplicate)
                    } else {
                        room.take(&self.config, mitigation)
                    }
                })
                .and_then(|()| {
                    if counts && !self.change_allowed(room.changes) {
                        room.give_back(mitigation);
                        return Err(Refusal::ChangeRate { cap: self.config.max_changes_per_min });
                    }
                    Ok(())
                });
            match verdict {
                Ok(()) => {
                    room.changes += usize::from(counts);
                    passed[route] = Some(mitigation);
                }
                Err(refusal) => refused.push((mitigation.id, refusal)),
            }
        }
        refused.sort_by_key(|(id, _)| *id);
        let changes = room.changes;
        // In the order of routes, which is that of measures where each route stands once.
        let passed: Vec<&Mitigation> = passed.into_iter().flatten().collect();
        self.changes.extend(std::iter::repeat_n(now, changes));
        if resuming || !passed.iter().copied().eq(self.admitted.mitigations.iter()) {
            self.admitted.generation = self.admitted.generation.saturating_add(1);
            // Mostly nothing is refused, and the wish is what is admitted: one list serves both.
            let whole = passed.len() == desired.mitigations.len()
                && passed.iter().zip(desired.mitigations.iter()).all(|(a, b)| std::ptr::eq(*a, b));
            self.admitted.mitigations = if whole {
                Arc::clone(&desired.mitigations)
            } else {
                passed.into_iter().cloned().collect()
            };
        }
        self.admitted.refused = refused.into();
        self.admitted.clone()
    }

    fn min_len(&self, measure: &Measure) -> u8 {
        let config = &self.config;
        let (any, narrow, hole) = match measure.target() {
            IpNet::V4(_) => (config.max_width4, config.max_width4_narrow, config.rtbh_min_len4),
            IpNet::V6(_) => (config.max_width6, config.max_width6_narrow, config.rtbh_min_len6),
        };
        let any = if is_narrow(measure) { any.min(narrow) } else { any };
        if discards_everything(measure) { any.max(hole) } else { any }
    }

    fn in_time(&self, mitigation: &Mitigation, now: Millis) -> Result<(), Refusal> {
        let max_secs = self.config.max_ttl_secs;
        if mitigation.state != MitigationState::Active || mitigation.ended.is_some() {
            Err(Refusal::NotActive)
        } else if mitigation.expires <= now {
            Err(Refusal::Expired)
        } else if mitigation.expires.since(now) > max_secs.saturating_mul(1000) {
            Err(Refusal::TtlTooLong { max_secs })
        } else {
            Ok(())
        }
    }

    fn forget_old_changes(&mut self, now: Millis) {
        // A clock that was set back must not keep the window full for ever: what lies in the
        // future counts as having happened now.
        for at in &mut self.changes {
            *at = (*at).min(now);
        }
        while self.changes.front().is_some_and(|at| now.since(*at) >= MINUTE_MS) {
            self.changes.pop_front();
        }
    }

    fn change_allowed(&self, taken: usize) -> bool {
        let cap = self.config.max_changes_per_min.min(CHANGES_REMEMBERED_MAX);
        usize::try_from(cap).is_ok_and(|cap| self.changes.len() + taken < cap)
    }
}

/// A wish that waits for its turn.
struct Turn<'a> {
    /// Whether it is new, since when it is wished, its number.
    key: (bool, Millis, MitigationId),
    mitigation: &'a Mitigation,
    /// The place of its route.
    route: usize,
}

/// What has been given out during one admission.
#[derive(Debug, Default)]
struct Room {
    total: u32,
    holes: u32,
    changes: usize,
    by_incident: BTreeMap<IncidentId, u32>,
}

impl Room {
    fn take(&mut self, config: &Config, mitigation: &Mitigation) -> Result<(), Refusal> {
        let hole = discards_everything(&mitigation.measure);
        if self.total >= config.max_total {
            return Err(Refusal::TotalCap { cap: config.max_total });
        }
        if hole && self.holes >= config.max_rtbh_total {
            return Err(Refusal::RtbhCap { cap: config.max_rtbh_total });
        }
        if let Originator::Incident(id) = mitigation.originator {
            let used = self.by_incident.entry(id).or_default();
            if *used >= config.max_per_incident {
                return Err(Refusal::IncidentCap { cap: config.max_per_incident });
            }
            *used += 1;
        }
        self.total += 1;
        self.holes += u32::from(hole);
        Ok(())
    }

    fn give_back(&mut self, mitigation: &Mitigation) {
        self.total -= 1;
        self.holes -= u32::from(discards_everything(&mitigation.measure));
        if let Originator::Incident(id) = mitigation.originator
            && let Some(used) = self.by_incident.get_mut(&id)
        {
            *used -= 1;
        }
    }
}

/// What a measure is on the wire: two measures with the same route replace each other, because a
/// FlowSpec rule is known by its match alone, whatever its action (RFC 8955 §4).
pub fn route(measure: &Measure) -> Measure {
    match measure {
        Measure::FlowSpec(filter) => {
            Measure::FlowSpec(Filter { packets: filter.packets.clone(), action: Action::Drop })
        }
        other => other.clone(),
    }
}

/// Compares two measures by their [`route`], without making it.
pub fn by_route(a: &Measure, b: &Measure) -> Ordering {
    match (a, b) {
        (Measure::FlowSpec(a), Measure::FlowSpec(b)) => a.packets.cmp(&b.packets),
        // The kinds differ, or there is no action to leave out.
        (a, b) => a.cmp(b),
    }
}

/// The beginning of [`by_route`]'s order in a few words: kind and destination.
fn head(measure: &Measure) -> (u8, IpNet) {
    let kind = match measure {
        Measure::FlowSpec(_) => 0,
        Measure::Blackhole(_) => 1,
        Measure::Scrub(_) => 2,
        Measure::Divert(_) => 3,
    };
    (kind, measure.target())
}

/// Sorts by [`by_route`], stably. Thousands of rules are mostly told apart by their destinations, which are
/// read once instead of at each comparison.
pub fn sort_by_route<T>(list: Vec<T>, measure: impl Fn(&T) -> &Measure) -> Vec<T> {
    let mut keyed: Vec<((u8, IpNet), T)> =
        list.into_iter().map(|item| (head(measure(&item)), item)).collect();
    keyed.sort_by(|(a, left), (b, right)| {
        a.cmp(b).then_with(|| by_route(measure(left), measure(right)))
    });
    keyed.into_iter().map(|(_, item)| item).collect()
}

/// Whether a measure takes its destination off the network: a black hole, or a FlowSpec rule that
/// comes to the same.
pub fn discards_everything(measure: &Measure) -> bool {
    match measure {
        Measure::Blackhole(_) => true,
        Measure::Scrub(_) | Measure::Divert(_) => false,
        Measure::FlowSpec(filter) => {
            let discards = match filter.action {
                Action::Drop => true,
                Action::RateLimit { bytes_per_sec } => bytes_per_sec <= NEAR_DROP_BYTES_PER_SEC,
                Action::RateLimitPackets { packets_per_sec } => {
                    packets_per_sec <= NEAR_DROP_PACKETS_PER_SEC
                }
                Action::Redirect(_) | Action::Mark { .. } => false,
            };
            discards && everything::matches(&filter.packets)
        }
    }
}

/// Whether a redirection names a place, and one where its packets do not come from again.
fn leads_elsewhere(to: Redirect, dst: IpNet) -> Result<(), Refusal> {
    let hop = match to {
        Redirect::RouteTarget { asn, value } => {
            let fits = u16::try_from(asn).is_ok() || u16::try_from(value).is_ok();
            let what = "the value of a route target with a 4-octet AS is above 65535";
            return if fits { Ok(()) } else { Err(Refusal::Malformed(what)) };
        }
        Redirect::NextHop(hop) | Redirect::Copy(hop) => hop,
    };
    if hop.is_ipv4() != matches!(dst, IpNet::V4(_)) {
        Err(Refusal::Malformed("next hop and destination are of different families"))
    } else if hop.is_unspecified() || hop.is_multicast() || hop.is_loopback() {
        Err(Refusal::Malformed("nobody has this next hop"))
    } else if dst.contains(&hop) {
        Err(Refusal::Malformed("the next hop lies in the destination: packets would go round"))
    } else {
        Ok(())
    }
}

fn well_formed(packets: &Match) -> Result<(), Refusal> {
    let same_family =
        |src: IpNet| matches!(src, IpNet::V4(_)) == matches!(packets.dst, IpNet::V4(_));
    let ranges = packets.dst_ports.iter().chain(&packets.src_ports).chain(&packets.lengths);
    if packets.src.is_some_and(|src| !same_family(src)) {
        Err(Refusal::Malformed("source and destination are of different families"))
    } else if ranges.clone().any(|r| r.from > r.to) {
        Err(Refusal::Malformed("a range ends before it begins"))
    } else if packets.tcp_flags.iter().any(|f| f.set & !f.mask != 0) {
        Err(Refusal::Malformed("a TCP flag is wanted but not looked at"))
    } else if packets.dscps.iter().any(|d| *d > 63) {
        Err(Refusal::Malformed("DSCP above 63"))
    } else if packets.clone().normalise() != *packets {
        // Two spellings of one meaning would be two routes, and ranges cut in pieces could hide
        // that they hold everything.
        Err(Refusal::Malformed("lists are not sorted and joined"))
    } else {
        Ok(())
    }
}

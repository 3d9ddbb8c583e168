//! What operators say of a group: how far weir goes, from where on traffic is an attack, who is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Direction, Mode, PrefixSet, Rung};

/// Characters of a label, a channel's name or a tag at most.
pub const LABEL_MAX: usize = 64;

/// Whether baselines of a group's hosts follow what is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Learning {
    /// They do.
    #[default]
    On,
    /// They stand still once they are known: a host met later, or silent for ten minutes, learns for
    /// `detector.learn_secs` first.
    Frozen,
    /// They do, but raise no alarm by themselves: only thresholds that operators have set do.
    ObserveOnly,
}

/// What hosts of a group are: a host just met borrows from those of its class what is normal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostClass {
    /// Game servers.
    Game,
    /// Web servers.
    Web,
    /// Gateways of VPNs.
    Vpn,
    /// Name servers.
    Resolver,
    /// Lines of customers.
    CustomerLine,
}

impl HostClass {
    /// Stable identifier.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Game => "game",
            Self::Web => "web",
            Self::Vpn => "vpn",
            Self::Resolver => "resolver",
            Self::CustomerLine => "customer-line",
        }
    }
}

/// From where on one metric of a host is an attack.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub enum Threshold {
    /// What weir learns, as without any group.
    Auto,
    /// Never.
    Off,
    /// From this value a second.
    Fixed(f64),
    /// What weir learns, within bounds.
    Within(Bounds),
}

/// Bounds of a learned threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Times what weir learns; the direction's `multiplier` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiplier: Option<f64>,
    /// At least this, a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    /// At most this, a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<f64>,
}

/// How a threshold is written.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"auto\", \"off\", a number a second, or a table of multiplier, floor, ceiling"
)]
enum Form {
    Number(f64),
    Word(Word),
    Table(Bounds),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Auto,
    Off,
}

impl TryFrom<Form> for Threshold {
    type Error = &'static str;

    fn try_from(form: Form) -> Result<Self, Self::Error> {
        let sound = |value: &f64| value.is_finite() && *value >= 1.0;
        Ok(match form {
            Form::Word(Word::Auto) => Self::Auto,
            Form::Word(Word::Off) => Self::Off,
            Form::Number(value) if sound(&value) => Self::Fixed(value),
            Form::Number(_) => return Err("a threshold is at least 1; \"off\" for none"),
            Form::Table(Bounds { multiplier, floor, ceiling }) => {
                if multiplier.is_none() && floor.is_none() && ceiling.is_none() {
                    return Err("expected multiplier, floor or ceiling");
                }
                if !floor.iter().chain(&ceiling).all(sound) {
                    return Err("floor and ceiling are at least 1");
                }
                if multiplier.is_some_and(|times| !is_multiplier(times)) {
                    return Err(MULTIPLIERS);
                }
                if floor.zip(ceiling).is_some_and(|(floor, ceiling)| floor > ceiling) {
                    return Err("the floor is above the ceiling");
                }
                Self::Within(Bounds { multiplier, floor, ceiling })
            }
        })
    }
}

impl From<Threshold> for Form {
    fn from(threshold: Threshold) -> Self {
        match threshold {
            Threshold::Auto => Self::Word(Word::Auto),
            Threshold::Off => Self::Word(Word::Off),
            Threshold::Fixed(value) => Self::Number(value),
            Threshold::Within(bounds) => Self::Table(bounds),
        }
    }
}

/// What at least comes in: below it traffic counts as vanished, and people are told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "LeastForm", into = "LeastForm")]
pub enum Least {
    /// A twentieth of what normally does.
    Auto,
    /// So many layer-3 bits a second.
    Fixed(f64),
    /// Nobody is told.
    Off,
}

/// How it is written.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"auto\", \"off\", or a number of bits a second")]
enum LeastForm {
    Number(f64),
    Word(Word),
}

impl TryFrom<LeastForm> for Least {
    type Error = &'static str;

    fn try_from(form: LeastForm) -> Result<Self, Self::Error> {
        match form {
            LeastForm::Word(Word::Auto) => Ok(Self::Auto),
            LeastForm::Word(Word::Off) => Ok(Self::Off),
            LeastForm::Number(value) if value.is_finite() && value >= 1.0 => Ok(Self::Fixed(value)),
            LeastForm::Number(_) => Err("at least 1; \"off\" for none"),
        }
    }
}

impl From<Least> for LeastForm {
    fn from(least: Least) -> Self {
        match least {
            Least::Auto => Self::Word(Word::Auto),
            Least::Off => Self::Word(Word::Off),
            Least::Fixed(value) => Self::Number(value),
        }
    }
}

/// What a multiplier may be, in words.
pub const MULTIPLIERS: &str = "a multiplier is within 0.1-1000";

/// Whether a number may multiply thresholds.
pub fn is_multiplier(times: f64) -> bool {
    // NaN is in no range.
    (0.1..=1000.0).contains(&times)
}

/// Thresholds of what comes to a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Inbound {
    /// Times what weir learns, for every metric below that has neither a value nor a multiplier of its own;
    /// 0.1-1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiplier: Option<f64>,
    /// All packets, packets a second. Changes of shape and ramps below it are no alarm either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets_per_sec: Option<Threshold>,
    /// All traffic, layer-3 bits a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_sec: Option<Threshold>,
    /// TCP SYNs without ACK, packets a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syns_per_sec: Option<Threshold>,
    /// UDP to ports that are no declared service, packets a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_off_service_per_sec: Option<Threshold>,
    /// ICMP and ICMPv6, packets a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_per_sec: Option<Threshold>,
    /// Fragments after the first, packets a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragments_per_sec: Option<Threshold>,
    /// TCP SYN-ACKs and RSTs, packets a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_replies_per_sec: Option<Threshold>,
    /// Protocols other than TCP, UDP and ICMP, packets a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_per_sec: Option<Threshold>,
    /// Sources that a host has not met lately, a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_sources_per_sec: Option<Threshold>,
}

/// Thresholds of what a host sends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outbound {
    /// Times what weir learns, for every metric below that has neither a value nor a multiplier of its own;
    /// 0.1-1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiplier: Option<f64>,
    /// All packets, packets a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets_per_sec: Option<Threshold>,
    /// All traffic, layer-3 bits a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_sec: Option<Threshold>,
    /// SYNs, packets a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syns_per_sec: Option<Threshold>,
}

/// Thresholds of the total of a group's hosts in one direction. `"auto"` learns the total's own normal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TotalLimits {
    /// All packets, packets a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets_per_sec: Option<Threshold>,
    /// All traffic, layer-3 bits a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_sec: Option<Threshold>,
}

/// From where on people are told of what all hosts of a group carry together, those of the groups below it
/// included. It is no attack by itself: no rule follows from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TotalThresholds {
    /// What comes to them.
    pub inbound: TotalLimits,
    /// What they send.
    pub outbound: TotalLimits,
    /// What at least comes to them all together, layer-3 bits a second: below it for a minute, people are told that
    /// their traffic has vanished. `"auto"`: a twentieth of what normally does, from 1 Mbit/s on; `"off"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_bits_per_sec: Option<Least>,
}

/// Thresholds of a total: direction and name, those inbound first.
pub const TOTALS: [(Direction, &str); 4] = [
    (Direction::Inbound, "packets_per_sec"),
    (Direction::Inbound, "bits_per_sec"),
    (Direction::Outbound, "packets_per_sec"),
    (Direction::Outbound, "bits_per_sec"),
];

/// Groups whose totals are watched at most, about 5 KB each.
pub const TOTALS_MAX: usize = 1024;

impl TotalThresholds {
    /// A threshold by its place in [`TOTALS`].
    pub const fn threshold(&self, index: usize) -> Option<Threshold> {
        match index {
            0 => self.inbound.packets_per_sec,
            1 => self.inbound.bits_per_sec,
            2 => self.outbound.packets_per_sec,
            _ => self.outbound.bits_per_sec,
        }
    }
}

/// Thresholds that a group may set: direction and name, those inbound first.
pub const THRESHOLDS: [(Direction, &str); 12] = [
    (Direction::Inbound, "packets_per_sec"),
    (Direction::Inbound, "bits_per_sec"),
    (Direction::Inbound, "syns_per_sec"),
    (Direction::Inbound, "udp_off_service_per_sec"),
    (Direction::Inbound, "icmp_per_sec"),
    (Direction::Inbound, "fragments_per_sec"),
    (Direction::Inbound, "tcp_replies_per_sec"),
    (Direction::Inbound, "other_per_sec"),
    (Direction::Inbound, "new_sources_per_sec"),
    (Direction::Outbound, "packets_per_sec"),
    (Direction::Outbound, "bits_per_sec"),
    (Direction::Outbound, "syns_per_sec"),
];

/// Prefixes that an operator has put together: a customer, a line of business. What it does not say, its
/// template says, then its parent; what nobody says is as everywhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyGroup {
    /// Name, for people, 1-64 characters; unique.
    pub name: String,
    /// What belongs to it. Of groups that hold an address the one with the longest prefix counts. A group
    /// without prefixes only serves others as parent or template.
    #[serde(default, skip_serializing_if = "PrefixSet::is_empty")]
    pub prefixes: PrefixSet,
    /// The group it inherits from; when absent, the smallest one that holds all of its prefixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The group without prefixes that it inherits from before its parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The furthest weir goes by itself for it: `observe`, `approve` or `auto`. It never goes further than
    /// `mitigator.mode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Steps of the ladder that weir never takes for it by itself: `drop`, `rtbh`, `scrub`. An empty list
    /// lifts what it would inherit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub never: Option<Vec<Rung>>,
    /// Whether baselines of its hosts follow their traffic: `on`; `frozen`, once they are known; or
    /// `observe-only`, when they raise no alarm and only thresholds set by operators do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning: Option<Learning>,
    /// What its hosts are: a host just met borrows from others of its class what is normal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<HostClass>,
    /// From where on what comes to a host is an attack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<Box<Inbound>>,
    /// From where on what a host sends is an attack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Box<Outbound>>,
    /// From where on people are told of what all its hosts carry together. What it does not say its template says;
    /// a parent's are of the parent's own total. Groups with a total: at most 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<TotalThresholds>,
    /// What at least comes to each declared service of its hosts, layer-3 bits a second: below it for a minute, people
    /// are told that its traffic has vanished. `"auto"`: a twentieth of what came over the last minutes, from
    /// 1 Mbit/s on; `"off"`, as if nobody said anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_least_bits_per_sec: Option<Least>,
    /// Names of the channels and webhooks that are told of its attacks, and no others, at most 16. What a channel
    /// is not told by its own settings it is not told either. All are told while none of the named exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Vec<String>>,
    /// Whatever else belongs to it, by name: a customer's number, a ticket queue. Inherited one by one. At
    /// most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

impl PolicyGroup {
    /// What it says itself of a threshold, by its place in [`THRESHOLDS`].
    pub fn threshold(&self, index: usize) -> Option<Threshold> {
        if let Some(outbound) = index.checked_sub(9) {
            let out = self.outbound.as_deref()?;
            return [out.packets_per_sec, out.bits_per_sec, out.syns_per_sec]
                .get(outbound)
                .copied()?;
        }
        let inb = self.inbound.as_deref()?;
        [
            inb.packets_per_sec,
            inb.bits_per_sec,
            inb.syns_per_sec,
            inb.udp_off_service_per_sec,
            inb.icmp_per_sec,
            inb.fragments_per_sec,
            inb.tcp_replies_per_sec,
            inb.other_per_sec,
            inb.new_sources_per_sec,
        ][index]
    }

    /// The multiplier it sets itself for a direction.
    pub fn multiplier(&self, way: Direction) -> Option<f64> {
        match way {
            Direction::Inbound => self.inbound.as_deref()?.multiplier,
            Direction::Outbound => self.outbound.as_deref()?.multiplier,
        }
    }
}

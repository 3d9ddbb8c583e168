//! Address families that weir speaks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::flowspec::Afi;

/// An address family (AFI and SAFI).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// IPv4 unicast (1/1): black-hole routes.
    Ipv4Unicast,
    /// IPv6 unicast (2/1): black-hole routes.
    Ipv6Unicast,
    /// IPv4 FlowSpec (1/133).
    #[serde(rename = "ipv4-flowspec")]
    Ipv4FlowSpec,
    /// IPv6 FlowSpec (2/133).
    #[serde(rename = "ipv6-flowspec")]
    Ipv6FlowSpec,
}

impl Family {
    /// All of them, in order.
    pub const ALL: [Self; 4] =
        [Self::Ipv4Unicast, Self::Ipv6Unicast, Self::Ipv4FlowSpec, Self::Ipv6FlowSpec];

    /// AFI and SAFI.
    pub const fn code(self) -> (u16, u8) {
        match self {
            Self::Ipv4Unicast => (1, 1),
            Self::Ipv6Unicast => (2, 1),
            Self::Ipv4FlowSpec => (1, 133),
            Self::Ipv6FlowSpec => (2, 133),
        }
    }

    /// The family of an AFI and SAFI, if weir speaks it.
    pub fn of(afi: u16, safi: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.code() == (afi, safi))
    }

    /// The family of a stable identifier.
    pub fn named(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.id() == id)
    }

    /// The FlowSpec family of an address family.
    pub const fn flowspec(afi: Afi) -> Self {
        match afi {
            Afi::Ipv4 => Self::Ipv4FlowSpec,
            Afi::Ipv6 => Self::Ipv6FlowSpec,
        }
    }

    /// Stable identifier.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Ipv4Unicast => "ipv4-unicast",
            Self::Ipv6Unicast => "ipv6-unicast",
            Self::Ipv4FlowSpec => "ipv4-flowspec",
            Self::Ipv6FlowSpec => "ipv6-flowspec",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// A set of families.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Families(u8);

impl Families {
    /// Every family.
    pub const ALL: Self = Self(0b1111);

    /// Whether `family` is in the set.
    pub const fn contains(self, family: Family) -> bool {
        self.0 & (1 << family as u8) != 0
    }

    /// Adds a family.
    pub const fn insert(&mut self, family: Family) {
        self.0 |= 1 << family as u8;
    }

    /// Takes a family out.
    pub const fn remove(&mut self, family: Family) {
        self.0 &= !(1 << family as u8);
    }

    /// Those in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The families, in order.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |f| self.contains(*f))
    }
}

impl FromIterator<Family> for Families {
    fn from_iter<T: IntoIterator<Item = Family>>(iter: T) -> Self {
        let mut set = Self::default();
        iter.into_iter().for_each(|f| set.insert(f));
        set
    }
}

impl fmt::Debug for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

//! Who may do what, in the broad terms an owner hands out.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an account or a token may do, from most to least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Role {
    /// Everything, other owners and backups included.
    Owner,
    /// Everything but owners and backups.
    Admin,
    /// Sees everything but accounts; acts on incidents and mitigations.
    Analyst,
    /// Sees what an analyst sees; changes nothing.
    Readonly,
    /// Sees incidents, mitigations and hosts inside its own prefixes and nothing else.
    Tenant,
}

impl Role {
    /// All roles, from most to least.
    pub const ALL: [Self; 5] =
        [Self::Owner, Self::Admin, Self::Analyst, Self::Readonly, Self::Tenant];

    /// Stable identifier.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Analyst => "analyst",
            Self::Readonly => "readonly",
            Self::Tenant => "tenant",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.id() == text).ok_or(UnknownRole)
    }
}

/// A word that names no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownRole;

impl fmt::Display for UnknownRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a role is owner, admin, analyst, readonly or tenant")
    }
}

impl std::error::Error for UnknownRole {}

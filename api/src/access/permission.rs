//! What can be permitted, to whom, and the argument by which a handler states what it needs.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use weir_model::{IpNet, Role};

use super::{Principal, authenticate};
use crate::app::App;
use crate::problem::Problem;

macro_rules! permissions {
    ($( $(#[doc = $doc:literal])* $name:ident = $id:literal, $least:ident, $tenant:literal; )*) => {
        /// Something that may be done through the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Permission {
            $( $(#[doc = $doc])* $name, )*
        }

        impl Permission {
            /// All permissions.
            pub const ALL: &[Self] = &[$( Self::$name, )*];

            /// Stable identifier: scope of tokens, `x-weir-permission` of the API document.
            pub const fn id(self) -> &'static str {
                match self { $( Self::$name => $id, )* }
            }

            /// The least role that has it.
            pub const fn least(self) -> Role {
                match self { $( Self::$name => Role::$least, )* }
            }

            /// Whether a tenant has it, for its own prefixes.
            const fn tenants(self) -> bool {
                match self { $( Self::$name => $tenant, )* }
            }
        }

        /// Permissions as types, for [`Allowed`].
        pub(crate) mod needs {
            use super::{Needs, Permission};
            $(
                $(#[doc = $doc])*
                #[derive(Clone, Copy, Debug)]
                pub(crate) struct $name;
                impl Needs for $name {
                    const PERMISSION: Option<Permission> = Some(Permission::$name);
                }
            )*
        }
    };
}

permissions! {
    /// See incidents and what operators said about them.
    ReadIncidents = "incidents:read", Readonly, true;
    /// See mitigations.
    ReadMitigations = "mitigations:read", Readonly, true;
    /// See what hosts carry.
    ReadHosts = "hosts:read", Readonly, true;
    /// Ask the archive for flow records, of all customers.
    ReadFlows = "flows:read", Analyst, false;
    /// Follow what happens.
    ReadLive = "live:read", Readonly, true;
    /// See exporters, BGP peers, the mode.
    ReadStatus = "status:read", Readonly, false;
    /// See metrics.
    ReadMetrics = "metrics:read", Readonly, false;
    /// See settings.
    ReadSettings = "settings:read", Readonly, false;
    /// Download packets that nodes kept, which may hold what players said.
    ReadCaptures = "captures:read", Analyst, false;
    /// Write notes and say whether an incident was one.
    Comment = "incidents:comment", Analyst, false;
    /// Approve, hold, step, withdraw, add; freeze, thaw, reset and override baselines.
    Mitigate = "mitigations:write", Analyst, false;
    /// Change how far weir acts by itself.
    SetMode = "mode:write", Admin, false;
    /// Change settings.
    WriteSettings = "settings:write", Admin, false;
    /// See game panels, their servers and customers.
    ReadPanels = "panels:read", Readonly, false;
    /// Have a panel read, accept what vanished, share a server's page.
    ManagePanels = "panels:write", Admin, false;
    /// See who did what.
    ReadAudit = "audit:read", Admin, false;
    /// Make, change and remove accounts and tokens.
    ManageAccounts = "accounts:write", Admin, false;
    /// Take a backup, which holds every secret weir has.
    Backup = "backup:read", Owner, false;
}

impl Permission {
    /// The permission of an identifier.
    pub fn of_id(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|permission| permission.id() == id)
    }

    /// Whether a role has it.
    pub fn of_role(self, role: Role) -> bool {
        // Roles are ordered from most to least.
        if role == Role::Tenant { self.tenants() } else { role <= self.least() }
    }
}

/// What a handler needs of whoever asks.
pub(crate) trait Needs: Send + Sync + 'static {
    /// The permission; `None` when an account of any kind, or nobody at all, will do.
    const PERMISSION: Option<Permission>;
    /// Whether nobody at all will do.
    const PUBLIC: bool = false;
}

/// Whoever is signed in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anyone;

impl Needs for Anyone {
    const PERMISSION: Option<Permission> = None;
}

/// Nobody in particular.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Everybody;

impl Needs for Everybody {
    const PERMISSION: Option<Permission> = None;
    const PUBLIC: bool = true;
}

/// Proof that whoever asks may do `N`; the first argument of every handler.
#[derive(Clone, Debug)]
pub(crate) struct Allowed<N: Needs> {
    /// Who asks.
    pub(crate) principal: Principal,
    needs: PhantomData<N>,
}

impl<N: Needs> Allowed<N> {
    /// The prefixes whose targets whoever asks may see; empty for all.
    pub(crate) fn within(&self) -> &[IpNet] {
        &self.principal.prefixes
    }

    /// Whether whoever asks may see something about this target.
    pub(crate) fn sees(&self, target: IpNet) -> bool {
        self.principal.sees(target)
    }
}

impl<N: Needs> FromRequestParts<App> for Allowed<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if N::PUBLIC {
            super::origin::check_unauthenticated(parts, app)?;
            return Ok(Self { principal: Principal::nobody(parts, app), needs: PhantomData });
        }
        let principal = authenticate(parts, app, N::PERMISSION).await?;
        if let Some(permission) = N::PERMISSION
            && !principal.may(permission)
        {
            return Err(Problem::forbidden(format!(
                "this needs the permission {}",
                permission.id()
            )));
        }
        Ok(Self { principal, needs: PhantomData })
    }
}

/// What a route asks for, as its handler's signature says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The permission, if a certain one.
    pub permission: Option<Permission>,
    /// Whether no account is needed.
    pub public: bool,
}

/// Arguments of a handler whose first is [`Allowed`]. A route whose handler's arguments do not begin so
/// does not compile.
pub(crate) trait Guarded {
    /// What it asks for.
    const REQUIREMENT: Requirement;
}

macro_rules! guarded {
    ($($argument:ident),*) => {
        impl<M, N: Needs, $($argument),*> Guarded for (M, Allowed<N>, $($argument,)*) {
            const REQUIREMENT: Requirement =
                Requirement { permission: N::PERMISSION, public: N::PUBLIC };
        }
    };
}

guarded!();
guarded!(A);
guarded!(A, B);
guarded!(A, B, C);
guarded!(A, B, C, D);
guarded!(A, B, C, D, E);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_nest_and_tenants_only_look() {
        for permission in Permission::ALL {
            assert!(permission.of_role(Role::Owner), "{permission:?}");
            for pair in Role::ALL[..4].windows(2) {
                assert!(
                    permission.of_role(pair[0]) || !permission.of_role(pair[1]),
                    "{permission:?}: {} has it, {} not",
                    pair[1],
                    pair[0]
                );
            }
            if permission.of_role(Role::Readonly) || permission.of_role(Role::Tenant) {
                assert!(permission.id().ends_with(":read"), "{permission:?}");
            }
            assert_eq!(Permission::of_id(permission.id()), Some(*permission));
        }
        assert!(!Permission::Backup.of_role(Role::Admin));
        assert!(!Permission::ReadStatus.of_role(Role::Tenant));
    }
}

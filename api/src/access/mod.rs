//! Who asks, and what they may do.
//!
//! Four ways in, tried in this order: the unix socket, whose peer the kernel names; a bearer token; a
//! session cookie; and, where the configuration says so, a reader on loopback without any account.

pub(crate) mod backoff;
pub(crate) mod known;
pub(crate) mod origin;
pub(crate) mod password;
pub(crate) mod permission;
pub(crate) mod secret;
pub(crate) mod session;
pub(crate) mod totp;

use axum::http::header;
use axum::http::request::Parts;
use weir_model::{IpNet, Role};

pub use permission::{Permission, Requirement};

use crate::app::App;
use crate::problem::Problem;
use crate::server::{NOT_YOURS, Peer};

/// How someone proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// A local user on the unix socket.
    Socket,
    /// A bearer token.
    Token,
    /// A session with this number.
    Session(u64),
    /// A reader on loopback.
    Loopback,
    /// Nothing.
    Nobody,
}

impl Via {
    /// Stable identifier.
    pub(crate) const fn id(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Token => "token",
            Self::Session(_) => "session",
            Self::Loopback => "loopback",
            Self::Nobody => "none",
        }
    }
}

/// Whoever asks.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    /// Account, token or local user.
    pub(crate) name: String,
    /// The person behind it: of a token, the account or local user that made it.
    pub(crate) person: String,
    /// How they proved it.
    pub(crate) via: Via,
    /// What they may do at most.
    pub(crate) role: Role,
    /// What a token is narrowed to.
    pub(crate) scopes: Option<Vec<Permission>>,
    /// A tenant's prefixes; empty for everybody else, who see everything.
    pub(crate) prefixes: Vec<IpNet>,
    /// From where, for people.
    pub(crate) address: String,
}

impl Principal {
    pub(crate) fn nobody(parts: &Parts, app: &App) -> Self {
        Self {
            name: String::new(),
            person: String::new(),
            via: Via::Nobody,
            role: Role::Tenant,
            scopes: Some(Vec::new()),
            prefixes: Vec::new(),
            address: origin::client(parts, app).to_string(),
        }
    }

    pub(crate) fn may(&self, permission: Permission) -> bool {
        permission.of_role(self.role)
            && self.scopes.as_ref().is_none_or(|scopes| scopes.contains(&permission))
    }

    pub(crate) fn permissions(&self) -> Vec<Permission> {
        Permission::ALL.iter().copied().filter(|permission| self.may(*permission)).collect()
    }

    /// A tenant without prefixes sees nothing.
    pub(crate) fn sees(&self, target: IpNet) -> bool {
        self.role != Role::Tenant || self.prefixes.iter().any(|net| net.contains(&target))
    }
}

/// Finds out who asks.
pub(crate) async fn authenticate(
    parts: &mut Parts,
    app: &App,
    wanted: Option<Permission>,
) -> Result<Principal, Problem> {
    let peer = Peer::of(parts);
    if let Some(local) = &peer.local {
        if !local.trusted {
            return Err(Problem::forbidden(NOT_YOURS));
        }
        return Ok(Principal {
            name: local.name(),
            person: local.name(),
            via: Via::Socket,
            role: Role::Owner,
            scopes: None,
            prefixes: Vec::new(),
            address: "unix".to_owned(),
        });
    }
    let address = origin::client(parts, app);
    if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
        let secret = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        let found = match secret {
            Some(secret) => session::token(app, secret.trim(), address).await?,
            None => None,
        };
        if let Some(principal) = found {
            peer.keeps_its_place();
            // Nobody guesses 256 bits: a token that is right works however often others from its address are wrong.
            return Ok(principal);
        }
        app.inner.backoff.check_address(address, app.now())?;
        app.inner.backoff.failed(address, None, app.now());
        return Err(Problem::unauthorized(
            "the token is unknown, has ended, or may not be used from here",
        ));
    }
    if let Some(secret) = session::cookie(&parts.headers, app.secure(&peer, &parts.headers)) {
        origin::check_cross_site(parts, app)?;
        if let Some(principal) = session::resume(app, &secret, address).await? {
            peer.keeps_its_place();
            return Ok(principal);
        }
    }
    if origin::is_local_reader(parts, app, wanted) {
        return Ok(Principal {
            name: "loopback".to_owned(),
            person: "loopback".to_owned(),
            via: Via::Loopback,
            role: Role::Readonly,
            scopes: None,
            prefixes: Vec::new(),
            address: address.to_string(),
        });
    }
    Err(Problem::unauthorized("sign in, or send a token as `Authorization: Bearer weir_...`"))
}

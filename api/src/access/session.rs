//! Sessions and tokens: a secret in, whoever it belongs to out.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, header};
use weir_model::{Millis, Role};
use weir_store::accounts::{Session, Token, User};

use super::known::Opened;
use super::{Permission, Principal, Via, secret};
use crate::app::App;
use crate::problem::Problem;

/// Sessions that one account may have; the oldest end when there are more.
const SESSIONS_MAX: usize = 20;

/// Use is noted to this grain, milliseconds: one write a minute, not one a request.
const SEEN_GRAIN_MS: u64 = 60_000;

/// Longest browser name kept, characters.
const AGENT_MAX: usize = 120;

/// The cookie's name. `__Host-` makes browsers refuse it from anywhere but this very host over TLS.
const fn cookie_name(secure: bool) -> &'static str {
    if secure { "__Host-weir" } else { "weir" }
}

/// The secret of the session cookie.
pub(crate) fn cookie(headers: &HeaderMap, secure: bool) -> Option<String> {
    let name = cookie_name(secure);
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

/// `Set-Cookie` for a session, or to end one.
pub(crate) fn set_cookie(secret: Option<&str>, secure: bool, max_secs: u64) -> HeaderValue {
    let name = cookie_name(secure);
    let flag = if secure { "; Secure" } else { "" };
    let (value, age) = secret.map_or(("", 0), |secret| (secret, max_secs));
    // Lax: a link from a chat to an incident opens it; what changes anything is checked besides.
    let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{flag}");
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

/// Opens a session under a new secret, whatever the browser sent before: a secret planted in it is
/// worth nothing.
pub(crate) async fn open(
    app: &App,
    user: &User,
    address: IpAddr,
    headers: &HeaderMap,
) -> Result<String, Problem> {
    let fresh = secret::new();
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let session = Session {
        id: secret::number(),
        hash: secret::hash(&fresh),
        user: user.name.clone(),
        created: app.now(),
        seen: app.now(),
        address: address.to_string(),
        agent: agent.unwrap_or_default().chars().take(AGENT_MAX).collect(),
    };
    let proven = user.clone();
    let opened = app
        .change(move |change| {
            // The account may have changed since its password was proven.
            let same = change.user(&proven.name)?.is_some_and(|now| {
                !now.disabled && now.password == proven.password && now.totp == proven.totp
            });
            if same {
                change.trim_sessions(&proven.name, SESSIONS_MAX - 1)?;
                change.add_session(&session)?;
            }
            Ok(same)
        })
        .await?;
    if opened {
        Ok(fresh)
    } else {
        Err(Problem::unauthorized("the account has changed: sign in again"))
    }
}

/// Whose session a secret opens.
pub(crate) async fn resume(
    app: &App,
    secret: &str,
    address: IpAddr,
) -> Result<Option<Principal>, Problem> {
    let hash = secret::hash(secret);
    let epoch = app.inner.known.epoch();
    let read = app.read_who(move |store| {
        let Some(session) = store.session(&hash)? else { return Ok(None) };
        Ok(store.user(&session.user)?.map(|user| (session, user)))
    });
    let found = match read.await {
        Ok(found) => {
            let opened = found.clone().map(|both| Opened::Session(Box::new(both)));
            app.inner.known.remember(epoch, hash, opened);
            found
        }
        Err(problem) => match app.inner.known.recall(&hash) {
            Some(Opened::Session(both)) => Some(*both),
            _ => return Err(problem),
        },
    };
    let Some((session, user)) = found else { return Ok(None) };
    let (now, config) = (app.now(), app.config());
    let idle = now.since(session.seen) >= config.session_idle_secs.saturating_mul(1000);
    let old = now.since(session.created) >= config.session_max_secs.saturating_mul(1000);
    if idle || old || user.disabled {
        app.note(move |change| change.end_session(&session.user, session.id).map(drop)).await;
        return Ok(None);
    }
    if now.since(session.seen) >= SEEN_GRAIN_MS {
        app.note(move |change| change.touch_session(session.id, now)).await;
    }
    Ok(Some(Principal {
        person: user.name.clone(),
        name: user.name,
        via: Via::Session(session.id),
        role: user.role,
        scopes: None,
        prefixes: if user.role == Role::Tenant { user.prefixes } else { Vec::new() },
        address: address.to_string(),
    }))
}

/// Whose token a secret is.
pub(crate) async fn token(
    app: &App,
    secret: &str,
    address: IpAddr,
) -> Result<Option<Principal>, Problem> {
    if !secret.starts_with(secret::TOKEN_PREFIX) {
        return Ok(None);
    }
    let hash = secret::hash(secret);
    let epoch = app.inner.known.epoch();
    let read = app.read_who(move |store| {
        let Some(token) = store.token(&hash)? else { return Ok(None) };
        let fit = match token.maker() {
            Some(maker) => store.user(maker)?.is_some_and(|user| may_have(&user, &token)),
            None => true,
        };
        Ok(fit.then_some(token))
    });
    let found = match read.await {
        Ok(found) => {
            let opened = found.clone().map(|token| Opened::Token(Box::new(token)));
            app.inner.known.remember(epoch, hash, opened);
            found
        }
        Err(problem) => match app.inner.known.recall(&hash) {
            Some(Opened::Token(token)) => Some(*token),
            _ => return Err(problem),
        },
    };
    let Some(token) = found else { return Ok(None) };
    let now = app.now();
    if !usable(&token, address, now) {
        return Ok(None);
    }
    if token.used.is_none_or(|used| now.since(used) >= SEEN_GRAIN_MS) {
        let id = token.id;
        app.note(move |change| change.touch_token(id, now)).await;
    }
    let scopes = token
        .scopes
        .map(|scopes| scopes.iter().filter_map(|scope| Permission::of_id(scope)).collect());
    Ok(Some(Principal {
        name: format!("token:{}", token.name),
        person: token.created_by,
        via: Via::Token,
        role: token.role,
        scopes,
        prefixes: if token.role == Role::Tenant { token.prefixes } else { Vec::new() },
        address: address.to_string(),
    }))
}

/// Whether an account may have made this token and keep it: it ends with the account, and does not outrank it.
pub(crate) fn may_have(user: &User, token: &Token) -> bool {
    // Roles are ordered from most to least.
    !user.disabled && token.role >= user.role
}

fn usable(token: &Token, address: IpAddr, now: Millis) -> bool {
    token.expires.is_none_or(|end| now < end)
        && (token.networks.is_empty() || token.networks.iter().any(|net| net.contains(&address)))
}

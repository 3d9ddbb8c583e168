//! The first account, signing in and out, and what everybody may change about their own account.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::PoisonError;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header, request::Parts};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_model::{IpNet, Millis, Role};
use weir_store::accounts::User;
use weir_store::audit::AuditEntry;
use weir_store::{Change, StoreError};

use crate::access::permission::{Allowed, Anyone, Everybody};
use crate::access::{Principal, Via, origin, secret, session, totp};
use crate::app::App;
use crate::problem::{Form, Problem, Segment};
use crate::server::Peer;

/// Longest account name, octets.
const NAME_MAX: usize = 64;

/// Whoever is signed in.
#[derive(Serialize, ToSchema)]
pub(crate) struct Me {
    /// Account, token or local user.
    name: String,
    /// Role.
    role: Role,
    /// How they proved it: `session`, `token`, `socket`, `loopback`.
    via: &'static str,
    /// What they may do.
    permissions: Vec<&'static str>,
    /// A tenant's prefixes.
    #[schema(value_type = Vec<String>)]
    prefixes: Vec<IpNet>,
}

impl Me {
    fn of(who: &Principal) -> Self {
        Self {
            name: who.name.clone(),
            role: who.role,
            via: who.via.id(),
            permissions: who.permissions().into_iter().map(crate::Permission::id).collect(),
            prefixes: who.prefixes.clone(),
        }
    }
}

/// A name that fits into logs, addresses and tables.
pub(crate) fn check_name(name: &str) -> Result<(), Problem> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(fits) {
        return Err(Problem::invalid(format!(
            "a name has 1 to {NAME_MAX} letters, digits, dots, dashes, underscores or @"
        )));
    }
    Ok(())
}

/// Whether weir waits for its first account.
#[derive(Serialize, ToSchema)]
pub(crate) struct Setup {
    /// There is no owner yet: set one up with the code from the log.
    needed: bool,
}

/// Says whether weir waits for its first account.
#[utoipa::path(get, path = "/api/v1/setup", tag = "session",
    responses((status = 200, description = "Whether", body = Setup)))]
pub(crate) async fn setup_state(_: Allowed<Everybody>, app: State<App>) -> Json<Setup> {
    let code = app.0.inner.setup_code.lock().unwrap_or_else(PoisonError::into_inner);
    Json(Setup { needed: code.is_some() })
}

/// The first account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct First {
    /// The code that weir wrote to its log when it started.
    code: String,
    /// The owner's name.
    name: String,
    /// The owner's password, at least 12 characters.
    #[schema(min_length = 12, max_length = 256, format = Password)]
    password: String,
}

/// Makes the owner's account with the code from the log, and signs in.
#[utoipa::path(post, path = "/api/v1/setup", tag = "session", request_body = First,
    responses((status = 200, description = "Signed in", body = Me)))]
pub(crate) async fn setup(
    nobody: Allowed<Everybody>,
    State(app): State<App>,
    parts: Parts,
    Form(body): Form<First>,
) -> Result<Response, Problem> {
    let address = origin::client(&parts, &app);
    app.inner.backoff.check_address(address, app.now())?;
    let wanted = app.inner.setup_code.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let wanted = wanted.ok_or_else(|| Problem::new(StatusCode::CONFLICT, "there is an owner"))?;
    // Hashes are compared, so that the time taken says nothing about the code.
    if secret::hash(&wanted) != secret::hash(body.code.trim()) {
        app.inner.backoff.failed(address, None, app.now());
        return Err(Problem::forbidden(
            "the code is wrong; the log of this start has the right one",
        ));
    }
    check_name(&body.name)?;
    let user = User {
        name: body.name,
        role: Role::Owner,
        prefixes: Vec::new(),
        password: app.inner.passwords.hash(body.password).await?,
        totp: None,
        totp_step: 0,
        disabled: false,
        created: app.now(),
    };
    let mut entry = app.entry(&nobody.principal, "user.setup", user.name.clone());
    "code".clone_into(&mut entry.via);
    let owner = user.clone();
    app.change(move |change| {
        change.add_user(&owner)?;
        change.audit(&entry)
    })
    .await?;
    // The code is good for one account.
    *app.inner.setup_code.lock().unwrap_or_else(PoisonError::into_inner) = None;
    sign_in(&app, &parts, &user).await
}

/// Opens a session and answers with its cookie.
async fn sign_in(app: &App, parts: &Parts, user: &User) -> Result<Response, Problem> {
    let address = origin::client(parts, app);
    let fresh = session::open(app, user, address, &parts.headers).await?;
    let secure = app.secure(&Peer::of(parts), &parts.headers);
    let cookie = session::set_cookie(Some(&fresh), secure, app.config().session_max_secs);
    let who = Principal {
        name: user.name.clone(),
        person: user.name.clone(),
        via: Via::Session(0),
        role: user.role,
        scopes: None,
        prefixes: user.prefixes.clone(),
        address: address.to_string(),
    };
    Ok(([(header::SET_COOKIE, cookie)], Json(Me::of(&who))).into_response())
}

/// Name, password, and the second factor where it is on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    /// Account.
    name: String,
    /// Password.
    #[schema(format = Password)]
    password: String,
    /// Six digits, for accounts with a second factor.
    #[serde(default)]
    totp: Option<String>,
}

/// Signs in. An account with a second factor that was not given one is answered 403 with the word `totp`.
#[utoipa::path(post, path = "/api/v1/login", tag = "session", request_body = Login,
    responses((status = 200, description = "Signed in", body = Me)))]
pub(crate) async fn login(
    nobody: Allowed<Everybody>,
    State(app): State<App>,
    parts: Parts,
    Form(body): Form<Login>,
) -> Result<Response, Problem> {
    let (address, now) = (origin::client(&parts, &app), app.now());
    if body.name.len() > NAME_MAX {
        return Err(Problem::unauthorized("name or password is wrong"));
    }
    // Cheap, and before the store is asked: an address that only guesses gets no further.
    app.inner.backoff.check_address(address, now)?;
    let name = body.name.clone();
    let found = app.read(move |store| {
        let sessions = store.sessions(&name)?;
        Ok((store.user(&name)?, sessions))
    });
    let (user, sessions) = found.await?;
    for session in sessions {
        if let Ok(from) = session.address.parse() {
            app.inner.backoff.knows(from, &body.name, session.seen);
        }
    }
    app.inner.backoff.check_account(address, &body.name, now)?;
    let user = user.filter(|user| !user.disabled);
    let phc = user.as_ref().map(|user| user.password.clone());
    let right = app.inner.passwords.verify(body.password, phc).await?;
    let Some(user) = user.filter(|_| right) else {
        return failed(&app, &nobody.principal, &body.name, address, "password").await;
    };
    if let Some(key) = user.totp.clone() {
        let Some(code) = body.totp else {
            return Err(Problem::forbidden("totp: this account needs its second factor"));
        };
        let step = totp::step_of(&key, &code, now.secs());
        let fresh = match step {
            Some(step) => {
                let name = user.name.clone();
                app.change(move |change| change.spend_totp(&name, step)).await?
            }
            None => false,
        };
        if !fresh {
            return failed(&app, &nobody.principal, &body.name, address, "totp").await;
        }
    }
    app.inner.backoff.succeeded(address, &user.name, now);
    let mut entry = app.entry(&nobody.principal, "session.open", user.name.clone());
    entry.who.clone_from(&user.name);
    app.audit(entry).await?;
    sign_in(&app, &parts, &user).await
}

/// The same answer whatever was wrong.
async fn failed(
    app: &App,
    nobody: &Principal,
    name: &str,
    address: IpAddr,
    what: &str,
) -> Result<Response, Problem> {
    app.inner.backoff.failed(address, Some(name), app.now());
    let mut entry = app.entry(nobody, "session.refused", name);
    entry.after = serde_json::to_string(what).ok();
    app.audit(entry).await?;
    Err(Problem::unauthorized("name, password or code is wrong"))
}

/// Signs out.
#[utoipa::path(post, path = "/api/v1/logout", tag = "session",
    responses((status = 204, description = "Signed out")))]
pub(crate) async fn logout(
    who: Allowed<Anyone>,
    State(app): State<App>,
    parts: Parts,
) -> Result<Response, Problem> {
    if let Via::Session(id) = who.principal.via {
        let name = who.principal.name.clone();
        let entry = app.entry(&who.principal, "session.close", name.clone());
        app.change(move |change| {
            change.end_session(&name, id)?;
            change.audit(&entry)
        })
        .await?;
    }
    let cookie = session::set_cookie(None, app.secure(&Peer::of(&parts), &parts.headers), 0);
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Says who is signed in.
#[utoipa::path(get, path = "/api/v1/me", tag = "session",
    responses((status = 200, description = "Who", body = Me)))]
pub(crate) async fn me(who: Allowed<Anyone>) -> Json<Me> {
    Json(Me::of(&who.principal))
}

/// Who asks, as an account with a password.
async fn own(app: &App, who: &Principal) -> Result<(User, u64), Problem> {
    let Via::Session(id) = who.via else {
        return Err(Problem::forbidden("this is for accounts that signed in with a password"));
    };
    let name = who.name.clone();
    let user = app.read(move |store| store.user(&name)).await?;
    user.map(|user| (user, id)).ok_or_else(|| Problem::missing("user"))
}

/// Checks the password again, with the same back-off as signing in.
async fn confirm(app: &App, who: &Principal, user: &User, password: String) -> Result<(), Problem> {
    let address = who.address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    app.inner.backoff.check_account(address, &user.name, app.now())?;
    if app.inner.passwords.verify(password, Some(user.password.clone())).await? {
        return Ok(());
    }
    app.inner.backoff.failed(address, Some(&user.name), app.now());
    Err(Problem::forbidden("the password is wrong"))
}

/// One's own account and session, once the password has been given again.
async fn proven(
    app: &App,
    principal: &Principal,
    password: String,
) -> Result<(User, u64), Problem> {
    let (user, session) = own(app, principal).await?;
    confirm(app, principal, &user, password).await?;
    Ok((user, session))
}

/// A new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPassword {
    /// The present one.
    #[schema(format = Password)]
    current: String,
    /// The new one, at least 12 characters.
    #[schema(min_length = 12, max_length = 256, format = Password)]
    new: String,
}

/// Changes one's own password; every other session ends.
#[utoipa::path(post, path = "/api/v1/me/password", tag = "session", request_body = NewPassword,
    responses((status = 204, description = "Changed")))]
pub(crate) async fn password(
    who: Allowed<Anyone>,
    State(app): State<App>,
    Form(body): Form<NewPassword>,
) -> Result<StatusCode, Problem> {
    let (user, session) = proven(&app, &who.principal, body.current).await?;
    let fresh = app.inner.passwords.hash(body.new).await?;
    let entry = app.entry(&who.principal, "user.password", user.name.clone());
    change_own(&app, user, session, entry, move |change, user| {
        change.change_password(&user.name, &user.password, &fresh)
    })
    .await
}

/// Changes one's own account as it was when the password was proven, and ends every other session. Whoever was
/// disabled, signed out or changed meanwhile changes nothing: the last word about an account is others'.
async fn change_own(
    app: &App,
    user: User,
    session: u64,
    entry: AuditEntry,
    work: impl FnOnce(&Change<'_>, &User) -> Result<bool, StoreError> + Send + 'static,
) -> Result<StatusCode, Problem> {
    let changed = app
        .change(move |change| {
            let changed = change.has_session(&user.name, session)? && work(change, &user)?;
            if changed {
                change.end_sessions(&user.name, Some(session))?;
                change.audit(&entry)?;
            }
            Ok(changed)
        })
        .await?;
    if changed {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::unauthorized("the account has changed meanwhile: sign in again"))
    }
}

/// The password, once more.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Again {
    /// The present one.
    #[schema(format = Password)]
    password: String,
}

/// A second factor to be scanned.
#[derive(Serialize, ToSchema)]
pub(crate) struct Factor {
    /// Base 32, to be typed.
    secret: String,
    /// `otpauth://`, to be shown as a QR code.
    url: String,
}

/// Begins to set up a second factor: nothing changes until a code confirms it.
#[utoipa::path(post, path = "/api/v1/me/totp", tag = "session", request_body = Again,
    responses((status = 200, description = "To be scanned", body = Factor)))]
pub(crate) async fn totp_begin(
    who: Allowed<Anyone>,
    State(app): State<App>,
    Form(body): Form<Again>,
) -> Result<Json<Factor>, Problem> {
    let (user, _) = proven(&app, &who.principal, body.password).await?;
    let secret = totp::new();
    Ok(Json(Factor { url: totp::url(&user.name, &secret), secret }))
}

/// The secret that was scanned, and a code that proves it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Proof {
    /// As given before.
    secret: String,
    /// Six digits.
    code: String,
    /// The password.
    #[schema(format = Password)]
    password: String,
}

/// Turns the second factor on.
#[utoipa::path(put, path = "/api/v1/me/totp", tag = "session", request_body = Proof,
    responses((status = 204, description = "On")))]
pub(crate) async fn totp_confirm(
    who: Allowed<Anyone>,
    State(app): State<App>,
    Form(body): Form<Proof>,
) -> Result<StatusCode, Problem> {
    let (user, session) = proven(&app, &who.principal, body.password).await?;
    let step = totp::step_of(&body.secret, &body.code, app.now().secs());
    let step = step.ok_or_else(|| Problem::invalid("the code does not fit the secret"))?;
    let entry = app.entry(&who.principal, "user.totp-on", user.name.clone());
    change_own(&app, user, session, entry, move |change, user| {
        change.change_factor(&user.name, &user.password, Some(&body.secret), step)
    })
    .await
}

/// Turns the second factor off.
#[utoipa::path(delete, path = "/api/v1/me/totp", tag = "session", request_body = Again,
    responses((status = 204, description = "Off")))]
pub(crate) async fn totp_end(
    who: Allowed<Anyone>,
    State(app): State<App>,
    Form(body): Form<Again>,
) -> Result<StatusCode, Problem> {
    let (user, session) = proven(&app, &who.principal, body.password).await?;
    let entry = app.entry(&who.principal, "user.totp-off", user.name.clone());
    change_own(&app, user, session, entry, |change, user| {
        change.change_factor(&user.name, &user.password, None, user.totp_step)
    })
    .await
}

/// A signed-in browser.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
pub(crate) struct SessionView {
    id: u64,
    created: Millis,
    seen: Millis,
    address: String,
    agent: String,
    /// Whether it is the one that asks.
    current: bool,
}

/// One's own sessions, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = SessionList)]
pub(crate) struct Sessions {
    sessions: Vec<SessionView>,
}

/// Lists one's own sessions.
#[utoipa::path(get, path = "/api/v1/me/sessions", tag = "session",
    responses((status = 200, description = "Sessions", body = Sessions)))]
pub(crate) async fn sessions(
    who: Allowed<Anyone>,
    State(app): State<App>,
) -> Result<Json<Sessions>, Problem> {
    let Via::Session(current) = who.principal.via else {
        return Ok(Json(Sessions { sessions: Vec::new() }));
    };
    let name = who.principal.name;
    let found = app.read(move |store| store.sessions(&name)).await?;
    let sessions = found.into_iter().map(|session| SessionView {
        id: session.id,
        created: session.created,
        seen: session.seen,
        address: session.address,
        agent: session.agent,
        current: session.id == current,
    });
    Ok(Json(Sessions { sessions: sessions.collect() }))
}

/// Ends one of one's own sessions.
#[utoipa::path(delete, path = "/api/v1/me/sessions/{id}", tag = "session",
    params(("id" = u64, Path, description = "Its number")),
    responses((status = 204, description = "Ended")))]
pub(crate) async fn end_session(
    who: Allowed<Anyone>,
    State(app): State<App>,
    Segment(id): Segment<u64>,
) -> Result<StatusCode, Problem> {
    let entry = app.entry(&who.principal, "session.end", id.to_string());
    let name = who.principal.name;
    let ended = app
        .change(move |change| {
            let ended = change.end_session(&name, id)?;
            if ended {
                change.audit(&entry)?;
            }
            Ok::<_, StoreError>(ended)
        })
        .await?;
    if ended { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::missing("session")) }
}

//! `/api/v1/users`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_model::{IpNet, Millis, Role};
use weir_store::StoreError;
use weir_store::accounts::User;

use super::me::check_name;
use crate::access::Principal;
use crate::access::permission::{Allowed, needs};
use crate::app::App;
use crate::problem::{Form, Problem, Segment};

/// Accounts that there may be.
const USERS_MAX: u64 = 1000;

/// Prefixes that one tenant may have.
pub(crate) const PREFIXES_MAX: usize = 256;

/// An account, without its secrets.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = User)]
pub(crate) struct UserView {
    name: String,
    role: Role,
    /// A tenant's prefixes.
    #[schema(value_type = Vec<String>)]
    prefixes: Vec<IpNet>,
    /// Whether it has a second factor.
    totp: bool,
    /// May not sign in.
    disabled: bool,
    created: Millis,
}

impl From<&User> for UserView {
    fn from(user: &User) -> Self {
        Self {
            name: user.name.clone(),
            role: user.role,
            prefixes: user.prefixes.clone(),
            totp: user.totp.is_some(),
            disabled: user.disabled,
            created: user.created,
        }
    }
}

/// All accounts, by name.
#[derive(Serialize, ToSchema)]
#[schema(as = UserList)]
pub(crate) struct List {
    users: Vec<UserView>,
}

/// Lists accounts.
#[utoipa::path(get, path = "/api/v1/users", tag = "accounts",
    responses((status = 200, description = "Accounts", body = List)))]
pub(crate) async fn list(
    _who: Allowed<needs::ManageAccounts>,
    State(app): State<App>,
) -> Result<Json<List>, Problem> {
    let users = app.read(weir_store::Store::users).await?;
    Ok(Json(List { users: users.iter().map(UserView::from).collect() }))
}

/// Only an owner makes, changes or removes owners.
fn check_rank(who: &Principal, role: Role) -> Result<(), Problem> {
    if role == Role::Owner && who.role != Role::Owner {
        return Err(Problem::forbidden("only an owner decides about owners"));
    }
    Ok(())
}

pub(crate) fn check_prefixes(role: Role, prefixes: &[IpNet]) -> Result<(), Problem> {
    if prefixes.len() > PREFIXES_MAX {
        return Err(Problem::invalid(format!("at most {PREFIXES_MAX} prefixes")));
    }
    if (role == Role::Tenant) == prefixes.is_empty() {
        return Err(Problem::invalid("a tenant has prefixes, and nobody else"));
    }
    Ok(())
}

/// A new account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    /// Letters, digits, dots, dashes, underscores or @.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._@-]+$")]
    name: String,
    /// At least 12 characters.
    #[schema(min_length = 12, max_length = 256, format = Password)]
    password: String,
    role: Role,
    /// A tenant's prefixes.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    prefixes: Vec<IpNet>,
}

/// Makes an account.
#[utoipa::path(post, path = "/api/v1/users", tag = "accounts", request_body = NewUser,
    responses((status = 201, description = "Made", body = UserView)))]
pub(crate) async fn add(
    who: Allowed<needs::ManageAccounts>,
    State(app): State<App>,
    Form(body): Form<NewUser>,
) -> Result<(StatusCode, Json<UserView>), Problem> {
    check_rank(&who.principal, body.role)?;
    check_name(&body.name)?;
    check_prefixes(body.role, &body.prefixes)?;
    let user = User {
        name: body.name,
        role: body.role,
        prefixes: body.prefixes,
        password: app.inner.passwords.hash(body.password).await?,
        totp: None,
        totp_step: 0,
        disabled: false,
        created: app.now(),
    };
    let view = UserView::from(&user);
    let mut entry = app.entry(&who.principal, "user.create", user.name.clone());
    entry.after = serde_json::to_string(&view).ok();
    app.change(move |change| {
        if change.count_users()? >= USERS_MAX {
            return Err(StoreError::Conflict(format!("at most {USERS_MAX} accounts")));
        }
        change.add_user(&user)?;
        change.audit(&entry)
    })
    .await?;
    Ok((StatusCode::CREATED, Json(view)))
}

/// What to change; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserChange {
    role: Option<Role>,
    /// A tenant's prefixes.
    #[schema(value_type = Option<Vec<String>>)]
    prefixes: Option<Vec<IpNet>>,
    /// May not sign in.
    disabled: Option<bool>,
    /// A new password.
    #[schema(min_length = 12, max_length = 256, format = Password)]
    password: Option<String>,
    /// `false` takes a lost second factor away.
    totp: Option<bool>,
}

/// Changes an account; its sessions end.
#[utoipa::path(patch, path = "/api/v1/users/{name}", tag = "accounts",
    params(("name" = String, Path, description = "The account")), request_body = UserChange,
    responses((status = 200, description = "Changed", body = UserView)))]
pub(crate) async fn change(
    who: Allowed<needs::ManageAccounts>,
    State(app): State<App>,
    Segment(name): Segment<String>,
    Form(body): Form<UserChange>,
) -> Result<Json<UserView>, Problem> {
    if body.totp == Some(true) {
        return Err(Problem::invalid("a second factor is turned on by its owner"));
    }
    let password = match body.password {
        Some(password) => Some(app.inner.passwords.hash(password).await?),
        None => None,
    };
    let mut entry = app.entry(&who.principal, "user.change", name.clone());
    // What the account is now decides, not what it was when the password was hashed.
    app.change(move |change| {
        let Some(before) = change.user(&name)? else { return Ok(Err(Problem::missing("user"))) };
        let mut after = before.clone();
        after.role = body.role.unwrap_or(before.role);
        after.prefixes = body.prefixes.unwrap_or(after.prefixes);
        after.disabled = body.disabled.unwrap_or(before.disabled);
        let allowed = check_rank(&who.principal, before.role)
            .and_then(|()| check_rank(&who.principal, after.role))
            .and_then(|()| check_prefixes(after.role, &after.prefixes));
        if let Err(problem) = allowed {
            return Ok(Err(problem));
        }
        if loses_owner(&before, Some(&after)) && change.owners()? < 2 {
            return Err(StoreError::Conflict("the last owner stays one".to_owned()));
        }
        change.set_standing(&before.name, after.role, &after.prefixes, after.disabled)?;
        if let Some(password) = &password {
            change.reset_password(&before.name, password)?;
        }
        if body.totp == Some(false) {
            change.reset_factor(&before.name)?;
            after.totp = None;
        }
        change.end_sessions(&before.name, None)?;
        let view = UserView::from(&after);
        entry.target.clone_from(&before.name);
        entry.before = serde_json::to_string(&UserView::from(&before)).ok();
        entry.after = serde_json::to_string(&view).ok();
        change.audit(&entry)?;
        Ok(Ok(Json(view)))
    })
    .await?
}

fn loses_owner(before: &User, after: Option<&User>) -> bool {
    let counts = |user: &User| user.role == Role::Owner && !user.disabled;
    counts(before) && !after.is_some_and(counts)
}

/// Removes an account.
#[utoipa::path(delete, path = "/api/v1/users/{name}", tag = "accounts",
    params(("name" = String, Path, description = "The account")),
    responses((status = 204, description = "Removed")))]
pub(crate) async fn remove(
    who: Allowed<needs::ManageAccounts>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<StatusCode, Problem> {
    let mut entry = app.entry(&who.principal, "user.remove", name.clone());
    app.change(move |change| {
        let Some(user) = change.user(&name)? else { return Ok(Err(Problem::missing("user"))) };
        if let Err(problem) = check_rank(&who.principal, user.role) {
            return Ok(Err(problem));
        }
        if loses_owner(&user, None) && change.owners()? < 2 {
            return Err(StoreError::Conflict("the last owner stays".to_owned()));
        }
        entry.target.clone_from(&user.name);
        entry.before = serde_json::to_string(&UserView::from(&user)).ok();
        change.remove_user(&user.name)?;
        change.audit(&entry)?;
        Ok(Ok(StatusCode::NO_CONTENT))
    })
    .await?
}

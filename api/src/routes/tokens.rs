//! `/api/v1/tokens`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_model::{IpNet, Millis, Role};
use weir_store::StoreError;
use weir_store::accounts::Token;

use super::me::check_name;
use super::users::check_prefixes;
use crate::access::permission::{Allowed, needs};
use crate::access::session::may_have;
use crate::access::{Permission, secret};
use crate::app::App;
use crate::problem::{Form, Problem, Segment};

/// Tokens that there may be.
const TOKENS_MAX: u64 = 1000;

/// Networks that one token may name.
const NETWORKS_MAX: usize = 64;

/// A token, without its secret.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = Token)]
pub(crate) struct TokenView {
    id: u64,
    name: String,
    role: Role,
    /// Permissions it is narrowed to; all of the role when absent.
    scopes: Option<Vec<String>>,
    /// A tenant's prefixes.
    #[schema(value_type = Vec<String>)]
    prefixes: Vec<IpNet>,
    /// Networks it may be used from; any when empty.
    #[schema(value_type = Vec<String>)]
    networks: Vec<IpNet>,
    created: Millis,
    /// The account that made it: it ends with that account, and may never do more than it. A local user is
    /// named `local:` and theirs ends only when it is removed.
    created_by: String,
    expires: Option<Millis>,
    /// Last used, to the minute.
    used: Option<Millis>,
}

impl From<&Token> for TokenView {
    fn from(token: &Token) -> Self {
        Self {
            id: token.id,
            name: token.name.clone(),
            role: token.role,
            scopes: token.scopes.clone(),
            prefixes: token.prefixes.clone(),
            networks: token.networks.clone(),
            created: token.created,
            created_by: token.created_by.clone(),
            expires: token.expires,
            used: token.used,
        }
    }
}

/// All tokens, oldest first.
#[derive(Serialize, ToSchema)]
#[schema(as = TokenList)]
pub(crate) struct List {
    tokens: Vec<TokenView>,
}

/// Lists tokens.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "accounts",
    responses((status = 200, description = "Tokens", body = List)))]
pub(crate) async fn list(
    _who: Allowed<needs::ManageAccounts>,
    State(app): State<App>,
) -> Result<Json<List>, Problem> {
    let tokens = app.read(weir_store::Store::tokens).await?;
    Ok(Json(List { tokens: tokens.iter().map(TokenView::from).collect() }))
}

/// A new token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// Letters, digits, dots, dashes, underscores or @.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._@-]+$")]
    name: String,
    role: Role,
    /// Permissions to narrow it to, such as `incidents:read`; all of the role when absent.
    #[serde(default)]
    scopes: Option<Vec<String>>,
    /// A tenant's prefixes.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    prefixes: Vec<IpNet>,
    /// Networks it may be used from; any when empty.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    networks: Vec<IpNet>,
    /// When it ends, milliseconds since 1970; never when absent.
    #[serde(default)]
    expires: Option<Millis>,
}

/// A token as it is shown once.
#[derive(Serialize, ToSchema)]
pub(crate) struct Made {
    /// The secret: this is the only time it is shown.
    secret: String,
    token: TokenView,
}

/// Makes a token, and shows its secret once.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "accounts", request_body = NewToken,
    responses((status = 201, description = "Made", body = Made)))]
pub(crate) async fn add(
    who: Allowed<needs::ManageAccounts>,
    State(app): State<App>,
    Form(body): Form<NewToken>,
) -> Result<(StatusCode, Json<Made>), Problem> {
    // Nobody makes a token that may do more than they may themselves.
    if body.role < who.principal.role {
        return Err(Problem::forbidden("a token may not do more than who makes it"));
    }
    check_name(&body.name)?;
    check_prefixes(body.role, &body.prefixes)?;
    if body.networks.len() > NETWORKS_MAX {
        return Err(Problem::invalid(format!("at most {NETWORKS_MAX} networks")));
    }
    for scope in body.scopes.iter().flatten() {
        let known = Permission::of_id(scope);
        let known = known.ok_or_else(|| Problem::invalid(format!("no permission {scope:?}")))?;
        if !known.of_role(body.role) || !who.principal.may(known) {
            return Err(Problem::invalid(format!("{} has no {scope}", body.role)));
        }
    }
    // A narrowed token makes no wider ones.
    if who.principal.scopes.is_some() && body.scopes.is_none() {
        return Err(Problem::forbidden("a narrowed token names the scopes of those it makes"));
    }
    if body.expires.is_some_and(|at| at <= app.now()) {
        return Err(Problem::invalid("expires lies in the past"));
    }
    let fresh = format!("{}{}", secret::TOKEN_PREFIX, secret::new());
    let mut token = Token {
        id: 0,
        hash: secret::hash(&fresh),
        name: body.name,
        role: body.role,
        scopes: body.scopes,
        prefixes: body.prefixes,
        networks: body.networks,
        created: app.now(),
        created_by: who.principal.person.clone(),
        expires: body.expires,
        used: None,
    };
    let mut entry = app.entry(&who.principal, "token.create", token.name.clone());
    let view = app
        .change(move |change| {
            if change.count_tokens()? >= TOKENS_MAX {
                return Err(StoreError::Conflict(format!("at most {TOKENS_MAX} tokens")));
            }
            // Who makes it may have been disabled or made less a moment ago.
            if let Some(maker) = token.maker() {
                let fit = change.user(maker)?.is_some_and(|user| may_have(&user, &token));
                if !fit {
                    return Err(StoreError::Conflict(format!("{maker} may not make it any more")));
                }
            }
            token.id = change.add_token(&token)?;
            let view = TokenView::from(&token);
            entry.after = serde_json::to_string(&view).ok();
            change.audit(&entry)?;
            Ok(view)
        })
        .await?;
    Ok((StatusCode::CREATED, Json(Made { secret: fresh, token: view })))
}

/// Removes a token; whoever uses it is out at once.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "accounts",
    params(("id" = u64, Path, description = "Its number")),
    responses((status = 204, description = "Removed")))]
pub(crate) async fn remove(
    who: Allowed<needs::ManageAccounts>,
    State(app): State<App>,
    Segment(id): Segment<u64>,
) -> Result<StatusCode, Problem> {
    let mut entry = app.entry(&who.principal, "token.remove", id.to_string());
    app.change(move |change| {
        let Some(token) = change.token(id)? else { return Ok(Err(Problem::missing("token"))) };
        if token.role == Role::Owner && who.principal.role != Role::Owner {
            return Ok(Err(Problem::forbidden("only an owner decides about owners")));
        }
        entry.target.clone_from(&token.name);
        entry.before = serde_json::to_string(&TokenView::from(&token)).ok();
        change.remove_token(id)?;
        change.audit(&entry)?;
        Ok(Ok(StatusCode::NO_CONTENT))
    })
    .await?
}

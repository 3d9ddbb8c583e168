//! `/api/v1/settings`: what may change while weir runs, kept beside the configuration file, which is
//! never written.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use weir_model::{Millis, Spared};
use weir_store::Change;
use weir_store::notes::Setting;

use crate::access::permission::{Allowed, needs};
use crate::app::App;
use crate::problem::{Form, Large, Problem, Segment};
use crate::settings::Reload;

/// A setting.
#[derive(Serialize, ToSchema)]
#[schema(as = Setting)]
pub(crate) struct View {
    name: &'static str,
    /// Rises with every change; its `ETag` in quotes.
    version: u64,
    /// When changed last.
    at: Option<Millis>,
    /// By whom.
    who: Option<String>,
    /// The value in place of the configuration file's, or beside it for `channels` and `exclusions`, without
    /// credentials; absent when the file decides.
    value: Option<Value>,
    /// What the configuration file says, without credentials.
    file: Value,
    /// What the file has and weir does not, because the value stands in for it.
    not_in_force: Vec<String>,
    /// Whether the last change can be undone.
    can_undo: bool,
    /// What undoing it brings back, without credentials; absent when that is the file.
    before: Option<Value>,
    /// Of `exclusions`: what prefixes under which nothing is announced have kept weir from.
    #[serde(skip_serializing_if = "Option::is_none")]
    spared: Option<Vec<Spared>>,
    /// After a change: what is probably not meant, for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// A value as it is kept, credentials and all.
fn kept(name: &str, found: &[Setting]) -> Option<Value> {
    let setting = found.iter().find(|setting| setting.name == name)?;
    serde_json::from_str(setting.body.as_deref()?).ok()
}

/// The value before that one.
fn kept_before(name: &str, found: &[Setting]) -> Option<Value> {
    let setting = found.iter().find(|setting| setting.name == name)?;
    serde_json::from_str(setting.before.as_deref()?).ok()
}

/// What is asked of a setting.
enum Wish {
    /// This value.
    Value(Value),
    /// What the configuration file says.
    File,
    /// What it was before the last change.
    Undo,
}

impl View {
    fn of(app: &App, name: &'static str, found: &[Setting]) -> Self {
        let desk = &app.inner.handles.settings;
        let setting = found.iter().find(|setting| setting.name == name);
        Self {
            name,
            version: setting.map_or(0, |setting| setting.version),
            at: setting.map(|setting| setting.at),
            who: setting.map(|setting| setting.who.clone()),
            value: kept(name, found).map(|value| desk.shown(name, &value)),
            file: desk.of_file(name),
            not_in_force: desk.hidden(name),
            can_undo: setting.is_some(),
            before: kept_before(name, found).map(|value| desk.shown(name, &value)),
            spared: (name == "exclusions")
                .then(|| app.inner.handles.snapshot.load().spared.clone()),
            warnings: Vec::new(),
        }
    }

    fn respond(self) -> Response {
        let tag = HeaderValue::from_str(&format!("\"{}\"", self.version));
        let mut response = Json(self).into_response();
        if let Ok(tag) = tag {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

/// All settings.
#[derive(Serialize, ToSchema)]
#[schema(as = SettingList)]
pub(crate) struct List {
    settings: Vec<View>,
}

fn names(app: &App) -> &'static [&'static str] {
    app.inner.handles.settings.names()
}

fn known(app: &App, name: &str) -> Result<&'static str, Problem> {
    names(app)
        .iter()
        .find(|known| **known == name)
        .copied()
        .ok_or_else(|| Problem::missing("setting"))
}

/// Lists settings.
#[utoipa::path(get, path = "/api/v1/settings", tag = "settings",
    responses((status = 200, description = "Settings", body = List)))]
pub(crate) async fn list(
    _who: Allowed<needs::ReadSettings>,
    State(app): State<App>,
) -> Result<Json<List>, Problem> {
    let found = app.read(weir_store::Store::settings).await?;
    let settings = names(&app).iter().map(|name| View::of(&app, name, &found)).collect();
    Ok(Json(List { settings }))
}

/// Shows a setting, with its version as `ETag`.
#[utoipa::path(get, path = "/api/v1/settings/{name}", tag = "settings",
    params(("name" = String, Path, description = "Which")),
    responses((status = 200, description = "The setting", body = View)))]
pub(crate) async fn one(
    _who: Allowed<needs::ReadSettings>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Response, Problem> {
    let name = known(&app, &name)?;
    let found = app.read(weir_store::Store::settings).await?;
    Ok(View::of(&app, name, &found).respond())
}

/// The version that whoever changes a setting has read.
fn if_match(headers: &HeaderMap) -> Result<u64, Problem> {
    let value = headers.get(header::IF_MATCH).ok_or_else(|| {
        Problem::new(
            StatusCode::PRECONDITION_REQUIRED,
            "If-Match: the ETag that was read is missing",
        )
    })?;
    let tag = value.to_str().ok().and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"'));
    tag.and_then(|tag| tag.parse().ok()).ok_or_else(|| changed("If-Match is no ETag of a setting"))
}

fn changed(why: &str) -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, why)
}

async fn store(
    app: &App,
    who: &Allowed<needs::WriteSettings>,
    name: &'static str,
    headers: &HeaderMap,
    wish: Wish,
) -> Result<Response, Problem> {
    let desk = &app.inner.handles.settings;
    let version = if_match(headers)?;
    let found = app.read(weir_store::Store::settings).await?;
    let before = kept(name, &found);
    let shown = View::of(app, name, &found);
    if shown.version != version {
        return Err(changed(&format!("{name} has version {} by now", shown.version)));
    }
    let (action, value) = match wish {
        Wish::Value(given) => {
            let complete = desk.complete(name, before.as_ref(), given).map_err(Problem::invalid)?;
            ("setting.change", Some(complete))
        }
        Wish::File => ("setting.change", None),
        Wish::Undo if shown.can_undo => ("setting.undo", kept_before(name, &found)),
        Wish::Undo => return Err(Problem::new(StatusCode::CONFLICT, "it was never changed")),
    };
    let warnings = desk.check(name, value.as_ref()).map_err(Problem::invalid)?;
    let body = value.as_ref().map(Value::to_string);
    let (at, by) = (app.now(), who.principal.name.clone());
    let mut entry = app.entry(&who.principal, action, name);
    entry.before = shown.value.as_ref().map(ToString::to_string);
    entry.after = value.as_ref().map(|value| desk.told(name, before.as_ref(), value).to_string());
    let write = move |change: &Change<'_>| {
        let version = change.put_setting(name, version, at, &by, body.as_deref())?;
        change.audit(&entry)?;
        Ok(version)
    };
    // Of two changes the core is to end with the one that the file ends with.
    let apply = {
        let (desk, value) = (Arc::clone(desk), value.clone());
        move |_: &u64| desk.apply(name, value.as_ref())
    };
    match app.change_then(write, apply).await {
        Ok(version) => {
            let who = Some(who.principal.name.clone());
            let value = value.map(|value| desk.shown(name, &value));
            let before = shown.value.clone();
            let at = Some(at);
            let view = View { version, at, who, value, can_undo: true, before, warnings, ..shown };
            Ok(view.respond())
        }
        Err(problem) if problem.status() == StatusCode::CONFLICT => Err(changed(problem.detail())),
        Err(problem) => Err(problem),
    }
}

/// How the file is read again.
#[derive(Deserialize, ToSchema)]
#[schema(as = ReloadRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReloadBody {
    /// Only say what would change.
    #[serde(default)]
    check: bool,
}

/// Reads the configuration file again, as SIGHUP does, and puts in force what can change while weir runs
/// without touching what did not change. A file that cannot be used changes nothing.
#[utoipa::path(post, path = "/api/v1/reload", tag = "settings", request_body = ReloadBody,
    responses((status = 200, description = "What has changed, or would", body = Reload)))]
pub(crate) async fn reload(
    who: Allowed<needs::WriteSettings>,
    State(app): State<App>,
    Form(ReloadBody { check }): Form<ReloadBody>,
) -> Result<Json<Reload>, Problem> {
    if !check {
        app.audit(app.entry(&who.principal, "config.reload", "file".to_owned())).await?;
    }
    let desk = Arc::clone(&app.inner.handles.settings);
    // It opens files and waits for the core.
    let outcome = tokio::task::spawn_blocking(move || desk.reload(check)).await;
    let outcome = outcome.map_err(|_| Problem::internal("the reload"))?;
    outcome.map(Json).map_err(Problem::invalid)
}

/// Changes a setting that nobody has changed since it was read: `exclusions` (a list of `prefix`, `why`,
/// `until`), `groups` (a list of groups as under `protect.group`, at most 4 MiB), `prefixes` (a list), `ladder` (as in
/// the configuration file) and `channels` (a list of `name`, `url`, `enabled`, `events`, `secret`,
/// `headers`). It is in force at once and is checked like the configuration file. Of a channel, `url`,
/// `secret` and `headers` are never shown; what is left out of them stays as it is.
#[utoipa::path(put, path = "/api/v1/settings/{name}", tag = "settings",
    params(("name" = String, Path, description = "Which"),
        ("If-Match" = String, Header, description = "The ETag that was read")),
    request_body = Value, responses((status = 200, description = "The setting", body = View)))]
pub(crate) async fn put(
    who: Allowed<needs::WriteSettings>,
    State(app): State<App>,
    Segment(name): Segment<String>,
    headers: HeaderMap,
    Large(value): Large<Value>,
) -> Result<Response, Problem> {
    let name = known(&app, &name)?;
    if !value.is_object() && !value.is_array() {
        return Err(Problem::invalid("a setting is an object or a list"));
    }
    store(&app, &who, name, &headers, Wish::Value(value)).await
}

/// Lets the configuration file decide again.
#[utoipa::path(delete, path = "/api/v1/settings/{name}", tag = "settings",
    params(("name" = String, Path, description = "Which"),
        ("If-Match" = String, Header, description = "The ETag that was read")),
    responses((status = 200, description = "The setting", body = View)))]
pub(crate) async fn remove(
    who: Allowed<needs::WriteSettings>,
    State(app): State<App>,
    Segment(name): Segment<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    store(&app, &who, known(&app, &name)?, &headers, Wish::File).await
}

/// Undoes the last change of a setting that nobody has changed since it was read; undone again, the change
/// is back.
#[utoipa::path(post, path = "/api/v1/settings/{name}/undo", tag = "settings",
    params(("name" = String, Path, description = "Which"),
        ("If-Match" = String, Header, description = "The ETag that was read")),
    responses((status = 200, description = "The setting", body = View)))]
pub(crate) async fn undo(
    who: Allowed<needs::WriteSettings>,
    State(app): State<App>,
    Segment(name): Segment<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    store(&app, &who, known(&app, &name)?, &headers, Wish::Undo).await
}

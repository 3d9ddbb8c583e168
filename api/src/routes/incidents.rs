//! `/api/v1/incidents`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_model::{
    Command, Evidence, Family, Incident, IncidentId, IncidentState, IpNet, Match, Millis, Outlook,
    Role,
};
use weir_store::notes::{Feedback, Note};
use weir_store::{IncidentFilter, PAGE_MAX, SEARCH_MAX};

use super::{Done, Keep, once, send};
use crate::access::permission::{Allowed, needs};
use crate::app::App;
use crate::export;
use crate::problem::{Form, Params, Problem, Segment};

/// Incidents on a page, unless asked otherwise.
const PAGE: u32 = 100;

/// Incidents in an export.
const EXPORT_MAX: usize = 5000;

/// Longest note or comment, characters.
const TEXT_MAX: usize = 4000;

/// What to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Only open or only closed ones.
    state: Option<IncidentState>,
    /// Only of this family.
    family: Option<Family>,
    /// Only those whose target lies in this prefix.
    #[param(value_type = Option<String>)]
    target: Option<IpNet>,
    /// Opened at or after, milliseconds since 1970.
    from: Option<Millis>,
    /// Opened before, milliseconds since 1970.
    to: Option<Millis>,
    /// Words that target, family, group or summary contain, case ignored.
    #[param(max_length = 128)]
    search: Option<String>,
    /// Where the last page ended: its `next`.
    cursor: Option<IncidentId>,
    /// At most so many.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// A page of incidents, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = IncidentList)]
pub(crate) struct List {
    #[schema(value_type = Vec<Incident>)]
    incidents: Vec<Arc<Incident>>,
    /// `cursor` of the next page, if there is one.
    next: Option<IncidentId>,
}

impl Filter {
    fn for_whom(self, who: &Allowed<needs::ReadIncidents>) -> Result<IncidentFilter, Problem> {
        if self.search.as_ref().is_some_and(|text| text.len() > SEARCH_MAX) {
            return Err(Problem::bad(format!("search: at most {SEARCH_MAX} octets")));
        }
        let mut within = who.within().to_vec();
        if let Some(target) = self.target {
            // Both hold: whatever a tenant asks for, it stays inside its own prefixes.
            within = if who.principal.role == Role::Tenant {
                within
                    .into_iter()
                    .filter_map(|own| match (own.contains(&target), target.contains(&own)) {
                        (true, _) => Some(target),
                        (_, true) => Some(own),
                        _ => None,
                    })
                    .collect()
            } else {
                vec![target]
            };
        }
        Ok(IncidentFilter {
            state: self.state,
            family: self.family,
            within,
            from: self.from,
            to: self.to,
            search: self.search,
            before: self.cursor,
        })
    }
}

/// What passes the filter, the newest form of each, newest first.
async fn find(
    app: &App,
    who: &Allowed<needs::ReadIncidents>,
    filter: IncidentFilter,
    limit: usize,
) -> Result<List, Problem> {
    // An empty list of prefixes means everything to the store, and nothing to a tenant.
    if who.principal.role == Role::Tenant && filter.within.is_empty() {
        return Ok(List { incidents: Vec::new(), next: None });
    }
    let wanted = filter.clone();
    let page = u32::try_from(limit.saturating_add(1)).unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let mut stored = app.read(move |store| store.incidents(&wanted, page)).await?;
    while stored.len() >= usize::try_from(PAGE_MAX).unwrap_or(usize::MAX) && stored.len() <= limit {
        let mut wanted = filter.clone();
        wanted.before = stored.last().map(|incident| incident.id);
        let more = app.read(move |store| store.incidents(&wanted, PAGE_MAX)).await?;
        if more.is_empty() {
            break;
        }
        stored.extend(more);
    }
    let mut found: BTreeMap<Reverse<IncidentId>, Arc<Incident>> =
        stored.into_iter().map(|incident| (Reverse(incident.id), Arc::new(incident))).collect();
    // The snapshot is newer than the store, and may know incidents that the store has not taken yet.
    for incident in &app.inner.handles.snapshot.load().incidents {
        if filter.passes(incident) {
            found.insert(Reverse(incident.id), Arc::clone(incident));
        } else {
            found.remove(&Reverse(incident.id));
        }
    }
    let more = found.len() > limit;
    let incidents: Vec<_> = found.into_values().take(limit).collect();
    let next = incidents.last().filter(|_| more).map(|incident| incident.id);
    Ok(List { incidents, next })
}

/// Lists incidents, newest first.
#[utoipa::path(get, path = "/api/v1/incidents", tag = "incidents", params(Filter),
    responses((status = 200, description = "A page", body = List)))]
pub(crate) async fn list(
    who: Allowed<needs::ReadIncidents>,
    State(app): State<App>,
    Params(filter): Params<Filter>,
) -> Result<Json<List>, Problem> {
    let limit = filter.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX - 1);
    let filter = filter.for_whom(&who)?;
    let limit = usize::try_from(limit).unwrap_or(1);
    Ok(Json(find(&app, &who, filter, limit).await?))
}

/// Form of an export.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// One line an incident.
    #[default]
    Csv,
    /// Everything.
    Json,
}

/// What to export: the filters of the list, and the form.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Export {
    /// `csv` or `json`.
    #[param(inline)]
    format: Option<Format>,
    /// Only open or only closed ones.
    state: Option<IncidentState>,
    /// Only of this family.
    family: Option<Family>,
    /// Only those whose target lies in this prefix.
    #[param(value_type = Option<String>)]
    target: Option<IpNet>,
    /// Opened at or after, milliseconds since 1970.
    from: Option<Millis>,
    /// Opened before, milliseconds since 1970.
    to: Option<Millis>,
    /// Words that target, family, group or summary contain, case ignored.
    #[param(max_length = 128)]
    search: Option<String>,
}

/// Exports up to 5000 incidents as a file.
#[utoipa::path(get, path = "/api/v1/incidents/export", tag = "incidents", params(Export),
    responses((status = 200, description = "A file", content(
        (String = "text/csv"), (Vec<Incident> = "application/json")))))]
pub(crate) async fn export(
    who: Allowed<needs::ReadIncidents>,
    State(app): State<App>,
    Params(wanted): Params<Export>,
) -> Result<Response, Problem> {
    let Export { format, state, family, target, from, to, search } = wanted;
    let filter = Filter { state, family, target, from, to, search, cursor: None, limit: None };
    let found = find(&app, &who, filter.for_whom(&who)?, EXPORT_MAX).await?.incidents;
    let (kind, name, body) = match format.unwrap_or_default() {
        Format::Csv => {
            let lines: String = found.iter().map(|incident| export::line(incident)).collect();
            let body = (export::HEAD.to_owned() + &lines).into_bytes();
            ("text/csv; charset=utf-8", "attachment; filename=\"incidents.csv\"", body)
        }
        Format::Json => {
            let body = serde_json::to_vec(&found).map_err(|_| Problem::internal("the export"))?;
            ("application/json", "attachment; filename=\"incidents.json\"", body)
        }
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static(name)),
    ];
    Ok((headers, body).into_response())
}

/// A note.
#[derive(Serialize, ToSchema)]
#[schema(as = Note)]
pub(crate) struct NoteView {
    id: u64,
    at: Millis,
    who: String,
    text: String,
}

impl From<Note> for NoteView {
    fn from(note: Note) -> Self {
        Self { id: note.id, at: note.at, who: note.who, text: note.text }
    }
}

/// What an operator says of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FeedbackKind {
    /// It was one.
    Attack,
    /// It was none.
    FalsePositive,
}

/// What was said of an incident.
#[derive(Serialize, ToSchema)]
#[schema(as = Feedback)]
pub(crate) struct FeedbackView {
    at: Millis,
    who: String,
    kind: FeedbackKind,
    comment: String,
    /// For a false alarm: what an exclusion would have to match so that it does not come again.
    exclusion: Option<Exclusion>,
}

/// Draft of an exclusion: to be read, narrowed and put into the settings by a person.
#[derive(Serialize, ToSchema)]
pub(crate) struct Exclusion {
    /// Traffic that was taken for an attack.
    packets: Vec<Match>,
    /// Why.
    why: String,
    /// When it should lapse, unless renewed: thirty days on.
    expires: Millis,
}

fn feedback_view(incident: &Incident, feedback: Feedback) -> FeedbackView {
    const MONTH_MS: u64 = 30 * 24 * 3600 * 1000;
    let kind =
        if feedback.kind == "attack" { FeedbackKind::Attack } else { FeedbackKind::FalsePositive };
    let verdict = &incident.verdict;
    let exclusion = (kind == FeedbackKind::FalsePositive).then(|| Exclusion {
        packets: if verdict.candidates.is_empty() {
            vec![Match::to(verdict.target)]
        } else {
            verdict.candidates.iter().map(|candidate| candidate.packets.clone()).collect()
        },
        why: format!("false alarm {}: {}", incident.id, feedback.comment),
        expires: feedback.at + MONTH_MS,
    });
    FeedbackView { at: feedback.at, who: feedback.who, kind, comment: feedback.comment, exclusion }
}

/// One incident with everything about it.
#[derive(Serialize, ToSchema)]
#[schema(as = IncidentPage)]
pub(crate) struct Page {
    #[serde(flatten)]
    #[schema(value_type = Incident)]
    incident: Arc<Incident>,
    /// What comes next by itself, where that is known.
    next: Option<Outlook>,
    /// What the verdicts rest on, of the attack at its strongest; once the store has it.
    evidence: Option<Evidence>,
    /// What operators noted, oldest first.
    notes: Vec<NoteView>,
    /// What was said of it.
    feedback: Option<FeedbackView>,
}

/// The newest form of an incident that whoever asks may see.
async fn visible(
    app: &App,
    id: IncidentId,
    sees: impl Fn(IpNet) -> bool,
) -> Result<Arc<Incident>, Problem> {
    let snapshot = app.inner.handles.snapshot.load();
    let live = snapshot.incidents.iter().find(|incident| incident.id == id).cloned();
    drop(snapshot);
    let found = match live {
        Some(incident) => Some(incident),
        None => app.read(move |store| store.incident(id)).await?.map(Arc::new),
    };
    // What one may not see does not exist.
    found
        .filter(|incident| sees(incident.verdict.target))
        .ok_or_else(|| Problem::missing("incident"))
}

/// Shows one incident.
#[utoipa::path(get, path = "/api/v1/incidents/{id}", tag = "incidents",
    params(("id" = IncidentId, Path, description = "Its number")),
    responses((status = 200, description = "The incident", body = Page)))]
pub(crate) async fn one(
    who: Allowed<needs::ReadIncidents>,
    State(app): State<App>,
    Segment(id): Segment<IncidentId>,
) -> Result<Json<Page>, Problem> {
    let incident = visible(&app, id, |target| who.sees(target)).await?;
    let (notes, feedback, evidence) = app
        .read(move |store| Ok((store.notes(id)?, store.feedback(id)?, store.evidence(id)?)))
        .await?;
    // What operators say to each other is not for their customers.
    let own = who.principal.role != Role::Tenant;
    Ok(Json(Page {
        notes: notes.into_iter().filter(|_| own).map(NoteView::from).collect(),
        feedback: feedback.filter(|_| own).map(|feedback| feedback_view(&incident, feedback)),
        next: app.inner.handles.snapshot.load().outlooks.get(&id).copied(),
        evidence,
        incident,
    }))
}

/// Hold or release.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hold {
    /// Stay on the present rung, or let go again.
    on: bool,
}

/// Keeps an incident on its present rung, or lets go again.
#[utoipa::path(post, path = "/api/v1/incidents/{id}/hold", tag = "incidents",
    params(("id" = IncidentId, Path, description = "Its number"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition harmless")),
    request_body = Hold, responses((status = 200, description = "Done", body = Done)))]
pub(crate) async fn hold(
    who: Allowed<needs::Mitigate>,
    State(app): State<App>,
    Segment(id): Segment<IncidentId>,
    headers: HeaderMap,
    Form(body): Form<Hold>,
) -> Result<Response, Problem> {
    let by = who.principal.name.clone();
    let command = Command::Hold { incident: id, on: body.on, by };
    let action = if body.on { "incident.hold" } else { "incident.release" };
    let work = send(&app, &who.principal, action, id.to_string(), command);
    let keep = if body.on { Keep::InMemory } else { Keep::OnDisk };
    let request = [action.as_bytes(), &id.0.to_be_bytes()];
    once(&app, &who.principal, &headers, keep, &request, work).await
}

/// A step on the ladder, once however often it is asked for under one key.
async fn step(
    app: &App,
    who: &Allowed<needs::Mitigate>,
    id: IncidentId,
    headers: &HeaderMap,
    name: &str,
    command: impl FnOnce(String) -> Command,
) -> Result<Response, Problem> {
    let (principal, id) = (&who.principal, id.to_string());
    let command = command(principal.name.clone());
    let action = format!("incident.{name}");
    let down = matches!(command, Command::StepDown { .. });
    let keep = if down { Keep::InMemory } else { Keep::OnDisk };
    let work = send(app, principal, &action, id.clone(), command);
    once(app, principal, headers, keep, &[name.as_bytes(), id.as_bytes()], work).await
}

/// Leaves the rung that is in force or proposed, and goes on to the next one that is allowed.
#[utoipa::path(post, path = "/api/v1/incidents/{id}/skip", tag = "incidents",
    params(("id" = IncidentId, Path, description = "Its number"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition harmless")),
    responses((status = 200, description = "Done", body = Done)))]
pub(crate) async fn skip(
    who: Allowed<needs::Mitigate>,
    State(app): State<App>,
    Segment(id): Segment<IncidentId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let command = |by| Command::Skip { incident: id, by };
    step(&app, &who, id, &headers, "skip", command).await
}

/// Goes back one rung, and takes no harder one again in this incident.
#[utoipa::path(post, path = "/api/v1/incidents/{id}/step-down", tag = "incidents",
    params(("id" = IncidentId, Path, description = "Its number"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition harmless")),
    responses((status = 200, description = "Done", body = Done)))]
pub(crate) async fn step_down(
    who: Allowed<needs::Mitigate>,
    State(app): State<App>,
    Segment(id): Segment<IncidentId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let command = |by| Command::StepDown { incident: id, by };
    step(&app, &who, id, &headers, "step-down", command).await
}

/// A note to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewNote {
    /// What to note.
    #[schema(min_length = 1, max_length = 4000)]
    text: String,
}

fn text(text: &str, least: usize) -> Result<String, Problem> {
    let text = text.trim();
    let length = text.chars().count();
    if length < least || length > TEXT_MAX {
        return Err(Problem::invalid(format!("a text has {least} to {TEXT_MAX} characters")));
    }
    Ok(text.to_owned())
}

/// Adds a note.
#[utoipa::path(post, path = "/api/v1/incidents/{id}/notes", tag = "incidents",
    params(("id" = IncidentId, Path, description = "Its number")),
    request_body = NewNote, responses((status = 200, description = "The note", body = NoteView)))]
pub(crate) async fn note(
    who: Allowed<needs::Comment>,
    State(app): State<App>,
    Segment(id): Segment<IncidentId>,
    Form(body): Form<NewNote>,
) -> Result<Json<NoteView>, Problem> {
    visible(&app, id, |target| who.sees(target)).await?;
    let text = text(&body.text, 1)?;
    let (at, name) = (app.now(), who.principal.name.clone());
    let mut entry = app.entry(&who.principal, "incident.note", id.to_string());
    entry.after = serde_json::to_string(&text).ok();
    let note = app
        .change(move |change| {
            let number = change.add_note(id, at, &name, &text)?;
            change.audit(&entry)?;
            Ok(NoteView { id: number, at, who: name, text })
        })
        .await?;
    Ok(Json(note))
}

/// What an operator says.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewFeedback {
    /// Whether it was an attack.
    kind: FeedbackKind,
    /// Why.
    #[serde(default)]
    #[schema(max_length = 4000)]
    comment: String,
}

/// Says whether an incident was one; a false alarm is answered with the draft of an exclusion.
#[utoipa::path(put, path = "/api/v1/incidents/{id}/feedback", tag = "incidents",
    params(("id" = IncidentId, Path, description = "Its number")),
    request_body = NewFeedback,
    responses((status = 200, description = "What was said", body = FeedbackView)))]
pub(crate) async fn feedback(
    who: Allowed<needs::Comment>,
    State(app): State<App>,
    Segment(id): Segment<IncidentId>,
    Form(body): Form<NewFeedback>,
) -> Result<Json<FeedbackView>, Problem> {
    let incident = visible(&app, id, |target| who.sees(target)).await?;
    let kind = match body.kind {
        FeedbackKind::Attack => "attack",
        FeedbackKind::FalsePositive => "false-positive",
    };
    let said = Feedback {
        at: app.now(),
        who: who.principal.name.clone(),
        kind: kind.to_owned(),
        comment: text(&body.comment, 0)?,
    };
    let mut entry = app.entry(&who.principal, "incident.feedback", id.to_string());
    entry.after = serde_json::to_string(&(kind, &said.comment)).ok();
    let kept = said.clone();
    app.change(move |change| {
        change.put_feedback(id, &kept)?;
        change.audit(&entry)
    })
    .await?;
    Ok(Json(feedback_view(&incident, said)))
}

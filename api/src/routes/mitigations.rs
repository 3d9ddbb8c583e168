//! `/api/v1/mitigations`.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_model::{
    Command, DryRun, IncidentId, Measure, Mitigation, MitigationId, MitigationState, Mode,
    Originator,
};

use super::{Done, Keep, ask, once, send};
use crate::Ask;
use crate::access::permission::{Allowed, needs};
use crate::app::App;
use crate::problem::{Form, Params, Problem, Segment};

/// What to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Only those in this state.
    state: Option<MitigationState>,
    /// Only those of this incident.
    incident: Option<IncidentId>,
}

/// Mitigations, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = MitigationList)]
pub(crate) struct List {
    mitigations: Vec<Mitigation>,
}

/// Lists mitigations: those of open incidents and of operators, and recent ended ones.
#[utoipa::path(get, path = "/api/v1/mitigations", tag = "mitigations", params(Filter),
    responses((status = 200, description = "Mitigations", body = List)))]
pub(crate) async fn list(
    who: Allowed<needs::ReadMitigations>,
    State(app): State<App>,
    Params(filter): Params<Filter>,
) -> Json<List> {
    let wanted = |m: &&Mitigation| {
        who.sees(m.measure.target())
            && filter.state.is_none_or(|state| m.state == state)
            && filter.incident.is_none_or(|id| m.originator == Originator::Incident(id))
    };
    let snapshot = app.inner.handles.snapshot.load();
    Json(List { mitigations: snapshot.mitigations.iter().filter(wanted).cloned().collect() })
}

/// A mitigation asked for by hand.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = NewMitigation)]
#[serde(deny_unknown_fields)]
pub(crate) struct Add {
    /// What.
    measure: Measure,
    /// For how long, seconds.
    #[schema(minimum = 1)]
    ttl_secs: u64,
}

/// Puts a measure in force by hand; it passes the same guard as weir's own.
#[utoipa::path(post, path = "/api/v1/mitigations", tag = "mitigations",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition harmless")),
    request_body = Add, responses((status = 200, description = "Done", body = Done)))]
pub(crate) async fn add(
    who: Allowed<needs::Mitigate>,
    State(app): State<App>,
    headers: HeaderMap,
    Form(body): Form<Add>,
) -> Result<Response, Problem> {
    if body.ttl_secs == 0 {
        return Err(Problem::invalid("ttl_secs: at least 1"));
    }
    let request = serde_json::to_vec(&body).map_err(|_| Problem::internal("the request"))?;
    let target = body.measure.target().to_string();
    // The person, whatever they use: who asks for a black hole is the first of the two that it may need.
    let by = who.principal.person.clone();
    let command = Command::Add { measure: body.measure, ttl_secs: body.ttl_secs, by };
    let work = send(&app, &who.principal, "mitigation.add", target, command);
    once(&app, &who.principal, &headers, Keep::OnDisk, &[b"add", &request], work).await
}

/// A change of a mitigation that was put in force by hand.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = MitigationChange)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    /// What takes its place; the number stays.
    #[serde(default)]
    measure: Option<Measure>,
    /// For how long from now on, seconds.
    #[serde(default)]
    #[schema(minimum = 1)]
    ttl_secs: Option<u64>,
}

/// Gives a mitigation by hand more or less time, or puts another measure in its place. Where only the
/// action differs, routers see one announcement and no gap.
#[utoipa::path(patch, path = "/api/v1/mitigations/{id}", tag = "mitigations",
    params(("id" = u64, Path, description = "Its number"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition harmless")),
    request_body = Change, responses((status = 200, description = "Done", body = Done)))]
pub(crate) async fn change(
    who: Allowed<needs::Mitigate>,
    State(app): State<App>,
    Segment(id): Segment<u64>,
    headers: HeaderMap,
    Form(body): Form<Change>,
) -> Result<Response, Problem> {
    if body.ttl_secs == Some(0) {
        return Err(Problem::invalid("ttl_secs: at least 1"));
    }
    if body.ttl_secs.is_none() && body.measure.is_none() {
        return Err(Problem::invalid("neither measure nor ttl_secs: nothing would change"));
    }
    let request = serde_json::to_vec(&body).map_err(|_| Problem::internal("the request"))?;
    let command = Command::Change {
        mitigation: MitigationId(id),
        measure: body.measure,
        ttl_secs: body.ttl_secs,
        by: who.principal.name.clone(),
    };
    let work = send(&app, &who.principal, "mitigation.change", id.to_string(), command);
    let request: [&[u8]; 3] = [b"change", &id.to_be_bytes(), &request];
    once(&app, &who.principal, &headers, Keep::OnDisk, &request, work).await
}

/// Puts a proposed mitigation in force.
#[utoipa::path(post, path = "/api/v1/mitigations/{id}/approve", tag = "mitigations",
    params(("id" = u64, Path, description = "Its number"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition harmless")),
    responses((status = 200, description = "Done", body = Done)))]
pub(crate) async fn approve(
    who: Allowed<needs::Mitigate>,
    State(app): State<App>,
    Segment(id): Segment<u64>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // The person: one's own token is no second one.
    let by = who.principal.person.clone();
    let command = Command::Approve { mitigation: MitigationId(id), by };
    let work = send(&app, &who.principal, "mitigation.approve", id.to_string(), command);
    let request: [&[u8]; 2] = [b"approve", &id.to_be_bytes()];
    once(&app, &who.principal, &headers, Keep::OnDisk, &request, work).await
}

/// Withdraws a mitigation, which does not come back in this incident. On one that is only proposed, this
/// skips it.
#[utoipa::path(post, path = "/api/v1/mitigations/{id}/withdraw", tag = "mitigations",
    params(("id" = u64, Path, description = "Its number"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition harmless")),
    responses((status = 200, description = "Done", body = Done)))]
pub(crate) async fn withdraw(
    who: Allowed<needs::Mitigate>,
    State(app): State<App>,
    Segment(id): Segment<u64>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let command =
        Command::Withdraw { mitigation: MitigationId(id), by: who.principal.name.clone() };
    let work = send(&app, &who.principal, "mitigation.withdraw", id.to_string(), command);
    let request: [&[u8]; 2] = [b"withdraw", &id.to_be_bytes()];
    once(&app, &who.principal, &headers, Keep::InMemory, &request, work).await
}

/// Withdraws everything at once and goes to observe mode.
#[utoipa::path(post, path = "/api/v1/mitigations/withdraw-all", tag = "mitigations",
    responses((status = 200, description = "Done", body = Done)))]
pub(crate) async fn panic(
    who: Allowed<needs::Mitigate>,
    State(app): State<App>,
) -> Result<Json<Done>, Problem> {
    let command = Command::Panic { by: who.principal.name.clone() };
    send(&app, &who.principal, "mitigation.withdraw-all", "all".to_owned(), command).await.map(Json)
}

/// What is to be tried: one of the things that can be asked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) enum Trial {
    /// Put a measure in force by hand.
    Add(Add),
    /// Change a measure by hand.
    Change {
        /// Its number.
        id: u64,
        /// What takes its place.
        #[serde(default)]
        measure: Option<Measure>,
        /// For how long from now on, seconds.
        #[serde(default)]
        ttl_secs: Option<u64>,
    },
    /// Put this proposed mitigation in force.
    Approve(u64),
    /// Withdraw this mitigation.
    Withdraw(u64),
    /// Go on to the next rung in this incident.
    Skip(IncidentId),
    /// Go back one rung in this incident.
    StepDown(IncidentId),
    /// Change how far weir acts by itself.
    Mode(Mode),
    /// Withdraw everything.
    WithdrawAll,
}

impl Trial {
    fn command(self, by: String) -> Command {
        match self {
            Self::Add(Add { measure, ttl_secs }) => Command::Add { measure, ttl_secs, by },
            Self::Change { id, measure, ttl_secs } => {
                Command::Change { mitigation: MitigationId(id), measure, ttl_secs, by }
            }
            Self::Approve(id) => Command::Approve { mitigation: MitigationId(id), by },
            Self::Withdraw(id) => Command::Withdraw { mitigation: MitigationId(id), by },
            Self::Skip(incident) => Command::Skip { incident, by },
            Self::StepDown(incident) => Command::StepDown { incident, by },
            Self::Mode(mode) => Command::SetMode { mode, by },
            Self::WithdrawAll => Command::Panic { by },
        }
    }
}

/// Says what something would change, without doing it: measures added and withdrawn, the share of normal
/// traffic that the added ones would hit, and the services they may touch.
#[utoipa::path(post, path = "/api/v1/dry-run", tag = "mitigations", request_body = Trial,
    responses((status = 200, description = "What would change", body = DryRun)))]
pub(crate) async fn dry_run(
    who: Allowed<needs::Mitigate>,
    State(app): State<App>,
    Form(trial): Form<Trial>,
) -> Result<Json<DryRun>, Problem> {
    let command = Box::new(trial.command(who.principal.person.clone()));
    let outcome = ask(&app, |reply| Ask::DryRun { command, reply }).await?;
    Ok(Json(outcome?))
}

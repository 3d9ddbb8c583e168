//! Handlers, one file a resource. The first argument of each is [`crate::access::permission::Allowed`].

#![expect(
    unused_qualifications,
    reason = "what the path macro expands to names everything in full"
)]

pub(crate) mod about;
pub(crate) mod agents;
pub(crate) mod allow;
pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod dashboard;
pub(crate) mod deliveries;
pub(crate) mod flows;
pub(crate) mod hosts;
pub(crate) mod incidents;
pub(crate) mod live;
pub(crate) mod me;
pub(crate) mod mitigations;
pub(crate) mod page;
pub(crate) mod panels;
pub(crate) mod policy;
pub(crate) mod settings;
pub(crate) mod status;
pub(crate) mod tokens;
pub(crate) mod traffic;
pub(crate) mod users;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use utoipa::ToSchema;
use weir_model::{Command, CommandError, MitigationId};
use weir_store::audit::AuditEntry;

use crate::Request;
use crate::access::Principal;
use crate::app::App;
use crate::problem::Problem;

/// Answers under an idempotency key are given again for so long, milliseconds.
const ANSWERS_KEPT_MS: u64 = 24 * 3600 * 1000;

/// Longest idempotency key, octets.
const KEY_MAX: usize = 128;

/// What a command answers.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Done {
    /// The mitigation made or changed, if the command was about one.
    mitigation: Option<MitigationId>,
    /// Whether the audit log has it already: what only takes away is done also while the state file takes
    /// nothing, and is written down when it does.
    #[serde(default = "yes")]
    recorded: bool,
}

const fn yes() -> bool {
    true
}

/// Hands a command to the core and waits for its outcome. What is asked is in the audit log before the core
/// hears of it, and a refusal after. What only takes away needs no log: it is done first.
async fn send(
    app: &App,
    who: &Principal,
    action: &str,
    target: String,
    command: Command,
) -> Result<Done, Problem> {
    let mut entry = app.entry(who, action, target);
    entry.after = serde_json::to_string(&command).ok();
    if command.only_takes_away(app.inner.handles.snapshot.load().mode) {
        let outcome = deliver_at_once(app, command).await;
        let mut recorded = app.record(entry.clone()).await;
        if let Err(problem) = &outcome {
            recorded = app.record(refused(entry, problem)).await;
        }
        return outcome.map(|done| Done { recorded, ..done });
    }
    app.audit(entry.clone()).await?;
    let outcome = deliver(app, command).await;
    if let Err(problem) = &outcome {
        app.record(refused(entry, problem)).await;
    }
    outcome
}

fn refused(mut entry: AuditEntry, problem: &Problem) -> AuditEntry {
    entry.action.push_str(".refused");
    entry.after = serde_json::to_string(problem.detail()).ok();
    entry
}

async fn deliver(app: &App, command: Command) -> Result<Done, Problem> {
    let (reply, outcome) = oneshot::channel();
    let request = Request { command, reply };
    app.inner.handles.commands.try_send(request).map_err(|error| {
        Problem::busy(match error {
            TrySendError::Full(_) => "too many commands are waiting",
            TrySendError::Closed(_) => STOPPING,
        })
    })?;
    outcome_of(outcome).await
}

/// Waits for a place instead of being turned away: others may fill the queue.
async fn deliver_at_once(app: &App, command: Command) -> Result<Done, Problem> {
    let (reply, outcome) = oneshot::channel();
    let request = Request { command, reply };
    app.inner.handles.commands.send(request).await.map_err(|_| Problem::busy(STOPPING))?;
    outcome_of(outcome).await
}

const STOPPING: &str = "weir is stopping";

async fn outcome_of(
    outcome: oneshot::Receiver<Result<Option<MitigationId>, CommandError>>,
) -> Result<Done, Problem> {
    let gone = |_| Problem::busy("the core did not take the command");
    let mitigation = outcome.await.map_err(gone)??;
    Ok(Done { mitigation, recorded: true })
}

/// Puts a question and waits for its answer.
async fn ask<T>(
    app: &App,
    question: impl FnOnce(oneshot::Sender<T>) -> crate::Ask,
) -> Result<T, Problem> {
    let (reply, answer) = oneshot::channel();
    let asks = app.inner.handles.asks.as_ref();
    let asks = asks.ok_or_else(|| Problem::busy("nobody can answer"))?;
    asks.try_send(question(reply)).map_err(|_| Problem::busy("too many questions are waiting"))?;
    answer.await.map_err(|_| Problem::busy("too many questions are waiting"))
}

/// Where the answer to a request is kept for its repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// Of what only takes away: it waits for no disk.
    InMemory,
    /// Of everything else: a repetition after a restart must not act again.
    OnDisk,
}

/// Answers a request with an `Idempotency-Key` once: the same key brings the same answer again, another
/// request under it a conflict. What failed before the core decided may be tried again.
async fn once(
    app: &App,
    who: &Principal,
    headers: &HeaderMap,
    keep: Keep,
    request: &[&[u8]],
    work: impl Future<Output = Result<Done, Problem>>,
) -> Result<Response, Problem> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(Json(work.await?).into_response());
    };
    let key = key
        .to_str()
        .ok()
        .filter(|key| !key.is_empty() && key.len() <= KEY_MAX)
        .ok_or_else(|| Problem::bad("Idempotency-Key: 1 to 128 visible characters"))?
        .to_owned();
    let mut sum = Sha256::new();
    for part in request {
        sum.update(part.len().to_be_bytes());
        sum.update(part);
    }
    let hash: [u8; 32] = sum.finalize().into();
    let (name, now) = (who.name.clone(), app.now());
    let forget = now - ANSWERS_KEPT_MS;
    let both = (name.clone(), key.clone());
    let claimed = match keep {
        Keep::InMemory => app.inner.answers.claim(&both, hash, now, forget),
        Keep::OnDisk => {
            let (name, key) = both.clone();
            app.change(move |change| change.claim_answer(&name, &key, &hash, now, forget)).await?
        }
    };
    match claimed {
        Some(known) if known.request != hash => {
            Err(Problem::invalid("this Idempotency-Key belongs to another request"))
        }
        Some(known) if known.status == 0 => Err(Problem::new(
            StatusCode::CONFLICT,
            "the first request with this Idempotency-Key has not been answered",
        )),
        Some(known) => {
            let status = StatusCode::from_u16(known.status).unwrap_or(StatusCode::OK);
            let json = HeaderValue::from_static("application/json");
            Ok((status, [(header::CONTENT_TYPE, json)], known.body).into_response())
        }
        None => {
            let outcome = work.await;
            let kept = outcome.as_ref().ok().and_then(|done| serde_json::to_vec(done).ok());
            match keep {
                Keep::InMemory => app.inner.answers.put(&both, kept),
                Keep::OnDisk => {
                    app.change(move |change| match kept {
                        Some(body) => change.put_answer(&name, &key, 200, &body),
                        None => change.drop_answer(&name, &key),
                    })
                    .await?;
                }
            }
            Ok(Json(outcome?).into_response())
        }
    }
}

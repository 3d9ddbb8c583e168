//! `/api/v1/audit`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_model::Millis;
use weir_store::audit::Chain;

use crate::access::permission::{Allowed, needs};
use crate::access::secret::hex;
use crate::app::App;
use crate::problem::{Params, Problem};

/// Which entries.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// Where the last page ended: its `next`.
    cursor: Option<u64>,
    /// At most so many.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// Who did what.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(crate) struct EntryView {
    /// Its number, without gaps.
    seq: u64,
    at: Millis,
    who: String,
    /// How they proved it.
    via: String,
    /// From where.
    address: String,
    action: String,
    target: String,
    /// State before, JSON.
    before: Option<String>,
    /// State after, JSON.
    after: Option<String>,
    /// SHA-256 over the entry before and this one, hexadecimal.
    hash: String,
}

/// A page of entries, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditList)]
pub(crate) struct List {
    entries: Vec<EntryView>,
    /// `cursor` of the next page, if there is one.
    next: Option<u64>,
}

/// Lists audit entries, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(Page),
    responses((status = 200, description = "A page", body = List)))]
pub(crate) async fn list(
    _who: Allowed<needs::ReadAudit>,
    State(app): State<App>,
    Params(page): Params<Page>,
) -> Result<Json<List>, Problem> {
    let limit = page.limit.unwrap_or(100).clamp(1, 500);
    let rows = app.read(move |store| store.audit_page(page.cursor, limit)).await?;
    let entries: Vec<EntryView> = rows
        .into_iter()
        .map(|row| EntryView {
            seq: row.seq,
            at: row.entry.at,
            who: row.entry.who,
            via: row.entry.via,
            address: row.entry.address,
            action: row.entry.action,
            target: row.entry.target,
            before: row.entry.before,
            after: row.entry.after,
            hash: hex(&row.hash),
        })
        .collect();
    let next = entries.last().map(|entry| entry.seq).filter(|seq| *seq > 1);
    Ok(Json(List { entries, next }))
}

/// Whether the chain is whole.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditVerdict)]
pub(crate) struct Verdict {
    whole: bool,
    /// Entries checked.
    entries: u64,
    /// Hash of the last, hexadecimal: kept elsewhere, it shows a log that was cut off.
    head: Option<String>,
    /// The first entry that does not follow from the one before it.
    broken_at: Option<u64>,
}

/// Checks every entry against the one before it.
#[utoipa::path(get, path = "/api/v1/audit/verify", tag = "audit",
    responses((status = 200, description = "The verdict", body = Verdict)))]
pub(crate) async fn verify(
    _who: Allowed<needs::ReadAudit>,
    State(app): State<App>,
) -> Result<Json<Verdict>, Problem> {
    Ok(Json(match app.read(weir_store::Store::verify_audit).await? {
        Chain::Whole { entries, head } => {
            Verdict { whole: true, entries, head: Some(hex(&head)), broken_at: None }
        }
        Chain::Broken { seq } => {
            Verdict { whole: false, entries: seq - 1, head: None, broken_at: Some(seq) }
        }
    }))
}

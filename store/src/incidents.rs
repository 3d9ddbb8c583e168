//! Incidents: written whole, filtered and searched by columns beside the body.

use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{OptionalExtension as _, params, params_from_iter};
use serde::{Deserialize, Serialize};
use weir_model::{Evidence, Family, Incident, IncidentId, IncidentState, IpNet, Millis};

use crate::{Store, StoreError, from_sql, to_sql};

/// Incidents that one page holds at most.
pub const PAGE_MAX: u32 = 500;

/// Longest text that is searched for, octets.
pub const SEARCH_MAX: usize = 128;

/// Which incidents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentFilter {
    /// Open or closed ones only.
    pub state: Option<IncidentState>,
    /// Of this family only.
    pub family: Option<Family>,
    /// Whose target lies in one of these prefixes; empty means anywhere.
    pub within: Vec<IpNet>,
    /// Opened at or after.
    pub from: Option<Millis>,
    /// Opened before.
    pub to: Option<Millis>,
    /// Target, family, group or summary contains each of these words, case ignored.
    pub search: Option<String>,
    /// Older than this one: where the last page ended.
    pub before: Option<IncidentId>,
}

impl IncidentFilter {
    /// Whether an incident that is not read from the store passes: the same answer as the store gives.
    pub fn passes(&self, incident: &Incident) -> bool {
        let words = words(incident);
        self.state.is_none_or(|state| incident.state == state)
            && self.family.is_none_or(|family| incident.verdict.family == family)
            && self.sees(incident.verdict.target)
            && self.from.is_none_or(|from| incident.opened >= from)
            && self.to.is_none_or(|to| incident.opened < to)
            && self.terms().all(|term| words.contains(&term))
            && self.before.is_none_or(|before| incident.id < before)
    }

    fn sees(&self, target: IpNet) -> bool {
        self.within.is_empty() || self.within.iter().any(|net| net.contains(&target))
    }

    fn terms(&self) -> impl Iterator<Item = String> + '_ {
        self.search.as_deref().unwrap_or_default().split_whitespace().map(str::to_lowercase)
    }
}

/// What a search looks at.
fn words(incident: &Incident) -> String {
    let verdict = &incident.verdict;
    let group = incident.group.as_deref().unwrap_or_default();
    format!("{} {} {group} {}", verdict.target, verdict.family, verdict.summary).to_lowercase()
}

impl Store {
    /// Writes incidents in one transaction; a known one is replaced.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Encode`]; then nothing of the batch is written.
    pub fn put_incidents(&mut self, incidents: &[Arc<Incident>]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        {
            let mut row = transaction.prepare_cached(
                "INSERT INTO incidents (id, open, opened_ms, closed_ms, target, family, words)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (id) DO UPDATE SET open = excluded.open, closed_ms = excluded.closed_ms,
                     target = excluded.target, family = excluded.family, words = excluded.words",
            )?;
            let mut body = transaction.prepare_cached(
                "INSERT INTO incident_bodies (id, body) VALUES (?1, ?2)
                 ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            )?;
            for incident in incidents {
                let id = to_sql(incident.id.0);
                row.execute(params![
                    id,
                    incident.state == IncidentState::Open,
                    to_sql(incident.opened.0),
                    incident.closed.map(|at| to_sql(at.0)),
                    incident.verdict.target.to_string(),
                    incident.verdict.family.id(),
                    words(incident),
                ])?;
                body.execute(params![id, serde_json::to_string(incident.as_ref())?])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Keeps the evidence behind incidents, in one transaction; what was kept before is replaced.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Encode`]; then nothing of the batch is written.
    pub fn put_evidence(&mut self, batch: &[(IncidentId, Evidence)]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        {
            let mut row = transaction.prepare_cached(
                "INSERT INTO evidence (incident, body) VALUES (?1, ?2)
                 ON CONFLICT (incident) DO UPDATE SET body = excluded.body",
            )?;
            for (id, evidence) in batch {
                row.execute(params![to_sql(id.0), serde_json::to_string(evidence)?])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// The evidence behind an incident, if any was kept.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Encode`].
    pub fn evidence(&self, id: IncidentId) -> Result<Option<Evidence>, StoreError> {
        let body: Option<String> = self
            .connection
            .prepare_cached("SELECT body FROM evidence WHERE incident = ?1")?
            .query_row([to_sql(id.0)], |row| row.get(0))
            .optional()?;
        body.map(|body| Ok(serde_json::from_str(&body)?)).transpose()
    }

    /// Incidents that had not ended when the last weir stopped, oldest first. One that cannot be read is
    /// left out.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Encode`].
    pub fn open_incidents(&self) -> Result<Vec<Incident>, StoreError> {
        self.bodies(
            "SELECT body FROM incidents JOIN incident_bodies USING (id) WHERE open ORDER BY id",
            [],
        )
    }

    /// The newest incidents, newest first. One that cannot be read is left out.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Encode`].
    pub fn recent_incidents(&self, limit: u32) -> Result<Vec<Incident>, StoreError> {
        self.bodies("SELECT body FROM incident_bodies ORDER BY id DESC LIMIT ?1", [limit])
    }

    /// One incident.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Encode`].
    pub fn incident(&self, id: IncidentId) -> Result<Option<Incident>, StoreError> {
        let body: Option<String> = self
            .connection
            .prepare_cached("SELECT body FROM incident_bodies WHERE id = ?1")?
            .query_row([to_sql(id.0)], |row| row.get(0))
            .optional()?;
        body.map(|body| Ok(serde_json::from_str(&body)?)).transpose()
    }

    /// Incidents that pass a filter, newest first, at most `limit` (capped at [`PAGE_MAX`]). One that cannot be
    /// read is left out.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Encode`].
    pub fn incidents(
        &self,
        filter: &IncidentFilter,
        limit: u32,
    ) -> Result<Vec<Incident>, StoreError> {
        let limit = usize::try_from(limit.min(PAGE_MAX)).unwrap_or(usize::MAX);
        let ids = self.matching(filter, limit)?;
        let mut body =
            self.connection.prepare_cached("SELECT body FROM incident_bodies WHERE id = ?1")?;
        let mut found = Vec::new();
        for id in ids {
            match body.query_row([id], |row| row.get::<_, String>(0)) {
                Ok(body) => found.extend(serde_json::from_str(&body)),
                Err(
                    rusqlite::Error::QueryReturnedNoRows | rusqlite::Error::InvalidColumnType(..),
                ) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    /// Prefixes are compared here, not in SQL, which knows no addresses: a tenant's list walks the rows
    /// until the page is full.
    fn matching(&self, filter: &IncidentFilter, limit: usize) -> Result<Vec<i64>, StoreError> {
        let mut query = "SELECT id, target FROM incidents WHERE true".to_owned();
        let mut values: Vec<Value> = Vec::new();
        let mut and = |condition: &str, value: Value| {
            values.push(value);
            query.push_str(&format!(" AND {condition} ?{}", values.len()));
        };
        if let Some(state) = filter.state {
            and("open =", Value::from(state == IncidentState::Open));
        }
        if let Some(family) = filter.family {
            and("family =", Value::from(family.id().to_owned()));
        }
        if let Some(from) = filter.from {
            and("opened_ms >=", Value::from(to_sql(from.0)));
        }
        if let Some(to) = filter.to {
            and("opened_ms <", Value::from(to_sql(to.0)));
        }
        if let Some(before) = filter.before {
            and("id <", Value::from(to_sql(before.0)));
        }
        for term in filter.terms() {
            values.push(Value::from(term));
            query.push_str(&format!(" AND instr(words, ?{}) > 0", values.len()));
        }
        query.push_str(" ORDER BY id DESC");
        let mut statement = self.connection.prepare_cached(&query)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut ids = Vec::new();
        while ids.len() < limit
            && let Some(row) = rows.next()?
        {
            let target: String = row.get(1)?;
            if filter.within.is_empty() || target.parse().is_ok_and(|net| filter.sees(net)) {
                ids.push(row.get(0)?);
            }
        }
        Ok(ids)
    }

    /// The highest incident number ever given out.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn last_incident(&self) -> Result<Option<IncidentId>, StoreError> {
        let id: Option<i64> =
            self.connection.query_row("SELECT max(id) FROM incidents", [], |row| row.get(0))?;
        Ok(id.map(|id| IncidentId(from_sql(id))))
    }

    /// Forgets incidents that ended before `before`, with their notes and feedback; returns how many.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn forget_before(&mut self, before: Millis) -> Result<usize, StoreError> {
        let transaction = self.connection.transaction()?;
        let old = "SELECT id FROM incidents WHERE NOT open AND closed_ms < ?1";
        let mut gone = 0;
        for (table, column) in [
            ("notes", "incident"),
            ("feedback", "incident"),
            ("evidence", "incident"),
            ("incident_bodies", "id"),
            ("incidents", "id"),
        ] {
            gone = transaction.execute(
                &format!("DELETE FROM {table} WHERE {column} IN ({old})"),
                [to_sql(before.0)],
            )?;
        }
        transaction.commit()?;
        Ok(gone)
    }

    fn bodies<P: rusqlite::Params>(
        &self,
        query: &str,
        params: P,
    ) -> Result<Vec<Incident>, StoreError> {
        let mut statement = self.connection.prepare_cached(query)?;
        let rows = statement.query_map(params, |row| row.get::<_, String>(0))?;
        let mut found = Vec::new();
        for body in rows {
            match body {
                Ok(body) => found.extend(serde_json::from_str(&body)),
                Err(rusqlite::Error::InvalidColumnType(..)) => {}
                // A page of the file is damaged: what was read so far is better than nothing.
                Err(_) if !found.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }
}

//! Who changed what: append-only, each entry's hash over its own words and the hash before it.
//!
//! A changed, removed or inserted entry breaks the chain at that place. Cutting entries off the end
//! does not: whoever must prove that keeps the head that `weir audit verify` prints elsewhere.

use rusqlite::{OptionalExtension as _, Row, params};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use weir_model::Millis;

use crate::{Change, Store, StoreError, from_sql, to_sql};

/// Hash before the first entry.
const GENESIS: [u8; 32] = [0; 32];

/// What is to be recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// When.
    pub at: Millis,
    /// Account, token or local user.
    pub who: String,
    /// How they proved it: `session`, `token`, `socket`, `code`, `none`.
    pub via: String,
    /// From where.
    pub address: String,
    /// What was done, as a closed word: `user.create`, `mitigation.approve`, ...
    pub action: String,
    /// To what.
    pub target: String,
    /// Its state before, JSON, without secrets.
    pub before: Option<String>,
    /// Its state after, JSON, without secrets.
    pub after: Option<String>,
}

/// An entry as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number, from 1 without gaps.
    pub seq: u64,
    /// What it says.
    pub entry: AuditEntry,
    /// Hash of the one before and this.
    pub hash: [u8; 32],
}

/// Outcome of a check of the whole chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Every entry follows from the one before.
    Whole {
        /// How many.
        entries: u64,
        /// Hash of the last.
        head: [u8; 32],
    },
    /// This entry does not follow from the one before it.
    Broken {
        /// Its number, or the number that is missing.
        seq: u64,
    },
}

/// Hash of an entry: every field with its length, so that no two entries share an encoding.
fn hash(prev: &[u8; 32], seq: u64, entry: &AuditEntry) -> [u8; 32] {
    let mut sum = Sha256::new();
    sum.update(prev);
    sum.update(seq.to_be_bytes());
    sum.update(entry.at.0.to_be_bytes());
    let words = [&entry.who, &entry.via, &entry.address, &entry.action, &entry.target];
    for word in words.into_iter().map(Some).chain([entry.before.as_ref(), entry.after.as_ref()]) {
        let len = word.map_or(u64::MAX, |w| u64::try_from(w.len()).unwrap_or(u64::MAX - 1));
        sum.update(len.to_be_bytes());
        sum.update(word.map_or("", String::as_str));
    }
    sum.finalize().into()
}

impl Change<'_> {
    /// Appends an entry; returns its number.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn audit(&self, entry: &AuditEntry) -> Result<u64, StoreError> {
        let last: Option<(i64, [u8; 32])> = self
            .transaction
            .query_row("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let (seq, prev) = last.map_or((1, GENESIS), |(seq, hash)| (from_sql(seq) + 1, hash));
        self.transaction.execute(
            "INSERT INTO audit (seq, at_ms, who, via, address, action, target, before, after, hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                to_sql(seq),
                to_sql(entry.at.0),
                entry.who,
                entry.via,
                entry.address,
                entry.action,
                entry.target,
                entry.before,
                entry.after,
                hash(&prev, seq, entry),
            ],
        )?;
        Ok(seq)
    }
}

impl Store {
    /// Entries newest first, older than `before` when given.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn audit_page(&self, before: Option<u64>, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT seq, at_ms, who, via, address, action, target, before, after, hash FROM audit
             WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2",
        )?;
        let rows = statement.query_map(
            params![before.map_or(i64::MAX, to_sql), limit.min(crate::PAGE_MAX)],
            read,
        )?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Walks the whole chain.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn verify_audit(&self) -> Result<Chain, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT seq, at_ms, who, via, address, action, target, before, after, hash FROM audit
             ORDER BY seq",
        )?;
        let (mut entries, mut head) = (0_u64, GENESIS);
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let row = read(row)?;
            entries += 1;
            if row.seq != entries || row.hash != hash(&head, row.seq, &row.entry) {
                return Ok(Chain::Broken { seq: entries });
            }
            head = row.hash;
        }
        Ok(Chain::Whole { entries, head })
    }
}

fn read(row: &Row<'_>) -> Result<AuditRow, rusqlite::Error> {
    Ok(AuditRow {
        seq: from_sql(row.get(0)?),
        entry: AuditEntry {
            at: Millis(from_sql(row.get(1)?)),
            who: row.get(2)?,
            via: row.get(3)?,
            address: row.get(4)?,
            action: row.get(5)?,
            target: row.get(6)?,
            before: row.get(7)?,
            after: row.get(8)?,
        },
        hash: row.get(9)?,
    })
}

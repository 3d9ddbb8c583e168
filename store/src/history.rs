//! What each host, and each prefix that is watched as a whole, carried: seconds in blocks of a minute, and averages with peaks over 1 minute, 10
//! minutes and an hour. A file of its own, so that a backup of the state stays small.
//!
//! Keys begin with the time: a minute's blocks are written side by side, which costs a ninth of writing
//! them under keys that begin with the host. A host's series is looked up bucket by bucket.

mod block;
mod late;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, params};
use weir_model::{IpNet, Millis};

use crate::{StoreError, from_sql, schema, to_sql};

/// Seconds in a block.
pub const BLOCK_SECS: usize = 60;

/// Points that one series holds at most.
pub const POINTS_MAX: u64 = 3600;

const STEPS: &[&str] = &["
    CREATE TABLE blocks (
        minute INTEGER NOT NULL, host BLOB NOT NULL, body BLOB NOT NULL,
        PRIMARY KEY (minute, host)
    ) WITHOUT ROWID;
    CREATE TABLE points (
        step INTEGER NOT NULL, bucket INTEGER NOT NULL, host BLOB NOT NULL,
        seconds INTEGER NOT NULL,
        packets INTEGER NOT NULL, packets_max INTEGER NOT NULL,
        bytes INTEGER NOT NULL, bytes_max INTEGER NOT NULL,
        PRIMARY KEY (step, bucket, host)
    ) WITHOUT ROWID;
"];

/// Grain of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// One second.
    Second,
    /// One minute.
    Minute,
    /// Ten minutes.
    TenMinutes,
    /// One hour.
    Hour,
}

impl Step {
    /// Roll-ups, finest first.
    pub const ROLLED: [Self; 3] = [Self::Minute, Self::TenMinutes, Self::Hour];

    /// Its length, seconds.
    pub const fn secs(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::TenMinutes => 600,
            Self::Hour => 3600,
        }
    }

    /// The step of so many seconds.
    pub fn of_secs(secs: u64) -> Option<Self> {
        [Self::Second, Self::Minute, Self::TenMinutes, Self::Hour]
            .into_iter()
            .find(|step| step.secs() == secs)
    }
}

/// What one host or prefix carried in one minute, second by second, towards it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostMinute {
    /// The host, or a prefix that is kept as a whole.
    pub net: IpNet,
    /// Packets in each second.
    pub packets: [u64; BLOCK_SECS],
    /// Layer-3 octets in each second.
    pub bytes: [u64; BLOCK_SECS],
}

/// What became known late of a minute that may be written already: by how much each second is more, or less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateMinute {
    /// The minute's beginning.
    pub start: Millis,
    /// The host, or a prefix that is kept as a whole.
    pub net: IpNet,
    /// Packets in each second.
    pub packets: [i64; BLOCK_SECS],
    /// Layer-3 octets in each second.
    pub bytes: [i64; BLOCK_SECS],
}

/// One point of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Its beginning.
    pub at: Millis,
    /// Packets a second, mean over the step.
    pub packets_per_sec: f64,
    /// Packets in its busiest second.
    pub packets_per_sec_max: f64,
    /// Bits a second, mean over the step.
    pub bits_per_sec: f64,
    /// Bits in its busiest second.
    pub bits_per_sec_max: f64,
}

/// How long what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Seconds, in hours.
    pub second_hours: u64,
    /// Minutes, in hours.
    pub minute_hours: u64,
    /// Ten minutes, in hours.
    pub ten_minute_hours: u64,
    /// Hours, in hours.
    pub hour_hours: u64,
    /// Octets that the file holds at most; the finest and oldest go first.
    pub bytes_max: u64,
}

impl Default for Retention {
    /// Two days of seconds, two weeks of minutes, a quarter of ten minutes, two years of hours, 8 GB.
    fn default() -> Self {
        Self {
            second_hours: 48,
            minute_hours: 14 * 24,
            ten_minute_hours: 92 * 24,
            hour_hours: 731 * 24,
            bytes_max: 8_000_000_000,
        }
    }
}

/// An open history file.
#[derive(Debug)]
pub struct History {
    connection: Connection,
}

impl History {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// [`StoreError::Newer`] or [`StoreError::Database`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        crate::create_private(path)?;
        Self::prepare(Connection::open(path)?)
    }

    /// As [`Self::open`], but a file that is damaged is set aside and begun anew; says how it is called then.
    ///
    /// # Errors
    /// As [`Self::open`], when the disk refuses.
    pub fn open_or_begin(path: &Path, now: Millis) -> Result<(Self, Option<PathBuf>), StoreError> {
        match Self::open(path) {
            Ok(history) => Ok((history, None)),
            Err(error) if error.is_damage() => {
                let aside = crate::open::set_aside(path, now)?;
                Ok((Self::open(path)?, Some(aside)))
            }
            Err(error) => Err(error),
        }
    }

    /// A history that is gone when dropped.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::prepare(Connection::open_in_memory()?)
    }

    fn prepare(connection: Connection) -> Result<Self, StoreError> {
        // Before the first table: lets the file shrink when old blocks go.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        crate::configure(&connection)?;
        // A minute of charts may be lost in a power cut; an fsync for it every minute is not worth it.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        schema::steps(&connection, STEPS)?;
        Ok(Self { connection })
    }

    pub(crate) const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Keeps a minute of many hosts; a minute written twice replaces its block and counts once.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn put_minute(&mut self, start: Millis, hosts: &[HostMinute]) -> Result<(), StoreError> {
        let minute = start.secs() / 60;
        let transaction = self.connection.transaction()?;
        {
            let mut block = transaction.prepare_cached(
                "INSERT INTO blocks (minute, host, body) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )?;
            let mut point = transaction.prepare_cached(
                "INSERT INTO points (step, bucket, host, seconds, packets, packets_max, bytes, bytes_max)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT DO UPDATE SET seconds = seconds + excluded.seconds,
                     packets = packets + excluded.packets,
                     packets_max = max(packets_max, excluded.packets_max),
                     bytes = bytes + excluded.bytes, bytes_max = max(bytes_max, excluded.bytes_max)",
            )?;
            for host in hosts {
                let key = key(host.net);
                if block.execute(params![to_sql(minute), key, block::encode(host)])? == 0 {
                    continue;
                }
                let sum = |values: &[u64]| values.iter().fold(0, |a: u64, b| a.saturating_add(*b));
                let max = |values: &[u64]| values.iter().copied().max().unwrap_or(0);
                for step in Step::ROLLED {
                    point.execute(params![
                        to_sql(step.secs()),
                        to_sql(minute * 60 / step.secs()),
                        key,
                        60,
                        to_sql(sum(&host.packets)),
                        to_sql(max(&host.packets)),
                        to_sql(sum(&host.bytes)),
                        to_sql(max(&host.bytes)),
                    ])?;
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Adds to minutes what became known of them late; what was written of them stays otherwise. No second
    /// goes below 0.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn add_late(&mut self, late: &[LateMinute]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        late.iter().try_for_each(|late| late::add(&transaction, late))?;
        transaction.commit()?;
        Ok(())
    }

    /// The series of a host or a prefix in `[from, to)`, oldest first, at most [`POINTS_MAX`] points; what was not seen
    /// is absent.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn series(
        &self,
        net: impl Into<IpNet>,
        step: Step,
        from: Millis,
        to: Millis,
    ) -> Result<Vec<Point>, StoreError> {
        let (net, first, end) = (net.into(), from.secs(), to.secs());
        let end = end.min(first.saturating_add(POINTS_MAX * step.secs()));
        if step == Step::Second {
            return self.seconds(net, first, end);
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT seconds, packets, packets_max, bytes, bytes_max FROM points
             WHERE step = ?1 AND bucket = ?2 AND host = ?3",
        )?;
        let key = key(net);
        let mut points = Vec::new();
        for bucket in first / step.secs()..end.div_ceil(step.secs()) {
            let row = statement
                .query_row(params![to_sql(step.secs()), to_sql(bucket), key], |row| {
                    Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get::<_, i64>(4)?])
                })
                .optional()?;
            if let Some([seconds, packets, packets_max, bytes, bytes_max]) = row {
                let seconds = number(from_sql(seconds.max(1)));
                points.push(Point {
                    at: Millis::from_secs(bucket * step.secs()),
                    packets_per_sec: number(from_sql(packets)) / seconds,
                    packets_per_sec_max: number(from_sql(packets_max)),
                    bits_per_sec: number(from_sql(bytes)) * 8.0 / seconds,
                    bits_per_sec_max: number(from_sql(bytes_max)) * 8.0,
                });
            }
        }
        Ok(points)
    }

    fn seconds(&self, net: IpNet, first: u64, end: u64) -> Result<Vec<Point>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT body FROM blocks WHERE minute = ?1 AND host = ?2")?;
        let key = key(net);
        let mut points = Vec::new();
        for minute in first / 60..end.div_ceil(60) {
            let body: Option<Vec<u8>> =
                statement.query_row(params![to_sql(minute), key], |row| row.get(0)).optional()?;
            let Some(block) = body.and_then(|body| block::decode(net, &body)) else { continue };
            let seconds = (minute * 60..).zip(block.packets.iter().zip(&block.bytes));
            for (second, (packets, bytes)) in seconds {
                if (first..end).contains(&second) {
                    let (packets, bits) = (number(*packets), number(*bytes) * 8.0);
                    points.push(Point {
                        at: Millis::from_secs(second),
                        packets_per_sec: packets,
                        packets_per_sec_max: packets,
                        bits_per_sec: bits,
                        bits_per_sec_max: bits,
                    });
                }
            }
        }
        Ok(points)
    }

    /// Octets that the file's content takes.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn bytes(&self) -> Result<u64, StoreError> {
        let pragma = |name| self.connection.pragma_query_value(None, name, |row| row.get(0));
        let (pages, free, size): (i64, i64, i64) =
            (pragma("page_count")?, pragma("freelist_count")?, pragma("page_size")?);
        Ok(from_sql((pages - free).saturating_mul(size)))
    }

    /// Forgets what is too old, then the finest and oldest until the file is within its size. Returns
    /// how many rows went.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn sweep(&mut self, now: Millis, keep: &Retention) -> Result<usize, StoreError> {
        let hours = |hours: u64| now.secs().saturating_sub(hours * 3600);
        let mut gone = self.connection.execute(
            "DELETE FROM blocks WHERE minute < ?1",
            [to_sql(hours(keep.second_hours) / 60)],
        )?;
        let ages = [keep.minute_hours, keep.ten_minute_hours, keep.hour_hours];
        for (step, age) in Step::ROLLED.into_iter().zip(ages) {
            gone += self.connection.execute(
                "DELETE FROM points WHERE step = ?1 AND bucket < ?2",
                [to_sql(step.secs()), to_sql(hours(age) / step.secs())],
            )?;
        }
        gone += self.shrink(keep.bytes_max)?;
        self.connection.execute_batch("PRAGMA incremental_vacuum")?;
        Ok(gone)
    }

    fn shrink(&self, bytes_max: u64) -> Result<usize, StoreError> {
        let tables = [("blocks", "minute", "true".to_owned())].into_iter().chain(
            Step::ROLLED.map(|step| ("points", "bucket", format!("step = {}", step.secs()))),
        );
        let mut gone = 0;
        for (table, column, which) in tables {
            while self.bytes()? > bytes_max {
                // A sixteenth of the span at a time: few rounds, and not much more than needed.
                let removed = self.connection.execute(
                    &format!(
                        "DELETE FROM {table} WHERE {which} AND {column} <= (
                             SELECT min({column}) + (max({column}) - min({column})) / 16
                             FROM {table} WHERE {which})"
                    ),
                    [],
                )?;
                if removed == 0 {
                    break;
                }
                gone += removed;
            }
        }
        Ok(gone)
    }
}

/// The address, 4 or 16 octets, and of a prefix its length in one more.
fn key(net: IpNet) -> Vec<u8> {
    let mut key = match net.addr() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    if net.prefix_len() < net.max_prefix_len() {
        key.push(net.prefix_len());
    }
    key
}

#[expect(clippy::cast_precision_loss, reason = "a chart, not an account")]
const fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests;

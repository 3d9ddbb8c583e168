//! What becomes known of a minute after it was written: flows are exported when they end, or when their
//! exporter's active timeout has passed. Of a flow, five minutes are known at most.

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::{BLOCK_SECS, HostMinute, LateMinute, Step, block, key};
use crate::{StoreError, to_sql};

/// Packets and octets.
type Pair = [i64; 2];

/// Adds one host's or prefix's minute. Roll-ups follow: their sums by what has changed, their busiest second
/// from the next finer step, since what was expected and did not come takes a peak away.
pub(super) fn add(transaction: &Transaction<'_>, late: &LateMinute) -> Result<(), StoreError> {
    let minute = late.start.secs() / 60;
    let key = key(late.net);
    let body: Option<Vec<u8>> = transaction
        .prepare_cached("SELECT body FROM blocks WHERE minute = ?1 AND host = ?2")?
        .query_row(params![to_sql(minute), key], |row| row.get(0))
        .optional()?;
    let written = body.and_then(|body| block::decode(late.net, &body));
    // A minute that was silent until now begins to count in means.
    let seconds = if written.is_some() { 0 } else { 60 };
    let nothing = HostMinute { net: late.net, packets: [0; BLOCK_SECS], bytes: [0; BLOCK_SECS] };
    let before = written.unwrap_or(nothing);
    let mut after = before.clone();
    grow(&mut after.packets, &late.packets);
    grow(&mut after.bytes, &late.bytes);
    if after == before {
        return Ok(());
    }
    transaction
        .prepare_cached("INSERT OR REPLACE INTO blocks (minute, host, body) VALUES (?1, ?2, ?3)")?
        .execute(params![to_sql(minute), key, block::encode(&after)])?;
    let (was, is) = (sums(&before), sums(&after));
    let grown = [is[0] - was[0], is[1] - was[1]];
    let mut finer = None;
    for step in Step::ROLLED {
        let bucket = minute * 60 / step.secs();
        let busiest = match finer.replace(step) {
            None => peaks(&after),
            Some(finer) => busiest(transaction, (step, bucket), finer, &key)?,
        };
        transaction
            .prepare_cached(
                "INSERT INTO points (step, bucket, host, seconds, packets, packets_max, bytes, bytes_max)
                 VALUES (?1, ?2, ?3, 60, ?5, ?7, ?6, ?8)
                 ON CONFLICT DO UPDATE SET seconds = seconds + ?4,
                     packets = max(packets + ?5, 0), packets_max = ?7,
                     bytes = max(bytes + ?6, 0), bytes_max = ?8",
            )?
            .execute(params![
                to_sql(step.secs()),
                to_sql(bucket),
                key,
                seconds,
                grown[0],
                grown[1],
                busiest[0],
                busiest[1],
            ])?;
    }
    Ok(())
}

/// The busiest second of a bucket by the points of the next finer step.
fn busiest(
    transaction: &Transaction<'_>,
    (step, bucket): (Step, u64),
    finer: Step,
    key: &[u8],
) -> Result<Pair, StoreError> {
    // One by one: keys begin with the time, and a range would run over all hosts.
    let mut point = transaction.prepare_cached(
        "SELECT packets_max, bytes_max FROM points WHERE step = ?1 AND bucket = ?2 AND host = ?3",
    )?;
    let parts = step.secs() / finer.secs();
    let mut most = [0, 0];
    for part in bucket * parts..(bucket + 1) * parts {
        let found: Option<Pair> = point
            .query_row(params![to_sql(finer.secs()), to_sql(part), key], |row| {
                Ok([row.get(0)?, row.get(1)?])
            })
            .optional()?;
        if let Some([packets, bytes]) = found {
            most = [packets.max(most[0]), bytes.max(most[1])];
        }
    }
    Ok(most)
}

fn sums(minute: &HostMinute) -> Pair {
    let sum = |values: &[u64]| to_sql(values.iter().fold(0_u64, |a, b| a.saturating_add(*b)));
    [sum(&minute.packets), sum(&minute.bytes)]
}

fn peaks(minute: &HostMinute) -> Pair {
    let most = |values: &[u64]| to_sql(values.iter().copied().max().unwrap_or(0));
    [most(&minute.packets), most(&minute.bytes)]
}

fn grow(values: &mut [u64], late: &[i64]) {
    for (value, late) in values.iter_mut().zip(late) {
        *value = value.saturating_add_signed(*late);
    }
}

//! Questions to the archive of flow records.

use clap::Args;
use serde_json::{Value, json};
use weir_model::FlowQuery;

use super::client::Client;
use super::output::{As, Column, Output};
use crate::daemon::now;
use crate::text::Si;

/// The filter language in short.
pub const HELP: &str = "\
Filter (all records if none is given):
  [src|dst] host ADDRESS       [src|dst] net PREFIX        [src|dst] port NUMBER
  tcp, udp, icmp, gre, ...     proto NAME or NUMBER        ipv4, ipv6
  flags LETTERS of FSRPAUEC    exporter ADDRESS            [in|out] if INDEX
  octets N, packets N, length N (octets a packet), duration N (ms), dropped
  joined by and, or, not, ( ); numbers as 53, 1-1023, > 1k, != 80, in [53 123]

Examples:
  weir flows --by src dst host 203.0.113.7 and udp
  weir flows --last 10m --records --top 50 host 203.0.113.7
  weir flows --last 1d --every 5m dst net 203.0.113.0/24
  weir flows --by src/24 --by proto 'src port in [53 123 389] and dst net 203.0.113.0/24'

Counts are multiplied by the sampling rate. The archive is kept by weir-flows (docs/flows.md).";

/// A question.
#[derive(Debug, Args)]
pub struct Flows {
    /// Filter, such as: dst net 203.0.113.0/24 and proto udp and src port 53
    #[arg(allow_hyphen_values = false)]
    filter: Vec<String>,
    /// Begin so long ago: 10m, 4h, 2d [default: 1h]
    #[arg(long, value_parser = duration, conflicts_with = "from")]
    last: Option<u64>,
    /// Begin at this time, UTC: 2026-12-01T14:00, 14:00 (today), or so long ago as 4h
    #[arg(long, value_parser = Time::parse)]
    from: Option<Time>,
    /// End before this time [default: now]
    #[arg(long, value_parser = Time::parse)]
    to: Option<Time>,
    /// Group by: src, dst, src/24, dst/24/48, src-port, dst-port, proto, flags, exporter, in-if, out-if (up to 4 times)
    #[arg(long, value_delimiter = ',')]
    by: Vec<String>,
    /// Number of groups or records
    #[arg(long, default_value_t = 10)]
    top: u32,
    /// Sort groups by
    #[arg(long, default_value = "octets", value_parser = ["octets", "packets", "records"])]
    order: String,
    /// Show a time series with steps of: 10s, 5m, 1h
    #[arg(long, value_parser = duration)]
    every: Option<u64>,
    /// Show the records, earliest first
    #[arg(long, conflicts_with_all = ["by", "every"])]
    records: bool,
}

/// A time on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    /// Milliseconds before now.
    Ago(u64),
    /// Milliseconds since the epoch.
    At(u64),
    /// Milliseconds since midnight, UTC.
    Today(u64),
}

const DAY_MS: u64 = 86_400_000;

impl Time {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(ago) = duration(text) {
            return Ok(Self::Ago(ago));
        }
        let text = text.strip_suffix('Z').unwrap_or(text);
        let found = match text.split_once(['T', ' ']) {
            Some((date, time)) => midnight(date).zip(clock(time)).map(|(d, t)| Self::At(d + t)),
            None => clock(text).map(Self::Today).or_else(|| midnight(text).map(Self::At)),
        };
        found.ok_or_else(|| "a time like 2026-12-01T14:00, 14:00 or 4h".to_owned())
    }

    const fn ms(self, now: u64) -> u64 {
        match self {
            Self::Ago(ms) => now.saturating_sub(ms),
            Self::At(ms) => ms,
            Self::Today(ms) => now / DAY_MS * DAY_MS + ms,
        }
    }
}

/// Milliseconds of `90s`, `10m`, `4h`, `2d`, `1w`.
fn duration(text: &str) -> Result<u64, String> {
    let wrong = || "a time span like 30s, 10m, 4h, 2d or 1w".to_owned();
    let unit = text.char_indices().next_back().ok_or_else(wrong)?;
    let ms = match unit.1 {
        's' => 1000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => DAY_MS,
        'w' => 7 * DAY_MS,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..unit.0].parse().map_err(|_| wrong())?;
    number.checked_mul(ms).filter(|ms| *ms > 0).ok_or_else(wrong)
}

/// Milliseconds from the epoch to a date: Howard Hinnant's `days_from_civil`.
fn midnight(date: &str) -> Option<u64> {
    let mut parts = date.split('-').map(str::parse::<u64>);
    let (year, month, day) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let is_date = (1970..10_000).contains(&year) && (1..=12).contains(&month);
    if !is_date || !(1..=31).contains(&day) || parts.next().is_some() {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days =
        year / 400 * 146_097 + year % 400 * 365 + year % 400 / 4 - year % 400 / 100 + of_year;
    Some((days - 719_468) * DAY_MS)
}

/// Milliseconds from midnight to `14:00` or `14:00:30`.
fn clock(text: &str) -> Option<u64> {
    let mut parts = text.split(':').map(str::parse::<u64>);
    let (hour, minute) = (parts.next()?.ok()?, parts.next()?.ok()?);
    let second = parts.next().unwrap_or(Ok(0)).ok()?;
    let is_time = hour < 24 && minute < 60 && second < 60 && parts.next().is_none();
    is_time.then_some((hour * 3600 + minute * 60 + second) * 1000)
}

impl Flows {
    fn query(&self, now: u64) -> anyhow::Result<Value> {
        let to = self.to.map_or(now, |to| to.ms(now));
        let from = match (self.from, self.last) {
            (Some(from), _) => from.ms(now),
            (None, last) => to.saturating_sub(last.unwrap_or(3_600_000)),
        };
        let every = self.every.map(|ms| u32::try_from(ms / 1000)).transpose()?;
        let query = FlowQuery {
            filter: self.filter.join(" "),
            from: Some(from),
            to: Some(to),
            by: self.by.clone(),
            top: Some(self.top),
            order: serde_json::from_value(json!(self.order))?,
            every,
            records: self.records,
        };
        Ok(serde_json::to_value(query)?)
    }
}

/// Asks and shows.
pub(super) fn flows(client: &Client, output: &Output, flows: &Flows) -> anyhow::Result<()> {
    let query = flows.query(now().0)?;
    let answer = client.ask("POST", "/api/v1/flows/query", Some(&query))?;
    if !output.is_text() {
        return output.one(&answer, "");
    }
    if flows.records {
        return records(output, &answer);
    }
    if flows.every.is_some() {
        series(output, flows, &answer)?;
    } else {
        groups(output, flows, &answer)?;
    }
    remark(&answer);
    Ok(())
}

const SUMS: [Column; 3] = [
    ("octets", "/octets", As::Number),
    ("packets", "/packets", As::Number),
    ("records", "/records", As::Number),
];

/// Where the keys of a group stand; there are no more than four.
const KEYS: [&str; 4] = ["/key/0", "/key/1", "/key/2", "/key/3"];

/// The columns of what is grouped by.
fn keys(flows: &Flows) -> Vec<Column> {
    // Titles live as long as the program: they are few and it ends soon.
    let titles = flows.by.iter().map(|by| &*Box::leak(by.clone().into_boxed_str()));
    titles.zip(KEYS).map(|(by, at)| (by, at, As::Text)).collect()
}

fn groups(output: &Output, flows: &Flows, answer: &Value) -> anyhow::Result<()> {
    let mut columns = keys(flows);
    columns.extend(SUMS);
    output.list(&answer["groups"], &columns)
}

fn series(output: &Output, flows: &Flows, answer: &Value) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits")]
    let secs = (flows.every.unwrap_or(1000) / 1000).max(1) as f64;
    for group in answer["groups"].as_array().into_iter().flatten() {
        for point in group["series"].as_array().into_iter().flatten() {
            let mut row = point.clone();
            row["key"] = group["key"].clone();
            row["bits_per_sec"] = json!(point["octets"].as_f64().unwrap_or(0.0) * 8.0 / secs);
            row["packets_per_sec"] = json!(point["packets"].as_f64().unwrap_or(0.0) / secs);
            row["p95"] = group["p95_bits_per_sec"].clone();
            rows.push(row);
        }
    }
    let mut columns = keys(flows);
    columns.extend([
        ("time", "/at", As::Time),
        ("bit/s", "/bits_per_sec", As::Number),
        ("pkt/s", "/packets_per_sec", As::Number),
        ("records", "/records", As::Number),
        ("95 % bit/s", "/p95", As::Number),
    ]);
    output.list(&Value::Array(rows), &columns)
}

fn records(output: &Output, answer: &Value) -> anyhow::Result<()> {
    output.list(
        &answer["records"],
        &[
            ("end", "/end", As::Time),
            ("exporter", "/exporter", As::Text),
            ("in", "/in_if", As::Text),
            ("out", "/out_if", As::Text),
            ("proto", "/protocol", As::Text),
            ("src", "/src", As::Text),
            ("port", "/src_port", As::Text),
            ("dst", "/dst", As::Text),
            ("port", "/dst_port", As::Text),
            ("flags", "/tcp_flags", As::Text),
            ("packets", "/packets", As::Text),
            ("octets", "/octets", As::Text),
            ("1:N", "/sampling", As::Text),
            ("kept 1:N", "/thinned", As::Text),
        ],
    )?;
    remark(answer);
    Ok(())
}

/// What is to be known of an answer goes where the log of a command goes, so that tables stay tables.
#[expect(clippy::print_stderr, reason = "beside the answer")]
fn remark(answer: &Value) {
    let number = |at: &str| answer.pointer(at).and_then(Value::as_f64).unwrap_or(0.0);
    eprintln!(
        "{} octets, {} packets, {} records in {} groups; looked at {} records in {} ms",
        Si(number("/total/octets")).to_string().trim(),
        Si(number("/total/packets")).to_string().trim(),
        number("/total/records"),
        number("/groups_all"),
        number("/looked_at"),
        number("/took_ms"),
    );
    if number("/thinned") > 1.0 {
        eprintln!("estimated: the archive kept 1 record in {} at times", number("/thinned"));
    }
    if number("/unread") > 0.0 {
        eprintln!("{} files could not be read: the answer lacks what they hold", number("/unread"));
    }
    if let Some(trouble) = answer.pointer("/archive/trouble").and_then(Value::as_str) {
        eprintln!("the archive is in trouble: {trouble}");
    }
    let since = answer.pointer("/archive/since").and_then(Value::as_u64);
    if let Some(since) = since.filter(|since| answer["from"].as_u64().is_some_and(|f| f < *since)) {
        eprintln!("the archive begins at {}", weir_model::Millis(since));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(duration("90s"), Ok(90_000));
        assert_eq!(duration("1w"), Ok(7 * DAY_MS));
        for wrong in ["", "0s", "10", "-1h", "1y", "99999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        let at = |text| Time::parse(text).map(|time| time.ms(1_796_140_800_000 + 1234));
        assert_eq!(at("1970-01-01"), Ok(0));
        assert_eq!(at("2026-12-01T12:00"), Ok(1_796_126_400_000));
        assert_eq!(at("2026-12-01 12:00:01Z"), Ok(1_796_126_401_000));
        assert_eq!(at("2000-02-29"), Ok(951_782_400_000));
        assert_eq!(at("14:00"), Ok(1_796_083_200_000 + 14 * 3_600_000));
        assert_eq!(at("1h"), Ok(1_796_140_801_234 - 3_600_000));
        for wrong in ["yesterday", "25:00", "2026-13-01", "2026-12-01T", "1:2:3:4"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }
}

//! Answers equal those of an independent program over the same files: DuckDB.
//!
//! `WEIR_DUCKDB` names a Python that has it (`pip install duckdb`); without it the test is skipped, by name.
//! `WEIR_FLOW_QUERIES=500` asks more questions than the usual 40.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and says what it skips"
)]

mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Chance, EPOCH, Process, flow, wait};
use weir_model::{ArchivedFlow, FlowAnswer, FlowOrder, FlowQuery, bits_of};

/// Records: several row groups in one of the files.
const RECORDS: u64 = 200_000;
const PER_SEC: u64 = 400;

/// One test, as text and as SQL.
fn test(chance: &mut Chance) -> (String, String) {
    let n = |chance: &mut Chance, of: &[u64]| chance.pick(of);
    let way = chance.pick(&["src", "dst", ""]);
    let both = |text: String, sql: &dyn Fn(&str) -> String| match way {
        "" => (text, format!("({} OR {})", sql("src"), sql("dst"))),
        way => (format!("{way} {text}"), sql(way)),
    };
    let compare = chance.pick(&["", "= ", "< ", "<= ", "> ", ">= ", "!= "]);
    let operator = match compare.trim() {
        "" => "=",
        "!=" => "<>",
        other => other,
    };
    let hex = |address: &str| format!("from_hex('{:032X}')", bits_of(address.parse().unwrap()));
    match chance.below(14) {
        0 => {
            let host = chance.pick(&["203.0.113.1", "203.0.113.40", "2001:db8::2", "198.51.100.1"]);
            both(format!("host {host}"), &|c| format!("{c} = {}", hex(host)))
        }
        1 => {
            let (net, low, high) = chance.pick(&[
                ("203.0.113.0/25", "203.0.113.0", "203.0.113.127"),
                ("0.0.0.0/1", "0.0.0.0", "127.255.255.255"),
                ("64.0.0.0/4", "64.0.0.0", "79.255.255.255"),
                ("2001:db8::/124", "2001:db8::", "2001:db8::f"),
                ("2a02::/16", "2a02::", "2a02:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
                ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ]);
            both(format!("net {net}"), &|c| format!("{c} BETWEEN {} AND {}", hex(low), hex(high)))
        }
        2 => {
            let port = n(chance, &[53, 443, 25_565, 40_000, 0, 65_535]);
            both(format!("port {compare}{port}"), &|c| format!("{c}_port {operator} {port}"))
        }
        3 => both("port in [53, 443, 50000-51000]".to_owned(), &|c| {
            format!("({c}_port IN (53, 443) OR {c}_port BETWEEN 50000 AND 51000)")
        }),
        4 => chance
            .pick(&[("tcp", 6), ("proto udp", 17), ("icmp", 1), ("proto 47", 47)])
            .sql("protocol"),
        5 => {
            let v4 = format!("dst BETWEEN {} AND {}", hex("0.0.0.0"), hex("255.255.255.255"));
            if chance.below(2) == 0 {
                ("ipv4".to_owned(), v4)
            } else {
                ("ipv6".to_owned(), format!("NOT ({v4})"))
            }
        }
        6 => {
            let (letters, bits) = chance.pick(&[("S", 2), ("SA", 18), ("R", 4), ("AP", 24)]);
            (format!("flags {letters}"), format!("tcp_flags & {bits} = {bits}"))
        }
        7 => {
            let exporter = chance.pick(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
            (format!("exporter {exporter}"), format!("exporter = {}", hex(exporter)))
        }
        8 => {
            let index = n(chance, &[1, 2, 11, 99]);
            chance
                .pick(
                    &[
                        ("in if", format!("in_if {operator} {index}")),
                        ("out if", format!("out_if {operator} {index}")),
                        ("if", format!("(in_if {operator} {index} OR out_if {operator} {index})")),
                    ]
                    .map(|(a, b)| (a, Box::leak(b.into_boxed_str()) as &str)),
                )
                .with(&format!("{compare}{index}"))
        }
        9 => ("dropped".to_owned(), "forwarding = 2".to_owned()),
        10 => {
            let value = n(chance, &[0, 1, 1500, 60_000, 1_000_000]);
            (format!("octets {compare}{value}"), format!("o {operator} {value}"))
        }
        11 => {
            let value = n(chance, &[0, 1, 10, 1000]);
            (format!("packets {compare}{value}"), format!("p {operator} {value}"))
        }
        12 => {
            let value = n(chance, &[60, 100, 576, 1500]);
            (format!("length {compare}{value}"), format!("octets // packets {operator} {value}"))
        }
        _ => {
            let value = n(chance, &[0, 500, 30_000]);
            (format!("duration {compare}{value}"), format!("end_ms - start_ms {operator} {value}"))
        }
    }
}

trait Both {
    fn sql(self, column: &str) -> (String, String);
    fn with(self, text: &str) -> (String, String);
}

impl Both for (&str, i32) {
    fn sql(self, column: &str) -> (String, String) {
        (self.0.to_owned(), format!("{column} = {}", self.1))
    }
    fn with(self, _: &str) -> (String, String) {
        unreachable!("only for columns")
    }
}

impl Both for (&str, &str) {
    fn sql(self, _: &str) -> (String, String) {
        unreachable!("only for values")
    }
    fn with(self, text: &str) -> (String, String) {
        (format!("{} {text}", self.0), self.1.to_owned())
    }
}

fn filter(chance: &mut Chance, depth: u32) -> (String, String) {
    match chance.below(if depth == 0 { 2 } else { 6 }) {
        0 | 1 => test(chance),
        2 => {
            let (text, sql) = filter(chance, depth - 1);
            (format!("not ({text})"), format!("NOT ({sql})"))
        }
        kind => {
            let word = if kind == 3 { "or" } else { "and" };
            let (a, b) = (filter(chance, depth - 1), filter(chance, depth - 1));
            (format!("({}) {word} ({})", a.0, b.0), format!("(({}) {word} ({}))", a.1, b.1))
        }
    }
}

/// A dimension, and the same in SQL, as a text that sorts as the values do.
fn dimension(chance: &mut Chance) -> (&'static str, String) {
    let net = |column: &str, v4: u32, v6: u32| {
        let is_v4 = format!("hex({column})[1:24] = '00000000000000000000FFFF'");
        format!(
            "CASE WHEN {is_v4} THEN hex({column})[1:{}] ELSE hex({column})[1:{}] END",
            24 + v4 / 4,
            v6 / 4
        )
    };
    let number = |column: &str| format!("printf('%010d', {column}::BIGINT)");
    match chance.below(11) {
        0 => ("src", "hex(src)".to_owned()),
        1 => ("dst", "hex(dst)".to_owned()),
        2 => ("src/24", net("src", 24, 48)),
        3 => ("dst/24/64", net("dst", 24, 64)),
        4 => ("src/8/16", net("src", 8, 16)),
        5 => ("src-port", number("src_port")),
        6 => ("dst-port", number("dst_port")),
        7 => ("proto", number("protocol")),
        8 => ("exporter", "hex(exporter)".to_owned()),
        9 => ("in-if", number("in_if")),
        _ => ("out-if", number("out_if")),
    }
}

/// A value as the answer shows it, in the form of [`dimension`].
fn as_text(value: &str) -> String {
    if let Some((address, len)) = value.split_once('/') {
        let address: std::net::IpAddr = address.parse().unwrap();
        let bits = len.parse::<usize>().unwrap() + if address.is_ipv4() { 96 } else { 0 };
        return format!("{:032X}", bits_of(address))[..bits / 4].to_owned();
    }
    if let Ok(address) = value.parse() {
        return format!("{:032X}", bits_of(address));
    }
    let names = [("icmp", 1), ("tcp", 6), ("udp", 17)];
    let number = names
        .iter()
        .find(|(name, _)| *name == value)
        .map_or_else(|| value.parse().unwrap(), |(_, n)| *n);
    format!("{number:010}")
}

/// A question, and how to answer it with SQL.
fn question(chance: &mut Chance) -> (FlowQuery, String) {
    let (text, sql) = filter(chance, 3);
    let span = RECORDS * 1000 / PER_SEC;
    let from = EPOCH + chance.below(span);
    let to = (from + 1 + chance.below(span)).min(EPOCH + span + 1);
    let fits = format!("end_ms >= {from} AND end_ms < {to} AND ({sql})");
    let top = chance.pick(&[1, 10, 500]);
    let base = FlowQuery {
        filter: text,
        from: Some(from),
        to: Some(to),
        top: Some(top),
        ..FlowQuery::default()
    };
    if chance.below(6) == 0 {
        let columns = "end_ms, start_ms, hex(exporter), in_if, out_if, hex(src), hex(dst), src_port, dst_port, protocol, tcp_flags, forwarding, octets, packets, sampling, thinned";
        let sql = format!("SELECT {columns} FROM flow WHERE {fits} ORDER BY {columns} LIMIT {top}");
        return (FlowQuery { records: true, ..base }, sql);
    }
    let dimensions: Vec<_> = (0..chance.below(4)).map(|_| dimension(chance)).collect();
    let mut keys: Vec<String> = dimensions.iter().map(|(_, sql)| sql.clone()).collect();
    let by = dimensions.iter().map(|(name, _)| (*name).to_owned()).collect();
    let (order, measure) = chance.pick(&[
        (FlowOrder::Octets, "sum(o)"),
        (FlowOrder::Packets, "sum(p)"),
        (FlowOrder::Records, "count(*)"),
    ]);
    let query = FlowQuery { by, order, ..base };
    if chance.below(3) == 0 && keys.is_empty() {
        let step = chance.pick(&[1_u32, 10, 60]);
        let at = format!("{from} + (end_ms - {from}) // {0} * {0}", u64::from(step) * 1000);
        let sql = format!(
            "SELECT {at}, sum(o), sum(p), count(*) FROM flow WHERE {fits} GROUP BY 1 ORDER BY 1"
        );
        return (FlowQuery { every: Some(step), ..query }, sql);
    }
    // Never none: a group without records is no group.
    keys.push("start_ms * 0".to_owned());
    let columns = keys.join(", ");
    let sql = format!(
        "SELECT {columns}, sum(o), sum(p), count(*), count(*) OVER (), sum(sum(o)) OVER () FROM flow WHERE {fits} GROUP BY {columns} ORDER BY {measure} DESC, {columns} LIMIT {top}"
    );
    (query, sql)
}

/// The answer as rows of texts.
fn rows(query: &FlowQuery, answer: &FlowAnswer) -> Vec<Vec<String>> {
    let sums = |s: &weir_model::FlowSums| [s.octets, s.packets, s.records].map(|n| n.to_string());
    if query.records {
        return answer.records.iter().map(record).collect();
    }
    if query.every.is_some() {
        let points = answer.groups.iter().flat_map(|group| &group.series);
        return points.map(|p| [vec![p.at.to_string()], sums(&p.sums).to_vec()].concat()).collect();
    }
    let all = [answer.groups_all.to_string(), answer.total.octets.to_string()];
    let row = |group: &weir_model::FlowGroup| {
        let key: Vec<String> = group.key.iter().map(|value| as_text(value)).collect();
        [key, vec!["0".to_owned()], sums(&group.sums).to_vec(), all.to_vec()].concat()
    };
    answer.groups.iter().map(row).collect()
}

fn record(flow: &ArchivedFlow) -> Vec<String> {
    let hex = |address| format!("{:032X}", bits_of(address));
    vec![
        flow.end.to_string(),
        flow.start.to_string(),
        hex(flow.exporter),
        flow.in_if.to_string(),
        flow.out_if.to_string(),
        hex(flow.src),
        hex(flow.dst),
        flow.src_port.to_string(),
        flow.dst_port.to_string(),
        flow.protocol.to_string(),
        flow.tcp_flags.to_string(),
        flow.forwarding.to_string(),
        flow.octets.to_string(),
        flow.packets.to_string(),
        flow.sampling.to_string(),
        flow.thinned.to_string(),
    ]
}

fn duckdb(python: &Path, archive: &Path, sql: &[String]) -> Vec<Vec<Vec<String>>> {
    let files = archive.join("date=*/hour=*/*.parquet");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/answers.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = serde_json::json!({"files": files, "sql": sql}).to_string();
    child.stdin.take().unwrap().write_all(asked.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Takes note of what could not be tested here.
fn skip(why: &str) {
    eprintln!("skipped: {why}");
    if let Some(path) = std::env::var_os("WEIR_SKIPS") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        writeln!(file.unwrap(), "answers_equal_duckdb: {why}").unwrap();
    }
}

#[test]
fn answers_equal_duckdb() {
    let Some(python) = std::env::var_os("WEIR_DUCKDB") else {
        return skip("not installed: duckdb (from PyPI; WEIR_DUCKDB names a Python that has it)");
    };
    let count: usize = std::env::var("WEIR_FLOW_QUERIES").map_or(40, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut chance = Chance(20_261_201);
    let records: Vec<_> = (0..RECORDS).map(|n| flow(&mut chance, n, PER_SEC)).collect();
    let (first, second) = records.split_at(150_000);
    let mut sent = 0;
    for part in [first, second] {
        let process = Process::start(dir.path(), &[]);
        let mut feed = process.feed();
        part.chunks(20_000).for_each(|chunk| feed.send(chunk).unwrap());
        sent += part.len() as u64;
        wait(|| process.count() == sent, "the records do not arrive");
        process.stop();
    }
    let (questions, sql): (Vec<_>, Vec<_>) = (0..count).map(|_| question(&mut chance)).unzip();
    let expected = duckdb(Path::new(&python), &dir.path().join("archive"), &sql);
    let process = Process::start(dir.path(), &[]);
    let mut found = 0;
    for ((query, sql), expected) in questions.iter().zip(&sql).zip(&expected) {
        let answer = process.ask(query).unwrap_or_else(|error| panic!("{error}\n{query:?}"));
        let own = rows(query, &answer);
        assert_eq!(own, *expected, "\n{query:?}\n{sql}");
        found += own.len();
    }
    assert!(found > count, "the questions find too little");
}

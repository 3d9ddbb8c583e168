//! `weir inspect`: captures and bare datagrams in, findings out; what an operator is told of bad files.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use weir_tests::weir_binary;

fn inspect(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(weir_binary());
    command.arg("inspect").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that refuses its input early has closed it.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// The lines, the exit code, and what was said on standard error.
fn json(arguments: &[&str], input: &[u8]) -> (Vec<Value>, Option<i32>, String) {
    let out = inspect(&[&["--json"], arguments].concat(), input);
    let text = String::from_utf8(out.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (lines, out.status.code(), String::from_utf8(out.stderr).unwrap())
}

fn count(summary: &Value, name: &str) -> u64 {
    summary[name].as_u64().unwrap()
}

/// A version 5 datagram with so many records, that says it has `claimed`.
fn v5(records: usize, claimed: u8) -> Vec<u8> {
    let mut out = vec![0, 5, 0, claimed];
    out.resize(24, 0);
    for _ in 0..records {
        let mut record = vec![198, 51, 100, 1, 203, 0, 113, 7];
        record.resize(48, 0);
        record[19] = 1;
        record[23] = 40;
        out.extend(record);
    }
    out
}

/// An Ethernet frame with a UDP datagram to a collector's port.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![2; 12];
    out.extend([8, 0, 0x45, 0]);
    out.extend(u16::try_from(payload.len() + 28).unwrap().to_be_bytes());
    out.extend([0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 9, 192, 0, 2, 1, 0x80, 0, 0x08, 0x07]);
    out.extend(u16::try_from(payload.len() + 8).unwrap().to_be_bytes());
    out.extend([0, 0]);
    out.extend(payload);
    out
}

fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // A snapshot length beyond all packets.
    out.extend(0x7fff_ffff_u32.to_le_bytes());
    out.extend([1, 0, 0, 0]);
    for frame in frames {
        let len = u32::try_from(frame.len()).unwrap().to_le_bytes();
        out.extend(1_700_000_000_u32.to_le_bytes());
        out.extend([0; 4]);
        out.extend([len, len].concat());
        out.extend(frame);
    }
    out
}

fn pcapng(frames: &[Vec<u8>]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let len = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
        [&kind.to_le_bytes()[..], &len, body, &len].concat()
    };
    let version = [0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255];
    let mut out = block(0x0a0d_0d0a, &version);
    out.extend(block(1, &[1, 0, 0, 0, 0, 0, 4, 0]));
    for frame in frames {
        let len = u32::try_from(frame.len()).unwrap().to_le_bytes();
        let padding = vec![0; frame.len().next_multiple_of(4) - frame.len()];
        let body = [&[0; 12][..], &len, &len, frame, &padding].concat();
        out.extend(block(6, &body));
    }
    out
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[test]
fn every_kind_of_file_is_read_in_order_and_the_summary_is_last() {
    let folder = Folder::new();
    let bare = folder.write("one.bin", &v5(2, 2));
    let classic = folder.write("two.pcap", &pcap(&[frame(&v5(3, 3)), vec![0; 60]]));
    let ng = folder.write("three.pcapng", &pcapng(&[frame(&v5(4, 4))]));
    let (lines, code, said) = json(&[&bare, &classic, "-", &ng], &pcap(&[frame(&v5(5, 5))]));
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let records: Vec<usize> = (1..=4_u64)
        .map(|n| {
            let of = |line: &&Value| line["kind"] == "record" && line["datagram"] == n;
            lines.iter().filter(of).count()
        })
        .collect();
    assert_eq!(records, [2, 3, 5, 4]);
    let summary = serde_json::json!({
        "kind": "summary", "datagrams": 4, "data_records": 14, "option_records": 0,
        "flow_samples": 0, "counter_samples": 0, "errors": 0,
    });
    assert_eq!(lines.last(), Some(&summary));
    let kinds = lines.iter().filter(|line| line["kind"] == "summary").count();
    assert_eq!(kinds, 1);
    // The line itself, in the order in which scripts may expect it.
    let text = inspect(&["--json", &bare], &[]).stdout;
    let last = String::from_utf8(text).unwrap().lines().last().unwrap().to_owned();
    let start =
        r#"{"kind":"summary","datagrams":1,"data_records":2,"option_records":0,"flow_samples":0,"#;
    assert_eq!(last, format!("{start}\"counter_samples\":0,\"errors\":0}}"));
}

#[test]
fn a_bare_datagram_is_of_its_headers_time() {
    let folder = Folder::new();
    let mut old = v5(1, 1);
    old[8..12].copy_from_slice(&1_700_000_000_u32.to_be_bytes());
    let (lines, ..) = json(&[&folder.write("old.dat", &old)], &[]);
    let at = lines.iter().find(|line| line["kind"] == "datagram").map(|line| &line["at"]);
    assert_eq!(at, Some(&Value::from(1_700_000_000_000_u64)), "{lines:#?}");
}

#[test]
fn errors_have_their_octet_and_the_oracle_its_say() {
    let folder = Folder::new();
    let cut = folder.write("cut.bin", &v5(1, 2));
    let nonsense = folder.write("nonsense.bin", b"GET / HTTP/1.1\r\n\r\n");
    let (lines, code, _) = json(&["--oracle", &cut, &nonsense], &[]);
    assert_eq!(code, Some(0), "a datagram that is damaged is a finding");
    let errors: Vec<_> = lines.iter().filter(|line| line["kind"] == "error").collect();
    assert_eq!((&errors[0]["error"], &errors[0]["offset"]), (&"truncated".into(), &72.into()));
    assert_eq!((&errors[1]["error"], &errors[1]["offset"]), (&"unknown-version".into(), &0.into()));
    let oracles = lines.iter().filter(|line| line["parser"] == "netflow_parser").count();
    assert_eq!((oracles, count(lines.last().unwrap(), "errors")), (2, 2));
    let text = String::from_utf8(inspect(&[&cut], &[]).stdout).unwrap();
    assert!(text.contains("error datagram=1 error=truncated offset=72"), "{text}");
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_the_others_are_read() {
    let folder = Folder::new();
    let good = folder.write("good.bin", &v5(2, 2));
    let check = |path: &str, why: &str| {
        let (lines, code, said) = json(&[path, &good], &[]);
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        assert!(said.contains(name) && said.contains(why), "{said}");
        assert_eq!((code, count(lines.last().unwrap(), "data_records")), (Some(1), 2), "{path}");
    };
    check("/nonexistent/x.pcap", "No such file");
    check(folder.0.path().to_str().unwrap(), "directory");
    check(&folder.write("empty.bin", &[]), "empty");
    check(&folder.write("long.bin", &vec![0; 100_000]), "longer than a datagram");
    check(&folder.write("header.pcap", &pcap(&[])[..20]), "pcap");
    let mut damaged = pcapng(&[frame(&v5(0, 0))]);
    damaged.extend([6, 0, 0, 0, 7, 0, 0, 0, 1, 2, 3, 4]);
    check(&folder.write("damaged.pcapng", &damaged), "damaged");
}

#[test]
fn a_capture_cut_off_or_with_fragments_is_read_and_told_of() {
    let folder = Folder::new();
    let check = |content: &[u8], wanted: u64, why: &str| {
        let path = folder.write("some.pcap", content);
        let (lines, code, said) = json(&[&path], &[]);
        assert!(said.contains("some.pcap") && said.contains(why), "{said}");
        assert_eq!((code, count(lines.last().unwrap(), "data_records")), (Some(0), wanted));
    };
    let whole = pcap(&[frame(&v5(2, 2)), frame(&v5(3, 3))]);
    for cut in [1, 100, 190] {
        check(&whole[..whole.len() - cut], 2, "ends inside a packet");
    }
    let ng = pcapng(&[frame(&v5(2, 2)), frame(&v5(3, 3))]);
    check(&ng[..ng.len() - 9], 2, "ends inside a packet");
    // A length in the middle that no packet has.
    let mut lying = pcap(&[frame(&v5(2, 2))]);
    lying.extend([0; 8]);
    lying.extend([0xff; 8]);
    lying.extend([0; 64]);
    check(&lying, 2, "ends inside a packet");
    let mut fragment = frame(&v5(3, 3));
    fragment[20] = 0x20;
    check(&pcap(&[fragment, frame(&v5(1, 1))]), 1, "1 fragments passed over");
    // No packet at all: nothing to say.
    let path = folder.write("none.pcap", &pcap(&[]));
    let (lines, code, said) = json(&[&path], &[]);
    assert_eq!((lines.len(), code, said.as_str()), (1, Some(0), ""));
}

/// The summary of each set of captures is what its manifest expects.
#[test]
fn real_captures_have_the_records_of_the_manifest() {
    let name = "real_captures_have_the_records_of_the_manifest";
    let Some(manifest) = weir_tests::corpus::file(name, "flows/MANIFEST.json") else { return };
    let folder = manifest.parent().unwrap();
    let sets: Vec<Value> = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for set in &sets {
        let name = set["set"].as_str().unwrap();
        let files: Vec<String> = set["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| folder.join(name).join(file.as_str().unwrap()).display().to_string())
            .collect();
        let arguments: Vec<&str> = files.iter().map(String::as_str).collect();
        let (lines, code, said) = json(&arguments, &[]);
        let summary = lines.last().unwrap();
        let got = [count(summary, "data_records"), count(summary, "option_records")];
        let samples = format!(
            "flow {} ctr {}",
            count(summary, "flow_samples"),
            count(summary, "counter_samples")
        );
        let wanted = ["data_records", "option_records"]
            .map(|name| set[name].as_str().unwrap().parse::<u64>().unwrap());
        let sflow = set["sflow_samples"].as_str().unwrap();
        if got != wanted || code != Some(0) || !(sflow.is_empty() || sflow == samples) {
            wrong
                .push(format!("{name}: {got:?} {samples} for {wanted:?} {sflow}, {code:?} {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

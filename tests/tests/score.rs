//! `weir score` on cases that others bring: every way to write one, and what is wrong with bad ones.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use weir::capture::Capture;
use weir_tests::fastnetmon::Setting;
use weir_tests::rival::{self, Options};
use weir_tests::{scenario, skip, weir_binary};
use weir_traffic::{Rng, Scene};

/// A small case with sFlow and NetFlow v9 exporters and an IPv6 server, in `dir`: three quiet seconds,
/// `attack` seconds of NTP amplification on 203.0.113.7, a quiet second.
fn small(attack: f64, dir: &Path) {
    let scene = Scene::evening(3, 3.0, attack, 4.0 + attack);
    scenario::write_scene(&scene, "a small case", dir).unwrap();
}

/// Exit code, standard output and standard error of `weir score`.
fn weir_score(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let out = Command::new(weir_binary()).arg("score").arg(dir).args(arguments).output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

/// The objects that `weir score --json` prints; the last one is the total.
fn objects(dir: &Path, arguments: &[&str]) -> Vec<Value> {
    let all: Vec<&str> = ["--json"].iter().chain(arguments).copied().collect();
    let (code, out, errors) = weir_score(dir, &all);
    assert_eq!(code, Some(0), "{out}{errors}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A zstd frame of stored blocks (RFC 8878 §3.1.1).
fn zstd(content: &[u8]) -> Vec<u8> {
    // No checksum, no dictionary, a window of 8 MiB.
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 13 << 3];
    let blocks: Vec<&[u8]> = content.chunks(100_000).collect();
    for (number, block) in blocks.iter().enumerate() {
        let header =
            u32::try_from(block.len()).unwrap() << 3 | u32::from(number + 1 == blocks.len());
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
    out
}

/// The same packets as pcapng: a section, an interface of raw IP, enhanced packets.
fn pcapng(path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    let mut block = |kind: u32, body: &[u8]| {
        let whole = u32::try_from(body.len().next_multiple_of(4) + 12).unwrap();
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&whole.to_le_bytes());
        out.extend_from_slice(body);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(&whole.to_le_bytes());
    };
    let section = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
    block(0x0a0d_0d0a, &section);
    block(1, &[101, 0, 0, 0, 0, 0, 0, 0]);
    let mut capture = Capture::open(path).unwrap();
    while let Some(frame) = capture.next_frame().unwrap() {
        let us = frame.at.0 * 1000;
        let len = u32::try_from(frame.data.len()).unwrap();
        let words = [
            0,
            u32::try_from(us >> 32).unwrap(),
            u32::try_from(us & 0xffff_ffff).unwrap(),
            len,
            len,
        ];
        let head: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        block(6, &[head, frame.data].concat());
    }
    out
}

#[test]
fn every_way_to_write_a_case_scores_alike() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("small");
    small(4.0, &dir);
    let plain = objects(&dir, &[]);
    assert_eq!(plain[0]["attacks"].as_array().unwrap().len(), 1);
    assert!(plain[0]["attacks"][0]["delay_flow_ms"].is_u64(), "{}", plain[0]);
    assert_eq!(plain[1]["total"]["recall"], 1.0);
    let mix = std::fs::read(dir.join("mix.csv")).unwrap();
    std::fs::write(dir.join("mix.csv.zst"), zstd(&mix)).unwrap();
    std::fs::remove_file(dir.join("mix.csv")).unwrap();
    std::fs::write(dir.join("input.pcap"), pcapng(&dir.join("input.pcap"))).unwrap();
    assert_eq!(objects(&dir, &[]), plain);
    // Only what cannot be guessed.
    let world: Value =
        serde_json::from_slice(&std::fs::read(dir.join("world.json")).unwrap()).unwrap();
    let bare = serde_json::json!({
        "epoch_ms": world["epoch_ms"], "seconds": world["seconds"], "protected": world["protected"],
    });
    std::fs::write(dir.join("world.json"), bare.to_string()).unwrap();
    std::fs::remove_file(dir.join("truth.jsonl")).unwrap();
    let benign = objects(&dir, &[]);
    assert_eq!(
        (&benign[0]["case"], &benign[0]["attacks"]),
        (&"small".into(), &Value::Array(vec![]))
    );
}

#[test]
fn other_defenders_have_rows_beside() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("small");
    small(4.0, &dir);
    let start = scenario::EPOCH.0 + 3500;
    let events = format!(
        "{{\"t_ms\":{start},\"event\":\"detect\",\"incident\":1,\"target\":\"203.0.113.7/32\",\
         \"family\":\"udp-flood\",\"confidence\":80}}\n\n\
         {{\"t_ms\":{start},\"event\":\"announce\",\"measure\":{{\"blackhole\":\"203.0.113.7/32\"}}}}\n"
    );
    std::fs::write(dir.join("events.null-router.jsonl"), events).unwrap();
    std::fs::write(dir.join("events.asleep.jsonl"), "").unwrap();
    let objects = objects(folder.path(), &[]);
    let row = &objects[0]["others"]["null-router"];
    assert!(row["attacks"][0]["delay_flow_ms"].as_u64().unwrap() < 600, "{row}");
    assert!(row["attacks"][0]["collateral"].as_f64().unwrap() > 0.5, "{row}");
    assert_eq!(objects[0]["others"]["asleep"]["attacks"][0]["delay_flow_ms"], Value::Null);
    assert_eq!(objects[1]["others"]["null-router"]["recall"], 1.0);
    assert_eq!(objects[1]["others"]["asleep"]["recall"], 0.0);
    let goodput = &objects[1]["total"]["goodput"];
    let attacked = |row: &str| goodput[row]["attacked"].as_f64().unwrap();
    assert!(
        attacked("oracle") >= attacked("tool") && attacked("tool") > attacked("rtbh"),
        "{goodput}"
    );
    assert!(attacked("none") < attacked("oracle"), "{goodput}");
    let (_, text, _) = weir_score(folder.path(), &[]);
    for row in ["no defence", "always null-routing", "oracle", "weir", "null-router", "asleep"] {
        assert!(text.lines().any(|line| line.starts_with(row)), "no {row}: {text}");
    }
    // In weir's place, none is left beside itself.
    let alone = objects_of(&dir, "events.null-router.jsonl");
    assert_eq!(alone[0]["attacks"], row["attacks"]);
    assert!(
        alone[1]["others"].get("null-router").is_none() && alone[1]["others"]["asleep"].is_object()
    );
}

fn objects_of(dir: &Path, events: &str) -> Vec<Value> {
    objects(dir, &["--events", events])
}

#[test]
fn what_is_wrong_with_a_case_is_told_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("small");
    small(2.0, &dir);
    let epoch = scenario::EPOCH.0;
    let world = |more: &str| format!("{{\"epoch_ms\":{epoch},\"seconds\":9,{more}}}");
    let truth = |from: u64, to: u64| {
        format!("\n{{\"target\":\"203.0.113.7/32\",\"first_packet_ms\":{from},\"end_ms\":{to}}}\n")
    };
    let bad: &[(&str, String, &str)] = &[
        ("world.json", "{\"seconds\":\n 9,}".to_owned(), "world.json: trailing comma at line 2"),
        ("world.json", world("\"protected\":[]"), "world.json: protected is empty"),
        (
            "world.json",
            world("\"protected\":[\"203.0.113.0/24\"],\"learning_seconds\":10"),
            "world.json: learning_seconds is 10, not 0 to 9",
        ),
        (
            "world.json",
            world(
                "\"protected\":[\"203.0.113.0/24\"],\
                 \"services\":[{\"address\":\"203.0.113.7\",\"port\":0,\"protocol\":\"udp\"}]",
            ),
            "world.json: a service's port is 0",
        ),
        ("truth.jsonl", truth(epoch + 9, epoch + 5), "truth.jsonl: line 2: end_ms is before"),
        ("truth.jsonl", truth(5, 9), "truth.jsonl: line 2: first_packet_ms is 5, outside the case"),
        ("truth.jsonl", "{}".to_owned(), "truth.jsonl: line 1: missing field"),
        ("mix.csv", "t,proto\n".to_owned(), "mix.csv: line 1: no column dst"),
        (
            "mix.csv",
            "t,dst,len\n\n5,1.2.3.4,x\n".to_owned(),
            "mix.csv: line 3: length makes no sense",
        ),
        (
            "mix.csv",
            "t,dst\n5,1.2.3.4\n4,::1\n".to_owned(),
            "mix.csv: line 3: second 4 out of order",
        ),
        (
            "mix.csv",
            "t,dst\n99999999999,::1\n".to_owned(),
            "mix.csv: line 2: second 99999999999 is later",
        ),
        ("input.pcap", "nothing".to_owned(), "input.pcap: no capture file"),
        (
            "events.a.jsonl",
            "{\"t_ms\":1,\"event\":\"sleep\"}".to_owned(),
            "events.a.jsonl: line 1: unknown variant",
        ),
    ];
    for (file, text, expected) in bad {
        let path = dir.join(file);
        let good = std::fs::read(&path).ok();
        std::fs::write(&path, text).unwrap();
        let (code, out, errors) = weir_score(folder.path(), &["--json"]);
        assert_eq!(code, Some(1), "{file}: {text}: {out}{errors}");
        assert!(errors.contains(expected), "{expected:?} is not in {errors:?}");
        let objects: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert!(objects[0]["error"].as_str().unwrap().contains(file), "{out}");
        assert_eq!(objects[1]["total"]["cases"], 0, "the other cases are scored all the same");
        match good {
            Some(good) => std::fs::write(&path, good).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
    }
    // Packets of another year.
    let text = std::fs::read_to_string(dir.join("world.json")).unwrap();
    std::fs::write(dir.join("world.json"), text.replace(&epoch.to_string(), "1000")).unwrap();
    std::fs::remove_file(dir.join("truth.jsonl")).unwrap();
    let (_, _, errors) = weir_score(&dir, &[]);
    assert!(errors.contains("input.pcap: packet 1: its time"), "{errors}");
    let (code, _, errors) = weir_score(&dir.join("nowhere"), &[]);
    assert!(code == Some(1) && errors.contains("nowhere"), "{errors}");
}

/// Files with octets changed at random are scored or refused, never more.
#[test]
fn hostile_cases_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    small(1.0, &good);
    let start = scenario::EPOCH.0 + 3000;
    let event = format!(
        "{{\"t_ms\":{start},\"event\":\"announce\",\"measure\":{{\"blackhole\":\"203.0.113.7/32\"}}}}\n"
    );
    std::fs::write(good.join("events.other.jsonl"), event).unwrap();
    // A few rows do; the whole would only be slow.
    let mix = std::fs::read_to_string(good.join("mix.csv")).unwrap();
    let rows: Vec<&str> = mix.lines().take(40).collect();
    std::fs::write(good.join("mix.csv"), rows.join("\n")).unwrap();
    let files = ["world.json", "truth.jsonl", "mix.csv", "input.pcap", "events.other.jsonl"];
    let config = weir_config::Config::default();
    let (mut scored, mut refused) = (0, 0);
    for seed in 1..=60 {
        let mut rng = Rng::new(seed);
        let dir = folder.path().join("bad");
        std::fs::create_dir_all(&dir).unwrap();
        let victim = rng.below(5) as usize;
        for (number, file) in files.iter().enumerate() {
            let mut octets = std::fs::read(good.join(file)).unwrap();
            if number == victim {
                for _ in 0..=rng.below(3) {
                    let at = rng.below(u32::try_from(octets.len()).unwrap()) as usize;
                    // Digits for digits, so that numbers become absurd and not only broken.
                    let digit = octets[at].is_ascii_digit() && *file != "input.pcap";
                    let (first, count) = if digit { (b'0', 10) } else { (0, 256) };
                    octets[at] = first + u8::try_from(rng.below(count)).unwrap();
                }
            }
            std::fs::write(dir.join(file), octets).unwrap();
        }
        let mut out = Vec::new();
        let options = weir::score::Options { json: true, ..Default::default() };
        let failed = weir::score::run(&dir, &config, &options, &mut out).unwrap();
        if failed.is_empty() { scored += 1 } else { refused += 1 }
    }
    assert!(scored > 0 && refused > 0, "{scored} scored, {refused} refused");
}

/// The real program, on the same datagrams, in real time.
#[test]
fn fastnetmon_has_a_row_beside_weir() {
    let name = "fastnetmon_has_a_row_beside_weir";
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("small");
    small(5.0, &dir);
    let world = weir::score::Case::world(&dir).unwrap();
    let options = Options { lead_secs: 2, seconds_max: 6, sampling: 1 };
    let played = rival::play(&dir, &world, &[Setting::shipped()], &options).unwrap();
    let Some(played) = played else {
        return skip(name, "FastNetMon was not compared with");
    };
    let run = &played.runs[0];
    assert_eq!(run.bans(), 1, "{played:?}");
    let lines: Vec<String> =
        run.events.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
    std::fs::write(dir.join("events.fastnetmon.jsonl"), lines.join("\n")).unwrap();
    let objects = objects(&dir, &[]);
    let (own, other) =
        (&objects[0]["attacks"][0], &objects[0]["others"]["fastnetmon"]["attacks"][0]);
    // 160 times its threshold per second of averaging, looked at once a second.
    assert!(other["delay_flow_ms"].as_u64().unwrap() < 5000, "{other}");
    assert_eq!(other["family"], "udp-flood", "{other}");
    assert!(own["collateral"].as_f64() < other["collateral"].as_f64(), "{own} {other}");
    assert_eq!(objects[1]["others"]["fastnetmon"]["recall"], 1.0);
}

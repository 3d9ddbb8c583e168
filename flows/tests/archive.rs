//! The process as it runs: killed, without room, asked too much.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use support::{Chance, EPOCH, Process, all, flow, wait};
use weir_model::{ArchivedFlow, FlowQuery};

fn flows(seed: u64, count: u64) -> Vec<ArchivedFlow> {
    let mut chance = Chance(seed);
    (0..count).map(|number| flow(&mut chance, number, 1000)).collect()
}

fn sealed(dir: &Path) -> usize {
    let list = Command::new("find").arg(dir).args(["-name", "*.parquet"]).output().unwrap();
    String::from_utf8(list.stdout).unwrap().lines().count()
}

#[test]
fn killed_again_and_again_it_keeps_what_it_had_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kept, mut sent) = (0, 0);
    for round in 0..12 {
        let process = Process::start(dir.path(), &[]);
        let found = process.count();
        assert!((kept..=sent).contains(&found), "round {round}: {kept} <= {found} <= {sent}");
        sent = found;
        let mut feed = process.feed();
        let records = flows(round + 1, 3000);
        feed.send(&records[..2000]).unwrap();
        wait(|| process.count() == sent + 2000, "the records do not arrive");
        kept = sent + 2000;
        // Killed while more comes in.
        feed.send(&records[2000..]).unwrap();
        sent += 3000;
        process.kill();
    }
    let process = Process::start(dir.path(), &[]);
    let found = process.count();
    assert!((kept..=sent).contains(&found));
    let logs = dir.path().join("archive/log");
    wait(|| std::fs::read_dir(&logs).unwrap().count() == 0, "a log is not sealed");
    assert_eq!(process.count(), found, "sealing changes nothing");
    assert!(sealed(dir.path()) >= 12);
    process.stop();
}

#[test]
fn a_full_disk_costs_records_and_never_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("disk");
    std::fs::create_dir(&archive).unwrap();
    let mut command = Command::new("unshare");
    // A file system of 8 MB that only this process and its children see.
    let script = r#"mount -t tmpfs -o size=8m none "$0" && exec "$@""#;
    command.args(["--mount", "--map-root-user", "--user", "sh", "-c", script]);
    command.arg(&archive).arg(env!("CARGO_BIN_EXE_weir-flows"));
    let process = Process::of(command, dir.path(), &archive, &[]);
    let mut feed = process.feed();
    let records = flows(7, 20_000);
    for _ in 0..10 {
        feed.send(&records).unwrap();
    }
    let state = || process.ask(&all()).unwrap().archive;
    wait(|| state().taken + state().lost == 200_000, "not all is accounted for");
    let full = state();
    assert!(full.lost > 0, "8 MB do not hold 20 MB: {full:?}");
    assert!(full.trouble.unwrap().contains("No space left"), "it is said");
    let answer = process.ask(&all()).unwrap();
    assert_eq!(answer.total.records, answer.archive.taken, "what was taken is there, once");
    drop(feed);
    // Without a place for the file it ends when it is told to, and keeps the log.
    process.stop();
}

#[test]
fn questions_stay_within_their_limits() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &["--query-groups", "20000"]);
    let mut feed = process.feed();
    for seed in 0..10 {
        feed.send(&flows(seed + 100, 20_000)).unwrap();
    }
    wait(|| process.count() == 200_000, "the records do not arrive");
    let kind =
        |query: FlowQuery| process.ask(&query).unwrap_err()["kind"].as_str().unwrap().to_owned();
    let by = |by: &[&str]| by.iter().map(|&d| d.to_owned()).collect::<Vec<_>>();
    let window = FlowQuery { from: Some(EPOCH), to: Some(EPOCH + 60_000), ..FlowQuery::default() };
    // Every record its own group, or step.
    assert_eq!(kind(FlowQuery { by: by(&["src", "src-port", "dst"]), ..all() }), "limit");
    let steps = FlowQuery { by: by(&["dst", "dst-port"]), every: Some(1), ..window.clone() };
    assert_eq!(kind(steps), "limit");
    assert_eq!(kind(FlowQuery { every: Some(1), ..all() }), "limit");
    // Questions that make no sense.
    for bad in [
        FlowQuery { filter: "(".repeat(4000), ..all() },
        FlowQuery { filter: "x".repeat(10_000), ..all() },
        FlowQuery { by: by(&["src"; 5]), ..all() },
        FlowQuery { by: by(&["src/33"]), ..all() },
        FlowQuery { by: by(&["proto/8"]), ..all() },
        FlowQuery { top: Some(0), ..all() },
        FlowQuery { top: Some(u32::MAX), ..all() },
        FlowQuery { every: Some(0), ..all() },
        FlowQuery { from: Some(5), to: Some(5), ..all() },
        FlowQuery { records: true, by: by(&["src"]), ..all() },
    ] {
        assert_eq!(kind(bad), "wrong");
    }
    for raw in [&b"{}{"[..], b"\xff", br#"{"filter": 1}"#, &vec![b'['; 16_000], &vec![b' '; 20_000]]
    {
        assert_eq!(process.raw(raw)["error"]["kind"], "wrong");
    }
    // The widest filter there is, in many questions at once, half of which nobody waits for.
    let wide = format!("not ({})", vec!["src port 1"; 200].join(" or "));
    std::thread::scope(|scope| {
        for number in 0..12 {
            let (process, wide) = (&process, &wide);
            scope.spawn(move || {
                let query =
                    FlowQuery { filter: wide.clone(), records: true, top: Some(10_000), ..all() };
                if number % 2 == 0 {
                    let mut stream = UnixStream::connect(&process.socket).unwrap();
                    let text = serde_json::to_vec(&query).unwrap();
                    let head =
                        [&b"Q"[..], &u32::try_from(text.len()).unwrap().to_le_bytes()].concat();
                    std::io::Write::write_all(&mut stream, &[head, text].concat()).unwrap();
                } else {
                    assert_eq!(process.ask(&query).unwrap().records.len(), 10_000);
                }
            });
        }
    });
    assert_eq!(process.count(), 200_000);
    let memory = process.memory_max();
    assert!(memory < 200 << 20, "{} MB", memory >> 20);
}

#[test]
fn rubbish_on_the_socket_ends_its_connection_only() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &[]);
    let mut chance = Chance(3);
    for _ in 0..50 {
        let mut stream = UnixStream::connect(&process.socket).unwrap();
        let kind = chance.pick(b"RQx");
        let noise: Vec<u8> =
            (0..chance.below(600)).map(|_| chance.next().to_le_bytes()[0]).collect();
        // It may hang up before it has read all.
        let _ = std::io::Write::write_all(&mut stream, &[&[kind], noise.as_slice()].concat());
    }
    let mut feed = process.feed();
    feed.send(&flows(1, 10)).unwrap();
    wait(|| process.count() == 10, "the records do not arrive");
}

#[test]
fn what_cannot_be_read_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    for (seed, count) in [(1, 1000), (2, 500)] {
        let process = Process::start(dir.path(), &[]);
        let before = process.count();
        process.feed().send(&flows(seed, count)).unwrap();
        wait(|| process.count() == before + count, "the records do not arrive");
        process.stop();
    }
    let list = Command::new("find").arg(dir.path()).args(["-name", "*.parquet"]).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let mut files: Vec<_> = list.lines().collect();
    assert_eq!(files.len(), 2);
    files.sort_by_key(|file| std::fs::metadata(file).unwrap().len());
    std::fs::write(files[1], "PAR1 and nothing more PAR1").unwrap();
    // A log that no read gets anything out of, before the ones to come.
    std::fs::create_dir(dir.path().join("archive/log/7.log")).unwrap();
    let process = Process::start(dir.path(), &[]);
    let answer = process.ask(&all()).unwrap();
    assert_eq!((answer.total.records, answer.unread), (500, 2));
    process.feed().send(&flows(3, 200)).unwrap();
    wait(|| process.count() == 700, "the records do not arrive");
    process.stop();
    assert_eq!(sealed(dir.path()), 3, "the new log is sealed in spite of the old one");
    let log = std::fs::read_to_string(dir.path().join("log.txt")).unwrap();
    assert_eq!(log.matches("answers leave it out").count(), 2, "{log}");
}

#[test]
fn senders_that_say_nothing_leave_room_for_questions() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &[]);
    let mut weir = process.feed();
    weir.send(&flows(1, 5)).unwrap();
    wait(|| process.count() == 5, "the records do not arrive");
    // It has its place by now; of these some find none.
    let idle: Vec<_> = (0..64).map(|_| process.feed()).collect();
    weir.send(&flows(2, 5)).unwrap();
    wait(|| process.count() == 10, "the records do not arrive any more");
    drop(idle);
}

//! The alerts on the metrics of a real weir: what it told in each of its troubles is laid out in time for promtool,
//! which says what fires. A kill and a restart are among them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use weir_tests::lab::{Lab, Pid};
use weir_tests::weir_binary;

const CONFIG: &str = r#"
[store]
path = "@/state/state.db"
[api]
listen = "127.0.0.1:8080"
socket = "@/api.sock"
[protect]
prefixes = ["203.0.113.0/24"]
[collector]
listen = ["127.0.0.1:2055"]
[[collector.exporters]]
address = "127.0.0.0/8"
name = "edge"
[mitigator]
mode = "auto"
[bgp]
local_as = 65010
router_id = "10.0.0.1"
[[bgp.peer]]
name = "fussy"
address = "127.0.0.2"
port = 1790
remote_as = 65020
connect_retry_secs = 1
families = ["ipv4-unicast", "ipv4-flowspec"]
"#;

/// A router that answers every FlowSpec rule with NOTIFICATION 3/9 (RFC 4271 §6.3).
const FUSSY: &str = r#"
import socket, struct
MARKER = b"\xff" * 16
def message(kind, body=b""):
    return MARKER + struct.pack("!HB", 19 + len(body), kind) + body
capabilities = b"".join(bytes([2, len(c)]) + c for c in [
    bytes([1, 4, 0, 1, 0, 1]), bytes([1, 4, 0, 1, 0, 133]), bytes([65, 4]) + struct.pack("!I", 65020)])
OPEN = message(1, bytes([4]) + struct.pack("!HH", 65020, 90) + bytes([10, 0, 0, 2, len(capabilities)]) + capabilities)
server = socket.create_server(("127.0.0.2", 1790))
while True:
    peer, _ = server.accept()
    kept = b""
    try:
        peer.sendall(OPEN)
        while True:
            got = peer.recv(65536)
            if not got:
                break
            kept += got
            while len(kept) >= 19 and len(kept) >= struct.unpack("!H", kept[16:18])[0]:
                length = struct.unpack("!H", kept[16:18])[0]
                kind, body, kept = kept[18], kept[19:length], kept[length:]
                if kind in (1, 4):
                    peer.sendall(message(4))
                # An end of the table is MP_UNREACH; a rule is MP_REACH, attribute 14, of SAFI 133.
                if kind == 2 and b"\x0e" in body and b"\x00\x01\x85" in body and len(body) > 20:
                    peer.sendall(message(3, bytes([3, 9])))
                    raise OSError
    except OSError:
        pass
    peer.close()
"#;

/// A reading of all metrics.
type Scrape = BTreeMap<String, f64>;

/// A few minutes in which metrics go from one reading towards another, or in which there are none.
struct Part<'a> {
    minutes: usize,
    /// Counters rise by as much every minute; others are as in the second.
    readings: Option<(&'a Scrape, &'a Scrape)>,
}

/// The counters among metrics, histograms' series included.
fn counters(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let kinds = types.filter_map(|line| line.rsplit_once(' '));
    kinds
        .flat_map(|(name, kind)| match kind {
            "counter" => vec![name.to_owned()],
            "histogram" => ["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")).into(),
            _ => Vec::new(),
        })
        .collect()
}

fn readings(text: &str) -> Scrape {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.rsplit_once(' '));
    pairs.filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?))).collect()
}

/// The series of promtool's test file.
fn series(parts: &[Part<'_>], counted: &BTreeSet<String>) -> String {
    let all = parts.iter().filter_map(|part| part.readings);
    let names: BTreeSet<&String> = all.flat_map(|(a, b)| a.keys().chain(b.keys())).collect();
    let mut out = String::new();
    for name in names {
        let counts = counted.contains(name.split('{').next().unwrap_or_default());
        let values = parts.iter().flat_map(|part| {
            (0..part.minutes).map(move |minute| {
                let Some((a, b)) = part.readings else { return "_".to_owned() };
                let (from, to) = (a.get(name), b.get(name));
                #[expect(clippy::cast_precision_loss, reason = "minutes")]
                let value = match (from, to) {
                    (Some(from), Some(to)) if counts => Some(from + (to - from) * minute as f64),
                    (_, to) => to.copied(),
                };
                value.map_or_else(|| "_".to_owned(), |value| value.to_string())
            })
        });
        let values: Vec<String> = values.collect();
        let name = serde_json::to_string(name).unwrap();
        writeln!(out, "      - series: {name}\n        values: {}", values.join(" ")).unwrap();
    }
    let up = parts.iter().flat_map(|part| {
        let up = if part.readings.is_some() { "1" } else { "0" };
        std::iter::repeat_n(up, part.minutes)
    });
    let up: Vec<&str> = up.collect();
    writeln!(out, "      - series: up{{job=\"weir\"}}\n        values: {}", up.join(" ")).unwrap();
    out
}

struct Bench {
    lab: Lab,
    weir: Option<Pid>,
    config: String,
    counted: BTreeSet<String>,
}

impl Bench {
    fn start() -> Option<Self> {
        let programs = ["curl", "promtool", "prlimit", "python3"];
        let mut lab = Lab::new("alerts", &programs)?;
        let fussy = lab.write("fussy.py", FUSSY);
        lab.spawn("fussy", &["python3", fussy.to_str().unwrap()]);
        let folder = lab.path("").to_str().unwrap().trim_end_matches('/').to_owned();
        let config = lab.write("weir.toml", &CONFIG.replace('@', &folder));
        let config = config.to_str().unwrap().to_owned();
        let mut bench = Self { lab, weir: None, config, counted: BTreeSet::new() };
        bench.run("weir");
        Some(bench)
    }

    fn run(&mut self, name: &str) {
        // What would end a process that writes too much is an error to it instead, as a full disk is.
        let program = weir_binary();
        let command =
            format!("trap '' XFSZ; exec {} run --config {}", program.display(), self.config);
        self.weir = Some(self.lab.spawn(name, &["sh", "-c", &command]));
        self.lab.wait_for("weir", 30, |lab| lab.log(name).contains("ready").then_some(()));
    }

    fn tell(&self, words: &[&str]) -> String {
        let (weir, socket) = (weir_binary(), self.lab.path("api.sock"));
        let socket = ["--socket", socket.to_str().unwrap()];
        self.lab.ask(&[&[weir.to_str().unwrap()], words, &socket].concat())
    }

    fn text(&self) -> String {
        self.lab.ask(&["curl", "-s", "http://127.0.0.1:8080/metrics"])
    }

    /// The metrics, once they say this of a series.
    fn reading(&mut self, what: &str, holds: impl Fn(&Scrape) -> bool) -> Scrape {
        let text = self.lab.wait_for(what, 60, |_| {
            let text = self.text();
            holds(&readings(&text)).then_some(text)
        });
        self.counted.extend(counters(&text));
        readings(&text)
    }

    /// Metrics before and after an exporter has sent something.
    fn traffic(&mut self) -> (Scrape, Scrape) {
        let sent = |scrape: &Scrape| {
            scrape.get("weir_collector_datagrams_total{exporter=\"edge\"}").copied()
        };
        let before = self.reading("the exporter's series", |scrape| sent(scrape).is_some());
        let flowgen = weir_binary().with_file_name("flowgen");
        let flowgen = [flowgen.to_str().unwrap(), "sflow", "127.0.0.1:2055"];
        self.lab.ask(&[&flowgen[..], &["--rate", "200", "--seconds", "1"]].concat());
        let was = sent(&before);
        (before, self.reading("datagrams", |scrape| sent(scrape) > was))
    }
}

/// What fires at a minute, with how many series each.
fn expected(minute: usize, firing: &[(&str, u32)]) -> String {
    let mut out = format!(
        "      - expr: count by (alertname) (ALERTS{{alertstate=\"firing\"}})\n        eval_time: {minute}m\n        exp_samples:"
    );
    if firing.is_empty() {
        out.push_str(" []");
    }
    for (name, count) in firing {
        write!(out, "\n          - labels: '{{alertname=\"{name}\"}}'\n            value: {count}")
            .unwrap();
    }
    out.push('\n');
    out
}

#[test]
fn alerts_fire_on_what_a_real_weir_tells_and_on_nothing_else() {
    let Some(mut bench) = Bench::start() else { return };
    let at = |scrape: &Scrape, series: &str| scrape.get(series).copied();
    let up = "weir_bgp_peer_state{peer=\"fussy\",state=\"established\"}";
    bench.reading("the session", |scrape| at(scrape, up) == Some(1.0));
    let (first, healthy) = bench.traffic();

    // A rule that the router will not have.
    bench.tell(&["mitigate", "add", "203.0.113.9/32", "--protocol", "17", "--sport", "19"]);
    let banned = "weir_bgp_peer_doubts{peer=\"fussy\",state=\"banned\"}";
    assert_eq!(at(&healthy, banned), Some(0.0), "there from the start");
    let quarantine = bench.reading("the rule's quarantine", |scrape| {
        at(scrape, banned) == Some(1.0) && at(scrape, up) == Some(1.0)
    });

    // Killed and started again: counters begin at 0, and what was concluded is still there.
    bench.lab.kill(bench.weir.unwrap());
    bench.run("again");
    bench.reading("the session again", |scrape| {
        at(scrape, banned) == Some(1.0) && at(scrape, up) == Some(1.0)
    });
    let log = bench.lab.log("again");
    assert!(!log.contains("ended the session over a route"), "learned a second time: {log}");
    let (again, restarted) = bench.traffic();
    let octets = "weir_collector_datagrams_total{exporter=\"edge\"}";
    assert!(at(&again, octets) < at(&quarantine, octets), "a counter starts anew");

    // This sets the brake as well.
    bench.tell(&["mitigate", "withdraw-all"]);
    let braked =
        bench.reading("the brake", |scrape| at(scrape, "weir_mitigator_brake") == Some(1.0));
    let braked_on = {
        let mut more = braked.clone();
        more.insert(octets.to_owned(), at(&braked, octets).unwrap() + 100.0);
        more
    };

    let pid = bench.lab.process_id(bench.weir.unwrap()).to_string();
    let limit = |size: &str| ["prlimit", "--pid", &pid, size].map(str::to_owned);
    let run = |command: &[String]| {
        assert!(
            std::process::Command::new(&command[0]).args(&command[1..]).status().unwrap().success()
        );
    };
    run(&limit("--fsize=4096:"));
    bench.tell(&["mitigate", "withdraw-all"]);
    let failing = |scrape: &Scrape| {
        let all = scrape.iter().filter(|(name, _)| name.starts_with("weir_store_failing"));
        all.map(|(_, value)| *value).sum::<f64>()
    };
    assert_eq!(failing(&braked), 0.0);
    let full = bench.reading("a full disk", |scrape| failing(scrape) > 0.0);
    run(&limit("--fsize=unlimited:"));

    // The exporter falls silent, and nothing else is wrong but what people have set.
    let silent = bench.reading("the disk again", |scrape| failing(scrape) == 0.0);
    let parts = [
        Part { minutes: 15, readings: Some((&first, &healthy)) },
        Part { minutes: 5, readings: Some((&quarantine, &quarantine)) },
        Part { minutes: 1, readings: None },
        Part { minutes: 20, readings: Some((&again, &restarted)) },
        Part { minutes: 70, readings: Some((&braked, &braked_on)) },
        Part { minutes: 3, readings: Some((&full, &full)) },
        Part { minutes: 30, readings: Some((&silent, &silent)) },
    ];
    // Nobody lifts the quarantine.
    let kept = ("WeirRouteQuarantined", 1);
    let mode = [("WeirBrake", 1), ("WeirMode", 1), kept];
    let checks = [
        expected(14, &[]),
        expected(18, &[kept]),
        // Neither silent nor blind by a counter that began anew.
        expected(35, &[kept]),
        expected(60, &[("WeirBrake", 1), kept]),
        expected(110, &mode),
        expected(113, &[&mode[..], &[("WeirStoreFails", 1)]].concat()),
        expected(140, &[&[("WeirBlind", 1)], &mode[..], &[("WeirExporterSilent", 1)]].concat()),
    ];
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/alerts.yml");
    let test = format!(
        "rule_files: [{:?}]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n{}    promql_expr_test:\n{}",
        rules.canonicalize().unwrap(),
        series(&parts, &bench.counted),
        checks.concat()
    );
    let file = bench.lab.write("alerts.test.yml", &test);
    let told = bench.lab.run(&["promtool", "test", "rules", file.to_str().unwrap()]);
    assert!(told.contains("SUCCESS"), "{told}");
}

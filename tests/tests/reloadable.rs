//! Every setting that the reference says a reload puts in force, changed in a running weir with live sessions to
//! GoBGP and BIRD: it is in force, no session flaps, no mitigation is lost.
//!
//! The changed values are made from the reference's types, so that a new setting is covered by being documented.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use toml::{Table, Value};
use weir_tests::lab::{GOBGP, GOBGP_RULES, Lab};
use weir_tests::reference::{Setting, settings};
use weir_tests::weir_binary;

const PROGRAMS: &[&str] = &["ip", "gobgpd", "gobgp", "bird", "birdc", "curl"];

/// Settings of a peer that a session begins with: another value takes another session, so that they are changed
/// of a peer without one.
const OF_SESSIONS: &[&str] = &[
    "bgp.peer.name",
    "bgp.peer.address",
    "bgp.peer.port",
    "bgp.peer.remote_as",
    "bgp.peer.local_as",
    "bgp.peer.local_address",
    "bgp.peer.passive",
    "bgp.peer.families",
    "bgp.peer.hold_time_secs",
    "bgp.peer.password",
    "bgp.peer.password_file",
    "bgp.peer.ttl_security",
    "bgp.peer.graceful_restart_secs",
    "bgp.peer.long_lived_restart_secs",
];

/// Settings that are not changed here, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("bgp.local_as", "every session begins with it"),
    ("bgp.router_id", "every session begins with it"),
    ("notify.channel.service", "each service asks for values of its own"),
    ("api.tls.cert", "goes with api.tls.key; below"),
    ("api.tls.key", "goes with api.tls.cert; below"),
    ("api.tls.always", "the test asks over the local socket alone; below"),
];

/// One of everything. Files and folders stand for `@/`.
const BASE: &str = r#"
[log]
format = "json"
[store]
path = "@/state.db"
[api]
listen = "127.0.0.1:8080"
socket = "@/api.sock"
[protect]
prefixes = ["203.0.113.0/24"]
[[protect.group]]
name = "acme"
prefixes = ["203.0.113.64/26"]
[protect.group.inbound]
[protect.group.outbound]
[protect.group.total]
[protect.group.total.inbound]
[protect.group.total.outbound]
[[protect.group]]
name = "wide"
prefixes = ["203.0.113.0/24"]
[[protect.group]]
name = "template"
[[protect.group]]
name = "narrow"
prefixes = ["203.0.113.192/27"]
template = "template"
[[detector.metric]]
name = "sip"
match = "udp dst port 5060"
packets_per_sec = 5_000
groups = ["acme"]
[[protect.allow]]
name = "cdn"
prefixes = ["198.51.100.0/24"]
protocol = "tcp"
ports = [443]
groups = ["acme"]
alarms = "leave-out"
[[protect.allow]]
name = "monitoring"
prefixes = ["192.0.2.128/25"]
[[protect.service]]
address = "203.0.113.77"
port = 25565
protocol = "tcp"
[collector]
listen = ["127.0.0.1:2055"]
[[collector.exporters]]
address = "198.51.100.7/32"
[[collector.exporters]]
address = "192.0.2.1/32"
[[uplink]]
name = "transit-a"
exporter = "192.0.2.1"
interfaces = [512]
capacity_bits_per_sec = 10000000000
[mitigator]
mode = "auto"
[[mitigator.ladder]]
rung = "drop"
above_bits_per_sec = 1000000000
[[mitigator.ladder]]
rung = "mark"
above_bits_per_sec = 1000000000
dscp = 8
[[mitigator.ladder]]
rung = "redirect"
above_bits_per_sec = 1000000000
to4 = "192.0.2.4"
[[mitigator.ladder]]
rung = "divert"
above_bits_per_sec = 1000000000
[[mitigator.webhook]]
name = "ops"
url = "http://127.0.0.1:9"
[notify]
services = "@/services"
[[notify.channel]]
name = "noc"
service = "ntfy"
secrets = { topic = "weir" }
[bgp]
local_as = 65010
router_id = "10.0.0.1"
[bgp.rpki]
cache = "127.0.0.9:323"
[[bgp.peer]]
name = "spare"
address = "127.0.0.9"
port = 1790
remote_as = 65040
[bgp.peer.bfd]
[[bgp.peer]]
name = "upstream"
address = "127.0.0.2"
port = 1790
remote_as = 65020
connect_retry_secs = 1
families = ["ipv4-unicast", "ipv4-flowspec"]
[bgp.peer.divert]
next_hop4 = "192.0.2.66"
[[bgp.peer]]
name = "edge"
address = "127.0.0.3"
port = 1790
remote_as = 65030
connect_retry_secs = 1
families = ["ipv4-unicast", "ipv4-flowspec"]
[bgp.peer.divert]
next_hop4 = "192.0.2.66"
[[bgp.adapter]]
name = "daemon"
kind = "bird"
local_as = 65010
control = "@/nobody.ctl"
include = "@/include.conf"
neighbors = ["127.0.0.9"]
[agents]
listen = "127.0.0.1:8443"
[flows]
socket = ""
[[panel]]
name = "main"
url = "http://127.0.0.1:9"
key_file = "@/panel.key"
[[panel.override]]
node = "one"
addresses = ["203.0.113.77"]
[[panel.role]]
egg = "7"
role = "game"
[[panel.expect]]
server = "*"
why = "wipe"
from_minute = 60
minutes = 60
[owners]
listen = "127.0.0.1:8081"
public_url = "https://shield.example.net"
from = "weir\u0040example.net"
[[game]]
id = "own"
name = "Own"
words = ["own game"]
ports = ["game +0/udp"]
"#;

const BIRD: &str = r"
log stderr all;
router id 10.0.0.30;
timeformat protocol iso long ms;
timeformat route iso long ms;
ipv4 table master4;
flow4 table flowtab4;
protocol device { }
protocol bgp weir {
  local 127.0.0.3 port 1790 as 65030;
  neighbor 127.0.0.1 as 65010;
  multihop;
  passive yes;
  strict bind yes;
  error wait time 1, 1;
  ipv4 { import all; export none; };
  flow4 { table flowtab4; import all; export none; };
}
";

struct Bench {
    lab: Lab,
    /// What is in force, as far as the test wrote it.
    base: Table,
}

impl Bench {
    fn start() -> Option<Self> {
        let mut lab = Lab::new("reloadable", PROGRAMS)?;
        let gobgp = lab.write("gobgpd.toml", &format!("{GOBGP}{GOBGP_RULES}"));
        let gobgp = ["gobgpd", "-f", gobgp.to_str().unwrap(), "--api-hosts", "127.0.0.2:50052"];
        lab.spawn("gobgpd", &[&gobgp[..], &["--pprof-disable"]].concat());
        let (bird, control) = (lab.write("bird.conf", BIRD), lab.path("bird.ctl"));
        let bird = ["bird", "-f", "-c", bird.to_str().unwrap(), "-s", control.to_str().unwrap()];
        lab.spawn("bird", &bird);
        lab.write("panel.key", "ptla_0123456789abcdef");
        // What paths are set to: a file that reads as TOML and as a password.
        lab.write("other", "#0123456789abcdef");
        std::fs::create_dir(lab.path("services")).unwrap();
        std::fs::create_dir(lab.path("other.d")).unwrap();
        let folder = lab.path("").to_str().unwrap().trim_end_matches('/').to_owned();
        let base: Table = BASE.replace('@', &folder).parse().unwrap();
        let file = lab.write("weir.toml", &base.to_string());
        let weir = weir_binary();
        lab.spawn("weir", &[weir.to_str().unwrap(), "run", "--config", file.to_str().unwrap()]);
        let bench = Self { lab, base };
        bench.lab.wait_for("both sessions", 30, |_| {
            (bench.state("upstream")? == "established" && bench.state("edge")? == "established")
                .then_some(())
        });
        for measure in
            [&["203.0.113.7/32", "--blackhole"][..], &["203.0.113.8/32", "--protocol", "17"]]
        {
            bench.weir(&[&["mitigate", "add"], measure].concat());
        }
        bench.lab.wait_for("both measures at both", 20, |_| (bench.held() == 4).then_some(()));
        Some(bench)
    }

    fn weir(&self, arguments: &[&str]) -> String {
        let (weir, socket) = (weir_binary(), self.lab.path("api.sock"));
        let socket = ["--socket", socket.to_str().unwrap()];
        self.lab.ask(&[&[weir.to_str().unwrap()], arguments, &socket].concat())
    }

    fn get(&self, path: &str) -> Json {
        let socket = self.lab.path("api.sock");
        let url = format!("http://localhost/api/v1/{path}");
        let ask = ["curl", "-s", "--unix-socket", socket.to_str().unwrap(), &url];
        serde_json::from_str(&self.lab.ask(&ask)).unwrap_or_default()
    }

    fn state(&self, peer: &str) -> Option<String> {
        let peers = self.get("peers");
        let peer = peers["peers"].as_array()?.iter().find(|p| p["name"] == peer)?.clone();
        Some(peer["state"].as_str()?.to_owned())
    }

    fn bird(&self, question: &[&str]) -> String {
        let control = self.lab.path("bird.ctl");
        self.lab.ask(&[&["birdc", "-s", control.to_str().unwrap()], question].concat())
    }

    fn gobgp(&self, question: &[&str]) -> String {
        self.lab.ask(&[&["gobgp", "--host", "127.0.0.2", "--port", "50052"], question].concat())
    }

    /// Since when BIRD's session is up, as it tells.
    fn edge_since(&self) -> String {
        let shown = self.bird(&["show", "protocols", "weir"]);
        let line = shown.lines().find(|line| line.starts_with("weir ")).unwrap_or_default();
        assert!(line.contains("Established"), "{shown}\n{}", self.lab.log("weir"));
        line.split_whitespace().skip(4).take(2).collect()
    }

    /// Since when GoBGP's session is up, and how often it ended, as it tells.
    fn upstream_since(&self) -> String {
        let shown: Json =
            serde_json::from_str(&self.gobgp(&["neighbor", "127.0.0.1", "-j"])).unwrap();
        let (state, timers) = (&shown["state"], &shown["timers"]["state"]);
        assert_eq!(state["session_state"], 6, "{shown:#}\n{}", self.lab.log("weir"));
        format!("{} {}", timers["uptime"], state["flops"])
    }

    /// Routes of both kinds at BIRD with their times and attributes: a new line is a new announcement.
    fn edge_has(&self) -> String {
        let show = |table| self.bird(&["show", "route", "all", "table", table]);
        [show("master4"), show("flowtab4")].concat()
    }

    /// The same at GoBGP, which tells when it was announced.
    fn upstream_has(&self) -> String {
        let show = |family| self.gobgp(&["global", "rib", "-a", family, "-j"]);
        [show("ipv4"), show("ipv4-flowspec")].concat()
    }

    /// How many measures stand at the two routers.
    fn held(&self) -> usize {
        let count = |text: &str| {
            text.contains("203.0.113.7/32") as usize + text.contains("203.0.113.8/32") as usize
        };
        count(&self.edge_has()) + count(&self.upstream_has())
    }

    /// Writes the file and has it read; what came of it, once it is in force within a second.
    fn reload(&self, table: &Table) -> Json {
        let file = self.lab.write("weir.toml", &table.to_string());
        let (expected, _) = weir_config::load(&file).unwrap();
        let answer: Json = serde_json::from_str(&self.weir(&["reload", "--json"]))
            .unwrap_or_else(|_| panic!("{}\n{table}", self.lab.log("weir")));
        assert_eq!(answer["needs_restart"].as_array().map(Vec::len), Some(0), "{answer:#}");
        let expected = weir_config::dump(&expected).unwrap();
        let asked = Instant::now();
        loop {
            let shown = self.get("config");
            if shown["text"].as_str() == Some(&expected) {
                return answer;
            }
            assert!(asked.elapsed() < Duration::from_secs(1), "not in force: {shown:#}\n{table}");
        }
    }

    /// The file with one setting otherwise; `None` when no value can be made that weir would take.
    fn changed(&self, table: &Table, setting: &Setting, folder: &str) -> Option<Table> {
        let (now, _) = weir_config::load(&self.lab.write("try.toml", &table.to_string())).unwrap();
        // Of steps, not every one has every setting.
        let tries = (0..4).flat_map(|at| {
            let values = candidates(setting, look(table, &setting.key, at), folder);
            values.into_iter().map(move |value| (at, value))
        });
        tries.into_iter().find_map(|(at, value)| {
            let mut next = table.clone();
            set(&mut next, &setting.key, at, value);
            let (then, _) =
                weir_config::load(&self.lab.write("try.toml", &next.to_string())).ok()?;
            let differences = weir_config::differences(&now, &then).unwrap();
            (!differences.is_empty()).then_some(next)
        })
    }
}

/// Which elements of a list of tables are changed; `at` is the first tried.
fn element<'a>(list: &'a mut [Value], key: &str, at: usize) -> Vec<&'a mut Value> {
    // Peers with a session are the last two.
    if key.starts_with("bgp.peer") && !OF_SESSIONS.contains(&key) {
        return list.iter_mut().skip(1).collect();
    }
    let at = at.min(list.len().saturating_sub(1));
    list.iter_mut().skip(at).take(1).collect()
}

fn set(table: &mut Table, key: &str, at: usize, value: Value) {
    let mut parts = vec![Value::Table(std::mem::take(table))];
    within(&mut parts[0], key, key, at, &value);
    if let Some(Value::Table(done)) = parts.pop() {
        *table = done;
    }
}

fn within(value: &mut Value, whole: &str, rest: &str, at: usize, new: &Value) {
    match value {
        Value::Array(list) => {
            for value in element(list, whole, at) {
                within(value, whole, rest, at, new);
            }
        }
        Value::Table(table) => match rest.split_once('.') {
            Some((part, rest)) => {
                let inner = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
                within(inner, whole, rest, at, new);
            }
            None => {
                // A secret stands in the file or in a file of its own.
                table.remove(&format!("{rest}_file"));
                table.remove(rest.trim_end_matches("_file"));
                table.insert(rest.to_owned(), new.clone());
            }
        },
        _ => {}
    }
}

fn look(table: &Table, key: &str, at: usize) -> Option<Value> {
    let mut value = Value::Table(table.clone());
    for part in key.split('.') {
        if let Value::Array(list) = &mut value {
            value = element(list, key, at).into_iter().next()?.clone();
        }
        value = value.get(part)?.clone();
    }
    Some(value)
}

/// Values of a setting's type other than the present one.
fn candidates(setting: &Setting, present: Option<Value>, folder: &str) -> Vec<Value> {
    let present = present.or_else(|| setting.default.clone());
    let text = |texts: &[&str]| texts.iter().map(|t| Value::String((*t).to_owned())).collect();
    let single = |kind: &str| -> Vec<Value> {
        match kind {
            "true or false" => vec![Value::Boolean(true), Value::Boolean(false)],
            "whole number" => {
                let own = present.as_ref().and_then(Value::as_integer).unwrap_or(24);
                [own + 1, own - 1, own * 2, own / 2, 2, 24, 32, 64, 100, 1440]
                    .map(Value::Integer)
                    .to_vec()
            }
            "number" => {
                let own = present.as_ref().and_then(Value::as_float).filter(|n| n.is_finite());
                let own = own.unwrap_or(2.0);
                [own * 0.9, own * 1.1, 0.5, 2.5].map(Value::Float).to_vec()
            }
            "prefix" => text(&["198.51.100.0/24", "203.0.113.240/28", "203.0.113.0/25"]),
            "address" => text(&["192.0.2.77", "2001:db8::77", "203.0.113.78", "127.0.0.9"]),
            "address and port" => {
                text(&["127.0.0.1:8999", "127.0.0.1:8998", "127.0.0.1:8997", "127.0.0.1:8996"])
            }
            "path" => text(&[&format!("{folder}/other"), &format!("{folder}/other.d")]),
            "time with its unit" => text(&["77s"]),
            "community" => text(&["65010:77"]),
            "table" | "table, values never shown" => {
                let one = |key: &str, value: Value| {
                    Value::Table([(key.to_owned(), value)].into_iter().collect())
                };
                vec![
                    one("topic", "other".into()),
                    one("url", "https://other.example.net".into()),
                    one("other", "text".into()),
                    one("1", "text".into()),
                    one("edge1", Value::Float(0.5)),
                    one("edge1", "after-filter".into()),
                ]
            }
            "Pattern" => text(&["udp dst port 5061"]),
            "PortRange" => vec![Value::Integer(8443)],
            "Redirect" => text(&["64512:9", "192.0.2.5", "2001:db8::5"]),
            kind if kind.contains("`\"") => {
                let words = kind.split('`').filter_map(|w| w.strip_prefix('"')?.strip_suffix('"'));
                // What the reference names in one spelling is also read in that of a dump.
                let mut words: Vec<Value> = words.map(|w| Value::String(w.to_owned())).collect();
                words.push(Value::Integer(77_777));
                words
            }
            _ => text(&[
                "other",
                "wide",
                "template",
                "debug",
                "198.51.100.7",
                "noc",
                "Other-1",
                "https://other.example.net",
                "http://127.0.0.1:9/other",
                "udp-flood",
                "opened",
                "open",
                "minecraft-geyser",
                "game =7777/udp",
                "a@example.net",
                "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                "01234567-89ab-cdef-0123-456789abcdef",
                "seattle-ix",
                "cloudflare",
            ]),
        }
    };
    let list =
        setting.kind.strip_prefix("list: ").or_else(|| setting.kind.strip_prefix("list of "));
    let Some(kind) = list else { return single(&setting.kind) };
    let own = present.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    let more = single(kind);
    let longer = more.iter().map(|value| Value::Array([own.clone(), vec![value.clone()]].concat()));
    let first = "203.0.113.0/24";
    let with_first = more.iter().map(|v| Value::Array(vec![first.into(), v.clone()]));
    let shorter = own.split_last().map(|(_, rest)| Value::Array(rest.to_vec()));
    let alone = more.iter().map(|value| Value::Array(vec![value.clone()]));
    longer.chain(with_first.filter(|_| kind == "prefix")).chain(shorter).chain(alone).collect()
}

/// What an answer says has changed, without what tells entries of lists apart.
fn keys(answer: &Json) -> BTreeSet<String> {
    let changed = answer["changed"].as_array().unwrap();
    changed
        .iter()
        .map(|c| c["key"].as_str().unwrap().split('"').step_by(2).map(str::trim_end).collect())
        .collect()
}

/// Whether the key itself, or something that holds it or that it holds, is among those.
fn names(keys: &BTreeSet<String>, key: &str) -> bool {
    let part = |whole: &str, part: &str| {
        part.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    keys.iter().any(|own| part(own, key) || part(key, own))
}

#[test]
fn every_setting_that_is_said_to_be_reloadable_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let Some(bench) = Bench::start() else { return };
    let folder = bench.lab.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    let excepted: BTreeMap<&str, &str> = EXCEPTIONS.iter().copied().collect();
    let all = settings(root);
    let live = all.iter().filter(|s| s.live && !excepted.contains_key(s.key.as_str()));
    let (of_peers, others): (Vec<&Setting>, Vec<&Setting>) =
        live.partition(|s| s.key.starts_with("bgp.peer") && !OF_SESSIONS.contains(&s.key.as_str()));
    assert!(others.len() > 200 && of_peers.len() > 20, "{} {}", others.len(), of_peers.len());

    let sessions = (bench.edge_since(), bench.upstream_since());
    let routes = (bench.edge_has(), bench.upstream_has());
    let unharmed = |what: &[String]| {
        assert_eq!((bench.edge_since(), bench.upstream_since()), sessions, "a flap: {what:?}");
        assert_eq!(bench.get("mitigations")["mitigations"].as_array().map(Vec::len), Some(2));
    };
    // Many at a time, as many as go together; nothing is announced anew by any of them.
    let (mut left, mut without) = (others, Vec::new());
    while !left.is_empty() {
        let (mut next, mut together, mut later) = (bench.base.clone(), Vec::new(), Vec::new());
        for setting in left {
            // A secret and the file that holds it take each other's place.
            let other = match setting.key.strip_suffix("_file") {
                Some(key) => key.to_owned(),
                None => format!("{}_file", setting.key),
            };
            match bench.changed(&next, setting, &folder) {
                Some(changed) if !together.contains(&other) => {
                    next = changed;
                    together.push(setting.key.clone());
                }
                _ => later.push(setting),
            }
        }
        if together.is_empty() {
            without.extend(later.iter().map(|s| s.key.clone()));
            break;
        }
        let changed = keys(&bench.reload(&next));
        let missing: Vec<&String> = together.iter().filter(|key| !names(&changed, key)).collect();
        assert!(missing.is_empty(), "not said to have changed: {missing:?} of {changed:?}");
        unharmed(&together);
        assert_eq!(bench.edge_has(), routes.0, "{together:?}");
        bench.reload(&bench.base);
        left = later;
    }
    assert!(without.is_empty(), "no other value is known for {without:?}");
    unharmed(&[]);
    assert_eq!((bench.edge_has(), bench.upstream_has()), routes);

    // What is said of routes, one by one.
    for setting in of_peers {
        let next = bench.changed(&bench.base, setting, &folder);
        let next = next.unwrap_or_else(|| panic!("no other value is known for {}", setting.key));
        let changed = keys(&bench.reload(&next));
        assert!(names(&changed, &setting.key), "{}: {changed:?}", setting.key);
        unharmed(std::slice::from_ref(&setting.key));
    }
    bench.reload(&bench.base);
    bench.lab.wait_for("all four routes", 10, |_| (bench.held() == 4).then_some(()));
    unharmed(&[]);

    listeners(&bench, &folder);
    unharmed(&["listeners".to_owned()]);
    policy(&bench);
    unharmed(&["policy".to_owned()]);
    // From here on BIRD's session ends; GoBGP's does not.
    let upstream = bench.upstream_has();
    other_sessions(&bench);
    assert_eq!(bench.upstream_since(), sessions.1);
    assert_eq!(bench.upstream_has(), upstream);
}

/// A listener moves with what it shows, or, where the address is taken, nothing changes at all.
fn listeners(bench: &Bench, folder: &str) {
    let answers = |url: &str| bench.lab.ask(&["curl", "-sk", "-m", "5", url]).contains("ok");
    let change = |changes: &[(&str, &str)]| {
        let mut next = bench.base.clone();
        for (key, value) in changes {
            set(&mut next, key, 0, value.parse::<Value>().unwrap());
        }
        next
    };
    assert!(answers("http://127.0.0.1:8080/healthz"));
    bench.reload(&change(&[("api.listen", "\"0.0.0.0:8080\""), ("api.tls.always", "true")]));
    assert!(answers("https://127.0.0.1:8080/healthz"), "wider, at the same port, with TLS");
    let (cert, key) = (format!("\"{folder}/api-cert.pem\""), format!("\"{folder}/api-key.pem\""));
    let own = change(&[
        ("api.listen", "\"127.0.0.1:8079\""),
        ("api.tls.cert", &cert),
        ("api.tls.key", &key),
    ]);
    bench.reload(&own);
    assert!(answers("https://127.0.0.1:8079/healthz"));
    bench.lab.wait_for("the old address to be closed", 5, |_| {
        (!answers("https://127.0.0.1:8080/healthz")).then_some(())
    });
    // Taken, while everything else of the file would do.
    let taken = change(&[("agents.listen", "\"127.0.0.2:1790\""), ("detector.multiplier", "7.0")]);
    bench.lab.write("weir.toml", &taken.to_string());
    bench.weir(&["reload"]);
    let log = bench.lab.log("weir");
    assert!(
        log.contains("nothing has changed") && log.contains("agents.listen 127.0.0.2:1790"),
        "{log}"
    );
    let shown = bench.get("config")["text"].as_str().unwrap_or_default().to_owned();
    assert!(!shown.contains("multiplier = 7.0") && shown.contains("127.0.0.1:8443"), "{shown}");
    bench.reload(&bench.base);
    assert!(answers("http://127.0.0.1:8080/healthz"));
}

/// What is said of routes, and which ones a peer takes, is seen at the routers.
fn policy(bench: &Bench) {
    let of_peer = |at: usize, key: &str, value: &str| {
        let mut next = bench.base.clone();
        let peers = next["bgp"]["peer"].as_array_mut().unwrap();
        peers[at].as_table_mut().unwrap().insert(key.to_owned(), value.parse().unwrap());
        next
    };
    let upstream = bench.upstream_has();
    bench.reload(&of_peer(2, "communities", "[\"65010:77\"]"));
    bench
        .lab
        .wait_for("the community", 10, |_| bench.edge_has().contains("(65010,77)").then_some(()));
    bench.reload(&of_peer(2, "steps", "[\"divert\", \"rtbh\"]"));
    bench.lab.wait_for("the rule to go", 10, |_| {
        let has = bench.edge_has();
        (has.contains("203.0.113.7/32") && !has.contains("203.0.113.8/32")).then_some(())
    });
    bench.reload(&bench.base);
    bench.lab.wait_for("the rule again", 10, |_| (bench.held() == 4).then_some(()));
    assert_eq!(bench.upstream_has(), upstream, "nothing was said to the other peer");
}

/// A session is opened anew with its parameters, ends with its peer, and comes with it.
fn other_sessions(bench: &Bench) {
    let since = bench.edge_since();
    let mut next = bench.base.clone();
    let peers = next["bgp"]["peer"].as_array_mut().unwrap();
    peers[2].as_table_mut().unwrap().insert("hold_time_secs".to_owned(), Value::Integer(30));
    bench.reload(&next);
    let is_anew = || {
        let shown = bench.bird(&["show", "protocols", "weir"]);
        let line = shown.lines().find(|line| line.starts_with("weir ")).unwrap_or_default();
        let now: String = line.split_whitespace().skip(4).take(2).collect();
        line.contains("Established")
            && (now != since || bench.bird(&["show", "protocols", "all", "weir"]).contains("/30"))
    };
    bench.lab.wait_for("another session", 15, |_| (is_anew() && bench.held() == 4).then_some(()));
    let peers = next["bgp"]["peer"].as_array_mut().unwrap();
    peers.pop();
    bench.reload(&next);
    bench.lab.wait_for("the end of the session", 10, |_| (bench.held() == 2).then_some(()));
    bench.lab.wait_for("the peer to be gone", 5, |_| bench.state("edge").is_none().then_some(()));
    bench.reload(&bench.base);
    bench.lab.wait_for("the session", 15, |_| (bench.held() == 4).then_some(()));
}

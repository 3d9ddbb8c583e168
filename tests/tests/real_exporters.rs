//! Real exporters watch known traffic, and weir's sums are that traffic: tcpreplay plays a capture whose
//! packets are counted, weir records what its receivers hand to the core.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::Value;
use weir_tests::capture::{self, Totals};
use weir_tests::lab::Lab;
use weir_tests::{mirror_binary, weir_binary};

/// Packets of the traffic, played in four seconds: slow enough for a busy machine's user space.
const PACKETS: u64 = 16_000;
const PACKETS_PER_SEC: &str = "--pps=4000";

/// One in how many packets, where an exporter samples.
const SAMPLING: f64 = 4.0;

/// How near the sums must be.
#[derive(Clone, Copy, Debug)]
enum Within {
    /// A hundredth.
    Hundredth,
    /// Four standard deviations of random sampling.
    SamplingError,
}

/// A laboratory with weir in it and a pair of interfaces: what is played into `wan0` comes out of
/// `wan1`, where the exporter watches.
fn lab(test: &str, programs: &[&str], exporter: &str) -> Option<Lab> {
    let mut lab = Lab::new(test, &[&["ip", "tcpreplay", "curl"], programs].concat())?;
    lab.run(&["ip", "link", "add", "wan0", "type", "veth", "peer", "name", "wan1"]);
    lab.run(&["ip", "link", "set", "wan0", "up"]);
    lab.run(&["ip", "link", "set", "wan1", "up"]);
    let config = format!(
        "[protect]\nprefixes = [\"10.10.10.0/24\"]\n\
         [collector]\nlisten = [\"127.0.0.1:2055\"]\n\
         [[collector.exporters]]\naddress = \"127.0.0.1/32\"\n{exporter}\
         [api]\nlisten = \"127.0.0.1:8080\"\nsocket = \"\"\nloopback_readonly = true\n[store]\npath = {:?}\n",
        lab.path("state.db")
    );
    let config = lab.write("weir.toml", &config);
    let recording = lab.path("recording.jsonl");
    let binary = weir_binary();
    lab.spawn(
        "weir",
        &[
            binary.to_str().unwrap(),
            "run",
            "--config",
            config.to_str().unwrap(),
            "--record",
            recording.to_str().unwrap(),
        ],
    );
    lab.wait_for("weir", 30, |lab| lab.log("weir").contains("ready").then_some(()));
    Some(lab)
}

/// Plays the traffic, and then some towards others: a capture buffer that is not full yet is not read,
/// so the last packets of all traffic stay unseen.
fn play(lab: &Lab) -> Totals {
    let (known, others) = (lab.path("known.pcap"), lab.path("others.pcap"));
    let totals = capture::known(&known, PACKETS, [10, 10, 10]);
    capture::known(&others, 2000, [192, 0, 2]);
    for path in [known, others] {
        lab.run(&["tcpreplay", "-q", "-i", "wan0", PACKETS_PER_SEC, path.to_str().unwrap()]);
    }
    totals
}

/// What weir has recorded as traffic towards the protected hosts.
fn recorded(lab: &Lab) -> Totals {
    let text = std::fs::read_to_string(lab.path("recording.jsonl")).unwrap_or_default();
    let mut sum = Totals::default();
    let mut add = |volume: &Value| {
        sum.packets += volume["packets"].as_u64().unwrap();
        sum.bytes += volume["bytes"].as_u64().unwrap();
    };
    for line in text.lines() {
        // The last one may not be whole yet.
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let slice = &line["input"]["slice"];
        for host in slice["hosts"].as_array().into_iter().flatten() {
            host["inbound"].as_array().unwrap().iter().for_each(&mut add);
        }
        for flow in slice["long_flows"].as_array().into_iter().flatten() {
            if flow["outbound"] == false {
                add(&flow["volume"]);
            }
        }
    }
    sum
}

/// Waits until the sums are near what was played. Weir's recording is written in large pieces, so it
/// is stopped once its own count of records stands still.
fn check(mut lab: Lab, played: Totals, within: Within) {
    let mut seen = (0, 0);
    lab.wait_for("the last export", 40, |lab| {
        let text = lab.ask(&["curl", "-s", "http://127.0.0.1:8080/api/v1/exporters"]);
        let list: Value = serde_json::from_str(&text).unwrap_or_default();
        let records = list["exporters"][0]["records"].as_u64().unwrap_or(0);
        // Unchanged for three seconds of looks.
        seen = if records == seen.0 { (records, seen.1 + 1) } else { (records, 0) };
        (records > 0 && seen.1 > 50).then_some(())
    });
    lab.end("weir");
    let sum = recorded(&lab);
    let off = |sum: u64, played: u64| (sum as f64 / played as f64 - 1.0).abs();
    let (packets, bytes) = (off(sum.packets, played.packets), off(sum.bytes, played.bytes));
    let (packets_max, bytes_max) = match within {
        Within::Hundredth => (0.01, 0.01),
        Within::SamplingError => {
            // Of a count by the number of samples; of octets more, by how lengths vary: the mean
            // square of the four lengths is 1.89 times the square of their mean.
            let samples = played.packets as f64 / SAMPLING;
            let sigma = ((1.0 - 1.0 / SAMPLING) / samples).sqrt();
            (4.0 * sigma, 4.0 * (1.89 / samples).sqrt())
        }
    };
    assert!(packets <= packets_max && bytes <= bytes_max, "{sum:?} of {played:?}: {}", lab.logs());
}

fn softflowd(test: &str, version: &str) {
    let Some(mut lab) = lab(test, &["softflowd", "softflowctl"], "") else { return };
    let (pid, control) = (lab.path("softflowd.pid"), lab.path("softflowd.ctl"));
    let (pid, control) = (pid.to_str().unwrap().to_owned(), control.to_str().unwrap().to_owned());
    let mut command = vec!["softflowd", "-i", "wan1", "-n", "127.0.0.1:2055", "-v", version];
    command.extend(["-d", "-m", "20000", "-p", &pid, "-c", &control]);
    command.extend(["-t", "maxlife=2", "-t", "expint=1", "-t", "general=2", "-t", "udp=2"]);
    lab.spawn("exporter", &command);
    lab.wait_for("softflowd", 10, |lab| lab.path("softflowd.ctl").exists().then_some(()));
    let played = play(&lab);
    lab.run(&["softflowctl", "-c", &control, "expire-all"]);
    check(lab, played, Within::Hundredth);
}

#[test]
fn softflowd_netflow_v5() {
    softflowd("softflowd_netflow_v5", "5");
}

#[test]
fn softflowd_netflow_v9() {
    softflowd("softflowd_netflow_v9", "9");
}

#[test]
fn softflowd_ipfix() {
    softflowd("softflowd_ipfix", "10");
}

fn pmacctd(test: &str, plugin: &str, within: Within) {
    let Some(mut lab) = lab(test, &["pmacctd"], "") else { return };
    let config = lab.write(
        "pmacctd.conf",
        &format!(
            "pcap_interface: wan1\nplugin_pipe_size: 10240000\nplugin_buffer_size: 10240\n\
             aggregate: src_host, dst_host, src_port, dst_port, proto, tos\n{plugin}"
        ),
    );
    lab.spawn("exporter", &["pmacctd", "-f", config.to_str().unwrap()]);
    lab.wait_for("pmacctd", 10, |lab| lab.log("exporter").contains("wan1").then_some(()));
    let played = play(&lab);
    check(lab, played, within);
}

fn nfprobe(test: &str, version: &str) {
    let plugin = format!(
        "plugins: nfprobe\nnfprobe_receiver: 127.0.0.1:2055\nnfprobe_version: {version}\n\
         nfprobe_timeouts: udp=2:general=2:maxlife=2:expint=1\n"
    );
    pmacctd(test, &plugin, Within::Hundredth);
}

#[test]
fn nfprobe_netflow_v5() {
    nfprobe("nfprobe_netflow_v5", "5");
}

#[test]
fn nfprobe_netflow_v9() {
    nfprobe("nfprobe_netflow_v9", "9");
}

#[test]
fn nfprobe_ipfix() {
    nfprobe("nfprobe_ipfix", "10");
}

#[test]
fn sfprobe_sflow() {
    let plugin = format!(
        "plugins: sfprobe\nsampling_rate: {SAMPLING}\nsfprobe_agentip: 127.0.0.1\n\
         sfprobe_receiver: 127.0.0.1:2055\n"
    );
    pmacctd("sfprobe_sflow", &plugin, Within::SamplingError);
}

/// A mirror port: `wan1` is what a switch mirrors to.
#[test]
fn a_mirror_port() {
    let Some(mut lab) = lab("a_mirror_port", &[], "name = \"mirror\"\n") else { return };
    let binary = mirror_binary();
    let rate = SAMPLING.to_string();
    let command = [binary.to_str().unwrap(), "wan1", "--rate", &rate, "--to", "127.0.0.1:2055"];
    lab.spawn("exporter", &[&command[..], &["--workers", "2"]].concat());
    // Its first counters come at once, and a sample may come before all of them.
    lab.wait_for("the port's name", 20, |lab| {
        let text = lab.ask(&["curl", "-s", "http://127.0.0.1:8080/api/v1/exporters"]);
        let list: Value = serde_json::from_str(&text).unwrap_or_default();
        (list["exporters"][0]["interfaces"][0]["name"] == "wan1").then_some(())
    });
    let played = play(&lab);
    check(lab, played, Within::SamplingError);
}

/// Open vSwitch with its datapath in user space: no kernel module is needed.
fn open_vswitch(test: &str, exporter: &str, export: &[&str], within: Within) {
    const PROGRAMS: &[&str] = &["ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl"];
    let Some(mut lab) = lab(test, PROGRAMS, exporter) else { return };
    let folder = lab.path("");
    let folder = folder.to_str().unwrap().trim_end_matches('/');
    let variables = ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"]
        .map(|name| format!("{name}={folder}"));
    let with = |command: &[&str]| {
        let mut all = vec!["env".to_owned()];
        all.extend(variables.clone());
        all.extend(command.iter().map(|&word| word.to_owned()));
        all
    };
    let words = |all: &[String]| all.iter().map(String::as_str).collect::<Vec<_>>().join("\u{1f}");
    let (database, socket) = (format!("{folder}/conf.db"), format!("unix:{folder}/db.sock"));
    let schema = "/usr/share/openvswitch/vswitch.ovsschema";
    lab.run(&["ovsdb-tool", "create", &database, schema]);
    let remote = format!("--remote=p{socket}");
    let server = words(&with(&["ovsdb-server", &database, &remote]));
    lab.spawn("ovsdb", &server.split('\u{1f}').collect::<Vec<_>>());
    lab.wait_for("the database", 10, |lab| lab.path("db.sock").exists().then_some(()));
    let database = format!("--db={socket}");
    lab.run(&["ovs-vsctl", &database, "--no-wait", "init"]);
    let switch = words(&with(&["ovs-vswitchd", &socket]));
    lab.spawn("exporter", &switch.split('\u{1f}').collect::<Vec<_>>());
    let set = |words: &[&str]| {
        lab.run(&[&["ovs-vsctl", &database, "--timeout=20"], words].concat());
    };
    set(&["set", "Open_vSwitch", ".", "other_config:max-idle=500"]);
    set(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"]);
    set(&["add-port", "br0", "wan1"]);
    set(export);
    let played = play(&lab);
    check(lab, played, within);
}

#[test]
fn open_vswitch_netflow() {
    let export = [
        "--",
        "set",
        "Bridge",
        "br0",
        "netflow=@n",
        "--",
        "--id=@n",
        "create",
        "NetFlow",
        "targets=\"127.0.0.1:2055\"",
        "active_timeout=1",
    ];
    open_vswitch("open_vswitch_netflow", "counts_frames = true\n", &export, Within::Hundredth);
}

#[test]
fn open_vswitch_ipfix() {
    let export = [
        "--",
        "set",
        "Bridge",
        "br0",
        "ipfix=@n",
        "--",
        "--id=@n",
        "create",
        "IPFIX",
        "targets=\"127.0.0.1:2055\"",
        "sampling=1",
        "cache_active_timeout=1",
        "cache_max_flows=4096",
    ];
    open_vswitch("open_vswitch_ipfix", "", &export, Within::Hundredth);
}

#[test]
fn open_vswitch_sflow() {
    let sampling = format!("sampling={SAMPLING}");
    let export = [
        "--",
        "set",
        "Bridge",
        "br0",
        "sflow=@n",
        "--",
        "--id=@n",
        "create",
        "sFlow",
        "agent=lo",
        "targets=\"127.0.0.1:2055\"",
        "header=128",
        "polling=5",
        &sampling,
    ];
    open_vswitch("open_vswitch_sflow", "", &export, Within::SamplingError);
}

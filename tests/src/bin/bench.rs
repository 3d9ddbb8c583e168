//! The whole process under load, beside FastNetMon, nfcapd, nfacctd and a socket that only receives.
//! Run it through `tests/bench`, which builds what it needs and makes a namespace of its own.
//!
//! Each collector has one processor to itself, the generator another. A figure is the highest rate
//! at which fewer than one record in a thousand is lost. For weir, what its receivers could not hand to
//! the core is lost as well as what the kernel dropped; of nfacctd only the core process is
//! measured, not what its table behind drops.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use weir_tests::bench::{PORTS, Running, cpu_secs, figure, get, tool, wait};
use weir_tests::fastnetmon::Folder;

/// Where collectors listen, and weir's API.
const PORT: u16 = PORTS.0;
const API_PORT: u16 = PORTS.1;
/// Seconds of a trial.
const SECONDS: f64 = 3.0;
/// Steps of the search for the highest rate.
const STEPS: usize = 6;
/// Highest share of records that may be lost.
const LOSS_MAX: f64 = 0.001;
/// Protected hosts.
const HOSTS: u32 = 65_536;

/// Protocol, records in a datagram, and the rate that weir is to bear.
const PROTOCOLS: [(&str, u64, f64); 4] = [
    ("netflow-v5", 30, 6.5e6),
    ("netflow-v9", 24, 4.5e6),
    ("ipfix", 20, 4.5e6),
    ("sflow", 7, 1.5e6),
];

/// One trial.
#[derive(Clone, Copy, Debug)]
struct Trial {
    offered_per_sec: f64,
    taken_per_sec: f64,
    loss: f64,
    cpu_secs_per_million: f64,
}

/// The best of a collector.
#[derive(Clone, Copy, Debug, Default)]
struct Best {
    records_per_sec: f64,
    cpu_secs_per_million: f64,
}

/// Kernel drops and octets queued at our port, from the tables of this namespace.
fn socket_state() -> (u64, u64) {
    let (mut drops, mut queued) = (0, 0);
    for table in ["/proc/self/net/udp", "/proc/self/net/udp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            let cells: Vec<&str> = line.split_whitespace().collect();
            let hex = |text: &str| u64::from_str_radix(text, 16).unwrap_or(0);
            let port = cells.get(1).and_then(|c| c.rsplit(':').next()).map_or(0, hex);
            if port == u64::from(PORT) {
                drops += cells.last().and_then(|c| c.parse::<u64>().ok()).unwrap_or(0);
                queued += cells.get(4).and_then(|c| c.rsplit(':').next()).map_or(0, hex);
            }
        }
    }
    (drops, queued)
}

fn listening() -> bool {
    let hex = format!(":{PORT:04X} ");
    ["/proc/self/net/udp", "/proc/self/net/udp6"]
        .iter()
        .any(|t| std::fs::read_to_string(t).unwrap_or_default().contains(&hex))
}

fn start(mut command: Command, log: &Path) -> io::Result<Running> {
    let file = std::fs::File::create(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let child = command.spawn()?;
    let mut collector = Running(child);
    let end = Instant::now() + Duration::from_secs(30);
    while !listening() {
        if Instant::now() > end || collector.0.try_wait()?.is_some() {
            // It may not be installed: taskset says so.
            let said = std::fs::read_to_string(log).unwrap_or_default();
            let said = said.lines().last().unwrap_or("and says nothing").to_owned();
            return Err(io::Error::other(format!("the collector does not listen: {said}")));
        }
        wait(Duration::from_millis(50));
    }
    wait(Duration::from_secs(2));
    Ok(collector)
}

fn pinned(program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "1"]).arg(program);
    command
}

fn weir(folder: &Path) -> io::Result<Running> {
    let config = format!(
        "[protect]\nprefixes = [\"10.0.0.0/16\"]\n\
         [[protect.service]]\naddress = \"10.0.0.1\"\nport = 25565\nprotocol = \"tcp\"\n\
         [collector]\nlisten = [\"127.0.0.1:{PORT}\"]\nreceive_buffer_bytes = 16777216\n\
         [[collector.exporters]]\naddress = \"127.0.0.0/8\"\n\
         [api]\nlisten = \"127.0.0.1:{API_PORT}\"\nloopback_readonly = true\nsocket = \"\"\n[store]\npath = \":memory:\"\n[log]\nlevel = \"warn\"\n"
    );
    let path = folder.join("weir.toml");
    std::fs::write(&path, config)?;
    let mut command = pinned(&tool("weir")?);
    command.args(["run", "--config"]).arg(path);
    start(command, &folder.join("weir.log"))
}

/// Slices that weir's receivers dropped because the core was slow: a tenth of a second each.
fn lost_slices() -> u64 {
    let Ok(text) = get("/metrics") else { return 0 };
    let lost =
        text.lines().filter(|line| line.starts_with("weir_") && line.contains("lost_slices"));
    lost.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).max().unwrap_or(0)
}

/// nfacctd or sfacctd with a table in memory behind.
fn nfacctd(folder: &Path, sflow: bool) -> io::Result<Running> {
    let name = if sflow { "sfacctd" } else { "nfacctd" };
    let pipe = folder.join("nfacctd.pipe");
    let config = format!(
        "daemonize: false\n{name}_ip: 127.0.0.1\n{name}_port: {PORT}\n{name}_disable_checks: true\n\
         {name}_pipe_size: 16777216\nplugins: memory[a]\naggregate[a]: dst_host, dst_port, proto\n\
         plugin_pipe_size[a]: 536870912\nplugin_buffer_size[a]: 1048576\nimt_path[a]: {}\n\
         imt_buckets[a]: 1048583\nimt_mem_pools_number[a]: 512\nimt_mem_pools_size[a]: 8388608\n",
        pipe.display()
    );
    let path = folder.join("nfacctd.conf");
    std::fs::write(&path, config)?;
    let mut command = pinned(&Path::new("/usr/sbin").join(name));
    command.arg("-f").arg(path);
    start(command, &folder.join("nfacctd.log"))
}

fn sink(folder: &Path) -> io::Result<Running> {
    let mut command = pinned(&tool("flowgen")?);
    command.arg("sink").arg(format!("127.0.0.1:{PORT}")).args(["--seconds", "290"]);
    start(command, &folder.join("sink.log"))
}

fn nfcapd(folder: &Path, sflow: bool) -> io::Result<Running> {
    let files = folder.join("nfcapd");
    std::fs::create_dir_all(&files)?;
    let mut command = pinned(Path::new(if sflow { "sfcapd" } else { "nfcapd" }));
    command.arg("-w").arg(files).args(["-b", "127.0.0.1", "-t", "3600", "-B", "16777216", "-p"]);
    command.arg(PORT.to_string());
    start(command, &folder.join("nfcapd.log"))
}

/// A library that gives a program's sockets a receive buffer of 16 MiB.
fn receive_buffer(folder: &Path) -> io::Result<PathBuf> {
    let library = folder.join("receive_buffer.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/receive_buffer.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()?;
    if built.success() { Ok(library) } else { Err(io::Error::other("cc failed")) }
}

/// FastNetMon as fast as it can be made: no connection tracking, nothing to announce, the receive buffer of
/// the others, which no setting of its gives it.
fn fastnetmon(folder: &Path, sflow: bool) -> io::Result<Running> {
    let (on, off) = if sflow { ("sflow", "netflow") } else { ("netflow", "sflow") };
    let settings = [
        ("enable_connection_tracking", "off".to_owned()),
        ("threshold_pps", "2000000000".to_owned()),
        ("threshold_mbps", "2000000000".to_owned()),
        ("prometheus", "on".to_owned()),
        ("enable_api", "on".to_owned()),
        (on, "on".to_owned()),
        (off, "off".to_owned()),
        (if sflow { "sflow_port" } else { "netflow_port" }, PORT.to_string()),
    ];
    let made = Folder::new(
        &folder.join("fastnetmon"),
        ["10.0.0.0/16".parse().map_err(io::Error::other)?],
        &settings,
    )?;
    let words = made.command();
    let mut command = pinned(Path::new(&words[0]));
    command.args(&words[1..]);
    command.env("LD_PRELOAD", receive_buffer(folder)?);
    start(command, &folder.join("fastnetmon.out"))
}

/// Sends at a rate (0 = as fast as possible) and sees what is lost.
fn trial(
    collector: &Running,
    protocol: &str,
    records: u64,
    rate: f64,
    seconds: f64,
) -> io::Result<Trial> {
    let pid = collector.0.id();
    let slices = lost_slices();
    let (drops, _) = socket_state();
    let cpu = cpu_secs(pid, "");
    let output = Command::new("taskset")
        .args(["-c", "0"])
        .arg(tool("flowgen")?)
        .args([protocol, &format!("127.0.0.1:{PORT}"), "--rate", &format!("{rate:.0}")])
        .args(["--seconds", &seconds.to_string(), "--hosts", &HOSTS.to_string()])
        .output()?;
    let sent: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let number = |key: &str| sent[key].as_f64().unwrap_or(0.0);
    let end = Instant::now() + Duration::from_secs(2);
    while socket_state().1 > 0 && Instant::now() < end {
        wait(Duration::from_millis(10));
    }
    let slices = lost_slices().saturating_sub(slices) as f64;
    let lost = (socket_state().0 - drops) as f64 * records as f64
        + slices / 10.0 * number("records") / number("seconds").max(0.001);
    let cpu = cpu_secs(pid, "") - cpu;
    let taken = (number("records") - lost).max(0.0);
    Ok(Trial {
        offered_per_sec: number("records") / number("seconds").max(0.001),
        taken_per_sec: taken / number("seconds").max(0.001),
        loss: lost / number("records").max(1.0),
        cpu_secs_per_million: cpu / taken.max(1.0) * 1e6,
    })
}

/// The highest rate without loss, by bisection from what is taken at full blast.
fn best(collector: &Running, protocol: &str, records: u64) -> io::Result<Best> {
    trial(collector, protocol, records, 20_000.0, 1.0)?;
    let full = trial(collector, protocol, records, 0.0, SECONDS)?;
    let (mut low, mut high) = (10_000.0, full.offered_per_sec.min(full.taken_per_sec * 1.1));
    let mut best = Best::default();
    let mut rate = high;
    for _ in 0..STEPS {
        let trial = trial(collector, protocol, records, rate, SECONDS)?;
        if trial.loss < LOSS_MAX {
            best = Best {
                records_per_sec: trial.taken_per_sec,
                cpu_secs_per_million: trial.cpu_secs_per_million,
            };
            if rate >= high {
                break;
            }
            low = rate;
        } else {
            high = rate;
        }
        rate = f64::sqrt(low * high);
    }
    Ok(best)
}

fn ingest(protocol: &str, records: u64, bar: f64, folder: &Path) -> io::Result<()> {
    let of = |name: &str, started: io::Result<Running>| -> io::Result<Best> {
        let best = match started.and_then(|c| best(&c, protocol, records)) {
            Ok(best) => best,
            Err(error) => {
                writeln!(io::stderr(), "skip: {protocol} with {name}: {error}")?;
                return Ok(Best::default());
            }
        };
        let own = name == "weir";
        let rate_bar = if own { format!(">={bar:.0}") } else { "-".to_owned() };
        let cpu_bar = if own && protocol == "netflow-v5" { "<=0.14" } else { "-" };
        figure(&format!("{protocol}/{name}"), best.records_per_sec, "records/s", &rate_bar)?;
        let cpu = best.cpu_secs_per_million;
        figure(&format!("{protocol}/{name}/cpu"), cpu, "s/million", cpu_bar)?;
        Ok(best)
    };
    let socket = of("socket", sink(folder))?;
    let sflow = protocol == "sflow";
    of("nfcapd", nfcapd(folder, sflow))?;
    of("nfacctd", nfacctd(folder, sflow))?;
    let rival = of("fastnetmon", fastnetmon(folder, sflow))?;
    let own = of("weir", weir(folder))?;
    if rival.records_per_sec > 0.0 {
        let ratio = own.records_per_sec / rival.records_per_sec;
        let bar = if protocol == "netflow-v5" { ">=1.2" } else { "-" };
        figure(&format!("{protocol}/weir-to-fastnetmon"), ratio, "ratio", bar)?;
        let cpu = own.cpu_secs_per_million / rival.cpu_secs_per_million.max(1e-9);
        figure(&format!("{protocol}/weir-to-fastnetmon/cpu"), cpu, "ratio", "-")?;
    }
    if socket.records_per_sec > 0.0 {
        let ratio = own.records_per_sec / socket.records_per_sec;
        figure(&format!("{protocol}/weir-to-socket"), ratio, "ratio", "-")?;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let folder = tempfile::tempdir()?;
    for (protocol, records, bar) in PROTOCOLS {
        if wanted.is_empty() || wanted.iter().any(|w| w == protocol) {
            ingest(protocol, records, bar, folder.path())?;
        }
    }
    Ok(())
}

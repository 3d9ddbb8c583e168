//! The API under load: 2 million records a second, an attack, 200 dashboards, and some that have died.
//! Run it through `tests/bench api`, which builds what it needs and makes a namespace of its own.
//!
//! One line a figure: name value unit bar.

use std::io::{self, Read as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use weir_tests::bench::{self, PORTS, Running, connect, cpu_secs, figure, get, tool, wait};

/// Records a second: ordinary traffic, and the attack on one host beside it.
const RATES: (f64, f64) = (2e6, 1e5);
/// Open dashboards, and those whose browser has died without saying so.
const CLIENTS: (usize, usize) = (200, 20);
/// How the threads that serve the API are named.
const WEB: &str = "web";
/// Seconds of each part.
const SECONDS: u64 = 10;
/// Requests whose time is taken, a twentieth of a second apart.
const REQUESTS: usize = 200;

fn flows(rate: f64, hosts: u32, seed: u32) -> io::Result<Running> {
    let mut command = Command::new(tool("flowgen")?);
    command.args(["netflow-v5", &format!("127.0.0.1:{}", PORTS.0)]);
    command.args(["--rate", &rate.to_string(), "--hosts", &hosts.to_string()]);
    command.args(["--seconds", "120", "--seed", &seed.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map(Running)
}

/// Sum of the metrics whose names contain `name`.
fn metric(name: &str) -> io::Result<f64> {
    let text = get("/metrics")?;
    let lines = text.lines().filter(|line| line.starts_with("weir_") && line.contains(name));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// Reads what has come on every stream, for so long; octets.
fn follow(streams: &mut [TcpStream], time: Duration) -> io::Result<usize> {
    let (end, mut octets) = (Instant::now() + time, 0);
    let mut buffer = vec![0; 65_536];
    while Instant::now() < end {
        for stream in &mut *streams {
            match stream.read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("a live stream ended")),
                Ok(n) => octets += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        wait(Duration::from_millis(100));
    }
    Ok(octets)
}

fn streams(count: usize) -> io::Result<Vec<TcpStream>> {
    let open = |_| {
        let stream = connect("/api/v1/live")?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    (0..count).map(open).collect()
}

/// The 99th percentile of what a list of incidents takes, milliseconds.
fn list_ms() -> io::Result<f64> {
    let mut took = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let started = Instant::now();
        let text = get("/api/v1/incidents")?;
        took.push(started.elapsed().as_secs_f64() * 1e3);
        if !text.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(text.lines().next().unwrap_or_default().to_owned()));
        }
        wait(Duration::from_millis(50));
    }
    took.sort_by(f64::total_cmp);
    Ok(took[REQUESTS * 99 / 100])
}

fn main() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let weir = bench::weir(folder.path(), "10.0.0.0/16")?;
    let pid = weir.0.id();
    let part = Duration::from_secs(SECONDS);
    let _ordinary = flows(RATES.0, 65_536, 1)?;
    let _attack = flows(RATES.1, 1, 2)?;
    let end = Instant::now() + Duration::from_secs(30);
    while !get("/api/v1/incidents")?.contains("\"state\":\"open\"") {
        if Instant::now() > end {
            return Err(io::Error::other("the attack is not seen"));
        }
        wait(Duration::from_millis(200));
    }
    let (records, measured) = (metric("collector_records_total")?, Instant::now());
    let (web, started) = (cpu_secs(pid, WEB), Instant::now());
    wait(part);
    let alone = (cpu_secs(pid, WEB) - web) / started.elapsed().as_secs_f64();
    let lost = metric("lost_slices")?;
    // Those that have died take nothing from now on, and nobody has told weir.
    let _dead = streams(CLIENTS.1)?;
    let mut live = streams(CLIENTS.0)?;
    follow(&mut live, Duration::from_secs(2))?;
    let (web, started) = (cpu_secs(pid, WEB), Instant::now());
    let octets = follow(&mut live, part)?;
    let busy = (cpu_secs(pid, WEB) - web) / started.elapsed().as_secs_f64();
    let reader =
        std::thread::spawn(move || follow(&mut live, Duration::from_secs(SECONDS * 2)).map(|_| ()));
    let list = list_ms()?;
    reader.join().map_err(|_| io::Error::other("the reader panicked"))??;
    let took = measured.elapsed().as_secs_f64();
    let rate = (metric("collector_records_total")? - records) / took;
    figure("api/records", rate, "records/s", ">=1900000")?;
    figure("api/incidents-p99", list, "ms", "<50")?;
    figure("api/live-clients", (busy - alone) * 100.0, "% of a core", "<10")?;
    figure("api/live-octets", octets as f64 / CLIENTS.0 as f64 / SECONDS as f64, "B/s each", "-")?;
    figure("api/lost-slices", metric("lost_slices")? - lost, "slices", "0")
}

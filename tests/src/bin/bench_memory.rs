//! Memory of the whole process: a million protected hosts of which 200,000 are warm, and then floods of
//! destinations and of hostile templates. Run it through `tests/bench memory`, which builds what it
//! needs and makes a namespace of its own.
//!
//! Figures are the process's peak so far (VmHWM). One line each: name value unit bar.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use weir_tests::bench::{self, PORTS, Running, figure, get, tool, wait};

/// What is protected, and how many addresses that are.
const PROTECTED: &str = "10.0.0.0/12";
const HOSTS: u32 = 1 << 20;
/// Hosts that have traffic enough to be watched in detail.
const WARM: u32 = 200_000;
/// Records a second towards these, each of three packets on average of which one in a hundred was
/// looked at: about 300 packets a second for a host.
const RATE: f64 = 200_000.0;
/// Seconds of that traffic.
const WARM_SECS: u32 = 120;
/// Records a second of the flood to all hosts, and its seconds.
const FLOOD: (f64, u32) = (500_000.0, 20);
/// Exporters that send hostile templates, each on as many domains as fit a number of 16 bits.
const HOSTILE: u8 = 200;
/// Datagrams of templates from each.
const TEMPLATES: u16 = 1500;

/// Peak of resident memory, MB.
fn peak_mb(weir: &Running) -> io::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", weir.0.id()))?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    let kilobytes = kilobytes.ok_or_else(|| io::Error::other("weir has ended"))?;
    Ok(kilobytes * 1024.0 / 1e6)
}

/// Plays ordinary records of several exporters towards the first `hosts` addresses.
fn flows(rate: f64, hosts: u32, secs: u32, exporters: u8) -> io::Result<()> {
    let mut command = Command::new(tool("flowgen")?);
    command.args(["netflow-v5", &format!("127.0.0.1:{}", PORTS.0), "--sampling", "100"]);
    command.args(["--rate", &rate.to_string(), "--hosts", &hosts.to_string()]);
    command.args(["--seconds", &secs.to_string(), "--exporters", &exporters.to_string()]);
    let mut generator = Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
    generator.0.wait().map(|_| ())
}

/// How many of a hundred hosts spread over the warm ones have baselines.
fn with_baselines() -> io::Result<f64> {
    let mut found = 0;
    for n in 0..100 {
        let host = Ipv4Addr::from_bits(0x0a00_0000 + WARM / 100 * n + 7);
        let text = get(&format!("/api/v1/hosts/{host}"))?;
        found += u32::from(text.contains("\"baselines\":[{"));
    }
    Ok(f64::from(found))
}

/// Templates of three hundred fields under ever new numbers and domains, and data of which the template
/// never comes.
fn hostile() -> io::Result<()> {
    let to = ("127.0.0.1", PORTS.0);
    let message = |domain: u32, set: u16, body: &[u8]| {
        let len = u16::try_from(body.len() + 20).unwrap_or(u16::MAX);
        let mut out = [10_u16.to_be_bytes(), len.to_be_bytes()].concat();
        out.extend([0_u32.to_be_bytes(), 0_u32.to_be_bytes(), domain.to_be_bytes()].concat());
        out.extend([set.to_be_bytes(), (len - 16).to_be_bytes()].concat());
        out.extend(body);
        out
    };
    for exporter in 0..HOSTILE {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 2, 0, exporter + 1), 0))?;
        for n in 0..TEMPLATES {
            let mut template = [(256 + n).to_be_bytes(), 300_u16.to_be_bytes()].concat();
            template.extend([0, 96, 0, 1].repeat(300));
            socket.send_to(&message(u32::from(n % 50), 2, &template), to)?;
            socket.send_to(&message(u32::from(n % 50), 60_000, &[7; 1000]), to)?;
            // No faster than weir reads: what the kernel drops takes no memory of weir's.
            if n % 50 == 0 {
                wait(Duration::from_millis(2));
            }
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let weir = bench::weir(folder.path(), PROTECTED)?;
    wait(Duration::from_secs(2));
    figure("memory/idle", peak_mb(&weir)?, "MB", "-")?;
    flows(RATE, WARM, WARM_SECS, 3)?;
    figure("memory/warm-hosts", with_baselines()?, "% of 200000", ">=95")?;
    figure("memory/warm", peak_mb(&weir)?, "MB", "<700")?;
    flows(FLOOD.0, HOSTS, FLOOD.1, 6)?;
    figure("memory/flood-of-destinations", peak_mb(&weir)?, "MB", "-")?;
    hostile()?;
    wait(Duration::from_secs(2));
    figure("memory/hostile-templates", peak_mb(&weir)?, "MB", "-")?;
    let text = get("/api/v1/exporters")?;
    let seen = text.matches("too-many-templates").count() as f64;
    figure("memory/exporters-refused-templates", seen, "exporters", &format!("{HOSTILE}"))
}

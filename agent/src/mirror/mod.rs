//! A mirror port as a source: one in N packets that come in by an interface is sent to weir as sFlow.
//!
//! A process of its own, because it needs CAP_NET_RAW and weir does not. The kernel chooses the packets (a classic
//! BPF filter) and writes them into rings (TPACKET_V3), one for each worker; the interface's processors share the
//! rings (fanout). What the rings had no room for is counted into the sample pool, so that weir makes up for it. The interface's
//! own counters are sent as well: by them weir checks the samples.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tracing::{info, warn};

use crate::eyes::ring::{Packet, Ring};
use crate::eyes::sampler::filter;
use crate::eyes::sflow::{
    Counters, HEADER_MAX, Interface, SAMPLES_MAX, Sample, datagram, interface_datagram,
};

/// Blocks of 64 KiB of each ring: 4 MiB, some 20,000 samples.
const BLOCKS: usize = 64;

/// How long a sample may wait for others, milliseconds.
const LINGER_MS: u32 = 50;

/// How often the interface's counters are sent, and what was dropped is looked up.
const COUNTERS_EVERY: Duration = Duration::from_secs(10);

/// Octets of a frame beyond the interface's MTU: Ethernet header and two VLAN tags.
const OVER_MTU: u32 = 14 + 8;

/// Ethernet, of the kernel's numbers of hardware types.
const ETHERNET: &str = "1";

/// Sends one in N packets that come in by a mirror port to weir, as sFlow.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "weir-mirror", version)]
pub struct Cli {
    /// The interface that the switch mirrors to.
    pub interface: String,
    /// Where weir listens.
    #[arg(long, default_value = "127.0.0.1:6343", value_name = "ADDRESS:PORT")]
    pub to: SocketAddr,
    /// One in so many packets.
    #[arg(long, default_value = "1000", value_name = "N")]
    pub rate: NonZeroU32,
    /// Rings, each with a thread; one is enough for most.
    #[arg(long, default_value = "1", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
    /// The address that weir shows the port under; without it the one that it is sent from.
    #[arg(long, value_name = "ADDRESS")]
    pub agent: Option<IpAddr>,
}

/// What the workers share: one agent with one sequence and one pool.
#[derive(Debug)]
struct Agent {
    out: UdpSocket,
    address: IpAddr,
    rate: u32,
    started: Instant,
    counters: Mutex<Counters>,
    /// Packets that are longer than the interface takes: several that were put together.
    merged: AtomicU64,
}

impl Agent {
    fn new(cli: &Cli) -> anyhow::Result<Self> {
        let any: SocketAddr = if cli.to.is_ipv4() {
            SocketAddr::from(([0, 0, 0, 0], 0))
        } else {
            SocketAddr::from(([0u16; 8], 0))
        };
        let out = UdpSocket::bind(any)?;
        out.connect(cli.to).with_context(|| format!("cannot send to {}", cli.to))?;
        let address = match cli.agent {
            Some(address) => address,
            None => out.local_addr()?.ip(),
        };
        Ok(Self {
            out,
            address,
            rate: cli.rate.get(),
            started: Instant::now(),
            counters: Mutex::default(),
            merged: AtomicU64::new(0),
        })
    }

    fn uptime(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_millis() & 0xffff_ffff).unwrap_or(0)
    }

    fn send(&self, samples: &mut Vec<Sample>) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let out = datagram(self.address, self.uptime(), self.rate, samples, &mut counters);
        samples.clear();
        // UDP: what is lost is lost, and the next datagram's sequence number says so.
        let _ = self.out.send(&out);
    }

    fn send_counters(&self, sequence: u32, interface: &Interface) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let out =
            interface_datagram(self.address, self.uptime(), sequence, interface, &mut counters);
        let _ = self.out.send(&out);
    }

    fn dropped(&self, count: u64) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let count = u32::try_from(count & 0xffff_ffff).unwrap_or(0);
        counters.dropped = counters.dropped.wrapping_add(count);
    }
}

/// What the kernel says of an interface.
#[derive(Clone, Debug)]
struct Port {
    folder: PathBuf,
    name: String,
    index: u32,
    mtu: u32,
}

impl Port {
    fn of(root: &Path, name: &str) -> anyhow::Result<Self> {
        let folder = root.join("sys/class/net").join(name);
        let mut port = Self { folder, name: name.to_owned(), index: 0, mtu: 0 };
        let number = |file| port.text(file).and_then(|text| text.parse::<u32>().ok());
        let (index, mtu) = (number("ifindex"), number("mtu").unwrap_or(u32::MAX));
        let Some(index) = index.filter(|_| !name.contains('/')) else {
            bail!("there is no interface {name:?}");
        };
        if port.text("type").as_deref() != Some(ETHERNET) {
            bail!("{name} is no Ethernet interface");
        }
        (port.index, port.mtu) = (index, mtu);
        Ok(port)
    }

    fn text(&self, file: &str) -> Option<String> {
        Some(std::fs::read_to_string(self.folder.join(file)).ok()?.trim().to_owned())
    }

    fn counted(&self) -> Interface {
        let number = |file| self.text(file).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let packets = number("statistics/rx_packets") & 0xffff_ffff;
        Interface {
            index: self.index,
            name: self.name.clone(),
            // Megabits; none (or -1) of interfaces that have no speed.
            speed_bps: number("speed").saturating_mul(1_000_000),
            in_octets: number("statistics/rx_bytes"),
            in_packets: u32::try_from(packets).unwrap_or(0),
        }
    }
}

/// Samples until something fails.
///
/// # Errors
/// An interface that is not there or no Ethernet, an address that cannot be sent to, what the kernel says of the
/// rings (CAP_NET_RAW is needed).
pub fn run(cli: &Cli) -> anyhow::Result<Infallible> {
    let port = Arc::new(Port::of(Path::new("/"), &cli.interface)?);
    let agent = Arc::new(Agent::new(cli)?);
    // Several rings of one process are a group; the number only has to be no other process's.
    let group = u16::try_from(std::process::id() & 0xffff).unwrap_or(0);
    let group = (cli.workers > 1).then_some(group);
    let (failed, failure) = std::sync::mpsc::channel();
    for number in 0..cli.workers {
        let (agent, port, failed) = (Arc::clone(&agent), Arc::clone(&port), failed.clone());
        let work = move || {
            let Err(error) = Worker { agent: &agent, port: &port, first: number == 0 }.run(group);
            drop(failed.send(error));
        };
        std::thread::Builder::new().name(format!("ring/{number}")).spawn(work)?;
    }
    drop(failed);
    let (interface, rate, to) = (cli.interface.as_str(), cli.rate, cli.to);
    info!(interface, %rate, %to, workers = cli.workers, "sampling");
    // The process ends with its first worker: half of the packets would look like all of them.
    match failure.recv() {
        Ok(error) => Err(error.context(cli.interface.clone())),
        Err(_) => bail!("a worker is gone"),
    }
}

/// One ring.
#[derive(Debug)]
struct Worker<'a> {
    agent: &'a Agent,
    port: &'a Port,
    /// It sends the interface's counters.
    first: bool,
}

impl Worker<'_> {
    fn run(&self, group: Option<u16>) -> anyhow::Result<Infallible> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let program = filter(&[self.port.index], self.agent.rate);
            let mut ring = Ring::open(self.port.index, &program, BLOCKS, LINGER_MS)?;
            ring.promiscuous(self.port.index)?;
            if let Some(group) = group {
                ring.share(group)?;
            }
            let mut waiting = Vec::with_capacity(SAMPLES_MAX);
            let (mut due, mut sequence, mut dropped) = (Instant::now(), 0, 0);
            loop {
                let left = due.saturating_duration_since(Instant::now());
                let read = ring.next(|packet| self.take(packet, &mut waiting));
                if let Ok(read) = tokio::time::timeout(left, read).await {
                    read?;
                }
                if !waiting.is_empty() {
                    self.agent.send(&mut waiting);
                }
                if Instant::now() >= due {
                    due += COUNTERS_EVERY;
                    sequence += 1;
                    let now = ring.seen()?.dropped;
                    self.report(sequence, now - dropped);
                    dropped = now;
                }
            }
        })
    }

    fn take(&self, packet: Packet<'_>, waiting: &mut Vec<Sample>) {
        if packet.length > self.port.mtu.saturating_add(OVER_MTU) {
            self.agent.merged.fetch_add(1, Relaxed);
        }
        let header = packet.kept.get(..HEADER_MAX).unwrap_or(packet.kept).to_vec();
        waiting.push(Sample { input: self.port.index, header, frame_length: packet.length });
        if waiting.len() == SAMPLES_MAX {
            self.agent.send(waiting);
        }
    }

    /// Tells weir what the interface counted, and whoever reads the log what went wrong since the last time.
    fn report(&self, sequence: u32, dropped: u64) {
        if self.first {
            self.agent.send_counters(sequence, &self.port.counted());
        }
        let interface = self.port.name.as_str();
        if dropped > 0 {
            self.agent.dropped(dropped);
            warn!(interface, dropped, "samples had no room: more workers, or a higher rate");
        }
        let merged = self.agent.merged.swap(0, Relaxed);
        if merged > 0 {
            warn!(
                interface,
                merged,
                "the kernel puts packets together before they are counted: ethtool -K {interface} gro off lro off"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_what_the_kernel_says() {
        let root = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| {
            let path = root.path().join("sys/class/net/eth1").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let files = [("ifindex", "7\n"), ("mtu", "1500\n"), ("type", "1\n"), ("speed", "-1\n")];
        files.iter().for_each(|(file, text)| put(file, text));
        put("statistics/rx_bytes", "5000000001\n");
        put("statistics/rx_packets", "9\n");
        let port = Port::of(root.path(), "eth1").unwrap();
        assert_eq!((port.index, port.mtu), (7, 1500));
        let mut counted = port.counted();
        assert_eq!(
            (counted.speed_bps, counted.in_octets, counted.in_packets),
            (0, 5_000_000_001, 9)
        );
        put("speed", "10000\n");
        counted = port.counted();
        assert_eq!(counted.speed_bps, 10_000_000_000);
        put("type", "772\n");
        assert!(Port::of(root.path(), "eth1").is_err(), "loopback");
        assert!(Port::of(root.path(), "eth2").is_err(), "not there");
        assert!(Port::of(root.path(), "../net/eth1").is_err(), "no name");
    }
}

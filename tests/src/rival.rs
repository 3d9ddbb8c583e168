//! Another defender on a case: its datagrams in real time over loopback, in a namespace of the case's
//! own, to FastNetMon in one or more settings side by side.
//!
//! FastNetMon has fixed thresholds and learns nothing, so the time for learning is left out but for
//! its last seconds.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};
use weir::capture::{Capture, datagram};
use weir_model::Millis;
use weir_traffic::case::CaseWorld;
use weir_traffic::score::{Event, What};

use crate::bench::wait;
use crate::fastnetmon::{self, Folder, Setting};
use crate::lab::Lab;

/// Longest time that a case is played, seconds; what is later is left out.
pub const SECONDS_MAX: u64 = 900;

/// Exporters of a case that send from their own addresses; more of them send from one.
const EXPORTERS_MAX: usize = 64;

/// First port of the settings, for each kind of export: one more for each setting.
const SFLOW_PORT: u16 = 6343;
const NETFLOW_PORT: u16 = 2055;

/// How to play.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seconds of learning that are played.
    pub lead_secs: u64,
    /// Played until so many seconds after learning at most.
    pub seconds_max: u64,
    /// One in how many packets flow caches see, for exporters that do not say it.
    pub sampling: u32,
}

/// What came of one setting.
#[derive(Debug)]
pub struct Run {
    /// Its name.
    pub name: &'static str,
    /// What it said and did.
    pub events: Vec<Event>,
    /// Datagrams that the kernel dropped because it was slow.
    pub dropped: u64,
}

impl Run {
    /// Hosts that it banned, each time counted.
    pub fn bans(&self) -> usize {
        self.events.iter().filter(|e| matches!(e.what, What::Announce { .. })).count()
    }
}

/// What came of a case.
#[derive(Debug)]
pub struct Played {
    /// Each setting.
    pub runs: Vec<Run>,
    /// Datagrams sent to each.
    pub datagrams: u64,
    /// Longest time that a datagram was sent after it was due.
    pub late: Duration,
    /// Whether the case goes on after what was played.
    pub cut: bool,
}

/// Where the case's time stood on this machine's clock.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    case: Millis,
    nanos: u64,
}

impl Anchor {
    fn now(case: Millis) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { case, nanos: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) }
    }

    fn when(self, nanos: u64) -> Millis {
        self.case + nanos.saturating_sub(self.nanos) / 1_000_000
    }
}

/// Plays the case in `dir`, whose world is `world`, to every setting at once. `None`, with a skip of
/// this name, when not root or when FastNetMon is not installed.
///
/// # Errors
/// When the capture cannot be read or a socket does not open.
///
/// # Panics
/// When the namespace cannot be made or FastNetMon does not listen.
pub fn play(
    dir: &Path,
    world: &CaseWorld,
    settings: &[Setting],
    options: &Options,
) -> anyhow::Result<Option<Played>> {
    let Some(mut lab) = Lab::new(&world.name, &["fastnetmon"]) else {
        return Ok(None);
    };
    let mut folders = Vec::new();
    for (number, setting) in (0..).zip(settings) {
        let mut lines = setting.lines.clone();
        lines.extend([
            ("sflow", "on".to_owned()),
            ("netflow", "on".to_owned()),
            ("sflow_port", (SFLOW_PORT + number).to_string()),
            ("netflow_port", (NETFLOW_PORT + number).to_string()),
            ("netflow_sampling_ratio", options.sampling.to_string()),
        ]);
        let folder = Folder::new(&lab.path(setting.name), world.protected.iter(), &lines)?;
        let command = folder.command();
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        lab.spawn(setting.name, &words);
        folders.push(folder);
    }
    for number in 0..u16::try_from(settings.len())? {
        for port in [SFLOW_PORT + number, NETFLOW_PORT + number] {
            lab.wait_for("a socket", 60, |lab| drops(lab, port));
        }
    }
    let start = (world.epoch() + world.learning_seconds * 1000) - options.lead_secs * 1000;
    // What flow caches flush after the end, when everything stops at once, happens in no network.
    let whole = world.epoch() + world.seconds * 1000;
    let end = whole.min(world.epoch() + (world.learning_seconds + options.seconds_max) * 1000);
    let instances = settings.len();
    let sent = std::thread::scope(|scope| {
        let player = scope.spawn(|| send(&lab, dir, start, end, instances));
        player.join().expect("a panic of the player is a fault of the test")
    })?;
    // A notify script may still run.
    wait(Duration::from_millis(500));
    let runs = (0..)
        .zip(settings.iter().zip(&folders))
        .map(|(number, (setting, folder))| Run {
            name: setting.name,
            events: fastnetmon::events(&folder.notes(), |nanos| sent.anchor.when(nanos)),
            dropped: [SFLOW_PORT + number, NETFLOW_PORT + number]
                .iter()
                .filter_map(|port| drops(&lab, *port))
                .sum(),
        })
        .collect();
    Ok(Some(Played { runs, datagrams: sent.datagrams, late: sent.late, cut: end < whole }))
}

/// Datagrams dropped at a UDP port of the laboratory; none when nobody listens.
fn drops(lab: &Lab, port: u16) -> Option<u64> {
    let own = format!(":{port:04X}");
    let table = lab.ask(&["cat", "/proc/net/udp"]);
    let line =
        table.lines().find(|l| l.split_whitespace().nth(1).is_some_and(|a| a.ends_with(&own)));
    line?.split_whitespace().last()?.parse().ok()
}

struct Sent {
    anchor: Anchor,
    datagrams: u64,
    late: Duration,
}

/// Sends what lies between `start` and `end`, each datagram when it is due. The thread that calls
/// moves into the laboratory's namespace and has to end there.
fn send(
    lab: &Lab,
    dir: &Path,
    start: Millis,
    end: Millis,
    instances: usize,
) -> anyhow::Result<Sent> {
    let namespace = std::fs::File::open(Path::new("/run/netns").join(lab.namespace()))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("the laboratory's namespace")?;
    let mut capture = Capture::open(&dir.join("input.pcap"))?;
    let mut sockets = Sockets::default();
    let mut begun: Option<(Instant, Anchor)> = None;
    let (mut datagrams, mut late) = (0, Duration::ZERO);
    while let Some(frame) = capture.next_frame()? {
        if frame.at < start {
            continue;
        }
        if frame.at >= end {
            break;
        }
        let Some(found) = datagram(frame.link, &frame.data) else { continue };
        let Some(port) = port(found.payload) else { continue };
        let socket = sockets.of(found.from.ip())?;
        let (clock, anchor) = *begun.get_or_insert_with(|| (Instant::now(), Anchor::now(frame.at)));
        let due = clock + Duration::from_millis(frame.at.since(anchor.case));
        wait_until(due);
        late = late.max(due.elapsed());
        for number in 0..u16::try_from(instances)? {
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port + number));
            // Loopback drops when the receiver is slow, as a network would; that is counted there.
            let _ = socket.send_to(found.payload, to);
        }
        datagrams += 1;
    }
    let (_, anchor) = begun.context("no export datagrams in the part that is played")?;
    Ok(Sent { anchor, datagrams, late })
}

fn wait_until(due: Instant) {
    loop {
        let rest = due.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return;
        }
        wait(rest);
    }
}

/// The port for an export datagram, by its version; none for anything else.
fn port(payload: &[u8]) -> Option<u16> {
    match payload {
        [0, 0, 0, 5, ..] => Some(SFLOW_PORT),
        [0, 5 | 9 | 10, ..] => Some(NETFLOW_PORT),
        _ => None,
    }
}

/// One socket for each exporter, so that each has its own templates at the other end.
#[derive(Debug, Default)]
struct Sockets(BTreeMap<IpAddr, UdpSocket>);

impl Sockets {
    fn of(&mut self, exporter: IpAddr) -> io::Result<&UdpSocket> {
        let own = exporter.is_ipv4() && self.0.len() < EXPORTERS_MAX;
        let address = if own { exporter } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
        match self.0.entry(address) {
            std::collections::btree_map::Entry::Occupied(socket) => Ok(socket.into_mut()),
            std::collections::btree_map::Entry::Vacant(place) => {
                if !address.is_loopback() {
                    let net = format!("{address}/32");
                    Command::new("ip").args(["addr", "add", &net, "dev", "lo"]).status()?;
                }
                Ok(place.insert(UdpSocket::bind((address, 0))?))
            }
        }
    }
}

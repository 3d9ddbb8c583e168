//! An evening on a game hosting network, as its routers report it over loopback while it happens; an
//! attack begins and ends on request.

use std::io::{self, BufRead as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weir_model::Millis;
use weir_traffic::{Locals, Scene};

const HELP: &str = "\
play ADDRESS:PORT
Reads words from standard input, a line each, and answers each with a line:
  begin    the evening begins: border-1 sends from 127.0.0.11, border-2 from 127.0.0.12
  attack   NTP amplification, 1.2 Gbit/s, on 203.0.113.7, seen by border-3 at 127.0.0.13
  carpet   the same, spread over 203.0.113.0/24
  calm     the attack ends
The end of the input ends everything; so do ten minutes.";

/// Longest evening, seconds.
const SECONDS_MAX: f64 = 600.0;

/// Traffic that goes on until it is told to stop.
struct Play {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Sends a scene's datagrams when they are due, exporter `n` from 127.0.0.`first + n`.
fn play(scene: Scene, first: u8, to: SocketAddr) -> io::Result<Play> {
    let addresses = (first..).take(scene.exporters.len());
    let sockets = addresses
        .map(|last| UdpSocket::bind((IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0)))
        .collect::<io::Result<Vec<_>>>()?;
    let (stop, stopped) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let start = Instant::now();
        for datagram in scene.stream(now()) {
            let due = start + Duration::from_micros(datagram.at_us);
            let wait = due.saturating_duration_since(Instant::now());
            if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            if let Some(socket) = sockets.get(datagram.exporter) {
                // Loopback drops when the receiver is slow, as a network would.
                let _ = socket.send_to(&datagram.payload, to);
            }
        }
    });
    Ok(Play { stop, thread })
}

impl Play {
    fn end(self) {
        // It may have ended already.
        let _ = self.stop.send(());
        // A thread that panicked has said so on standard error.
        let _ = self.thread.join();
    }
}

/// The evening without an attack.
fn evening() -> Scene {
    let mut scene = Scene::evening(1, SECONDS_MAX, 0.0, SECONDS_MAX);
    scene.sources.pop();
    scene
}

/// The attack alone, as a third router sees it.
fn attack() -> Scene {
    let mut scene = Scene::evening(2, 0.0, SECONDS_MAX, SECONDS_MAX);
    let last = scene.sources.len().saturating_sub(1);
    scene.sources.drain(..last);
    scene.exporters.truncate(1);
    scene
}

/// The same spread over a whole prefix: next to nothing for any one host of it.
fn carpet() -> Scene {
    let mut scene = attack();
    if let Ok(net) = "203.0.113.0/24".parse() {
        for source in &mut scene.sources {
            source.locals = Locals::Net(net);
        }
    }
    scene
}

fn main() -> io::Result<()> {
    let Some(Ok(to)) = std::env::args().nth(1).map(|word| word.parse::<SocketAddr>()) else {
        return writeln!(io::stderr(), "{HELP}");
    };
    if !to.ip().is_loopback() {
        return writeln!(io::stderr(), "{to} is not loopback");
    }
    let (mut background, mut flood) = (None, None);
    for line in io::stdin().lock().lines() {
        match line?.trim() {
            "begin" => background = Some(play(evening(), 11, to)?),
            "attack" => flood = Some(play(attack(), 13, to)?),
            "carpet" => flood = Some(play(carpet(), 13, to)?),
            "calm" => {
                if let Some(flood) = flood.take() {
                    flood.end();
                }
            }
            word => writeln!(io::stderr(), "{word:?}?")?,
        }
        writeln!(io::stdout(), "{}", now().0)?;
    }
    for part in [background, flood].into_iter().flatten() {
        part.end();
    }
    Ok(())
}

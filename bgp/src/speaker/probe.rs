//! A test of a peer by hand: a connection, both OPENs, and a Cease. weir sends no KEEPALIVE, so the session
//! never comes up and no route can go either way.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use weir_model::{PeerProbe, ProbeOpen, ProbeStage};

use super::listener;
use crate::config::{Config, PeerConfig};
use crate::wire::{Families, Framer, Message, Notification, Open, OpenSettings, cease, codes};

/// Longest wait for the TCP connection.
const CONNECT: Duration = Duration::from_secs(6);

/// Longest wait for both OPENs to be read and answered.
const ANSWER: Duration = Duration::from_secs(10);

/// How long the peer may take to read the last words.
const FAREWELL: Duration = Duration::from_millis(500);

/// Longest test: within the patience of whoever waits for it.
pub const PROBE_MAX: Duration = CONNECT.saturating_add(ANSWER).saturating_add(FAREWELL);

/// How a conversation ended.
enum End {
    /// The peer sent a KEEPALIVE: it has accepted weir's OPEN (RFC 4271 §8.2.2).
    Accepted,
    /// The peer says why not.
    Refused(Notification),
    /// The peer sent what cannot be followed.
    Malformed(Notification),
    /// The peer hung up.
    Closed,
    /// The connection broke.
    Broken(io::Error),
    /// Nothing more came.
    Silence,
}

/// Tests a configured peer whose session is not up. Connects, says OPEN, listens, and leaves with a Cease.
/// A peer that dials by itself is not dialled.
pub async fn probe(config: &Config, peer: &PeerConfig) -> PeerProbe {
    let mut probe = blank(peer);
    if peer.passive {
        probe.findings.push(format!(
            "this peer is to dial (passive): weir waits for {} at {}",
            peer.address,
            config.listen.map_or_else(|| "no address".to_owned(), |listen| listen.to_string()),
        ));
        return probe;
    }
    probe.stage = ProbeStage::Unreachable;
    let mut dialled = config.clone();
    dialled.peers = vec![peer.clone()];
    if let Err(error) = listener::read_passwords(&mut dialled) {
        probe.findings.push(error.to_string());
        return probe;
    }
    let begun = Instant::now();
    let stream = match timeout(CONNECT, listener::dial(dialled.peers.remove(0))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            probe.findings.push(unreachable(peer, &error));
            return probe;
        }
        Err(_) => {
            probe.findings.push(unanswered(peer));
            return probe;
        }
    };
    probe.connect_ms = u64::try_from(begun.elapsed().as_millis()).ok();
    probe.from = stream.local_addr().ok().map(|local| local.ip());
    probe.stage = ProbeStage::Connected;
    converse(config, peer, stream, &mut probe).await;
    probe
}

/// A report in which nothing was tried yet.
pub fn blank(peer: &PeerConfig) -> PeerProbe {
    PeerProbe {
        name: peer.name.clone(),
        to: SocketAddr::new(peer.address, peer.port),
        from: None,
        stage: ProbeStage::NotTried,
        good: false,
        connect_ms: None,
        open: None,
        families: Vec::new(),
        missing: Vec::new(),
        findings: Vec::new(),
    }
}

async fn converse(
    config: &Config,
    peer: &PeerConfig,
    mut stream: TcpStream,
    probe: &mut PeerProbe,
) {
    let own = own_open(config, peer);
    let octets = match own.write() {
        Ok(octets) => octets,
        Err(error) => return probe.findings.push(format!("weir's OPEN: {error}")),
    };
    let mut open = None;
    let end = match stream.write_all(&octets).await {
        Ok(()) => listen(&mut stream, &mut open).await,
        Err(error) => End::Broken(error),
    };
    // Refused or closed: nobody is left to take leave of.
    if matches!(end, End::Accepted | End::Silence | End::Malformed(_)) {
        let last = match &end {
            End::Malformed(answer) => answer.clone(),
            _ => Notification::shutdown("weir tested this peer"),
        };
        let farewell = async {
            stream.write_all(&last.write()).await?;
            stream.shutdown().await?;
            // Unread octets would reset the connection, and the last words would be lost.
            let mut sink = [0; 1024];
            while stream.read(&mut sink).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
    if let Some(open) = &open {
        probe.stage = ProbeStage::OpenReceived;
        introduced(peer, &own, open, probe);
    }
    ended(peer, &own, &end, probe);
}

/// What weir says in a session, less graceful restart: a test must not touch what the peer keeps.
fn own_open(config: &Config, peer: &PeerConfig) -> OpenSettings {
    OpenSettings {
        asn: peer.local_as.unwrap_or(config.local_as),
        hold_secs: peer.hold_time_secs,
        id: config.router_id,
        families: peer.families.iter().copied().collect(),
        restart_secs: None,
        restarting: false,
        long_lived_secs: None,
    }
}

async fn listen(stream: &mut TcpStream, open: &mut Option<Open>) -> End {
    let deadline = Instant::now() + ANSWER;
    let mut framer = Framer::default();
    let mut octets = [0; 4096];
    loop {
        loop {
            match framer.next_message() {
                Ok(None) => break,
                Ok(Some(Message::Open(said))) => *open = Some(said),
                Ok(Some(Message::Notification(why))) => return End::Refused(why),
                Ok(Some(Message::Keepalive)) if open.is_some() => return End::Accepted,
                Ok(Some(_)) => return End::Malformed(Notification::new(codes::FSM, 0)),
                Err(answer) => return End::Malformed(answer),
            }
        }
        match timeout_at(deadline, stream.read(&mut octets)).await {
            Err(_) => return End::Silence,
            Ok(Ok(0)) => return End::Closed,
            Ok(Ok(n)) => framer.push(&octets[..n]),
            Ok(Err(error)) => return End::Broken(error),
        }
    }
}

/// What the peer's OPEN means for this configuration.
fn introduced(peer: &PeerConfig, own: &OpenSettings, open: &Open, probe: &mut PeerProbe) {
    let names = |families: Families| families.iter().map(|f| f.id().to_owned()).collect::<Vec<_>>();
    probe.families = names(own.families.and(open.families));
    probe.missing = names(own.families.iter().filter(|f| !open.families.contains(*f)).collect());
    if open.asn != peer.remote_as {
        probe.findings.push(format!(
            "it says that it is AS{}, the configuration says remote_as = {}",
            open.asn, peer.remote_as
        ));
    }
    if open.asn == own.asn && open.id == own.id {
        probe.findings.push(format!(
            "it has weir's own BGP identifier {}: bgp.router_id must be unique in the AS",
            open.id
        ));
    }
    if probe.families.is_empty() {
        probe.findings.push(
            "there is no family that both sides speak: the session would carry nothing".into(),
        );
    } else if !probe.missing.is_empty() {
        probe.findings.push(format!(
            "it does not offer {}: what needs it does not reach this peer; switch it on there for this neighbour, \
             or take it out of bgp.peer.families",
            probe.missing.join(", ")
        ));
    }
    probe.open = Some(ProbeOpen {
        asn: open.asn,
        id: open.id,
        hold_secs: open.hold_secs,
        families: names(open.families),
        route_refresh: open.route_refresh,
        four_octet_as: open.as4,
        graceful_restart: open.graceful_restart.is_some(),
    });
}

fn ended(peer: &PeerConfig, own: &OpenSettings, end: &End, probe: &mut PeerProbe) {
    let from = probe.from.map_or_else(|| "weir's address".to_owned(), |from| from.to_string());
    let neighbour = format!("a neighbour {from} with remote AS {}", own.asn);
    match end {
        End::Accepted => {
            probe.good = probe.findings.is_empty();
            // Another AS than configured is refused by weir, whatever the peer thinks of it.
            if probe.open.as_ref().is_some_and(|open| open.asn == peer.remote_as) {
                probe.stage = ProbeStage::Accepted;
                let families = probe.families.join(", ");
                let said = format!("it accepts weir's OPEN; a session would carry {families}");
                probe.findings.insert(0, said);
            }
        }
        End::Refused(why) => {
            probe.findings.push(format!("it refuses: {why}{}", hint(why, &neighbour)))
        }
        End::Malformed(why) => probe.findings.push(format!(
            "it answers something that is not BGP as weir reads it ({why}): is this the right port?"
        )),
        End::Closed | End::Broken(_) if probe.open.is_none() => {
            let how = match end {
                End::Broken(error) => format!("the connection broke ({error})"),
                _ => "it hung up without a word".to_owned(),
            };
            probe.findings.push(format!(
                "{how}: most likely it has not {neighbour}, or it waits after an \
                 earlier attempt: try again in a minute"
            ));
        }
        End::Closed => probe.findings.push("it hung up after its OPEN".into()),
        End::Broken(error) => {
            probe.findings.push(format!("the connection broke after its OPEN: {error}"))
        }
        End::Silence if probe.open.is_none() => {
            probe.findings.push("it takes the connection and says nothing: no BGP speaker listens there, or it is busy".into());
        }
        End::Silence => probe.findings.push("it did not answer weir's OPEN".into()),
    }
}

/// What to look at, by what the peer complains about.
fn hint(why: &Notification, neighbour: &str) -> String {
    match (why.code, why.subcode) {
        (codes::OPEN, 2) => format!("; it needs {neighbour}"),
        (codes::OPEN, 3) => "; bgp.router_id is not to its liking: it must be unique".to_owned(),
        (codes::OPEN, 6) => "; hold_time_secs is too short for it".to_owned(),
        (codes::OPEN, 7) => "; it wants a capability that weir has not, or families that do not meet".to_owned(),
        (codes::CEASE, cease::COLLISION) => {
            "; another connection to it is being made just now, weir's own perhaps: look at the session".to_owned()
        }
        (codes::CEASE, 2) => "; somebody has shut this session down on the peer".to_owned(),
        (codes::CEASE, 3 | 5) => format!("; most likely it has not {neighbour}"),
        _ => String::new(),
    }
}

fn unanswered(peer: &PeerConfig) -> String {
    let key = if peer.password.is_some() || peer.password_file.is_some() {
        "another TCP MD5 password there"
    } else {
        "a TCP MD5 password there"
    };
    let ttl = if peer.ttl_security { ", ttl_security with a router in between" } else { "" };
    format!(
        "no answer from {} port {} within {} s: a packet filter, no route, {key}{ttl}",
        peer.address,
        peer.port,
        CONNECT.as_secs()
    )
}

fn unreachable(peer: &PeerConfig, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!(
            "{} refuses connections to port {}: BGP does not run there, or does not listen on this address",
            peer.address, peer.port
        ),
        io::ErrorKind::TimedOut => unanswered(peer),
        io::ErrorKind::AddrNotAvailable => format!(
            "local_address {} is no address of this machine",
            peer.local_address.map_or_else(String::new, |local| local.to_string())
        ),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!("there is no way to {}: {error}", peer.address)
        }
        _ => format!("no connection to {} port {}: {error}", peer.address, peer.port),
    }
}

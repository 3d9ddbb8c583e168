//! FRRouting through `vtysh`: black-hole routes as `network` statements with weir's route maps.
//!
//! FRR cannot originate FlowSpec; for that weir speaks BGP to it. The route maps `WEIR-RTBH4` and
//! `WEIR-RTBH6`, which set communities and next hop, are the operator's to define: they are
//! weir's mark too. `no-export` in them would keep the routes from eBGP peers.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use weir_model::IpNet;

use super::{AdapterConfig, AdapterError, PATIENCE, Refused, TAKEN, Wanted};
use crate::rib::RouteKey;

const MAP4: &str = "WEIR-RTBH4";
const MAP6: &str = "WEIR-RTBH6";

/// Lines in one call of `vtysh`, three for each change: the length of a command line has a limit.
const CHANGES_MAX: usize = 3 * 200;

/// Longest answer that is read, octets.
const ANSWER_MAX: u64 = 64 * 1024 * 1024;

/// Brings FRR to what is wanted.
pub(super) async fn converge(
    config: &AdapterConfig,
    wanted: &Wanted,
) -> Result<Refused, AdapterError> {
    let mut wanted: BTreeSet<IpNet> = wanted
        .keys()
        .filter_map(|key| match key {
            RouteKey::Unicast(net) => Some(*net),
            RouteKey::Flow(..) => None,
        })
        .collect();
    let running = vtysh(config, vec!["show running-config".to_owned()]).await?;
    let (present, operators) = (read(&running), others(&running));
    let refused = wanted
        .intersection(&operators)
        .map(|net| (RouteKey::Unicast(*net), TAKEN.to_owned()))
        .collect();
    wanted.retain(|net| !operators.contains(net));
    let mut commands = changes(&wanted, &present);
    while !commands.is_empty() {
        let rest = commands.split_off(commands.len().min(CHANGES_MAX));
        let mut all =
            vec!["configure terminal".to_owned(), format!("router bgp {}", config.local_as)];
        all.append(&mut commands);
        let said = vtysh(config, all).await?;
        if let Some(line) = said.lines().find(|l| l.starts_with('%')) {
            return Err(AdapterError::Refused(line.to_owned()));
        }
        commands = rest;
    }
    Ok(refused)
}

/// weir's own networks in a running configuration.
pub fn read(running: &str) -> BTreeSet<IpNet> {
    networks(running).filter(|(_, own)| *own).map(|(net, _)| net).collect()
}

/// The operator's networks: a `network` statement of weir's would take the place of theirs.
pub(super) fn others(running: &str) -> BTreeSet<IpNet> {
    networks(running).filter(|(_, own)| !own).map(|(net, _)| net).collect()
}

fn networks(running: &str) -> impl Iterator<Item = (IpNet, bool)> {
    running.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["network", net, ref rest @ ..] => {
                Some((net.parse().ok()?, matches!(rest, ["route-map", MAP4 | MAP6])))
            }
            _ => None,
        }
    })
}

/// Commands inside `router bgp`, the family before each; announcements first.
pub fn changes(wanted: &BTreeSet<IpNet>, present: &BTreeSet<IpNet>) -> Vec<String> {
    let line = |prefix: &str, net: &IpNet| {
        let (family, map) = match net {
            IpNet::V4(_) => ("ipv4", MAP4),
            IpNet::V6(_) => ("ipv6", MAP6),
        };
        [
            format!("address-family {family} unicast"),
            format!("{prefix}network {net} route-map {map}"),
            "exit-address-family".to_owned(),
        ]
    };
    let announce = wanted.difference(present).flat_map(|net| line("", net));
    let withdraw = present.difference(wanted).flat_map(|net| line("no ", net));
    announce.chain(withdraw).collect()
}

async fn vtysh(config: &AdapterConfig, commands: Vec<String>) -> Result<String, AdapterError> {
    let directory = config.control();
    let answer = spawn_blocking(move || {
        let mut command = Command::new("vtysh");
        command.arg("--vty_socket").arg(directory).args(["-d", "bgpd"]);
        for line in &commands {
            command.arg("-c").arg(line);
        }
        run(&mut command)
    });
    answer.await.map_err(|_| AdapterError::Timeout)?
}

/// Runs a program and returns what it prints; ends it when it takes too long.
fn run(command: &mut Command) -> Result<String, AdapterError> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let Some(stdout) = child.stdout.take() else {
        return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
    };
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.take(ANSWER_MAX).read_to_end(&mut text);
        // The other side may have given up waiting.
        let _ = sender.send(read.map(|_| String::from_utf8_lossy(&text).into_owned()));
    });
    let answer = receiver.recv_timeout(PATIENCE.saturating_sub(Duration::from_secs(1)));
    if answer.is_err() {
        // Its pipe closes with it, which ends the reader.
        child.kill()?;
    }
    let status = child.wait()?;
    let _ = reader.join();
    let text = answer.map_err(|_| AdapterError::Timeout)??;
    if status.success() { Ok(text) } else { Err(AdapterError::Refused(text.trim().to_owned())) }
}

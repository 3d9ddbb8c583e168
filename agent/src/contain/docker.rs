//! Docker's API over its local socket: which game servers run here, and word when that changes.
//!
//! Read only, and optional: whoever may use the socket is root in all but name, so the agent does without it
//! unless the configuration names it. Answers are bounded; a daemon that is away is asked again later.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::handshake;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tracing::debug;

use super::{CONTAINERS_MAX, Container, Port};

/// Label that Wings gives to every game server's container.
const LABEL: &str = "ContainerType%3Dserver_process";

/// Largest answer.
const ANSWER_MAX: usize = 8 << 20;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// After an event more follow: networks come a moment after the start.
const SETTLE: Duration = Duration::from_millis(150);

/// Shortest and longest wait for a daemon that is away.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Tells of the containers now and whenever they change, for ever.
pub async fn watch(socket: PathBuf, tell: mpsc::Sender<Vec<Container>>) {
    let mut wait = RETRY.0;
    loop {
        match follow(&socket, &tell, &mut wait).await {
            Ok(()) => debug!("docker's events have ended"),
            Err(error) => debug!(%error, "docker"),
        }
        if tell.is_closed() {
            return;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

async fn follow(
    socket: &Path,
    tell: &mpsc::Sender<Vec<Container>>,
    wait: &mut Duration,
) -> io::Result<()> {
    // Before the list, so that nothing falls between.
    let filter =
        format!("%7B%22type%22%3A%5B%22container%22%5D%2C%22label%22%3A%5B%22{LABEL}%22%5D%7D");
    let mut events = get(socket, &format!("/events?filters={filter}")).await?.into_body();
    let mut known = BTreeMap::new();
    loop {
        let list = containers(socket, &mut known).await?;
        *wait = RETRY.0;
        if tell.send(list).await.is_err() {
            return Ok(());
        }
        // What an event says is not looked at: the list is the truth.
        if events.frame().await.transpose().map_err(io::Error::other)?.is_none() {
            return Ok(());
        }
        let settled = tokio::time::sleep(SETTLE);
        tokio::pin!(settled);
        loop {
            tokio::select! {
                () = &mut settled => break,
                frame = events.frame() => {
                    if frame.transpose().map_err(io::Error::other)?.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// The containers of game servers; `known` holds what is asked for once in a container's life.
async fn containers(
    socket: &Path,
    known: &mut BTreeMap<String, Option<u32>>,
) -> io::Result<Vec<Container>> {
    let filter = format!("%7B%22label%22%3A%5B%22{LABEL}%22%5D%7D");
    let text = body(get(socket, &format!("/containers/json?filters={filter}")).await?).await?;
    let mut list = read(&text)?;
    known.retain(|id, _| list.iter().any(|c| c.id == *id));
    for container in &mut list {
        container.veth = match known.get(&container.id) {
            Some(veth) => *veth,
            None => {
                let plain = container.id.chars().all(|c| c.is_ascii_alphanumeric());
                let path = format!("/containers/{}/json", container.id);
                let veth = match plain {
                    true => body(get(socket, &path).await?).await.ok().and_then(|text| veth(&text)),
                    false => None,
                };
                known.insert(container.id.clone(), veth);
                veth
            }
        };
    }
    Ok(list)
}

async fn get(socket: &Path, path: &str) -> io::Result<Response<Incoming>> {
    let work = async {
        let stream = UnixStream::connect(socket).await?;
        let (mut sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Ends with the body.
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "docker").body(Empty::<Bytes>::new());
        let request = request.map_err(io::Error::other)?;
        sender.send_request(request).await.map_err(io::Error::other)
    };
    let response = tokio::time::timeout(PATIENCE, work).await??;
    if response.status() == StatusCode::OK {
        return Ok(response);
    }
    Err(io::Error::other(format!("{path}: {}", response.status())))
}

async fn body(response: Response<Incoming>) -> io::Result<Bytes> {
    let collected = Limited::new(response.into_body(), ANSWER_MAX).collect();
    let collected = tokio::time::timeout(PATIENCE, collected).await?;
    Ok(collected.map_err(io::Error::other)?.to_bytes())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    ports: Vec<ListedPort>,
    #[serde(default)]
    network_settings: Networks,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedPort {
    #[serde(rename = "IP")]
    ip: Option<IpAddr>,
    public_port: Option<u16>,
    #[serde(rename = "Type")]
    kind: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Networks {
    #[serde(default)]
    networks: BTreeMap<String, Network>,
}

#[derive(Deserialize)]
struct Network {
    #[serde(default, rename = "IPAddress")]
    v4: String,
    #[serde(default, rename = "GlobalIPv6Address")]
    v6: String,
}

/// The answer to `/containers/json`.
fn read(text: &[u8]) -> io::Result<Vec<Container>> {
    let listed: Vec<Listed> = serde_json::from_slice(text)?;
    let container = |l: Listed| {
        let ports = l.ports.iter().filter_map(|p| {
            let protocol = match p.kind.as_str() {
                "tcp" => 6,
                "udp" => 17,
                _ => return None,
            };
            Some(Port { address: p.ip?, protocol, port: p.public_port? })
        });
        let mut ports: Vec<Port> = ports.take(512).collect();
        ports.sort_unstable();
        let networks = l.network_settings.networks.values();
        let addresses = networks.flat_map(|n| [&n.v4, &n.v6]).filter_map(|a| a.parse().ok());
        let mut addresses: Vec<IpAddr> = addresses.take(16).collect();
        addresses.sort_unstable();
        let name = l.names.first().map(|n| n.trim_start_matches('/'));
        let server: String = name.unwrap_or(&l.id).chars().take(64).collect();
        Container { id: l.id, server, ports, addresses, veth: None }
    };
    let mut list: Vec<Container> = listed.into_iter().take(CONTAINERS_MAX).map(container).collect();
    list.sort_by(|a, b| a.server.cmp(&b.server));
    Ok(list)
}

/// The host's end of a container's link, from its process: needs the right to look into it.
fn veth(inspected: &[u8]) -> Option<u32> {
    let value: serde_json::Value = serde_json::from_slice(inspected).ok()?;
    let process = value["State"]["Pid"].as_u64().filter(|p| *p > 0)?;
    let path = format!("/proc/{process}/root/sys/class/net/eth0/iflink");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As dockerd 20.10 answers for a container made the way Wings does.
    const LIST: &str = r#"[{"Id":"8f0c","Names":["/6a1f0c4e-7a51-4d3e-9d3a-0a6f3f2b9c11"],"Image":"x",
      "ImageID":"sha256:1","Command":"sh","Created":1795160758,
      "Ports":[{"IP":"198.51.100.2","PrivatePort":27015,"PublicPort":27015,"Type":"udp"},
               {"IP":"198.51.100.2","PrivatePort":27015,"PublicPort":27015,"Type":"tcp"},
               {"PrivatePort":8080,"Type":"tcp"}],
      "Labels":{"ContainerType":"server_process","Service":"Pterodactyl"},"State":"running","Status":"Up",
      "HostConfig":{"NetworkMode":"pterodactyl_nw"},
      "NetworkSettings":{"Networks":{"pterodactyl_nw":{"IPAMConfig":null,"NetworkID":"1",
        "Gateway":"172.18.0.1","IPAddress":"172.18.0.2","IPPrefixLen":16,"IPv6Gateway":"",
        "GlobalIPv6Address":"fd00:2::2","GlobalIPv6PrefixLen":64,"MacAddress":"02:42:ac:12:00:02"}}},
      "Mounts":[]}]"#;

    #[test]
    fn a_container_is_its_server_ports_and_addresses() {
        let list = read(LIST.as_bytes()).unwrap();
        let port =
            |protocol| Port { address: "198.51.100.2".parse().unwrap(), protocol, port: 27015 };
        assert_eq!(
            list,
            [Container {
                id: "8f0c".into(),
                server: "6a1f0c4e-7a51-4d3e-9d3a-0a6f3f2b9c11".into(),
                ports: vec![port(6), port(17)],
                addresses: vec!["172.18.0.2".parse().unwrap(), "fd00:2::2".parse().unwrap()],
                veth: None,
            }]
        );
        assert!(read(b"{}").is_err());
    }
}

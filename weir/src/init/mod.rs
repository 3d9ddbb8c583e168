//! `weir init`: six questions, or flags, and a commented configuration that `weir check` accepts.

mod ask;
mod text;

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::fs::{OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use weir_model::IpNet;

use crate::cli::say;

/// The configuration that packages install: nothing in it is an operator's, so it may be replaced.
const SHIPPED: &str = include_str!("../../../packaging/weir.toml");

/// The group of the service, which reads the configuration.
const GROUP: &str = "weir";

/// Flags of `weir init`; each that is absent is asked for on a terminal.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// File to write
    #[arg(long, default_value = "/etc/weir/weir.toml")]
    config: PathBuf,
    /// Prefixes to protect
    #[arg(long, value_delimiter = ',', value_name = "PREFIX,...")]
    prefixes: Vec<IpNet>,
    /// Exporters that may send flow data
    #[arg(long, value_delimiter = ',', value_name = "[NAME=]ADDRESS,...")]
    exporters: Option<Vec<Exporter>>,
    /// Router to announce to: its address, its AS, and weir's own AS if that differs
    #[arg(long, value_name = "ADDRESS,AS[,OWN-AS]")]
    peer: Option<Peer>,
    /// weir's BGP identifier [default: this machine's IPv4 address towards the peer]
    #[arg(long, value_name = "ADDRESS")]
    router_id: Option<Ipv4Addr>,
    /// What weir may do by itself
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Name of the first account
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// Where the dashboard listens: local (127.0.0.1 only), self-signed (every address, weir's own
    /// certificate), or CERT,KEY (every address, your certificate in PEM files)
    #[arg(long, value_name = "local|self-signed|CERT,KEY")]
    tls: Option<Tls>,
    /// Replace a configuration that exists; the old one is kept as FILE.bak
    #[arg(long)]
    force: bool,
}

/// A sender of flow data.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exporter {
    name: Option<String>,
    address: IpAddr,
}

impl FromStr for Exporter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = match text.split_once('=') {
            Some((name, address)) => (Some(plain(name)?), address),
            None => (None, text),
        };
        let address = address.trim().parse();
        Ok(Self { name, address: address.map_err(|_| "use ADDRESS or NAME=ADDRESS".to_owned())? })
    }
}

/// The first BGP peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer {
    address: IpAddr,
    remote_as: u32,
    local_as: u32,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "use ADDRESS,AS or ADDRESS,AS,OWN-AS, such as 192.0.2.1,65010".to_owned();
        let mut words = text.split([',', ' ']).filter(|word| !word.is_empty());
        let address = words.next().and_then(|word| word.parse().ok()).ok_or_else(wrong)?;
        let number = |word: &str| word.trim_start_matches("AS").parse().map_err(|_| wrong());
        let remote_as = number(words.next().ok_or_else(wrong)?)?;
        let local_as = words.next().map_or(Ok(remote_as), number)?;
        if words.next().is_some() {
            return Err(wrong());
        }
        Ok(Self { address, remote_as, local_as })
    }
}

/// What weir may do by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// Detect and report; announce nothing
    #[default]
    Observe,
    /// Propose mitigations; announce those that a person approves
    Approve,
    /// Announce mitigations within the limits of the configuration
    Auto,
}

impl Mode {
    const fn id(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Approve => "approve",
            Self::Auto => "auto",
        }
    }
}

/// Who reaches the dashboard, and over what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Tls {
    #[default]
    Local,
    SelfSigned,
    Files {
        cert: String,
        key: String,
    },
}

impl FromStr for Tls {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.split_once(',')) {
            ("local", _) => Ok(Self::Local),
            ("self-signed", _) => Ok(Self::SelfSigned),
            (_, Some((cert, key))) => Ok(Self::Files { cert: plain(cert)?, key: plain(key)? }),
            _ => Err("use local, self-signed or CERT,KEY".to_owned()),
        }
    }
}

/// What a file is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answers {
    prefixes: Vec<IpNet>,
    exporters: Vec<Exporter>,
    peer: Option<(Peer, Ipv4Addr)>,
    mode: Mode,
    owner: String,
    tls: Tls,
}

/// A text that can stand between quotation marks as it is.
fn plain(text: &str) -> Result<String, String> {
    let text = text.trim();
    let odd = |c: char| c.is_control() || matches!(c, '"' | '\\');
    if text.is_empty() || text.contains(odd) {
        return Err(format!("{text:?} is empty or has quotation marks"));
    }
    Ok(text.to_owned())
}

/// Asks what the flags leave open, writes the file, and says what comes next.
///
/// # Errors
/// When the file exists, an answer is missing where nobody can be asked, or `weir check` would refuse the file.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let path = &options.config;
    // Before the first question: answers given in vain annoy.
    ensure!(
        options.force || replaceable(path),
        "{} exists: --force replaces it and keeps it as {}",
        path.display(),
        backup(path).display()
    );
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let answers = if terminal {
        ask::ask(options, &mut std::io::stdin().lock(), &mut std::io::stderr())?
    } else {
        ensure!(!options.prefixes.is_empty(), "no terminal to ask on: give at least --prefixes");
        from_flags(options)?
    };
    let file = text::configuration(&answers);
    let (config, warnings) =
        weir_config::parse(&file).context("these answers do not go together")?;
    drop(config);
    write(path, &file)?;
    say(&format!("wrote {}", path.display()))?;
    for warning in warnings {
        say(&format!("warning: {warning}"))?;
    }
    say(&text::next_steps(path, &answers))?;
    Ok(ExitCode::SUCCESS)
}

fn from_flags(options: &Options) -> anyhow::Result<Answers> {
    Ok(Answers {
        prefixes: options.prefixes.clone(),
        exporters: options.exporters.clone().unwrap_or_default(),
        peer: options.peer.map(|peer| with_identifier(peer, options.router_id)).transpose()?,
        mode: options.mode.unwrap_or_default(),
        owner: options.owner.clone().unwrap_or_else(|| "admin".to_owned()),
        tls: options.tls.clone().unwrap_or_default(),
    })
}

/// The identifier that was given, else the address that this machine would use towards the peer.
fn with_identifier(peer: Peer, given: Option<Ipv4Addr>) -> anyhow::Result<(Peer, Ipv4Addr)> {
    if let Some(id) = given {
        return Ok((peer, id));
    }
    // Connecting a UDP socket asks the routing table and sends nothing.
    let own = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect((peer.address, 179)).map(|()| socket))
        .and_then(|socket| socket.local_addr());
    match own.map(|own| own.ip()) {
        Ok(IpAddr::V4(own)) => Ok((peer, own)),
        _ => bail!(
            "no IPv4 address of this machine leads to {}: give one with --router-id",
            peer.address
        ),
    }
}

fn replaceable(path: &Path) -> bool {
    match fs::read_to_string(path) {
        Ok(text) => text == SHIPPED,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn backup(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".bak");
    name.into()
}

/// Puts the file in place in one step, readable by root and the service alone.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let shown = path.display();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let put = || -> anyhow::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o640)
            .open(&new)?;
        if nix::unistd::geteuid().is_root()
            && let Some(group) = nix::unistd::Group::from_name(GROUP)?
        {
            fchown(&file, None, Some(group.gid.as_raw()))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if path.exists() {
            fs::copy(path, backup(path))?;
        }
        Ok(fs::rename(&new, path)?)
    };
    put().with_context(|| format!("cannot write {shown}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn answers_are_read_as_people_write_them() {
        let peer = |text: &str| text.parse::<Peer>().map(|p| (p.remote_as, p.local_as));
        assert_eq!(peer("192.0.2.1,65010"), Ok((65010, 65010)));
        assert_eq!(peer("192.0.2.1 AS65020 AS65010"), Ok((65020, 65010)));
        assert!(peer("192.0.2.1").is_err() && peer("edge1,65010").is_err());
        let exporter = "edge1=192.0.2.1".parse::<Exporter>().unwrap();
        assert_eq!(exporter.name.as_deref(), Some("edge1"));
        assert!("a\"b=192.0.2.1".parse::<Exporter>().is_err(), "it would end the string");
        assert!("router".parse::<Exporter>().is_err());
        assert_eq!("self-signed".parse(), Ok(Tls::SelfSigned));
        assert!("yes".parse::<Tls>().is_err());
    }
}

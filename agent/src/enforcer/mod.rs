//! What puts rules in force on this host.
//!
//! One [`Program`] describes everything wanted; a backend compares it with what is there and converges in one
//! step. A backend refuses a rule that it cannot express exactly and says why: never an approximation.

pub mod iptables;
pub mod nft;
pub mod route;
pub mod shaper;

use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use weir_model::{IpNet, Millis};

use crate::netlink::Change;
use crate::protocol::Service;
use crate::rules::Rule;

/// Where programs are looked for, whatever the environment says.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";

/// Most addresses in the management set.
pub const MANAGEMENT_MAX: usize = 1024;

/// Most blocked sources.
pub const BLOCKED_MAX: usize = 200_000;

/// A source that is kept out of this host, whatever it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blocked {
    /// The address or prefix.
    pub source: IpNet,
    /// Until when, on this host's clock.
    pub until: Millis,
}

/// Everything that is to be in force, on this host's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Snapshot it comes from: epoch and version, for comments and reports.
    pub version: (u64, u64),
    /// Rules, checked and in order. Their `expires` is on this host's clock.
    pub rules: Vec<Rule>,
    /// Until when leased rules hold unless renewed.
    pub lease_until: Millis,
    /// Sources that no rule ever touches.
    pub management: Vec<IpNet>,
    /// Services whose traffic is counted and whose players are learned.
    pub services: Vec<Service>,
    /// Sources kept out.
    pub blocked: Vec<Blocked>,
    /// The host translates addresses: what leaves it may bear another source than it came with.
    pub translated: bool,
    /// Addresses of containers, whose packets are counted where they come from their bridge.
    pub containers: Vec<IpAddr>,
    /// Learn who talks with the services. Needs conntrack, so it is not imposed on hosts without it.
    pub learn: bool,
}

/// Why a rule is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule.
    pub rule: String,
    /// Why, for people.
    pub why: String,
}

/// What came of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rules in force, by identifier.
    pub rules: Vec<String>,
    /// Rules that are not.
    pub refused: Vec<Refusal>,
}

/// Packets and octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Layer-3 octets.
    pub bytes: u64,
}

/// What a rule did so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCount {
    /// The rule.
    pub rule: String,
    /// Discarded by it.
    pub dropped: Count,
    /// Met it and passed.
    pub passed: Count,
}

/// What a service received and answered so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceCount {
    /// Address.
    pub address: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Port.
    pub port: u16,
    /// Came in, before any rule.
    pub received: Count,
    /// Went out.
    pub answered: Count,
}

/// What a container sent so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Its address on its bridge.
    pub address: IpAddr,
    /// Sent, before any limit.
    pub sent: Count,
    /// Different destinations in the last ten seconds.
    pub destinations: u32,
}

/// Why nothing could be applied.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// The tool is not there or may not be run.
    #[error("cannot run {0}: {1}")]
    Tool(&'static str, std::io::Error),
    /// The tool refused, and no single rule is to blame.
    #[error("refused: {0}")]
    Refused(String),
    /// The kernel could not be asked.
    #[error("netlink: {0}")]
    Netlink(#[from] std::io::Error),
    /// Another program has removed what was in force.
    #[error("another program has removed it")]
    Gone,
}

/// Which backend puts rules in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// nftables; where the kernel or the program is missing iptables with ipset; else routes.
    #[default]
    Auto,
    /// nftables.
    Nft,
    /// iptables and ipset, in the raw table.
    Iptables,
    /// iptables and ipset, in `DOCKER-USER` and `INPUT`.
    DockerUser,
    /// Black-hole routes.
    Route,
}

/// What puts rules in force.
pub trait Enforcer: fmt::Debug + Send {
    /// What it is called among an agent's abilities.
    fn name(&self) -> &'static str;

    /// Puts the program in force, in one step. Rules that cannot be are left out and named. `repair`: nothing
    /// that is there is trusted.
    ///
    /// # Errors
    /// When nothing could be applied; what was in force still is.
    fn apply(
        &mut self,
        program: &Program,
        now: Millis,
        repair: bool,
    ) -> Result<Applied, EnforceError>;

    /// Prolongs the lease of what is in force.
    ///
    /// # Errors
    /// When it could not be prolonged.
    fn renew(&mut self, program: &Program, now: Millis) -> Result<(), EnforceError>;

    /// Removes everything of weir's.
    ///
    /// # Errors
    /// When it could not be removed.
    fn clear(&mut self) -> Result<(), EnforceError>;

    /// What each rule did so far.
    ///
    /// # Errors
    /// [`EnforceError::Gone`] when it is found missing; else when the kernel cannot be asked.
    fn rule_counts(&mut self, program: &Program) -> Result<Vec<RuleCount>, EnforceError>;

    /// What services received and answered so far, in the order of their keys; nothing where they are not counted.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn service_counts(&mut self) -> Result<Vec<ServiceCount>, EnforceError> {
        Ok(Vec::new())
    }

    /// What containers sent so far; nothing where that is not counted.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn egress(&mut self) -> Result<Vec<Egress>, EnforceError> {
        Ok(Vec::new())
    }

    /// How many sources are remembered as players.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn learned(&mut self) -> Result<usize, EnforceError> {
        Ok(0)
    }

    /// Whether the kernel ends by itself what has an end; otherwise it must be applied anew now and then.
    fn keeps_time(&self) -> bool {
        true
    }

    /// Whether the kernel tells when somebody changes what is in force.
    fn is_told(&self) -> bool {
        false
    }

    /// Whether a change that the kernel told of was made by this backend itself.
    fn made(&mut self, change: &Change) -> bool {
        let _ = change;
        false
    }
}

/// Opens a backend.
///
/// # Errors
/// Why the one asked for, or every one, cannot be used.
pub fn open(backend: Backend) -> Result<Box<dyn Enforcer>, EnforceError> {
    use self::iptables::{Iptables, Place};
    match backend {
        Backend::Nft => Ok(Box::new(nft::Nft::open()?)),
        Backend::Iptables => Ok(Box::new(Iptables::open(Some(Place::Raw))?)),
        Backend::DockerUser => Ok(Box::new(Iptables::open(Some(Place::DockerUser))?)),
        Backend::Route => Ok(Box::new(route::Routes::open()?)),
        Backend::Auto => {
            let first = match nft::Nft::open().and_then(nft::Nft::tried) {
                Ok(nft) => return Ok(Box::new(nft)),
                Err(error) => error,
            };
            if let Ok(iptables) = Iptables::open(None) {
                return Ok(Box::new(iptables));
            }
            // What is said is why the best one cannot be used.
            route::Routes::open().map_or(Err(first), |routes| Ok(Box::new(routes) as Box<_>))
        }
    }
}

/// A name of twelve characters that is the same for the same text.
fn short_hash(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(6).map(|b| format!("{b:02x}")).collect()
}

/// A prefix as most programs want it: hosts without their length.
fn written(net: IpNet) -> String {
    let host = net.prefix_len() == net.max_prefix_len();
    if host { net.addr().to_string() } else { net.to_string() }
}

/// Runs a program with a text for its input; what it says.
fn run(program: &'static str, arguments: &[&str], input: &str) -> Result<String, EnforceError> {
    let failed = |error| EnforceError::Tool(program, error);
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    // On a thread: a program that speaks before it has read everything must not wait for this one.
    let out = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A program that refuses reads no further; its words say why.
            let _ = stdin.map(|mut stdin| stdin.write_all(input.as_bytes()));
        });
        child.wait_with_output()
    });
    let out = out.map_err(failed)?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(EnforceError::Refused(String::from_utf8_lossy(&out.stderr).trim().to_owned()))
}

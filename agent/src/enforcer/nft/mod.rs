//! The default backend: an own table `inet weir`, changed by one nft transaction a version.
//!
//! Before conntrack and NAT (prerouting -450), so that rules name the addresses that routers and players know,
//! fragments are still fragments, and what is dropped costs least. Nothing outside the table is touched.

mod packets;
mod script;
mod skeleton;

use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use weir_model::Millis;

use self::script::{Present, Script};
pub use self::skeleton::TABLE;
use super::{Applied, Count, EnforceError, Program, Refusal, RuleCount, ServiceCount};
use crate::netlink::{Element, Netlink};
use crate::rules::{NodeAction, Rule};

/// How often a transaction is tried without the rules that nft refused.
const TRIES_MAX: usize = 16;

/// nftables in this network namespace.
#[derive(Debug)]
pub struct Nft {
    netlink: Netlink,
    /// The process of the last transaction, to tell own changes from others'.
    last_process: Option<u32>,
}

impl Nft {
    /// Opens it.
    ///
    /// # Errors
    /// [`EnforceError::Netlink`] when nftables is not in the kernel or may not be asked.
    pub fn open() -> Result<Self, EnforceError> {
        let mut netlink = Netlink::open()?;
        netlink.chains(TABLE)?;
        Ok(Self { netlink, last_process: None })
    }

    /// Puts the program in force, in one step. Rules that nft refuses are left out and named.
    ///
    /// # Errors
    /// When nothing could be applied; what was in force still is.
    pub fn apply(
        &mut self,
        program: &Program,
        now: Millis,
        repair: bool,
    ) -> Result<Applied, EnforceError> {
        let present = self.present()?;
        let mut program = program.clone();
        let mut refused = Vec::new();
        let proxied = |r: &Rule| matches!(r.action, NodeAction::SynProxy { .. });
        if program.rules.iter().any(proxied) && !strict_handshakes() {
            let loose = program.rules.iter().filter(|r| proxied(r));
            let why = format!("{TCP_LOOSE} is not 0 and may not be changed from here");
            refused.extend(loose.map(|r| Refusal { rule: r.id.clone(), why: why.clone() }));
            program.rules.retain(|r| !proxied(r));
        }
        for _ in 0..TRIES_MAX {
            let script = script::compile(&program, &present, now, repair);
            let Err(error) = self.load(&script.text) else {
                refused.extend(script.refused);
                return Ok(Applied { rules: script.rules, refused });
            };
            let EnforceError::Refused(text) = &error else { return Err(error) };
            let Some(rule) = blamed(&script, text).map(str::to_owned) else { return Err(error) };
            refused.push(Refusal { rule: rule.clone(), why: first_error(text) });
            program.rules.retain(|r| r.id != rule);
        }
        Err(EnforceError::Refused(format!("more than {TRIES_MAX} rules refused")))
    }

    /// Prolongs the lease of what is in force without touching anything else.
    ///
    /// # Errors
    /// When it could not be prolonged.
    pub fn renew(&mut self, program: &Program, now: Millis) -> Result<(), EnforceError> {
        let present = self.present()?;
        let script = script::renew(program, &present, now);
        if script.text.is_empty() { Ok(()) } else { self.load(&script.text) }
    }

    /// Removes the table and everything in it.
    ///
    /// # Errors
    /// When it could not be removed.
    pub fn clear(&mut self) -> Result<(), EnforceError> {
        self.load(&format!("add table inet {TABLE}\ndelete table inet {TABLE}\n"))
    }

    /// The process that made weir's last transaction.
    pub const fn last_process(&self) -> Option<u32> {
        self.last_process
    }

    /// What each rule did so far.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn rule_counts(&mut self, program: &Program) -> Result<Vec<RuleCount>, EnforceError> {
        let counters: std::collections::BTreeMap<String, Count> =
            self.netlink.counters(TABLE)?.into_iter().collect();
        let counts = program.rules.iter().filter_map(|rule| {
            let chain = script::chain_of(rule);
            let stem = chain.trim_start_matches("r_");
            let dropped = *counters.get(&format!("c_{stem}"))?;
            let passed = counters.get(&format!("p_{stem}")).copied().unwrap_or_default();
            Some(RuleCount { rule: rule.id.clone(), dropped, passed })
        });
        Ok(counts.collect())
    }

    /// What services received and answered so far, in the order of their keys.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn service_counts(&mut self) -> Result<Vec<ServiceCount>, EnforceError> {
        let mut counts = Vec::new();
        for v in ['4', '6'] {
            let answers: std::collections::BTreeMap<Vec<u8>, Count> = self
                .netlink
                .elements(TABLE, &format!("ans{v}"))?
                .into_iter()
                .map(|e| (e.key, e.count))
                .collect();
            for Element { key, count } in self.netlink.elements(TABLE, &format!("svc{v}"))? {
                let Some((address, protocol, port)) = service_of(&key) else { continue };
                let answered = answers.get(&key).copied().unwrap_or_default();
                counts.push(ServiceCount { address, protocol, port, received: count, answered });
            }
        }
        counts.sort_by_key(|c| (c.address, c.protocol, c.port));
        Ok(counts)
    }

    /// How many sources are remembered as players.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn learned(&mut self) -> Result<usize, EnforceError> {
        let v4 = self.netlink.elements(TABLE, "good4")?.len();
        Ok(v4 + self.netlink.elements(TABLE, "good6")?.len())
    }

    fn present(&mut self) -> Result<Present, EnforceError> {
        let chains = self.netlink.chains(TABLE)?.into_iter().collect();
        let sets = self.netlink.sets(TABLE)?.into_iter().collect();
        let counters = self.netlink.counters(TABLE)?.into_iter().map(|(name, _)| name).collect();
        let mut services = std::collections::BTreeSet::new();
        for set in ["svc4", "svc6"] {
            let elements = self.netlink.elements(TABLE, set)?;
            let keys = elements.iter().filter_map(|e| service_of(&e.key));
            services.extend(
                keys.map(|(address, protocol, port)| format!("{address} . {protocol} . {port}")),
            );
        }
        Ok(Present { chains, sets, counters, services })
    }

    fn load(&mut self, text: &str) -> Result<(), EnforceError> {
        let failed = |error| EnforceError::Tool("nft", error);
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        self.last_process = Some(child.id());
        // nft reads all of it before it says anything, so this cannot wait for each other.
        let written =
            child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()));
        let out = child.wait_with_output().map_err(failed)?;
        if out.status.success() {
            return written.map_err(failed);
        }
        Err(EnforceError::Refused(String::from_utf8_lossy(&out.stderr).into_owned()))
    }
}

/// Whether conntrack takes connections up only at their handshake. Set when it is allowed: with the default a
/// flood of ACKs opens connections that no cookie was ever answered for.
fn strict_handshakes() -> bool {
    let set = || std::fs::read_to_string(TCP_LOOSE).is_ok_and(|text| text.trim() == "0");
    set() || (std::fs::write(TCP_LOOSE, "0").is_ok() && set())
}

/// The setting that decides it, of this network namespace.
const TCP_LOOSE: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_loose";

/// The key of a service set: address, protocol, port, each padded to four octets.
fn service_of(key: &[u8]) -> Option<(IpAddr, u8, u16)> {
    let (address, rest) = match key.len() {
        12 => {
            let (address, rest) = key.split_first_chunk::<4>()?;
            (IpAddr::from(*address), rest)
        }
        24 => {
            let (address, rest) = key.split_first_chunk::<16>()?;
            (IpAddr::from(*address), rest)
        }
        _ => return None,
    };
    Some((address, *rest.first()?, u16::from_be_bytes([*rest.get(4)?, *rest.get(5)?])))
}

/// The rule that nft complains of: it names lines, `/dev/stdin:12:1-30: Error: ...`.
fn blamed<'a>(script: &'a Script, stderr: &str) -> Option<&'a str> {
    stderr.lines().find_map(|line| {
        let rest = line.split_once("stdin:")?.1;
        let number = rest.split(':').next()?.parse().ok()?;
        script.rule_at(number)
    })
}

fn first_error(stderr: &str) -> String {
    let line = stderr.lines().find_map(|l| l.split_once("Error: ").map(|(_, text)| text));
    format!("nft: {}", line.unwrap_or_else(|| stderr.lines().next().unwrap_or("refused")))
}

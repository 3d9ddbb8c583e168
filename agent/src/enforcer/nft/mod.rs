//! The default backend: an own table `inet weir`, changed by one nft transaction a version.
//!
//! Before conntrack and NAT (prerouting -450), so that rules name the addresses that routers and players know,
//! fragments are still fragments, and what is dropped costs least. Nothing outside the table is touched.

mod blocked;
mod packets;
mod script;
mod skeleton;

use std::net::IpAddr;

use weir_model::Millis;

use self::script::{Present, Script};
pub use self::skeleton::TABLE;
use super::{
    Applied, Blocked, Count, Egress, EnforceError, Enforcer, Program, Refusal, RuleCount,
    ServiceCount, run,
};
use crate::netlink::{self, Change, Element, Netlink};
use crate::rules::{NodeAction, Rule};

/// How often a transaction is tried without the rules that nft refused.
const TRIES_MAX: usize = 16;

/// nftables in this network namespace.
#[derive(Debug)]
pub struct Nft {
    netlink: Netlink,
    /// What own transactions bear, to tell them from others'.
    mark: String,
    /// The kernel's count of transactions after the last own one.
    generation: Option<u32>,
    /// This program has changed [`TCP_LOOSE`].
    loosened: bool,
    /// Blocked sources of the last transaction, sorted; `None` when nobody knows what is there.
    blocked: Option<Vec<Blocked>>,
}

impl Nft {
    /// Opens it.
    ///
    /// # Errors
    /// [`EnforceError::Netlink`] when nftables is not in the kernel or may not be asked.
    pub fn open() -> Result<Self, EnforceError> {
        let mut netlink = Netlink::open()?;
        netlink.chains(TABLE)?;
        Ok(Self {
            netlink,
            mark: netlink::mark()?,
            generation: None,
            loosened: false,
            blocked: None,
        })
    }

    /// Passes it on when nft can make weir's frame here: on old kernels something of it is missing.
    ///
    /// # Errors
    /// What nft says.
    pub fn tried(self) -> Result<Self, EnforceError> {
        run("nft", &["-c", "-f", "-"], &skeleton::text())?;
        Ok(self)
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
        let mut containers = std::collections::BTreeSet::new();
        for set in ["cst4", "cst6"] {
            let elements = self.netlink.elements(TABLE, set)?;
            containers
                .extend(elements.iter().filter_map(|e| address_of(&e.key)).map(|a| a.to_string()));
        }
        Ok(Present { chains, sets, counters, services, containers, blocked: None })
    }

    fn load(&mut self, text: &str) -> Result<(), EnforceError> {
        // Behind the script: nft names lines of it when it refuses one.
        let text = format!("{text}{}", netlink::marked(TABLE, &self.mark));
        run("nft", &["-f", "-"], &text)?;
        self.generation = self.netlink.generation().ok();
        Ok(())
    }
}

impl Enforcer for Nft {
    fn name(&self) -> &'static str {
        "nft"
    }

    fn apply(
        &mut self,
        program: &Program,
        now: Millis,
        repair: bool,
    ) -> Result<Applied, EnforceError> {
        let mut present = self.present()?;
        // Until it has gone well, nobody knows.
        present.blocked = self.blocked.take().filter(|_| !repair);
        let mut program = program.clone();
        program.blocked.sort_unstable();
        program.blocked.dedup_by_key(|b| b.source);
        let mut refused = Vec::new();
        let proxied = |r: &Rule| matches!(r.action, NodeAction::SynProxy { .. });
        if program.rules.iter().any(proxied) {
            self.loosened |= tcp_loose() == Some(true);
        }
        if program.rules.iter().any(proxied) && !strict_handshakes() {
            let loose = program.rules.iter().filter(|r| proxied(r));
            let why = format!("{TCP_LOOSE} is not 0 and may not be changed from here");
            refused.extend(loose.map(|r| Refusal { rule: r.id.clone(), why: why.clone() }));
            program.rules.retain(|r| !proxied(r));
        }
        for _ in 0..TRIES_MAX {
            let mut script = script::compile(&program, &present, now, repair);
            if self.loosened {
                script.add(&format!("add chain inet {TABLE} {WAS_LOOSE}"));
            }
            let Err(error) = self.load(&script.text) else {
                refused.extend(script.refused);
                self.blocked = Some(program.blocked);
                return Ok(Applied { rules: script.rules, refused });
            };
            let EnforceError::Refused(text) = &error else { return Err(error) };
            if present.blocked.take().is_some() {
                // Perhaps an element that is not there any more: once more without any assumption.
                continue;
            }
            let Some(rule) = blamed(&script, text).map(str::to_owned) else { return Err(error) };
            refused.push(Refusal { rule: rule.clone(), why: first_error(text) });
            program.rules.retain(|r| r.id != rule);
        }
        Err(EnforceError::Refused(format!("more than {TRIES_MAX} rules refused")))
    }

    fn renew(&mut self, program: &Program, now: Millis) -> Result<(), EnforceError> {
        let present = self.present()?;
        let script = script::renew(program, &present, now);
        if script.text.is_empty() { Ok(()) } else { self.load(&script.text) }
    }

    fn clear(&mut self) -> Result<(), EnforceError> {
        self.blocked = None;
        let was_loose = self.netlink.chains(TABLE)?.iter().any(|chain| chain == WAS_LOOSE);
        let mark = netlink::marked(TABLE, &self.mark);
        let text = format!("{mark}delete table inet {TABLE}\n");
        run("nft", &["-f", "-"], &text)?;
        self.generation = self.netlink.generation().ok();
        if was_loose || std::mem::take(&mut self.loosened) {
            // As it was before the first syn-proxy rule; where it may not be written, it was not changed here.
            let _ = std::fs::write(TCP_LOOSE, "1");
        }
        Ok(())
    }

    fn is_told(&self) -> bool {
        true
    }

    fn made(&mut self, change: &Change) -> bool {
        if change.lost {
            let now = self.netlink.generation().ok();
            return now.is_some() && now == self.generation;
        }
        change.mark.as_ref() == Some(&self.mark)
    }

    fn rule_counts(&mut self, program: &Program) -> Result<Vec<RuleCount>, EnforceError> {
        let counters: std::collections::BTreeMap<String, Count> =
            self.netlink.counters(TABLE)?.into_iter().collect();
        let counts = program.rules.iter().filter_map(|rule| {
            let stem = script::counters_of(rule);
            let dropped = *counters.get(&format!("c_{stem}"))?;
            let passed = counters.get(&format!("p_{stem}")).copied().unwrap_or_default();
            Some(RuleCount { rule: rule.id.clone(), dropped, passed })
        });
        Ok(counts.collect())
    }

    fn service_counts(&mut self) -> Result<Vec<ServiceCount>, EnforceError> {
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

    fn egress(&mut self) -> Result<Vec<Egress>, EnforceError> {
        let mut found = Vec::new();
        for v in ['4', '6'] {
            let sent = self.netlink.elements(TABLE, &format!("cst{v}"))?;
            if sent.is_empty() {
                continue;
            }
            let fan = self.netlink.elements(TABLE, &format!("fan{v}"))?;
            found.extend(sent.into_iter().filter_map(|Element { key, count }| {
                let to = fan.iter().filter(|pair| pair.key.starts_with(&key)).count();
                let destinations = u32::try_from(to).unwrap_or(u32::MAX);
                Some(Egress { address: address_of(&key)?, sent: count, destinations })
            }));
        }
        Ok(found)
    }

    fn learned(&mut self) -> Result<usize, EnforceError> {
        let v4 = self.netlink.elements(TABLE, "good4")?.len();
        Ok(v4 + self.netlink.elements(TABLE, "good6")?.len())
    }
}

/// Present in the table when [`TCP_LOOSE`] was not 0 before: what has to be put back is known after a restart too.
const WAS_LOOSE: &str = "tcp_was_loose";

/// Whether conntrack takes up connections in their middle; `None` when there is no conntrack.
fn tcp_loose() -> Option<bool> {
    Some(std::fs::read_to_string(TCP_LOOSE).ok()?.trim() != "0")
}

/// Whether conntrack takes connections up only at their handshake. Set when it is allowed: with the default a
/// flood of ACKs opens connections that no cookie was ever answered for.
fn strict_handshakes() -> bool {
    let set = || tcp_loose() == Some(false);
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

/// The key of a set of addresses.
fn address_of(key: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(key).map(IpAddr::from);
    v4.ok().or_else(|| <[u8; 16]>::try_from(key).map(IpAddr::from).ok())
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

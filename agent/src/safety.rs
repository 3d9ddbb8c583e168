//! What protects players and administrators from the agent itself.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::path::Path;

use weir_model::{IpNet, Millis};

use crate::config::write_private;
use crate::enforcer::{Program, RuleCount, ServiceCount};
use crate::rules::Rule;

/// How long after its start a rule is watched.
const WATCH_MS: u64 = 10_000;

/// How long a rule that was taken out stays out.
const OUT_MS: u64 = 600_000;

/// Looks in calm that make the picture of a service.
const CALM_LOOKS: usize = 60;

/// Answers a second below which a fall says nothing.
const ANSWERS_MIN: u64 = 20;

/// Seconds that a fall must last before a rule is blamed: one second without players is a change of map.
const FALL_SECS: u32 = 3;

/// A service, as counters name it.
type Key = (IpAddr, u8, u16);

/// As written down: when, and what each service answered in the looks in calm.
type Kept = (Millis, Vec<(Key, VecDeque<u64>)>);

/// A rule taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// The rule.
    pub rule: String,
    /// Why, for people.
    pub why: String,
}

/// How often the calm of services is written down, and how old it may be to count again.
const KEEP_MS: u64 = 60_000;
const KEPT_MS_MAX: u64 = 86_400_000;

/// Takes out rules under which a service stops answering.
///
/// What a service answers is the ground truth: players who get through are answered. Its calm is measured only
/// while no rule that touches the service drops anything, so an attack that it answered as well cannot pass for
/// players; and it outlives a restart, because a rule that stands may leave no calm to measure anew.
#[derive(Clone, Debug, Default)]
pub struct Rollback {
    /// Packets answered so far, and when that was counted.
    answered: BTreeMap<Key, (u64, Millis)>,
    calm: BTreeMap<Key, VecDeque<u64>>,
    /// Packets that each rule had dropped at the last look.
    dropped: BTreeMap<String, u64>,
    /// When the calm was last written down.
    kept: Option<Millis>,
    falling: BTreeMap<Key, u32>,
    started: BTreeMap<String, Millis>,
    out: BTreeMap<String, Millis>,
}

impl Rollback {
    /// Rules that are to stay out now.
    pub fn is_out(&self, rule: &str, now: Millis) -> bool {
        self.out.get(rule).is_some_and(|until| *until > now)
    }

    /// Takes note of what is in force since when.
    pub fn in_force(&mut self, rules: &[String], now: Millis) {
        self.started.retain(|id, _| rules.contains(id));
        for id in rules {
            self.started.entry(id.clone()).or_insert(now);
        }
        self.out.retain(|_, until| *until > now);
    }

    /// Looks at a second's counters; returns the rules that it takes out.
    pub fn look(
        &mut self,
        program: &Program,
        services: &[ServiceCount],
        rules: &[RuleCount],
        now: Millis,
    ) -> Vec<RolledBack> {
        let mut taken = Vec::new();
        let idle: Vec<bool> = rules
            .iter()
            .map(|c| self.dropped.get(&c.rule).is_some_and(|before| *before == c.dropped.packets))
            .collect();
        let idles =
            |rule: &Rule| rules.iter().zip(&idle).any(|(c, idle)| c.rule == rule.id && *idle);
        self.dropped = rules.iter().map(|c| (c.rule.clone(), c.dropped.packets)).collect();
        for service in services {
            let key = (service.address, service.protocol, service.port);
            let total = service.answered.packets;
            let Some((before, at)) = self.answered.insert(key, (total, now)) else { continue };
            // Looks are further apart while nothing is in force.
            let rate = total.saturating_sub(before) * 1000 / now.since(at).max(1000);
            let mut touching = program
                .rules
                .iter()
                .filter(|r| self.started.contains_key(&r.id) && touches(r, key));
            let touching: Vec<&Rule> = touching.by_ref().collect();
            let normal = median(self.calm.get(&key));
            if touching.iter().all(|rule| idles(rule)) {
                self.falling.remove(&key);
                // Under a rule that has sent everybody away nothing is dropped any more either: no calm.
                if touching.is_empty() || rate * 2 >= normal {
                    let calm = self.calm.entry(key).or_default();
                    calm.push_back(rate);
                    if calm.len() > CALM_LOOKS {
                        calm.pop_front();
                    }
                }
                continue;
            }
            let fallen = normal >= ANSWERS_MIN && rate * 10 < normal;
            let seconds = self.falling.entry(key).or_default();
            *seconds = if fallen { *seconds + 1 } else { 0 };
            if *seconds < FALL_SECS {
                continue;
            }
            *seconds = 0;
            for rule in touching {
                let young = self.started.get(&rule.id).is_some_and(|t| now.since(*t) <= WATCH_MS);
                let drops = rules.iter().any(|c| c.rule == rule.id && c.dropped.packets > 0);
                if young && drops {
                    let why = format!(
                        "{} port {} answers {rate} packets/s under it, {normal} before",
                        service.address, service.port
                    );
                    self.out.insert(rule.id.clone(), now + OUT_MS);
                    taken.push(RolledBack { rule: rule.id.clone(), why });
                }
            }
        }
        taken
    }
}

impl Rollback {
    /// Whether the calm is to be written down again.
    pub fn is_due(&self, now: Millis) -> bool {
        !self.calm.is_empty() && self.kept.is_none_or(|at| now.since(at) >= KEEP_MS)
    }

    /// Writes down how services fare in calm.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&mut self, path: &Path, now: Millis) -> std::io::Result<()> {
        self.kept = Some(now);
        let calm: Vec<(&Key, &VecDeque<u64>)> = self.calm.iter().collect();
        write_private(path, &serde_json::to_vec(&(now, calm))?)
    }

    /// Goes on from what was written down before a restart, if it is of today.
    pub fn restore(&mut self, path: &Path, now: Millis) {
        let Ok(text) = std::fs::read(path) else { return };
        let kept = serde_json::from_slice::<Kept>(&text).ok();
        let Some((at, calm)) = kept.filter(|(at, _)| now.since(*at) <= KEPT_MS_MAX) else { return };
        self.kept = Some(at);
        for (key, mut looks) in calm {
            looks.truncate(CALM_LOOKS);
            self.calm.insert(key, looks);
        }
    }
}

/// Whether a rule can meet a service's packets.
fn touches(rule: &Rule, (address, protocol, port): Key) -> bool {
    let m = &rule.packets;
    m.dst.contains(&address)
        && (m.protocols.is_empty() || m.protocols.contains(&protocol))
        && (m.dst_ports.is_empty() || m.dst_ports.iter().any(|r| r.contains(port)))
}

fn median(values: Option<&VecDeque<u64>>) -> u64 {
    let mut sorted: Vec<u64> = values.into_iter().flatten().copied().collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

/// Addresses with which somebody has an SSH session to this host just now, from the kernel's table of TCP
/// connections: whoever is at work here is not locked out.
pub fn ssh_peers(tcp: &str, ssh_port: u16) -> Vec<IpNet> {
    const ESTABLISHED: &str = "01";
    let peers = tcp.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        if port != ssh_port || state != ESTABLISHED {
            return None;
        }
        kernel_address(remote.rsplit_once(':')?.0).map(IpNet::from)
    });
    let mut peers: Vec<IpNet> = peers.collect();
    peers.sort_unstable();
    peers.dedup();
    peers.truncate(64);
    peers
}

/// An address as /proc/net/tcp writes it: words of four octets in the host's order.
fn kernel_address(text: &str) -> Option<IpAddr> {
    let words: Option<Vec<[u8; 4]>> = text
        .as_bytes()
        .chunks(8)
        .map(|word| {
            let word = std::str::from_utf8(word).ok()?;
            Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
        })
        .collect();
    match words?.concat().as_slice() {
        v4 if v4.len() == 4 => <[u8; 4]>::try_from(v4).ok().map(IpAddr::from),
        v6 if v6.len() == 16 => {
            let v6 = std::net::Ipv6Addr::from(<[u8; 16]>::try_from(v6).ok()?);
            Some(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforcer::Count;

    fn program() -> Program {
        let rule = Rule { id: "r".into(), ..crate::rules::tests::rule() };
        Program { rules: vec![rule], ..Program::default() }
    }

    /// Runs calm at 100 answers a second, then seconds under the rule; says what was taken out when.
    fn run(under: &[u64], dropped: u64) -> Vec<(usize, String)> {
        let mut rollback = Rollback::default();
        let mut total = 0;
        let mut taken = Vec::new();
        let mut look = |rollback: &mut Rollback, rate: u64, drops: u64, second: u64| {
            total += rate;
            let service = ServiceCount {
                address: "203.0.113.7".parse().unwrap(),
                protocol: 17,
                port: 27015,
                received: Count::default(),
                answered: Count { packets: total, bytes: 0 },
            };
            let dropped = Count { packets: drops, bytes: 0 };
            let rule = RuleCount { rule: "r".into(), dropped, passed: Count::default() };
            rollback.look(&program(), &[service], &[rule], Millis(second * 1000))
        };
        for second in 0..60 {
            look(&mut rollback, 100, 0, second);
        }
        rollback.in_force(&["r".into()], Millis(60_000));
        for (i, rate) in under.iter().enumerate() {
            let second = 61 + u64::try_from(i).unwrap();
            let out = look(&mut rollback, *rate, dropped * (second - 60), second);
            taken.extend(out.into_iter().map(|r| (i, r.rule)));
        }
        assert_eq!(rollback.is_out("r", Millis(70_000)), !taken.is_empty());
        assert!(!rollback.is_out("r", Millis(1_000_000)));
        taken
    }

    #[test]
    fn a_rule_under_which_the_service_falls_silent_is_taken_out() {
        assert_eq!(run(&[5, 5, 5, 5], 1000), [(2, "r".to_owned())]);
    }

    #[test]
    fn a_rule_is_not_blamed_without_cause() {
        assert_eq!(run(&[60, 50, 60, 50], 1000), [], "still answering");
        assert_eq!(run(&[0, 0, 90, 0, 0, 90], 1000), [], "a change of map");
        assert_eq!(run(&[0, 0, 0, 0], 0), [], "it dropped nothing");
        assert_eq!(
            run(&[100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 0, 0, 0], 9),
            [],
            "later"
        );
    }

    /// A service that answers `rate` more packets since the last look, at a second.
    fn service(total: u64) -> ServiceCount {
        ServiceCount {
            address: "203.0.113.7".parse().unwrap(),
            protocol: 17,
            port: 27015,
            received: Count::default(),
            answered: Count { packets: total, bytes: 0 },
        }
    }

    #[test]
    fn an_older_rule_and_a_restart_leave_the_calm_known() {
        let old = Rule { id: "old".into(), ..crate::rules::tests::rule() };
        let new = Rule { id: "new".into(), ..crate::rules::tests::rule() };
        let count = |rule: &str, packets| RuleCount {
            rule: rule.into(),
            dropped: Count { packets, bytes: 0 },
            passed: Count::default(),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calm.json");
        let check = |restart: bool| {
            let mut rollback = Rollback::default();
            let standing = Program { rules: vec![old.clone()], ..Program::default() };
            rollback.in_force(&["old".into()], Millis(0));
            let mut total = 0;
            // The old rule met an attack once, and nothing since.
            for second in 0..40 {
                total += 100;
                let at = Millis(second * 1000);
                let out = rollback.look(&standing, &[service(total)], &[count("old", 9)], at);
                assert_eq!(out, []);
            }
            if restart {
                rollback.keep(&path, Millis(40_000)).unwrap();
                rollback = Rollback::default();
                rollback.restore(&path, Millis(45_000));
                rollback.in_force(&["old".into()], Millis(45_000));
            }
            let both = Program { rules: vec![old.clone(), new.clone()], ..Program::default() };
            rollback.in_force(&["old".into(), "new".into()], Millis(60_000));
            let mut out = Vec::new();
            for second in 60..66 {
                let counts = [count("old", 9), count("new", 100 * (second - 59))];
                let at = Millis(second * 1000);
                out.extend(rollback.look(&both, &[service(total)], &counts, at));
            }
            let mut out: Vec<String> = out.into_iter().map(|r| r.rule).collect();
            // The daemon takes it out; here it stands and is found again.
            out.dedup();
            assert_eq!(out, ["new"], "restart: {restart}");
        };
        check(false);
        check(true);
        // Yesterday's calm says nothing of today.
        let mut late = Rollback::default();
        late.restore(&path, Millis(40_000 + KEPT_MS_MAX + 1));
        assert!(late.calm.is_empty());
    }

    #[test]
    fn the_administrator_at_work_is_found() {
        let tcp = "  sl  local_address rem_address   st tx_queue\n\
                   0: 026433C6:0016 096433C6:C350 01 0:0\n\
                   1: 026433C6:0016 0A6433C6:C350 06 0:0\n\
                   2: 026433C6:0050 0B6433C6:C350 01 0:0\n\
                   3: 00000000:0016 00000000:0000 0A 0:0\n";
        assert_eq!(ssh_peers(tcp, 22), ["198.51.100.9/32".parse().unwrap()]);
        let tcp6 = "head\n0: 0:0016 0000000000000000FFFF0000096433C6:1 01 x\n";
        assert_eq!(ssh_peers(tcp6, 22), ["198.51.100.9/32".parse().unwrap()]);
    }
}

//! For hosts without nftables: a chain `WEIR` of iptables and sets of ipset.
//!
//! In `raw PREROUTING`, which like weir's nftables hook sees what packets were sent to before NAT; where the
//! kernel has no raw table, in `DOCKER-USER` (or `FORWARD`) and `INPUT`, where the original destination is taken
//! from the connection. Each rule carries its end, which the kernel minds. One `iptables-restore` a family.
//! It cannot tell players, answer SYNs, or see fragments and lengths; such rules are refused.

mod words;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use weir_model::{Direction, IpNet, Millis};

use self::words::{alternatives, until};
use super::{Applied, Count, EnforceError, Enforcer, Program, Refusal, RuleCount, run, short_hash};
use crate::rules::{NodeAction, Rule};

/// How often a restore is tried without the rules that iptables refused.
const TRIES_MAX: usize = 16;

/// Elements of a set of blocked sources.
const SET_MAX: u32 = 262_144;

/// Where packets are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before conntrack and NAT.
    Raw,
    /// Behind them, in Docker's chain for others and in INPUT.
    DockerUser,
}

impl Place {
    const fn table(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::DockerUser => "filter",
        }
    }
}

/// One address family's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

impl Version {
    const ALL: [Self; 2] = [Self::V4, Self::V6];

    const fn program(self, restore: bool) -> &'static str {
        match (self, restore) {
            (Self::V4, true) => "iptables-restore",
            (Self::V4, false) => "iptables-save",
            (Self::V6, true) => "ip6tables-restore",
            (Self::V6, false) => "ip6tables-save",
        }
    }

    const fn family(self) -> &'static str {
        match self {
            Self::V4 => "inet",
            Self::V6 => "inet6",
        }
    }

    const fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }

    fn has(self, net: IpNet) -> bool {
        net.addr().is_ipv4() == (self == Self::V4)
    }
}

/// iptables and ipset in this network namespace.
#[derive(Debug)]
pub struct Iptables {
    place: Place,
    /// What rules counted before the chain was written anew.
    carried: BTreeMap<String, (Count, Count)>,
}

impl Iptables {
    /// Opens it; `None`: the raw table where there is one.
    ///
    /// # Errors
    /// When iptables or ipset are not there or may not be used.
    pub fn open(place: Option<Place>) -> Result<Self, EnforceError> {
        run("ipset", &["list", "-n"], "")?;
        let raw = || run("iptables-save", &["-t", "raw"], "").is_ok_and(|t| t.contains("*raw"));
        let touch = || run("iptables", &["-t", "raw", "-S", "PREROUTING"], "").is_ok();
        let place = match place {
            Some(place) => place,
            None if touch() || raw() => Place::Raw,
            None => Place::DockerUser,
        };
        run("iptables", &["-w", "-t", place.table(), "-S"], "")?;
        Ok(Self { place, carried: BTreeMap::new() })
    }

    fn saved(&self, version: Version) -> Result<String, EnforceError> {
        run(version.program(false), &["-c", "-t", self.place.table()], "")
    }

    /// What rules count just now: dropped and passed.
    fn counted(&self) -> Result<BTreeMap<String, (Count, Count)>, EnforceError> {
        let mut found: BTreeMap<String, (Count, Count)> = BTreeMap::new();
        for version in Version::ALL {
            for (rule, passed, count) in self.saved(version)?.lines().filter_map(counter) {
                let entry = found.entry(rule).or_default();
                let of = if passed { &mut entry.1 } else { &mut entry.0 };
                of.packets += count.packets;
                of.bytes += count.bytes;
            }
        }
        Ok(found)
    }

    /// The hooks that are missing, as lines of a restore.
    fn hooks(&self, version: Version) -> Result<String, EnforceError> {
        let saved = self.saved(version)?;
        let docker = if saved.contains(":DOCKER-USER ") { "DOCKER-USER" } else { "FORWARD" };
        let chains: &[&str] = match self.place {
            Place::Raw => &["PREROUTING", "OUTPUT"],
            Place::DockerUser => &[docker, "INPUT"],
        };
        let mut text = String::new();
        for chain in chains {
            if !saved.contains(&format!("-A {chain} -j WEIR")) {
                let _ = writeln!(text, "-I {chain} 1 -j WEIR");
            }
        }
        Ok(text)
    }
}

impl Enforcer for Iptables {
    fn name(&self) -> &'static str {
        "iptables"
    }

    fn apply(
        &mut self,
        program: &Program,
        now: Millis,
        _repair: bool,
    ) -> Result<Applied, EnforceError> {
        let before = self.counted().unwrap_or_default();
        run("ipset", &["restore", "-exist"], &sets(program, now))?;
        let mut applied = Applied::default();
        let mut rules: Vec<&Rule> = program.rules.iter().collect();
        for version in Version::ALL {
            let hooks = self.hooks(version)?;
            let mut tries = 0;
            loop {
                let script = compile(program, &rules, version, self.place, &hooks);
                let restored = run(version.program(true), &["-w", "5", "--noflush"], &script.text);
                let Err(error) = restored else {
                    applied.rules.extend(script.rules);
                    applied.refused.extend(script.refused);
                    break;
                };
                tries += 1;
                let EnforceError::Refused(text) = &error else { return Err(error) };
                let Some(rule) = script.blamed(text).filter(|_| tries < TRIES_MAX) else {
                    return Err(error);
                };
                applied.refused.push(Refusal { rule: rule.clone(), why: text.trim().to_owned() });
                rules.retain(|r| r.id != rule);
            }
        }
        for (rule, (dropped, passed)) in before {
            let entry = self.carried.entry(rule).or_default();
            add(&mut entry.0, dropped);
            add(&mut entry.1, passed);
        }
        self.carried.retain(|id, _| applied.rules.contains(id));
        Ok(applied)
    }

    fn renew(&mut self, program: &Program, now: Millis) -> Result<(), EnforceError> {
        self.apply(program, now, false).map(|_| ())
    }

    fn clear(&mut self) -> Result<(), EnforceError> {
        for version in Version::ALL {
            let saved = self.saved(version)?;
            let mut text = format!("*{}\n", self.place.table());
            for line in saved.lines().filter(|l| l.ends_with(" -j WEIR")) {
                if let Some((_, rule)) = line.split_once("-A ") {
                    let _ = writeln!(text, "-D {rule}");
                }
            }
            if saved.contains(":WEIR ") {
                text.push_str("-F WEIR\n-X WEIR\n");
            }
            text.push_str("COMMIT\n");
            run(version.program(true), &["-w", "5", "--noflush"], &text)?;
            for set in ["mgmt", "blk"] {
                let name = format!("weir-{set}{}", version.digit());
                // Absent is as wanted.
                let _ = run("ipset", &["destroy", &name], "");
            }
        }
        self.carried.clear();
        Ok(())
    }

    fn rule_counts(&mut self, program: &Program) -> Result<Vec<RuleCount>, EnforceError> {
        let counted = self.counted()?;
        for version in Version::ALL {
            if !self.hooks(version)?.is_empty() {
                return Err(EnforceError::Gone);
            }
        }
        let count = |rule: &Rule| {
            let (mut dropped, mut passed) = *counted.get(&rule.id)?;
            let carried = self.carried.get(&rule.id).copied().unwrap_or_default();
            add(&mut dropped, carried.0);
            add(&mut passed, carried.1);
            Some(RuleCount { rule: rule.id.clone(), dropped, passed })
        };
        Ok(program.rules.iter().filter_map(count).collect())
    }
}

fn add(sum: &mut Count, more: Count) {
    sum.packets += more.packets;
    sum.bytes += more.bytes;
}

/// One restore and which rule each line belongs to.
#[derive(Debug, Default)]
struct Script {
    text: String,
    lines: Vec<Option<String>>,
    rules: Vec<String>,
    refused: Vec<Refusal>,
}

impl Script {
    fn line(&mut self, rule: Option<&str>, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.lines.push(rule.map(str::to_owned));
    }

    /// The rule that iptables complains of: it names the line, in one of several sentences.
    fn blamed(&self, stderr: &str) -> Option<String> {
        let rest = stderr.split("line").nth(1)?;
        let digits: String = rest
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        let number: usize = digits.parse().ok()?;
        self.lines.get(number.checked_sub(1)?)?.clone()
    }
}

fn compile(
    program: &Program,
    rules: &[&Rule],
    version: Version,
    place: Place,
    hooks: &str,
) -> Script {
    let mut script = Script::default();
    script.line(None, &format!("*{}", place.table()));
    script.line(None, ":WEIR - [0:0]");
    hooks.lines().for_each(|line| script.line(None, line));
    let v = version.digit();
    script.line(None, "-A WEIR -i lo -j RETURN");
    script.line(None, &format!("-A WEIR -m set --match-set weir-mgmt{v} src -j RETURN"));
    script.line(None, &format!("-A WEIR -m set --match-set weir-blk{v} src -j DROP"));
    for rule in rules.iter().filter(|r| version.has(r.packets.dst)) {
        match rule_lines(program, rule, place) {
            Ok(lines) => {
                lines.iter().for_each(|line| script.line(Some(&rule.id), line));
                script.rules.push(rule.id.clone());
            }
            Err(why) => script.refused.push(Refusal { rule: rule.id.clone(), why }),
        }
    }
    script.line(None, "COMMIT");
    script
}

fn rule_lines(program: &Program, rule: &Rule, place: Place) -> Result<Vec<String>, String> {
    let outbound = rule.direction == Direction::Outbound;
    let ends = match rule.expires {
        Some(expires) => until(expires.min(program.lease_until)),
        None => String::new(),
    };
    let drop = format!(" -m comment --comment weir:{} -j DROP", rule.id);
    let pass = format!(" -m comment --comment weir-pass:{} -j RETURN", rule.id);
    let name = short_hash(&format!("{} {:?}", rule.id, rule.action));
    let limit = |mode: &str, rate: String, burst: String, bucket: char| {
        format!(
            " -m hashlimit --hashlimit-above {rate} --hashlimit-burst {burst}{mode} --hashlimit-name w{bucket}{name}"
        )
    };
    let packets = |rate: u64| limit("", format!("{rate}/sec"), (rate / 10).max(5).to_string(), 'p');
    let actions = match rule.action {
        NodeAction::Drop => vec![drop],
        NodeAction::Accept => vec![pass],
        NodeAction::RateBytes { bytes_per_sec: rate } => {
            // iptables grants no less than a second's worth at once.
            let burst = format!("{}b", rate.max(1500));
            vec![limit("", format!("{rate}b/s"), burst, 'b') + &drop, pass]
        }
        NodeAction::RatePackets { packets_per_sec } => vec![packets(packets_per_sec) + &drop, pass],
        NodeAction::PerSource { packets_per_sec: rate, burst, cap_packets_per_sec: cap } => {
            let each = limit(
                " --hashlimit-mode srcip --hashlimit-htable-expire 10000",
                format!("{rate}/sec"),
                burst.to_string(),
                's',
            );
            vec![each + &drop, packets(cap) + &drop, pass]
        }
        NodeAction::SynProxy { .. } => {
            return Err("iptables' syn-proxy is not used: nftables is needed".to_owned());
        }
    };
    let matches = alternatives(&rule.packets, place, outbound)?;
    // Lines of one rule share its bucket: hashlimit finds it by its name.
    let lines = matches.iter().flat_map(|m| actions.iter().map(move |a| (m, a)));
    Ok(lines.map(|(m, action)| format!("-A WEIR{m}{ends}{action}")).collect())
}

/// Sets made anew beside the old ones and swapped: at no time is one half full.
fn sets(program: &Program, now: Millis) -> String {
    let mut text = String::new();
    for version in Version::ALL {
        let mine = |net: &IpNet| version.has(*net) && net.prefix_len() > 0;
        let management: Vec<String> =
            program.management.iter().filter(|n| mine(n)).map(ToString::to_string).collect();
        let blocked = program.blocked.iter().filter(|b| mine(&b.source) && b.until > now);
        let blocked: Vec<String> = blocked
            .map(|b| {
                format!("{} timeout {}", b.source, b.until.since(now).div_ceil(1000).min(2_000_000))
            })
            .collect();
        for (set, elements) in [("mgmt", management), ("blk", blocked)] {
            let name = format!("weir-{set}{}", version.digit());
            let kind = format!("hash:net family {} maxelem {SET_MAX} timeout 0", version.family());
            let _ = writeln!(text, "create {name} {kind}\ncreate {name}n {kind}\nflush {name}n");
            for element in elements {
                let _ = writeln!(text, "add {name}n {element}");
            }
            let _ = writeln!(text, "swap {name} {name}n\ndestroy {name}n");
        }
    }
    text
}

/// A line of `iptables-save -c` as rule, whether it passes, and its count.
fn counter(line: &str) -> Option<(String, bool, Count)> {
    let (numbers, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (packets, bytes) = numbers.split_once(':')?;
    let comment = rest.split_once("--comment ")?.1.trim_start_matches('"');
    let comment = comment.split([' ', '"']).next()?;
    let (passed, rule) = match comment.strip_prefix("weir-pass:") {
        Some(rule) => (true, rule),
        None => (false, comment.strip_prefix("weir:")?),
    };
    let count = Count { packets: packets.parse().ok()?, bytes: bytes.parse().ok()? };
    Some((rule.to_owned(), passed, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_with_and_without_quotes() {
        let line = "[12:3400] -A WEIR -d 203.0.113.7/32 -m comment --comment \"weir:m1\" -j DROP";
        let count = Count { packets: 12, bytes: 3400 };
        assert_eq!(counter(line), Some(("m1".to_owned(), false, count)));
        let line = "[12:3400] -A WEIR -m comment --comment weir-pass:m1.src -j RETURN";
        assert_eq!(counter(line), Some(("m1.src".to_owned(), true, count)));
        assert_eq!(counter("[1:2] -A INPUT -j WEIR"), None);
        assert_eq!(counter(":WEIR - [0:0]"), None);
    }

    #[test]
    fn the_rule_that_iptables_names_is_found() {
        let mut script = Script::default();
        script.line(None, "*raw");
        script.line(Some("m1"), "-A WEIR nonsense");
        for said in ["iptables-restore: line 2 failed", "Error occurred at line: 2\nTry ..."] {
            assert_eq!(script.blamed(said), Some("m1".to_owned()), "{said}");
        }
        assert_eq!(script.blamed("no idea"), None);
    }
}

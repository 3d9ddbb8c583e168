//! One version of the rules as one nft transaction.

use std::collections::{BTreeMap, BTreeSet};

use weir_model::{Direction, IpNet, Millis};

use super::blocked::blocked;
use super::packets::{alternatives, family, is_v4, single_ports};
use super::skeleton::{self, FILLED, MARK, TABLE};
use crate::enforcer::{Blocked, MANAGEMENT_MAX, Program, Refusal, short_hash, written};
use crate::rules::{NodeAction, Rule};

/// Most ports that one syn-proxy rule may name.
const SYN_PORTS_MAX: usize = 64;

/// Shortest destination prefix: a wider one is not a node's business.
const DST_LEN_MIN: u8 = 8;

/// Sources that one per-source meter remembers; its cap holds for the rest.
const METER_MAX: u32 = 65_535;

/// What the table holds at present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Present {
    pub(super) chains: BTreeSet<String>,
    pub(super) sets: BTreeSet<String>,
    pub(super) counters: BTreeSet<String>,
    /// Service keys in nft's words, in `svc4` and `svc6`.
    pub(super) services: BTreeSet<String>,
    /// Containers' addresses in nft's words, in `cst4` and `cst6`.
    pub(super) containers: BTreeSet<String>,
    /// Blocked sources, sorted; `None` when nobody knows.
    pub(super) blocked: Option<Vec<Blocked>>,
}

/// A transaction, and which rule each line belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) text: String,
    lines: Vec<Option<String>>,
    /// Rules written.
    pub(super) rules: Vec<String>,
    /// Rules that nft cannot express.
    pub(super) refused: Vec<Refusal>,
}

impl Script {
    fn line(&mut self, rule: Option<&str>, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.lines.extend(line.split('\n').map(|_| rule.map(str::to_owned)));
    }

    pub(super) fn add(&mut self, line: &str) {
        self.line(None, line);
    }

    /// The rule that a line (from 1) of the text was written for.
    pub(super) fn rule_at(&self, line: usize) -> Option<&str> {
        self.lines.get(line.checked_sub(1)?)?.as_deref()
    }
}

/// The name of a rule's chain: the same as long as what it does to its packets is the same, so that buckets,
/// meters and counters of an unchanged rule survive a new version.
pub(super) fn chain_of(rule: &Rule) -> String {
    let does =
        format!("{} {:?} {} {}", rule.id, rule.action, rule.spare_learned, is_v4(rule.packets.dst));
    format!("r_{}", short_hash(&does))
}

/// What a rule's counters are called: the rule's name alone, so that they go on when its limit changes.
pub(super) fn counters_of(rule: &Rule) -> String {
    short_hash(&rule.id)
}

/// Where a rule is found from `pre`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Door {
    /// By destination, leased.
    Leased,
    /// By destination, standing.
    Standing,
    /// By source, leased.
    Outbound,
}

impl Door {
    const ALL: [Self; 3] = [Self::Leased, Self::Standing, Self::Outbound];

    const fn of(rule: &Rule) -> Self {
        match (rule.direction, rule.expires) {
            (Direction::Outbound, _) => Self::Outbound,
            (Direction::Inbound, Some(_)) => Self::Leased,
            (Direction::Inbound, None) => Self::Standing,
        }
    }

    const fn map(self) -> &'static str {
        match self {
            Self::Leased => "disp",
            Self::Standing => "keep",
            Self::Outbound => "out",
        }
    }

    const fn chain(self) -> &'static str {
        match self {
            Self::Leased => "d",
            Self::Standing => "s",
            Self::Outbound => "o",
        }
    }

    fn map_of(self, net: IpNet) -> String {
        let host = net.prefix_len() == net.max_prefix_len();
        let v = if is_v4(net) { '4' } else { '6' };
        if host {
            format!("{}{v}", self.map())
        } else {
            format!("{}{v}_{}", self.map(), net.prefix_len())
        }
    }

    fn chain_of(self, net: IpNet) -> String {
        format!("{}_{}", self.chain(), short_hash(&net.to_string()))
    }
}

/// The address a rule is found by: whose traffic it is.
fn key(rule: &Rule) -> IpNet {
    match rule.direction {
        Direction::Inbound => rule.packets.dst,
        Direction::Outbound => rule.packets.src.unwrap_or(rule.packets.dst),
    }
}

/// What nft cannot do with a rule.
fn unsupported(rule: &Rule) -> Option<String> {
    let key = key(rule);
    if key.prefix_len() < DST_LEN_MIN {
        return Some(format!("{key} is wider than /{DST_LEN_MIN}"));
    }
    if matches!(rule.action, NodeAction::SynProxy { .. }) {
        if rule.direction == Direction::Outbound || rule.expires.is_none() {
            return Some("syn-proxy is inbound and leased".to_owned());
        }
        if key.prefix_len() < key.max_prefix_len() {
            return Some("syn-proxy is of one address".to_owned());
        }
        if single_ports(&rule.packets.dst_ports, SYN_PORTS_MAX).is_none() {
            return Some(format!("syn-proxy of more than {SYN_PORTS_MAX} ports"));
        }
    }
    None
}

/// Writes the transaction that turns what is present into the program. `repair` trusts nothing that is there:
/// buckets and counters begin anew, learned players stay as long as the frame does.
pub(super) fn compile(program: &Program, present: &Present, now: Millis, repair: bool) -> Script {
    let nothing = Present::default();
    let framed =
        present.chains.contains(MARK) && FILLED.iter().all(|chain| present.chains.contains(*chain));
    let mut script = Script::default();
    let present = if framed {
        present
    } else {
        skeleton::text().lines().for_each(|line| script.add(line));
        &nothing
    };
    let mut doors: BTreeMap<(Door, u8, IpNet), Vec<&Rule>> = BTreeMap::new();
    for rule in &program.rules {
        if let Some(why) = unsupported(rule) {
            script.refused.push(Refusal { rule: rule.id.clone(), why });
            continue;
        }
        script.rules.push(rule.id.clone());
        let key = key(rule);
        let shorter = key.max_prefix_len() - key.prefix_len();
        doors.entry((Door::of(rule), shorter, key)).or_default().push(rule);
    }
    let mut kept: BTreeSet<String> = doors.values().flatten().map(|r| chain_of(r)).collect();
    kept.extend(doors.keys().map(|(door, _, net)| door.chain_of(*net)));
    let counters = doors.values().flatten().map(|r| counters_of(r));
    kept.extend(counters.flat_map(|stem| [format!("c_{stem}"), format!("p_{stem}")]));
    clear(&mut script, present, &kept, repair, framed);
    management(&mut script, program);
    services(&mut script, program, present);
    blocked(&mut script, program, present, now);
    for rule in doors.values().flatten() {
        if repair || !present.chains.contains(&chain_of(rule)) {
            rule_chain(&mut script, rule, present);
        }
    }
    dispatch(&mut script, program, &doors, present, now);
    syn_proxies(&mut script, program, present, now);
    counting(&mut script, program);
    script
}

/// Empties what is written anew and removes what is no longer wanted: first everything that refers, then what
/// was referred to.
fn clear(
    script: &mut Script,
    present: &Present,
    kept: &BTreeSet<String>,
    repair: bool,
    framed: bool,
) {
    if !framed {
        return;
    }
    for chain in FILLED {
        script.add(&format!("flush chain inet {TABLE} {chain}"));
    }
    let doors = ["d_", "s_", "o_"];
    let is_door = |name: &&String| doors.iter().any(|d| name.starts_with(d));
    for chain in present.chains.iter().filter(is_door) {
        script.add(&format!("flush chain inet {TABLE} {chain}"));
    }
    let known = present.blocked.is_some();
    let volatile = |name: &str| {
        ["disp", "keep", "out", "syn", "mgmt"].iter().any(|p| name.starts_with(p))
            || (name.starts_with("blk") && !known)
    };
    for set in present.sets.iter().filter(|s| volatile(s)) {
        let kind =
            if ["disp", "keep", "out"].iter().any(|p| set.starts_with(p)) { "map" } else { "set" };
        script.add(&format!("flush {kind} inet {TABLE} {set}"));
    }
    let rules = present.chains.iter().filter(|c| c.starts_with("r_"));
    let gone: Vec<&String> = rules.filter(|c| repair || !kept.contains(*c)).collect();
    for chain in &gone {
        script.add(&format!("flush chain inet {TABLE} {chain}"));
    }
    // A packet that is under way when the generation changes finds the new element of a map but the rules of the
    // old generation: a chain made anew would be empty for it and let it pass (3 of 400,000 in 300 versions).
    for chain in present.chains.iter().filter(is_door).filter(|c| !kept.contains(*c)) {
        script.add(&format!("delete chain inet {TABLE} {chain}"));
    }
    for chain in gone {
        let stem = chain.trim_start_matches("r_");
        if kept.contains(chain) {
            continue;
        }
        script.add(&format!("delete chain inet {TABLE} {chain}"));
        let meter = format!("m_{stem}");
        if present.sets.contains(&meter) {
            script.add(&format!("delete set inet {TABLE} {meter}"));
        }
    }
    let own = |c: &&String| c.starts_with("c_") || c.starts_with("p_");
    for counter in present.counters.iter().filter(own).filter(|c| !kept.contains(*c)) {
        script.add(&format!("delete counter inet {TABLE} {counter}"));
    }
}

fn management(script: &mut Script, program: &Program) {
    for (set, v4) in [("mgmt4", true), ("mgmt6", false)] {
        let mut nets: Vec<IpNet> =
            program.management.iter().copied().filter(|n| is_v4(*n) == v4).collect();
        nets.truncate(MANAGEMENT_MAX);
        let list: Vec<String> = IpNet::aggregate(&nets).iter().map(ToString::to_string).collect();
        if !list.is_empty() {
            script.add(&format!("add element inet {TABLE} {set} {{ {} }}", list.join(", ")));
        }
    }
    for line in [
        "iif lo accept",
        "ip saddr @mgmt4 accept",
        "ip6 saddr @mgmt6 accept",
        "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert, nd-router-solicit } accept",
        "ip daddr . meta l4proto . th dport @svc4",
        "ip6 daddr . meta l4proto . th dport @svc6",
        "ip saddr @blk4 counter name blocked drop",
        "ip6 saddr @blk6 counter name blocked drop",
        "ip saddr @blkn4 counter name blocked drop",
        "ip6 saddr @blkn6 counter name blocked drop",
    ] {
        script.add(&format!("add rule inet {TABLE} pre {line}"));
    }
    for (v, ip) in [('4', "ip"), ('6', "ip6")] {
        if program.containers.iter().any(|a| a.is_ipv4() == (v == '4')) {
            script.add(&format!(
                "add rule inet {TABLE} pre {ip} saddr @cst{v} update @fan{v} {{ {ip} saddr . {ip} daddr }}"
            ));
        }
    }
    for line in ["oif lo accept", "ip daddr @mgmt4 accept", "ip6 daddr @mgmt6 accept"] {
        script.add(&format!("add rule inet {TABLE} own {line}"));
    }
}

/// Adds and removes only what differs: elements hold the counters.
fn services(script: &mut Script, program: &Program, present: &Present) {
    let wanted: BTreeSet<String> = program.services.iter().map(service_key).collect();
    differ(script, &["svc", "ans", "own"], &present.services, &wanted);
    let wanted: BTreeSet<String> = program.containers.iter().map(ToString::to_string).collect();
    differ(script, &["cst"], &present.containers, &wanted);
}

fn differ(
    script: &mut Script,
    sets: &[&str],
    present: &BTreeSet<String>,
    wanted: &BTreeSet<String>,
) {
    let mut change = |verb: &str, keys: &mut dyn Iterator<Item = &String>| {
        for key in keys {
            let v = if key.contains(':') { '6' } else { '4' };
            for set in sets {
                script.add(&format!("{verb} element inet {TABLE} {set}{v} {{ {key} }}"));
            }
        }
    };
    change("delete", &mut present.difference(wanted));
    change("add", &mut wanted.difference(present));
}

pub(super) fn service_key(s: &crate::protocol::Service) -> String {
    format!("{} . {} . {}", s.address, s.protocol, s.port)
}

/// What a rule does to a packet that it matches. Ends in a verdict: the first rule that matches decides, as in
/// a router.
fn rule_chain(script: &mut Script, rule: &Rule, present: &Present) {
    let chain = chain_of(rule);
    let stem = chain.trim_start_matches("r_").to_owned();
    let id = Some(rule.id.as_str());
    let ip = family(rule.packets.dst);
    let counters = counters_of(rule);
    script.line(id, &format!("add chain inet {TABLE} {chain}"));
    for counter in [format!("c_{counters}"), format!("p_{counters}")] {
        if !present.counters.contains(&counter) {
            script.line(id, &format!("add counter inet {TABLE} {counter}"));
        }
    }
    let meter = format!("m_{stem}");
    if matches!(rule.action, NodeAction::PerSource { .. }) && !present.sets.contains(&meter) {
        let address = if ip == "ip" { "ipv4_addr" } else { "ipv6_addr" };
        let flags = "flags dynamic,timeout; timeout 10s";
        script.line(
            id,
            &format!(
                "add set inet {TABLE} {meter} {{ type {address}; {flags}; size {METER_MAX}; }}"
            ),
        );
    }
    let dropped = format!("counter name c_{counters} drop comment \"weir:{}\"", rule.id);
    let passed = format!("counter name p_{counters} accept");
    let mut rule_line = |text: &str| {
        script.line(id, &format!("add rule inet {TABLE} {chain} {text}"));
    };
    if rule.spare_learned {
        let v = if is_v4(rule.packets.dst) { '4' } else { '6' };
        rule_line(&format!("{ip} saddr . meta l4proto . {ip} daddr . th dport @good{v} {passed}"));
    }
    let burst_of = |rate: u64| (rate / 10).clamp(5, 4_000_000_000);
    match rule.action {
        NodeAction::Drop => rule_line(&dropped),
        NodeAction::Accept | NodeAction::SynProxy { .. } => rule_line(&passed),
        NodeAction::RateBytes { bytes_per_sec } => {
            let burst = bytes_per_sec.clamp(1500, 65_536);
            rule_line(&format!(
                "limit rate over {bytes_per_sec} bytes/second burst {burst} bytes {dropped}"
            ));
            rule_line(&passed);
        }
        NodeAction::RatePackets { packets_per_sec: rate } => {
            let burst = burst_of(rate);
            rule_line(&format!("limit rate over {rate}/second burst {burst} packets {dropped}"));
            rule_line(&passed);
        }
        NodeAction::PerSource { packets_per_sec, burst, cap_packets_per_sec: cap } => {
            rule_line(&format!(
                "update @{meter} {{ {ip} saddr limit rate over {packets_per_sec}/second burst {burst} packets \
                 }} {dropped}"
            ));
            let burst = burst_of(cap);
            rule_line(&format!("limit rate over {cap}/second burst {burst} packets {dropped}"));
            rule_line(&passed);
        }
    }
}

fn dispatch(
    script: &mut Script,
    program: &Program,
    doors: &BTreeMap<(Door, u8, IpNet), Vec<&Rule>>,
    present: &Present,
    now: Millis,
) {
    let mut maps: BTreeSet<(Door, bool, u8)> = BTreeSet::new();
    for (door, _, net) in doors.keys() {
        if maps.insert((*door, is_v4(*net), net.max_prefix_len() - net.prefix_len()))
            && net.prefix_len() < net.max_prefix_len()
            && !present.sets.contains(&door.map_of(*net))
        {
            let address = if is_v4(*net) { "ipv4_addr" } else { "ipv6_addr" };
            let flags = if *door == Door::Standing { "interval" } else { "interval,timeout" };
            let map = door.map_of(*net);
            script.add(&format!(
                "add map inet {TABLE} {map} {{ type {address} : verdict; flags {flags}; }}"
            ));
        }
    }
    for ((door, _, net), rules) in doors {
        let chain = door.chain_of(*net);
        script.add(&format!("add chain inet {TABLE} {chain}"));
        for rule in rules {
            let until = rule.expires.map(|e| format!("meta time < {} ", e.0.div_ceil(1000)));
            let until = until.unwrap_or_default();
            let dst = if *door == Door::Outbound && rule.packets.dst.prefix_len() > 0 {
                format!("{} daddr {} ", family(*net), rule.packets.dst)
            } else {
                String::new()
            };
            for text in alternatives(&rule.packets) {
                let space = if text.is_empty() { "" } else { " " };
                let target = chain_of(rule);
                script.line(
                    Some(&rule.id),
                    &format!(
                        "add rule inet {TABLE} {chain} {dst}{text}{space}{until}goto {target} comment \
                         \"weir:{}:v{}.{}\"",
                        rule.id, program.version.0, program.version.1
                    ),
                );
            }
        }
        if let Some(line) = door_element(*door, *net, program.lease_until, now) {
            script.add(&line);
        }
    }
    for door in Door::ALL {
        // The longest prefixes first, as routers do.
        let lengths = maps.iter().filter(|(d, ..)| *d == door);
        let mut lengths: Vec<(bool, u8)> = lengths.map(|(_, v4, len)| (*v4, *len)).collect();
        lengths.sort_by_key(|(v4, shorter)| (!v4, *shorter));
        for (v4, shorter) in lengths {
            let (v, ip, max) = if v4 { ('4', "ip", 32) } else { ('6', "ip6", 128) };
            let suffix = if shorter == 0 { String::new() } else { format!("_{}", max - shorter) };
            let map = door.map();
            let field = if door == Door::Outbound { "saddr" } else { "daddr" };
            let line = format!("{ip} {field} vmap @{map}{v}{suffix}");
            script.add(&format!("add rule inet {TABLE} pre {line}"));
            if door == Door::Outbound {
                script.add(&format!("add rule inet {TABLE} own {line}"));
            }
            if door == Door::Outbound && program.translated {
                // A container's packets bear the node's address only here; others were counted at the door.
                let line = format!("ct status snat,dnat {line}");
                script.add(&format!("add rule inet {TABLE} answered {line}"));
            }
        }
    }
}

/// The element that leads to a destination's rules. Leased ones leave by themselves: that is what the kernel
/// does when agent and appliance are dead.
fn door_element(door: Door, net: IpNet, lease_until: Millis, now: Millis) -> Option<String> {
    let (map, chain) = (door.map_of(net), door.chain_of(net));
    let net = written(net);
    if door == Door::Standing {
        return Some(format!("add element inet {TABLE} {map} {{ {net} : jump {chain} }}"));
    }
    let secs = lease_until.since(now).div_ceil(1000);
    (secs > 0).then(|| {
        format!("add element inet {TABLE} {map} {{ {net} timeout {secs}s : jump {chain} }}")
    })
}

/// Writes the transaction that only prolongs the lease of what is in force: buckets, meters and counters are
/// not touched. Deleted and added in one step, because older kernels ignore a new timeout of an old element.
pub(super) fn renew(program: &Program, present: &Present, now: Millis) -> Script {
    let mut script = Script::default();
    let mut maps: BTreeSet<String> = BTreeSet::new();
    let mut lines: BTreeSet<String> = BTreeSet::new();
    for rule in program.rules.iter().filter(|r| unsupported(r).is_none()) {
        let door = Door::of(rule);
        let net = key(rule);
        if door == Door::Standing || !present.chains.contains(&door.chain_of(net)) {
            continue;
        }
        maps.insert(door.map_of(net));
        lines.extend(door_element(door, net, program.lease_until, now));
    }
    for map in maps {
        script.add(&format!("flush map inet {TABLE} {map}"));
    }
    for line in lines {
        script.add(&line);
    }
    for set in present.sets.iter().filter(|s| s.starts_with("syn")) {
        script.add(&format!("flush set inet {TABLE} {set}"));
    }
    for (set, element, _) in syn_elements(program, now) {
        if present.sets.contains(&set) {
            script.add(&format!("add element inet {TABLE} {set} {{ {element} }}"));
        }
    }
    script
}

/// Set name, element and rule of every service behind SYN cookies.
fn syn_elements(program: &Program, now: Millis) -> Vec<(String, String, &Rule)> {
    let mut found = Vec::new();
    for rule in program.rules.iter().filter(|r| unsupported(r).is_none()) {
        let NodeAction::SynProxy { mss, wscale } = rule.action else { continue };
        let until = rule.expires.map_or(program.lease_until, |e| e.min(program.lease_until));
        let secs = until.since(now).div_ceil(1000);
        if secs == 0 {
            continue;
        }
        let v = if is_v4(rule.packets.dst) { '4' } else { '6' };
        let address = rule.packets.dst.addr();
        for port in single_ports(&rule.packets.dst_ports, SYN_PORTS_MAX).unwrap_or_default() {
            found.push((
                format!("syn{v}_{mss}_{wscale}"),
                format!("{address} . {port} timeout {secs}s"),
                rule,
            ));
        }
    }
    found
}

/// SYNs bypass conntrack, so they are delivered to the host itself whatever NAT says; there the proxy answers,
/// and its own second handshake goes through output and NAT to the service. No `timestamp`: with it kernels
/// since 6.x reject what the proxy echoes and every connection stalls.
fn syn_proxies(script: &mut Script, program: &Program, present: &Present, now: Millis) {
    let elements = syn_elements(program, now);
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for (set, _, rule) in &elements {
        if !done.insert(set) {
            continue;
        }
        let NodeAction::SynProxy { mss, wscale } = rule.action else { continue };
        let (ip, address) =
            if is_v4(rule.packets.dst) { ("ip", "ipv4_addr") } else { ("ip6", "ipv6_addr") };
        let id = Some(rule.id.as_str());
        if !present.sets.contains(set) {
            script.line(
                id,
                &format!(
                    "add set inet {TABLE} {set} {{ type {address} . inet_service; flags timeout; }}"
                ),
            );
        }
        let gate = format!("{ip} daddr . tcp dport @{set}");
        for line in [
            format!("syn_pre {gate} tcp flags & 0x17 == 0x2 notrack"),
            format!(
                "syn_in {gate} ct state invalid,untracked synproxy mss {mss} wscale {wscale} sack-perm"
            ),
            format!("syn_in {gate} ct state invalid drop"),
        ] {
            script.line(id, &format!("add rule inet {TABLE} {line}"));
        }
    }
    for (set, element, rule) in &elements {
        script.line(Some(&rule.id), &format!("add element inet {TABLE} {set} {{ {element} }}"));
    }
}

/// Learning players and counting answers; without services neither has anything to do.
fn counting(script: &mut Script, program: &Program) {
    if program.services.is_empty() {
        return;
    }
    for (v, ip) in [('4', "ip"), ('6', "ip6")] {
        script.add(&format!(
            "add rule inet {TABLE} answered {ip} saddr . meta l4proto . th sport @ans{v}"
        ));
        if !program.learn {
            continue;
        }
        // nft knows what `proto-dst` is only after it knows the protocol.
        for (chain, protocol) in
            ["learn_fwd", "learn_in"].into_iter().flat_map(|c| [(c, "udp"), (c, "tcp")])
        {
            script.add(&format!(
                "add rule inet {TABLE} {chain} ct direction original ct status assured meta l4proto {protocol} \
                 ct original {ip} daddr . meta l4proto . ct original proto-dst @own{v} \
                 update @good{v} {{ {ip} saddr . meta l4proto . ct original {ip} daddr . ct original proto-dst }}"
            ));
        }
    }
}

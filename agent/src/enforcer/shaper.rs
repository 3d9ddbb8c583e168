//! Shaping with tc: what a server sends above its limit waits in a queue instead of being dropped.
//!
//! An addition to another backend, for outbound limits in octets only, where the configuration asks for it. An
//! htb at the root of the uplink, one class a rule with a small tbf in it, u32 filters on the source as it
//! leaves the host, so behind NAT. A root queue of somebody else's is not touched. tc knows no end: the agent
//! takes a class away when its rule ends, and at its own start.

use std::fmt::Write as _;

use weir_model::{Direction, IpNet, Range};

use super::{EnforceError, Refusal, run};
use crate::rules::{NodeAction, Rule};

/// Handle of weir's root: its name in front of every class.
const ROOT: &str = "a11e:";

/// Root queues that the kernel puts there by itself and that may be replaced.
const DEFAULTS: [&str; 6] = ["noqueue", "pfifo_fast", "fq_codel", "mq", "fq", "pfifo"];

/// Rate of what no rule limits, bits a second: more than any link.
const UNLIMITED: &str = "100gbit";

/// Most filters that one rule may become.
const FILTERS_MAX: usize = 64;

/// The shaper of one interface.
#[derive(Debug)]
pub struct Shaper {
    interface: String,
    present: bool,
}

impl Shaper {
    /// Opens it on an interface and takes away what a dead agent has left.
    ///
    /// # Errors
    /// When the interface has a queue of somebody else's, or tc may not be used.
    pub fn open(interface: &str) -> Result<Self, EnforceError> {
        let text = run("tc", &["qdisc", "show", "dev", interface], "")?;
        let root = text.lines().find(|l| l.contains(" root"));
        let kind = root.and_then(|l| l.split(' ').nth(1)).unwrap_or("noqueue");
        let ours = root.is_some_and(|l| l.contains(&format!("htb {ROOT} root")));
        if !ours && !DEFAULTS.contains(&kind) {
            let why = format!("{interface} has a queue of another program's: {kind}");
            return Err(EnforceError::Refused(why));
        }
        let mut shaper = Self { interface: interface.to_owned(), present: ours };
        shaper.clear()?;
        Ok(shaper)
    }

    /// Whether a rule is for this backend rather than for the main one.
    pub const fn is_for(rule: &Rule) -> bool {
        matches!((rule.direction, rule.action), (Direction::Outbound, NodeAction::RateBytes { .. }))
    }

    /// Puts the rules in force; names those that tc cannot express.
    ///
    /// # Errors
    /// When tc refuses; then nothing is shaped.
    pub fn apply(&mut self, rules: &[&Rule]) -> Result<Vec<Refusal>, EnforceError> {
        let (text, refused) = script(&self.interface, rules);
        self.clear()?;
        if !text.is_empty() {
            self.present = true;
            if let Err(error) = run("tc", &["-batch", "-"], &text) {
                self.clear()?;
                return Err(error);
            }
        }
        Ok(refused)
    }

    /// Takes everything away.
    ///
    /// # Errors
    /// When tc refuses.
    pub fn clear(&mut self) -> Result<(), EnforceError> {
        if std::mem::take(&mut self.present) {
            run("tc", &["qdisc", "del", "dev", &self.interface, "root"], "")?;
        }
        Ok(())
    }
}

fn script(interface: &str, rules: &[&Rule]) -> (String, Vec<Refusal>) {
    let mut text = String::new();
    let mut refused = Vec::new();
    let classes = rules.iter().filter_map(|rule| match filters(rule) {
        Ok(filters) => Some((rule, filters)),
        Err(why) => {
            refused.push(Refusal { rule: rule.id.clone(), why: why.to_owned() });
            None
        }
    });
    for (number, (rule, filters)) in (2_u16..=4000).zip(classes) {
        let NodeAction::RateBytes { bytes_per_sec } = rule.action else { continue };
        if text.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "qdisc add dev {interface} root handle {ROOT} htb default 1");
            let _ = writeln!(
                text,
                "class add dev {interface} parent {ROOT} classid {ROOT}1 htb rate {UNLIMITED} quantum 200000"
            );
        }
        let rate = bytes_per_sec.max(125);
        let burst = (rate / 50).clamp(3000, 1 << 20);
        let _ = writeln!(
            text,
            "class add dev {interface} parent {ROOT} classid {ROOT}{number:x} htb rate {}bit burst {burst} \
             quantum 3000",
            rate * 8
        );
        let _ = writeln!(
            text,
            "qdisc add dev {interface} parent {ROOT}{number:x} handle {number:x}: tbf rate {}bit burst {burst} \
             latency 50ms",
            rate * 8
        );
        let (protocol, preference) =
            if rule.packets.dst.addr().is_ipv4() { ("ip", 4) } else { ("ipv6", 6) };
        for filter in filters {
            let _ = writeln!(
                text,
                "filter add dev {interface} parent {ROOT} protocol {protocol} prio {preference} u32{filter} \
                 flowid {ROOT}{number:x}"
            );
        }
    }
    (text, refused)
}

/// A rule's u32 filters.
fn filters(rule: &Rule) -> Result<Vec<String>, &'static str> {
    let m = &rule.packets;
    let ip = if m.dst.addr().is_ipv4() { "ip" } else { "ip6" };
    let other = !m.icmp_types.is_empty()
        || !m.icmp_codes.is_empty()
        || !m.tcp_flags.is_empty()
        || !m.lengths.is_empty()
        || !m.dscps.is_empty()
        || m.fragment.is_some();
    if other {
        return Err("tc's u32 looks at addresses, protocol and ports only");
    }
    let exact = |list: &[Range]| list.iter().all(|r| r.from == r.to);
    if !exact(&m.src_ports) || !exact(&m.dst_ports) {
        return Err("tc's u32 knows single ports, no ranges");
    }
    let ports = !m.src_ports.is_empty() || !m.dst_ports.is_empty();
    if ports && m.protocols.is_empty() {
        return Err("tc's u32 needs the protocol whose ports are meant");
    }
    let side = |name: &str, net: Option<IpNet>| {
        let net = net.filter(|n| n.prefix_len() > 0);
        net.map(|n| format!(" match {ip} {name} {n}")).unwrap_or_default()
    };
    let mut filters = vec![side("src", m.src) + &side("dst", Some(m.dst))];
    let mut times = |choices: Vec<String>| {
        if !choices.is_empty() {
            let joined = |f: &String| choices.iter().map(|c| format!("{f}{c}")).collect::<Vec<_>>();
            filters = filters.iter().flat_map(joined).take(FILTERS_MAX + 1).collect();
        }
    };
    times(m.protocols.iter().map(|p| format!(" match {ip} protocol {p} 0xff")).collect());
    let port = |name: &str, r: &Range| format!(" match {ip} {name} {} 0xffff", r.from);
    times(m.src_ports.iter().map(|r| port("sport", r)).collect());
    times(m.dst_ports.iter().map(|r| port("dport", r)).collect());
    if filters.len() > FILTERS_MAX { Err("more filters than are sensible") } else { Ok(filters) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::Match;

    #[test]
    fn a_limit_is_a_class_with_its_filters_or_is_refused() {
        let mut packets = Match::to("0.0.0.0/0".parse().unwrap());
        packets.src = Some("203.0.113.7/32".parse().unwrap());
        packets.protocols = vec![17];
        packets.src_ports = vec![Range::exact(27015)];
        let mut rule = Rule {
            id: "o".into(),
            direction: Direction::Outbound,
            packets,
            action: NodeAction::RateBytes { bytes_per_sec: 1_000_000 },
            spare_learned: false,
            expires: None,
        };
        assert!(Shaper::is_for(&rule));
        let (text, refused) = script("eth0", &[&rule]);
        assert_eq!(refused, []);
        assert!(text.contains("htb rate 8000000bit"), "{text}");
        let filter = "u32 match ip src 203.0.113.7/32 match ip protocol 17 0xff match ip sport 27015 0xffff flowid a11e:2";
        assert!(text.contains(filter), "{text}");
        rule.packets.src_ports = vec![Range { from: 1, to: 9 }];
        let (text, refused) = script("eth0", &[&rule]);
        assert_eq!((text.as_str(), refused.len()), ("", 1));
        rule.action = NodeAction::RatePackets { packets_per_sec: 9 };
        assert!(!Shaper::is_for(&rule), "tc counts octets");
    }
}

//! ExaBGP 4 through its named pipes: text commands in, what it holds out.
//!
//! ExaBGP answers `done` to rules that it could not read, and for withdrawals of what is not
//! there, so that nothing is believed but `show adj-rib out extensive`. Each route carries, in
//! weir's mark, a number made of its content: by it weir knows its own, wanted or not. ExaBGP is
//! never reloaded: that would drop every route that came over the pipes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::time::timeout;
use weir_model::{FlagMatch, FragmentMatch, IpNet, Match, Measure, Range};

use super::{
    AdapterConfig, AdapterError, MARK, PATIENCE, Refused, TAKEN, Wanted, action_community, number,
};
use crate::config::Community;
use crate::rib::{Route, RouteKey};

/// Longest answer that is read, octets: some 50,000 routes.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// Changes in one pass; the read-back after it sees to the rest.
const CHANGES_MAX: usize = 20_000;

/// A route of weir's that ExaBGP holds: what withdraws it, by number.
type Present = BTreeMap<u32, String>;

/// Brings ExaBGP to what is wanted, and reads back that it is.
pub(super) async fn converge(
    config: &AdapterConfig,
    wanted: &Wanted,
) -> Result<Refused, AdapterError> {
    let mut pipes = Pipes::open(config.control())?;
    // Twice: changes, and a look at what became of them.
    for _ in 0..2 {
        let text = pipes.ask("show adj-rib out extensive").await?;
        let (wanted, refused) = split(config, wanted, &text);
        let mut left = false;
        for neighbor in &config.neighbors {
            let present = read(config, *neighbor, &text);
            for command in changes(config, *neighbor, &wanted, &present) {
                left = true;
                pipes.ask(&command).await?;
            }
        }
        if !left {
            return Ok(refused);
        }
    }
    let text = pipes.ask("show adj-rib out extensive").await?;
    let (wanted, refused) = split(config, wanted, &text);
    let missing = config.neighbors.iter().find_map(|neighbor| {
        let present = read(config, *neighbor, &text);
        changes(config, *neighbor, &wanted, &present).into_iter().next()
    });
    match missing {
        Some(command) => Err(AdapterError::Refused(format!("not done: {command}"))),
        None => Ok(refused),
    }
}

/// What can be had: a unicast route of the operator's to the same destination stays. Rules are not
/// compared: ExaBGP prints them in words that are not weir's.
pub(super) fn split(config: &AdapterConfig, wanted: &Wanted, text: &str) -> (Wanted, Refused) {
    let mark = format!("{}:{MARK}:", config.local_as);
    let operators: BTreeSet<IpNet> = text
        .lines()
        .filter(|l| !l.contains(&mark))
        .filter_map(|l| l.split_once(" unicast ")?.1.split(' ').next()?.parse().ok())
        .collect();
    let taken = |key: &RouteKey| matches!(key, RouteKey::Unicast(net) if operators.contains(net));
    let refused = wanted.keys().filter(|k| taken(k)).map(|k| (k.clone(), TAKEN.to_owned()));
    let wanted = wanted.iter().filter(|(k, _)| !taken(k)).map(|(k, r)| (k.clone(), r.clone()));
    (wanted.collect(), refused.collect())
}

struct Pipes {
    commands: pipe::Sender,
    answers: pipe::Receiver,
}

impl Pipes {
    fn open(base: PathBuf) -> io::Result<Self> {
        let with = |suffix: &str| {
            let mut path = base.clone().into_os_string();
            path.push(suffix);
            path
        };
        // The reading end first: ExaBGP answers into the void otherwise. Opened for both ways,
        // because ExaBGP opens its end only to answer: without a writer the pipe reads as ended.
        let answers = pipe::OpenOptions::new().read_write(true).open_receiver(with(".out"))?;
        // What was meant for an earlier question must not answer the next one.
        let mut stale = [0; 4096];
        while answers.try_read(&mut stale).is_ok_and(|n| n > 0) {}
        let commands = pipe::OpenOptions::new().open_sender(with(".in"))?;
        Ok(Self { commands, answers })
    }

    /// One command, and its answer up to `done` or `error`.
    async fn ask(&mut self, command: &str) -> Result<String, AdapterError> {
        timeout(PATIENCE, self.exchange(command)).await.map_err(|_| AdapterError::Timeout)?
    }

    async fn exchange(&mut self, command: &str) -> Result<String, AdapterError> {
        self.commands.write_all(format!("{command}\n").as_bytes()).await?;
        let mut answer = Vec::new();
        let mut octets = vec![0; 64 * 1024];
        while answer.len() < ANSWER_MAX {
            let n = self.answers.read(&mut octets).await?;
            if n == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            answer.extend_from_slice(&octets[..n]);
            let text = String::from_utf8_lossy(&answer);
            match text.lines().last() {
                Some("done") if text.ends_with('\n') => return Ok(text.into_owned()),
                Some("error") if text.ends_with('\n') => {
                    return Err(AdapterError::Refused(command.to_owned()));
                }
                _ => {}
            }
        }
        Err(AdapterError::Refused("an answer without an end".to_owned()))
    }
}

/// What `show adj-rib out extensive` says of weir's own routes towards a neighbour.
pub(super) fn read(config: &AdapterConfig, neighbor: IpAddr, text: &str) -> Present {
    let mark = format!("{}:{MARK}:", config.local_as);
    let head = format!("neighbor {neighbor} ");
    let mut present = Present::new();
    for line in text.lines().filter(|l| l.starts_with(&head)) {
        let Some(number) = line
            .split([' ', '[', ']'])
            .find_map(|word| word.strip_prefix(&mark))
            .and_then(|n| n.parse().ok())
        else {
            continue;
        };
        let end = |text: &str| {
            let attributes = [" next-hop", " community", " extended-community", " large-community"];
            let end = attributes.iter().filter_map(|a| text.find(a)).min().unwrap_or(text.len());
            text[..end].to_owned()
        };
        let withdrawal = if let Some((_, rule)) = line.split_once(" flow flow ") {
            format!("{head}withdraw flow route {}", end(rule))
        } else if let Some((_, route)) = line.split_once(" unicast ") {
            let hop = route.split_once("next-hop ").and_then(|(_, r)| r.split(' ').next());
            format!("{head}withdraw route {} next-hop {}", end(route), hop.unwrap_or("self"))
        } else {
            continue;
        };
        present.insert(number, withdrawal);
    }
    present
}

/// What is to be said to a neighbour: announcements, then withdrawals. ExaBGP replaces a rule that
/// has the same packets by itself, but its withdrawal would then take the new one too.
pub(super) fn changes(
    config: &AdapterConfig,
    neighbor: IpAddr,
    wanted: &Wanted,
    present: &Present,
) -> Vec<String> {
    let numbered = numbered(wanted, |key, route| number(config, key, route));
    let obsolete = present.iter().filter(|(n, _)| !numbered.contains_key(n));
    let mut commands: Vec<String> = obsolete.map(|(_, command)| command.clone()).collect();
    commands.sort();
    for (number, (_, route)) in numbered.iter().filter(|(n, _)| !present.contains_key(n)) {
        commands.push(announce(config, neighbor, route, *number));
    }
    commands.truncate(CHANGES_MAX);
    commands
}

/// Routes by number. Two that come to the same one are told apart by their order: of thousands, some may.
fn numbered(
    wanted: &Wanted,
    number: impl Fn(&RouteKey, &Route) -> u32,
) -> BTreeMap<u32, (&RouteKey, &Route)> {
    let mut numbered = BTreeMap::new();
    for (key, route) in wanted {
        let mut at = number(key, route);
        while numbered.contains_key(&at) {
            at = at.wrapping_add(1);
        }
        numbered.insert(at, (key, route));
    }
    numbered
}

fn announce(config: &AdapterConfig, neighbor: IpAddr, route: &Route, number: u32) -> String {
    let mark = format!("large-community [ {}:{MARK}:{number} ]", config.local_as);
    match &route.measure {
        Measure::FlowSpec(filter) => {
            let mut then = String::new();
            if let Some(octets) = action_community(route).0 {
                let _ = write!(then, "extended-community [ 0x{} ]; ", hex(&octets));
            }
            format!(
                "neighbor {neighbor} announce flow route {{ match {{ {}}} then {{ {then}{mark}; }} }}",
                packets(&filter.packets)
            )
        }
        Measure::Blackhole(net) | Measure::Scrub(net) | Measure::Divert(net) => {
            let mut attributes = String::new();
            let texts = |f: fn(&Community) -> Option<String>| {
                config.communities.iter().filter_map(f).collect::<Vec<_>>().join(" ")
            };
            let standard = texts(|c| matches!(c, Community::Standard(_)).then(|| c.to_string()));
            if !standard.is_empty() {
                let _ = write!(attributes, "community [ {standard} ] ");
            }
            let extended = texts(|c| match c {
                Community::Extended(octets) => Some(format!("0x{}", hex(octets))),
                Community::Standard(_) | Community::Large(_) => None,
            });
            if !extended.is_empty() {
                let _ = write!(attributes, "extended-community [ {extended} ] ");
            }
            format!(
                "neighbor {neighbor} announce route {net} next-hop {} {attributes}{mark}",
                config.next_hop(*net)
            )
        }
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

fn packets(m: &Match) -> String {
    let v4 = matches!(m.dst, IpNet::V4(_));
    // IPv6 prefixes have an offset in ExaBGP's language.
    let prefix = |net: IpNet| if v4 { net.to_string() } else { format!("{net}/0") };
    let mut text = format!("destination {}; ", prefix(m.dst));
    if let Some(src) = m.src {
        let _ = write!(text, "source {}; ", prefix(src));
    }
    let mut list = |name: &str, items: Vec<String>| {
        if !items.is_empty() {
            let _ = write!(text, "{name} [ {} ]; ", items.join(" "));
        }
    };
    let values = |v: &[u8]| v.iter().map(|v| format!("={v}")).collect::<Vec<_>>();
    let ranges = |v: &[Range]| v.iter().map(range).collect::<Vec<_>>();
    list(if v4 { "protocol" } else { "next-header" }, values(&m.protocols));
    list("destination-port", ranges(&m.dst_ports));
    list("source-port", ranges(&m.src_ports));
    list("icmp-type", values(&m.icmp_types));
    list("icmp-code", values(&m.icmp_codes));
    list("tcp-flags", m.tcp_flags.iter().map(flags).collect());
    list("packet-length", ranges(&m.lengths));
    list(if v4 { "dscp" } else { "traffic-class" }, values(&m.dscps));
    list("fragment", m.fragment.iter().map(|f| fragment(*f).to_owned()).collect());
    text
}

fn range(r: &Range) -> String {
    match (r.from, r.to) {
        (from, to) if from == to => format!("={from}"),
        (0, to) if to != u16::MAX => format!("<={to}"),
        (from, u16::MAX) => format!(">={from}"),
        (from, to) => format!(">={from}&<={to}"),
    }
}

fn flags(f: &FlagMatch) -> String {
    const NAMES: [&str; 8] = ["fin", "syn", "rst", "push", "ack", "urgent", "ece", "cwr"];
    let names = |bits: u8| {
        NAMES.iter().enumerate().filter(move |(i, _)| bits >> i & 1 == 1).map(|(_, name)| *name)
    };
    let on = names(f.set).collect::<Vec<_>>().join("+");
    let off = names(f.mask & !f.set).map(|n| format!("!{n}"));
    let on = (!on.is_empty()).then(|| format!("={on}"));
    on.into_iter().chain(off).collect::<Vec<_>>().join("&")
}

const fn fragment(f: FragmentMatch) -> &'static str {
    match f {
        FragmentMatch::IsFragment => "=is-fragment",
        FragmentMatch::NotFragment => "!is-fragment&!first-fragment",
        FragmentMatch::First => "=first-fragment",
        FragmentMatch::Last => "=last-fragment",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_one_number_are_told_apart() {
        let nets = ["203.0.113.1/32", "203.0.113.2/32", "203.0.113.3/32"];
        let nets = nets.map(|net| net.parse::<IpNet>().unwrap());
        let route = |net| Route { measure: Measure::Blackhole(net), incident: 0 };
        let wanted: Wanted = nets.map(|net| (RouteKey::Unicast(net), route(net))).into();
        let found = numbered(&wanted, |_, _| u32::MAX);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0, 1, u32::MAX]);
        assert_eq!(*found[&u32::MAX].0, RouteKey::Unicast(nets[0]));
    }
}

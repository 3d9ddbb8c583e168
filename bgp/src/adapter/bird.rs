//! BIRD 2: one generated include with four static protocols, checked before it is loaded.
//!
//! The operator's own configuration defines the tables `weir4`, `weir6`, `weirf4` and `weirf6`,
//! exports them to the routers with `next hop keep`, and includes the file. Everything in the file
//! is weir's, and a weir that starts writes and loads it anew. BIRD has no way to let a route
//! expire: should weir be killed, the routes stay until it is back, or [`super::release`] is
//! called. Below `/run` the file does not outlive a boot.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;
use weir_model::{FlagMatch, FragmentMatch, IpNet, Match, Measure, Range};

use super::{AdapterConfig, AdapterError, MARK, PATIENCE, Wanted, action_community};
use crate::config::Community;
use crate::rib::Route;
use crate::wire::Family;

/// Longest answer that is read, octets.
const ANSWER_MAX: usize = 256 * 1024;

/// Brings BIRD to what is wanted. `loaded` says that BIRD has read the file since it was written:
/// a weir that was killed, or a BIRD that was away, may have left that undone.
pub(super) async fn converge(
    config: &AdapterConfig,
    wanted: &Wanted,
    loaded: &mut bool,
) -> Result<(), AdapterError> {
    let Some(path) = &config.include else { return Ok(()) };
    let text = generate(config, wanted);
    let before = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let control = config.control();
    let same = before.as_deref() == Some(&text);
    if same && *loaded {
        // A BIRD that was restarted has read it too; all that is to be known is that it runs.
        ask(&control, "show status").await?;
        return Ok(());
    }
    *loaded = false;
    if !same {
        replace(path, &text)?;
    }
    if let Err(error) = ask(&control, "configure check").await {
        // Never leave a file that would keep BIRD from starting.
        if let (Some(before), AdapterError::Refused(_)) = (before, &error) {
            replace(path, &before)?;
        }
        return Err(error);
    }
    ask(&control, "configure").await?;
    *loaded = true;
    Ok(())
}

/// Never a file in part: BIRD may read it at any time.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path)
}

/// One command over BIRD's control socket: lines `CODE-text` and at last `CODE text`; codes from
/// 8000 on are refusals.
async fn ask(control: &Path, command: &str) -> Result<String, AdapterError> {
    timeout(PATIENCE, exchange(control, command)).await.map_err(|_| AdapterError::Timeout)?
}

async fn exchange(control: &Path, command: &str) -> Result<String, AdapterError> {
    let mut stream = BufReader::new(UnixStream::connect(control).await?);
    read_answer(&mut stream).await?;
    stream.write_all(format!("{command}\n").as_bytes()).await?;
    read_answer(&mut stream).await
}

async fn read_answer(stream: &mut BufReader<UnixStream>) -> Result<String, AdapterError> {
    let mut text = String::new();
    let mut line = String::new();
    while text.len() < ANSWER_MAX {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        text.push_str(&line);
        let code = line.get(..4).and_then(|c| c.parse::<u16>().ok());
        match (code, line.as_bytes().get(4)) {
            (Some(8000..), _) => return Err(AdapterError::Refused(line.trim().to_owned())),
            (Some(_), Some(b' ')) => return Ok(text),
            _ => {}
        }
    }
    Err(AdapterError::Refused("an answer without an end".to_owned()))
}

/// The include file.
pub fn generate(config: &AdapterConfig, wanted: &Wanted) -> String {
    let mut text = String::from("# Written by weir; changes are overwritten.\n");
    for (family, protocol, channel, table) in [
        (Family::Ipv4Unicast, "weir_v4", "ipv4", "weir4"),
        (Family::Ipv6Unicast, "weir_v6", "ipv6", "weir6"),
        (Family::Ipv4FlowSpec, "weir_f4", "flow4", "weirf4"),
        (Family::Ipv6FlowSpec, "weir_f6", "flow6", "weirf6"),
    ] {
        if !config.families.contains(&family) {
            continue;
        }
        let _ = writeln!(text, "protocol static {protocol} {{ {channel} {{ table {table}; }};");
        for (_, route) in wanted.iter().filter(|(key, _)| key.family() == family) {
            text.push_str(&self::route(config, channel, route));
        }
        text.push_str("}\n");
    }
    text
}

fn route(config: &AdapterConfig, channel: &str, route: &Route) -> String {
    let mut attributes = String::new();
    let head = match &route.measure {
        Measure::Blackhole(net) => {
            let _ = write!(attributes, " bgp_next_hop = {};", config.next_hop(*net));
            for community in &config.communities {
                attributes.push_str(&attribute(*community));
            }
            format!("{net} blackhole")
        }
        Measure::FlowSpec(filter) => {
            if let Some(octets) = action_community(route).0 {
                attributes.push_str(&attribute(Community::Extended(octets)));
            }
            format!("{channel} {{ {}}}", packets(&filter.packets))
        }
        Measure::Scrub(_) | Measure::Divert(_) => return String::new(),
    };
    format!(
        "  route {head} {{{attributes} bgp_large_community.add(({}, {MARK}, {})); }};\n",
        config.local_as, route.incident
    )
}

fn attribute(community: Community) -> String {
    match community {
        Community::Standard(v) => {
            format!(" bgp_community.add(({}, {}));", v >> 16, v & 0xffff)
        }
        Community::Extended([a, b, c, d, e, f, g, h]) => {
            let (high, low) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
            format!(" bgp_ext_community.add((generic, {high:#x}, {low:#x}));")
        }
        Community::Large(c) => {
            format!(" bgp_large_community.add(({}, {}, {}));", c.asn, c.first, c.second)
        }
    }
}

fn packets(m: &Match) -> String {
    let mut text = format!("dst {}; ", m.dst);
    if let Some(src) = m.src {
        let _ = write!(text, "src {src}; ");
    }
    let protocol = if matches!(m.dst, IpNet::V4(_)) { "proto" } else { "next header" };
    let mut list = |name: &str, items: Vec<String>, joint: &str| {
        if !items.is_empty() {
            let _ = write!(text, "{name} {}; ", items.join(joint));
        }
    };
    let values = |v: &[u8]| v.iter().map(ToString::to_string).collect::<Vec<_>>();
    let ranges = |v: &[Range]| v.iter().map(range).collect::<Vec<_>>();
    list(protocol, values(&m.protocols), ",");
    list("dport", ranges(&m.dst_ports), ",");
    list("sport", ranges(&m.src_ports), ",");
    list("icmp type", values(&m.icmp_types), ",");
    list("icmp code", values(&m.icmp_codes), ",");
    list("tcp flags", m.tcp_flags.iter().map(flags).collect(), ",");
    list("length", ranges(&m.lengths), ",");
    list("dscp", values(&m.dscps), ",");
    list("fragment", m.fragment.iter().map(|f| fragment(*f).to_owned()).collect(), "");
    text
}

fn range(r: &Range) -> String {
    if r.from == r.to { r.from.to_string() } else { format!("{}..{}", r.from, r.to) }
}

fn flags(f: &FlagMatch) -> String {
    let off = f.mask & !f.set;
    match (f.set, off) {
        (set, 0) => format!("{set:#x}/{set:#x}"),
        (0, off) => format!("0x0/{off:#x}"),
        (set, off) => format!("{set:#x}/{set:#x} && 0x0/{off:#x}"),
    }
}

const fn fragment(f: FragmentMatch) -> &'static str {
    match f {
        FragmentMatch::IsFragment => "is_fragment",
        FragmentMatch::NotFragment => "!is_fragment && !first_fragment",
        FragmentMatch::First => "first_fragment",
        FragmentMatch::Last => "last_fragment",
    }
}

//! [`Match`] in iptables' words, or why it has none.

use weir_model::{FlagMatch, IpNet, Match, Millis, Range};

use super::Place;
use crate::rules::PORT_PROTOCOLS;

/// Most lines that one rule may become.
const LINES_MAX: usize = 64;

/// Ports of one multiport match; a range counts twice.
const MULTIPORT_MAX: usize = 15;

/// The match as alternatives, each the beginning of one line.
///
/// # Errors
/// What iptables cannot see where weir hooks in.
pub(super) fn alternatives(m: &Match, place: Place, outbound: bool) -> Result<Vec<String>, String> {
    if m.fragment.is_some() {
        return Err("fragments are put together before iptables sees them".to_owned());
    }
    if !m.lengths.is_empty() {
        return Err("iptables sees the length of the whole, not of each fragment".to_owned());
    }
    if m.icmp_types.is_empty() && !m.icmp_codes.is_empty() {
        return Err("iptables has no ICMP code without its type".to_owned());
    }
    let mut lines = vec![addresses(m, place, outbound)];
    let mut times = |choices: Vec<String>| {
        if !choices.is_empty() {
            let joined =
                |line: &String| choices.iter().map(|c| format!("{line}{c}")).collect::<Vec<_>>();
            lines = lines.iter().flat_map(joined).take(LINES_MAX + 1).collect();
        }
    };
    times(protocols(m));
    times(ports(&m.src_ports, "--sports"));
    times(destination_ports(&m.dst_ports, place, outbound));
    times(icmp(m));
    times(m.tcp_flags.iter().map(flags).collect::<Result<_, _>>()?);
    times(m.dscps.iter().map(|d| format!(" -m dscp --dscp {d}")).collect());
    if lines.len() > LINES_MAX {
        return Err(format!("more than {LINES_MAX} lines of iptables"));
    }
    Ok(lines)
}

fn addresses(m: &Match, place: Place, outbound: bool) -> String {
    let wide = |net: &IpNet| net.prefix_len() == 0;
    let source = m.src.filter(|s| !wide(s)).map(|s| format!(" -s {s}")).unwrap_or_default();
    let target = match place {
        _ if wide(&m.dst) => String::new(),
        // NAT has been here: what the packet was sent to stands in its connection.
        Place::DockerUser if !outbound => {
            format!(" -m conntrack --ctdir ORIGINAL --ctorigdst {}", m.dst)
        }
        Place::Raw | Place::DockerUser => format!(" -d {}", m.dst),
    };
    source + &target
}

fn protocols(m: &Match) -> Vec<String> {
    let ports = !m.dst_ports.is_empty() || !m.src_ports.is_empty();
    let icmp_number = if m.dst.addr().is_ipv4() { 1 } else { 58 };
    let with: &[u8] = if !m.tcp_flags.is_empty() {
        &[6]
    } else if ports {
        &PORT_PROTOCOLS
    } else if !m.icmp_types.is_empty() {
        &[icmp_number]
    } else {
        &[]
    };
    let own = m.protocols.iter().copied();
    let list: Vec<u8> = match (with.is_empty(), m.protocols.is_empty()) {
        (true, _) => own.collect(),
        (false, true) => with.iter().copied().filter(|p| [1, 6, 17, 58].contains(p)).collect(),
        (false, false) => own.filter(|p| with.contains(p)).collect(),
    };
    list.iter().map(|p| format!(" -p {p}")).collect()
}

fn ports(list: &[Range], option: &str) -> Vec<String> {
    let mut groups: Vec<Vec<String>> = Vec::new();
    let mut room = 0;
    for range in list {
        let weight = if range.from == range.to { 1 } else { 2 };
        if room < weight {
            groups.push(Vec::new());
            room = MULTIPORT_MAX;
        }
        room -= weight;
        if let Some(group) = groups.last_mut() {
            group.push(written(*range));
        }
    }
    groups.iter().map(|g| format!(" -m multiport {option} {}", g.join(","))).collect()
}

fn destination_ports(list: &[Range], place: Place, outbound: bool) -> Vec<String> {
    if place == Place::Raw || outbound {
        return ports(list, "--dports");
    }
    let each = |r: &Range| format!(" -m conntrack --ctorigdstport {}", written(*r));
    list.iter().map(each).collect()
}

fn written(range: Range) -> String {
    if range.from == range.to {
        range.from.to_string()
    } else {
        format!("{}:{}", range.from, range.to)
    }
}

fn icmp(m: &Match) -> Vec<String> {
    let option = if m.dst.addr().is_ipv4() { "--icmp-type" } else { "--icmpv6-type" };
    let codes = &m.icmp_codes;
    let with_codes = |kind: &u8| {
        if codes.is_empty() {
            return vec![format!(" {option} {kind}")];
        }
        codes.iter().map(|code| format!(" {option} {kind}/{code}")).collect()
    };
    m.icmp_types.iter().flat_map(with_codes).collect()
}

fn flags(f: &FlagMatch) -> Result<String, String> {
    const NAMES: [&str; 6] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"];
    if f.mask >> NAMES.len() != 0 {
        return Err("iptables does not look at ECE and CWR".to_owned());
    }
    let names = |bits: u8| {
        let on = NAMES.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
        let on: Vec<&str> = on.map(|(_, name)| *name).collect();
        if on.is_empty() { "NONE".to_owned() } else { on.join(",") }
    };
    Ok(format!(" --tcp-flags {} {}", names(f.mask), names(f.set)))
}

/// The kernel's own end of a rule: the last second in which it matches.
pub(super) fn until(end: Millis) -> String {
    format!(" -m time --datestop {}", iso(end.0.div_ceil(1000).saturating_sub(1)))
}

/// Seconds since 1970 as UTC, in the Gregorian calendar.
fn iso(secs: u64) -> String {
    let (days, of_day) = (secs / 86_400, secs % 86_400);
    // Years are counted from March, so that the leap day is the last of one.
    let from_march = days + 719_468;
    let (era, of_era) = (from_march / 146_097, from_march % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::FragmentMatch;

    #[test]
    fn each_component_has_its_words_or_a_reason() {
        let check = |place, change: &dyn Fn(&mut Match), wanted: Result<&[&str], &str>| {
            let mut m = Match::to("203.0.113.7/32".parse().unwrap());
            change(&mut m);
            match (alternatives(&m, place, false), wanted) {
                (Ok(lines), Ok(wanted)) => assert_eq!(lines, wanted, "{m}"),
                (Err(why), Err(wanted)) => assert!(why.contains(wanted), "{why}"),
                (got, wanted) => panic!("{m}: {got:?}, not {wanted:?}"),
            }
        };
        let udp = |m: &mut Match| {
            m.protocols = vec![17];
            m.dst_ports = vec![Range { from: 27015, to: 27020 }];
        };
        check(
            Place::Raw,
            &udp,
            Ok(&[" -d 203.0.113.7/32 -p 17 -m multiport --dports 27015:27020"]),
        );
        check(
            Place::DockerUser,
            &udp,
            Ok(&[" -m conntrack --ctdir ORIGINAL --ctorigdst 203.0.113.7/32 -p 17 -m conntrack \
                  --ctorigdstport 27015:27020"]),
        );
        let flags = |m: &mut Match| m.tcp_flags = vec![FlagMatch { mask: 0x12, set: 0x02 }];
        check(Place::Raw, &flags, Ok(&[" -d 203.0.113.7/32 -p 6 --tcp-flags SYN,ACK SYN"]));
        let sources = |m: &mut Match| {
            m.src = Some("192.0.2.0/24".parse().unwrap());
            m.icmp_types = vec![8, 13];
        };
        check(
            Place::Raw,
            &sources,
            Ok(&[
                " -s 192.0.2.0/24 -d 203.0.113.7/32 -p 1 --icmp-type 8",
                " -s 192.0.2.0/24 -d 203.0.113.7/32 -p 1 --icmp-type 13",
            ]),
        );
        check(Place::Raw, &|m| m.fragment = Some(FragmentMatch::First), Err("fragments"));
        check(Place::Raw, &|m| m.lengths = vec![Range::exact(60)], Err("length"));
        let ece = |m: &mut Match| m.tcp_flags = vec![FlagMatch { mask: 0x40, set: 0x40 }];
        check(Place::Raw, &ece, Err("ECE"));
        let many = |m: &mut Match| {
            m.protocols = vec![6, 17];
            m.dscps = (0..40).collect();
        };
        check(Place::Raw, &many, Err("more than 64"));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (secs, wanted) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_795_183_229, "2026-11-20T14:00:29"),
            (4_107_542_399, "2100-02-28T23:59:59"),
        ] {
            assert_eq!(iso(secs), wanted);
        }
        assert_eq!(until(Millis(9001)), " -m time --datestop 1970-01-01T00:00:09");
    }
}

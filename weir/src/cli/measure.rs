//! A mitigation as options of the command line.

use clap::{ArgGroup, Args, ValueEnum};
use weir_model::{
    Action, Filter, FlagMatch, FragmentMatch, IpNet, Match, Measure, PROTOCOLS, Range, Redirect,
};

/// A measure to be put in force.
#[derive(Clone, Debug, Args)]
pub struct Add {
    /// What
    #[command(flatten)]
    pub(super) what: What,
    /// Seconds until the mitigation expires
    #[arg(long, default_value_t = 600)]
    pub(super) ttl: u64,
    /// Only show what would change
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// A black hole, a diversion, or a FlowSpec rule of the matches given: it drops unless told otherwise.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("action").multiple(false))]
#[command(group = ArgGroup::new("whole").multiple(false).conflicts_with("match"))]
#[command(group = ArgGroup::new("match").multiple(true))]
pub struct What {
    /// Destination prefix
    dst: IpNet,
    /// Announce a black hole (RTBH) for the destination
    #[arg(long, groups = ["action", "whole"])]
    blackhole: bool,
    /// Divert the destination to the scrubbing services
    #[arg(long, groups = ["action", "whole"])]
    scrub: bool,
    /// Announce the destination to the peers that divert traffic (bgp.peer.divert)
    #[arg(long, groups = ["action", "whole"])]
    divert: bool,
    /// Rate limit in bytes a second, instead of dropping
    #[arg(long, group = "action", value_name = "BYTES")]
    rate_limit: Option<u64>,
    /// Rate limit in packets a second, instead of dropping
    #[arg(long, group = "action", value_name = "PACKETS")]
    rate_packets: Option<u64>,
    /// Redirect to a route target (65010:666) or a next hop (192.0.2.9), instead of dropping
    #[arg(long, group = "action", value_name = "TARGET|ADDRESS")]
    redirect: Option<Redirect>,
    /// Copy to a next hop, instead of dropping
    #[arg(long, group = "action", value_name = "ADDRESS")]
    copy_to: Option<std::net::IpAddr>,
    /// Mark with a DSCP (0-63), instead of dropping
    #[arg(long, group = "action", value_name = "DSCP", value_parser = clap::value_parser!(u8).range(0..64))]
    mark: Option<u8>,
    /// Source prefix
    #[arg(long, group = "match")]
    src: Option<IpNet>,
    /// IP protocol: tcp, udp, icmp, icmpv6, gre, esp or a number; may be repeated
    #[arg(long, group = "match", value_parser = protocol)]
    protocol: Vec<u8>,
    /// Destination port or range; may be repeated
    #[arg(long, group = "match", value_parser = range)]
    dport: Vec<Range>,
    /// Source port or range; may be repeated
    #[arg(long, group = "match", value_parser = range)]
    sport: Vec<Range>,
    /// ICMP type, may be repeated
    #[arg(long, group = "match")]
    icmp_type: Vec<u8>,
    /// ICMP code, may be repeated
    #[arg(long, group = "match")]
    icmp_code: Vec<u8>,
    /// TCP flags that are set, or set of those checked, such as SYN/SYN+ACK; may be repeated
    #[arg(long, group = "match")]
    tcp_flags: Vec<FlagMatch>,
    /// Layer-3 packet length or range, octets; may be repeated
    #[arg(long, group = "match", value_parser = range)]
    length: Vec<Range>,
    /// DSCP, 0-63, may be repeated
    #[arg(long, group = "match", value_parser = clap::value_parser!(u8).range(0..64))]
    dscp: Vec<u8>,
    /// Fragmentation
    #[arg(long, group = "match")]
    fragment: Option<Fragment>,
}

/// What a packet is of a fragmented one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fragment {
    /// Any fragment
    Any,
    /// Not a fragment
    No,
    /// The first one
    First,
    /// The last one
    Last,
}

fn range(text: &str) -> Result<Range, String> {
    let port = |text: &str| text.parse::<u16>().map_err(|error| error.to_string());
    match text.split_once('-') {
        None => port(text).map(Range::exact),
        Some((from, to)) => {
            let range = Range { from: port(from)?, to: port(to)? };
            if range.from <= range.to { Ok(range) } else { Err("the range is empty".to_owned()) }
        }
    }
}

/// A protocol by its name or number.
fn protocol(text: &str) -> Result<u8, String> {
    let named = PROTOCOLS.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
    match named {
        Some((_, number)) => Ok(*number),
        None => {
            text.parse().map_err(|_| "use tcp, udp, icmp, icmpv6, gre, esp or 0-255".to_owned())
        }
    }
}

impl What {
    pub(super) fn measure(&self) -> anyhow::Result<Measure> {
        let dst = self.dst.trunc();
        if self.blackhole {
            return Ok(Measure::Blackhole(dst));
        }
        if self.scrub {
            return Ok(Measure::Scrub(dst));
        }
        if self.divert {
            return Ok(Measure::Divert(dst));
        }
        let mut packets = Match::to(dst);
        packets.src = self.src;
        packets.protocols.clone_from(&self.protocol);
        packets.dst_ports.clone_from(&self.dport);
        packets.src_ports.clone_from(&self.sport);
        packets.icmp_types.clone_from(&self.icmp_type);
        packets.icmp_codes.clone_from(&self.icmp_code);
        packets.tcp_flags.clone_from(&self.tcp_flags);
        packets.lengths.clone_from(&self.length);
        packets.dscps.clone_from(&self.dscp);
        packets.fragment = self.fragment.map(|fragment| match fragment {
            Fragment::Any => FragmentMatch::IsFragment,
            Fragment::No => FragmentMatch::NotFragment,
            Fragment::First => FragmentMatch::First,
            Fragment::Last => FragmentMatch::Last,
        });
        let action = if let Some(bytes_per_sec) = self.rate_limit {
            Action::RateLimit { bytes_per_sec }
        } else if let Some(packets_per_sec) = self.rate_packets {
            Action::RateLimitPackets { packets_per_sec }
        } else if let Some(to) = self.redirect {
            Action::Redirect(to)
        } else if let Some(address) = self.copy_to {
            Action::Redirect(Redirect::Copy(address))
        } else if let Some(dscp) = self.mark {
            Action::Mark { dscp }
        } else {
            Action::Drop
        };
        Ok(Measure::FlowSpec(Filter { packets: packets.normalise(), action }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        what: What,
    }

    fn measure(line: &str) -> Result<String, String> {
        let words = std::iter::once("add").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(line.what.measure().unwrap().to_string())
    }

    #[test]
    fn every_component_and_action_can_be_said() {
        let check = |line: &str, shown: &str| assert_eq!(measure(line).as_deref(), Ok(shown));
        check("203.0.113.7/32 --blackhole", "blackhole 203.0.113.7/32");
        check("203.0.113.9/24 --divert", "divert 203.0.113.0/24");
        check("203.0.113.0/24 --scrub", "scrub 203.0.113.0/24");
        check(
            "203.0.113.7/32 --protocol tcp --tcp-flags SYN/SYN+ACK --dport 443 --rate-packets 500",
            "flowspec dst 203.0.113.7/32 proto 6 dport 443 tcp-flags SYN/SYN+ACK rate-limit 500 packets/s",
        );
        check(
            "203.0.113.7/32 --protocol udp --fragment any --length 1200-1500 --dscp 0 --redirect 4200000001:7",
            "flowspec dst 203.0.113.7/32 proto 17 length 1200-1500 dscp 0 fragment redirect 4200000001:7",
        );
        check(
            "2001:db8::7/128 --protocol icmpv6 --icmp-type 128 --icmp-code 0 --redirect 2001:db8:f::1",
            "flowspec dst 2001:db8::7/128 proto 58 icmp-type 128 icmp-code 0 redirect 2001:db8:f::1",
        );
        check(
            "203.0.113.7/32 --copy-to 192.0.2.9",
            "flowspec dst 203.0.113.7/32 redirect copy 192.0.2.9",
        );
        check("203.0.113.7/32 --mark 8", "flowspec dst 203.0.113.7/32 mark dscp 8");
        check("203.0.113.7/32 --sport 53", "flowspec dst 203.0.113.7/32 sport 53 drop");
    }

    #[test]
    fn what_cannot_be_both_is_refused() {
        for line in [
            "203.0.113.7/32 --blackhole --sport 53",
            "203.0.113.7/32 --divert --protocol 17",
            "203.0.113.7/32 --divert --blackhole",
            "203.0.113.7/32 --mark 8 --rate-limit 5",
            "203.0.113.7/32 --mark 64",
            "203.0.113.7/32 --tcp-flags SYNN",
            "203.0.113.7/32 --redirect somewhere",
        ] {
            assert!(measure(line).is_err(), "{line}");
        }
    }

    #[test]
    fn protocols_have_names_and_numbers() {
        assert_eq!((protocol("udp"), protocol("TCP"), protocol("132")), (Ok(17), Ok(6), Ok(132)));
        assert!(protocol("256").is_err() && protocol("udb").is_err());
    }

    #[test]
    fn ports_and_ranges_are_read() {
        assert_eq!(range("53"), Ok(Range::exact(53)));
        assert_eq!(range("10-20"), Ok(Range { from: 10, to: 20 }));
        assert!(range("20-10").is_err());
        assert!(range("x").is_err());
        assert!(range("70000").is_err());
    }
}

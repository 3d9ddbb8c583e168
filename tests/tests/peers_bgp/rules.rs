//! What is announced: every component and action that weir has words for.

use weir_model::{Action, Filter, FlagMatch, FragmentMatch, Match, Measure, Range, Redirect};

pub(crate) fn rule(dst: &str, action: Action, change: impl FnOnce(&mut Match)) -> Measure {
    let mut packets = Match::to(dst.parse().unwrap());
    change(&mut packets);
    Measure::FlowSpec(Filter { packets: packets.normalise(), action })
}

pub(crate) fn hole(net: &str) -> Measure {
    Measure::Blackhole(net.parse().unwrap())
}

pub(crate) fn range(from: u16, to: u16) -> Range {
    Range { from, to }
}

/// Every component and action that weir has words for, with how BIRD and GoBGP print it.
pub(crate) fn rules() -> Vec<(Measure, &'static str, &'static str)> {
    let udp = |m: &mut Match| m.protocols = vec![17];
    let rt = Action::Redirect(Redirect::RouteTarget { asn: 65010, value: 666 });
    let copy = Action::Redirect(Redirect::Copy("192.0.2.9".parse().unwrap()));
    let hop = |ip: &str| Action::Redirect(Redirect::NextHop(ip.parse().unwrap()));
    let limit = Action::RateLimit { bytes_per_sec: 125_000_000 };
    let tcp = |mask, set| {
        move |m: &mut Match| {
            m.protocols = vec![6];
            m.tcp_flags = vec![FlagMatch { mask, set }];
        }
    };
    vec![
        (
            rule("203.0.113.0/24", Action::Drop, |m| m.protocols = vec![47]),
            "flow4 { dst 203.0.113.0/24; proto 47; } 0x80060000, 0x0",
            "[destination: 203.0.113.0/24][protocol: ==gre] discard",
        ),
        (
            rule("203.0.113.1/32", Action::Drop, |m| {
                udp(m);
                m.src = Some("198.51.96.0/19".parse().unwrap());
                m.dst_ports = vec![Range::exact(25565), Range::exact(27015)];
                m.src_ports = vec![range(1, 1023)];
                m.lengths = vec![range(200, 1400)];
                m.dscps = vec![0, 46];
            }),
            "flow4 { dst 203.0.113.1/32; src 198.51.96.0/19; proto 17; dport 25565,27015; \
             sport 1..1023; length 200..1400; dscp 0,46; } 0x80060000, 0x0",
            "[destination: 203.0.113.1/32][source: 198.51.96.0/19][protocol: ==udp]\
             [destination-port: ==25565 ==27015][source-port: >=1&<=1023]\
             [packet-length: >=200&<=1400][dscp: ==0 ==46] discard",
        ),
        (
            rule("203.0.113.2/32", limit, tcp(0x12, 0x02)),
            "flow4 { dst 203.0.113.2/32; proto 6; tcp flags 0x2/0x2 && 0x0/0x10; } 0x80060000, 0x4cee6b28",
            "[destination: 203.0.113.2/32][protocol: ==tcp][tcp-flags: =S&!A] rate: 125000000.000000",
        ),
        (
            rule("203.0.113.3/32", Action::Drop, tcp(0x3f, 0)),
            "flow4 { dst 203.0.113.3/32; proto 6; tcp flags 0x0/0x3f; } 0x80060000, 0x0",
            "[destination: 203.0.113.3/32][protocol: ==tcp][tcp-flags: !FSRPAU] discard",
        ),
        (
            rule("203.0.113.4/32", Action::RateLimitPackets { packets_per_sec: 1000 }, |m| {
                m.protocols = vec![1];
                m.icmp_types = vec![8];
                m.icmp_codes = vec![0];
            }),
            "flow4 { dst 203.0.113.4/32; proto 1; icmp type 8; icmp code 0; } 0x800c0000, 0x447a0000",
            "[destination: 203.0.113.4/32][protocol: ==icmp][icmp-type: ==8][icmp-code: ==0] 3377700869373952",
        ),
        (
            rule("203.0.113.5/32", Action::Drop, |m| m.fragment = Some(FragmentMatch::IsFragment)),
            "flow4 { dst 203.0.113.5/32; fragment is_fragment; } 0x80060000, 0x0",
            "[destination: 203.0.113.5/32][fragment: =is-fragment] discard",
        ),
        (
            rule("203.0.113.6/32", Action::Drop, |m| m.fragment = Some(FragmentMatch::NotFragment)),
            "flow4 { dst 203.0.113.6/32; fragment 0x0/0x6; } 0x80060000, 0x0",
            "[destination: 203.0.113.6/32][fragment: !is-fragment+first-fragment] discard",
        ),
        (
            rule("203.0.113.7/32", Action::Drop, |m| m.fragment = Some(FragmentMatch::Last)),
            "flow4 { dst 203.0.113.7/32; fragment last_fragment; } 0x80060000, 0x0",
            "[destination: 203.0.113.7/32][fragment: =last-fragment] discard",
        ),
        (
            rule("203.0.113.8/32", rt, udp),
            "flow4 { dst 203.0.113.8/32; proto 17; } 0x8008fdf2, 0x29a",
            "[destination: 203.0.113.8/32][protocol: ==udp] redirect: 65010:666",
        ),
        (
            rule("203.0.113.9/32", hop("192.0.2.9"), udp),
            "flow4 { dst 203.0.113.9/32; proto 17; } 0x10c, 192.0.2.9",
            "[destination: 203.0.113.9/32][protocol: ==udp] 192.0.2.9:0",
        ),
        (
            rule("203.0.113.10/32", Action::Drop, |m| {
                udp(m);
                m.src_ports = vec![range(0, 52), range(1024, 65535)];
                m.lengths = vec![range(1400, 65535)];
            }),
            "flow4 { dst 203.0.113.10/32; proto 17; sport <= 52,>= 1024; length >= 1400; } 0x80060000, 0x0",
            "[destination: 203.0.113.10/32][protocol: ==udp][source-port: <=52 >=1024]\
             [packet-length: >=1400] discard",
        ),
        (
            rule("203.0.113.12/32", Action::Mark { dscp: 8 }, udp),
            "flow4 { dst 203.0.113.12/32; proto 17; } 0x80090000, 0x8",
            "[destination: 203.0.113.12/32][protocol: ==udp] remark: 8",
        ),
        (
            rule("203.0.113.13/32", copy, udp),
            "flow4 { dst 203.0.113.13/32; proto 17; } 0x10c, 192.0.2.9, 1",
            "[destination: 203.0.113.13/32][protocol: ==udp] 192.0.2.9:1",
        ),
        (
            rule("2001:db8:0:1::1/128", Action::Drop, |m| {
                udp(m);
                m.src = Some("2001:db8:ff00::/40".parse().unwrap());
                m.src_ports = vec![Range::exact(53)];
                m.lengths = vec![range(1200, 1500)];
            }),
            "flow6 { dst 2001:db8:0:1::1/128; src 2001:db8:ff00::/40; next header 17; sport 53; \
             length 1200..1500; } 0x80060000, 0x0",
            "[destination: 2001:db8:0:1::1/128/0][source: 2001:db8:ff00::/40/0][protocol: ==udp]\
             [source-port: ==53][packet-length: >=1200&<=1500] discard",
        ),
        (
            rule("2001:db8:0:1::/64", limit, tcp(0x02, 0x02)),
            "flow6 { dst 2001:db8:0:1::/64; next header 6; tcp flags 0x2/0x2; } 0x80060000, 0x4cee6b28",
            "[destination: 2001:db8:0:1::/64/0][protocol: ==tcp][tcp-flags: =S] rate: 125000000.000000",
        ),
        (
            rule("2001:db8:0:1::3/128", hop("2001:db8::9"), |m| {
                m.protocols = vec![58];
                m.icmp_types = vec![128];
            }),
            "flow6 { dst 2001:db8:0:1::3/128; next header 58; icmp type 128; } 00 0c 20 01 0d b8",
            "[destination: 2001:db8:0:1::3/128/0][protocol: ==58][icmp-type: ==128] 2001:db8::9:0",
        ),
        (
            rule("2001:db8:0:1::4/128", Action::Drop, |m| {
                m.fragment = Some(FragmentMatch::IsFragment);
            }),
            "flow6 { dst 2001:db8:0:1::4/128; fragment is_fragment; } 0x80060000, 0x0",
            "[destination: 2001:db8:0:1::4/128/0][fragment: =is-fragment] discard",
        ),
    ]
}

/// Redirection to a route target with a 4-octet AS, with how BIRD and GoBGP print it; ExaBGP cannot.
pub(crate) fn redirect_as4() -> (Measure, &'static str, &'static str) {
    let target = Action::Redirect(Redirect::RouteTarget { asn: 4_200_000_001, value: 7 });
    let rule = rule("203.0.113.11/32", target, |m| m.protocols = vec![17]);
    (rule, "0x8208fa56, 0xea010007", "redirect: 64086.59905:7")
}

pub(crate) fn holes() -> [Measure; 2] {
    [hole("203.0.113.7/32"), hole("2001:db8:0:1::7/128")]
}

pub(crate) fn everything() -> Vec<Measure> {
    let mut list: Vec<Measure> = rules().into_iter().map(|(m, ..)| m).collect();
    list.extend(holes());
    list
}

/// `count` rules of many shapes, none like another.
pub(crate) fn many(count: u16) -> Vec<Measure> {
    (0..count)
        .map(|n| {
            let host = format!("203.0.113.{}/32", n % 250);
            rule(&host, Action::RateLimit { bytes_per_sec: 10_000 + u64::from(n) }, |m| {
                m.protocols = vec![if n % 3 == 0 { 6 } else { 17 }];
                m.dst_ports = vec![Range::exact(1024 + n)];
                if n % 2 == 0 {
                    m.src_ports = vec![range(n, n + 100)];
                }
                if n % 5 == 0 {
                    m.lengths = vec![range(n % 1000, 1500)];
                }
                if n % 7 == 0 {
                    m.fragment = Some(FragmentMatch::NotFragment);
                }
                if n % 3 == 0 {
                    m.tcp_flags = vec![FlagMatch { mask: 0x12, set: 0x02 }];
                }
            })
        })
        .collect()
}

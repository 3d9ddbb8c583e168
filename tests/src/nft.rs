//! What a router does with FlowSpec, in the laboratory: BIRD's table of rules as nftables.
//!
//! BIRD 2 prints its flow tables in its own words (`flow4 { dst 10.0.0.1/32; proto 17; sport 123; }`)
//! and actions as raw extended communities (RFC 8955 §7). Enough of both is understood for what weir
//! announces; a rule that is not is left out by name, as a router would refuse it.

use std::fmt::Write as _;

/// A ruleset for `nft -f -` that does what BIRD's `show route all` of a flow and a unicast table say,
/// and the rules that were not understood.
pub fn ruleset(routes: &str) -> (String, Vec<String>) {
    let mut lines = Vec::new();
    let mut unknown = Vec::new();
    for (head, attributes) in entries(routes) {
        let line = match head.split_once("flow4 {").and_then(|(_, rest)| rest.split_once('}')) {
            Some((terms, _)) => rule(terms, &attributes),
            None => hole(&head, &attributes),
        };
        match line {
            Ok(line) => lines.push(line),
            Err(why) => unknown.push(format!("{head}: {why}")),
        }
    }
    lines.sort();
    let mut text = String::from("table ip flowspec\ndelete table ip flowspec\n");
    text.push_str(
        "table ip flowspec {\n chain forward {\n  type filter hook forward priority 0;\n",
    );
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
    text.push_str(" }\n}\n");
    (text, unknown)
}

/// Routes with their attribute lines.
fn entries(routes: &str) -> Vec<(String, String)> {
    let mut list: Vec<(String, String)> = Vec::new();
    for line in routes.lines() {
        if line.starts_with('\t') {
            if let Some((_, attributes)) = list.last_mut() {
                attributes.push_str(line.trim());
                attributes.push('\n');
            }
        } else if line.contains("[weir ") {
            list.push((line.to_owned(), String::new()));
        }
    }
    list
}

/// A black hole (RFC 7999): a unicast route with the community 65535:666.
fn hole(head: &str, attributes: &str) -> Result<String, String> {
    let net = head.split_whitespace().next().filter(|net| net.contains('/'));
    match net {
        Some(net) if attributes.contains("(65535,666)") => {
            Ok(format!("ip daddr {net} counter drop"))
        }
        _ => Err("no black hole".to_owned()),
    }
}

fn rule(terms: &str, attributes: &str) -> Result<String, String> {
    let mut line = String::new();
    for term in terms.split(';').map(str::trim).filter(|term| !term.is_empty()) {
        line.push_str(&matching(term)?);
        line.push(' ');
    }
    Ok(format!("{line}{}", action(attributes)?))
}

/// One component in nft's words.
fn matching(term: &str) -> Result<String, String> {
    let name = ["icmp type", "icmp code", "tcp flags", "fragment", "length", "dscp"]
        .into_iter()
        .chain(["dport", "sport", "proto", "dst", "src"])
        .find(|name| term.starts_with(&format!("{name} ")))
        .ok_or_else(|| format!("{term}: not understood"))?;
    let value = term[name.len()..].trim();
    let set = |key: &str| Ok(format!("{key} {{ {} }}", ranges(value)?));
    match name {
        "dst" => Ok(format!("ip daddr {value}")),
        "src" => Ok(format!("ip saddr {value}")),
        "proto" => set("ip protocol"),
        "dport" => set("th dport"),
        "sport" => set("th sport"),
        "icmp type" => set("icmp type"),
        "icmp code" => set("icmp code"),
        "length" => set("ip length"),
        "dscp" => set("ip dscp"),
        "tcp flags" => flags(value),
        _ => match value {
            "is_fragment" => Ok("ip frag-off & 0x3fff != 0".to_owned()),
            "0x0/0x6" => Ok("ip frag-off & 0x3fff == 0".to_owned()),
            other => Err(format!("fragment {other}: not understood")),
        },
    }
}

/// `53,1024..2047,>= 60000` as `53, 1024-2047, 60000-65535`.
fn ranges(value: &str) -> Result<String, String> {
    let one = |item: &str| {
        let item = item.trim();
        let wrong = || format!("{item}: not understood");
        if let Some((from, to)) = item.split_once("..") {
            return Ok(format!("{from}-{to}"));
        }
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
        match item.split_at_checked(2) {
            Some((">=", rest)) => Ok(format!("{}-65535", number(rest)?)),
            Some(("<=", rest)) => Ok(format!("0-{}", number(rest)?)),
            _ => Ok(number(item)?.to_string()),
        }
    };
    let items: Result<Vec<String>, String> = value.split(',').map(one).collect();
    items.map(|items| items.join(", "))
}

/// `0x2/0x2 && 0x0/0x10`: of each mask exactly these.
fn flags(value: &str) -> Result<String, String> {
    let one = |item: &str| {
        let (set, mask) = item.trim().split_once('/').ok_or_else(|| format!("flags {item}"))?;
        Ok(format!("tcp flags & {mask} == {set}"))
    };
    let items: Result<Vec<String>, String> = value.split("&&").map(one).collect();
    items.map(|items| items.join(" "))
}

/// Traffic-rate (RFC 8955 §7.1): octets a second as an IEEE 754 float, 0 drops.
fn action(attributes: &str) -> Result<String, String> {
    let rate = attributes
        .split_once("0x8006")
        .and_then(|(_, rest)| rest.split_once(", 0x"))
        .map(|(_, rest)| rest.chars().take_while(char::is_ascii_hexdigit).collect::<String>())
        .and_then(|hex| u32::from_str_radix(&hex, 16).ok())
        .map(f32::from_bits)
        .ok_or("no traffic-rate")?;
    if rate <= 0.0 {
        return Ok("counter drop".to_owned());
    }
    Ok(format!("limit rate over {rate:.0} bytes/second burst 20000 bytes counter drop"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bird_prints_becomes_a_ruleset() {
        let routes = "BIRD 2.0.12 ready.\nTable flowtab4:\n\
            flow4 { dst 10.10.10.10/32; proto 17; dport 25565,27015; sport 1..1023,>= 60000; length 468; } \
            [weir 13:00:00.000] * (100) [AS65010i]\n\tType: BGP univ\n\
            \tBGP.ext_community: (generic, 0x80060000, 0x0)\n\
            flow4 { dst 10.10.10.10/32; proto 6; tcp flags 0x2/0x2 && 0x0/0x10; fragment 0x0/0x6; } \
            [weir 13:00:00.000] * (100)\n\tBGP.ext_community: (generic, 0x8006fdf2, 0x47f42400)\n\
            flow4 { dst 10.10.10.10/32; label 7; } [weir 13:00:00.000] * (100)\n\
            Table master4:\n10.10.10.9/32  unicast [weir 13:00:00.000] * (100)\n\
            \tBGP.community: (65535,666)\n";
        let (text, unknown) = ruleset(routes);
        let rules: Vec<&str> =
            text.lines().filter(|line| line.starts_with("  ip")).map(str::trim).collect();
        assert_eq!(
            rules,
            [
                "ip daddr 10.10.10.10/32 ip protocol { 17 } th dport { 25565, 27015 } \
                 th sport { 1-1023, 60000-65535 } ip length { 468 } counter drop",
                "ip daddr 10.10.10.10/32 ip protocol { 6 } tcp flags & 0x2 == 0x2 \
                 tcp flags & 0x10 == 0x0 ip frag-off & 0x3fff == 0 \
                 limit rate over 125000 bytes/second burst 20000 bytes counter drop",
                "ip daddr 10.10.10.9/32 counter drop",
            ]
        );
        assert_eq!(unknown.len(), 1);
    }
}

//! The filter language: text to [`Filter`], a tree of tests on columns.
//!
//! ```text
//! filter  = any | or          or  = and { ("or" | "||") and }     and = not { ("and" | "&&") not }
//! not     = [ "not" | "!" ] ( "(" or ")" | test )
//! test    = [ "src" | "dst" ] ( "host" ADDRESS | "net" PREFIX | "port" NUMBERS )
//!         | "proto" NAME-OR-NUMBER | "tcp" | "udp" | "icmp" | ...  | "ipv4" | "ipv6"
//!         | "flags" LETTERS | "exporter" ADDRESS | [ "in" | "out" ] "if" NUMBERS | "dropped"
//!         | ( "octets" | "packets" | "length" | "duration" ) NUMBERS
//! NUMBERS = N | N-M | ( "<" | "<=" | ">" | ">=" | "=" | "!=" ) N | "in" "[" N { N } "]"
//! ```
//! Depth and number of tests are bounded: a filter comes from the network.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;
pub use weir_model::PROTOCOLS;
use weir_model::bits_of;

use crate::columns::Column;

/// Longest filter, octets.
pub const TEXT_MAX: usize = 4096;
/// Tests in one filter.
const TESTS_MAX: usize = 256;
/// Parentheses and `not` within each other.
const DEPTH_MAX: usize = 32;

/// What is wrong with a filter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("filter, at {at:?}: {what}")]
pub struct FilterError {
    /// The word at which it is wrong; empty at the end.
    at: String,
    /// What is.
    what: String,
}

/// Which records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Every record.
    Any,
    /// A column's value lies in the range, both ends included.
    Within(Column, u128, u128),
    /// All of these bits are set in a column.
    Bits(Column, u128),
    /// Something computed of several columns lies in the range, both ends included.
    Computed(Computed, u64, u64),
    /// All fit.
    All(Vec<Self>),
    /// One fits.
    One(Vec<Self>),
    /// It does not fit.
    Not(Box<Self>),
}

/// What is computed of several columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Computed {
    /// Octets multiplied by sampling and thinning.
    Octets,
    /// Packets likewise.
    Packets,
    /// Octets a packet, rounded down.
    Length,
    /// Milliseconds from the first to the last packet.
    Duration,
}

impl Computed {
    /// The columns it is made of.
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Self::Octets => &[Column::Octets, Column::Sampling, Column::Thinned],
            Self::Packets => &[Column::Packets, Column::Sampling, Column::Thinned],
            Self::Length => &[Column::Octets, Column::Packets],
            Self::Duration => &[Column::Start, Column::End],
        }
    }
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// Names the word at which it is wrong.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > TEXT_MAX {
            let what = format!("longer than {TEXT_MAX} octets");
            return Err(FilterError { at: String::new(), what });
        }
        let mut parser = Parser { words: words(text), at: 0, tests: 0, depth: 0 };
        if parser.words.is_empty() {
            return Ok(Self::Any);
        }
        let filter = parser.or()?;
        match parser.peek() {
            None => Ok(filter),
            Some(_) => Err(parser.wrong("expected and, or, or the end")),
        }
    }

    /// Adds the columns that are looked at.
    pub fn columns(&self, out: &mut Vec<Column>) {
        match self {
            Self::Any => {}
            Self::Within(column, ..) | Self::Bits(column, _) => out.push(*column),
            Self::Computed(computed, ..) => out.extend(computed.columns()),
            Self::All(parts) | Self::One(parts) => parts.iter().for_each(|p| p.columns(out)),
            Self::Not(part) => part.columns(out),
        }
    }
}

/// Words: letters and the like, brackets and operators by themselves.
fn words(text: &str) -> Vec<&str> {
    let is_plain = |c: char| c.is_alphanumeric() || ".:/-_".contains(c);
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = if is_plain(first) {
            rest.find(|c| !is_plain(c)).unwrap_or(rest.len())
        } else {
            ["&&", "||", "<=", ">=", "!=", "=="]
                .iter()
                .find(|two| rest.starts_with(**two))
                .map_or_else(|| first.len_utf8(), |two| two.len())
        };
        let (word, after) = rest.split_at(len);
        words.push(word);
        rest = after.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
    }
    words
}

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
    tests: usize,
    depth: usize,
}

/// A direction before `host`, `net`, `port` or `if`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Either,
    From,
    To,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self) -> Result<&'a str, FilterError> {
        let word = self.peek().ok_or_else(|| self.wrong("something is missing"))?;
        self.at += 1;
        Ok(word)
    }

    fn take(&mut self, words: &[&str]) -> bool {
        let found = self.peek().is_some_and(|w| words.iter().any(|o| o.eq_ignore_ascii_case(w)));
        self.at += usize::from(found);
        found
    }

    fn wrong(&self, what: impl Into<String>) -> FilterError {
        FilterError { at: self.peek().unwrap_or_default().to_owned(), what: what.into() }
    }

    /// Wrong is the word before.
    fn was_wrong(&mut self, what: impl Into<String>) -> FilterError {
        self.at = self.at.saturating_sub(1);
        self.wrong(what)
    }

    fn or(&mut self) -> Result<Filter, FilterError> {
        let mut parts = vec![self.and()?];
        while self.take(&["or", "||"]) {
            parts.push(self.and()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::One(parts) })
    }

    fn and(&mut self) -> Result<Filter, FilterError> {
        let mut parts = vec![self.not()?];
        while self.take(&["and", "&&"]) {
            parts.push(self.not()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::All(parts) })
    }

    fn not(&mut self) -> Result<Filter, FilterError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.wrong(format!("more than {DEPTH_MAX} levels deep")));
        }
        let filter = if self.take(&["not", "!"]) {
            Filter::Not(Box::new(self.not()?))
        } else if self.take(&["("]) {
            let inner = self.or()?;
            if !self.take(&[")"]) {
                return Err(self.wrong("expected )"));
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn test(&mut self) -> Result<Filter, FilterError> {
        self.tests += 1;
        if self.tests > TESTS_MAX {
            return Err(self.wrong(format!("more than {TESTS_MAX} tests")));
        }
        let word = self.next()?.to_ascii_lowercase();
        let (way, word) = match word.as_str() {
            "src" | "in" => (Way::From, self.next()?.to_ascii_lowercase()),
            "dst" | "out" => (Way::To, self.next()?.to_ascii_lowercase()),
            _ => (Way::Either, word),
        };
        let first = self.words.get(self.at.saturating_sub(2)).map(|w| w.to_ascii_lowercase());
        let of_interfaces = way != Way::Either && matches!(first.as_deref(), Some("in" | "out"));
        if of_interfaces != (word == "if") && way != Way::Either {
            return Err(self.was_wrong("src and dst go with host, net, port; in and out with if"));
        }
        match (word.as_str(), way) {
            ("host" | "ip", _) => {
                let address = self.address()?;
                Ok(both(way, Column::Src, Column::Dst, |c| Filter::Within(c, address, address)))
            }
            ("net", _) => {
                let (low, high) = self.prefix()?;
                Ok(both(way, Column::Src, Column::Dst, |c| Filter::Within(c, low, high)))
            }
            ("port", _) => {
                let ports = self.numbers(u64::from(u16::MAX))?;
                Ok(both(way, Column::SrcPort, Column::DstPort, |c| any_of(c, &ports)))
            }
            ("if", _) => {
                let interfaces = self.numbers(u64::from(u32::MAX))?;
                Ok(both(way, Column::InIf, Column::OutIf, |c| any_of(c, &interfaces)))
            }
            (_, Way::From | Way::To) => {
                Err(self.was_wrong("expected host, net or port after src or dst"))
            }
            _ => self.undirected(&word),
        }
    }

    fn undirected(&mut self, word: &str) -> Result<Filter, FilterError> {
        let exactly = |column, value| Filter::Within(column, value, value);
        let v4 = (bits_of([0, 0, 0, 0].into()), bits_of([255, 255, 255, 255].into()));
        let is_v4 = Filter::Within(Column::Dst, v4.0, v4.1);
        if let Some((_, number)) = PROTOCOLS.iter().find(|(name, _)| *name == word) {
            return Ok(exactly(Column::Protocol, u128::from(*number)));
        }
        Ok(match word {
            "any" => Filter::Any,
            "ipv4" | "inet" => is_v4,
            "ipv6" | "inet6" => Filter::Not(Box::new(is_v4)),
            "proto" => {
                let name = self.next()?.to_ascii_lowercase();
                let known = PROTOCOLS.iter().find(|(known, _)| *known == name).map(|(_, n)| *n);
                let number = known.or_else(|| name.parse().ok());
                let number =
                    number.ok_or_else(|| self.was_wrong("a protocol by name, or 0 to 255"))?;
                exactly(Column::Protocol, u128::from(number))
            }
            "flags" => {
                let mut bits = 0_u128;
                for letter in self.next()?.chars() {
                    let bit = "FSRPAUEC".find(letter.to_ascii_uppercase());
                    bits |=
                        1 << bit.ok_or_else(|| self.was_wrong("flags are letters of FSRPAUEC"))?;
                }
                // Flags are TCP's: without them nothing else has the bits either.
                Filter::Bits(Column::TcpFlags, bits)
            }
            "exporter" | "router" => exactly(Column::Exporter, self.address()?),
            "dropped" => exactly(Column::Forwarding, 2),
            "octets" | "bytes" => self.computed(Computed::Octets)?,
            "packets" => self.computed(Computed::Packets)?,
            "length" | "bpp" => self.computed(Computed::Length)?,
            "duration" => self.computed(Computed::Duration)?,
            _ => return Err(self.was_wrong("not a test")),
        })
    }

    fn address(&mut self) -> Result<u128, FilterError> {
        let address: Option<IpAddr> = self.next()?.parse().ok();
        address.map(bits_of).ok_or_else(|| self.was_wrong("not an address"))
    }

    fn prefix(&mut self) -> Result<(u128, u128), FilterError> {
        let word = self.next()?;
        let prefix: Option<IpNet> =
            word.parse().ok().or_else(|| word.parse().ok().map(|a: IpAddr| IpNet::from(a)));
        let prefix = prefix.ok_or_else(|| self.was_wrong("not a prefix like 203.0.113.0/24"))?;
        Ok((bits_of(prefix.network()), bits_of(prefix.broadcast())))
    }

    fn computed(&mut self, computed: Computed) -> Result<Filter, FilterError> {
        let numbers = self.numbers(u64::MAX)?;
        let tests = numbers.iter().map(|(low, high)| Filter::Computed(computed, *low, *high));
        Ok(one(tests.collect()))
    }

    /// Ranges of numbers.
    fn numbers(&mut self, max: u64) -> Result<Vec<(u64, u64)>, FilterError> {
        if self.take(&["in"]) {
            if !self.take(&["["]) {
                return Err(self.wrong("expected ["));
            }
            let mut list = Vec::new();
            while !self.take(&["]"]) {
                if list.len() >= TESTS_MAX {
                    return Err(self.wrong(format!("more than {TESTS_MAX} numbers")));
                }
                list.push(self.range(max)?);
            }
            self.tests += list.len();
            return if list.is_empty() { Err(self.was_wrong("an empty list")) } else { Ok(list) };
        }
        let operator = ["<=", ">=", "!=", "==", "<", ">", "="].iter().find(|o| self.take(&[**o]));
        let (low, high) = self.range(max)?;
        let least = |n: Option<u64>| n.map_or((1, 0), |n| (n, max));
        let most = |n: Option<u64>| n.map_or((1, 0), |n| (0, n));
        Ok(match operator {
            Some(&"<=") => vec![(0, low)],
            Some(&">=") => vec![(low, max)],
            Some(&"<") => vec![most(low.checked_sub(1))],
            Some(&">") => vec![least(high.checked_add(1))],
            Some(&"!=") => vec![most(low.checked_sub(1)), least(high.checked_add(1))],
            _ => vec![(low, high)],
        })
    }

    fn range(&mut self, max: u64) -> Result<(u64, u64), FilterError> {
        let word = self.next()?;
        let (low, high) = word.split_once('-').unwrap_or((word, word));
        match (number(low), number(high)) {
            (Some(low), Some(high)) if low <= high && high <= max => Ok((low, high)),
            _ => Err(self.was_wrong(format!("not a number, or range of numbers, up to {max}"))),
        }
    }
}

/// A number, with k, M or G for thousands, millions, billions.
fn number(word: &str) -> Option<u64> {
    let (digits, unit) = match word.char_indices().next_back()? {
        (at, 'k' | 'K') => (&word[..at], 1000),
        (at, 'm' | 'M') => (&word[..at], 1_000_000),
        (at, 'g' | 'G') => (&word[..at], 1_000_000_000),
        _ => (word, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn both(way: Way, from: Column, to: Column, test: impl Fn(Column) -> Filter) -> Filter {
    match way {
        Way::From => test(from),
        Way::To => test(to),
        Way::Either => Filter::One(vec![test(from), test(to)]),
    }
}

fn any_of(column: Column, ranges: &[(u64, u64)]) -> Filter {
    let test = |(low, high): &(u64, u64)| Filter::Within(column, (*low).into(), (*high).into());
    one(ranges.iter().map(test).collect())
}

fn one(mut tests: Vec<Filter>) -> Filter {
    if tests.len() == 1 { tests.remove(0) } else { Filter::One(tests) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrong(text: &str) -> String {
        Filter::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn words_of_nfdump_and_pcap_are_understood() {
        let dns = Filter::parse("dst net 203.0.113.0/24 and proto udp and src port 53").unwrap();
        let net = Filter::Within(
            Column::Dst,
            bits_of([203, 0, 113, 0].into()),
            bits_of([203, 0, 113, 255].into()),
        );
        let udp = Filter::Within(Column::Protocol, 17, 17);
        let port = Filter::Within(Column::SrcPort, 53, 53);
        assert_eq!(dns, Filter::All(vec![net, udp.clone(), port.clone()]));
        assert_eq!(Filter::parse("udp && src port = 53"), Ok(Filter::All(vec![udp, port])));
        assert_eq!(Filter::parse("  "), Ok(Filter::Any));
        assert_eq!(
            Filter::parse("not (port in [53, 100-200] or flags SA)").unwrap(),
            Filter::Not(Box::new(Filter::One(vec![
                Filter::One(vec![
                    any_of(Column::SrcPort, &[(53, 53), (100, 200)]),
                    any_of(Column::DstPort, &[(53, 53), (100, 200)]),
                ]),
                Filter::Bits(Column::TcpFlags, 0x12),
            ])))
        );
        assert_eq!(
            Filter::parse("octets > 10k"),
            Ok(Filter::Computed(Computed::Octets, 10_001, u64::MAX))
        );
        assert_eq!(Filter::parse("in if 7"), Ok(Filter::Within(Column::InIf, 7, 7)));
        // Nothing is below 0.
        assert_eq!(Filter::parse("src port < 0"), Ok(Filter::Within(Column::SrcPort, 1, 0)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(
            wrong("src port 99999"),
            r#"filter, at "99999": not a number, or range of numbers, up to 65535"#
        );
        assert_eq!(
            wrong("dst net banana"),
            r#"filter, at "banana": not a prefix like 203.0.113.0/24"#
        );
        assert_eq!(wrong("tcp udp"), r#"filter, at "udp": expected and, or, or the end"#);
        assert_eq!(wrong("(tcp"), r#"filter, at "": expected )"#);
        assert_eq!(
            wrong("src if 3"),
            r#"filter, at "if": src and dst go with host, net, port; in and out with if"#
        );
        assert!(wrong(&"(".repeat(100)).contains("levels deep"));
        assert!(wrong(&"not ".repeat(100)).contains("levels deep"));
        assert!(wrong(&"tcp or ".repeat(300)).contains("tests"));
        assert!(wrong(&"x".repeat(5000)).contains("longer"));
    }

    proptest! {
        #[test]
        fn nothing_makes_the_parser_panic(text in "\\PC{0,80}", words in prop::collection::vec(
            prop::sample::select(vec!["src", "dst", "host", "net", "port", "(", ")", "not", "and", "or",
                "10.0.0.0/8", "1", "in", "[", "]", "flags", "if", "<", "S", "proto"]), 0..20)) {
            let _ = Filter::parse(&text);
            let _ = Filter::parse(&words.join(" "));
        }
    }
}

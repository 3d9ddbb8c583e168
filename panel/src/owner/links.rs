//! Links by e-mail, sessions, and links that staff share.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weir_model::Millis;

use super::Grant;
use super::token::{Hash, Token};

/// Life of a link sent by e-mail, milliseconds.
pub(crate) const LINK_MS: u64 = 15 * 60_000;
/// Life of a session, milliseconds.
pub const SESSION_MS: u64 = 12 * 3_600_000;
/// Most links, sessions and counters held at once; the oldest go first.
const HELD_MAX: usize = 10_000;
/// Links asked for in an hour, from one network and for one address of e-mail.
const PER_NETWORK_MAX: u32 = 20;
const PER_ADDRESS_MAX: u32 = 3;
const HOUR_MS: u64 = 3_600_000;

/// An e-mail to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// To whom.
    pub to: String,
    /// The token of its link.
    pub token: Token,
}

/// A link to one server, made by staff.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The panel's name.
    pub panel: String,
    /// UUID of the server.
    pub server: String,
    /// Since when.
    pub made: Millis,
    /// By whom.
    pub by: String,
}

#[derive(Clone, Debug)]
struct Held {
    grant: Grant,
    until: Millis,
}

/// Everything an owner's browser may present.
#[derive(Clone, Debug, Default)]
pub struct Links {
    links: BTreeMap<Hash, Held>,
    sessions: BTreeMap<Hash, Held>,
    shares: BTreeMap<Hash, Share>,
    asked: BTreeMap<String, (Millis, u32)>,
}

impl Links {
    /// Links shared in an earlier run.
    pub fn restore(shares: BTreeMap<Hash, Share>) -> Self {
        Self { shares, ..Self::default() }
    }

    /// What is kept over a restart: shared links. The rest is short-lived.
    pub const fn shares(&self) -> &BTreeMap<Hash, Share> {
        &self.shares
    }

    /// Whether somebody may ask for a link now. The answer he sees is the same either way, and the
    /// same whether the address is known.
    pub fn may_ask(&mut self, from: IpAddr, email: &str, now: Millis) -> bool {
        self.asked.retain(|_, (since, _)| now.since(*since) < HOUR_MS);
        if self.asked.len() >= HELD_MAX {
            return false;
        }
        let network = self.count(format!("network {}", network(from)), now);
        // A hash, so that addresses people mistype are not kept.
        let hash = Hash::of(&email.trim().to_lowercase());
        let address = self.count(format!("address {hash:?}"), now);
        network <= PER_NETWORK_MAX && address <= PER_ADDRESS_MAX
    }

    fn count(&mut self, key: String, now: Millis) -> u32 {
        let entry = self.asked.entry(key).or_insert((now, 0));
        entry.1 = entry.1.saturating_add(1);
        entry.1
    }

    /// A link for a customer whom the panel knows under this address.
    pub fn link(
        &mut self,
        panel: &str,
        user: u64,
        email: &str,
        random: [u8; 32],
        now: Millis,
    ) -> Mail {
        let token = Token::new(random);
        let grant = Grant::Customer { panel: panel.to_owned(), user };
        hold(&mut self.links, token.hash(), grant, now + LINK_MS, now);
        Mail { to: email.trim().to_owned(), token }
    }

    /// Trades a link for a session: once.
    pub fn open(&mut self, link: &str, random: [u8; 32], now: Millis) -> Option<Token> {
        let held = self.links.remove(&Hash::of(link))?;
        if now >= held.until {
            return None;
        }
        let token = Token::new(random);
        hold(&mut self.sessions, token.hash(), held.grant, now + SESSION_MS, now);
        Some(token)
    }

    /// A session for a grant that was proved otherwise, by an embed.
    pub fn session(&mut self, grant: Grant, random: [u8; 32], life_ms: u64, now: Millis) -> Token {
        let token = Token::new(random);
        hold(&mut self.sessions, token.hash(), grant, now + life_ms.min(SESSION_MS), now);
        token
    }

    /// Who holds this session or shared link.
    pub fn grant(&self, presented: &str, now: Millis) -> Option<Grant> {
        let hash = Hash::of(presented);
        if let Some(held) = self.sessions.get(&hash) {
            return (now < held.until).then(|| held.grant.clone());
        }
        self.shares
            .get(&hash)
            .map(|s| Grant::Server { panel: s.panel.clone(), server: s.server.clone() })
    }

    /// Ends a session.
    pub fn close(&mut self, presented: &str) {
        self.sessions.remove(&Hash::of(presented));
    }

    /// Shares a server by link.
    pub fn share(&mut self, share: Share, random: [u8; 32]) -> Token {
        let token = Token::new(random);
        self.shares.insert(token.hash(), share);
        token
    }

    /// Takes every shared link to a server back; how many there were.
    pub fn revoke(&mut self, panel: &str, server: &str) -> usize {
        let before = self.shares.len();
        self.shares.retain(|_, s| s.panel != panel || s.server != server);
        before - self.shares.len()
    }
}

fn hold(map: &mut BTreeMap<Hash, Held>, hash: Hash, grant: Grant, until: Millis, now: Millis) {
    if map.len() >= HELD_MAX {
        map.retain(|_, held| now < held.until);
    }
    if map.len() >= HELD_MAX
        && let Some(oldest) = map.iter().min_by_key(|(_, h)| h.until).map(|(k, _)| k.clone())
    {
        map.remove(&oldest);
    }
    map.insert(hash, Held { grant, until });
}

/// One customer has an IPv4 address or an IPv6 /64.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6([a, b, c, d, 0, 0, 0, 0].into())
        }
    }
}

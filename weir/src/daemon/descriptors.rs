//! Descriptors: weir takes as many as the system allows, and divides them. What strangers open has shares of
//! its own, so that it never costs a BGP session, the command line or the state file.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};
use weir_api::server::{CONNECTIONS_MAX as WEB_MAX, LOCAL_MAX, STRANGERS_MAX};
use weir_config::Config;
use weir_model::LEAVING_MAX;

/// Files, databases, logs, timers and pollers of weir itself, with room for a backup under way.
const OWN: usize = 128;

/// Of one BGP peer: its session, one being opened, and those accepted and not yet looked at.
const PER_PEER: usize = 8;

/// Connections of all exporters at one listener for IPFIX over TCP.
const PER_TCP_LISTENER: usize = 65;

/// Webhooks and scrubbing services: four senders each, of as many as there may be at run time.
const NOTIFY: usize = 128;

/// Of one panel: its poll, and what it is asked for owners.
const PER_PANEL: usize = 4;

/// Connections of owners' browsers, through the operator's proxy, at most.
const OWNERS_MAX: usize = 256;

/// Fewest places with which a listener is of use.
const SHARE_MIN: usize = 16;

/// How many connections each listener for strangers may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    pub(crate) web: usize,
    pub(crate) owners: usize,
    pub(crate) agents: usize,
}

/// Raises the soft limit to the hard one, and divides it.
pub(crate) fn shares(config: &Config) -> Shares {
    let limit = raise();
    let shares = divide(limit, reserved(config), config);
    if shares.is_none() {
        warn!(
            limit,
            needed = reserved(config) + SHARE_MIN * 3,
            "too few descriptors for this configuration: raise LimitNOFILE, or the hard limit (ulimit -Hn)"
        );
    }
    let shares = shares.unwrap_or(Shares { web: SHARE_MIN, owners: SHARE_MIN, agents: SHARE_MIN });
    info!(limit, reserved = reserved(config), ?shares, "descriptors");
    shares
}

/// The limit in force once it is as high as it may be.
fn raise() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    let limit = if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        hard
    } else {
        soft
    };
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// What is kept free of strangers.
fn reserved(config: &Config) -> usize {
    let collector = &config.collector;
    let bgp = config.bgp.as_ref();
    let peers = bgp.map_or(0, |bgp| bgp.peers.len() + bgp.adapters.len()).max(8);
    OWN + LOCAL_MAX
        + STRANGERS_MAX
        + 2 * LEAVING_MAX
        + NOTIFY
        + collector.listen.len() * collector.sockets_per_listener.max(1)
        + (collector.listen_tcp.len() + collector.listen_tls.len()) * PER_TCP_LISTENER
        + peers * PER_PEER
        + config.panels.len() * PER_PANEL
}

/// What is left, in proportion to what each would hold at most; `None` when it is not enough for anybody.
fn divide(limit: usize, reserved: usize, config: &Config) -> Option<Shares> {
    let left = limit.saturating_sub(reserved);
    let wants = Shares {
        web: WEB_MAX,
        owners: config.owners.as_ref().map_or(0, |_| OWNERS_MAX),
        agents: config.agents.as_ref().map_or(0, |_| weir_agent::server::CONNECTIONS_MAX),
    };
    let all = wants.web + wants.owners + wants.agents;
    let share = |wanted: usize| {
        if left >= all { wanted } else { wanted.saturating_mul(left) / all }
    };
    let shares =
        Shares { web: share(wants.web), owners: share(wants.owners), agents: share(wants.agents) };
    let enough = |share: usize, wanted: usize| share >= SHARE_MIN.min(wanted);
    (enough(shares.web, wants.web)
        && enough(shares.owners, wants.owners)
        && enough(shares.agents, wants.agents))
    .then_some(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_below_the_limit() {
        let mut config = Config::default();
        let mut check = |limit: usize, expected: Option<(usize, usize)>| {
            let reserved = reserved(&config);
            let shares = divide(limit, reserved, &config);
            assert_eq!(shares.map(|s| (s.web, s.agents)), expected, "{limit}");
            if let Some(shares) = shares {
                assert!(reserved + shares.web + shares.owners + shares.agents <= limit);
            }
            config.agents = Some(weir_agent::server::Config::default());
        };
        let alone = reserved(&Config::default());
        check(65_536, Some((1024, 0)));
        check(65_536, Some((1024, 4096)));
        check(alone + 512, Some((102, 409)));
        check(alone + 50, None);
        check(10, None);
    }

    #[test]
    fn the_default_limit_of_a_service_manager_is_enough() {
        let agents = Some(weir_agent::server::Config::default());
        let config = Config { agents, ..Config::default() };
        assert!(divide(1024, reserved(&config), &config).is_some());
        assert!(raise() > 0);
    }
}

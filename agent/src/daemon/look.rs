//! What the daemon sees each second.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::config::Config;
use crate::enforcer::nft::Nft;
use crate::enforcer::{Program, RuleCount, ServiceCount};
use crate::eyes::{Sampler, capture, host};
use crate::levels::Pressure;
use crate::protocol::{NodeStats, Service, ServiceStats};

/// UDP port of sFlow.
const SFLOW_PORT: u16 = 6343;

/// Seconds between two looks at the host's files while nothing is in force.
const HEALTH_SECS: u64 = 5;

/// The last look.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// What was put in force last.
    pub(super) program: Program,
    pub(super) services: Vec<ServiceCount>,
    pub(super) rules: Vec<RuleCount>,
    pub(super) stats: NodeStats,
    softnet_before: Option<u64>,
    softnet_dropped: u64,
}

impl Sight {
    /// Reads the kernel's counters. A look that fails shows the last one.
    pub(super) fn count(&mut self, nft: &mut Nft, busy: bool) {
        if !self.program.services.is_empty()
            && let Ok(services) = nft.service_counts()
        {
            self.services = services;
        }
        if !busy {
            self.rules.clear();
        } else if let Ok(rules) = nft.rule_counts(&self.program) {
            self.rules = rules;
        }
    }

    /// Reads the host's files: each second when something is going on, else now and then.
    pub(super) fn health(&mut self, second: u64, busy: bool) {
        if busy || second % HEALTH_SECS == 1 {
            self.stats = host::read(Path::new("/"));
            let dropped = self.stats.softnet_dropped;
            self.softnet_dropped = dropped - self.softnet_before.unwrap_or(dropped).min(dropped);
            self.softnet_before = Some(dropped);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "connections are far below 2^52")]
    pub(super) fn pressure(&self, attack: bool) -> Pressure {
        let s = &self.stats;
        let conntrack_percent = if s.conntrack_max == 0 {
            0.0
        } else {
            s.conntrack as f64 * 100.0 / s.conntrack_max as f64
        };
        Pressure {
            attack,
            conntrack_percent,
            waiting_percent: s.cpu_pressure.max(s.memory_pressure),
            softnet_dropped: self.softnet_dropped,
        }
    }

    pub(super) fn service_stats(&self) -> Vec<ServiceStats> {
        let stats = self.services.iter().map(|s| ServiceStats {
            service: Service { address: s.address, protocol: s.protocol, port: s.port },
            received: s.received,
            answered: s.answered,
        });
        stats.collect()
    }
}

/// Samples packets and sends them to the appliance until something fails.
pub(super) async fn sample(
    config: &Config,
    appliance: Option<IpAddr>,
    rate: u32,
) -> io::Result<()> {
    let collector = config.collector.or_else(|| Some(SocketAddr::new(appliance?, SFLOW_PORT)));
    let collector = collector.ok_or_else(|| io::Error::other("the appliance has no address"))?;
    let names = interfaces(config);
    let numbers: Result<Vec<u32>, _> =
        names.iter().map(|n| nix::net::if_::if_nametoindex(n.as_str())).collect();
    Sampler::start(&numbers?, rate, collector).await?.run().await
}

/// Interfaces that packets come in by: those configured, else those of the default routes.
fn interfaces(config: &Config) -> Vec<String> {
    if !config.interfaces.is_empty() {
        return config.interfaces.clone();
    }
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    host::default_interfaces(&read("/proc/net/route"), &read("/proc/net/ipv6_route"))
}

/// Keeps the beginning of an attack; `None` when nothing came.
pub(super) async fn record(
    config: &Config,
    targets: &[IpAddr],
    comment: &str,
) -> io::Result<Option<Vec<u8>>> {
    let names = interfaces(config);
    let name = names.first().ok_or_else(|| io::Error::other("no interface to capture on"))?;
    let number = nix::net::if_::if_nametoindex(name.as_str())?;
    capture::capture((name, number), targets, comment).await
}

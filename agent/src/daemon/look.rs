//! What the daemon sees each second.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::config::Config;
use crate::enforcer::{Egress, EnforceError, Enforcer, Program, RuleCount, ServiceCount};
use crate::eyes::history::Kept;
use crate::eyes::ring::Seen;
use crate::eyes::{Sampler, capture, host};
use crate::levels::Pressure;
use crate::protocol::{NodeStats, Service, ServiceStats};

/// UDP port of sFlow.
const SFLOW_PORT: u16 = 6343;

/// The last look.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// What was put in force last.
    pub(super) program: Program,
    pub(super) services: Vec<ServiceCount>,
    pub(super) rules: Vec<RuleCount>,
    pub(super) egress: Vec<Egress>,
    pub(super) stats: NodeStats,
    softnet_before: Option<u64>,
    softnet_dropped: u64,
}

impl Sight {
    /// Reads the kernel's counters. A look that fails shows the last one.
    ///
    /// # Errors
    /// [`EnforceError::Gone`] when the rules are not there any more.
    pub(super) fn count(
        &mut self,
        enforcer: &mut dyn Enforcer,
        busy: bool,
    ) -> Result<(), EnforceError> {
        if !self.program.services.is_empty()
            && let Ok(services) = enforcer.service_counts()
        {
            self.services = services;
        }
        if !self.program.containers.is_empty()
            && let Ok(egress) = enforcer.egress()
        {
            self.egress = egress;
        }
        if busy {
            match enforcer.rule_counts(&self.program) {
                Ok(rules) => self.rules = rules,
                Err(EnforceError::Gone) => return Err(EnforceError::Gone),
                Err(_) => (),
            }
        } else {
            self.rules.clear();
        }
        Ok(())
    }

    /// Reads the host's files.
    pub(super) fn health(&mut self) {
        self.stats = host::read(Path::new("/"));
        let dropped = self.stats.softnet_dropped;
        self.softnet_dropped = dropped - self.softnet_before.unwrap_or(dropped).min(dropped);
        self.softnet_before = Some(dropped);
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
pub(super) fn interfaces(config: &Config) -> Vec<String> {
    if !config.interfaces.is_empty() {
        return config.interfaces.clone();
    }
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    host::default_interfaces(&read("/proc/net/route"), &read("/proc/net/ipv6_route"))
}

/// Whether this agent may look at packets.
pub(super) fn may_capture() -> bool {
    socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None).is_ok()
}

/// Keeps the beginning of an attack behind what was before it; `None` when there is nothing.
pub(super) async fn record(
    config: &Config,
    targets: &[IpAddr],
    before: (Vec<Kept>, Seen),
    comment: &str,
) -> io::Result<Option<Vec<u8>>> {
    let names = interfaces(config);
    let name = names.first().ok_or_else(|| io::Error::other("no interface to capture on"))?;
    let number = nix::net::if_::if_nametoindex(name.as_str())?;
    capture::capture((name, number), targets, before, comment).await
}

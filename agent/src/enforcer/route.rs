//! The last resort: black-hole routes, marked as weir's by their protocol number.
//!
//! A route knows destinations only, so what it can express is little: everything towards an address that is
//! routed through this host (not one of its own), and blocked sources where reverse-path filtering looks their
//! routes up. The kernel minds the end of no IPv4 route: a dead agent's routes stay until it is started again,
//! which is why this backend is never chosen where another works.

use std::collections::BTreeSet;

use weir_model::{Direction, IpNet, Match, Millis};

use super::{Applied, EnforceError, Enforcer, Program, Refusal, RuleCount, run, written};
use crate::rules::{NodeAction, Rule};

/// Number of weir's routes in `ip route`: between 192 and 255, which distributions leave free.
const PROTOCOL: &str = "213";

/// A documentation address (RFC 5737), for a route that is there for a moment.
const TRIAL: &str = "192.0.2.255";

/// Most routes.
const ROUTES_MAX: usize = 10_000;

/// Setting that decides whether a source's route is looked up, of this network namespace.
const REVERSE_PATH: &str = "/proc/sys/net/ipv4/conf/all/rp_filter";

/// Black-hole routes of this network namespace.
#[derive(Debug)]
pub struct Routes {
    present: BTreeSet<IpNet>,
}

impl Routes {
    /// Opens it, and takes away what a dead agent has left.
    ///
    /// # Errors
    /// When routes may not be changed.
    pub fn open() -> Result<Self, EnforceError> {
        let mut routes = Self { present: BTreeSet::new() };
        // Flushing nothing is allowed to everybody: only a change shows whether changes are.
        run("ip", &["-4", "route", "replace", "blackhole", TRIAL, "proto", PROTOCOL], "")?;
        routes.clear()?;
        Ok(routes)
    }

    /// Goes from the routes that are there to others.
    fn converge(&mut self, wanted: BTreeSet<IpNet>) -> Result<(), EnforceError> {
        for v4 in [true, false] {
            let ours = |net: &&IpNet| net.addr().is_ipv4() == v4;
            let mut text = String::new();
            for net in self.present.difference(&wanted).filter(ours) {
                text += &format!("route del blackhole {} proto {PROTOCOL}\n", written(*net));
            }
            for net in wanted.difference(&self.present).filter(ours) {
                text += &format!("route replace blackhole {} proto {PROTOCOL}\n", written(*net));
            }
            if !text.is_empty() {
                let family = if v4 { "-4" } else { "-6" };
                run("ip", &[family, "-force", "-batch", "-"], &text)?;
            }
        }
        self.present = wanted;
        Ok(())
    }
}

impl Enforcer for Routes {
    fn name(&self) -> &'static str {
        "route"
    }

    fn apply(
        &mut self,
        program: &Program,
        now: Millis,
        repair: bool,
    ) -> Result<Applied, EnforceError> {
        if repair {
            self.clear()?;
        }
        let own = own_addresses();
        let mut applied = Applied::default();
        let mut wanted = BTreeSet::new();
        for rule in &program.rules {
            match expressed(rule, &own) {
                Ok(net) => {
                    wanted.insert(net);
                    applied.rules.push(rule.id.clone());
                }
                Err(why) => {
                    applied.refused.push(Refusal { rule: rule.id.clone(), why: why.to_owned() })
                }
            }
        }
        let looked_up = std::fs::read_to_string(REVERSE_PATH).is_ok_and(|t| t.trim() != "0");
        if looked_up {
            let spared =
                |net: &IpNet| program.management.iter().any(|m| net.contains(m) || m.contains(net));
            let blocked = program.blocked.iter().filter(|b| b.until > now && !spared(&b.source));
            wanted
                .extend(blocked.map(|b| b.source).filter(|n| n.prefix_len() > 0).take(ROUTES_MAX));
        }
        self.converge(wanted)?;
        Ok(applied)
    }

    fn renew(&mut self, _program: &Program, _now: Millis) -> Result<(), EnforceError> {
        Ok(())
    }

    fn keeps_time(&self) -> bool {
        false
    }

    fn clear(&mut self) -> Result<(), EnforceError> {
        for family in ["-4", "-6"] {
            run("ip", &[family, "route", "flush", "proto", PROTOCOL], "")?;
        }
        self.present.clear();
        Ok(())
    }

    fn rule_counts(&mut self, _program: &Program) -> Result<Vec<RuleCount>, EnforceError> {
        Ok(Vec::new())
    }
}

/// The route that does exactly what a rule says.
fn expressed(rule: &Rule, own: &[std::net::IpAddr]) -> Result<IpNet, &'static str> {
    if rule.direction == Direction::Outbound {
        return Err("a route does not look at who sends");
    }
    if rule.action != NodeAction::Drop {
        return Err("a route can only drop");
    }
    if rule.packets != Match::to(rule.packets.dst) {
        return Err("a route knows nothing but the destination");
    }
    if own.iter().any(|a| rule.packets.dst.contains(a)) {
        return Err("the host's own addresses are delivered before routes are asked");
    }
    Ok(rule.packets.dst)
}

fn own_addresses() -> Vec<std::net::IpAddr> {
    crate::doctor::addresses().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_does_what_it_can_do_exactly_and_nothing_else() {
        let rule = crate::rules::tests::rule();
        let own = ["198.51.100.2".parse().unwrap()];
        assert_eq!(expressed(&rule, &own), Ok(rule.packets.dst));
        let check = |change: &dyn Fn(&mut Rule), why: &str| {
            let mut r = rule.clone();
            change(&mut r);
            assert!(expressed(&r, &own).unwrap_err().contains(why), "{r:?}");
        };
        check(&|r| r.packets.protocols = vec![17], "destination");
        check(&|r| r.action = NodeAction::RatePackets { packets_per_sec: 1 }, "only drop");
        check(&|r| r.direction = Direction::Outbound, "who sends");
        check(&|r| r.packets.dst = "198.51.100.0/24".parse().unwrap(), "own");
    }
}

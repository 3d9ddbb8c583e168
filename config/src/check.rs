//! What the sections cannot see alone.

use std::collections::BTreeSet;
use std::fmt;

use weir_model::{IpNet, Mode, Rung};

use crate::{Config, listeners};

/// Something that works but is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub String);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that can be told without opening a file: what is wrong, each beginning with its key, else
/// what is probably not meant.
pub(crate) fn check(config: &Config) -> Result<Vec<Warning>, Vec<String>> {
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    if let Err(error) = config.log.check() {
        errors.push(error);
    }
    protected(config, &mut errors, &mut warnings);
    listeners::check(config, &mut errors);
    exporters(config, &mut errors, &mut warnings);
    crate::uplink::check(config, &mut errors);
    peers(config, &mut warnings);
    if let Some(Err(error)) = config.bgp.as_ref().map(weir_bgp::config::Config::validate) {
        errors.push(format!("bgp.{error}"));
    }
    if let Err(error) = config.detector.check() {
        errors.push(format!("detector.{error}"));
    }
    measured(config, &mut warnings);
    if let Err(error) = config.collector.check() {
        errors.push(format!("collector.{error}"));
    }
    if let Err(error) = config.mitigator.check() {
        errors.push(format!("mitigator.{error}"));
    }
    ladder(config, &mut warnings);
    told(config, &mut errors);
    if let Err(error) = config.guard.check() {
        errors.push(format!("guard.{error}"));
    }
    if config.api.tls.cert.is_some() != config.api.tls.key.is_some() {
        errors.push("api.tls: cert and key go together".to_owned());
    }
    if config.api.uses_tls()
        && config.api.tls.cert.is_none()
        && config.store.path.as_os_str() == ":memory:"
    {
        errors.push("api.tls needs cert and key, or a store on disk to keep its own".to_owned());
    }
    if config.api.loopback_readonly && !config.api.trusted_proxies.is_empty() {
        errors.push("api.loopback_readonly and api.trusted_proxies do not go together".to_owned());
    }
    if let Err(error) = config.panel_section().check() {
        errors.push(error.to_string());
    }
    if let Some(Err(error)) = config.owners.as_ref().map(weir_panel::config::Owners::check) {
        errors.push(error);
    }
    if config.agents.as_ref().is_some_and(|a| !(1..=600).contains(&a.wait_secs)) {
        errors.push("agents.wait_secs is outside 1-600".to_owned());
    }
    if config.store.path.as_os_str().is_empty() {
        errors.push("store.path is empty".to_owned());
    }
    if config.store.keep_days == 0 {
        errors.push("store.keep_days must be at least 1".to_owned());
    }
    if errors.is_empty() { Ok(warnings) } else { Err(errors) }
}

/// Groups of metrics that there are not: they may still come at run time.
fn measured(config: &Config, warnings: &mut Vec<Warning>) {
    let known: BTreeSet<&str> = config.protect.groups.iter().map(|g| g.name.as_str()).collect();
    for metric in &config.detector.metrics {
        for group in metric.groups.iter().filter(|group| !known.contains(group.as_str())) {
            warnings.push(Warning(format!(
                "detector.metric {:?}: there is no group {group:?} in the file",
                metric.name
            )));
        }
    }
}

fn protected(config: &Config, errors: &mut Vec<String>, warnings: &mut Vec<Warning>) {
    let protect = &config.protect;
    if protect.prefixes.is_empty() {
        let why = if config.peers().is_empty() {
            "nothing is watched"
        } else {
            "BGP peers are set, but nothing could be announced to them"
        };
        errors.push(format!("protect.prefixes is empty: {why}"));
    }
    errors.extend(protect.beyond());
    for service in &protect.services {
        if !protect.prefixes.is_empty() && !protect.prefixes.contains(service.address) {
            errors.push(format!(
                "protect.service {}:{} lies in none of protect.prefixes",
                service.address, service.port
            ));
        }
    }
    errors.extend(crate::allow::check(
        &protect.allow,
        config.bgp.as_ref().is_some_and(|bgp| bgp.rpki.is_some()),
    ));
    warnings.extend(crate::allow::warnings(config));
    if let Err(why) = crate::protect::check_groups(&protect.groups) {
        errors.push(format!("protect.group {why}"));
    }
    let grouped = protect.groups.iter().flat_map(|g| g.prefixes.iter().map(|net| (&g.name, net)));
    for (name, net) in grouped.filter(|(_, net)| !protect.prefixes.overlaps(*net)) {
        warnings.push(Warning(format!(
            "protect.group {name:?}: {net} lies in none of protect.prefixes and changes nothing"
        )));
    }
    for net in protect.never_touch.iter().filter(|net| !protect.prefixes.overlaps(*net)) {
        warnings.push(Warning(format!(
            "protect.never_touch {net} lies in none of protect.prefixes and changes nothing"
        )));
    }
}

/// Steps that the guard or the peers never let weir take.
fn ladder(config: &Config, warnings: &mut Vec<Warning>) {
    for step in &config.mitigator.ladder {
        let why = match step.rung {
            Rung::Redirect if !config.guard.allow_redirect => "guard.allow_redirect is off",
            Rung::Divert if config.peers().iter().all(|peer| peer.divert.is_none()) => {
                "no bgp.peer has divert"
            }
            Rung::Divert
                if step.len4.is_some_and(|len| len > config.guard.divert_max_len4)
                    || step.len6.is_some_and(|len| len > config.guard.divert_max_len6) =>
            {
                "its prefix is longer than guard.divert_max_len4 or divert_max_len6"
            }
            _ => continue,
        };
        warnings.push(Warning(format!("mitigator.ladder: {} is never taken: {why}", step.rung)));
    }
}

fn told(config: &Config, errors: &mut Vec<String>) {
    if let Err(error) = config.notify.check() {
        errors.push(format!("notify.{error}"));
    }
    let hooks = config.mitigator.webhooks.iter().map(|hook| &hook.name);
    let others: BTreeSet<&String> =
        hooks.chain(config.mitigator.scrubbers.iter().map(|scrubber| &scrubber.name)).collect();
    for channel in config.notify.channels.iter().filter(|c| others.contains(&c.name)) {
        errors.push(format!(
            "notify.channel \"{}\": a webhook or a scrubber has the same name",
            channel.name
        ));
    }
}

fn exporters(config: &Config, errors: &mut Vec<String>, warnings: &mut Vec<Warning>) {
    if config.collector.exporters.is_empty() {
        warnings.push(Warning(
            "collector.exporters is empty: every flow datagram will be refused and counted"
                .to_owned(),
        ));
    }
    let mut seen = BTreeSet::new();
    for target in &config.collector.replicate {
        let own = |listen: &std::net::SocketAddr| {
            let here = target.to.ip().is_loopback() || target.to.ip().is_unspecified();
            let same = listen.ip() == target.to.ip() || (listen.ip().is_unspecified() && here);
            same && listen.port() == target.to.port()
        };
        if config.collector.listen.iter().any(own) {
            errors.push(format!("collector.replicate: {} is weir's own listener", target.to));
        }
    }
    for exporter in &config.collector.exporters {
        if !seen.insert(exporter.address.trunc()) {
            errors.push(format!("collector.exporters: {} is listed twice", exporter.address));
        }
    }
}

fn peers(config: &Config, warnings: &mut Vec<Warning>) {
    for peer in config.peers() {
        let own = IpNet::from(peer.address);
        if config.protect.prefixes.covering_net(own).is_some()
            && config.protect.touchable.covering_net(own).is_some()
            && config.protect.never_touch.covering_net(own).is_none()
        {
            warnings.push(Warning(format!(
                "bgp.peer {:?}: its address {} is protected and in protect.touchable: a rule could cut the session",
                peer.name, peer.address
            )));
        }
    }
    if config.peers().is_empty() && config.mitigator.mode == Mode::Auto {
        warnings.push(Warning(
            "mitigator.mode is \"auto\" but there is no bgp.peer: nothing will be announced"
                .to_owned(),
        ));
    }
}

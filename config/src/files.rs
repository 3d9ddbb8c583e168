//! Files that a configuration names: weir does not start without them, so `weir check` opens them too.

use std::path::Path;

use weir_api::server::Identity;

use crate::{Config, Warning};

/// Longest TCP MD5 key, octets (RFC 2385 as Linux has it).
const KEY_MAX: usize = 80;

/// What cannot be opened, or is not what it should be.
pub(crate) fn check(config: &Config) -> Vec<String> {
    let mut errors = Vec::new();
    for peer in config.peers() {
        let Some(path) = &peer.password_file else { continue };
        let wrong = match read(path) {
            Ok(key) if (1..=KEY_MAX).contains(&key.len()) => continue,
            Ok(_) => format!("{}: must hold 1-{KEY_MAX} octets", path.display()),
            Err(why) => why,
        };
        errors.push(format!("bgp.peer \"{}\": password_file: {wrong}", peer.name));
    }
    let hooks = config.mitigator.webhooks.iter().map(|h| ("webhook", &h.name, &h.secret_file));
    let services = config.mitigator.scrubbers.iter().map(|s| ("scrubber", &s.name, &s.secret_file));
    for (kind, name, file) in hooks.chain(services) {
        if let Some(Err(why)) = file.as_deref().map(read) {
            errors.push(format!("mitigator.{kind} \"{name}\": secret_file: {why}"));
        }
    }
    if let Err(why) = config.notify.open() {
        errors.push(format!("notify.{why}"));
    }
    for panel in &config.panels {
        if let (Some(_), Err(why)) = (&panel.key_file, panel.read_key()) {
            errors.push(format!("panel \"{}\": key_file: {why}", panel.name));
        }
    }
    if let (Some(_), Some(_)) = (&config.api.tls.cert, &config.api.tls.key)
        && let Err(error) = Identity::load(&config.api.tls, Path::new(""))
    {
        errors.push(error.to_string());
    }
    if let Some(tls) = &config.collector.tls
        && !config.collector.listen_tls.is_empty()
        && let Err(error) = weir_collector::socket::check_tls(tls)
    {
        errors.push(format!("collector.tls: {error}"));
    }
    errors
}

/// Files without which weir starts, and that cannot be read.
pub(crate) fn absent(config: &Config) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for list in &config.protect.allow {
        if let Some(Err(why)) = list.file.as_deref().map(read) {
            warnings.push(Warning(format!(
                "protect.allow \"{}\": file: {why}; until it can be read, the list holds what it last said",
                list.name
            )));
        }
    }
    warnings
}

pub(crate) fn read(path: &Path) -> Result<String, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

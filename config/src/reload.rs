//! What another file changes in a running weir: what is put in force at once, and what waits for a restart.
//!
//! [`FIXED`] says what cannot change while weir runs, and why; everything else is put in force.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use toml::Value;

use crate::{Config, ConfigError, Fault, Settings, check};

/// Longest value that is shown of a difference, characters.
const SHOWN_MAX: usize = 120;

/// A setting that two configurations have otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its key, as it is written in errors: `bgp.peer "edge1".hold_time_secs`.
    pub key: String,
    /// What it was; none when it was not there.
    pub before: Option<String>,
    /// What it is; none when it is gone.
    pub after: Option<String>,
    /// Why only a restart puts it in force, if so.
    pub why: Option<&'static str>,
}

/// What comes of another file.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is in force afterwards, run-time settings aside.
    pub config: Config,
    /// What is put in force at once.
    pub live: Vec<Difference>,
    /// What a restart would put in force.
    pub restart: Vec<Difference>,
}

/// Compares what runs with a file that was read and checked.
///
/// # Errors
/// [`ConfigError::Faults`] when what can change and what cannot do not go together: only a restart helps.
pub fn plan(running: &Config, file: &Config) -> Result<Plan, ConfigError> {
    let config = take(running, file);
    check::check(&config).map_err(|errors| {
        let without = |what: String| format!("without a restart: {what}");
        ConfigError::faults(
            errors.into_iter().map(|e| Fault { place: None, what: without(e) }).collect(),
        )
    })?;
    let live = differences(running, &config)?;
    let mut restart = differences(&config, file)?;
    for difference in &mut restart {
        difference.why = needs_restart(&plain(&difference.key));
    }
    Ok(Plan { config, live, restart })
}

/// What only a restart puts in force, with everything below it, and why.
const FIXED: [(&str, &str); 8] = [
    ("log.format", "the log is begun in one form"),
    ("collector", "sockets, receive threads and their memory are made at the start"),
    ("detector.quarantine_secs", "every watched host has room for so many seconds"),
    ("flows", "receive threads are made with their way to it"),
    ("mitigator.scrubber", "what is diverted is known by its service"),
    ("api.socket", "commands and what they left behind are looked for there"),
    ("api.tls.names", "weir's own certificate is made once"),
    ("store.path", "the state file is opened at the start"),
];

/// What of it changes while weir runs all the same.
const NOT_FIXED: [&str; 1] = ["collector.exporters"];

/// Why only a restart puts a setting in force, by its dotted key; `None` when a reload does.
pub fn needs_restart(key: &str) -> Option<&'static str> {
    let below = |part: &str| {
        key.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if NOT_FIXED.into_iter().any(below) {
        return None;
    }
    FIXED.into_iter().find(|(part, _)| below(part)).map(|(_, why)| why)
}

/// A difference's key without what tells entries of a list apart: `bgp.peer "edge1".port` is
/// `bgp.peer.port`.
fn plain(key: &str) -> String {
    let parts = key.split('"').step_by(2).map(str::trim_end);
    parts.collect::<String>().trim_end_matches("(order)").trim_end().to_owned()
}

/// The file, with what cannot change as it runs.
fn take(running: &Config, file: &Config) -> Config {
    let mut next = file.clone();
    next.log.format = running.log.format;
    next.collector = weir_collector::Config {
        exporters: file.collector.exporters.clone(),
        ..running.collector.clone()
    };
    next.detector.quarantine_secs = running.detector.quarantine_secs;
    next.mitigator.scrubbers.clone_from(&running.mitigator.scrubbers);
    next.flows.clone_from(&running.flows);
    next.store.path.clone_from(&running.store.path);
    next.api.socket.clone_from(&running.api.socket);
    next.api.tls.names.clone_from(&running.api.tls.names);
    next
}

/// A setting that stands in for the file's, which therefore is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// The setting's name, as for `weir settings`.
    pub name: &'static str,
    /// What the file has and weir does not: prefixes, groups or steps.
    pub missing: Vec<String>,
}

impl Settings {
    /// What of the file is not in force because a setting stands in for it.
    pub fn hides(&self, file: &Config) -> Vec<Hidden> {
        let mut all = Vec::new();
        if let Some(set) = &self.prefixes {
            let set: Vec<_> = set.iter().collect();
            let missing = file.protect.prefixes.iter().filter(|net| !set.contains(net));
            all.push(Hidden {
                name: "prefixes",
                missing: missing.map(|net| net.to_string()).collect(),
            });
        }
        if let Some(set) = &self.groups {
            let known: BTreeMap<_, _> = set.iter().map(|group| (&group.name, group)).collect();
            let missing =
                file.protect.groups.iter().filter(|group| known.get(&group.name) != Some(group));
            all.push(Hidden { name: "groups", missing: missing.map(|g| g.name.clone()).collect() });
        }
        if let Some(set) = &self.ladder {
            let missing = file.mitigator.ladder.iter().filter(|step| !set.contains(step));
            all.push(Hidden {
                name: "ladder",
                missing: missing.map(|s| s.rung.to_string()).collect(),
            });
        }
        all.retain(|hidden| !hidden.missing.is_empty());
        all
    }
}

/// Every setting in which two configurations differ, by key. Of credentials only that they differ.
///
/// # Errors
/// [`ConfigError::Dump`] when a value has no TOML form.
pub fn differences(before: &Config, after: &Config) -> Result<Vec<Difference>, ConfigError> {
    let table = |config| toml::Table::try_from(config).map(Value::Table).map_err(ConfigError::Dump);
    let mut found = Vec::new();
    compare("", Some(&table(before)?), Some(&table(after)?), &mut found);
    let (old, new) = (credentials(before), credentials(after));
    for (key, secret) in &new {
        let hidden = || Some("(hidden)".to_owned());
        let known = found.iter().any(|d| d.key == *key || key.starts_with(&format!("{}.", d.key)));
        match old.get(key) {
            Some(known) if known == secret => {}
            _ if known => {}
            other => found.push(Difference {
                key: key.clone(),
                before: other.and_then(|_| hidden()),
                after: hidden(),
                why: None,
            }),
        }
    }
    found.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}

/// What a dump leaves out.
fn credentials(config: &Config) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for peer in config.peers() {
        if let Some(key) = &peer.password {
            all.insert(format!("bgp.peer \"{}\".password", peer.name), key.expose().to_owned());
        }
    }
    let hooks = config.mitigator.webhooks.iter();
    let hooks = hooks.map(|h| ("webhook", &h.name, &h.url, &h.secret, &h.headers));
    let services = config.mitigator.scrubbers.iter();
    let services = services.map(|s| ("scrubber", &s.name, &s.url, &s.secret, &s.headers));
    for (kind, name, url, secret, headers) in hooks.chain(services) {
        let at = format!("mitigator.{kind} \"{name}\"");
        all.insert(format!("{at}.url"), url.expose().to_owned());
        all.insert(format!("{at}.headers"), format!("{headers:?}"));
        all.insert(format!("{at}.secret"), format!("{:?}", secret.as_ref().map(|s| s.expose())));
    }
    for channel in &config.notify.channels {
        for (name, source) in &channel.secrets {
            if let weir_notify::SecretSource::Text(secret) = source {
                let key = format!("notify.channel \"{}\".secrets.{name}", channel.name);
                all.insert(key, secret.expose().to_owned());
            }
        }
    }
    for panel in &config.panels {
        for (name, secret) in [
            ("key", &panel.key),
            ("hook_token", &panel.hook_token),
            ("embed_key", &panel.embed_key),
        ] {
            let key = format!("panel \"{}\".{name}", panel.name);
            all.insert(key, format!("{:?}", secret.as_ref().map(|s| s.expose())));
        }
    }
    all
}

fn compare(key: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Difference>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Some(Value::Table(old)), Some(Value::Table(new))) => {
            let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
            for part in keys {
                let dot = if key.is_empty() { "" } else { "." };
                compare(&format!("{key}{dot}{part}"), old.get(part), new.get(part), found);
            }
        }
        _ => match (labelled(key, before), labelled(key, after)) {
            (Some(old), Some(new)) if !old.is_empty() || !new.is_empty() => {
                compare_lists(key, &old, &new, found);
            }
            _ => found.push(Difference {
                key: key.to_owned(),
                before: before.map(inline),
                after: after.map(inline),
                why: None,
            }),
        },
    }
}

fn compare_lists<'a>(
    key: &str,
    old: &[(String, &'a Value)],
    new: &[(String, &'a Value)],
    found: &mut Vec<Difference>,
) {
    // Ten thousand groups are many: by label, not one after the other.
    let index = |list: &[(String, &'a Value)]| -> BTreeMap<String, &'a Value> {
        list.iter().cloned().collect()
    };
    let (was, is) = (index(old), index(new));
    for (label, value) in old {
        compare(&format!("{key} \"{label}\""), Some(value), is.get(label).copied(), found);
    }
    for (label, value) in new.iter().filter(|(label, _)| !was.contains_key(label)) {
        compare(&format!("{key} \"{label}\""), None, Some(value), found);
    }
    let common = |list: &[(String, &Value)], other: &BTreeMap<String, &Value>| -> Vec<String> {
        let both = list.iter().filter(|(label, _)| other.contains_key(label));
        both.map(|(label, _)| label.clone()).collect()
    };
    let (before, after) = (common(old, &is), common(new, &was));
    if before != after {
        let text = |labels: Vec<String>| Some(shorten(labels.join(", ")));
        found.push(Difference {
            key: format!("{key} (order)"),
            before: text(before),
            after: text(after),
            why: None,
        });
    }
}

/// The tables of a list by what tells them apart; `None` when it is no list of tables.
fn labelled<'a>(key: &str, value: Option<&'a Value>) -> Option<Vec<(String, &'a Value)>> {
    let Some(value) = value else { return Some(Vec::new()) };
    let list = value.as_array()?;
    let mut all: Vec<(String, &Value)> = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for element in list {
        let table = element.as_table()?;
        let text = |key: &str| {
            table.get(key).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
        };
        let label = match (text("port"), text("address"), text("protocol")) {
            // A declared service: names of servers repeat.
            (Some(port), Some(address), Some(protocol)) => format!("{address} {protocol} {port}"),
            // An exporter is known by its address: it may be given another name.
            (None, Some(address), None) if key == "collector.exporters" => address,
            _ => text("name").or_else(|| text("address")).or_else(|| text("rung"))?,
        };
        let times = seen.entry(label.clone()).or_default();
        *times += 1;
        let label = if *times == 1 { label } else { format!("{label} ({times})") };
        all.push((label, element));
    }
    Some(all)
}

/// A value on one line.
fn inline(value: &Value) -> String {
    fn write(value: &Value, text: &mut String) {
        match value {
            Value::Table(table) => {
                text.push('{');
                for (i, (key, value)) in table.iter().enumerate() {
                    let _ = write!(text, "{}{key} = ", if i == 0 { "" } else { ", " });
                    write(value, text);
                }
                text.push('}');
            }
            Value::Array(list) => {
                text.push('[');
                for (i, value) in list.iter().enumerate() {
                    text.push_str(if i == 0 { "" } else { ", " });
                    write(value, text);
                }
                text.push(']');
            }
            other => text.push_str(other.to_string().trim_end()),
        }
    }
    let mut text = String::new();
    write(value, &mut text);
    shorten(text)
}

fn shorten(text: String) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FILE: &str = "[protect]\nprefixes = [\"203.0.113.0/24\"]\n[[collector.exporters]]\n\
        address = \"192.0.2.1/32\"\nname = \"edge1\"\n[[mitigator.webhook]]\nname = \"ops\"\n\
        url = \"https://example.net/a\"\nsecret = \"one\"\n[bgp]\nlocal_as = 65010\n\
        router_id = \"10.0.0.1\"\n[[bgp.peer]]\nname = \"edge\"\naddress = \"192.0.2.1\"\nremote_as = 65010\n";

    fn config(text: &str) -> Config {
        crate::parse(text).unwrap().0
    }

    /// Keys that are put in force, and keys that wait.
    fn planned(from: &str, to: &str) -> (Vec<String>, Vec<String>) {
        let found = plan(&config(FILE), &config(&FILE.replace(from, to))).unwrap();
        let keys = |list: Vec<Difference>| list.into_iter().map(|d| d.key).collect();
        (keys(found.live), keys(found.restart))
    }

    #[test]
    fn what_can_change_is_told_from_what_cannot() {
        let check = |from: &str, to: &str, live: &[&str], restart: &[&str]| {
            let (now, later) = planned(from, to);
            assert_eq!(
                (now, later),
                (
                    live.iter().map(ToString::to_string).collect(),
                    restart.iter().map(ToString::to_string).collect()
                ),
                "{to}"
            );
        };
        check("x", "x", &[], &[]);
        check("[\"203.0.113.0/24\"]", "[\"198.51.100.0/24\"]", &["protect.prefixes"], &[]);
        let edge2 = "[[collector.exporters]]\naddress = \"192.0.2.2/32\"\n[[collector.exporters]]";
        check("[[collector.exporters]]", edge2, &["collector.exporters \"192.0.2.2/32\""], &[]);
        check(
            "name = \"edge1\"",
            "sampling = 5",
            &[
                "collector.exporters \"192.0.2.1/32\".name",
                "collector.exporters \"192.0.2.1/32\".sampling",
            ],
            &[],
        );
        check("secret = \"one\"", "secret = \"two\"", &["mitigator.webhook \"ops\".secret"], &[]);
        check("local_as = 65010\n", "local_as = 65020\n", &["bgp.local_as"], &[]);
        check(
            "[protect]\n",
            "[store]\npath = \"/x\"\n[detector]\nmultiplier = 4.0\nquarantine_secs = 31\n\
            [protect]\n",
            &["detector.multiplier"],
            &["detector.quarantine_secs", "store.path"],
        );
    }

    /// Every number and switch of a configuration, changed by itself.
    fn changed(prefix: &str, table: &toml::Table, found: &mut Vec<(String, toml::Table)>) {
        for (key, value) in table {
            let dot = if prefix.is_empty() { "" } else { "." };
            let at = format!("{prefix}{dot}{key}");
            let new = match value {
                Value::Boolean(on) => Value::Boolean(!on),
                Value::Integer(n) => Value::Integer(n + 1),
                Value::Float(n) => Value::Float(n / 2.0 + 1.0),
                Value::Table(inner) => {
                    let mut below = Vec::new();
                    changed(&at, inner, &mut below);
                    for (at, inner) in below {
                        let mut whole = table.clone();
                        whole.insert(key.clone(), Value::Table(inner));
                        found.push((at, whole));
                    }
                    continue;
                }
                _ => continue,
            };
            let mut whole = table.clone();
            whole.insert(key.clone(), new);
            found.push((at, whole));
        }
    }

    #[test]
    fn what_is_said_to_be_put_in_force_is() {
        let running = config(FILE);
        let table = toml::Table::try_from(&running).unwrap();
        let mut all = Vec::new();
        changed("", &table, &mut all);
        assert!(all.len() > 90, "{}", all.len());
        for (key, table) in all {
            let Ok(mut file) = table.try_into::<Config>() else { continue };
            // A table made of a configuration lacks the credentials that only a file may hold.
            let kept = running.mitigator.webhooks.iter();
            for (hook, kept) in file.mitigator.webhooks.iter_mut().zip(kept) {
                hook.url.clone_from(&kept.url);
                hook.secret.clone_from(&kept.secret);
            }
            let put = differences(&running, &take(&running, &file)).unwrap();
            let live = needs_restart(&key).is_none();
            let expected = if live { vec![key.clone()] } else { Vec::new() };
            let put: Vec<String> = put.into_iter().map(|d| d.key).collect();
            let infinite = put.is_empty() && file_is(&running, &file);
            assert!(put == expected || infinite, "{key}: {put:?}");
        }
    }

    /// Half of infinity is infinity.
    fn file_is(running: &Config, file: &Config) -> bool {
        differences(running, file).unwrap().is_empty()
    }

    #[test]
    fn credentials_are_never_shown_and_long_values_are_cut() {
        let to = FILE.replace("secret = \"one\"", "secret = \"two\"");
        let found = plan(&config(FILE), &config(&to)).unwrap();
        assert!(!format!("{:?}", found.live).contains("two"), "{:?}", found.live);
        let many: Vec<String> = (0..100).map(|n| format!("\"10.{n}.0.0/16\"")).collect();
        let to = FILE.replace("[\"203.0.113.0/24\"]", &format!("[{}]", many.join(",")));
        let found = plan(&config(FILE), &config(&to)).unwrap();
        let after = found.live[0].after.clone().unwrap();
        assert!(after.ends_with("...") && after.len() < 130, "{after}");
    }

    #[test]
    fn what_the_file_has_and_weir_does_not_is_named() {
        let mut settings = Settings::default();
        assert_eq!(settings.hides(&config(FILE)), []);
        settings.take("prefixes", Some(&json!(["203.0.113.0/24", "198.51.100.0/24"]))).unwrap();
        assert_eq!(settings.hides(&config(FILE)), [], "more than the file has hides nothing");
        settings.take("prefixes", Some(&json!(["198.51.100.0/24"]))).unwrap();
        let hidden = settings.hides(&config(FILE));
        assert_eq!(hidden, [Hidden { name: "prefixes", missing: vec!["203.0.113.0/24".into()] }]);
    }
}

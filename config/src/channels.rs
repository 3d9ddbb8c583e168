//! Channels that operators set while weir runs: how a list is kept, changed and shown.
//!
//! Credentials go in and never come out. The path of an address counts among them: many services
//! hide a token there.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use weir_model::WebhookConfig;

/// Longest name, octets: it stands in addresses of the API and in metrics.
const NAME_MAX: usize = 64;

/// Longest address, secret, or name or value of a header, octets.
const TEXT_MAX: usize = 2048;

/// Headers of one channel at most.
const HEADERS_MAX: usize = 16;

/// A channel as whoever changes it gives it. What it leaves out of address, secret and headers stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    name: String,
    #[serde(default)]
    url: Option<String>,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    events: Vec<String>,
    #[serde(default)]
    secret: Option<String>,
    #[serde(default)]
    headers: Option<BTreeMap<String, String>>,
    // As shown, so that a list can be read, changed and written back.
    #[serde(default, rename = "address")]
    _address: Option<String>,
    #[serde(default, rename = "secret_set")]
    _secret_set: Option<bool>,
    #[serde(default, rename = "headers_set")]
    _headers_set: Option<Vec<String>>,
}

const fn yes() -> bool {
    true
}

/// Reads what is kept.
pub(crate) fn read(value: &Value) -> Result<Vec<WebhookConfig>, String> {
    Vec::deserialize(value).map_err(|error| error.to_string())
}

/// Checks what the file's webhooks need not keep to.
pub(crate) fn check(channels: &[WebhookConfig]) -> Result<(), String> {
    for channel in channels {
        let name = &channel.name;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(plain) {
            return Err(format!("{name:?}: a name is 1 to {NAME_MAX} of a-z, 0-9, -, _ and ."));
        }
        if channel.secret_file.is_some() {
            return Err(format!("{name}: secret_file is for the configuration file"));
        }
        let secret = channel.secret.iter().map(|secret| secret.expose());
        let headers = channel.headers.iter().flat_map(|(k, v)| [k.as_str(), v.as_str()]);
        let long = |text: &str| text.len() > TEXT_MAX;
        if long(channel.url.expose()) || secret.chain(headers).any(long) {
            return Err(format!("{name}: at most {TEXT_MAX} octets each"));
        }
        if channel.headers.len() > HEADERS_MAX {
            return Err(format!("{name}: at most {HEADERS_MAX} headers"));
        }
    }
    Ok(())
}

/// What is to be kept when `given` takes the place of `before`. Credentials stay with the address they
/// were given for: who changes that gives them anew, so that none is ever sent elsewhere.
pub(crate) fn complete(before: Option<&Value>, given: &Value) -> Result<Value, String> {
    let before = before.map(read).transpose()?.unwrap_or_default();
    let given: Vec<Given> = Vec::deserialize(given).map_err(|error| error.to_string())?;
    let list: Result<Vec<Value>, String> = given
        .into_iter()
        .map(|given| {
            let old = before.iter().find(|old| old.name == given.name);
            let url = given.url.or_else(|| old.map(|old| old.url.expose().to_owned()));
            let url = url.ok_or_else(|| format!("{}: url is missing", given.name))?;
            let old = old.filter(|old| {
                let credentials = old.secret.is_some() || !old.headers.is_empty();
                old.url.expose() == url || credentials
            });
            let moved = old.is_some_and(|old| old.url.expose() != url);
            let again = |what: &str| {
                let name = &given.name;
                Err(format!("{name}: its address changes: give {what} again, or leave it empty"))
            };
            let secret = match (given.secret, old.and_then(|old| old.secret.as_ref())) {
                (Some(secret), _) => Some(secret).filter(|secret| !secret.is_empty()),
                (None, Some(_)) if moved => return again("secret"),
                (None, old) => old.map(|old| old.expose().to_owned()),
            };
            let headers = match (given.headers, old.map(|old| &old.headers)) {
                (Some(headers), _) => headers,
                (None, Some(old)) if moved && !old.is_empty() => return again("headers"),
                (None, old) => old.map(|old| (**old).clone()).unwrap_or_default(),
            };
            Ok(json!({"name": given.name, "url": url, "enabled": given.enabled,
                "events": given.events, "secret": secret, "headers": headers}))
        })
        .collect();
    list.map(Value::Array)
}

/// One channel, without what must not be read back.
pub(crate) fn shown(channel: &WebhookConfig) -> Value {
    json!({"name": channel.name, "address": channel.url.origin(), "enabled": channel.enabled,
        "events": channel.events,
        "secret_set": channel.secret.is_some() || channel.secret_file.is_some(),
        "headers_set": channel.headers.keys().collect::<Vec<_>>()})
}

/// A list as it may be shown; in place of what cannot be read its length.
pub(crate) fn shown_list(value: &Value) -> Value {
    match read(value) {
        Ok(list) => list.iter().map(shown).collect(),
        Err(_) => json!({"unreadable": value.as_array().map_or(0, Vec::len)}),
    }
}

/// A list as the audit log keeps it: which credentials were replaced, and never what they are.
pub(crate) fn told(before: Option<&Value>, value: &Value) -> Value {
    let old = before.and_then(|before| read(before).ok()).unwrap_or_default();
    let Ok(list) = read(value) else { return shown_list(value) };
    list.iter()
        .map(|channel| {
            let old = old.iter().find(|old| old.name == channel.name);
            let parts = [
                ("url", old.is_some_and(|old| old.url != channel.url)),
                ("secret", old.is_some_and(|old| old.secret != channel.secret)),
                ("headers", old.is_some_and(|old| old.headers != channel.headers)),
            ];
            let replaced: Vec<&str> =
                parts.into_iter().filter(|(_, is)| *is).map(|(part, _)| part).collect();
            let mut told = shown(channel);
            if let Some(map) = told.as_object_mut().filter(|_| !replaced.is_empty()) {
                map.insert("replaced".to_owned(), json!(replaced));
            }
            told
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Value {
        let ops = json!({"name": "ops", "url": "https://hooks.example.net/T0/s3cret",
            "secret": "hunter2", "headers": {"Authorization": "Bearer x"}});
        complete(None, &json!([ops])).unwrap()
    }

    #[test]
    fn credentials_go_in_and_never_come_out() {
        let text = shown_list(&kept()).to_string();
        for secret in ["s3cret", "hunter2", "Bearer"] {
            assert!(!text.contains(secret), "{text}");
            assert!(!told(Some(&json!([])), &kept()).to_string().contains(secret));
        }
        let shown = &shown_list(&kept())[0];
        assert_eq!(shown["address"], "https://hooks.example.net");
        assert_eq!(
            (&shown["secret_set"], &shown["headers_set"]),
            (&true.into(), &json!(["Authorization"]))
        );
    }

    #[test]
    fn what_is_shown_can_be_changed_and_written_back() {
        let mut shown = shown_list(&kept());
        shown[0]["enabled"] = false.into();
        let after = complete(Some(&kept()), &shown).unwrap();
        assert_eq!(after[0]["secret"], "hunter2");
        assert_eq!(after[0]["url"], kept()[0]["url"]);
        assert_eq!(after[0]["enabled"], false);
        let cleared = json!([{"name": "ops", "secret": "", "headers": {}}]);
        let after = complete(Some(&kept()), &cleared).unwrap();
        assert_eq!((&after[0]["secret"], &after[0]["headers"]), (&Value::Null, &json!({})));
        let told = told(Some(&kept()), &after);
        assert_eq!(told[0]["replaced"], json!(["secret", "headers"]));
    }

    #[test]
    fn credentials_do_not_follow_to_another_address() {
        let moved = |more: Value| {
            let mut given = json!({"name": "ops", "url": "https://evil.example"});
            given.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            complete(Some(&kept()), &json!([given]))
        };
        assert!(moved(json!({})).unwrap_err().contains("secret"));
        assert!(moved(json!({"secret": "new"})).unwrap_err().contains("headers"));
        let both = moved(json!({"secret": "new", "headers": {}})).unwrap();
        assert_eq!(both[0]["secret"], "new");
        assert!(complete(None, &json!([{"name": "ops"}])).is_err(), "no address");
        let other = json!([{"name": "other", "url": "https://evil.example"}]);
        assert_eq!(complete(Some(&kept()), &other).unwrap()[0]["secret"], Value::Null);
    }

    #[test]
    fn names_files_and_lengths_have_limits() {
        let check = |more: Value| {
            let mut value = kept();
            value[0].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            check(&read(&value).unwrap())
        };
        assert_eq!(check(json!({})), Ok(()));
        assert!(check(json!({"name": "a/b"})).is_err());
        assert!(check(json!({"secret_file": "/etc/shadow"})).is_err());
        assert!(check(json!({"secret": "x".repeat(TEXT_MAX + 1)})).is_err());
    }
}

//! Run-time settings beside the configuration file: what differs, and what to write into the file so that
//! they are no longer needed.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::client::Client;
use super::output::Output;

/// Settings as the API lists them, those that are set; one when it is named.
fn set(client: &Client, name: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let mut list = client.get("/api/v1/settings")?;
    let all = list["settings"].as_array_mut().map(std::mem::take).unwrap_or_default();
    if let Some(name) = name {
        let known = all.iter().any(|setting| setting["name"] == name);
        anyhow::ensure!(known, "there is no setting {name:?}");
    }
    let wanted = |setting: &Value| {
        !setting["value"].is_null() && name.is_none_or(|name| setting["name"] == name)
    };
    Ok(all.into_iter().filter(wanted).collect())
}

/// Prints what the file has and weir does not (-), and the other way round (+).
pub(super) fn diff(client: &Client, output: &Output, name: Option<&str>) -> anyhow::Result<()> {
    let all: Vec<Value> = set(client, name)?.iter().map(difference).collect();
    let mut text = String::new();
    for setting in &all {
        let _ = writeln!(text, "{}:", word(&setting["name"]));
        for (sign, side) in [("-", "file_only"), ("+", "set_only")] {
            for entry in setting[side].as_array().into_iter().flatten() {
                let _ = writeln!(text, "  {sign} {}", plain(entry));
            }
        }
    }
    if all.is_empty() {
        text.push_str("nothing is set at run time: the file decides");
    }
    output.one(&json!({ "settings": all }), &text)
}

/// Prints the parts of the file that say what is set at run time. The file itself is the operator's.
pub(super) fn adopt(client: &Client, output: &Output, name: Option<&str>) -> anyhow::Result<()> {
    let all = set(client, name)?;
    let mut text = String::new();
    for setting in &all {
        text.push_str(&fragment(setting)?);
    }
    let mut names = all.iter().map(|setting| word(&setting["name"])).collect::<Vec<_>>().join(" ");
    if all.is_empty() {
        text.push_str("# nothing is set at run time: the file decides");
    } else {
        names = names.replace(' ', "; weir settings clear ");
        let _ = write!(text, "# Once the file says so: weir reload; weir settings clear {names}");
    }
    output.one(&json!({ "toml": text }), &text)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn difference(setting: &Value) -> Value {
    // What stands beside the file takes nothing of it away.
    let beside = matches!(word(&setting["name"]), "channels" | "exclusions");
    let (file, set) = (list(&setting["file"]), list(&setting["value"]));
    let only = |own: &[Value], other: &[Value]| -> Vec<Value> {
        own.iter().filter(|entry| !other.contains(entry)).cloned().collect()
    };
    let gone = if beside { Vec::new() } else { only(file, set) };
    json!({"name": setting["name"], "file_only": gone, "set_only": only(set, file)})
}

/// One setting as TOML.
fn fragment(setting: &Value) -> anyhow::Result<String> {
    let (file, value) = (list(&setting["file"]), list(&setting["value"]));
    let under = |section: &str, key: &str, value: Vec<Value>| json!({section: {key: value}});
    let (note, document) = match word(&setting["name"]) {
        "prefixes" => {
            ("in the place of protect.prefixes", under("protect", "prefixes", value.to_vec()))
        }
        "groups" => {
            ("in the place of every [[protect.group]]", under("protect", "group", value.to_vec()))
        }
        "ladder" => (
            "in the place of every [[mitigator.ladder]]",
            under("mitigator", "ladder", value.to_vec()),
        ),
        "exclusions" => {
            // Those that end by themselves stay where they are.
            let lasting = value.iter().filter(|exclusion| exclusion["until"].is_null());
            let mut all = file.to_vec();
            all.extend(lasting.map(|exclusion| exclusion["prefix"].clone()));
            ("in the place of protect.never_touch", under("protect", "never_touch", all))
        }
        "channels" => {
            let hook = |channel: &Value| {
                json!({"name": channel["name"], "url": channel["address"], "enabled": channel["enabled"],
                    "events": channel["events"]})
            };
            let hooks = value.iter().map(hook).collect();
            (
                "beside the others; complete url, secret and headers: weir does not show them",
                under("mitigator", "webhook", hooks),
            )
        }
        other => anyhow::bail!("{other}: weir does not know how it stands in the file"),
    };
    let text = toml::to_string_pretty(&without_nulls(document))?;
    Ok(format!("# {note}\n{text}\n"))
}

/// TOML has no null.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                kept.map(|(key, value)| (key, without_nulls(value))).collect::<Map<_, _>>(),
            )
        }
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, file: Value, value: Value) -> (weir_config::Config, Value) {
        let setting = json!({"name": name, "file": file, "value": value});
        let text = fragment(&setting).unwrap();
        let base = "[protect]\nprefixes = [\"203.0.113.0/24\"]\n";
        let text = if text.contains("[protect]") {
            text.replace("[protect]\n", "[protect]\nservice = []\n")
        } else {
            format!("{base}{text}")
        };
        let config = weir_config::read_dump(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        (config, difference(&setting))
    }

    #[test]
    fn what_is_adopted_is_what_was_set() {
        let (config, diff) =
            check("prefixes", json!(["203.0.113.0/24"]), json!(["198.51.100.0/24"]));
        assert_eq!(config.protect.prefixes.iter().next().unwrap().to_string(), "198.51.100.0/24");
        assert_eq!(diff["file_only"], json!(["203.0.113.0/24"]));
        let group = json!({"name": "acme", "prefixes": ["203.0.113.0/26"], "never": ["rtbh"], "mode": null});
        let (config, _) = check("groups", json!([]), json!([group]));
        assert_eq!(config.protect.groups[0].name, "acme");
        let step = json!({"rung": "drop", "above_bits_per_sec": 5, "above_packets_per_sec": null, "hold_secs": 30});
        let (config, _) = check("ladder", json!([]), json!([step]));
        assert_eq!(config.mitigator.ladder.len(), 1);
        let exclusions = json!([{"prefix": "203.0.113.9/32", "why": "", "until": null},
            {"prefix": "203.0.113.10/32", "why": "", "until": 5}]);
        let (config, diff) = check("exclusions", json!(["203.0.113.1/32"]), exclusions);
        assert_eq!(config.protect.never_touch.len(), 2, "one ends by itself");
        assert_eq!(diff["file_only"], json!([]));
        let channel = json!({"name": "ops", "address": "https://example.net", "enabled": true, "events": [],
            "secret_set": true, "headers_set": []});
        let (config, _) = check("channels", json!([]), json!([channel]));
        assert_eq!(config.mitigator.webhooks[0].name, "ops");
    }
}

//! The policy of an address, and groups: list, show, add, change, remove.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};

use super::client::Client;
use super::output::{As, Output, table};
use super::settings;
use crate::text::Si;

/// What to do with groups. A change is one of the setting `groups`: `weir settings undo groups` undoes it.
#[derive(Debug, Subcommand)]
pub enum Groups {
    /// List them
    List,
    /// Show one as JSON
    Show {
        /// Its name
        name: String,
    },
    /// Add groups, or change those of the same name
    Set {
        /// JSON file with one group or a list of them; - for standard input
        file: PathBuf,
    },
    /// Remove one; its hosts then belong to the next larger group
    Remove {
        /// Its name
        name: String,
    },
}

/// Shows the policy of an address.
pub(super) fn policy(client: &Client, output: &Output, address: IpAddr) -> anyhow::Result<()> {
    let view = client.get(&format!("/api/v1/policy/{address}"))?;
    output.one(&view, &text(&view))
}

fn text(view: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let groups = view["groups"].as_array().into_iter().flatten().map(word).collect::<Vec<_>>();
    let prefix = view["prefix"].as_str().unwrap_or("not protected");
    let groups = if groups.is_empty() { "none".to_owned() } else { groups.join(" < ") };
    let rows: Vec<Value> = view["values"].as_array().into_iter().flatten().map(row).collect();
    let columns = [
        ("value", "/key", As::Text),
        ("is", "/is", As::Text),
        ("in force", "/in_force", As::Text),
        ("by", "/source", As::Text),
    ];
    let values = table(&rows, &columns);
    format!("{}  {prefix}\ngroup  {groups}\n\n{values}{}", word(&view["address"]), totals(view))
}

/// What the groups of an address carry as a whole.
fn totals(view: &Value) -> String {
    let list = view["totals"].as_array().into_iter().flatten();
    let measures = list.flat_map(|total| {
        let state = match total["above"].as_bool() {
            Some(true) => "above its threshold: an alert only",
            _ if total["learning"] == true => "learning",
            _ => "",
        };
        total["measures"].as_array().into_iter().flatten().map(move |measure| {
            let number = |key: &str| measure[key].as_f64().map(|number| Si(number).to_string());
            json!({
                "group": total["group"],
                "value": format!(
                    "{}.{}",
                    measure["direction"].as_str().unwrap_or_default(),
                    measure["metric"].as_str().unwrap_or_default()
                ),
                "now": number("now"),
                "normal": number("level"),
                "threshold": number("threshold"),
                "source": measure["source"],
                "state": state,
            })
        })
    });
    let rows: Vec<Value> = measures.collect();
    if rows.is_empty() {
        return String::new();
    }
    let columns = [
        ("total of", "/group", As::Text),
        ("value", "/value", As::Text),
        ("now", "/now", As::Text),
        ("normal", "/normal", As::Text),
        ("threshold", "/threshold", As::Text),
        ("by", "/source", As::Text),
        ("state", "/state", As::Text),
    ];
    format!("\n{}", table(&rows, &columns))
}

fn row(value: &Value) -> Value {
    let in_force = value["in_force"].as_f64().map(|number| Si(number).to_string());
    json!({"key": value["key"], "is": plain(&value["value"]), "in_force": in_force, "source": value["source"]})
}

/// A value as people say it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => {
            number.as_f64().map_or_else(|| number.to_string(), |number| Si(number).to_string())
        }
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(bounds) => {
            let number = |key: &str| bounds.get(key).and_then(Value::as_f64).map(Si);
            let times = bounds.get("multiplier").and_then(Value::as_f64);
            let parts = [
                times.map(|times| format!("{times} times the learned threshold")),
                number("floor").map(|floor| format!("at least {floor}")),
                number("ceiling").map(|ceiling| format!("at most {ceiling}")),
            ];
            parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// Lists groups, or changes the setting.
pub(super) fn groups(
    client: &Client,
    output: &Output,
    action: Option<&Groups>,
) -> anyhow::Result<()> {
    let (list, version) = in_force(client)?;
    match action.unwrap_or(&Groups::List) {
        Groups::List => output.list(
            &Value::Array(list),
            &[
                ("name", "/name", As::Text),
                ("prefixes", "/prefixes", As::Text),
                ("parent", "/parent", As::Text),
                ("template", "/template", As::Text),
                ("mode", "/mode", As::Text),
                ("never", "/never", As::Text),
                ("learning", "/learning", As::Text),
            ],
        ),
        Groups::Show { name } => {
            let group = list.iter().find(|group| group["name"] == **name);
            let group = group.with_context(|| format!("there is no group {name:?}"))?;
            output.one(group, &format!("{group:#}"))
        }
        Groups::Set { file } => {
            let given = match settings::read(file)? {
                Value::Array(given) => given,
                one => vec![one],
            };
            settings::put(client, output, "groups", version, &Value::Array(with(list, given)))
        }
        Groups::Remove { name } => {
            let left: Vec<Value> =
                list.iter().filter(|group| group["name"] != **name).cloned().collect();
            anyhow::ensure!(left.len() < list.len(), "there is no group {name:?}");
            settings::put(client, output, "groups", version, &Value::Array(left))
        }
    }
}

/// The groups in force and the version of the setting.
fn in_force(client: &Client) -> anyhow::Result<(Vec<Value>, Option<u64>)> {
    let setting = client.get("/api/v1/settings/groups")?;
    let value = if setting["value"].is_null() { &setting["file"] } else { &setting["value"] };
    Ok((value.as_array().cloned().unwrap_or_default(), setting["version"].as_u64()))
}

/// Groups with others in the place of those of the same name, or behind them.
fn with(mut list: Vec<Value>, given: Vec<Value>) -> Vec<Value> {
    for group in given {
        match list.iter_mut().find(|known| known["name"] == group["name"]) {
            Some(known) => *known = group,
            None => list.push(group),
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_takes_the_place_of_the_one_of_its_name() {
        let list = vec![json!({"name": "a"}), json!({"name": "b"})];
        let given = vec![json!({"name": "a", "mode": "observe"}), json!({"name": "c"})];
        let names = with(list, given);
        assert_eq!(
            names,
            [json!({"name": "a", "mode": "observe"}), json!({"name": "b"}), json!({"name": "c"})]
        );
    }

    #[test]
    fn values_are_told_in_words() {
        let check = |value: Value, words: &str| assert_eq!(plain(&value), words);
        check(json!("off"), "off");
        check(json!([]), "none");
        check(json!(["rtbh", "scrub"]), "rtbh, scrub");
        check(json!({"multiplier": 4.0}), "4 times the learned threshold");
        check(json!({"floor": 5000.0, "ceiling": 2e9}), "at least 5.00 k, at most 2.00 G");
        let view = json!({"address": "203.0.113.7", "prefix": "203.0.113.0/24", "groups": ["acme", "reseller"],
            "values": [{"key": "mode", "value": "observe", "source": "acme", "in_force": null}]});
        let text = text(&view);
        assert!(text.contains("acme < reseller") && text.contains("observe"), "{text}");
    }
}

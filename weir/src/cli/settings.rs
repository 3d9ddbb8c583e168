//! Settings that change while weir runs.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::Value;

use super::adopt;
use super::client::{Client, escape};
use super::output::{As, Output};

/// What to do with settings.
#[derive(Debug, Subcommand)]
pub enum Settings {
    /// List runtime settings
    List,
    /// Show a setting as JSON beside the value of the configuration file, without credentials
    Show {
        /// Name of the setting
        name: String,
    },
    /// Change a setting; a channel keeps the address, secret and headers that FILE leaves out
    Set {
        /// Name of the setting
        name: String,
        /// JSON file with the value; - reads standard input
        file: PathBuf,
    },
    /// Restore the previous value (again: redo)
    Undo {
        /// Name of the setting
        name: String,
    },
    /// Compare with the configuration file: only in the file (-), only at run time (+)
    Diff {
        /// Name of the setting [default: all]
        name: Option<String>,
    },
    /// Print runtime settings as TOML, to copy into the configuration file
    Adopt {
        /// Name of the setting [default: all]
        name: Option<String>,
    },
    /// Remove the override, so that the configuration file applies
    Clear {
        /// Name of the setting
        name: String,
    },
}

pub(super) fn settings(
    client: &Client,
    output: &Output,
    action: Option<&Settings>,
) -> anyhow::Result<()> {
    match action.unwrap_or(&Settings::List) {
        Settings::List => output.list(
            &client.get("/api/v1/settings")?["settings"],
            &[
                ("name", "/name", As::Text),
                ("set", "/value", As::Count),
                ("by", "/who", As::Text),
                ("at", "/at", As::Time),
                ("file", "/file", As::Count),
                ("in the file, not in force", "/not_in_force", As::Text),
            ],
        ),
        Settings::Show { name } => {
            let setting = client.get(&path(name))?;
            output.one(&setting, &format!("{setting:#}"))
        }
        Settings::Set { name, file } => {
            let value = read(file)?;
            change(client, output, ("PUT", ""), name, Some(&value))
        }
        Settings::Undo { name } => change(client, output, ("POST", "/undo"), name, None),
        Settings::Diff { name } => adopt::diff(client, output, name.as_deref()),
        Settings::Adopt { name } => adopt::adopt(client, output, name.as_deref()),
        Settings::Clear { name } => change(client, output, ("DELETE", ""), name, None),
    }
}

/// Has the file read again, and prints what has changed, or would.
pub(super) fn reload(client: &Client, output: &Output, check: bool) -> anyhow::Result<()> {
    let body = serde_json::json!({"check": check});
    let found = client.ask("POST", "/api/v1/reload", Some(&body))?;
    output.one(&found, &told(&found))
}

fn told(reload: &Value) -> String {
    let list = |name: &str| reload[name].as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let check = reload["check"].as_bool().unwrap_or_default();
    let change = |changed: &Value| {
        let side = |name: &str| changed[name].as_str().unwrap_or("(none)").to_owned();
        let why = changed["why"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
        format!("  {}: {} -> {}{why}", word(&changed["key"]), side("before"), side("after"))
    };
    let mut lines = Vec::new();
    let changed = list("changed");
    lines.push(match (changed.is_empty(), check) {
        (true, _) => "nothing changes".to_owned(),
        (false, true) => "would change:".to_owned(),
        (false, false) => "changed:".to_owned(),
    });
    lines.extend(changed.iter().map(change));
    let waits = list("needs_restart");
    if !waits.is_empty() {
        lines.push("needs a restart:".to_owned());
        lines.extend(waits.iter().map(change));
    }
    for hidden in list("not_in_force") {
        let name = word(&hidden["name"]);
        let missing = hidden["missing"].as_array().into_iter().flatten().map(word);
        let missing = missing.collect::<Vec<_>>().join(", ");
        lines.push(format!(
            "in the file, not in force: {name} {missing}: `weir settings clear {name}` lets the file decide"
        ));
    }
    lines.extend(list("ends").iter().map(|end| format!("! {}", word(end))));
    lines.extend(list("warnings").iter().map(|warning| format!("warning: {}", word(warning))));
    lines.join("\n")
}

fn path(name: &str) -> String {
    format!("/api/v1/settings/{}", escape(name))
}

fn change(
    client: &Client,
    output: &Output,
    (method, act): (&str, &str),
    name: &str,
    value: Option<&Value>,
) -> anyhow::Result<()> {
    let before = client.get(&path(name))?["version"].as_u64();
    let after = client.ask_if(method, &(path(name) + act), before, value)?;
    told_change(output, name, &after)
}

/// Changes a setting that was read as this version.
pub(super) fn put(
    client: &Client,
    output: &Output,
    name: &str,
    version: Option<u64>,
    value: &Value,
) -> anyhow::Result<()> {
    told_change(output, name, &client.ask_if("PUT", &path(name), version, Some(value))?)
}

fn told_change(output: &Output, name: &str, after: &Value) -> anyhow::Result<()> {
    let mut text = format!("{name}: version {}", after["version"]);
    for warning in after["warnings"].as_array().into_iter().flatten() {
        text += &format!("\nwarning: {}", warning.as_str().unwrap_or_default());
    }
    output.one(after, &text)
}

pub(super) fn read(file: &Path) -> anyhow::Result<Value> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    }
    serde_json::from_str(&text).with_context(|| file.display().to_string())
}

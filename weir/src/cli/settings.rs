//! Settings that change while weir runs.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::Value;

use super::client::{Client, escape};
use super::output::{As, Output};

/// What to do with settings.
#[derive(Debug, Subcommand)]
pub enum Settings {
    /// List them
    List,
    /// Show one as JSON, and what the configuration file says; credentials are left out
    Show {
        /// Its name
        name: String,
    },
    /// Change one: a channel keeps the address, secret and headers that the file leaves out
    Set {
        /// Its name
        name: String,
        /// JSON file with the value; - for standard input
        file: PathBuf,
    },
    /// Undo the last change of one; undone again, it is back
    Undo {
        /// Its name
        name: String,
    },
    /// Let the configuration file decide again
    Clear {
        /// Its name
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
        Settings::Clear { name } => change(client, output, ("DELETE", ""), name, None),
    }
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
    let mut text = format!("{name}: version {}", after["version"]);
    for warning in after["warnings"].as_array().into_iter().flatten() {
        text += &format!("\nwarning: {}", warning.as_str().unwrap_or_default());
    }
    output.one(&after, &text)
}

fn read(file: &Path) -> anyhow::Result<Value> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    }
    serde_json::from_str(&text).with_context(|| file.display().to_string())
}

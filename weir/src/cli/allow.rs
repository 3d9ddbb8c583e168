//! `weir allow`: lists of far ends that are wanted.

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, escape};
use super::output::{As, Output};

/// What to do with allow lists.
#[derive(Debug, Subcommand)]
pub enum Allow {
    /// List allow lists: prefixes, age, pending change, last error
    List,
    /// Show one list and its pending change as JSON
    Show {
        /// Name of the list
        name: String,
    },
    /// Apply the pending change of a list
    Approve {
        /// Name of the list
        name: String,
    },
    /// Discard the pending change; the list stays as it is until its source changes again
    Reject {
        /// Name of the list
        name: String,
    },
    /// Read the file or URL of a list now
    Refresh {
        /// Name of the list
        name: String,
    },
}

pub(super) fn allow(
    client: &Client,
    output: &Output,
    action: Option<&Allow>,
) -> anyhow::Result<()> {
    let order = |name: &str, order: &str, done: &str| {
        let body = json!({"order": order});
        client.ask("POST", &format!("/api/v1/allow/{}", escape(name)), Some(&body))?;
        output.one(&json!({"list": name, "order": order}), &format!("{name}: {done}"))
    };
    match action.unwrap_or(&Allow::List) {
        Allow::List => output.list(
            &client.get("/api/v1/allow")?["lists"],
            &[
                ("name", "/name", As::Text),
                ("prefixes", "/prefixes", As::Text),
                ("for", "/what", As::Text),
                ("source", "/source", As::Text),
                ("read", "/read", As::Time),
                ("pending", "/pending/prefixes", As::Text),
                ("added", "/pending/added_count", As::Text),
                ("removed", "/pending/removed_count", As::Text),
                ("error", "/error", As::Text),
            ],
        ),
        Allow::Show { name } => {
            let all = client.get("/api/v1/allow")?;
            let named = |list: &&Value| list["name"] == name.as_str();
            let list = all["lists"].as_array().into_iter().flatten().find(named);
            let list = list.ok_or_else(|| anyhow::anyhow!("there is no allow list {name:?}"))?;
            output.one(list, &format!("{list:#}"))
        }
        Allow::Approve { name } => order(name, "approve", "the pending change is in force"),
        Allow::Reject { name } => order(name, "reject", "the pending change is discarded"),
        Allow::Refresh { name } => order(name, "refresh", "is read now"),
    }
}

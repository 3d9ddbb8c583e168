//! What a server's owner may see, and how he shows who he is: pure logic.
//!
//! Panels are no identity providers, and a customer's client key can control his server, so weir
//! does not ask for one. Three ways lead in: a link by e-mail to an address the panel knows, a link
//! that staff share for one server, and an embed that the panel's extension signs. Whatever way,
//! each request is authorised anew against the panel as it is now: a server that was sold, moved
//! or taken away is gone from the next answer on. Tokens are stored as hashes only; chance and time
//! are arguments.

pub mod embed;
pub mod hook;
mod links;
mod page;
mod portal;
mod token;
mod view;

use serde::{Deserialize, Serialize};

use crate::config::is_server;
use crate::snapshot::{PanelSnapshot, ServerView};

pub use links::{Links, Mail, SESSION_MS, Share};
pub use portal::{Answer, Ask, Door, Effect, Portal, World};
pub use token::{Hash, Token};
pub use view::{OwnerIncident, OwnerView, Protection, plain};

/// Who asks, once a token was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// A customer of a panel: the servers he owns or shares now.
    Customer {
        /// The panel's name.
        panel: String,
        /// Number of the customer.
        user: u64,
    },
    /// Whoever holds a link to one server.
    Server {
        /// The panel's name.
        panel: String,
        /// UUID of the server.
        server: String,
    },
}

impl Grant {
    /// The panel it speaks of.
    pub fn panel(&self) -> &str {
        match self {
            Self::Customer { panel, .. } | Self::Server { panel, .. } => panel,
        }
    }

    /// The server of this UUID, if it may be seen. The caller answers 404 to `None`, so that a
    /// server that is another's and one that does not exist look the same.
    pub fn server<'a>(&self, snapshot: &'a PanelSnapshot, uuid: &str) -> Option<&'a ServerView> {
        self.servers(snapshot).find(|s| is_server(uuid, &s.uuid))
    }

    /// Every server that may be seen.
    pub fn servers<'a>(
        &self,
        snapshot: &'a PanelSnapshot,
    ) -> impl Iterator<Item = &'a ServerView> + use<'a, '_> {
        let right_panel = snapshot.panel == self.panel();
        snapshot.servers.iter().filter(move |s| {
            right_panel
                && match self {
                    Self::Customer { user, .. } => {
                        *user != 0 && (s.owner == *user || s.subusers.contains(user))
                    }
                    Self::Server { server, .. } => s.uuid == *server,
                }
        })
    }
}

#[cfg(test)]
mod tests;

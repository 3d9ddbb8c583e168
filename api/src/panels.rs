//! What the API asks of the synchronisation with game panels.

use std::fmt;

use weir_model::{PanelOrder, PanelServer, PanelStatus};

/// Whoever runs the synchronisation. Answers from memory, without waiting for a panel.
pub trait Desk: fmt::Debug + Send + Sync {
    /// Panels, in the order of the configuration.
    fn panels(&self) -> Vec<PanelStatus>;

    /// The servers of a panel, by number; `None` when there is no such panel.
    fn servers(&self, panel: &str) -> Option<Vec<PanelServer>>;

    /// Hands an order on.
    ///
    /// # Errors
    /// When there is no such panel, or too many orders wait.
    fn order(&self, panel: &str, order: PanelOrder) -> Result<(), Refusal>;

    /// Makes a link that shows one server's page to whoever has it; shown once.
    ///
    /// # Errors
    /// When there is no such server, or no pages for owners.
    fn share(&self, panel: &str, server: &str, by: &str) -> Result<String, Refusal>;

    /// Takes every link to a server back; how many there were.
    ///
    /// # Errors
    /// When there are no pages for owners.
    fn unshare(&self, panel: &str, server: &str) -> Result<usize, Refusal>;
}

/// Why an order is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such panel or server.
    Unknown,
    /// Too much waits already, or weir is stopping.
    Busy,
    /// `[owners]` is not configured.
    NoPages,
}

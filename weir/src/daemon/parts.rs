//! What else follows the configuration file while weir runs. Everything that may fail, such as binding an
//! address or reading a file, is done before anything changes: either all of a file is put in force, or none.

use std::sync::Arc;

use crossbeam_channel::Sender;
use tracing::error;
use weir_config::Config;
use weir_panel::runner::Setup;

use super::inventory::PATIENCE;
use super::owners::Owners;
use super::store_thread::Work;
use super::{agents, bgp, owners, panel_desk, panels, web};

/// The parts.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) bgp: bgp::Bgp,
    pub(crate) web: web::Way,
    pub(crate) agents: agents::Way,
    pub(crate) panels: panels::Way,
    pub(crate) panel_desk: Arc<panel_desk::Desk>,
    pub(crate) owners: Owners,
    pub(crate) store: Sender<Work>,
}

/// What they need for another configuration.
pub(crate) struct Ready {
    bgp: bgp::Ready,
    web: web::Ready,
    agents: agents::Ready,
    panels: Setup,
    /// When something of it is another.
    owners: Option<owners::Ready>,
}

impl Parts {
    /// Prepares what a configuration needs. `check` is for those who only ask: no address is bound.
    ///
    /// # Errors
    /// What is in the way; then nothing has changed.
    pub(crate) fn prepare(
        &self,
        before: &Config,
        next: &Config,
        check: bool,
    ) -> anyhow::Result<Ready> {
        let pages = |config: &Config| (config.owners.clone(), config.panels.clone());
        let other = pages(before) != pages(next);
        let owners = other.then(|| self.owners.prepare(next, check)).transpose()?;
        Ok(Ready {
            bgp: self.bgp.prepare(next.bgp.as_ref(), check)?,
            web: self.web.prepare(&next.api, check)?,
            agents: self.agents.prepare(next, check)?,
            panels: panels::prepare(next)?,
            owners,
        })
    }

    /// Puts it in force.
    pub(crate) fn put_in_force(&mut self, ready: Ready, before: &Config, next: &Config) {
        let Ready { bgp, web, agents, panels, owners } = ready;
        self.bgp.put_in_force(bgp);
        self.agents.put_in_force(agents);
        self.panel_desk.configure(next);
        self.panels.put_in_force(before, panels);
        if let Some(Err(error)) = owners.map(|owners| self.owners.put_in_force(owners)) {
            error!(%error, "pages for owners stay as they were: the system has no more threads or descriptors");
        }
        let days = next.store.keep_days;
        if days != before.store.keep_days
            && self.store.send_timeout(Work::KeepDays(days), PATIENCE).is_err()
        {
            error!("the store does not take for how long incidents are kept: restart weir");
        }
        // Last: whoever asked for the reload is answered over it.
        self.web.put_in_force(web);
    }
}

//! What else follows the configuration file while weir runs. Everything that may fail, such as binding an
//! address or reading a file, is done before anything changes: either all of a file is put in force, or none.

use weir_config::Config;

use super::bgp;

/// The parts.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) bgp: bgp::Bgp,
}

/// What they need for another configuration.
pub(crate) struct Ready {
    bgp: bgp::Ready,
}

impl Parts {
    /// Prepares what a configuration needs. `check` is for those who only ask: no address is bound.
    pub(crate) fn prepare(
        &self,
        _before: &Config,
        next: &Config,
        check: bool,
    ) -> anyhow::Result<Ready> {
        Ok(Ready { bgp: self.bgp.prepare(next.bgp.as_ref(), check)? })
    }

    /// Cannot fail.
    pub(crate) fn put_in_force(&mut self, ready: Ready) {
        self.bgp.put_in_force(ready.bgp);
    }
}

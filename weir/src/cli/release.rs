//! Takes weir's routes out of the BGP daemons that it drives, when weir itself is gone.

use std::path::Path;
use std::process::ExitCode;

use weir_bgp::adapter;

use super::output::say;

/// Asks each daemon under `[[bgp.adapter]]` to give up what carries weir's mark.
///
/// # Errors
/// When the configuration cannot be used. A daemon that cannot be reached makes the exit code 1.
pub fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let (config, _) = weir_config::load(path)?;
    let adapters = config.bgp.map(|bgp| bgp.adapters).unwrap_or_default();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let mut code = ExitCode::SUCCESS;
    for adapter in &adapters {
        match runtime.block_on(adapter::release(adapter)) {
            Ok(()) => say(&format!("{}: no routes of weir left", adapter.name))?,
            Err(error) => {
                code = ExitCode::FAILURE;
                say(&format!("{}: {error}", adapter.name))?;
            }
        }
    }
    Ok(code)
}

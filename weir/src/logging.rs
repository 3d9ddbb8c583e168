//! The log: one line an event, one line a decision.

use std::io::IsTerminal as _;
use std::sync::Arc;

use anyhow::Context as _;
use tracing::info;
use tracing_subscriber::EnvFilter;
use weir_config::{Log, LogFormat};
use weir_model::Decision;

/// How much is logged, to be changed while weir runs.
#[derive(Clone, Default)]
pub struct Level(Option<Arc<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>>);

impl std::fmt::Debug for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Level")
    }
}

impl Level {
    /// Logs so much from now on; nothing changes where logging was not started.
    ///
    /// # Errors
    /// When it is no level.
    pub fn set(&self, level: &str) -> anyhow::Result<()> {
        let filter = filter(level)?;
        self.0.as_ref().map_or(Ok(()), |set| set(filter))
    }
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(level).with_context(|| format!("log.level {level:?}"))
}

/// Starts logging to standard error.
///
/// # Errors
/// When the level cannot be parsed or logging was started before.
pub fn start(config: &Log) -> anyhow::Result<Level> {
    let filter = filter(&config.level)?;
    let json = match config.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Two kinds of subscribers, and so two kinds of handles.
    let (started, level) = if json {
        let base = base.json().flatten_event(true).with_current_span(false).with_span_list(false);
        let base = base.with_filter_reloading();
        let handle = base.reload_handle();
        (base.try_init(), Level(Some(Arc::new(move |filter| Ok(handle.reload(filter)?)))))
    } else {
        let base = base.with_ansi(std::io::stderr().is_terminal()).with_target(false);
        let base = base.with_filter_reloading();
        let handle = base.reload_handle();
        (base.try_init(), Level(Some(Arc::new(move |filter| Ok(handle.reload(filter)?)))))
    };
    started.map_err(|error| anyhow::anyhow!("logging: {error}"))?;
    Ok(level)
}

/// Writes a decision as one line with everything that led to it.
pub fn decision(decision: &Decision) {
    let incident = decision.incident.map(|id| id.to_string()).unwrap_or_default();
    let Some(reason) = &decision.reason else {
        info!(
            action = %decision.action,
            target_prefix = %decision.target,
            %incident,
            detail = %decision.detail,
            "decision"
        );
        return;
    };
    info!(
        action = %decision.action,
        target_prefix = %decision.target,
        %incident,
        detail = %decision.detail,
        metric = reason.name(),
        value = reason.value.round(),
        baseline = reason.baseline.round(),
        multiplier = reason.multiplier,
        threshold = reason.threshold.round(),
        window_ms = reason.window_ms,
        samples = reason.samples.round(),
        sampling = reason.sampling,
        exporters = %reason.exporters.join(","),
        "decision"
    );
}

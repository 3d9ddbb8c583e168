//! The log: one line an event, one line a decision.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing::info;
use tracing_subscriber::EnvFilter;
use weir_config::{Log, LogFormat};
use weir_model::Decision;

/// Starts logging to standard error.
///
/// # Errors
/// When the level cannot be parsed or logging was started before.
pub fn start(config: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.level)
        .with_context(|| format!("log.level {:?}", config.level))?;
    let json = match config.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if json {
        base.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        base.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("logging: {error}"))
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
        metric = reason.metric.id(),
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

//! A host's baselines: look, freeze, thaw, reset, override.

use std::net::IpAddr;
use std::num::NonZeroU64;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::Client;
use super::output::{As, Output};

/// What to do with a host's baselines.
#[derive(Debug, Subcommand)]
pub enum Baseline {
    /// Stop learning: keep the baselines as they are
    Freeze {
        /// Address of the host
        host: IpAddr,
    },
    /// Resume learning
    Thaw {
        /// Address of the host
        host: IpAddr,
    },
    /// Delete the baselines: the host starts cold
    Reset {
        /// Address of the host
        host: IpAddr,
    },
    /// Set a threshold by hand, or return it to the baseline
    Threshold {
        /// Address of the host
        host: IpAddr,
        /// Metric as listed: packets-per-sec, bits-per-sec, ...
        metric: String,
        /// Whole number per second, or auto
        #[arg(value_parser = threshold)]
        value: Threshold,
        /// Outbound traffic instead of inbound
        #[arg(long)]
        outbound: bool,
    },
}

/// A threshold; `None` is the baseline's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold(Option<NonZeroU64>);

fn threshold(text: &str) -> Result<Threshold, String> {
    if text == "auto" {
        return Ok(Threshold(None));
    }
    let value = text.parse().map_err(|_| "a whole number above 0, or auto".to_owned())?;
    Ok(Threshold(Some(value)))
}

impl Baseline {
    fn request(&self) -> (IpAddr, Value) {
        match self {
            Self::Freeze { host } => (*host, json!({"action": "freeze"})),
            Self::Thaw { host } => (*host, json!({"action": "thaw"})),
            Self::Reset { host } => (*host, json!({"action": "reset"})),
            Self::Threshold { host, metric, value, outbound } => {
                let direction = if *outbound { "outbound" } else { "inbound" };
                let body = json!({"action": "threshold", "metric": metric, "direction": direction,
                    "value": value.0});
                (*host, body)
            }
        }
    }
}

/// Changes what is asked for, and shows what holds.
pub(super) fn baseline(
    client: &Client,
    output: &Output,
    host: Option<IpAddr>,
    action: Option<&Baseline>,
) -> anyhow::Result<()> {
    match (host, action) {
        (Some(host), None) => show(client, output, host),
        (None, Some(action)) => {
            let (host, body) = action.request();
            client.ask("POST", &format!("/api/v1/hosts/{host}/baseline"), Some(&body))?;
            show(client, output, host)
        }
        _ => anyhow::bail!("use weir baseline HOST, or weir baseline freeze HOST"),
    }
}

fn show(client: &Client, output: &Output, host: IpAddr) -> anyhow::Result<()> {
    let mut view = client.get(&format!("/api/v1/hosts/{host}"))?;
    let frozen = view["frozen"].clone();
    for row in view["baselines"].as_array_mut().into_iter().flatten() {
        row["frozen"] = frozen.clone();
        if let Some(name) = row["own"]["name"].as_str() {
            row["metric"] = json!(name);
        }
    }
    output.list(
        &view["baselines"],
        &[
            ("metric", "/metric", As::Text),
            ("direction", "/direction", As::Text),
            ("now", "/now", As::Number),
            ("mean", "/mean", As::Number),
            ("p99", "/p99", As::Number),
            ("level", "/level", As::Number),
            ("threshold", "/threshold", As::Number),
            ("source", "/source", As::Text),
            ("seconds", "/seconds", As::Text),
            ("frozen", "/frozen", As::Text),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_a_number_or_auto() {
        assert_eq!(threshold("auto"), Ok(Threshold(None)));
        assert_eq!(threshold("50000"), Ok(Threshold(NonZeroU64::new(50_000))));
        for wrong in ["0", "-1", "1.5", "inf", "NaN", ""] {
            assert!(threshold(wrong).is_err(), "{wrong}");
        }
    }
}

//! What an operator should know of exporters, said once in the log.
//!
//! Troubles come with every report of a shard. A line is written when one begins, and one when it has
//! ended; what comes and goes is not told again for an hour.

use std::collections::BTreeMap;

use tracing::{info, warn};
use weir_model::{ExporterId, ExporterStatus, ExporterTrouble, Millis};

/// A trouble that has ended and begins again is not told before so long, milliseconds.
const QUIET_MS: u64 = 3_600_000;

/// What has been said.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    said: BTreeMap<(ExporterId, ExporterTrouble), Said>,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    at: Millis,
    goes_on: bool,
}

impl Heard {
    /// Writes to the log what is new in a report.
    pub(crate) fn tell(&mut self, exporters: &[ExporterStatus]) {
        for exporter in exporters {
            for (trouble, begins) in self.news(exporter) {
                let (name, address) = (&exporter.name, exporter.address);
                let skew_ms = exporter.clock_skew_ms;
                if begins {
                    warn!(exporter = %name, %address, trouble = trouble.text(), skew_ms, "exporter in trouble");
                } else {
                    info!(exporter = %name, %address, trouble = trouble.text(), "exporter has recovered");
                }
            }
        }
    }

    /// The troubles that begin or end with this report.
    fn news(&mut self, exporter: &ExporterStatus) -> Vec<(ExporterTrouble, bool)> {
        let mut news = Vec::new();
        let now = exporter.last_seen;
        for trouble in &exporter.troubles {
            let said = self.said.entry((exporter.id, *trouble));
            let known = said.or_insert(Said { at: Millis(0), goes_on: false });
            if !known.goes_on && now.since(known.at) >= QUIET_MS {
                known.at = now;
                known.goes_on = true;
                news.push((*trouble, true));
            }
        }
        let of = (exporter.id, ExporterTrouble::NothingDecoded)..;
        for ((_, trouble), said) in
            self.said.range_mut(of).take_while(|((id, _), _)| *id == exporter.id)
        {
            if said.goes_on && !exporter.troubles.contains(trouble) {
                said.goes_on = false;
                news.push((*trouble, false));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(at: u64, troubles: &[ExporterTrouble]) -> ExporterStatus {
        let json = serde_json::json!({
            "id": 3, "address": "192.0.2.1", "name": "edge", "protocol": null, "last_seen": at,
            "datagrams": 0, "records": 0, "decode_errors": 0, "unknown_templates": 0, "lost": 0,
            "templates": 0, "sampling": 1, "sampling_source": "unknown", "lag_ms": 0,
            "clock_skew_ms": 0, "troubles": troubles,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_trouble_is_told_when_it_begins_and_when_it_ends() {
        use ExporterTrouble::{ClockOff, Implausible};
        let mut heard = Heard::default();
        let start = 1_700_000_000_000;
        assert_eq!(heard.news(&report(start, &[ClockOff])), [(ClockOff, true)]);
        assert_eq!(heard.news(&report(start + 1000, &[ClockOff])), []);
        let both = [ClockOff, Implausible];
        assert_eq!(heard.news(&report(start + 2000, &both)), [(Implausible, true)]);
        assert_eq!(heard.news(&report(start + 3000, &[Implausible])), [(ClockOff, false)]);
        // It flaps: once an hour is enough.
        assert_eq!(heard.news(&report(start + 4000, &both)), []);
        assert_eq!(heard.news(&report(start + QUIET_MS, &both)), [(ClockOff, true)]);
    }
}

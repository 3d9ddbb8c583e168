//! Holds what is to be announced against RPKI: see [`crate::rpki`].

use std::borrow::Cow;
use std::collections::BTreeSet;

use tokio::sync::watch;
use weir_model::{Measure, Mitigation, RpkiState};

use crate::rib::Refusal;
use crate::rpki::{Policy, Table, Validity};

/// One peer's check.
#[derive(Debug)]
pub(super) struct OriginCheck {
    table: watch::Receiver<Table>,
    asn: u32,
    policy: Policy,
    /// Measures that were already spoken of, and are still wanted.
    told: BTreeSet<Measure>,
    /// Measures kept back at present.
    refused: usize,
}

impl OriginCheck {
    pub(super) const fn new(table: watch::Receiver<Table>, asn: u32, policy: Policy) -> Self {
        Self { table, asn, policy, told: BTreeSet::new(), refused: 0 }
    }

    /// The same cache, asked about another origin, or with other consequences.
    pub(super) fn ask_for(&mut self, asn: u32, policy: Policy) {
        if (self.asn, self.policy) != (asn, policy) {
            (self.asn, self.policy) = (asn, policy);
            self.told.clear();
        }
    }

    /// What the cache is good for, and how much it has kept back.
    pub(super) fn state(&self) -> RpkiState {
        let table = self.table.borrow();
        if table.is_lapsed() {
            RpkiState::Lapsed
        } else if table.is_empty() {
            RpkiState::NoData
        } else {
            RpkiState::Checking { refused: u32::try_from(self.refused).unwrap_or(u32::MAX) }
        }
    }

    /// Waits for news of the cache; for ever, once there can be none.
    pub(super) async fn changed(&mut self) {
        if self.table.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What may be announced, and what is newly refused.
    pub(super) fn admit<'a>(
        &mut self,
        peer: &str,
        mitigations: &'a [Mitigation],
    ) -> (Cow<'a, [Mitigation]>, Vec<Refusal>) {
        let table = self.table.borrow_and_update();
        if table.is_empty() {
            self.told.clear();
            self.refused = 0;
            return (Cow::Borrowed(mitigations), Vec::new());
        }
        let mut refused = BTreeSet::new();
        let mut told = BTreeSet::new();
        let mut refusals = Vec::new();
        for measure in mitigations.iter().map(|m| &m.measure) {
            let validity = table.validity(measure.target(), self.asn);
            let new = !self.told.contains(measure);
            match validity {
                Validity::Valid | Validity::NotFound => continue,
                Validity::WrongOrigin if self.policy == Policy::Refuse => {
                    refused.insert(measure.clone());
                    if new {
                        let why = format!(
                            "RPKI: AS{} is not the origin of {}",
                            self.asn,
                            measure.target()
                        );
                        refusals.push(Refusal { measure: measure.clone(), why });
                    }
                }
                Validity::WrongOrigin if new => {
                    tracing::warn!(peer, %measure, "RPKI: another AS is the origin of the target");
                }
                // Rules are no routes: their length means nothing to RPKI.
                Validity::TooLong if new && matches!(measure, Measure::Blackhole(_)) => {
                    tracing::warn!(
                        peer,
                        %measure,
                        "RPKI: longer than the ROA allows; a peer that checks more than the \
                         origin of black-hole routes will not take it"
                    );
                }
                Validity::WrongOrigin | Validity::TooLong => {}
            }
            told.insert(measure.clone());
        }
        self.told = told;
        if refused.len() > self.refused {
            tracing::error!(
                peer,
                refused = refused.len(),
                wanted = mitigations.len(),
                "RPKI keeps measures from the peer: another AS is the origin of their targets"
            );
        }
        self.refused = refused.len();
        if refused.is_empty() {
            return (Cow::Borrowed(mitigations), refusals);
        }
        let admitted = mitigations.iter().filter(|m| !refused.contains(&m.measure)).cloned();
        (Cow::Owned(admitted.collect()), refusals)
    }
}

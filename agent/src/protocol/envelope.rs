//! Signed documents: ed25519 over the payload's octets as they are, so that no canonical form is needed.
//!
//! TLS keeps strangers out of the channel; the signature keeps whoever writes into a relay, a cache or a backup
//! from giving orders.

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use weir_model::Millis;

use super::wire::Body;

/// How long a document may have been under way: a stream that stands still for longer is given up.
const UNDER_WAY_MS_MAX: u64 = 60_000;

/// Largest payload: a thousand rules and their services are 600 KiB.
pub const PAYLOAD_MAX: usize = 16 * 1024 * 1024;

/// A signed document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// A [`Body`] as JSON text; the signature is over exactly these octets.
    pub payload: String,
    /// ed25519, 64 octets in hexadecimal.
    pub signature: String,
}

/// What names a document: whose it is, how new, how long it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The node it is for.
    pub node: String,
    /// Rises when the appliance cannot go on counting, for instance after a restore.
    pub epoch: u64,
    /// Rises with each change of content.
    pub version: u64,
    /// When it was made, on the appliance's clock.
    pub issued_at: Millis,
    /// When its rules lapse unless renewed, on the appliance's clock.
    pub not_after: Millis,
}

/// Why a document was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not signed with the key that was pinned when the node joined.
    #[error("the signature is not the appliance's")]
    Signature,
    /// Larger than [`PAYLOAD_MAX`].
    #[error("{0} octets are too many")]
    Size(usize),
    /// Not a document.
    #[error("not a document: {0}")]
    Form(String),
    /// For another node.
    #[error("it is for node {0}")]
    Node(String),
    /// Older than what was taken already.
    #[error("version {}.{} is older than {}.{}", got.0, got.1, have.0, have.1)]
    Version {
        /// Epoch and version it has.
        got: (u64, u64),
        /// Epoch and version taken last.
        have: (u64, u64),
    },
    /// Made before one of the same version that was taken already.
    #[error("made before the one of the same version that is in force")]
    Replayed,
    /// Made so long before it came, by the appliance's own clock as documents before it showed it.
    #[error("it was {0} ms under way, or the appliance's clock was set back")]
    Late(u64),
    /// Its time is over.
    #[error("lapsed {0} ms ago")]
    Lapsed(u64),
}

/// The appliance's signing key.
#[derive(Debug)]
pub struct Signer {
    key: Ed25519KeyPair,
    pkcs8: Vec<u8>,
}

impl Signer {
    /// A new key.
    ///
    /// # Errors
    /// [`Refused::Form`] when the system has no randomness.
    pub fn generate() -> Result<Self, Refused> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| Refused::Form("no randomness".into()))?;
        Self::from_pkcs8(pkcs8.as_ref())
    }

    /// A key that was stored.
    ///
    /// # Errors
    /// [`Refused::Form`] when it is none.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, Refused> {
        let key = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|e| Refused::Form(e.to_string()))?;
        Ok(Self { key, pkcs8: pkcs8.to_vec() })
    }

    /// The key for storing: PKCS #8.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key in hexadecimal, pinned by nodes.
    pub fn public_key(&self) -> String {
        hex(self.key.public_key().as_ref())
    }

    /// Signs a document.
    ///
    /// # Errors
    /// [`Refused::Form`] when it cannot be written as JSON.
    pub fn sign(&self, body: &Body) -> Result<Envelope, Refused> {
        let payload = serde_json::to_string(body).map_err(|e| Refused::Form(e.to_string()))?;
        let signature = hex(self.key.sign(payload.as_bytes()).as_ref());
        Ok(Envelope { payload, signature })
    }
}

/// What a node holds against documents: the pinned key, its own name, and what it took last.
#[derive(Clone, Debug)]
pub struct Verifier {
    key: Vec<u8>,
    node: String,
    have: Option<Stamp>,
    /// The newest of the appliance's clock, and when that was here, on a clock that nobody sets.
    clock: Option<(Millis, Millis)>,
}

impl Verifier {
    /// Pins a key, in hexadecimal. `have` is the last document taken before a restart.
    ///
    /// # Errors
    /// [`Refused::Form`] when the key is none.
    pub fn new(key: &str, node: &str, have: Option<Stamp>) -> Result<Self, Refused> {
        let key = unhex(key)
            .filter(|k| k.len() == 32)
            .ok_or_else(|| Refused::Form("not an ed25519 key".into()))?;
        Ok(Self { key, node: node.to_owned(), have, clock: None })
    }

    /// Epoch and version taken last.
    pub fn version(&self) -> Option<(u64, u64)> {
        self.have.as_ref().map(|s| (s.epoch, s.version))
    }

    /// Checks a document that the appliance has just sent and remembers its stamp. A lease must renew exactly the
    /// version in force. `steady` is this host's clock since any beginning: its date may be wrong by years, and
    /// how old a document is says the appliance's own clock, as the documents before showed it.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn take(&mut self, envelope: &Envelope, steady: Millis) -> Result<Body, Refused> {
        let body = self.read(envelope)?;
        let stamp = body.stamp();
        self.check(stamp, matches!(body, Body::Lease(_)))?;
        if let Some((there, here)) = self.clock {
            let expected = there + steady.since(here);
            let late = expected.since(stamp.issued_at);
            if late > UNDER_WAY_MS_MAX {
                return Err(Refused::Late(late));
            }
        }
        if stamp.not_after <= stamp.issued_at {
            return Err(Refused::Lapsed(stamp.issued_at.since(stamp.not_after)));
        }
        let newest = self.clock.map(|(there, here)| there + steady.since(here));
        let at = newest.map_or(stamp.issued_at, |newest| newest.max(stamp.issued_at));
        self.clock = Some((at, steady));
        self.have = Some(stamp.clone());
        Ok(body)
    }

    /// Checks a document that was kept on disk since `received` and remembers its stamp, both times on this
    /// host's clock. It says nothing about the appliance's clock of today.
    ///
    /// # Errors
    /// Why it is refused; [`Refused::Lapsed`] also when this host's clock was set back meanwhile.
    pub fn take_kept(
        &mut self,
        envelope: &Envelope,
        received: Millis,
        now: Millis,
    ) -> Result<Body, Refused> {
        let body = self.read(envelope)?;
        let stamp = body.stamp();
        self.check(stamp, matches!(body, Body::Lease(_)))?;
        let holds = stamp.not_after.since(stamp.issued_at);
        let age = now.since(received);
        if now < received || age >= holds {
            return Err(Refused::Lapsed(age.saturating_sub(holds)));
        }
        self.have = Some(stamp.clone());
        Ok(body)
    }

    fn read(&self, envelope: &Envelope) -> Result<Body, Refused> {
        if envelope.payload.len() > PAYLOAD_MAX {
            return Err(Refused::Size(envelope.payload.len()));
        }
        let signature = unhex(&envelope.signature).ok_or(Refused::Signature)?;
        UnparsedPublicKey::new(&ED25519, &self.key)
            .verify(envelope.payload.as_bytes(), &signature)
            .map_err(|_| Refused::Signature)?;
        serde_json::from_str(&envelope.payload).map_err(|e| Refused::Form(e.to_string()))
    }

    fn check(&self, stamp: &Stamp, lease: bool) -> Result<(), Refused> {
        if stamp.node != self.node {
            return Err(Refused::Node(stamp.node.clone()));
        }
        let got = (stamp.epoch, stamp.version);
        match &self.have {
            Some(have) => {
                let had = (have.epoch, have.version);
                if got < had || (lease && got != had) {
                    return Err(Refused::Version { got, have: had });
                }
                if got == had && stamp.issued_at < have.issued_at {
                    return Err(Refused::Replayed);
                }
            }
            None if lease => return Err(Refused::Version { got, have: (0, 0) }),
            None => (),
        }
        Ok(())
    }
}

/// SHA-256 in hexadecimal.
pub fn fingerprint(octets: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, octets).as_ref())
}

/// Octets as lower-case hexadecimal.
pub fn hex(octets: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 0xf)]);
    octets.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect()
}

/// Hexadecimal as octets; `None` when it is none.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|d| d.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Lease, Snapshot};

    const NOW: Millis = Millis(1_795_000_000_000);

    fn stamp(node: &str, version: (u64, u64)) -> Stamp {
        Stamp {
            node: node.into(),
            epoch: version.0,
            version: version.1,
            issued_at: NOW,
            not_after: NOW + 120_000,
        }
    }

    fn snapshot(stamp: Stamp) -> Body {
        Body::Snapshot(Snapshot { stamp, ..Snapshot::default() })
    }

    #[test]
    fn only_the_right_document_is_taken() {
        let signer = Signer::generate().unwrap();
        let mut verifier = Verifier::new(&signer.public_key(), "node1", None).unwrap();
        let mut check = |body: &Body, now: Millis, wanted: Result<(), Refused>| {
            let envelope = signer.sign(body).unwrap();
            assert_eq!(verifier.take(&envelope, now).map(|_| ()), wanted, "{body:?}");
        };
        let lease = |stamp| Body::Lease(Lease { stamp });
        let v = |a, b| stamp("node1", (a, b));
        check(&lease(v(1, 5)), NOW, Err(Refused::Version { got: (1, 5), have: (0, 0) }));
        check(&snapshot(stamp("node2", (1, 5))), NOW, Err(Refused::Node("node2".into())));
        check(&snapshot(v(1, 5)), NOW, Ok(()));
        check(&snapshot(v(1, 4)), NOW, Err(Refused::Version { got: (1, 4), have: (1, 5) }));
        check(&lease(v(1, 6)), NOW, Err(Refused::Version { got: (1, 6), have: (1, 5) }));
        check(&lease(v(1, 5)), NOW, Ok(()));
        let mut older = v(1, 5);
        older.issued_at = NOW - 1;
        check(&snapshot(older), NOW, Err(Refused::Replayed));
        check(&snapshot(v(2, 1)), NOW, Ok(()));
        check(&snapshot(v(1, 9)), NOW, Err(Refused::Version { got: (1, 9), have: (2, 1) }));
        let mut over = v(2, 1);
        over.not_after = over.issued_at;
        check(&snapshot(over), NOW, Err(Refused::Lapsed(0)));
    }

    #[test]
    fn how_old_a_document_is_says_the_appliances_clock_and_no_calendar() {
        let signer = Signer::generate().unwrap();
        let made = |at: Millis, version: u64| {
            let stamp = Stamp {
                issued_at: at,
                not_after: at + 120_000,
                version,
                ..stamp("node1", (1, version))
            };
            signer.sign(&snapshot(stamp)).unwrap()
        };
        // This host counts from its boot; whatever the appliance's date is, the first document is fresh.
        for there in [Millis(1_000_000), NOW, NOW + 1_000_000_000] {
            let mut verifier = Verifier::new(&signer.public_key(), "node1", None).unwrap();
            let mut take = |at: Millis, version: u64, steady: u64| {
                verifier.take(&made(at, version), Millis(steady)).map(|_| ())
            };
            assert_eq!(take(there, 1, 5000), Ok(()));
            assert_eq!(take(there + 20_000, 2, 25_000), Ok(()));
            assert_eq!(take(there + 21_000, 3, 85_000), Ok(()), "a link that hung for a minute");
            assert_eq!(take(there + 22_000, 4, 86_001), Ok(()), "and its next one");
            assert_eq!(take(there + 22_000, 5, 200_000), Err(Refused::Late(173_000)), "kept back");
            assert_eq!(take(there + 900_000, 6, 201_000), Ok(()), "its clock was set forward");
        }
    }

    #[test]
    fn what_was_kept_holds_for_the_rest_of_its_time() {
        let signer = Signer::generate().unwrap();
        let mut verifier = Verifier::new(&signer.public_key(), "node1", None).unwrap();
        let kept = signer.sign(&snapshot(stamp("node1", (1, 1)))).unwrap();
        // The appliance's clock is a day ahead of this host's.
        let received = NOW - 86_400_000;
        let mut take = |now: Millis| verifier.take_kept(&kept, received, now).map(|_| ());
        assert_eq!(take(received + 119_999), Ok(()));
        assert_eq!(take(received + 120_001), Err(Refused::Lapsed(1)));
        assert_eq!(take(received - 1), Err(Refused::Lapsed(0)), "nobody knows how long it was");
    }

    #[test]
    fn one_changed_octet_or_another_key_is_a_forgery() {
        let signer = Signer::generate().unwrap();
        let mut envelope = signer.sign(&snapshot(stamp("node1", (1, 1)))).unwrap();
        let mut verifier = Verifier::new(&signer.public_key(), "node1", None).unwrap();
        let other = Signer::generate().unwrap();
        let mut stranger = Verifier::new(&other.public_key(), "node1", None).unwrap();
        assert_eq!(stranger.take(&envelope, NOW), Err(Refused::Signature));
        envelope.payload.push(' ');
        assert_eq!(verifier.take(&envelope, NOW), Err(Refused::Signature));
        envelope.payload.pop();
        assert!(verifier.take(&envelope, NOW).is_ok());
        let again = Signer::from_pkcs8(signer.pkcs8()).unwrap();
        assert_eq!(again.public_key(), signer.public_key());
    }

    #[test]
    fn hexadecimal_comes_back() {
        assert_eq!(unhex(&hex(&[0, 255, 16])), Some(vec![0, 255, 16]));
        assert_eq!(unhex("abc"), None);
        assert_eq!(unhex("zz"), None);
    }
}

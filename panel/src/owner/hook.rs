//! Webhooks of Pelican: a static token, and nothing believed but "look again soon".
//!
//! Pelican signs nothing: an administrator types `Authorization: Bearer <token>` into the hook's
//! headers. Bodies hold model dumps with variables in them and are not even parsed; what a poll
//! finds is the truth.

use sha2::{Digest as _, Sha256};

use weir_model::Secret;

/// Largest body taken, octets.
pub const BODY_MAX: usize = 256 * 1024;

/// Whether an `Authorization` header carries the token. Takes as long whatever was presented: both
/// are hashed, and the hashes are compared without an early end.
pub fn authorized(header: Option<&str>, token: Option<&Secret>) -> bool {
    let presented = header.and_then(|h| h.strip_prefix("Bearer ")).unwrap_or_default().trim();
    let expected = token.map_or("", |t| t.expose());
    let (a, b) = (Sha256::digest(presented.as_bytes()), Sha256::digest(expected.as_bytes()));
    let differing = a.iter().zip(b.iter()).fold(0_u8, |all, (x, y)| all | (x ^ y));
    differing == 0 && !expected.is_empty()
}

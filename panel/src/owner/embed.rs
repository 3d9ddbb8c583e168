//! Embeds that a panel's extension signs: who looks at which server, for five minutes.
//!
//! ```text
//! hex(JSON {"panel","server","user","exp"}) "." hex(HMAC-SHA-256(key, the first part))
//! ```
//! `exp` is in seconds since the epoch, at most five minutes ahead. The extension holds the embed
//! key and nothing else; the key opens views of owners and no more.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use weir_model::Millis;

use super::Grant;
use super::token::{hex, unhex};
use weir_model::Secret;

/// Longest life of an embed, seconds.
pub const LIFE_SECS: u64 = 300;
/// A panel's clock may be this much ahead, seconds.
const SKEW_SECS: u64 = 30;
/// Longest token looked at, octets.
const TOKEN_MAX: usize = 2048;

#[derive(Serialize, Deserialize)]
struct Claims {
    panel: String,
    server: String,
    #[serde(default)]
    user: u64,
    exp: u64,
}

/// Why an embed is refused; the asker sees 404 either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not of this form.
    #[error("not an embed token")]
    Form,
    /// Not signed with the key.
    #[error("the signature does not fit")]
    Signature,
    /// Over, or promised for too long.
    #[error("expired, or valid for more than five minutes")]
    Expired,
    /// Signed with this panel's key, but for another.
    #[error("made for another panel")]
    Panel,
}

/// What the extension of `panel` grants with this token.
///
/// # Errors
/// [`Refused`].
pub fn verify(token: &str, panel: &str, key: &Secret, now: Millis) -> Result<Grant, Refused> {
    if token.len() > TOKEN_MAX {
        return Err(Refused::Form);
    }
    let (payload, signature) = token.split_once('.').ok_or(Refused::Form)?;
    let signature = unhex(signature).ok_or(Refused::Form)?;
    // Constant in time by the crate's own comparison.
    mac(key, payload).verify_slice(&signature).map_err(|_| Refused::Signature)?;
    let body = unhex(payload).ok_or(Refused::Form)?;
    let claims: Claims = serde_json::from_slice(&body).map_err(|_| Refused::Form)?;
    if claims.exp <= now.secs() || claims.exp > now.secs() + LIFE_SECS + SKEW_SECS {
        return Err(Refused::Expired);
    }
    if claims.panel != panel {
        return Err(Refused::Panel);
    }
    Ok(Grant::Server { panel: claims.panel, server: claims.server })
}

/// Signs as the extensions do; for tests and for staff who want to look through an owner's eyes.
pub fn sign(panel: &str, server: &str, user: u64, exp_secs: u64, key: &Secret) -> String {
    let claims = Claims { panel: panel.to_owned(), server: server.to_owned(), user, exp: exp_secs };
    let payload = hex(&serde_json::to_vec(&claims).unwrap_or_default());
    let signature = hex(&mac(key, &payload).finalize().into_bytes());
    format!("{payload}.{signature}")
}

fn mac(key: &Secret, payload: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(payload.as_bytes());
    mac
}

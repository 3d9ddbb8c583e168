//! Second factor: six digits every thirty seconds (RFC 6238), SHA-1 as every authenticator expects.

use totp_rs::{Builder, Secret, Totp};

use super::secret;

/// A new secret of 160 bits, base 32.
pub(crate) fn new() -> String {
    Secret::new(Box::from(secret::random::<20>())).to_base32()
}

/// The time step for which a code is right now, one step early or late included.
pub(crate) fn step_of(secret: &str, code: &str, secs: u64) -> Option<u64> {
    totp(secret)?.check(code.trim(), secs)
}

/// What an authenticator scans or takes by hand.
pub(crate) fn url(user: &str, secret: &str) -> String {
    let user: String = user
        .bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(b).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect();
    format!("otpauth://totp/weir:{user}?secret={secret}&issuer=weir")
}

fn totp(secret: &str) -> Option<Totp> {
    let secret = Secret::try_from_base32(secret).ok()?;
    Builder::new().with_secret(secret).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_rfc_6238_are_known_with_their_step() {
        // RFC 6238 appendix B, SHA-1: at 59 s and 1111111109 s, the last six of eight digits.
        let secret = Secret::new(Box::from(*b"12345678901234567890")).to_base32();
        assert_eq!(step_of(&secret, "287082", 59), Some(1));
        assert_eq!(step_of(&secret, "287082", 59 + 30), Some(1));
        assert_eq!(step_of(&secret, "287082", 59 + 61), None);
        assert_eq!(step_of(&secret, "081804", 1_111_111_109), Some(1_111_111_109 / 30));
        assert_eq!(step_of(&secret, "", 59), None);
        assert_eq!(step_of("not base 32!", "287082", 59), None);
        assert_eq!(new().len(), 32);
        assert_eq!(url("a b", "X"), "otpauth://totp/weir:a%20b?secret=X&issuer=weir");
    }
}

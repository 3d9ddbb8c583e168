//! Secrets: 256 bits from the operating system, kept as SHA-256 only.

use sha2::{Digest as _, Sha256};

/// What every bearer token begins with, so that scanners find leaked ones.
pub(crate) const TOKEN_PREFIX: &str = "weir_";

/// Letters of base 32 by Crockford: none is mistaken for another.
const CODE_LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Random octets.
///
/// # Panics
/// When the operating system has none to give: then nothing here is safe.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random octets");
    bytes
}

/// A secret of 256 bits in hexadecimal.
pub(crate) fn new() -> String {
    hex(&random::<32>())
}

/// A code to be typed once: 20 letters, 100 bits.
pub(crate) fn code() -> String {
    let letters: Vec<char> = random::<20>()
        .iter()
        .map(|byte| char::from(CODE_LETTERS[usize::from(byte & 31)]))
        .collect();
    letters.chunks(5).map(|part| part.iter().collect::<String>()).collect::<Vec<_>>().join("-")
}

/// A positive number that SQLite takes.
pub(crate) fn number() -> u64 {
    // 52 bits: exact in JavaScript too.
    u64::from_be_bytes(random()) >> 12
}

/// What is stored in place of a secret. The secrets are random and long, so a plain hash will do, and
/// looking one up by its hash gives away nothing by its timing.
pub(crate) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_and_differ() {
        let (a, b) = (new(), new());
        assert_eq!(a.len(), 64);
        assert_ne!(a, b);
        assert_ne!(hash(&a), hash(&b));
        let code = code();
        assert_eq!(code.len(), 23, "{code}");
        assert!(number() < 1 << 52);
    }
}

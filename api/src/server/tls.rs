//! TLS: the operator's certificate, or one made on the first run whose fingerprint is said.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Tls;

const CERT: &str = "api-cert.pem";
const KEY: &str = "api-key.pem";

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate without a key, or a key without a certificate.
    #[error("api.tls: cert and key go together")]
    Half,
    /// A file could not be read or written.
    #[error("api.tls: {file}: {error}")]
    File {
        /// Which.
        file: String,
        /// Why.
        error: String,
    },
    /// Certificate and key do not fit, or neither is usable.
    #[error("api.tls: {0}")]
    Unusable(String),
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Identity {
    config: Arc<ServerConfig>,
    fingerprint: String,
    made: bool,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Identity {
    /// The configured certificate; else the one kept in `folder`; else a new one, kept there.
    ///
    /// # Errors
    /// As [`TlsError`] says.
    pub fn load(config: &Tls, folder: &Path) -> Result<Self, TlsError> {
        let (cert, key, made) = match (&config.cert, &config.key) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone(), false),
            (None, None) => {
                let (cert, key) = (folder.join(CERT), folder.join(KEY));
                let missing = !cert.exists() || !key.exists();
                if missing {
                    make(&config.names, &cert, &key)?;
                }
                (cert, key, missing)
            }
            _ => return Err(TlsError::Half),
        };
        let failed = |file: &Path, error: &dyn std::fmt::Display| TlsError::File {
            file: file.display().to_string(),
            error: error.to_string(),
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&cert)
            .and_then(Iterator::collect)
            .map_err(|error| failed(&cert, &error))?;
        let first = chain.first().ok_or_else(|| failed(&cert, &"holds no certificate"))?;
        let fingerprint = fingerprint(first);
        let secret = PrivateKeyDer::from_pem_file(&key).map_err(|error| failed(&key, &error))?;
        let unusable = |error: tokio_rustls::rustls::Error| TlsError::Unusable(error.to_string());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), fingerprint, made })
    }

    /// SHA-256 of the certificate, as browsers show it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether it was made just now.
    pub const fn is_new(&self) -> bool {
        self.made
    }

    pub(super) fn into_acceptor(self) -> TlsAcceptor {
        TlsAcceptor::from(self.config)
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let sum = Sha256::digest(certificate.as_ref());
    sum.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

fn make(names: &[String], cert: &Path, key: &Path) -> Result<(), TlsError> {
    let mut all = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    all.extend(std::fs::read_to_string("/etc/hostname").map(|name| name.trim().to_owned()).ok());
    all.extend(names.iter().cloned());
    all.retain(|name| !name.is_empty());
    let made = rcgen::generate_simple_self_signed(all)
        .map_err(|error| TlsError::Unusable(error.to_string()))?;
    write(cert, &made.cert.pem(), 0o644)?;
    write(key, &made.signing_key.serialize_pem(), 0o600)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(|error| TlsError::File {
            file: path.display().to_string(),
            error: error.to_string(),
        })
}

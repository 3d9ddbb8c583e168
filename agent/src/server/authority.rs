//! The appliance's own certificate authority and the certificate of its listener.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use crate::config::write_private;
use crate::link::SERVER_NAME;
use crate::protocol::{fingerprint, hex, unhex};

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is no authority.
    #[error("{}: {why}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A certificate could not be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS refuses what was made.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
}

/// What is stored, each as DER in hexadecimal.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    authority: String,
    certificate: String,
    key: String,
}

/// An authority that signed one certificate. Its own key is gone after that: nothing else will ever be signed.
#[derive(Debug)]
pub struct Authority {
    authority: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Authority {
    /// Reads it from a folder, or makes it there once.
    ///
    /// # Errors
    /// When it cannot be used. It is never replaced: nodes have pinned it.
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let path = folder.join("authority.json");
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::read(&text).ok_or_else(|| AuthorityError::Form {
                path,
                why: "not an authority of weir".to_owned(),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let made = Self::make()?;
                let stored = Stored {
                    authority: hex(&made.authority),
                    certificate: hex(&made.certificate),
                    key: hex(&made.key),
                };
                let octets = serde_json::to_vec(&stored)
                    .map_err(|e| AuthorityError::Form { path: path.clone(), why: e.to_string() })?;
                write_private(&path, &octets)
                    .map_err(|error| AuthorityError::File { path, error })?;
                Ok(made)
            }
            Err(error) => Err(AuthorityError::File { path, error }),
        }
    }

    fn read(text: &str) -> Option<Self> {
        let stored: Stored = serde_json::from_str(text).ok()?;
        Some(Self {
            authority: unhex(&stored.authority)?,
            certificate: unhex(&stored.certificate)?,
            key: unhex(&stored.key)?,
        })
    }

    fn make() -> Result<Self, AuthorityError> {
        let authority_key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(rcgen::DnType::CommonName, "weir appliance authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = params.self_signed(&authority_key)?;
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate()?;
        let leaf =
            CertificateParams::new(vec![SERVER_NAME.to_owned()])?.signed_by(&key, &issuer)?;
        Ok(Self {
            authority: authority.der().to_vec(),
            certificate: leaf.der().to_vec(),
            key: key.serialize_der(),
        })
    }

    /// SHA-256 of the authority's certificate, hexadecimal: what nodes pin.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.authority)
    }

    /// TLS 1.3 with this certificate; the authority's goes along for those who know its fingerprint.
    ///
    /// # Errors
    /// [`AuthorityError::Tls`].
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, AuthorityError> {
        let chain = [&self.certificate, &self.authority];
        let chain = chain.into_iter().map(|c| CertificateDer::from(c.clone())).collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, PrivatePkcs8KeyDer::from(self.key.clone()).into())?;
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_made_once_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let first = Authority::open(folder.path()).unwrap();
        assert!(first.server_config().is_ok());
        let second = Authority::open(folder.path()).unwrap();
        assert_eq!(first.fingerprint(), second.fingerprint());
        std::fs::write(folder.path().join("authority.json"), "{}").unwrap();
        assert!(matches!(Authority::open(folder.path()), Err(AuthorityError::Form { .. })));
    }
}

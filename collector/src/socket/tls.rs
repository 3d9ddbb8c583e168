//! IPFIX over TLS (RFC 7011 §10.4 and §11): what the connections of a listener are wrapped in.
//!
//! The exporter's address decides whether it may connect at all, as everywhere; with `client_ca` it
//! must also show a certificate of that authority.

use std::io::{self, ErrorKind, Read as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use crate::config::TlsConfig;

/// Loads the certificate, the key and, if set, the authority of exporters.
pub(super) fn server(config: &TlsConfig) -> io::Result<Arc<ServerConfig>> {
    let named = |path: &std::path::Path, error: &dyn std::fmt::Display| {
        io::Error::new(ErrorKind::InvalidInput, format!("{}: {error}", path.display()))
    };
    let certificates = |path: &std::path::Path| -> io::Result<Vec<CertificateDer<'static>>> {
        let all = CertificateDer::pem_file_iter(path).map_err(|e| named(path, &e))?;
        let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|e| named(path, &e))?;
        if all.is_empty() { Err(named(path, &"no certificate in it")) } else { Ok(all) }
    };
    let chain = certificates(&config.cert)?;
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|e| named(&config.key, &e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| named(&config.cert, &e))?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|e| named(path, &e))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(|e| named(path, &e))?)
        }
    };
    let server = builder.with_single_cert(chain, key).map_err(|e| named(&config.key, &e))?;
    Ok(Arc::new(server))
}

/// A connection as its messages are read, with TLS or without.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<Session>),
}

#[derive(Debug)]
pub(super) struct Session {
    socket: TcpStream,
    tls: ServerConnection,
}

impl Stream {
    pub(super) fn new(socket: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let Some(config) = tls else { return Ok(Self::Plain(socket)) };
        let tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(Session { socket, tls })))
    }

    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(session) => &session.socket,
        }
    }

    /// Whether the two ends are still agreeing on keys.
    pub(super) fn is_handshaking(&self) -> bool {
        matches!(self, Self::Tls(session) if session.tls.is_handshaking())
    }

    /// Whether something waits to be sent.
    pub(super) fn wants_write(&self) -> bool {
        matches!(self, Self::Tls(session) if session.tls.wants_write())
    }

    /// Takes in what the socket holds, once; [`Stream::read`] then yields it.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        let Self::Tls(session) = self else { return Ok(()) };
        match session.tls.read_tls(&mut session.socket) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if later(&error) => {}
            Err(error) => return Err(error),
        }
        let outcome = session.tls.process_new_packets();
        // An alert says why, if the socket takes it.
        while session.tls.wants_write() {
            match session.tls.write_tls(&mut session.socket) {
                Ok(_) => {}
                Err(error) if later(&error) => break,
                Err(error) => return Err(error),
            }
        }
        outcome.map(|_| ()).map_err(io::Error::other)
    }

    /// Reads what has come: 0 at the end, an error when there is nothing now.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
            Self::Tls(session) => session.tls.reader().read(into),
        }
    }
}

/// Whether an error only says "not now".
pub(super) fn later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

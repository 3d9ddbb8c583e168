//! Requests over one kept connection.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::tls::{SERVER_NAME, pinned};

/// Longest that a connection or an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest answer to anything but the stream.
const ANSWER_MAX: usize = 2 * crate::protocol::PAYLOAD_MAX;

/// Longest reason that is read when there is no stream.
const WHY_MAX: usize = 1024;

/// Why the appliance could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Not an address of the form `https://host:port`.
    #[error("{0} is not of the form https://host:port")]
    Url(String),
    /// No connection.
    #[error("cannot reach {0}: {1}")]
    Connect(String, std::io::Error),
    /// Too slow.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Patience,
    /// TLS could not be set up.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// HTTP went wrong.
    #[error("http: {0}")]
    Http(String),
    /// The appliance says no.
    #[error("the appliance answers {0}: {1}")]
    Status(u16, String),
}

/// Where the appliance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Host and port.
    pub authority: String,
}

impl Url {
    /// Reads `https://host[:port]`; the port is 8443 unless said.
    ///
    /// # Errors
    /// [`LinkError::Url`].
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let bad = || LinkError::Url(text.to_owned());
        let rest = text.strip_prefix("https://").ok_or_else(bad)?.trim_end_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
        if rest.is_empty() || !rest.chars().all(plain) {
            return Err(bad());
        }
        let has_port = rest.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok());
        let authority = if has_port { rest.to_owned() } else { format!("{rest}:8443") };
        Ok(Self { authority })
    }
}

/// An answer read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// The `weir-lease` header: the lease of a state that has not changed.
    pub lease: Option<String>,
    /// Body.
    pub body: Bytes,
}

/// A connection to the appliance, made when needed.
#[derive(Debug)]
pub struct Client {
    url: Url,
    tls: Arc<ClientConfig>,
    bearer: Option<String>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client that trusts the authority with this fingerprint alone.
    ///
    /// # Errors
    /// [`LinkError::Tls`].
    pub fn new(url: Url, authority: &str, bearer: Option<String>) -> Result<Self, LinkError> {
        Ok(Self { url, tls: pinned(authority)?, bearer, sender: None })
    }

    /// Asks and reads the whole answer. A kept connection that has died meanwhile is replaced once.
    ///
    /// # Errors
    /// Why there is no answer; any status is an answer.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        etag: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Reply, LinkError> {
        let kept = self.sender.is_some();
        let first = self.response(method, path, etag, body.clone()).await;
        let response = match first {
            Err(LinkError::Http(_)) if kept => self.response(method, path, etag, body).await?,
            other => other?,
        };
        let status = response.status().as_u16();
        let lease = response.headers().get("weir-lease").and_then(|v| v.to_str().ok());
        let lease = lease.map(str::to_owned);
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect();
        let body = tokio::time::timeout(PATIENCE, body).await.map_err(|_| LinkError::Patience)?;
        let body = body.map_err(|e| LinkError::Http(e.to_string()))?.to_bytes();
        Ok(Reply { status, lease, body })
    }

    /// Opens the stream of events.
    ///
    /// # Errors
    /// [`LinkError::Status`] when it is not given.
    pub async fn stream(&mut self, path: &str) -> Result<Incoming, LinkError> {
        self.sender = None;
        let response = self.response("GET", path, None, Vec::new()).await?;
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        let status = response.status().as_u16();
        // Why not, in a sentence for the administrator.
        let why = Limited::new(response.into_body(), WHY_MAX).collect();
        let why = tokio::time::timeout(PATIENCE, why).await.ok().and_then(Result::ok);
        let why = why.map(|why| String::from_utf8_lossy(&why.to_bytes()).into_owned());
        Err(LinkError::Status(status, why.unwrap_or_else(|| "no stream".to_owned())))
    }

    async fn response(
        &mut self,
        method: &str,
        path: &str,
        etag: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, LinkError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.url.authority)
            .header("content-type", "application/json");
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        if let Some(etag) = etag {
            request = request.header("if-none-match", etag);
        }
        let request = request.body(Full::from(body)).map_err(|e| LinkError::Http(e.to_string()))?;
        let work = async {
            let sender = match &mut self.sender {
                Some(sender) if !sender.is_closed() => sender,
                slot => slot.insert(connect(&self.url, &self.tls).await?),
            };
            let ready = sender.ready().await;
            ready.map_err(|e| LinkError::Http(e.to_string()))?;
            sender.send_request(request).await.map_err(|e| LinkError::Http(e.to_string()))
        };
        let outcome = tokio::time::timeout(PATIENCE, work).await;
        let outcome = outcome.unwrap_or(Err(LinkError::Patience));
        if outcome.is_err() {
            self.sender = None;
        }
        outcome
    }
}

async fn connect(
    url: &Url,
    tls: &Arc<ClientConfig>,
) -> Result<SendRequest<Full<Bytes>>, LinkError> {
    let failed = |error| LinkError::Connect(url.authority.clone(), error);
    let tcp = TcpStream::connect(&url.authority).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    let name = ServerName::try_from(SERVER_NAME).map_err(|e| LinkError::Http(e.to_string()))?;
    let stream = TlsConnector::from(tls.clone()).connect(name, tcp).await.map_err(failed)?;
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|e| LinkError::Http(e.to_string()))?;
    // Ends with the sender.
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_and_ports() {
        let check = |text: &str, wanted: Option<&str>| {
            assert_eq!(Url::parse(text).ok().map(|u| u.authority).as_deref(), wanted, "{text}");
        };
        check("https://weir.example", Some("weir.example:8443"));
        check("https://192.0.2.1:9000/", Some("192.0.2.1:9000"));
        check("https://[2001:db8::1]:9000", Some("[2001:db8::1]:9000"));
        check("https://[2001:db8::1]", Some("[2001:db8::1]:8443"));
        check("http://weir.example", None);
        check("https://", None);
        check("https://a/b c", None);
    }
}

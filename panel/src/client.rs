//! The only place that asks others over HTTP: no redirects, no proxies, no cookies.
//!
//! A redirect is never followed, so that the key goes to the configured address and no other.
//! Certificates are checked against what the host trusts, which is where an operator puts the
//! authority of a private panel.

use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use crate::config::Secret;
use crate::sync::{Failure, Reply};

/// Largest body read, octets. 500 servers are about 2 MiB, all public eggs about 5 MiB.
pub const BODY_MAX: u64 = 16 << 20;

/// How long a panel may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To connect.
    pub connect: Duration,
    /// For the whole request, to the last octet of the body.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), total: Duration::from_secs(30) }
    }
}

/// A panel's Application API.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
    key: Secret,
}

impl Client {
    /// A client for the panel at `url`.
    pub fn new(url: &str, key: Secret, timeouts: Timeouts) -> Self {
        Self { agent: agent(timeouts), base: url.trim_end_matches('/').to_owned(), key }
    }

    /// GETs a path.
    ///
    /// # Errors
    /// [`Failure::Connect`], [`Failure::Timeout`], [`Failure::TooLarge`]; every answer with a
    /// status is a reply.
    pub fn get(&self, path: &str) -> Result<Reply, Failure> {
        let request = self
            .agent
            .get(format!("{}{path}", self.base))
            .header("Accept", "application/json")
            .header("Authorization", format!("Bearer {}", self.key.0));
        read(request.call())
    }

    /// POSTs an empty object: used only to learn whether a key could write. It can create
    /// nothing, because what every resource needs is missing.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post_nothing(&self, path: &str) -> Result<Reply, Failure> {
        let request = self
            .agent
            .post(format!("{}{path}", self.base))
            .header("Accept", "application/json")
            .header("Content-Type", "application/json")
            .header("Authorization", format!("Bearer {}", self.key.0));
        read(request.send("{}"))
    }
}

fn agent(timeouts: Timeouts) -> ureq::Agent {
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(crypto)
        .build();
    ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_connect(Some(timeouts.connect))
        .timeout_global(Some(timeouts.total))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(None)
        .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

/// Sends requests to whoever is to be told something: webhooks and scrubbing services.
#[derive(Clone, Debug)]
pub struct Sender {
    agent: ureq::Agent,
}

/// Octets of an answer that are read, and thrown away, so that its connection can be used again.
const ANSWER_MAX: u64 = 64 << 10;

impl Sender {
    /// A sender that waits so long for each answer.
    pub fn new(timeouts: Timeouts) -> Self {
        Self { agent: agent(timeouts) }
    }

    /// Sends one request; the answer's status.
    ///
    /// # Errors
    /// Why no answer came, for people.
    pub fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Result<u16, String> {
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let wrong = |error: ureq::http::Error| error.to_string();
        // Some methods may have no body, not even an empty one.
        let answer = if body.is_empty() {
            self.agent.run(request.body(()).map_err(wrong)?)
        } else {
            self.agent.run(request.body(body).map_err(wrong)?)
        };
        let mut response = answer.map_err(|error| match failure(error) {
            Failure::Timeout => "no answer in time".to_owned(),
            Failure::Connect(why) => why,
            other => format!("{other:?}"),
        })?;
        // The status is all that matters; a body that is too long costs its connection.
        let _ = response.body_mut().with_config().limit(ANSWER_MAX).read_to_vec();
        Ok(response.status().as_u16())
    }
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Reply, Failure> {
    let mut response = answer.map_err(failure)?;
    let headers = response.headers();
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let number = |name: &str| text(name).and_then(|t| t.trim().parse::<u64>().ok());
    let small = |name: &str| number(name).and_then(|n| u32::try_from(n).ok());
    let mut reply = Reply {
        status: response.status().as_u16(),
        rate_limit: small("x-ratelimit-limit"),
        rate_remaining: small("x-ratelimit-remaining"),
        retry_after_secs: number("retry-after"),
        location: text("location"),
        body: Vec::new(),
    };
    reply.body =
        response.body_mut().with_config().limit(BODY_MAX).read_to_vec().map_err(failure)?;
    Ok(reply)
}

/// What went wrong, without the request: its headers hold the key.
fn failure(error: ureq::Error) -> Failure {
    match error {
        ureq::Error::Timeout(_) => Failure::Timeout,
        ureq::Error::BodyExceedsLimit(_) => Failure::TooLarge,
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => Failure::Timeout,
        ureq::Error::Io(error) => Failure::Connect(error.to_string()),
        error => Failure::Connect(error.to_string()),
    }
}

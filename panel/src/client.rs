//! The only place that asks others over HTTP: no redirects, no proxies, no cookies.
//!
//! A redirect is never followed, so that the key goes to the configured address and no other.
//! Certificates are checked against what the host trusts, which is where an operator puts the
//! authority of a private panel.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::sync::{Failure, Reply};
use weir_model::Secret;

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
            .header("Authorization", format!("Bearer {}", self.key.expose()));
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
            .header("Authorization", format!("Bearer {}", self.key.expose()));
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

/// Where a [`Sender`] may connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everywhere but where only the machine's own surroundings answer: what the configuration file names.
    File,
    /// Not to this machine either: what was set while weir runs.
    Away,
}

impl Reach {
    /// Whether a connection to this address may be opened. Link-local addresses never: clouds answer there with
    /// the machine's credentials, and so do the few addresses beside them.
    pub fn allows(self, address: IpAddr) -> bool {
        let address = match address {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        };
        let never = match address {
            IpAddr::V4(v4) => {
                let metadata = [[100, 100, 100, 200], [168, 63, 129, 16], [192, 0, 0, 192]];
                v4.is_link_local()
                    || v4.is_multicast()
                    || v4.is_broadcast()
                    || v4.octets()[0] == 0
                    || metadata.contains(&v4.octets())
            }
            IpAddr::V6(v6) => {
                // EC2 answers at a unique local address too.
                let metadata = [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254];
                v6.is_unicast_link_local()
                    || v6.is_multicast()
                    || v6.is_unspecified()
                    || v6.segments() == metadata
            }
        };
        !never && (self == Self::File || !address.is_loopback())
    }
}

/// Looks names up as always, and lets only through what may be reached: the addresses checked are the ones
/// connected to, so that a name cannot say one thing first and another afterwards.
#[derive(Debug)]
struct Guarded {
    reach: Reach,
    inner: DefaultResolver,
}

impl Resolver for Guarded {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let mut allowed = self.empty();
        for address in found.iter().filter(|address| self.reach.allows(address.ip())) {
            allowed.push(*address);
        }
        if allowed.is_empty() {
            let why = std::io::Error::other("its address may not be connected to");
            return Err(ureq::Error::Io(why));
        }
        Ok(allowed)
    }
}

/// Sends requests to whoever is to be told something: channels and scrubbing services.
#[derive(Clone, Debug)]
pub struct Sender {
    agent: ureq::Agent,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// Its status.
    pub status: u16,
    /// Its header Retry-After, as it stands.
    pub retry_after: Option<String>,
    /// Its body, at most 64 KiB of it.
    pub body: Vec<u8>,
}

/// Octets of an answer that are read; a longer one costs its connection.
const ANSWER_MAX: u64 = 64 << 10;

impl Sender {
    /// A sender that waits so long for each answer.
    pub fn new(timeouts: Timeouts, reach: Reach) -> Self {
        let guarded = Guarded { reach, inner: DefaultResolver::default() };
        let config = agent(timeouts).config().clone();
        Self { agent: ureq::Agent::with_parts(config, DefaultConnector::default(), guarded) }
    }

    /// Sends one request.
    ///
    /// # Errors
    /// Why no answer came, for people.
    pub fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Result<Answered, String> {
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
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
        // Without a body that can be read, the status still counts.
        let body = response.body_mut().with_config().limit(ANSWER_MAX).read_to_vec();
        let status = response.status().as_u16();
        Ok(Answered { status, retry_after, body: body.unwrap_or_default() })
    }
}

impl Sender {
    /// GETs what stands at an address, at most `max` octets of it; a longer body is none.
    ///
    /// # Errors
    /// Why there is nothing, for people: a redirection is not followed.
    pub fn fetch(&self, url: &str, max: u64) -> Result<Vec<u8>, String> {
        let words = |failure: Failure| match failure {
            Failure::Timeout => "no answer in time".to_owned(),
            Failure::TooLarge => format!("it is longer than {max} octets"),
            Failure::Connect(why) => why,
            other => format!("{other:?}"),
        };
        let mut response = self.agent.get(url).call().map_err(|error| words(failure(error)))?;
        match response.status().as_u16() {
            200 => {
                let body = response.body_mut().with_config().limit(max).read_to_vec();
                body.map_err(|error| words(failure(error)))
            }
            status @ 300..400 => {
                let to = response.headers().get("location").and_then(|to| to.to_str().ok());
                let to: String = to.unwrap_or("elsewhere").chars().take(200).collect();
                Err(format!("status {status}: it has moved to {to}, which is not followed"))
            }
            status => Err(format!("status {status}")),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_where_clouds_keep_credentials() {
        let check = |address: &str, file: bool, away: bool| {
            let ip = address.parse().unwrap();
            assert_eq!((Reach::File.allows(ip), Reach::Away.allows(ip)), (file, away), "{address}");
        };
        check("192.0.2.1", true, true);
        check("10.0.0.1", true, true);
        check("2001:db8::1", true, true);
        check("127.0.0.1", true, false);
        check("::1", true, false);
        check("::ffff:127.0.0.1", true, false);
        for never in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fe80::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            check(never, false, false);
        }
    }

    #[test]
    fn a_server_that_does_not_answer_is_not_waited_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/list", listener.local_addr().unwrap());
        let soon = Duration::from_millis(200);
        let sender = Sender::new(Timeouts { connect: soon, total: soon }, Reach::File);
        assert_eq!(sender.fetch(&url, 100), Err("no answer in time".to_owned()));
        let why = sender.fetch("http://169.254.169.254/latest", 100).unwrap_err();
        assert!(why.contains("may not be connected to"), "{why}");
    }

    #[test]
    fn an_address_is_checked_after_the_name_was_looked_up() {
        let sender = Sender::new(Timeouts::default(), Reach::Away);
        let why = sender.send("POST", "http://localhost:9/", &[], b"x").unwrap_err();
        assert!(why.contains("may not be connected to"), "{why}");
        let file = Sender::new(Timeouts::default(), Reach::File);
        let why = file.send("POST", "http://169.254.169.254/latest", &[], b"x").unwrap_err();
        assert!(why.contains("may not be connected to"), "{why}");
    }
}

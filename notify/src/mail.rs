//! Mail: one thread for a conversation, text and HTML, over SMTP with STARTTLS or TLS.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, Mailboxes, MessageBuilder, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{Message, SmtpTransport, Transport as _};
use weir_model::{DeliveryId, Outcome};

use crate::config::Channel;
use crate::desk::Reply;

/// How long one exchange with the relay may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Receivers of one channel at most.
const RECEIVERS_MAX: usize = 50;

/// A mail and how it is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Mail {
    /// To report its reply under.
    pub id: DeliveryId,
    /// Its channel.
    pub channel: String,
    server: String,
    port: u16,
    security: Security,
    ca_file: Option<PathBuf>,
    login: Option<(String, String)>,
    from: Mailbox,
    to: Vec<Mailbox>,
    subject: String,
    text: String,
    html: String,
    /// Its own, and that of the conversation's first.
    message_id: String,
    thread: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    StartTls,
    Tls,
    None,
}

impl std::fmt::Debug for Mail {
    /// The password is not shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mail")
            .field("id", &self.id)
            .field("channel", &self.channel)
            .field("server", &self.server)
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

impl Mail {
    pub(crate) fn new(
        id: DeliveryId,
        channel: &Channel,
        parts: &BTreeMap<String, String>,
        key: &str,
        sequence: u32,
    ) -> Result<Self, String> {
        let value = |name: &str| channel.own.values.get(name).map_or("", String::as_str);
        let part = |name: &str| parts.get(name).cloned().unwrap_or_default();
        let security = match value("security") {
            "starttls" => Security::StartTls,
            "tls" => Security::Tls,
            "none" => Security::None,
            other => return Err(format!("values.security: {other:?} is not known")),
        };
        let port = match (value("port"), security) {
            ("", Security::Tls) => 465,
            ("", Security::StartTls) => 587,
            ("", Security::None) => 25,
            (port, _) => port.parse().map_err(|_| format!("values.port: {port:?}"))?,
        };
        let from: Mailbox = value("from").parse().map_err(|e| format!("values.from: {e}"))?;
        let to: Mailboxes = value("to").parse().map_err(|e| format!("values.to: {e}"))?;
        let to: Vec<Mailbox> = to.into_iter().collect();
        if to.is_empty() || to.len() > RECEIVERS_MAX {
            return Err(format!("values.to: 1 to {RECEIVERS_MAX} receivers"));
        }
        let password = channel.own.secrets.get("password").cloned().unwrap_or_default();
        let login = (!value("user").is_empty()).then(|| (value("user").to_owned(), password));
        // An empty password over an open line is no secret; anything else would be read on the way.
        if security == Security::None && login.is_some() {
            return Err("values.user: no password is sent without TLS".to_owned());
        }
        let atom = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '.' };
        let name: String = key.chars().map(atom).collect();
        let message_id = |n: u32| format!("<{name}.{n}@{}>", from.email.domain());
        Ok(Self {
            id,
            channel: channel.config.name.clone(),
            server: value("server").to_owned(),
            port,
            security,
            ca_file: Some(value("ca_file")).filter(|f| !f.is_empty()).map(PathBuf::from),
            login,
            to,
            subject: part("subject"),
            text: part("text"),
            html: part("html"),
            message_id: message_id(sequence),
            thread: (sequence > 1).then(|| message_id(1)),
            from,
        })
    }

    fn message(&self) -> Result<Message, lettre::error::Error> {
        let mut builder: MessageBuilder = Message::builder()
            .from(self.from.clone())
            .subject(self.subject.clone())
            .message_id(Some(self.message_id.clone()));
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        if let Some(thread) = &self.thread {
            builder = builder.in_reply_to(thread.clone()).references(thread.clone());
        }
        // RFC 3834: no out-of-office answers.
        let name = HeaderName::new_from_ascii_str("Auto-Submitted");
        builder = builder.raw_header(HeaderValue::new(name, "auto-generated".to_owned()));
        builder.multipart(MultiPart::alternative_plain_html(self.text.clone(), self.html.clone()))
    }

    fn transport(&self) -> Result<SmtpTransport, String> {
        let mut builder = SmtpTransport::builder_dangerous(self.server.clone())
            .port(self.port)
            .timeout(Some(PATIENCE));
        if self.security != Security::None {
            let mut parameters = TlsParameters::builder(self.server.clone());
            if let Some(path) = &self.ca_file {
                let pem = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
                let certificate = Certificate::from_pem(&pem).map_err(|e| e.to_string())?;
                parameters = parameters.add_root_certificate(certificate);
            }
            let parameters = parameters.build_rustls().map_err(|e| e.to_string())?;
            builder = builder.tls(match self.security {
                Security::Tls => Tls::Wrapper(parameters),
                _ => Tls::Required(parameters),
            });
        }
        if let Some((user, password)) = &self.login {
            builder = builder.credentials(Credentials::new(user.clone(), password.clone()));
        }
        Ok(builder.build())
    }

    /// Sends the mail; blocks.
    pub fn send(&self) -> Reply {
        let failed = |why: String, passing: bool| Reply {
            passing: Some(passing),
            ..Outcome::Failed(why).into()
        };
        let message = match self.message() {
            Ok(message) => message,
            Err(error) => return failed(error.to_string(), false),
        };
        let transport = match self.transport() {
            Ok(transport) => transport,
            Err(why) => return failed(why, true),
        };
        match transport.send(&message) {
            Ok(answer) => {
                let said: Vec<&str> = answer.message().collect();
                Reply { body: said.join(" ").into_bytes(), ..Outcome::Status(250).into() }
            }
            // 5xx is for good (RFC 5321 §4.2.1).
            Err(error) => failed(error.to_string(), !error.is_permanent()),
        }
    }
}

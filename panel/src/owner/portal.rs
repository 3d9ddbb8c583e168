//! Every route of the owners' listener as one pure function from question to answer.
//!
//! | route | who |
//! |---|---|
//! | `POST /hooks/pelican/{panel}` | a panel with the hook's token |
//! | `GET /`, `POST /login` | anybody; the answer never says whether an address is known |
//! | `GET`, `POST /login/{link}` | whoever got the e-mail, once |
//! | `GET /servers`, `/servers/{uuid}`, `/api/servers`, `/api/servers/{uuid}`, `POST /logout` | a session |
//! | `GET /share/{token}` | whoever staff gave the link |
//! | `GET /embed/{panel}?t=` | a panel's extension |
//!
//! A server that is another's, a token that is wrong, and a path that does not exist are all the
//! same 404.

use std::net::IpAddr;
use std::sync::Arc;

use weir_model::{Incident, Millis};

use super::links::Links;
use super::view::OwnerView;
use super::{Grant, embed, hook, page};
use crate::snapshot::PanelSnapshot;
use weir_model::Secret;

const COOKIE: &str = "__Host-weir-owner";

/// What a panel's door is locked with.
#[derive(Clone, Debug)]
pub struct Door {
    /// The panel's name.
    pub panel: String,
    /// The panel's address: the only site that may frame its embeds.
    pub url: String,
    /// Token of its webhooks.
    pub hook_token: Option<Secret>,
    /// Key of its embeds.
    pub embed_key: Option<Secret>,
}

/// The owners' listener.
#[derive(Debug)]
pub struct Portal {
    doors: Vec<Door>,
    public_url: String,
    links: Links,
}

/// What the answers are made from.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Panels as mapped.
    pub panels: Vec<Arc<PanelSnapshot>>,
    /// Incidents, newest first.
    pub incidents: Vec<Arc<Incident>>,
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Method.
    pub method: &'a str,
    /// Path, still encoded.
    pub path: &'a str,
    /// Query, still encoded.
    pub query: &'a str,
    /// `Cookie`.
    pub cookie: Option<&'a str>,
    /// `Authorization`.
    pub authorization: Option<&'a str>,
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// Whose request it is, as the proxy says.
    pub from: IpAddr,
    /// Body.
    pub body: &'a [u8],
    /// Now.
    pub now: Millis,
    /// Chance for a token, fresh with every request.
    pub random: [u8; 32],
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: String,
    /// What else is to be done.
    pub effect: Option<Effect>,
}

/// What a question leads to besides its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Poll this panel soon.
    Hint(String),
    /// Look this address of e-mail up in the panels, and send a link if it is known.
    LookUp(String),
}

impl Portal {
    /// A portal with these doors.
    pub fn new(doors: Vec<Door>, public_url: &str, links: Links) -> Self {
        Self { doors, public_url: public_url.trim_end_matches('/').to_owned(), links }
    }

    /// Goes by other doors and another address; who is signed in stays so.
    pub fn configure(&mut self, doors: Vec<Door>, public_url: &str) {
        self.doors = doors;
        public_url.trim_end_matches('/').clone_into(&mut self.public_url);
    }

    /// Links and sessions, to send a link or to share one.
    pub const fn links(&mut self) -> &mut Links {
        &mut self.links
    }

    /// The address of a link sent by e-mail.
    pub fn link_url(&self, token: &str) -> String {
        format!("{}/login/{token}", self.public_url)
    }

    /// The address of a shared link.
    pub fn share_url(&self, token: &str) -> String {
        format!("{}/share/{token}", self.public_url)
    }

    /// Answers a question.
    pub fn answer(&mut self, ask: &Ask<'_>, world: &World) -> Answer {
        let parts: Vec<&str> = ask.path.split('/').filter(|p| !p.is_empty()).collect();
        if ask.method == "POST" && parts.first() != Some(&"hooks") && !self.same_site(ask) {
            return problem(403, "cross-site request");
        }
        let mut answer = match (ask.method, &parts[..]) {
            ("POST", ["hooks", "pelican", panel]) => return self.hook(ask, panel),
            ("GET", []) => html(page::ask()),
            ("GET", ["style.css"]) => {
                Answer { content_type: "text/css; charset=utf-8", ..html(page::STYLE.to_owned()) }
            }
            ("POST", ["login"]) => self.login(ask),
            ("GET", ["login", token]) => html(page::confirm(token)),
            ("POST", ["login", token]) => self.open(ask, token),
            ("POST", ["logout"]) => self.logout(ask),
            ("GET", ["servers"]) => self.servers(ask, world, false),
            ("GET", ["servers", uuid]) => self.server(ask, world, uuid, false),
            ("GET", ["api", "servers"]) => self.servers(ask, world, true),
            ("GET", ["api", "servers", uuid]) => self.server(ask, world, uuid, true),
            ("GET", ["share", token]) => self.share(ask, world, token),
            ("GET", ["embed", panel]) => return self.embed(ask, world, panel),
            _ => not_found(),
        };
        answer.headers.push((
            "content-security-policy",
            "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'"
                .into(),
        ));
        answer
    }

    /// Browsers name the page that a form was sent from.
    fn same_site(&self, ask: &Ask<'_>) -> bool {
        ask.origin.is_none_or(|origin| origin == self.public_url)
    }

    fn door(&self, panel: &str) -> Option<&Door> {
        self.doors.iter().find(|d| d.panel == panel)
    }

    /// The body is not looked at: whatever it says, the next poll is the truth.
    fn hook(&self, ask: &Ask<'_>, panel: &str) -> Answer {
        let token = self.door(panel).and_then(|d| d.hook_token.as_ref());
        if !hook::authorized(ask.authorization, token) {
            return problem(401, "unknown panel or wrong token");
        }
        if ask.body.len() > hook::BODY_MAX {
            return problem(413, "body too large");
        }
        Answer {
            effect: Some(Effect::Hint(panel.to_owned())),
            ..problem(202, "the panel is read soon")
        }
    }

    fn login(&mut self, ask: &Ask<'_>) -> Answer {
        let email = form_value(ask.body, "email").unwrap_or_default();
        let plausible = email.len() <= 191
            && email.split_once('@').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty())
            && !email.contains(|c: char| {
                c.is_control() || c.is_whitespace() || matches!(c, '<' | '>' | ',')
            });
        let effect = (plausible && self.links.may_ask(ask.from, &email, ask.now))
            .then_some(Effect::LookUp(email));
        Answer { effect, ..html(page::asked()) }
    }

    fn open(&mut self, ask: &Ask<'_>, token: &str) -> Answer {
        let Some(session) = self.links.open(token, ask.random, ask.now) else {
            return Answer { status: 404, ..html(page::stale()) };
        };
        let secs = super::SESSION_MS / 1000;
        let cookie = format!(
            "{COOKIE}={}; Path=/; Max-Age={secs}; Secure; HttpOnly; SameSite=Lax",
            session.reveal()
        );
        redirect("/servers", vec![("set-cookie", cookie)])
    }

    fn logout(&mut self, ask: &Ask<'_>) -> Answer {
        if let Some(token) = session(ask) {
            self.links.close(token);
        }
        let gone = format!("{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax");
        redirect("/", vec![("set-cookie", gone)])
    }

    fn granted(&self, ask: &Ask<'_>) -> Option<Grant> {
        self.links.grant(session(ask)?, ask.now)
    }

    fn servers(&self, ask: &Ask<'_>, world: &World, as_json: bool) -> Answer {
        let Some(grant) = self.granted(ask) else {
            return if as_json { not_found() } else { redirect("/", Vec::new()) };
        };
        let Some(snapshot) = panel(world, grant.panel()) else { return not_found() };
        if as_json {
            let views: Vec<OwnerView> = grant
                .servers(snapshot)
                .map(|s| OwnerView::build(snapshot, s, &world.incidents))
                .collect();
            return json(&views);
        }
        html(page::servers(grant.servers(snapshot)))
    }

    fn server(&self, ask: &Ask<'_>, world: &World, uuid: &str, as_json: bool) -> Answer {
        match self.granted(ask).and_then(|grant| view(&grant, world, uuid)) {
            None => not_found(),
            Some(view) if as_json => json(&view),
            Some(view) => html(page::server(&view)),
        }
    }

    fn share(&self, ask: &Ask<'_>, world: &World, token: &str) -> Answer {
        // A session's token is none of a shared link: it must not end up in an address bar.
        let grant = self.links.grant(token, ask.now);
        let Some(Grant::Server { server, .. }) = &grant else { return not_found() };
        let view = grant.as_ref().and_then(|g| view(g, world, server));
        view.map_or_else(not_found, |v| html(page::server(&v)))
    }

    fn embed(&self, ask: &Ask<'_>, world: &World, name: &str) -> Answer {
        let shown = self.door(name).and_then(|door| {
            let token = ask.query.split('&').find_map(|pair| pair.strip_prefix("t="))?;
            let grant = embed::verify(token, name, door.embed_key.as_ref()?, ask.now).ok()?;
            let Grant::Server { server, .. } = &grant else { return None };
            Some((view(&grant, world, server)?, door))
        });
        let Some((view, door)) = shown else { return not_found() };
        let mut answer = html(page::server(&view));
        answer.headers.push((
            "content-security-policy",
            format!("default-src 'none'; style-src 'self'; frame-ancestors {}", origin(&door.url)),
        ));
        answer
    }
}

fn view(grant: &Grant, world: &World, uuid: &str) -> Option<OwnerView> {
    let snapshot = panel(world, grant.panel())?;
    let server = grant.server(snapshot, uuid)?;
    Some(OwnerView::build(snapshot, server, &world.incidents))
}

fn panel<'a>(world: &'a World, name: &str) -> Option<&'a PanelSnapshot> {
    world.panels.iter().map(Arc::as_ref).find(|p| p.panel == name)
}

fn session<'a>(ask: &Ask<'a>) -> Option<&'a str> {
    ask.cookie?
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

/// `https://panel.example.net/path` is framed by `https://panel.example.net`.
fn origin(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    format!("{scheme}://{}", rest.split('/').next().unwrap_or_default())
}

/// A value of `application/x-www-form-urlencoded`.
fn form_value(body: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(body.get(..body.len().min(4096))?).ok()?;
    let raw = text.split('&').filter_map(|p| p.split_once('=')).find(|(k, _)| *k == name)?.1;
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = std::str::from_utf8(after.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &after[2..];
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).ok().map(|v| v.trim().to_owned())
}

fn html(body: String) -> Answer {
    Answer {
        status: 200,
        content_type: "text/html; charset=utf-8",
        headers: vec![
            ("cache-control", "no-store".into()),
            ("referrer-policy", "no-referrer".into()),
            ("x-content-type-options", "nosniff".into()),
        ],
        body,
        effect: None,
    }
}

fn json<T: serde::Serialize>(value: &T) -> Answer {
    let body = serde_json::to_string(value).unwrap_or_default();
    Answer { content_type: "application/json", ..html(body) }
}

/// RFC 9457.
fn problem(status: u16, title: &str) -> Answer {
    let body = serde_json::json!({"status": status, "title": title}).to_string();
    Answer { status, content_type: "application/problem+json", ..html(body) }
}

fn not_found() -> Answer {
    problem(404, "not found")
}

fn redirect(to: &str, headers: Vec<(&'static str, String)>) -> Answer {
    let mut answer = html(String::new());
    answer.status = 303;
    answer.headers.push(("location", to.to_owned()));
    answer.headers.extend(headers);
    answer
}

//! Services are data: how one is addressed, what a body looks like, what its answers mean.
//!
//! A file per service stands in `services/` and in the binary; an operator's folder adds others and replaces
//! these. What a file says is tried out when it is read: every call is put together once with a made-up incident.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use minijinja::Value;
use serde::Deserialize;
use weir_model::{DeliveryId, Outcome, Request, SIGNATURE_HEADER, is_header, is_url, signature};

use crate::desk::{Reply, retry_after_ms};
use crate::outbox::Answer;
use crate::template::{ESCAPES, Engine};

/// Largest body sent where the service's file sets no smaller one, octets.
const BODY_MAX: usize = 256 << 10;

/// Files of an operator at most, and octets of one.
const FILES_MAX: usize = 64;
const FILE_MAX: u64 = 256 << 10;

/// What is shipped, by name.
const SHIPPED: [(&str, &str); 21] = [
    ("alertmanager", include_str!("../services/alertmanager.toml")),
    ("classic", include_str!("../services/classic.toml")),
    ("datadog", include_str!("../services/datadog.toml")),
    ("discord", include_str!("../services/discord.toml")),
    ("elasticsearch", include_str!("../services/elasticsearch.toml")),
    ("gotify", include_str!("../services/gotify.toml")),
    ("grafana", include_str!("../services/grafana.toml")),
    ("mail", include_str!("../services/mail.toml")),
    ("matrix", include_str!("../services/matrix.toml")),
    ("mattermost", include_str!("../services/mattermost.toml")),
    ("ntfy", include_str!("../services/ntfy.toml")),
    ("opsgenie", include_str!("../services/opsgenie.toml")),
    ("pagerduty", include_str!("../services/pagerduty.toml")),
    ("pushover", include_str!("../services/pushover.toml")),
    ("rocketchat", include_str!("../services/rocketchat.toml")),
    ("slack", include_str!("../services/slack.toml")),
    ("slack-bot", include_str!("../services/slack-bot.toml")),
    ("splunk", include_str!("../services/splunk.toml")),
    ("syslog", include_str!("../services/syslog.toml")),
    ("teams", include_str!("../services/teams.toml")),
    ("telegram", include_str!("../services/telegram.toml")),
];

/// How a service is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// HTTP requests.
    #[default]
    Http,
    /// SMTP.
    Mail,
    /// RFC 5424.
    Syslog,
}

/// A value that a channel has to give, or may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Needed {
    /// What it is, for people.
    pub about: String,
    /// Whether it is a credential: then it stands under `secrets`.
    pub secret: bool,
    /// Whether the channel must give it.
    pub required: bool,
    /// What it is otherwise.
    pub default: String,
}

/// One request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Call {
    /// Begins with what another call says.
    like: Option<String>,
    method: Option<String>,
    url: Option<String>,
    headers: BTreeMap<String, String>,
    json: Option<toml::Value>,
    ndjson: Option<Vec<toml::Value>>,
    form: BTreeMap<String, String>,
    /// Parts of a message that is no request: subject, text, html.
    parts: BTreeMap<String, String>,
    /// Only when it got worse: for services that would tell everything a second time.
    worse_only: bool,
}

/// What answers mean. Expressions see `status`, `answer` (the body as JSON) and `text`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Answers {
    /// Whether it was taken, beside a status of 2xx.
    ok: Option<String>,
    /// Whether something that was not taken may be tried again, beside what the status says.
    passing: Option<String>,
    /// Seconds to wait; the header Retry-After goes first.
    retry_after: Option<String>,
    /// Whether the message that was to be changed is gone: then it is told anew.
    gone: Option<String>,
    /// What has to be remembered to speak of the same message again.
    refs: BTreeMap<String, String>,
}

/// Limits of a service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Limits {
    /// Largest body, octets.
    body_max: Option<usize>,
    /// Least time between two requests, milliseconds.
    every_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: String,
    /// Where the form comes from.
    source: String,
    #[serde(default)]
    transport: Transport,
    #[serde(default = "none")]
    escape: String,
    #[serde(default = "yes")]
    grouped: bool,
    #[serde(default)]
    repeat_secs: Option<u64>,
    /// Whether requests carry weir's signature when the channel has a secret `key`.
    #[serde(default)]
    sign: bool,
    #[serde(default)]
    values: BTreeMap<String, Needed>,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    answer: Answers,
    call: BTreeMap<String, Call>,
}

fn none() -> String {
    "none".to_owned()
}

const fn yes() -> bool {
    true
}

/// What of a conversation is to be told.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// That it began.
    Open,
    /// That something changed.
    Update,
    /// That it is over.
    Resolve,
}

impl Stage {
    /// All stages.
    pub const ALL: [Self; 3] = [Self::Open, Self::Update, Self::Resolve];

    /// Name of the call.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Update => "update",
            Self::Resolve => "resolve",
        }
    }

    /// What a channel asks for by this word.
    pub const fn event(self) -> &'static str {
        match self {
            Self::Open => "opened",
            Self::Update => "updated",
            Self::Resolve => "resolved",
        }
    }
}

/// A service.
#[derive(Debug)]
pub struct Service {
    /// Its name, as channels say it.
    pub name: String,
    /// For people.
    pub title: String,
    /// Where its form comes from.
    pub source: String,
    /// How it is reached.
    pub transport: Transport,
    /// Whether attacks that begin together are one message.
    pub grouped: bool,
    /// What goes on is told again this often, milliseconds.
    pub repeat_ms: Option<u64>,
    /// What a channel gives.
    pub values: BTreeMap<String, Needed>,
    escape: String,
    sign: bool,
    limits: Limits,
    answer: Answers,
    calls: BTreeMap<Stage, Call>,
    engine: Arc<Engine>,
}

/// What a channel fills a call with.
#[derive(Clone, Copy, Debug)]
pub struct Filling<'a> {
    /// Values and credentials by name.
    pub own: &'a Own,
    /// What is to be told.
    pub context: &'a Value,
    /// What was remembered of earlier answers.
    pub refs: &'a BTreeMap<String, String>,
}

/// Values of one channel, complete.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Own {
    /// What may be shown.
    pub values: BTreeMap<String, String>,
    /// What may not.
    pub secrets: BTreeMap<String, String>,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secrets: Vec<&String> = self.secrets.keys().collect();
        f.debug_struct("Own").field("values", &self.values).field("secrets", &secrets).finish()
    }
}

/// What a call comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// A request.
    Http(Request),
    /// Parts of a message, by name.
    Parts(BTreeMap<String, String>),
}

/// All services, by name.
pub type Services = BTreeMap<String, Arc<Service>>;

/// What is shipped, and what an operator's folder adds to it or puts in its place.
///
/// # Errors
/// In words, the first file that makes no sense.
pub fn services(folder: Option<&Path>) -> Result<Services, String> {
    let engine = Arc::new(Engine::default());
    let mut all = Services::new();
    for (name, text) in SHIPPED {
        all.insert(name.to_owned(), Arc::new(Service::read(name, text, &engine)?));
    }
    let Some(folder) = folder else { return Ok(all) };
    let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .map_err(wrong)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    if files.len() > FILES_MAX {
        return Err(format!("{}: more than {FILES_MAX} files", folder.display()));
    }
    for path in files {
        let told = |why: String| format!("{}: {why}", path.display());
        let size = std::fs::metadata(&path).map_err(|e| told(e.to_string()))?.len();
        if size > FILE_MAX {
            return Err(told(format!("larger than {FILE_MAX} octets")));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| told(e.to_string()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let service = Service::read(&name, &text, &engine).map_err(told)?;
        all.insert(name, Arc::new(service));
    }
    Ok(all)
}

impl Service {
    fn read(name: &str, text: &str, engine: &Arc<Engine>) -> Result<Self, String> {
        let told = |why: String| format!("service {name}: {why}");
        let file: File = toml::from_str(text).map_err(|e| told(e.to_string().trim().to_owned()))?;
        if !ESCAPES.contains(&file.escape.as_str()) {
            return Err(told(format!("there is no escape {:?}", file.escape)));
        }
        let mut calls = BTreeMap::new();
        for stage in Stage::ALL {
            let Some(call) = file.call.get(stage.id()) else { continue };
            calls.insert(stage, inherited(call, &file.call).map_err(told)?);
        }
        if !calls.contains_key(&Stage::Open) {
            return Err(told("there is no call.open".to_owned()));
        }
        let service = Self {
            name: name.to_owned(),
            title: file.title,
            source: file.source,
            transport: file.transport,
            grouped: file.grouped,
            repeat_ms: file.repeat_secs.map(|secs| secs.max(10) * 1000),
            values: file.values,
            escape: file.escape,
            sign: file.sign,
            limits: file.limits,
            answer: file.answer,
            calls,
            engine: Arc::clone(engine),
        };
        service.try_out().map_err(told)?;
        Ok(service)
    }

    /// Puts every call together once.
    fn try_out(&self) -> Result<(), String> {
        let mut own = Own::default();
        for (name, needed) in &self.values {
            let made_up =
                if name == "url" || name == "server" { "https://example.net" } else { "1" };
            let to = if needed.secret { &mut own.secrets } else { &mut own.values };
            let default = Some(needed.default.clone()).filter(|d| !d.is_empty());
            to.insert(name.clone(), default.unwrap_or_else(|| made_up.to_owned()));
        }
        let refs = self.answer.refs.keys().map(|name| (name.clone(), "1".to_owned())).collect();
        for stage in self.calls.keys() {
            let context = crate::message::sample(*stage);
            let filling = Filling { own: &own, context: &context, refs: &refs };
            self.make(*stage, DeliveryId(1), "sample", &filling)
                .map_err(|why| format!("call.{}: {why}", stage.id()))?;
        }
        Ok(())
    }

    /// Whether the service can be told this.
    pub fn has(&self, stage: Stage) -> bool {
        self.calls.contains_key(&stage)
    }

    /// Whether its answers give something to remember.
    pub fn remembers(&self) -> bool {
        !self.answer.refs.is_empty()
    }

    /// Whether a change is told only when it is one for the worse.
    pub fn worse_only(&self) -> bool {
        self.calls.get(&Stage::Update).is_some_and(|call| call.worse_only)
    }

    /// Least time between two requests, milliseconds.
    pub const fn every_ms(&self) -> u64 {
        self.limits.every_ms
    }

    /// A call with its holes filled. A stage that the service has no call for is told as an opening is.
    ///
    /// # Errors
    /// In words, when a template does not work or what comes of it cannot be sent.
    pub fn make(
        &self,
        stage: Stage,
        id: DeliveryId,
        to: &str,
        filling: &Filling<'_>,
    ) -> Result<Made, String> {
        let call = self.calls.get(&stage).or_else(|| self.calls.get(&Stage::Open));
        let call = call.ok_or("there is no such call")?;
        let known = self
            .answer
            .refs
            .keys()
            .map(|name| (name.clone(), filling.refs.get(name).cloned().unwrap_or_default()));
        let context = minijinja::context! {
            value => &filling.own.values,
            secret => &filling.own.secrets,
            refs => known.collect::<BTreeMap<String, String>>(),
            delivery => id.0,
            ..filling.context.clone()
        };
        if self.transport != Transport::Http {
            let escape = |part: &str| if part == "html" { "html" } else { self.escape.as_str() };
            let part = |(name, text): (&String, &String)| {
                Ok((name.clone(), self.engine.text(escape(name), text, &context)?))
            };
            return call.parts.iter().map(part).collect::<Result<_, String>>().map(Made::Parts);
        }
        self.request(call, id, to, &context).map(Made::Http)
    }

    fn request(
        &self,
        call: &Call,
        id: DeliveryId,
        to: &str,
        context: &Value,
    ) -> Result<Request, String> {
        const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
        let wanted = call.method.as_deref().unwrap_or("POST");
        let method = METHODS.into_iter().find(|method| *method == wanted);
        let method = method.ok_or_else(|| format!("there is no method {wanted:?}"))?;
        let url = call.url.as_deref().ok_or("there is no url")?;
        let url = self.engine.text("url", url, context)?;
        if !is_url(&url) {
            return Err("its url is no http address".to_owned());
        }
        let (kind, body) = self.content(call, context)?;
        if body.len() > self.limits.body_max.unwrap_or(BODY_MAX) {
            return Err(format!("its body has {} octets: too many for the service", body.len()));
        }
        let mut headers = Vec::new();
        if !body.is_empty() {
            headers.push(("Content-Type".to_owned(), kind.to_owned()));
        }
        for (name, source) in &call.headers {
            let value = self.engine.text("none", source, context)?;
            if value.is_empty() {
                continue;
            }
            if !is_header(name, &value) {
                return Err(format!("header {name} cannot be sent"));
            }
            headers.retain(|(known, _): &(String, String)| !known.eq_ignore_ascii_case(name));
            headers.push((name.clone(), value));
        }
        let key = context.get_attr("secret").and_then(|secrets| secrets.get_attr("key"));
        if self.sign
            && let Ok(key) = key
            && let Some(key) = key.as_str().filter(|key| !key.is_empty())
        {
            headers.push((SIGNATURE_HEADER.to_owned(), signature(key.as_bytes(), &body)));
        }
        Ok(Request { id, to: to.to_owned(), method, url, headers, body })
    }

    fn content(&self, call: &Call, context: &Value) -> Result<(&'static str, Vec<u8>), String> {
        let json = |shape: &toml::Value| self.engine.body(&self.escape, shape, context, 0);
        if let Some(shape) = &call.json {
            return Ok(("application/json", json(shape)?.to_string().into_bytes()));
        }
        if let Some(lines) = &call.ndjson {
            let mut body = Vec::new();
            for line in lines {
                // A list stands for as many lines.
                match json(line)? {
                    serde_json::Value::Array(many) => {
                        for one in many {
                            body.extend_from_slice(one.to_string().as_bytes());
                            body.push(b'\n');
                        }
                    }
                    one => {
                        body.extend_from_slice(one.to_string().as_bytes());
                        body.push(b'\n');
                    }
                }
            }
            return Ok(("application/x-ndjson", body));
        }
        let mut form = Vec::new();
        for (name, source) in &call.form {
            let value = self.engine.text(&self.escape, source, context)?;
            if !value.is_empty() {
                let pair =
                    (crate::template::escape("url", name), crate::template::escape("url", &value));
                form.push(format!("{}={}", pair.0, pair.1));
            }
        }
        Ok(("application/x-www-form-urlencoded", form.join("&").into_bytes()))
    }

    /// What an answer means, and what is to be remembered of it; `true` when the message it was about is gone.
    pub fn understand(
        &self,
        reply: &Reply,
        now: weir_model::Millis,
    ) -> (Answer, BTreeMap<String, String>, bool) {
        let said = String::from_utf8_lossy(&reply.body).into_owned();
        let mut answer = Answer { said, ..reply.outcome.clone().into() };
        let Outcome::Status(status) = reply.outcome else {
            return (answer, BTreeMap::new(), false);
        };
        let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let context = minijinja::context! {
            status => status, answer => minijinja::value::Serde(&json), text => &answer.said,
        };
        let holds = |source: &Option<String>| {
            source.as_ref().map(|source| self.engine.holds(source, &context))
        };
        let taken = reply.outcome.is_success() && holds(&self.answer.ok).unwrap_or(true);
        let gone = !taken && holds(&self.answer.gone).unwrap_or(false);
        if !taken {
            let passing = holds(&self.answer.passing).unwrap_or(false);
            answer.passing = Some(passing || reply.outcome.is_passing());
        }
        let header = reply.retry_after.as_deref().and_then(|text| retry_after_ms(text, now));
        let seconds = || {
            let source = self.answer.retry_after.as_ref()?;
            let value = self.engine.value(source, &context).ok()?;
            retry_after_ms(&value.to_string(), now)
        };
        answer.retry_after_ms = header.or_else(|| if taken { None } else { seconds() });
        let mut refs = BTreeMap::new();
        if taken {
            for (name, source) in &self.answer.refs {
                let value = self.engine.value(source, &context).map(|value| value.to_string());
                refs.extend(value.ok().filter(|v| !v.is_empty()).map(|v| (name.clone(), v)));
            }
        }
        (answer, refs, gone)
    }
}

/// A call with what it takes over from another.
fn inherited(call: &Call, all: &BTreeMap<String, Call>) -> Result<Call, String> {
    let Some(name) = &call.like else { return Ok(call.clone()) };
    let base = all.get(name).filter(|base| base.like.is_none());
    let base =
        base.ok_or_else(|| format!("like = {name:?}: no such call, or one that is like another"))?;
    let mut own = call.clone();
    own.method = own.method.or_else(|| base.method.clone());
    own.url = own.url.or_else(|| base.url.clone());
    if own.headers.is_empty() {
        own.headers.clone_from(&base.headers);
    }
    if own.json.is_none() && own.ndjson.is_none() && own.form.is_empty() {
        own.json.clone_from(&base.json);
        own.ndjson.clone_from(&base.ndjson);
        own.form.clone_from(&base.form);
    }
    if own.parts.is_empty() {
        own.parts.clone_from(&base.parts);
    }
    Ok(own)
}

//! Scrubbing services: prefixes to divert are a desired state, and requests make it so.
//!
//! A service is told to start a prefix until it has agreed, and to stop it until it has agreed:
//! three retries with growing waits, then once a minute and an alarm. What was started and is no
//! longer wanted is stopped even after a restart, because diverted traffic that nobody remembers
//! is paid for every day.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weir_bgp::guard::Admitted;
use weir_model::{
    Address, DeliveryId, Hidden, Measure, Millis, Mitigation, Observed, Originator, Outcome,
    Request, SIGNATURE_HEADER, Secret, TRIES_MAX, TRY_TIMEOUT_MS, WebhookError, back_off_ms,
    is_header, is_url, signature,
};

mod template;

use template::{Place, Values, fill};
pub use template::{RequestTemplate, TemplateError};

/// After all retries have failed, the request is repeated this often, milliseconds.
const KEEP_TRYING_MS: u64 = 60_000;

/// Prefixes remembered over all services.
const JOBS_MAX: usize = 4096;

/// What a service is asked, in the form it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubTemplate {
    /// Name for the configuration.
    pub name: &'static str,
    /// Where the form comes from, and whether it was tried against the service itself.
    pub source: &'static str,
    start: (&'static str, &'static str, &'static str),
    stop: (&'static str, &'static str, &'static str),
}

const MESSAGE: (&str, &str) = (
    r#"{"version":1,"action":"start","prefix":"${prefix}","incident":"${incident}","mitigation":"${mitigation}","delivery":"${delivery}"}"#,
    r#"{"version":1,"action":"stop","prefix":"${prefix}","incident":"${incident}","mitigation":"${mitigation}","delivery":"${delivery}"}"#,
);

/// Forms that are shipped. Services that want more than a form, such as a login or a signature of
/// their own, are reached through a relay that takes the generic one.
pub const SCRUB_TEMPLATES: [ScrubTemplate; 5] = [
    ScrubTemplate {
        name: "generic",
        source: "weir's own: a signed JSON message",
        start: ("POST", "", MESSAGE.0),
        stop: ("POST", "", MESSAGE.1),
    },
    ScrubTemplate {
        name: "cloudflare-magic-transit",
        source: "Cloudflare API documentation, BGP prefixes of addressing; not tried against the \
                 service. Advertising takes minutes, and success means that the request was taken",
        start: (
            "PATCH",
            "/accounts/${account}/addressing/prefixes/${prefix_id}/bgp/prefixes/${bgp_prefix_id}",
            r#"{"on_demand":{"advertised":true}}"#,
        ),
        stop: (
            "PATCH",
            "/accounts/${account}/addressing/prefixes/${prefix_id}/bgp/prefixes/${bgp_prefix_id}",
            r#"{"on_demand":{"advertised":false}}"#,
        ),
    },
    ScrubTemplate {
        name: "ovh",
        source: "OVHcloud API console, /ip; not tried against the service. The service wants its \
                 own signature on each request: to be sent through a relay that adds it",
        start: ("POST", "/ip/${prefix}/mitigation", r#"{"ipOnMitigation":"${address}"}"#),
        stop: ("DELETE", "/ip/${prefix}/mitigation/${address}", ""),
    },
    ScrubTemplate {
        name: "radware",
        source: "no public reference: the generic message, for a relay",
        start: ("POST", "", MESSAGE.0),
        stop: ("POST", "", MESSAGE.1),
    },
    ScrubTemplate {
        name: "f5",
        source: "no public reference: the generic message, for a relay",
        start: ("POST", "", MESSAGE.0),
        stop: ("POST", "", MESSAGE.1),
    },
];

/// A scrubbing service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrubberConfig {
    /// Name in logs and among the peers that have a mitigation.
    pub name: String,
    /// Address of the service, `http://` or `https://`, without a slash at the end.
    pub url: Address,
    /// Template of its requests.
    #[serde(default = "ScrubberConfig::default_template")]
    pub template: String,
    /// Takes the place of the form's request to start.
    #[serde(default)]
    pub start: Option<RequestTemplate>,
    /// Takes the place of the form's request to stop.
    #[serde(default)]
    pub stop: Option<RequestTemplate>,
    /// Values for the placeholders of the template, beside `prefix`, `address`, `len`, `incident`,
    /// `mitigation` and `delivery`.
    #[serde(default)]
    pub values: Hidden,
    /// HTTP headers, such as credentials.
    #[serde(default, skip_serializing)]
    pub headers: Hidden,
    /// Signing key.
    #[serde(default, skip_serializing)]
    pub secret: Option<Secret>,
    /// File with the signing key; surrounding white space is ignored.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
}

impl ScrubberConfig {
    fn default_template() -> String {
        "generic".into()
    }

    /// The name under which it stands among the peers that have a measure.
    pub fn peer(&self) -> String {
        format!("scrubber:{}", self.name)
    }

    fn request_template(&self, wanted: bool) -> Option<RequestTemplate> {
        let own = if wanted { &self.start } else { &self.stop };
        own.clone().or_else(|| {
            let form = SCRUB_TEMPLATES.iter().find(|t| t.name == self.template)?;
            let (method, path, body) = if wanted { form.start } else { form.stop };
            Some(RequestTemplate { method: method.into(), path: path.into(), body: body.into() })
        })
    }

    /// Checks what can be checked without sending: both requests are put together once.
    ///
    /// # Errors
    /// The first setting that makes no sense.
    pub fn check(&self) -> Result<(), WebhookError> {
        let name = || self.name.clone();
        if self.name.trim().is_empty() {
            return Err(WebhookError::Name(name()));
        }
        if !is_url(self.url.expose()) {
            return Err(WebhookError::Url(name(), self.url.origin()));
        }
        if let Some((header, _)) = self.headers.iter().find(|(h, v)| !is_header(h, v)) {
            return Err(WebhookError::Header(name(), header.clone()));
        }
        for wanted in [true, false] {
            let template = self
                .request_template(wanted)
                .ok_or_else(|| WebhookError::Event(name(), self.template.clone()))?;
            let values = self.values_for(IpNet::V4(weir_model::Ipv4Net::default()), None, 0);
            template.fill(&values).map_err(|e| WebhookError::Template(name(), e.to_string()))?;
        }
        Ok(())
    }

    fn values_for(&self, net: IpNet, owner: Option<&Owner>, delivery: u64) -> Values {
        let mut values: Values = (*self.values).clone();
        let (incident, mitigation) =
            owner.map_or((String::new(), 0), |o| (o.incident.clone(), o.mitigation));
        for (name, value) in [
            ("prefix", net.to_string()),
            ("address", net.network().to_string()),
            ("len", net.prefix_len().to_string()),
            ("incident", incident),
            ("mitigation", mitigation.to_string()),
            ("delivery", delivery.to_string()),
        ] {
            values.insert(name.into(), value);
        }
        // What stands for one prefix at the service may be named by it.
        let own = format!("@{net}");
        let of_net: Vec<(String, String)> = values
            .iter()
            .filter_map(|(k, v)| Some((k.strip_suffix(&own)?.to_owned(), v.clone())))
            .collect();
        values.extend(of_net);
        values
    }
}

#[derive(Clone, Debug)]
struct Owner {
    incident: String,
    mitigation: u64,
}

#[derive(Clone, Debug)]
struct Job {
    owner: Owner,
    wanted: bool,
    /// What the service last agreed to; `None` when it may be either.
    agreed: Option<bool>,
    tries: u32,
    due: Millis,
    /// The request under way: its number, what it asks, when it counts as failed.
    under_way: Option<(DeliveryId, bool, Millis)>,
}

/// All scrubbing services and what each is asked for.
#[derive(Clone, Debug, Default)]
pub struct Scrubbers {
    services: Vec<ScrubberConfig>,
    jobs: BTreeMap<(usize, IpNet), Job>,
    last: u64,
}

impl Scrubbers {
    /// Services of which nothing has been asked.
    pub fn new(services: Vec<ScrubberConfig>) -> Self {
        Self { services, ..Self::default() }
    }

    /// After a restart: prefixes that may still be diverted. Those that the next state does not
    /// want are stopped.
    pub fn resume<'a>(&mut self, known: impl Iterator<Item = &'a Mitigation>, now: Millis) {
        for mitigation in known {
            self.want(mitigation, false, now);
        }
    }

    /// Takes in what is to be in force.
    pub fn desired(&mut self, admitted: &Admitted, now: Millis) {
        let wanted: BTreeMap<IpNet, &Mitigation> = admitted
            .mitigations()
            .iter()
            .filter_map(|m| match m.measure {
                Measure::Scrub(net) => Some((net, m)),
                _ => None,
            })
            .collect();
        for ((_, net), job) in &mut self.jobs {
            if job.wanted && !wanted.contains_key(net) {
                job.turn(false, now);
            }
        }
        for mitigation in wanted.values() {
            self.want(mitigation, true, now);
        }
    }

    fn want(&mut self, mitigation: &Mitigation, wanted: bool, now: Millis) {
        let Measure::Scrub(net) = mitigation.measure else { return };
        let incident = match &mitigation.originator {
            Originator::Incident(id) => id.to_string(),
            Originator::Operator(_) => String::new(),
        };
        let owner = Owner { incident, mitigation: mitigation.id.0 };
        for service in 0..self.services.len() {
            let room = self.jobs.len() < JOBS_MAX;
            match self.jobs.get_mut(&(service, net)) {
                Some(job) if job.wanted != wanted => {
                    job.owner = owner.clone();
                    job.turn(wanted, now);
                }
                None if room => {
                    let owner = owner.clone();
                    let job =
                        Job { owner, wanted, agreed: None, tries: 0, due: now, under_way: None };
                    self.jobs.insert((service, net), job);
                }
                _ => {}
            }
        }
    }

    /// Requests to make now. Each is made once; its outcome is reported with [`Scrubbers::done`].
    pub fn due(&mut self, now: Millis) -> Vec<Request> {
        let mut requests = Vec::new();
        let Self { services, jobs, last } = self;
        for ((service, net), job) in jobs.iter_mut() {
            let late = job.under_way.is_some_and(|(_, _, until)| until <= now);
            if late {
                job.under_way = None;
                job.failed(now);
            }
            let settled = job.agreed == Some(job.wanted);
            if settled || job.under_way.is_some() || job.due > now {
                continue;
            }
            *last = last.saturating_add(1);
            let id = DeliveryId(*last);
            job.tries = job.tries.saturating_add(1);
            job.under_way = Some((id, job.wanted, now + TRY_TIMEOUT_MS));
            // Until it answers it may be either.
            job.agreed = None;
            requests.extend(request(&services[*service], *net, job, id));
        }
        jobs.retain(|_, job| job.wanted || job.agreed != Some(false));
        requests
    }

    /// Takes in what became of a request, and says what there is to report to the core: that a
    /// service has a prefix, has let go of it, or will not take it.
    pub fn done(&mut self, id: DeliveryId, outcome: &Outcome, now: Millis) -> Option<Observed> {
        let under_way = |job: &Job| job.under_way.is_some_and(|(own, _, _)| own == id);
        let ((service, net), job) = self.jobs.iter_mut().find(|(_, job)| under_way(job))?;
        let (_, asked, _) = job.under_way.take()?;
        let peer = self.services[*service].peer();
        let measure = Measure::Scrub(*net);
        if outcome.is_success() {
            job.agreed = Some(asked);
            job.tries = 0;
            return Some(match asked {
                true => Observed::Announced { peer, measure, at: now },
                false => Observed::Withdrawn { peer, measure, at: now },
            });
        }
        let last_try = !outcome.is_passing() || job.tries >= TRIES_MAX;
        if !outcome.is_passing() {
            job.tries = job.tries.max(TRIES_MAX);
        }
        job.failed(now);
        // The last failure is reported once; that a stop fails is as grave as that a start does.
        let report = last_try && asked == job.wanted && !job.reported();
        report.then(|| Observed::Refused { peer, measure, at: now, why: outcome.to_string() })
    }

    /// When there is next something to do, if anything waits.
    pub fn next_due(&self) -> Option<Millis> {
        let open = self.jobs.values().filter(|j| j.agreed != Some(j.wanted));
        open.map(|j| j.under_way.map_or(j.due, |(_, _, until)| until)).min()
    }

    /// Prefixes that no service has agreed about after all retries, by service.
    pub fn stuck(&self) -> impl Iterator<Item = (&str, IpNet)> {
        let stuck = self.jobs.iter().filter(|(_, j)| j.tries >= TRIES_MAX);
        stuck.map(|((service, net), _)| (self.services[*service].name.as_str(), *net))
    }
}

impl Job {
    fn turn(&mut self, wanted: bool, now: Millis) {
        self.wanted = wanted;
        self.tries = 0;
        self.due = now;
    }

    fn failed(&mut self, now: Millis) {
        let wait = if self.tries >= TRIES_MAX { KEEP_TRYING_MS } else { back_off_ms(self.tries) };
        self.due = now + wait;
    }

    /// Whether the last failure was reported before.
    const fn reported(&self) -> bool {
        self.tries > TRIES_MAX
    }
}

fn request(service: &ScrubberConfig, net: IpNet, job: &Job, id: DeliveryId) -> Option<Request> {
    let values = service.values_for(net, Some(&job.owner), id.0);
    let template = service.request_template(job.wanted)?;
    // Checked when the configuration was read: every hole has a value.
    let (method, path, body) = template.fill(&values).ok()?;
    let body = body.into_bytes();
    let mut headers = vec![("X-Weir-Delivery".to_owned(), id.to_string())];
    if !body.is_empty() {
        headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    }
    if let Some(secret) = &service.secret {
        let signed = signature(secret.expose().as_bytes(), &body);
        headers.push((SIGNATURE_HEADER.to_owned(), signed));
    }
    for (name, value) in service.headers.iter() {
        let value = fill(value, &values, Place::Json).unwrap_or_else(|_| value.clone());
        if is_header(name, &value) {
            headers.push((name.clone(), value));
        }
    }
    let url = format!("{}{path}", service.url.expose());
    Some(Request { id, to: service.name.clone(), method, url, headers, body })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_bgp::guard::{Config, Guard};
    use weir_model::{DesiredState, IncidentId, Inventory, MitigationId, MitigationState, Rung};

    use super::*;

    fn service(template: &str) -> ScrubberConfig {
        let text =
            format!(r#"{{"name":"s","url":"https://scrub.example","template":"{template}"}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn mitigation(net: &str) -> Mitigation {
        Mitigation {
            id: MitigationId(7),
            originator: Originator::Incident(IncidentId(36)),
            measure: Measure::Scrub(net.parse().unwrap()),
            rung: Rung::Scrub,
            state: MitigationState::Active,
            since: Millis(0),
            expires: Millis::from_secs(3600),
            ended: None,
            peers: Vec::new(),
            note: String::new(),
            worth: 0,
        }
    }

    fn admitted(nets: &[&str]) -> Admitted {
        let protected = vec!["203.0.113.0/24".parse().unwrap()].into();
        let inventory = Arc::new(Inventory::new(protected, Vec::new().into(), Vec::new()));
        let mitigations: Vec<Mitigation> = nets.iter().map(|n| mitigation(n)).collect();
        let desired = DesiredState { generation: 1, mitigations: mitigations.into() };
        Guard::new(Config::default(), inventory).admit(&desired, Millis(0))
    }

    /// What the service is asked from now on, second by second, answering with `status`.
    fn ask(s: &mut Scrubbers, secs: std::ops::Range<u64>, status: u16) -> Vec<(u64, String)> {
        let mut asked = Vec::new();
        for second in secs {
            let now = Millis::from_secs(second);
            for request in s.due(now) {
                let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
                asked.push((second, format!("{} {}", body["action"], body["prefix"])));
                s.done(request.id, &Outcome::Status(status), now);
            }
        }
        asked
    }

    #[test]
    fn a_prefix_is_started_once_and_stopped_once() {
        let mut s = Scrubbers::new(vec![service("generic")]);
        s.desired(&admitted(&["203.0.113.0/24"]), Millis(0));
        let start = (0, r#""start" "203.0.113.0/24""#.to_owned());
        assert_eq!(ask(&mut s, 0..100, 200), [start]);
        s.desired(&admitted(&["203.0.113.0/24"]), Millis::from_secs(100));
        assert_eq!(ask(&mut s, 100..200, 200), []);
        s.desired(&admitted(&[]), Millis::from_secs(200));
        let stop = (200, r#""stop" "203.0.113.0/24""#.to_owned());
        assert_eq!(ask(&mut s, 200..300, 204), [stop]);
        assert!(s.jobs.is_empty());
    }

    #[test]
    fn a_service_that_fails_is_retried_then_reported_then_asked_every_minute() {
        let mut s = Scrubbers::new(vec![service("generic")]);
        s.desired(&admitted(&["203.0.113.0/24"]), Millis(0));
        let mut tried = Vec::new();
        let mut reports = Vec::new();
        for second in 0..170 {
            let now = Millis::from_secs(second);
            for request in s.due(now) {
                tried.push(second);
                reports.extend(s.done(request.id, &Outcome::Failed("no route".into()), now));
            }
        }
        assert_eq!(tried, [0, 2, 10, 42, 102, 162]);
        assert_eq!(reports.len(), 1);
        assert!(matches!(&reports[0], Observed::Refused { peer, .. } if peer == "scrubber:s"));
        assert_eq!(s.stuck().count(), 1);
        // Even a start that was never confirmed is stopped: it may have been carried out.
        s.desired(&admitted(&[]), Millis::from_secs(170));
        assert_eq!(ask(&mut s, 170..300, 200).len(), 1);
        assert_eq!(s.stuck().count(), 0);
    }

    #[test]
    fn a_change_of_mind_under_way_ends_in_the_last_wish() {
        let mut s = Scrubbers::new(vec![service("generic")]);
        s.desired(&admitted(&["203.0.113.0/24"]), Millis(0));
        let request = s.due(Millis(0)).remove(0);
        s.desired(&admitted(&[]), Millis(10));
        assert_eq!(s.due(Millis(20)), [], "one request at a time");
        s.done(request.id, &Outcome::Status(200), Millis(30));
        let asked = ask(&mut s, 1..100, 200);
        assert_eq!(asked, [(1, r#""stop" "203.0.113.0/24""#.to_owned())]);
    }

    #[test]
    fn after_a_restart_what_is_no_longer_wanted_is_stopped() {
        let mut s = Scrubbers::new(vec![service("generic")]);
        let known = [mitigation("203.0.113.0/24"), mitigation("203.0.113.128/25")];
        s.resume(known.iter(), Millis(0));
        s.desired(&admitted(&["203.0.113.128/25"]), Millis(0));
        let asked: Vec<String> = ask(&mut s, 0..10, 200).into_iter().map(|a| a.1).collect();
        assert_eq!(asked, [r#""stop" "203.0.113.0/24""#, r#""start" "203.0.113.128/25""#]);
    }

    #[test]
    fn every_shipped_form_makes_a_request() {
        for form in SCRUB_TEMPLATES {
            let mut service = service(form.name);
            service.secret = Some(Secret::new("hunter2"));
            for hole in ["account", "prefix_id"] {
                service.values.insert(hole.into(), format!("{hole}/1"));
            }
            service.values.insert("bgp_prefix_id".into(), "none".into());
            service.values.insert("bgp_prefix_id@203.0.113.0/24".into(), "42".into());
            assert_eq!(service.check(), Ok(()), "{}", form.name);
            let mut s = Scrubbers::new(vec![service]);
            s.desired(&admitted(&["203.0.113.0/24"]), Millis(0));
            let request = s.due(Millis(0)).remove(0);
            assert!(is_url(&request.url), "{}", request.url);
            if form.name == "cloudflare-magic-transit" {
                let path =
                    "/accounts/account%2F1/addressing/prefixes/prefix_id%2F1/bgp/prefixes/42";
                assert_eq!(request.url, format!("https://scrub.example{path}"));
            }
            let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
            assert!(body.is_object());
            assert!(request.headers.iter().any(|(n, v)| {
                n == SIGNATURE_HEADER && *v == signature(b"hunter2", &request.body)
            }));
        }
        assert!(service("nobody").check().is_err());
        assert!(service("cloudflare-magic-transit").check().is_err(), "holes without values");
    }
}

//! Conversations from the first incident to the last answer, against services in the documented shape.

mod conditions;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_model::{Inventory, PrefixSet, Service as Named};

use super::*;
use crate::brief::Severity;
use crate::config::{ChannelConfig, Config, SecretSource};

/// A server's name as somebody would choose who wants to be read on somebody's phone.
const HOSTILE: &str =
    "<b>x</b> *b* `c` [l](http://e.vil) @everyone <!channel> \"},{\"a\":\"\r\nBcc: all@e.vil";

fn incident(number: u64, open: bool, more: Value) -> Arc<Incident> {
    let id = IncidentId(1_795_168_965_000 + number);
    let rate = |packets: f64| json!({"packets_per_sec": packets, "bits_per_sec": packets * 8000.0});
    let host = number % 250 + 1;
    let mut value = json!({
        "id": id, "state": if open { "open" } else { "closed" }, "group": "acme",
        "opened": 1_795_168_965_000_u64 + number,
        "closed": if open { Value::Null } else { json!(1_795_169_265_000_u64) },
        "verdict": {
            "incident": id, "phase": "ongoing", "at": 0, "target": format!("203.0.113.{host}/32"),
            "direction": "inbound", "family": "udp-flood",
            "vectors": [{"family": "udp-flood", "subtype": "dns-amplification", "share": 0.8,
                "rate": rate(1e6), "src_ports": [53], "dst_ports": [25565]}],
            "confidence": 97, "evidence_groups": 3, "separable": true, "rate": rate(1e6),
            "peak": rate(1e6), "excess": rate(9e5), "sources": 900.0,
            "reason": {"metric": "packets-per-sec", "value": 1e6, "baseline": 1e5, "multiplier": 3.0,
                "threshold": 3e5, "window_ms": 1000, "samples": 100.0, "sampling": 100.0,
                "exporters": [], "service": null},
            "candidates": [], "top_sources": [{"value": "198.51.100.9", "share": 0.1}],
            "summary": "UDP flood",
        },
        "rung": null, "held": false, "mitigations": [], "timeline": [],
    });
    merge(&mut value, more);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(map), Value::Object(more)) => {
            for (key, value) in more {
                merge(map.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

fn in_force() -> Value {
    json!({"rung": "drop", "mitigations": [{"id": 1, "originator": {"operator": "x"},
        "measure": {"blackhole": "203.0.113.1/32"}, "rung": "drop", "state": "active", "since": 0,
        "expires": 0, "ended": null, "peers": ["edge1"], "note": ""}]})
}

fn inventory(name: &str) -> Inventory {
    let services = (1..=250)
        .map(|host| Named {
            address: format!("203.0.113.{host}").parse().unwrap(),
            protocol: 17,
            port: 25565,
            name: name.to_owned(),
            game: String::new(),
        })
        .collect();
    let protected: PrefixSet = ["203.0.113.0/24".parse().unwrap()].into_iter().collect();
    Inventory::new(protected, PrefixSet::default(), services)
}

/// One channel's desk and the incidents it sees.
struct World {
    desk: Desk,
    incidents: BTreeMap<u64, Arc<Incident>>,
    inventory: Inventory,
    conditions: Conditions,
    now: Millis,
}

impl World {
    fn new(channels: Vec<ChannelConfig>) -> Self {
        let mut world = Self {
            desk: Desk::default(),
            incidents: BTreeMap::new(),
            inventory: inventory(HOSTILE),
            conditions: Conditions::default(),
            now: Millis::from_secs(1_795_168_970),
        };
        world.open(channels);
        // An attack of last week, which is news to nobody.
        let old = incident(0, false, json!({"id": IncidentId(5)}));
        world.incidents.insert(0, old);
        world.look();
        world
    }

    fn open(&mut self, channels: Vec<ChannelConfig>) {
        let config = Config { channels, node: "dc1".into(), ..Config::default() };
        config.check().unwrap();
        let channels = config.open().unwrap();
        self.desk.introduce(&config.node, "https://weir.example.net/");
        self.desk.set_receivers(Vec::new(), channels, self.now);
    }

    fn set(&mut self, number: u64, open: bool, more: Value) {
        self.incidents.insert(number, incident(number, open, more));
        self.look();
    }

    fn look(&mut self) {
        let incidents: Vec<Arc<Incident>> = self.incidents.values().cloned().collect();
        let seen = Seen {
            incidents: &incidents,
            whole: true,
            at: self.now,
            inventory: &self.inventory,
            conditions: &self.conditions,
        };
        self.desk.observe(&seen, self.now);
    }

    /// Time passes; whatever is sent is answered by `answer`.
    fn pass(&mut self, seconds: u64, answer: &mut dyn FnMut(&Job) -> Reply) -> Vec<Job> {
        let mut sent = Vec::new();
        for _ in 0..seconds * 4 {
            for job in self.desk.due(self.now) {
                let reply = answer(&job);
                self.desk.done(job.id(), &reply, self.now);
                sent.push(job);
            }
            self.now = self.now + 250;
        }
        sent
    }

    /// Kills it and starts it from what the state file holds.
    fn kill(&mut self, channels: Vec<ChannelConfig>) {
        let kept = serde_json::to_string(&self.desk.changed().unwrap()).unwrap();
        assert!(!kept.contains("s3cret"), "no credentials in the state file");
        self.desk = Desk::default();
        self.desk.restore(serde_json::from_str(&kept).unwrap());
        self.open(channels);
        self.look();
    }
}

fn channel(service: &str, values: &[(&str, &str)], secrets: &[(&str, &str)]) -> ChannelConfig {
    let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let secret = |(name, value): &(&str, &str)| {
        ((*name).to_owned(), SecretSource::Text(weir_model::Secret::new(*value)))
    };
    ChannelConfig {
        values: values.iter().map(text).collect(),
        secrets: secrets.iter().map(secret).collect(),
        ..serde_json::from_value(json!({"name": service, "service": service})).unwrap()
    }
}

/// Every shipped service, as a channel.
fn shipped(service: &str) -> ChannelConfig {
    let url = ("url", "https://service.example.net/s3cret");
    match service {
        "discord" | "slack" | "teams" | "mattermost" | "rocketchat" => {
            channel(service, &[], &[url])
        }
        "classic" => channel(service, &[], &[url, ("key", "s3cret-key")]),
        "slack-bot" => channel(service, &[("channel", "C1")], &[("token", "xoxb-s3cret")]),
        "telegram" => channel(service, &[("chat_id", "-100")], &[("token", "1:s3cret")]),
        "ntfy" => channel(service, &[], &[("topic", "s3cret")]),
        "pushover" => channel(service, &[], &[("token", "s3cret"), ("user", "u")]),
        "gotify" => channel(service, &[("url", "https://g.example.net")], &[("token", "s3cret")]),
        "matrix" => channel(
            service,
            &[("url", "https://m.example.net"), ("room", "!a:example.net")],
            &[("token", "s3cret")],
        ),
        "pagerduty" => {
            channel(service, &[], &[("routing_key", "0123456789abcdef0123456789abcdef")])
        }
        "opsgenie" => channel(service, &[], &[("key", "s3cret")]),
        "alertmanager" => channel(service, &[("url", "http://127.0.0.1:9093")], &[]),
        "splunk" => {
            channel(service, &[("url", "https://s.example.net:8088")], &[("token", "s3cret")])
        }
        "elasticsearch" => channel(service, &[("url", "https://e.example.net")], &[]),
        "datadog" => channel(service, &[], &[("api_key", "s3cret")]),
        "grafana" => channel(service, &[("url", "https://gr.example.net")], &[("token", "s3cret")]),
        "mail" => channel(
            service,
            &[
                ("server", "127.0.0.1"),
                ("from", "weir <weir@example.net>"),
                ("to", "noc@example.net"),
            ],
            &[],
        ),
        "syslog" => channel(service, &[("server", "127.0.0.1:514")], &[]),
        other => panic!("{other} is shipped and not tested"),
    }
}

fn http(job: &Job) -> &Request {
    let Job::Http(request) = job else { panic!("{job:?}") };
    request
}

fn body(job: &Job) -> Value {
    serde_json::from_slice(&http(job).body).unwrap()
}

fn reply(status: u16, body: Value) -> Reply {
    Reply { body: body.to_string().into_bytes(), ..Outcome::Status(status).into() }
}

/// What a service answers in its documented shape, after it has checked what it documents. A stub: none of the
/// services themselves was asked.
#[derive(Default)]
struct Stub {
    /// Messages that are there, by their number, as last told.
    there: BTreeMap<String, Value>,
    next: u64,
}

fn longest(text: &Value, max: usize, what: &str) {
    let text = text.as_str().unwrap_or_else(|| panic!("{what} is no text"));
    assert!(!text.is_empty() && text.chars().count() <= max, "{what}: {}", text.chars().count());
}

impl Stub {
    fn answer(&mut self, service: &str, job: &Job) -> Reply {
        match service {
            "mail" => return Outcome::Status(250).into(),
            "syslog" => return Outcome::Status(200).into(),
            _ => {}
        }
        let request = http(job);
        let header = |name: &str| {
            let found = request.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
            found.map_or("", |(_, value)| value.as_str())
        };
        let text = std::str::from_utf8(&request.body).unwrap();
        let json: Value = serde_json::from_str(text).unwrap_or_default();
        self.next += 1;
        let id = self.next.to_string();
        match service {
            "discord" => {
                for embed in json["embeds"].as_array().unwrap() {
                    longest(&embed["title"], 256, "title");
                    let fields = embed["fields"].as_array().map_or(&[][..], Vec::as_slice);
                    assert!(fields.len() <= 25);
                    for field in fields {
                        longest(&field["name"], 256, "field name");
                        longest(&field["value"], 1024, "field value");
                    }
                    assert!(embed.to_string().chars().count() <= 6000);
                }
                assert_eq!(json["allowed_mentions"]["parse"], json!([]));
                let id = match request.url.rsplit_once("/messages/") {
                    None => {
                        assert!(request.method == "POST" && request.url.ends_with("?wait=true"));
                        id
                    }
                    Some((_, id)) if self.there.contains_key(id) => {
                        assert_eq!(request.method, "PATCH");
                        id.to_owned()
                    }
                    Some(_) => {
                        return reply(404, json!({"message": "Unknown Message", "code": 10008}));
                    }
                };
                self.there.insert(id.clone(), json);
                reply(200, json!({"id": id}))
            }
            "slack" | "mattermost" | "rocketchat" => {
                assert!(text.len() <= 16_000);
                self.there.insert(id, json);
                Reply { body: b"ok".to_vec(), ..Outcome::Status(200).into() }
            }
            "slack-bot" => {
                assert_eq!(header("authorization"), "Bearer xoxb-s3cret");
                let block = &json["attachments"][0]["blocks"][0]["text"]["text"];
                longest(block, 3000, "section");
                let ts = match request.url.as_str() {
                    "https://slack.com/api/chat.postMessage" => format!("17.{id}"),
                    "https://slack.com/api/chat.update" => json["ts"].as_str().unwrap().to_owned(),
                    other => panic!("{other}"),
                };
                assert_eq!(json["channel"], "C1");
                self.there.insert(ts.clone(), json);
                reply(200, json!({"ok": true, "ts": ts, "channel": "C1"}))
            }
            "teams" => {
                assert!(text.len() <= 28 * 1024);
                let attachment = &json["attachments"][0];
                assert_eq!(json["type"], "message");
                assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
                assert_eq!(attachment["content"]["type"], "AdaptiveCard");
                for block in attachment["content"]["body"].as_array().unwrap() {
                    assert!(block["text"].is_string() || block["facts"].is_array());
                }
                self.there.insert(id, json);
                Outcome::Status(202).into()
            }
            "telegram" => {
                let text = json["text"].as_str().unwrap();
                assert!((1..=4096).contains(&text.chars().count()));
                // Only tags that Telegram knows, all of them closed.
                let open = text.matches("<b>").count() + text.matches("<a ").count();
                let close = text.matches("</b>").count() + text.matches("</a>").count();
                assert_eq!((text.matches('<').count(), open), (open + close, close), "{text}");
                let id = if request.url.ends_with("/bot1:s3cret/editMessageText") {
                    let id = json["message_id"].as_u64().unwrap().to_string();
                    if !self.there.contains_key(&id) {
                        return reply(
                            400,
                            json!({"ok": false, "error_code": 400,
                                "description": "Bad Request: message to edit not found"}),
                        );
                    }
                    id
                } else {
                    assert!(request.url.ends_with("/bot1:s3cret/sendMessage"), "{}", request.url);
                    id
                };
                self.there.insert(id.clone(), json);
                let number: u64 = id.parse().unwrap();
                reply(200, json!({"ok": true, "result": {"message_id": number}}))
            }
            "ntfy" => {
                longest(&json["message"], 4096, "message");
                assert!((1..=5).contains(&json["priority"].as_u64().unwrap()));
                self.there.insert(id.clone(), json);
                reply(200, json!({"id": id}))
            }
            "pushover" => {
                let form: BTreeMap<String, String> = text
                    .split('&')
                    .filter_map(|pair| pair.split_once('='))
                    .map(|(k, v)| (unescaped(k), unescaped(v)))
                    .collect();
                assert!((1..=1024).contains(&form["message"].chars().count()));
                assert!(form["title"].chars().count() <= 250);
                let priority: i32 = form["priority"].parse().unwrap();
                assert!((-2..=2).contains(&priority));
                if priority == 2 {
                    assert!(form["retry"].parse::<u32>().unwrap() >= 30);
                    assert!(form["expire"].parse::<u32>().unwrap() <= 10_800);
                }
                self.there.insert(id, json!(form));
                reply(200, json!({"status": 1, "request": "r"}))
            }
            "gotify" => {
                assert_eq!(header("x-gotify-key"), "s3cret");
                longest(&json["message"], 10_000, "message");
                self.there.insert(id.clone(), json);
                reply(200, json!({"id": 1}))
            }
            "matrix" => {
                assert_eq!(request.method, "PUT");
                assert!(request.url.contains("/rooms/%21a%3Aexample.net/send/m.room.message/weir"));
                let to = json["m.relates_to"]["event_id"].as_str().map(str::to_owned);
                let to = to.inspect(|to| assert!(self.there.contains_key(to)));
                let event = format!("${id}");
                self.there.insert(to.unwrap_or_else(|| event.clone()), json);
                reply(200, json!({"event_id": event}))
            }
            "pagerduty" => {
                assert_eq!(json["routing_key"].as_str().unwrap().len(), 32);
                longest(&json["dedup_key"], 255, "dedup_key");
                let key = json["dedup_key"].as_str().unwrap().to_owned();
                match json["event_action"].as_str().unwrap() {
                    "trigger" => {
                        longest(&json["payload"]["summary"], 1024, "summary");
                        longest(&json["payload"]["source"], 255, "source");
                        let severity = json["payload"]["severity"].as_str().unwrap();
                        assert!(["critical", "error", "warning", "info"].contains(&severity));
                        self.there.insert(key, json);
                    }
                    "resolve" => self.there.get_mut(&key).unwrap()["over"] = true.into(),
                    other => panic!("{other}"),
                }
                reply(202, json!({"status": "success"}))
            }
            "opsgenie" => {
                assert_eq!(header("authorization"), "GenieKey s3cret");
                if let Some((_, rest)) = request.url.split_once("/v2/alerts/") {
                    let alias = rest.strip_suffix("/close?identifierType=alias").unwrap();
                    self.there.get_mut(&unescaped(alias)).unwrap()["over"] = true.into();
                } else {
                    longest(&json["message"], 130, "message");
                    longest(&json["alias"], 512, "alias");
                    longest(&json["description"], 15_000, "description");
                    self.there.insert(json["alias"].as_str().unwrap().to_owned(), json);
                }
                reply(202, json!({"result": "Request will be processed"}))
            }
            "alertmanager" => {
                for alert in json.as_array().unwrap() {
                    let labels = alert["labels"].to_string();
                    let over = alert.get("endsAt").is_some();
                    self.there.insert(labels, json!({"over": over, "alert": alert}));
                }
                Outcome::Status(200).into()
            }
            "splunk" => {
                assert_eq!(header("authorization"), "Splunk s3cret");
                assert!(json["event"].is_object() && json["time"].is_number());
                self.there.insert(id, json);
                reply(200, json!({"text": "Success", "code": 0}))
            }
            "elasticsearch" => {
                assert!(text.ends_with('\n'));
                let lines: Vec<Value> =
                    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
                assert_eq!(lines.len(), 2);
                let id = lines[0]["create"]["_id"].as_str().unwrap().to_owned();
                assert!(lines[1]["@timestamp"].is_string());
                if self.there.insert(id, lines[1].clone()).is_some() {
                    let item = json!({"create": {"status": 409}});
                    return reply(200, json!({"errors": true, "items": [item]}));
                }
                let item = json!({"create": {"status": 201}});
                reply(200, json!({"errors": false, "items": [item]}))
            }
            "datadog" => {
                assert_eq!(header("dd-api-key"), "s3cret");
                longest(&json["title"], 100, "title");
                longest(&json["text"], 4000, "text");
                longest(&json["aggregation_key"], 100, "key");
                self.there.insert(id, json);
                reply(202, json!({"status": "ok"}))
            }
            "grafana" => {
                let id = match request.method {
                    "POST" => {
                        assert!(json["time"].is_u64());
                        id
                    }
                    _ => request.url.rsplit('/').next().unwrap().to_owned(),
                };
                self.there.insert(id.clone(), json);
                let number: u64 = id.parse().unwrap();
                reply(200, json!({"message": "ok", "id": number}))
            }
            "classic" => {
                let key = weir_model::signature(b"s3cret-key", &request.body);
                assert_eq!(header("x-weir-signature"), key);
                for field in ["incident_id", "node_id", "attack_type", "severity", "started_at"] {
                    assert!(json[field].is_string(), "{field}");
                }
                assert!(json["peak_pps"].is_u64() && json["peak_bps"].is_u64());
                let sources =
                    if json["event"] == "test" { json!([]) } else { json!(["198.51.100.9"]) };
                assert_eq!(json["attacker_ips"], sources);
                self.there.insert(id, json);
                Outcome::Status(204).into()
            }
            other => panic!("no stub for {other}"),
        }
    }
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next().unwrap(), rest.next().unwrap()];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn all_services() -> Vec<String> {
    crate::service::services(None).unwrap().into_keys().collect()
}

#[test]
fn every_service_is_told_the_beginning_and_the_end_in_its_own_form() {
    for service in all_services() {
        let mut world = World::new(vec![shipped(&service)]);
        let mut stub = Stub::default();
        world.set(1, true, json!({}));
        let opened = world.pass(5, &mut |job| stub.answer(&service, job));
        assert_eq!(opened.len(), 1, "{service}: {opened:?}");
        world.set(1, false, json!({}));
        let over = world.pass(5, &mut |job| stub.answer(&service, job));
        assert_eq!(over.len(), 1, "{service}: {over:?}");
        assert_eq!(world.desk.outbox().dead().count(), 0, "{service}");
        assert_eq!(world.desk.talks(&service), 0, "{service}: everything is told");
        assert!(world.pass(200, &mut |job| stub.answer(&service, job)).is_empty(), "{service}");
        // One that is kept up to date, or one that has a key, is one message.
        let edits = ["discord", "slack-bot", "telegram", "matrix", "pagerduty", "opsgenie"];
        if edits.contains(&service.as_str()) || ["alertmanager", "grafana"].contains(&&*service) {
            assert_eq!(stub.there.len(), 1, "{service}: {:?}", stub.there);
        }
        let test = world.desk.test(&service, world.now);
        let sent = world.pass(4, &mut |job| stub.answer(&service, job));
        assert_eq!(sent.iter().map(|job| Some(job.id())).collect::<Vec<_>>(), [test], "{service}");
        let last = world.desk.outbox().log().next_back().unwrap();
        assert!(last.taken, "{service}: {last:?}");
    }
}

#[test]
fn a_hostile_server_name_is_text_and_nothing_else() {
    for service in all_services() {
        let mut world = World::new(vec![shipped(&service)]);
        world.inventory = inventory(&format!("{HOSTILE}{}", "y".repeat(10_000)));
        let mut stub = Stub::default();
        world.set(1, true, json!({}));
        let sent = world.pass(5, &mut |job| stub.answer(&service, job));
        assert_eq!(sent.len(), 1, "{service}");
        match &sent[0] {
            Job::Http(request) => {
                assert!(!request.url.contains("e.vil"), "{service}: {}", request.url);
                assert!(request.headers.iter().all(|(_, v)| !v.contains("e.vil")), "{service}");
                let text = String::from_utf8_lossy(&request.body);
                let raw: &[&str] = match service.as_str() {
                    "slack" | "slack-bot" => &["<b>x", "<!channel>"],
                    "discord" | "mattermost" | "rocketchat" | "teams" => {
                        &["](http://", "@everyone"]
                    }
                    "telegram" | "grafana" => &["<b>x", "<!channel>"],
                    _ => &[],
                };
                for part in raw {
                    assert!(!text.contains(part), "{service}: {part} in {text}");
                }
            }
            Job::Mail(mail) => {
                let text = format!("{mail:?}");
                assert!(!text.contains("\\r\\n"), "{text}");
            }
            Job::Syslog(_) => {}
        }
    }
}

#[test]
fn three_hundred_targets_in_a_minute_are_one_message_with_a_count_and_a_link() {
    for service in ["discord", "slack", "teams", "telegram", "ntfy", "pagerduty", "mail"] {
        let mut world = World::new(vec![shipped(service)]);
        let mut stub = Stub::default();
        let mut sent = Vec::new();
        for number in 1..=300 {
            world.set(number, true, json!({}));
            // Five a second.
            if number % 5 == 0 {
                sent.extend(world.pass(1, &mut |job| stub.answer(service, job)));
            }
        }
        sent.extend(world.pass(60, &mut |job| stub.answer(service, job)));
        assert!(sent.len() <= 8, "{service}: {} messages", sent.len());
        if ["discord", "telegram", "pagerduty"].contains(&service) {
            assert_eq!(stub.there.len(), 1, "{service}: one message, kept up to date");
            let text = stub.there.values().next().unwrap().to_string();
            assert!(text.contains("300 targets"), "{service}: {text}");
            assert!(text.contains("https://weir.example.net/#/incidents"), "{service}: {text}");
        }
        for number in 1..=300 {
            world.incidents.insert(number, incident(number, false, json!({})));
        }
        world.look();
        let over = world.pass(60, &mut |job| stub.answer(service, job));
        assert_eq!(over.len(), 1, "{service}");
        assert_eq!(world.desk.talks(service), 0);
    }
}

#[test]
fn a_message_says_who_what_how_much_since_when_what_was_done_and_whether_it_works() {
    let mut world = World::new(vec![shipped("discord")]);
    world.inventory = inventory("survival");
    let mut stub = Stub::default();
    world.set(1, true, in_force());
    let sent = world.pass(5, &mut |job| stub.answer("discord", job));
    let embed = &body(&sent[0])["embeds"][0];
    assert_eq!(embed["title"], "UDP flood on 203.0.113.2 \\(survival, acme\\)");
    let id = incident(1, true, json!({})).id;
    assert_eq!(embed["url"], format!("https://weir.example.net/#/incidents/{id}"));
    let fields: BTreeMap<&str, &str> = embed["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| (field["name"].as_str().unwrap(), field["value"].as_str().unwrap()))
        .collect();
    assert_eq!(fields["What"], "UDP flood: dns-amplification 80 %");
    assert_eq!(
        fields["How much"],
        "8.0 Gbit/s, 1.0 Mpkt/s at most; normal 800 Mbit/s \\(10 times\\)"
    );
    assert!(fields["Since"].starts_with("2026-11-20T"), "{}", fields["Since"]);
    assert_eq!(fields["Done"], "dropped by 1 rule");
    assert_eq!(fields["Works"], "traffic is at 100 % of its peak");
}

#[test]
fn severity_follows_from_impact_confidence_and_what_is_done() {
    let check = |more: Value, expected: Severity| {
        assert_eq!(Severity::of(&incident(1, true, more.clone())), expected, "{more}");
    };
    check(json!({}), Severity::Error);
    check(json!({"verdict": {"confidence": 40}}), Severity::Info);
    check(json!({"verdict": {"confidence": 70}}), Severity::Warning);
    check(in_force(), Severity::Warning);
    let rate = |packets: f64| json!({"packets_per_sec": packets, "bits_per_sec": packets});
    let starving = json!({"now": rate(1.0), "normal": rate(10.0), "expected_samples": 50.0});
    check(json!({"verdict": {"legitimate": starving}}), Severity::Critical);
    let mut hole = in_force();
    hole["mitigations"][0]["rung"] = "rtbh".into();
    check(hole, Severity::Critical);
}

#[test]
fn a_change_is_told_once_in_the_same_message() {
    let mut world = World::new(vec![shipped("telegram")]);
    let mut stub = Stub::default();
    world.set(1, true, json!({}));
    assert_eq!(world.pass(40, &mut |job| stub.answer("telegram", job)).len(), 1);
    world.set(1, true, json!({"verdict": {"rate": {"packets_per_sec": 5.0, "bits_per_sec": 5.0}}}));
    assert!(world.pass(40, &mut |job| stub.answer("telegram", job)).is_empty(), "numbers move");
    world.set(1, true, in_force());
    let sent = world.pass(40, &mut |job| stub.answer("telegram", job));
    assert_eq!(sent.len(), 1);
    assert!(http(&sent[0]).url.ends_with("/editMessageText"));
    assert!(body(&sent[0])["text"].as_str().unwrap().contains("dropped by 1 rule"));
    assert_eq!(stub.there.len(), 1);
}

#[test]
fn a_message_that_a_person_deleted_is_told_anew() {
    for service in ["discord", "telegram"] {
        let mut world = World::new(vec![shipped(service)]);
        let mut stub = Stub::default();
        world.set(1, true, json!({}));
        world.pass(40, &mut |job| stub.answer(service, job));
        stub.there.clear();
        world.set(1, true, in_force());
        let sent = world.pass(40, &mut |job| stub.answer(service, job));
        assert_eq!((sent.len(), stub.there.len()), (2, 1), "{service}");
        assert_eq!(world.desk.outbox().dead().count(), 0);
    }
}

#[test]
fn a_busy_service_is_waited_for_as_long_as_it_says() {
    let busy: [(&str, Reply); 4] = [
        ("discord", reply(429, json!({"retry_after": 7.5, "global": false}))),
        ("telegram", reply(429, json!({"ok": false, "parameters": {"retry_after": 8}}))),
        ("matrix", reply(429, json!({"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 9000}))),
        (
            "slack-bot",
            Reply {
                retry_after: Some("10".into()),
                ..reply(200, json!({"ok": false, "error": "ratelimited"}))
            },
        ),
    ];
    for (service, busy) in busy {
        let mut world = World::new(vec![shipped(service)]);
        let mut stub = Stub::default();
        world.set(1, true, json!({}));
        let first = world.pass(3, &mut |_| busy.clone());
        assert_eq!(first.len(), 1, "{service}");
        assert!(world.pass(5, &mut |_| busy.clone()).is_empty(), "{service}: it said when");
        let second = world.pass(10, &mut |job| stub.answer(service, job));
        assert_eq!(second.len(), 1, "{service}");
        assert_eq!(stub.there.len(), 1, "{service}");
    }
}

#[test]
fn refusals_end_in_a_dead_letter_that_can_be_sent_again() {
    let refused: [(&str, Reply); 5] = [
        ("discord", reply(401, json!({"message": "Invalid Webhook Token", "code": 50027}))),
        ("slack-bot", reply(200, json!({"ok": false, "error": "channel_not_found"}))),
        ("pagerduty", reply(400, json!({"status": "invalid event", "errors": ["x"]}))),
        ("splunk", reply(403, json!({"text": "Invalid token", "code": 4}))),
        (
            "elasticsearch",
            reply(200, json!({"errors": true, "items": [{"create": {"status": 400}}]})),
        ),
    ];
    for (service, refused) in refused {
        let mut world = World::new(vec![shipped(service)]);
        let mut stub = Stub::default();
        world.set(1, true, json!({}));
        let sent = world.pass(20, &mut |_| refused.clone());
        assert_eq!(sent.len(), 1, "{service}: a refusal is not asked again");
        let dead = world.desk.outbox().dead().next().unwrap().letter.id;
        assert!(world.desk.resend(dead, world.now), "{service}");
        let again = world.pass(5, &mut |job| stub.answer(service, job));
        assert_eq!(again.iter().map(Job::id).collect::<Vec<_>>(), [dead], "{service}");
        assert_eq!(world.desk.outbox().dead().count(), 0);
    }
    // Busy by the body alone.
    let busy = reply(200, json!({"errors": true, "items": [{"create": {"status": 429}}]}));
    let mut world = World::new(vec![shipped("elasticsearch")]);
    world.set(1, true, json!({}));
    world.pass(3, &mut |_| busy.clone());
    assert_eq!(world.desk.outbox().dead().count(), 0);
}

#[test]
fn over_kills_and_outages_every_conversation_ends_right_and_nothing_is_told_twice() {
    for service in ["discord", "telegram", "slack-bot", "matrix", "pagerduty", "opsgenie"] {
        let channels = || vec![ChannelConfig { group_secs: 0, ..shipped(service) }];
        let mut world = World::new(channels());
        let mut stub = Stub::default();
        let mut turn = 0_u64;
        for number in 1..=12 {
            world.set(number, true, json!({}));
            for _ in 0..4 {
                turn += 1;
                // Of five tries one finds the service down and one finds it failing.
                let mut tries = turn;
                world.pass(5, &mut |job| {
                    tries += 1;
                    match tries % 5 {
                        0 => Outcome::Failed("connection refused".into()).into(),
                        1 => Outcome::Status(502).into(),
                        _ => stub.answer(service, job),
                    }
                });
                world.kill(channels());
            }
        }
        for number in 1..=12 {
            // One ends while weir does not run, and the core has forgotten it by then.
            match number {
                3 => drop(world.incidents.remove(&number)),
                _ => drop(world.incidents.insert(number, incident(number, false, json!({})))),
            }
        }
        world.kill(channels());
        world.pass(400, &mut |job| stub.answer(service, job));
        assert_eq!(world.desk.talks(service), 0, "{service}");
        assert_eq!(stub.there.len(), 12, "{service}: one message each");
        for told in stub.there.values() {
            let over = told["over"] == true || told.to_string().contains("Over: ");
            assert!(over, "{service}: {told}");
        }
        assert_eq!(world.desk.outbox().dead().count(), 0);
        assert!(world.desk.briefs.is_empty(), "what is told is forgotten");
    }
}

#[test]
fn channels_are_told_what_they_ask_for() {
    let route = |change: fn(&mut ChannelConfig)| {
        let mut config = shipped("ntfy");
        change(&mut config);
        let mut world = World::new(vec![config]);
        let mut stub = Stub::default();
        world.set(1, true, json!({}));
        let opened = world.pass(5, &mut |job| stub.answer("ntfy", job)).len();
        world.set(1, false, json!({}));
        (opened, world.pass(5, &mut |job| stub.answer("ntfy", job)).len())
    };
    assert_eq!(route(|_| {}), (1, 1));
    assert_eq!(route(|c| c.groups = vec!["acme".into()]), (1, 1));
    assert_eq!(route(|c| c.groups = vec!["other".into()]), (0, 0));
    assert_eq!(route(|c| c.severity = Severity::Critical), (0, 0));
    assert_eq!(route(|c| c.families = vec!["syn-flood".into()]), (0, 0));
    assert_eq!(route(|c| c.events = vec!["resolved".into()]), (0, 1));
    assert_eq!(route(|c| c.enabled = false), (0, 0));
}

#[test]
fn what_is_muted_is_told_when_the_mute_ends_and_the_attack_has_not() {
    let mut world = World::new(vec![shipped("ntfy")]);
    let mut stub = Stub::default();
    let mute = |group: Option<&str>, until| Mute {
        channel: Some("ntfy".into()),
        group: group.map(str::to_owned),
        until,
        by: "ops".into(),
    };
    let until = world.now + 60_000;
    assert!(world.desk.mute(mute(Some("acme"), until), world.now));
    assert!(!world.desk.mute(Mute { channel: Some("x".into()), ..mute(None, until) }, world.now));
    world.set(1, true, json!({}));
    assert!(world.pass(30, &mut |job| stub.answer("ntfy", job)).is_empty());
    world.kill(vec![shipped("ntfy")]);
    assert_eq!(world.desk.mutes().len(), 1, "it outlives a restart");
    world.pass(31, &mut |job| stub.answer("ntfy", job));
    world.look();
    assert_eq!(world.pass(5, &mut |job| stub.answer("ntfy", job)).len(), 1);
    let now = world.now;
    world.desk.mute(mute(None, now + 1000), now);
    world.desk.mute(mute(None, now), now);
    assert!(world.desk.mutes().is_empty(), "lifted");
}

#[test]
fn an_alert_that_goes_on_is_told_again_before_it_is_forgotten() {
    let mut world = World::new(vec![shipped("alertmanager")]);
    let mut stub = Stub::default();
    world.set(1, true, json!({}));
    let sent = world.pass(300, &mut |job| stub.answer("alertmanager", job));
    assert!((5..=6).contains(&sent.len()), "{}", sent.len());
    assert_eq!(stub.there.len(), 1, "the same labels each time");
}

#[test]
fn what_channels_lack_or_have_too_much_of_is_said() {
    let check = |change: fn(&mut ChannelConfig), expected: &str| {
        let mut channel = shipped("telegram");
        change(&mut channel);
        let config = Config { channels: vec![channel], ..Config::default() };
        let why = config.check().unwrap_err();
        assert!(why.contains(expected), "{why}");
    };
    check(|c| c.service = "pigeon".into(), "there is no \"pigeon\"");
    check(|c| c.name = "a b".into(), "name:");
    check(|c| c.events = vec!["x".into()], "events:");
    check(|c| c.families = vec!["x".into()], "families:");
    check(|c| drop(c.values.remove("chat_id")), "values.chat_id is missing");
    check(|c| drop(c.secrets.remove("token")), "secrets.token is missing");
    check(|c| drop(c.values.insert("token".into(), "1".into())), "is a credential");
    check(|c| drop(c.values.insert("colour".into(), "1".into())), "needs no such value");
    let dump =
        toml::to_string(&Config { channels: vec![shipped("telegram")], ..Config::default() });
    assert!(!dump.unwrap().contains("s3cret"));
}

#[test]
fn an_operators_folder_adds_services_and_replaces_them() {
    let folder = std::env::temp_dir().join(format!("weir-services-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let own = r#"
        title = "Pager"
        source = "ours"
        values.url = { about = "where", required = true }
        call.open = { url = "{{ value.url|safe }}/page", json = { text = "{{ title }}" } }
    "#;
    std::fs::write(folder.join("pager.toml"), own).unwrap();
    let channel = channel("pager", &[("url", "https://pager.example.net")], &[]);
    let config =
        |services| Config { services, channels: vec![channel.clone()], ..Config::default() };
    assert!(config(None).check().is_err());
    let there = config(Some(folder.clone()));
    assert_eq!(there.check(), Ok(()));
    assert_eq!(there.open().unwrap()[0].service.title, "Pager");
    for (wrong, why) in [
        ("title = \"x\"", "source"),
        (&own.replace("{{ title }}", "{{ titel }}"), "undefined"),
        (&own.replace("{{ title }}", "{{ title"), "syntax"),
        (&own.replace("call.open = {", "call.open = { like = \"x\","), "like"),
        (&own.replace("{{ value.url|safe }}/page", "{{ title }}"), "url"),
    ] {
        std::fs::write(folder.join("pager.toml"), wrong).unwrap();
        let found = there.open().unwrap_err();
        assert!(found.contains("pager.toml") && found.contains(why), "{why}: {found}");
    }
    let document = include_str!("../../../docs/notifications.md");
    let example = document.split("```toml\n").find(|block| block.starts_with("title = "));
    let example = example.unwrap().split("```").next().unwrap();
    std::fs::write(folder.join("pager.toml"), example).unwrap();
    assert!(crate::service::services(Some(&folder)).unwrap().contains_key("pager"));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = Millis::from_secs(784_111_777 - 90);
    let check = |text: &str, ms| assert_eq!(retry_after_ms(text, now), ms, "{text}");
    check("120", Some(120_000));
    check("0.25", Some(250));
    check("Sun, 06 Nov 1994 08:49:37 GMT", Some(90_000));
    check("Sun, 06 Nov 1993 08:49:37 GMT", Some(0));
    check("-1", None);
    check("soon", None);
    check("Sun, 99 Nov 1994 08:49:37 GMT", None);
    check("Sun, 06 Nov 1994 08:49 GMT", None);
    check("inf", None);
}

#[test]
fn whoever_wants_a_decision_is_told_of_it() {
    let hook = |name: &str, events: &[&str]| WebhookConfig {
        name: name.into(),
        url: "https://example.net/hook".into(),
        enabled: true,
        secret: None,
        secret_file: None,
        events: events.iter().map(|e| (*e).to_owned()).collect(),
        headers: weir_model::Hidden::default(),
    };
    let mut desk = Desk::default();
    desk.set_receivers(vec![hook("ops", &["announce"]), hook("all", &[])], Vec::new(), Millis(0));
    for action in ["open", "announce"] {
        let decision = Decision {
            at: Millis(5),
            incident: None,
            target: "203.0.113.7/32".parse().unwrap(),
            action: action.into(),
            detail: String::new(),
            reason: None,
        };
        desk.decision(&decision, None, None, Millis(5));
    }
    let told: Vec<String> = desk.due(Millis(5)).iter().map(|job| job.to().to_owned()).collect();
    assert_eq!(told, ["all", "all", "ops"]);
}

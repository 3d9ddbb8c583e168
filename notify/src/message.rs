//! What a conversation says, in the words that templates use.

use minijinja::Value;
use minijinja::value::Serde;
use serde::Serialize;
use weir_model::{IncidentId, Millis};

use crate::brief::{Brief, Severity, bits, clean, packets, span};
use crate::desk::is_condition;
use crate::service::Stage;

/// Incidents that a message names at most; of the rest it gives the number.
const NAMED_MAX: usize = 10;

/// What a message is made of.
#[derive(Debug)]
pub(crate) struct Told<'a> {
    /// What is told.
    pub(crate) stage: Stage,
    /// Identifies the conversation, on both sides.
    pub(crate) key: &'a str,
    /// Calls made in it before.
    pub(crate) sequence: u32,
    /// The appliance's name.
    pub(crate) node: &'a str,
    /// Where the dashboard is, without a slash at the end; empty when not known.
    pub(crate) dashboard: &'a str,
    /// Incidents, gravest first.
    pub(crate) incidents: Vec<(IncidentId, &'a Brief)>,
    /// Incidents beyond those.
    pub(crate) more: u64,
    /// When it is told.
    pub(crate) now: Millis,
    /// It is a test.
    pub(crate) test: bool,
}

#[derive(Serialize)]
struct Fact {
    name: &'static str,
    value: String,
}

#[derive(Serialize)]
struct Line<'a> {
    id: String,
    target: &'a str,
    name: &'a str,
    group: &'a str,
    who: String,
    what: &'a str,
    family: &'a str,
    peak: String,
    severity: &'static str,
    open: bool,
    opened: String,
    opened_ms: u64,
    closed: String,
    link: String,
    text: String,
}

impl Told<'_> {
    fn link(&self, id: Option<IncidentId>) -> String {
        match (self.dashboard, id) {
            ("", _) => String::new(),
            (base, Some(id)) if is_condition(id) => base.to_owned(),
            (base, Some(id)) => format!("{base}/#/incidents/{id}"),
            (base, None) => format!("{base}/#/incidents"),
        }
    }

    fn lines(&self) -> Vec<Line<'_>> {
        self.incidents.iter().take(NAMED_MAX).map(|(id, brief)| self.line(*id, brief)).collect()
    }

    fn line<'a>(&self, id: IncidentId, brief: &'a Brief) -> Line<'a> {
        let who = who(brief);
        let peak = if brief.condition { brief.summary.clone() } else { bits(brief.peak.1) };
        let state = if brief.closed.is_some() { "over" } else { "goes on" };
        let text = format!("{who}: {}, {peak}, {state}", brief.family_title);
        Line {
            id: id.to_string(),
            target: &brief.target,
            name: &brief.name,
            group: &brief.group,
            who,
            what: &brief.family_title,
            family: &brief.family,
            peak,
            severity: brief.severity.id(),
            open: brief.closed.is_none(),
            opened: brief.opened.to_string(),
            opened_ms: brief.opened.0,
            closed: brief.closed.map(|at| at.to_string()).unwrap_or_default(),
            link: self.link(Some(id)),
            text,
        }
    }

    /// The words that templates use.
    pub(crate) fn context(&self) -> Value {
        let none = Brief::default();
        let (first_id, first) =
            self.incidents.first().map_or((IncidentId(0), &none), |(id, brief)| (*id, *brief));
        let count = self.incidents.len() as u64 + self.more;
        let open = self.incidents.iter().filter(|(_, b)| b.closed.is_none()).count();
        let over = self.stage == Stage::Resolve;
        let severity = self.incidents.iter().map(|(_, b)| b.severity).max().unwrap_or_default();
        let title = if self.test { test_title(self.node) } else { self.title(first, count, over) };
        let link = self.link((count == 1).then_some(first_id));
        let facts = if self.test { Vec::new() } else { self.facts(first, count) };
        let lines = self.lines();
        let mut text = title.clone();
        for Fact { name, value } in &facts {
            text.push_str(&format!("\n{name}: {value}"));
        }
        if count > 1 {
            for line in &lines {
                text.push_str(&format!("\n- {}", line.text));
            }
            if count > lines.len() as u64 {
                text.push_str(&format!("\n- and {} more", count - lines.len() as u64));
            }
        }
        if !link.is_empty() {
            text.push_str(&format!("\n{link}"));
        }
        let ended = first.closed.unwrap_or(self.now);
        let state = if over { "resolved" } else { "open" };
        let event = if self.test { "test" } else { self.stage.event() };
        let color = if over { 0x2e_a0_43 } else { color(severity) };
        minijinja::context! {
            event, state, title, link, facts => Serde(&facts), text, count, severity => severity.id(),
            stage => self.stage.id(),
            key => self.key, sequence => self.sequence, node => self.node, test => self.test,
            open_count => open, color, color_hex => format!("#{color:06x}"),
            now => self.now.to_string(), now_ms => self.now.0, now_secs => self.now.secs(),
            incidents => Serde(&lines),
            more => count.saturating_sub(NAMED_MAX as u64),
            incident => minijinja::context! {
                id => first_id.to_string(),
                target => &first.target, name => &first.name, group => &first.group,
                who => who(first), outbound => first.outbound,
                family => &first.family, what => &first.family_title, vectors => &first.vectors,
                confidence => first.confidence,
                peak_pps => whole(first.peak.0), peak_bps => whole(first.peak.1),
                rate_pps => whole(first.rate.0), rate_bps => whole(first.rate.1),
                normal_pps => whole(first.normal.0), normal_bps => whole(first.normal.1),
                opened => first.opened.to_string(), opened_ms => first.opened.0,
                closed => first.closed.map(|at| at.to_string()), closed_ms => first.closed.map(|at| at.0),
                duration_secs => ended.since(first.opened) / 1000,
                duration => span(ended.since(first.opened)),
                done => &first.done, works => &first.works, asks => &first.asks,
                sources => &first.sources, summary => &first.summary,
            },
        }
    }

    fn title(&self, first: &Brief, count: u64, over: bool) -> String {
        if count > 1 {
            let open = self.incidents.iter().filter(|(_, b)| b.closed.is_none()).count();
            if first.condition {
                return match over {
                    true => format!("Over: {count} conditions"),
                    false => format!("{count} conditions, {open} of them now"),
                };
            }
            return match over {
                true => format!("Over: attacks on {count} targets"),
                false => format!("{count} targets under attack, {open} of them now"),
            };
        }
        let title = match (first.condition, first.outbound) {
            (true, _) => format!("{}: {}", first.family_title, who(first)),
            (_, true) => format!("{} from {}", first.family_title, who(first)),
            (_, false) => format!("{} on {}", first.family_title, who(first)),
        };
        clean(&if over { format!("Over: {title}") } else { title }, 200)
    }

    fn facts(&self, first: &Brief, count: u64) -> Vec<Fact> {
        let mut facts = Vec::new();
        let mut fact = |name, value: String| {
            if !value.is_empty() {
                facts.push(Fact { name, value });
            }
        };
        if count == 1 {
            fact("Who", who(first));
            fact(
                "What",
                match first.vectors.as_str() {
                    "" => first.family_title.clone(),
                    vectors => format!("{}: {vectors}", first.family_title),
                },
            );
        }
        let worst = if count == 1 { "How much" } else { "Largest" };
        fact(worst, if first.condition { first.summary.clone() } else { how_much(first) });
        let ended = first.closed.unwrap_or(self.now);
        let since = format!("{} ({})", first.opened, span(ended.since(first.opened)));
        fact("Since", since);
        fact("Done", first.done.clone());
        fact("Works", first.works.clone());
        fact("Asks", first.asks.clone());
        if !first.condition {
            fact("Sure", format!("{} %", first.confidence));
        }
        fact("Appliance", self.node.to_owned());
        facts
    }
}

fn test_title(node: &str) -> String {
    format!("Test message from weir on {node}")
}

fn who(brief: &Brief) -> String {
    let mut who = brief.target.clone();
    let more: Vec<&str> =
        [brief.name.as_str(), brief.group.as_str()].into_iter().filter(|t| !t.is_empty()).collect();
    if !more.is_empty() {
        who.push_str(&format!(" ({})", more.join(", ")));
    }
    who
}

fn how_much(brief: &Brief) -> String {
    let mut text = format!("{}, {} at most", bits(brief.peak.1), packets(brief.peak.0));
    if brief.normal.1 >= 1.0 {
        let times = brief.peak.1 / brief.normal.1;
        text.push_str(&format!("; normal {}", bits(brief.normal.1)));
        if times >= 2.0 {
            text.push_str(&format!(" ({times:.0} times)"));
        }
    }
    text
}

/// A float as JSON's whole numbers.
fn whole(value: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    if value.is_finite() { value.max(0.0).round() as u64 } else { 0 }
}

const fn color(severity: Severity) -> u32 {
    match severity {
        Severity::Critical => 0x8b_00_00,
        Severity::Error => 0xd7_3a_49,
        Severity::Warning => 0xe3_b3_41,
        Severity::Info => 0x57_60_6a,
    }
}

/// A made-up incident, to try out templates.
pub(crate) fn sample(stage: Stage) -> Value {
    let brief = Brief {
        target: "203.0.113.7".into(),
        group: "acme".into(),
        name: "play \"one\"".into(),
        family: "udp-flood".into(),
        family_title: "UDP flood".into(),
        vectors: "dns-amplification 80 %".into(),
        confidence: 97,
        severity: Severity::Warning,
        peak: (620_000.0, 4.2e9),
        rate: (20_000.0, 9e7),
        normal: (9_000.0, 8e7),
        opened: Millis::from_secs(1_795_168_965),
        closed: (stage == Stage::Resolve).then(|| Millis::from_secs(1_795_169_965)),
        done: "dropped by 2 rules".into(),
        works: "traffic is at 2 % of its peak".into(),
        sources: vec!["198.51.100.1".into()],
        summary: "UDP flood".into(),
        ..Brief::default()
    };
    let told = Told {
        stage,
        key: "weir/sample",
        sequence: 1,
        node: "weir",
        dashboard: "https://weir.example.net",
        incidents: vec![(IncidentId(1_795_168_965_000), &brief)],
        more: 0,
        now: Millis::from_secs(1_795_169_000),
        test: false,
    };
    told.context()
}

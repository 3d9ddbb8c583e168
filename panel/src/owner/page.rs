//! Pages for owners: plain HTML without scripts. Everything that comes from elsewhere is escaped.

use std::fmt::Write as _;

use weir_model::Millis;

use super::view::{OwnerView, Protection};
use crate::snapshot::ServerView;

/// The style sheet.
pub(super) const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}
h1{font-size:1.4rem}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem .6rem;border-bottom:1px solid #d8dee6}
.state{padding:.6rem .9rem;border-radius:.4rem;background:#e7f4ea}.attack{background:#fdeaea}.warn{background:#fff4dc}
input,button{font:inherit;padding:.4rem .6rem}small{color:#5a6675}
@media(prefers-color-scheme:dark){body{color:#e4e9ef;background:#12171d}th,td{border-color:#2c3640}.state{background:#173522}.attack{background:#431d1d}.warn{background:#3f3213}small{color:#9aa7b5}}";

/// A whole page.
pub(super) fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{0}</title><link rel=\"stylesheet\" href=\"/style.css\">\
         <h1>{0}</h1>{body}</html>",
        escape(title)
    )
}

/// Where to ask for a link.
pub(super) fn ask() -> String {
    page(
        "Server protection",
        "<p>Enter the e-mail address of your panel account. If it is known, a link is sent to it.</p>\
         <form method=\"post\" action=\"/login\"><label>E-mail <input type=\"email\" name=\"email\" \
         required maxlength=\"191\" autocomplete=\"email\"></label> <button>Send link</button></form>",
    )
}

/// The answer to everybody who asked.
pub(super) fn asked() -> String {
    page(
        "Look into your mail",
        "<p>If the address is known, a link is on its way. It works once, for fifteen minutes.</p>",
    )
}

/// A button between link and session: programs that look into mails follow links, and would use
/// them up.
pub(super) fn confirm(token: &str) -> String {
    page(
        "Server protection",
        &format!(
            "<form method=\"post\" action=\"/login/{}\"><button>Show my servers</button></form>",
            escape(token)
        ),
    )
}

/// A link that is used up, or never was one.
pub(super) fn stale() -> String {
    page("This link is used up", "<p><a href=\"/\">Ask for a new one</a></p>")
}

/// Servers to choose from.
pub(super) fn servers<'a>(list: impl Iterator<Item = &'a ServerView>) -> String {
    let mut body = String::from("<table><tr><th>Server<th>Game</tr>");
    for server in list {
        // Writing to a String cannot fail.
        let _ = write!(
            body,
            "<tr><td><a href=\"/servers/{}\">{}</a><td>{}</tr>",
            escape(&server.uuid),
            escape(&server.name),
            escape(&server.game)
        );
    }
    body.push_str(
        "</table><form method=\"post\" action=\"/logout\"><p><button>Log out</button></p></form>",
    );
    page("Your servers", &body)
}

/// One server.
pub(super) fn server(view: &OwnerView) -> String {
    let class = match view.protection {
        Protection::Protected => "state",
        Protection::UnderAttack => "state attack",
        Protection::NeighbourUnderAttack | Protection::NotProtected => "state warn",
    };
    let mut body = format!(
        "<p class=\"{class}\">{}</p><p>{} on node {} <small>as of {}</small></p>",
        escape(&view.sentence),
        escape(&view.game),
        escape(&view.node),
        minute(view.as_of)
    );
    if view.incidents.is_empty() {
        body.push_str("<p>No attack is on record.</p>");
    } else {
        body.push_str("<table><tr><th>From (UTC)<th>To<th>What<th>Peak<th>Done</tr>");
        for i in &view.incidents {
            let ports: Vec<String> = i.ports.iter().map(ToString::to_string).collect();
            let at = if ports.is_empty() {
                String::new()
            } else {
                format!(" at port {}", ports.join(", "))
            };
            // Writing to a String cannot fail.
            let _ = write!(
                body,
                "<tr><td>{}<td>{}<td>{}{} <small>({})</small><td>{} Mbit/s<td>{}</tr>",
                minute(i.from),
                i.to.map_or_else(|| "goes on".to_owned(), minute),
                escape(&i.what),
                at,
                i.id,
                i.peak_mbit_per_sec,
                escape(&i.done)
            );
        }
        body.push_str("</table>");
    }
    page(&view.name, &body)
}

/// `2026-11-20 10:02`.
fn minute(at: Millis) -> String {
    at.to_string().get(..16).unwrap_or_default().replace('T', " ")
}

/// Text that may stand in an element or a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

//! Incidents as CSV (RFC 4180), safe to open in a spreadsheet.

use weir_model::Incident;

/// First line.
pub(crate) const HEAD: &str = "id,state,target,family,opened,closed,peak_packets_per_sec,\
     peak_bits_per_sec,confidence,rung,held,mitigations,summary\r\n";

/// One line an incident.
pub(crate) fn line(incident: &Incident) -> String {
    let verdict = &incident.verdict;
    let state = match incident.state {
        weir_model::IncidentState::Open => "open",
        weir_model::IncidentState::Closed => "closed",
    };
    let fields = [
        incident.id.to_string(),
        state.to_owned(),
        verdict.target.to_string(),
        verdict.family.id().to_owned(),
        incident.opened.to_string(),
        incident.closed.map_or_else(String::new, |at| at.to_string()),
        format!("{:.0}", verdict.peak.packets_per_sec),
        format!("{:.0}", verdict.peak.bits_per_sec),
        verdict.confidence.to_string(),
        // Of what was seen to be in force: a closed incident has nothing that stands any more.
        incident.reached.map_or_else(String::new, |rung| rung.id().to_owned()),
        incident.held.to_string(),
        incident.mitigations.len().to_string(),
        incident.told(),
    ];
    fields.map(|field| escape(&field)).join(",") + "\r\n"
}

/// Quotes what needs it; what a spreadsheet would take for a formula begins with an apostrophe.
fn escape(field: &str) -> String {
    let formula = field.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let field = if formula { format!("'{field}") } else { field.to_owned() };
    if field.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_formulas_disarmed() {
        assert_eq!(escape("a"), "a");
        assert_eq!(escape("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(escape("=HYPERLINK(\"x\")"), "\"'=HYPERLINK(\"\"x\"\")\"");
        assert_eq!(escape("line\nbreak"), "\"line\nbreak\"");
    }
}

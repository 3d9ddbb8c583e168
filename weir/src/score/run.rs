//! `weir score`: plays cases, scores weir and the others beside it, and says so.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;
use weir_config::Config;
use weir_traffic::score::{CaseScore, Kept, Summary, summarise};

use super::{Case, heading, rows, totals};

/// How to score.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// File of events in each case's directory to score in weir's place.
    pub events: Option<PathBuf>,
    /// File in each case's directory for what weir said and did.
    pub write_events: Option<PathBuf>,
    /// One JSON object a case, and a last one for the total.
    pub json: bool,
}

/// Scores every case in `dir`. What was wrong with cases that could not be scored comes back, a
/// line each.
///
/// # Errors
/// When there is no case, or `out` takes no more.
pub fn run(
    dir: &Path,
    config: &Config,
    options: &Options,
    out: &mut impl Write,
) -> anyhow::Result<Vec<String>> {
    let (mut scores, mut failed) = (Vec::new(), Vec::new());
    let mut beside: BTreeMap<String, Vec<CaseScore>> = BTreeMap::new();
    if !options.json {
        writeln!(out, "{}", heading())?;
    }
    for dir in Case::find(dir)? {
        // The other cases may be sound.
        let (score, others) = match one(&dir, config, options) {
            Ok(scored) => scored,
            Err(error) => {
                let error = format!("{error:#}");
                if options.json {
                    writeln!(out, "{}", json!({ "case": dir, "error": error }))?;
                }
                failed.push(error);
                continue;
            }
        };
        if options.json {
            let mut object = serde_json::to_value(&score)?;
            object["others"] = serde_json::to_value(&others)?;
            writeln!(out, "{object}")?;
        } else {
            writeln!(out, "{}", rows(&score))?;
            for (name, score) in &others {
                let named = CaseScore { case: format!("  {name}"), ..score.clone() };
                writeln!(out, "{}", rows(&named))?;
            }
        }
        scores.push(score);
        for (name, score) in others {
            beside.entry(name).or_default().push(score);
        }
    }
    let total = summarise(&scores);
    let beside: BTreeMap<String, Summary> =
        beside.into_iter().map(|(name, scores)| (name, summarise(&scores))).collect();
    if options.json {
        writeln!(out, "{}", json!({ "total": total, "others": beside }))?;
    } else {
        let own = options.events.as_ref().map_or_else(|| "weir".into(), |f| f.to_string_lossy());
        writeln!(out, "{}\n\n{}", totals(&total), comparison(&own, &total, &beside))?;
    }
    Ok(failed)
}

/// Scores one case: weir, or whoever is asked for in its place, and those that left events in it.
fn one(
    dir: &Path,
    config: &Config,
    options: &Options,
) -> anyhow::Result<(CaseScore, BTreeMap<String, CaseScore>)> {
    let case = Case::read(dir)?;
    let events = match &options.events {
        Some(name) => Case::events(&dir.join(name))?,
        None => case.play(config)?,
    };
    if let Some(name) = &options.write_events {
        let mut text = String::new();
        for event in &events {
            text += &serde_json::to_string(event)?;
            text.push('\n');
        }
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("{}", path.display()))?;
    }
    let own = options.events.as_deref().or(options.write_events.as_deref());
    let others = case
        .others()?
        .into_iter()
        // Nobody is beside himself.
        .filter(|other| own != Some(Path::new(&format!("events.{}.jsonl", other.name))))
        .map(|other| (other.name, case.score(&other.events)))
        .collect();
    Ok((case.score(&events), others))
}

/// All defenders under each other: nobody, whoever always null-routes, whoever drops exactly the
/// attack, `own` and the others. Times are seconds, goodput is the mean over attack and benign cases.
pub fn comparison(own: &str, total: &Summary, others: &BTreeMap<String, Summary>) -> String {
    let width = others.keys().map(String::len).chain([own.len(), 19]).max().unwrap_or(0);
    let mut out = format!(
        "{:width$} {:>5} {:>6} {:>9} {:>6} {:>7} {:>7} {:>6} {:>6} {:>6} {:>5} {:>5} {:>8} {:>8} {:>8} {:>6}\n",
        "defender",
        "cases",
        "recall",
        "precision",
        "family",
        "detect",
        "95 %",
        "cover",
        "collat",
        "worst",
        "flaps",
        "f.ann",
        "f.ann/Mhd",
        "attacked",
        "benign",
        "points",
    );
    let mut bare = |name: &str, kept: &Kept| {
        let _ = writeln!(
            out,
            "{name:width$} {:>5} {:>6} {:>9} {:>6} {:>7} {:>7} {:>6} {:>6} {:>6} {:>5} {:>5} {:>9} {:8.4} {:8.4} {:6.1}",
            total.cases,
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            kept.attacked,
            kept.benign,
            kept.points,
        );
    };
    bare("no defence", &total.goodput.none);
    bare("always null-routing", &total.goodput.rtbh);
    bare("oracle", &total.goodput.oracle);
    for (name, s) in
        std::iter::once((own, total)).chain(others.iter().map(|(n, s)| (n.as_str(), s)))
    {
        let _ = writeln!(
            out,
            "{name:width$} {:>5} {:6.2} {:9.2} {:5.0}% {:7.2} {:7.2} {:5.1}% {:5.2}% {:5.1}% {:>5} {:>5} {:9.0} \
             {:8.4} {:8.4} {:6.1}",
            s.cases,
            s.recall,
            s.precision,
            s.wrong_family * 100.0,
            s.delay_flow_ms.median / 1000.0,
            s.delay_flow_ms.p95 / 1000.0,
            s.coverage.median * 100.0,
            s.collateral.median * 100.0,
            s.collateral.worst * 100.0,
            s.flaps_max,
            s.false_announcements,
            s.false_announcements_per_million_host_days,
            s.goodput.tool.attacked,
            s.goodput.tool.benign,
            s.points,
        );
    }
    out.truncate(out.trim_end().len());
    out
}

//! One term for one thing: words and phrases that were retired do not come back in what people read.
//! The terms are in `docs/glossary.md`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

use weir_tests::text::{files, prose, root};
use weir_tests::weir_binary;

/// What is not said any more, in lower case, and what is said instead.
const RETIRED: &[(&str, &str)] = &[
    ("rung", "step"),
    ("rungs", "steps"),
    ("lapse", "expire"),
    ("lapses", "expires"),
    ("on the wire", "announced to"),
    ("wanted by", "origin"),
    ("who is told", "notifications"),
    ("telling others", "notifications"),
    ("asks first", "approval required"),
    ("ask first", "approval required"),
    ("acts by itself", "automatic"),
    ("how far weir acts", "mitigation mode"),
    ("whatever belongs together", "a group labels incidents with a customer"),
    ("why weir says so", "why this was detected"),
    ("nobody says", "not reported"),
    ("does not say its sampling", "reports no sampling rate"),
    ("what exactly", "subcommand"),
    ("at most so many", "maximum number of"),
    ("one in how many", "sampling rate 1:n"),
    ("file decide", "the configuration file applies"),
    ("file decides", "the configuration file applies"),
    ("when absent", "default"),
    ("the same again", "repeat password"),
    ("second factor away", "reset two-factor"),
    ("do not let sign in", "disable account"),
    ("let sign in again", "enable account"),
    ("towards you", "inbound"),
    ("not awaited", "disabled"),
    ("measures in force", "active mitigations"),
    ("measures by hand", "mitigations added by hand"),
    ("put in force by hand", "add a mitigation"),
    ("lifts the brake", "releases the brake"),
    ("no weir answers", "cannot reach weir"),
    ("undone again", "redo"),
    ("waits for your approval", "pending approval"),
    ("wait for approval", "pending approval"),
    ("how to reach weir", "the command's own sentence"),
];

/// `place: line: word` for each retired word of these lines.
fn found(place: &str, lines: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let line = line.to_lowercase();
        for (retired, better) in RETIRED {
            let alone = |at: usize| {
                let letter = |c: char| c.is_alphanumeric() || c == '_';
                !line[..at].ends_with(letter) && !line[at + retired.len()..].starts_with(letter)
            };
            if line.match_indices(retired).any(|(at, _)| alone(at)) {
                wrong.push(format!("{place}:{}: {retired:?}; say {better:?}", number + 1));
            }
        }
    }
    wrong
}

#[test]
fn pages_and_comments_of_configurations_use_the_terms_of_the_glossary() {
    let root = root();
    let mut pages = files(&root.join("docs"), &[".md", ".toml"]);
    // Its rows are documentation of the code, with the code's own words.
    pages.retain(|page| !page.ends_with("reference/configuration.md"));
    pages.extend(files(&root.join("packaging"), &[".toml", ".sysctl"]));
    pages.push(root.join("README.md"));
    let mut wrong = Vec::new();
    for page in &pages {
        let text = std::fs::read_to_string(page).unwrap();
        let lines = match page.extension().is_some_and(|ending| ending == "md") {
            true => prose(&text),
            false => text.lines().map(str::to_owned).collect(),
        };
        wrong.extend(found(&page.strip_prefix(&root).unwrap().display().to_string(), &lines));
    }
    assert!(pages.len() > 20, "{pages:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_help_of_every_command_uses_the_terms_of_the_glossary() {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new(weir_binary()).arg("manual").arg(folder.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let pages = files(folder.path(), &[".1"]);
    assert!(pages.len() > 60, "{} pages", pages.len());
    let mut wrong = Vec::new();
    for page in &pages {
        let text = std::fs::read_to_string(page).unwrap();
        let lines: Vec<String> = text.lines().map(|line| line.replace('\\', "")).collect();
        wrong.extend(found(&page.file_name().unwrap().to_string_lossy(), &lines));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_dashboard_uses_the_terms_of_the_glossary() {
    let root = root();
    let mut wrong = Vec::new();
    for page in files(&root.join("api/ui/src"), &[".svelte", ".ts"]) {
        let text = std::fs::read_to_string(&page).unwrap();
        let said = |line: &str| {
            let code = line.trim_start();
            let comment = code.starts_with("//") || code.starts_with('*') || code.starts_with("/*");
            if comment { String::new() } else { line.to_owned() }
        };
        let lines: Vec<String> = text.lines().map(said).collect();
        wrong.extend(found(&page.strip_prefix(&root).unwrap().display().to_string(), &lines));
    }
    // The API's name of a step is a name of variables and fields, too.
    wrong.retain(|found| !found.contains(": \"rung"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_retired_word_is_found_and_part_of_another_is_not() {
    let lines = |text: &str| prose(text);
    assert_eq!(found("x", &lines("one\nthe Rung above")), ["x:2: \"rung\"; say \"step\""]);
    assert_eq!(found("x", &lines("a wrung-out `rung`\n\n    rung = 1\n")), [""; 0]);
}

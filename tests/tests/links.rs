//! Links between pages lead somewhere, and every page is in the table of contents.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::Path;

use weir_tests::text::{files, prose, root};

/// Targets of `[text](target)` and `![text](target)`.
fn links(lines: &[String]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        for (at, _) in line.match_indices("](") {
            let target = line[at + 2..].split([')', ' ']).next().unwrap_or_default();
            found.push((number + 1, target.to_owned()));
        }
    }
    found
}

/// The anchor of a heading, as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

fn anchors(page: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let mut fenced = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        let heading = line.trim_start_matches('#');
        if !fenced && heading.len() < line.len() && heading.starts_with(' ') {
            found.insert(anchor(heading));
        }
    }
    found
}

#[test]
fn every_link_leads_somewhere() {
    let root = root();
    let mut pages = files(&root.join("docs"), &[".md"]);
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"] {
        pages.push(root.join(name));
    }
    let (mut wrong, mut looked_at) = (Vec::new(), 0);
    for page in &pages {
        let shown = page.strip_prefix(&root).unwrap().display();
        for (line, target) in links(&prose(&std::fs::read_to_string(page).unwrap())) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            looked_at += 1;
            let (file, part) = target.split_once('#').unwrap_or((&target, ""));
            let to = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            if !to.exists() {
                wrong.push(format!("{shown}:{line}: {target}: there is no such file"));
            } else if !part.is_empty() && !anchors(&to).contains(part) {
                wrong.push(format!("{shown}:{line}: {target}: there is no such heading"));
            }
        }
    }
    assert!(looked_at > 100, "{looked_at} links in {} pages", pages.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What SECURITY.md says of an attacker is held by a test that is there.
#[test]
fn every_test_that_the_threat_model_names_exists() {
    let root = root();
    let text = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let mut named = 0;
    for row in text.lines().filter(|line| line.starts_with("| **")) {
        let held = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap();
        for test in held.split("; ") {
            let (file, name) = test.rsplit_once(' ').unwrap();
            let file = file.trim().trim_matches('`');
            let source = std::fs::read_to_string(root.join(file)).unwrap_or_default();
            assert!(source.contains(&format!("fn {name}(")), "{file} has no test {name}");
            named += 1;
        }
    }
    assert!(named > 20, "{named}");
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let docs = root().join("docs");
    let summary = std::fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let listed: BTreeSet<String> =
        links(&prose(&summary)).into_iter().map(|(_, target)| target).collect();
    let pages = files(&docs, &[".md"]).into_iter();
    let pages: BTreeSet<String> = pages
        .map(|page| page.strip_prefix(&docs).unwrap().display().to_string())
        .filter(|page| page != "SUMMARY.md")
        .collect();
    assert_eq!(listed, pages);
}

#[test]
fn anchors_are_made_as_pages_have_them() {
    assert_eq!(anchor("`[[bgp.peer]]`"), "bgppeer");
    assert_eq!(
        anchor("Exporters behind one address, clocks, templates"),
        "exporters-behind-one-address-clocks-templates"
    );
    assert_eq!(links(&prose("see [a](b.md#c) and `[x](y)`")), [(1, "b.md#c".to_owned())]);
}

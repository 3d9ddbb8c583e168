//! The configuration reference is what the code says, and lacks nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use weir_tests::reference::{example, keys, reference};

#[test]
fn the_reference_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let path = root.join("docs/reference/configuration.md");
    let made = reference(root);
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &made).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        known == made,
        "docs/reference/configuration.md is out of date: WEIR_BLESS=1 rewrites it"
    );
}

#[test]
fn every_key_of_a_dump_stands_in_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let made = reference(root);
    let all = [keys(&weir_config::Config::default()), keys(&example())].concat();
    assert!(all.len() > 200, "{}", all.len());
    for key in all {
        if made.contains(&format!("\n## `{key}`\n")) {
            // A list of tables, empty by default: a section of its own.
            continue;
        }
        let (section, name) = key.rsplit_once('.').unwrap_or(("", &key));
        let heading = format!("\n## `{section}`\n");
        let (_, part) = made.split_once(&heading).unwrap_or_else(|| panic!("{key}: no section"));
        let part = part.split("\n## ").next().unwrap();
        let row = part.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("{key} is not there"));
        let words = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap().trim();
        assert!(words.len() > 3, "{key} is not explained: {row}");
    }
}

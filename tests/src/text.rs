//! What people read in this repository: pages, and their text without code.

use std::path::{Path, PathBuf};

/// The repository's folder.
///
/// # Panics
/// When this crate stands alone.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

/// Files below a folder with one of these endings, without what is made or fetched.
///
/// # Panics
/// When a folder cannot be read.
pub fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let made = name.starts_with('.') || ["target", "node_modules", "dist"].contains(&&*name);
        if path.is_dir() && !made {
            found.extend(files(&path, endings));
        } else if path.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The lines of a Markdown text; code is blanked, so that numbers of lines and columns stay.
pub fn prose(markdown: &str) -> Vec<String> {
    let (mut fenced, mut span) = (false, false);
    let mut lines = Vec::new();
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            lines.push(String::new());
            continue;
        }
        let indented = line.starts_with("    ") && !line.trim_start().starts_with(['-', '*']);
        if fenced || indented {
            lines.push(String::new());
            continue;
        }
        // A code span may go over the end of a line, never over an empty one.
        span &= !line.trim().is_empty();
        let blank = |c: char| {
            if c == '`' {
                span = !span;
            }
            if span || c == '`' { ' ' } else { c }
        };
        lines.push(line.chars().map(blank).collect());
    }
    lines
}

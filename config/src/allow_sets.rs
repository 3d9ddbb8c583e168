//! Lists that others publish of their own addresses, by name: data, so that one more needs no code.

use serde::Deserialize;

const BUILT_IN: &str = include_str!("../../profiles/allow.toml");

/// A published list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowSet {
    /// Its name.
    pub name: String,
    /// Where it is read, all of them together.
    pub urls: Vec<String>,
    /// The page that says so.
    pub source: String,
    /// When that page was read, `YYYY-MM-DD`.
    pub read: String,
    /// What it is, in words.
    pub note: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    set: Vec<AllowSet>,
}

/// All that are built in, by name.
pub fn allow_sets() -> Vec<AllowSet> {
    // A test reads the file as it is.
    toml::from_str::<File>(BUILT_IN).map(|file| file.set).unwrap_or_default()
}

/// Where a list is read; none when there is no such list.
pub(crate) fn urls_of(name: &str) -> Option<Vec<String>> {
    allow_sets().into_iter().find(|set| set.name == name).map(|set| set.urls)
}

/// Names of all, for people.
pub(crate) fn names() -> String {
    let names: Vec<String> = allow_sets().into_iter().map(|set| set.name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_has_a_source_that_was_read() {
        let sets = toml::from_str::<File>(BUILT_IN).unwrap().set;
        assert!(sets.len() >= 5);
        assert!(sets.is_sorted_by(|a, b| a.name < b.name), "each once, by name");
        for set in &sets {
            let https = |url: &str| url.starts_with("https://");
            assert!(!set.urls.is_empty() && set.urls.iter().all(|url| https(url)), "{set:?}");
            assert!(https(&set.source) && set.read.len() == 10 && !set.note.is_empty(), "{set:?}");
        }
    }
}

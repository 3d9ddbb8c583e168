//! Captures from elsewhere, which the repository does not hold.

use std::path::PathBuf;

use crate::skip;

/// The corpus folder: `$WEIR_CORPUS`, else `../shared/corpus` beside the checkout.
pub fn folder() -> Option<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    let path = std::env::var_os("WEIR_CORPUS").map_or(here, PathBuf::from);
    path.is_dir().then_some(path)
}

/// A file of the corpus; reports a skip in the name of `test` when it is not there.
pub fn file(test: &str, name: &str) -> Option<PathBuf> {
    let path = folder().map(|folder| folder.join(name)).filter(|path| path.exists());
    if path.is_none() {
        skip(test, &format!("the corpus has no {name} (set WEIR_CORPUS)"));
    }
    path
}

//! The text files of the working tree: what git tracks, and what it would track if asked.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::Finding;
use crate::process;

/// Applies `rule` to the path and the text of each file.
pub(super) fn check(root: &Path, rule: fn(&str, &str) -> Vec<Finding>) -> Vec<Finding> {
    let mut git = Command::new("git");
    git.current_dir(root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let listed = match process::capture(&mut git) {
        Ok(listed) => listed,
        Err(failure) => return vec![Finding::error(failure.to_string())],
    };
    let listed = String::from_utf8_lossy(&listed);
    let mut paths: Vec<_> = listed.split('\0').filter(|path| !path.is_empty()).collect();
    paths.sort_unstable();
    // A file in conflict is listed once for each side.
    paths.dedup();
    paths
        .into_iter()
        .filter_map(|path| Some((path, text(&root.join(path))?)))
        .flat_map(|(path, text)| rule(path, &text))
        .collect()
}

/// None for what is deleted but still in git's index, for links, and for what is not text.
fn text(file: &Path) -> Option<String> {
    if !fs::symlink_metadata(file).ok()?.is_file() {
        return None;
    }
    String::from_utf8(fs::read(file).ok()?)
        .ok()
        .filter(|text| !text.contains('\0'))
}

//! `cargo xtask codegen`: files that our programs generate and that live in git.
//!
//! `GENERATED` is the whole list. A new kind of generated file is one more line there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, Failure};
use crate::say;
use crate::workspace::{Profile, WAANGU, Workspace};

/// One thing that a program of ours can write.
#[derive(Debug)]
struct Generated {
    /// The program.
    program: &'static str,
    /// Its arguments.
    args: &'static [&'static str],
    /// Where its output lives, from the workspace's root.
    output: Output,
}

#[derive(Debug)]
enum Output {
    /// What it prints is this file.
    File(&'static str),
    /// It is given `--out DIR`; its files with this extension are those of this folder, no more
    /// and no fewer.
    Folder {
        path: &'static str,
        extension: &'static str,
    },
}

const GENERATED: &[Generated] = &[
    Generated {
        program: WAANGU,
        args: &["openapi"],
        output: Output::File("docs/openapi.json"),
    },
    Generated {
        program: WAANGU,
        args: &["docs", "errors"],
        output: Output::Folder {
            path: "docs/errors",
            extension: "md",
        },
    },
    Generated {
        program: WAANGU,
        args: &["docs", "cli"],
        output: Output::File("docs/cli.md"),
    },
    Generated {
        program: WAANGU,
        args: &["docs", "fleet"],
        output: Output::File("docs/fleet.schema.json"),
    },
    Generated {
        program: "waangu-inventory",
        args: &["docs"],
        output: Output::Folder {
            path: "docs/errors/inventory",
            extension: "md",
        },
    },
];

/// Content by path from the workspace's root.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Brings the working tree in line with the binary.
pub(crate) fn write(workspace: &Workspace) -> Result<(), Failure> {
    let (expected, actual) = collect(workspace)?;
    for (path, change) in changes(&expected, &actual) {
        let file = workspace.root.join(path);
        match expected.get(path) {
            Some(content) => put(&file, content)?,
            None => fs::remove_file(&file).map_err(|err| at(&file, &err))?,
        }
        say::result(&format!("{change:8} {}", path.display()));
    }
    Ok(())
}

/// Names the files that `write` would change.
pub(crate) fn check(workspace: &Workspace) -> Result<(), Failure> {
    let (expected, actual) = collect(workspace)?;
    let changes = changes(&expected, &actual);
    for (path, change) in &changes {
        say::result(&format!("{change:8} {}", path.display()));
    }
    if changes.is_empty() {
        say::result(&format!(
            "ok       {} generated files are up to date",
            expected.len()
        ));
        return Ok(());
    }
    Err(Failure::new(
        "generated files differ from what `waangu` writes: run `cargo xtask codegen`",
    ))
}

/// What the binary writes, and what the working tree has in the same places.
fn collect(workspace: &Workspace) -> Result<(Files, Files), Failure> {
    workspace.build(Profile::Dev, &[])?;
    let (mut expected, mut actual) = (Files::new(), Files::new());
    for generated in GENERATED {
        let mut command = Command::new(workspace.binary(Profile::Dev, generated.program));
        command.args(generated.args).current_dir(&workspace.root);
        match &generated.output {
            Output::File(path) => {
                expected.insert(path.into(), process::capture(&mut command)?);
                match fs::read(workspace.root.join(path)) {
                    Ok(content) => drop(actual.insert(path.into(), content)),
                    Err(err) if err.kind() == ErrorKind::NotFound => {}
                    Err(err) => return Err(at(Path::new(path), &err)),
                }
            }
            Output::Folder { path, extension } => {
                let scratch = workspace.target.join("codegen").join(path);
                empty(&scratch)?;
                process::capture(command.arg("--out").arg(&scratch))?;
                expected.extend(read_folder(&scratch, Path::new(path), extension)?);
                let home = workspace.root.join(path);
                actual.extend(read_folder(&home, Path::new(path), extension)?);
            }
        }
    }
    Ok((expected, actual))
}

/// The paths whose content differs, with what would happen to each.
fn changes<'a>(expected: &'a Files, actual: &'a Files) -> Vec<(&'a Path, &'static str)> {
    let paths: BTreeSet<_> = expected.keys().chain(actual.keys()).collect();
    let change = |path: &PathBuf| match (expected.get(path), actual.get(path)) {
        (Some(new), Some(old)) if new == old => None,
        (Some(_), Some(_)) => Some("changed"),
        (Some(_), None) => Some("missing"),
        (None, _) => Some("stale"),
    };
    paths
        .into_iter()
        .filter_map(|path| Some((path.as_path(), change(path)?)))
        .collect()
}

/// The files of `folder` with `extension`, named as if they lay in `home`. No folder, no files.
fn read_folder(folder: &Path, home: &Path, extension: &str) -> Result<Files, Failure> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Files::new()),
        Err(err) => return Err(at(folder, &err)),
    };
    let mut files = Files::new();
    for entry in entries {
        let path = entry.map_err(|err| at(folder, &err))?.path();
        if let Some(name) = path.file_name()
            && path.extension().is_some_and(|found| found == extension)
        {
            let content = fs::read(&path).map_err(|err| at(&path, &err))?;
            files.insert(home.join(name), content);
        }
    }
    Ok(files)
}

fn put(file: &Path, content: &[u8]) -> Result<(), Failure> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(|err| at(folder, &err))?;
    }
    fs::write(file, content).map_err(|err| at(file, &err))
}

fn empty(folder: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(folder) {
        Ok(()) => {}
        Err(err) if err.kind() == ErrorKind::NotFound => {}
        Err(err) => return Err(at(folder, &err)),
    }
    fs::create_dir_all(folder).map_err(|err| at(folder, &err))
}

fn at(path: &Path, err: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {err}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter()
            .map(|(path, content)| (path.into(), content.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let expected = files(&[("a.md", "same"), ("b.md", "new"), ("c.md", "only here")]);
        let actual = files(&[("a.md", "same"), ("b.md", "old"), ("d.md", "left over")]);
        let found = changes(&expected, &actual);
        let wanted = [("b.md", "changed"), ("c.md", "missing"), ("d.md", "stale")];
        assert_eq!(
            found,
            wanted.map(|(path, change)| (Path::new(path), change))
        );
        assert!(changes(&expected, &expected).is_empty());
    }
}

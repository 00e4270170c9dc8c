//! World files: the `*.toml` of a folder, read as one world.
//!
//! Invariant: a mistake is reported with its file and line, whether the parser finds it or the control
//! plane does.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use waangu_api::world::{WORLD_VERSION, World};

use crate::config;
use crate::failure::{Failure, Of as _};

/// The files that `waangu up` begins with: those of the repository's `fleet/`.
pub(crate) const DEFAULT: [(&str, &str); 3] = [
    ("places.toml", include_str!("../../../fleet/places.toml")),
    (
        "profiles.toml",
        include_str!("../../../fleet/profiles.toml"),
    ),
    ("cells.toml", include_str!("../../../fleet/cells.toml")),
];

/// The files of one folder, in the order of their names.
#[derive(Debug)]
pub(crate) struct Files(Vec<(PathBuf, String)>);

impl Files {
    /// Reads a folder's files.
    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).of(folder.display())? {
            let path = entry.of(folder.display())?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                let text = std::fs::read_to_string(&path).of(path.display())?;
                files.push((path, text));
            }
        }
        if files.is_empty() {
            return Err(Failure::failed(format!(
                "{} has no world files (*.toml)",
                folder.display()
            )));
        }
        files.sort();
        Ok(Self(files))
    }

    /// What they declare together.
    pub(crate) fn world(&self) -> Result<World, Failure> {
        let mut world = World {
            version: WORLD_VERSION,
            ..World::default()
        };
        for (path, text) in &self.0 {
            let part: World = config::parse(text, path.display())?;
            if part.version != WORLD_VERSION {
                return Err(Failure::failed(format!(
                    "{}, line {}: version {} is not known to this program; {WORLD_VERSION} is",
                    path.display(),
                    find(text, &["version"]).unwrap_or(1),
                    part.version
                )));
            }
            world.merge(part);
        }
        Ok(world)
    }

    /// Where a field such as `cells.sn-dakar-a.region` stands: file and line. Of an entry that is
    /// declared twice, the second one.
    pub(crate) fn place(&self, field: &str) -> Option<String> {
        let words: Vec<&str> = field.splitn(3, '.').collect();
        self.0.iter().rev().find_map(|(path, text)| {
            let line = find(text, &words)?;
            Some(format!("{}, line {line}", path.display()))
        })
    }
}

/// The line of a section, an entry of it, or an entry's field.
fn find(text: &str, words: &[&str]) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let (section, rest) = words.split_first()?;
    let (key, value) = table.get_ref().get_key_value(*section)?;
    let Some((id, rest)) = rest.split_first() else {
        return Some(line(text, key.span().start));
    };
    let entry = value.get_ref().as_array()?.iter().rev().find(|entry| {
        let name = |key| text_of(entry.get_ref().as_table()?, key);
        name("id").or_else(|| name("code")) == Some(id)
    })?;
    let field = rest.first().and_then(|field| {
        let (key, _) = entry.get_ref().as_table()?.get_key_value(*field)?;
        Some(key.span().start)
    });
    Some(line(text, field.unwrap_or(entry.span().start)))
}

fn text_of<'t>(table: &'t DeTable<'_>, key: &str) -> Option<&'t str> {
    let value: &Spanned<DeValue<'_>> = table.get(key)?;
    value.get_ref().as_str()
}

fn line(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or_default();
    before.matches('\n').count().saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "version = 1\n[[cells]]\nid = 'a'\nregion = 'r'\n\n[[cells]]\nid = 'b'\n\
                        capacity = 0\n[[countries]]\ncode = 'SN'\nregions = []\n";

    /// "Invalid capacity" alone, with forty cells in five files, costs somebody an afternoon.
    #[test]
    fn a_field_is_found_in_its_file() {
        let files = Files(vec![(PathBuf::from("x.toml"), TEXT.to_owned())]);
        let place = |field| files.place(field);
        assert_eq!(place("cells.b.capacity").unwrap(), "x.toml, line 8");
        assert_eq!(place("cells.a.capacity").unwrap(), "x.toml, line 2");
        assert_eq!(place("countries.SN.regions").unwrap(), "x.toml, line 11");
        assert_eq!(place("version").unwrap(), "x.toml, line 1");
        assert_eq!(place("cells.c.region"), None);
        let wrong = Files(vec![(
            PathBuf::from("y.toml"),
            "version = 1\nsells = []\n".to_owned(),
        )]);
        let said = wrong.world().unwrap_err().to_string();
        assert!(
            said.starts_with("y.toml, line 2: unknown field `sells`"),
            "{said}"
        );
    }

    /// A fresh clone would not start.
    #[test]
    fn the_files_that_come_with_the_program_are_whole() {
        let files = DEFAULT.map(|(name, text)| (PathBuf::from(name), text.to_owned()));
        let world = Files(files.to_vec()).world().unwrap();
        assert_eq!((world.environments.len(), world.cells.len()), (4, 2));
    }
}

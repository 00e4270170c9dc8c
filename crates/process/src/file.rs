//! Files through which processes of one platform tell each other something: replaced as a whole by
//! one, looked at again by the others.
//!
//! Invariants:
//! - a reader finds the old contents or the new ones, never a part;
//! - what [`Watched::get`] gives was the file's a second ago or later: no task has to run for that;
//! - a file that can't be read or understood changes nothing, and the log says so.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How often a file is looked at, at most.
pub const LOOK: Duration = Duration::from_secs(1);

/// Writes a file aside and renames it into place, readable by its owner only.
///
/// # Errors
/// When it can't be written.
pub fn write_private(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".draft");
    let draft = PathBuf::from(draft);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&draft)?;
    // An older draft keeps its mode when it is opened again.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

/// What a file's bytes mean.
type Parse<T> = Box<dyn Fn(&[u8]) -> Result<T, String> + Send + Sync>;

/// The meaning of a file, as of now.
pub struct Watched<T> {
    source: Option<(PathBuf, Parse<T>)>,
    seen: Mutex<Seen<T>>,
}

struct Seen<T> {
    value: Arc<T>,
    /// Which file it was: a replaced one is another file.
    stamp: Option<Stamp>,
    looked: Instant,
}

/// Inode, size, and time of the last change.
type Stamp = (u64, u64, i64, i64);

impl<T> Watched<T> {
    /// Reads a file, which has to make sense this first time.
    ///
    /// # Errors
    /// When it can't be read or understood.
    pub fn open(
        path: &Path,
        parse: impl Fn(&[u8]) -> Result<T, String> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let named = |why: String| io::Error::other(format!("{}: {why}", path.display()));
        let (bytes, stamp) = read(path).map_err(|error| named(error.to_string()))?;
        let value = parse(&bytes).map_err(named)?;
        Ok(Self {
            source: Some((path.to_owned(), Box::new(parse))),
            seen: Mutex::new(Seen {
                value: Arc::new(value),
                stamp: Some(stamp),
                looked: Instant::now(),
            }),
        })
    }

    /// A value that no file changes.
    pub fn fixed(value: T) -> Self {
        Self {
            source: None,
            seen: Mutex::new(Seen {
                value: Arc::new(value),
                stamp: None,
                looked: Instant::now(),
            }),
        }
    }

    /// The value; the file is looked at if that was more than [`LOOK`] ago.
    pub fn get(&self) -> Arc<T> {
        let mut seen = self.lock();
        if seen.looked.elapsed() >= LOOK {
            self.look(&mut seen);
        }
        Arc::clone(&seen.value)
    }

    /// The value after a look at the file: for somebody who has met what it doesn't know yet.
    pub fn look_again(&self) -> Arc<T> {
        let mut seen = self.lock();
        self.look(&mut seen);
        Arc::clone(&seen.value)
    }

    fn lock(&self) -> MutexGuard<'_, Seen<T>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, seen: &mut Seen<T>) {
        seen.looked = Instant::now();
        let Some((path, parse)) = &self.source else {
            return;
        };
        let stamp = fs::metadata(path).map(|found| stamp(&found));
        if matches!(stamp, Ok(stamp) if seen.stamp == Some(stamp)) {
            return;
        }
        let changed = read(path)
            .map_err(|error| error.to_string())
            .and_then(|(bytes, stamp)| Ok((parse(&bytes)?, stamp)));
        match changed {
            Ok((value, stamp)) => {
                seen.value = Arc::new(value);
                seen.stamp = Some(stamp);
                tracing::info!(file = %path.display(), "{} has changed", path.display());
            }
            Err(why) => {
                tracing::error!(file = %path.display(), "{}: {why}; what was known stays", path.display());
            }
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({:?})", self.lock().value)
    }
}

/// The contents and the stamp of one and the same file, even if it is being replaced.
fn read(path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
    let mut file = File::open(path)?;
    let stamp = stamp(&file.metadata()?);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((bytes, stamp))
}

fn stamp(found: &fs::Metadata) -> Stamp {
    (found.ino(), found.size(), found.mtime(), found.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8]) -> Result<i32, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        text.parse()
            .map_err(|error: std::num::ParseIntError| error.to_string())
    }

    /// A process that does not hear of a new key refuses requests; one that believes a damaged file
    /// refuses all of them.
    #[tokio::test]
    async fn a_change_is_seen_and_a_damaged_file_is_not_believed() {
        let folder = std::env::temp_dir().join(format!("waangu-watched-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("number");
        write_private(&path, b"1").unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let watched = Watched::open(&path, number).unwrap();
        assert_eq!(*watched.get(), 1);
        write_private(&path, b"2").unwrap();
        assert_eq!(*watched.look_again(), 2);
        write_private(&path, b"three").unwrap();
        tokio::time::sleep(LOOK).await;
        assert_eq!(*watched.get(), 2);
        fs::remove_file(&path).unwrap();
        assert_eq!(*watched.look_again(), 2);
        write_private(&path, b"4").unwrap();
        tokio::time::sleep(LOOK).await;
        assert_eq!(*watched.get(), 4);
        fs::remove_dir_all(&folder).unwrap();
        assert!(Watched::open(&path, number).is_err());
    }
}

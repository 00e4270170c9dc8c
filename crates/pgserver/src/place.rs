//! Where a server's files really are.
//!
//! A server user who cannot enter the folder asked for (root's home, a private temporary folder)
//! gets its files elsewhere, and `<data>.location` beside the place asked for says where, so that
//! the next start finds them.
//!
//! Invariants: [`Place::data`] is a real path without symbolic links, so that it can be compared
//! with a process's current folder; data that exists is never passed over for an empty place.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf, absolute},
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    Progress,
    config::Config,
    error::{Doing, Error},
    files::{beside, create_folder, random_id, write_private},
    user::ServerUser,
};

/// The paths of one server.
#[derive(Debug)]
pub(crate) struct Place {
    /// Where the data is; its parent can be entered by the server user.
    pub(crate) data: PathBuf,
    /// The log, which stays beside the place asked for.
    pub(crate) log: PathBuf,
    /// The lock, held by whoever has a handle.
    pub(crate) lock: PathBuf,
    /// The file that says where the data went, when it went elsewhere.
    pub(crate) location: PathBuf,
    /// The folder of ours elsewhere, when there is one.
    pub(crate) moved_to: Option<PathBuf>,
}

/// What is in a folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing, or there is no such folder.
    Nothing,
    /// A data folder, made by this major version.
    Cluster(u16),
    /// Something else.
    Other,
}

/// The major version that made the data of an existing server; `None` when there is none yet.
///
/// Good for [`crate::Search::major`], so that the programs found are those that fit.
pub fn made_by(data_dir: &Path) -> Result<Option<u16>, Error> {
    let asked = absolute(data_dir).doing("find", data_dir)?;
    let data = recorded(&beside(&asked, ".location"))?.unwrap_or(asked);
    match content(&data)? {
        Content::Cluster(major) => Ok(Some(major)),
        Content::Nothing | Content::Other => Ok(None),
    }
}

/// Looks into a folder without changing it.
pub(crate) fn content(data: &Path) -> Result<Content, Error> {
    let mut entries = match fs::read_dir(data) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Content::Nothing),
        entries => entries.doing("read", data)?,
    };
    let version = data.join("PG_VERSION");
    match fs::read_to_string(&version) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(match entries.next() {
            None => Content::Nothing,
            Some(_) => Content::Other,
        }),
        text => {
            let text = text.doing("read", version)?;
            Ok(text.trim().parse().map_or(Content::Other, Content::Cluster))
        }
    }
}

/// Takes the lock of a server, or says who has it.
pub(crate) fn lock(config: &Config) -> Result<(File, PathBuf), Error> {
    let asked = absolute(&config.data_dir).doing("find", &config.data_dir)?;
    let parent = asked.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).doing("create", parent)?;
    let parent = fs::canonicalize(parent).doing("find", parent)?;
    let asked = asked
        .file_name()
        .map_or_else(|| parent.clone(), |name| parent.join(name));
    let path = beside(&asked, ".lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|err| not_ours(err, &path, &asked))?;
    if let Err(err) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if err != rustix::io::Errno::WOULDBLOCK {
            return Err(io::Error::from(err)).doing("lock", path);
        }
        let mut pid = String::new();
        file.read_to_string(&mut pid).doing("read", path)?;
        let pid = if pid.trim().is_empty() {
            "?"
        } else {
            pid.trim()
        }
        .to_owned();
        return Err(Error::Held {
            name: config.name.clone(),
            path: asked,
            pid,
        });
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .doing("write", &path)?;
    Ok((file, asked))
}

/// A lock that we may not open tells that another user began here.
fn not_ours(err: io::Error, lock: &Path, asked: &Path) -> Error {
    let owner = fs::metadata(lock).map(|meta| meta.uid());
    match owner {
        Ok(owner) if err.kind() == io::ErrorKind::PermissionDenied => Error::ForeignOwner {
            path: asked.to_owned(),
            owner,
        },
        _ => Error::Io {
            doing: "open",
            path: lock.to_owned(),
            source: err,
        },
    }
}

impl Place {
    /// Finds the place of a server, and who has to run it. `asked` is the path from [`lock`].
    pub(crate) fn find(
        config: &Config,
        asked: PathBuf,
        user: ServerUser,
        progress: Progress<'_>,
    ) -> Result<(Self, ServerUser), Error> {
        let parent = asked.parent().unwrap_or(Path::new("/")).to_owned();
        let location = beside(&asked, ".location");
        let mut place = Self {
            log: parent.join("log").join(format!("{}.log", config.name)),
            lock: beside(&asked, ".lock"),
            location,
            moved_to: None,
            data: asked,
        };
        if let Some(data) = recorded(&place.location)? {
            place.moved_to = data.parent().map(Path::to_owned);
            place.data = data;
        }
        match content(&place.data)? {
            Content::Other => Err(Error::NotACluster { path: place.data }),
            Content::Cluster(_) => place.existing(user),
            Content::Nothing => {
                if place.moved_to.is_none() && !user.can_enter(&parent) {
                    place.move_away(user, progress)?;
                }
                Ok((place, user))
            }
        }
    }

    /// Data that exists stays where it is, and is served by its owner.
    fn existing(mut self, user: ServerUser) -> Result<(Self, ServerUser), Error> {
        self.data = fs::canonicalize(&self.data).doing("find", &self.data)?;
        let meta = fs::metadata(&self.data).doing("read", &self.data)?;
        let Some(user) = user.as_owner(&meta) else {
            return Err(Error::ForeignOwner {
                path: self.data,
                owner: meta.uid(),
            });
        };
        if !user.can_enter(&self.data) {
            return Err(Error::Unreachable {
                path: self.data,
                uid: user.uid(),
            });
        }
        Ok((self, user))
    }

    fn move_away(&mut self, user: ServerUser, progress: Progress<'_>) -> Result<(), Error> {
        let base = shared_base(user)?.join(format!("waangu-{}", random_id()?));
        create_folder(&base, 0o755)?;
        let data = base.join("data");
        // The folder first: a record of a folder that does not exist would look like lost data.
        let text = format!("{}\n", data.display());
        write_private(&self.location, &text, ServerUser::ourselves())?;
        progress(&format!(
            "the server runs as user {}, who cannot enter {}: its files are in {}",
            user.uid(),
            self.data.display(),
            base.display()
        ));
        self.moved_to = Some(base);
        self.data = data;
        Ok(())
    }
}

/// The path in a location file, whose folder must be there.
fn recorded(location: &Path) -> Result<Option<PathBuf>, Error> {
    let text = match fs::read_to_string(location) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.doing("read", location)?,
    };
    let data = PathBuf::from(text.trim_end_matches('\n'));
    if data.is_absolute() && data.parent().is_some_and(Path::is_dir) {
        Ok(Some(data))
    } else {
        Err(Error::Lost {
            location: location.to_owned(),
            recorded: data,
        })
    }
}

/// A folder that every user can enter, for what root cannot keep where it was asked to.
pub(crate) fn shared_base(user: ServerUser) -> Result<PathBuf, Error> {
    let lib = Path::new("/var/lib/waangu");
    let made = lib.is_dir() || create_folder(lib, 0o755).is_ok();
    let writable = made && rustix::fs::access(lib, rustix::fs::Access::WRITE_OK).is_ok();
    let base = if writable && user.can_enter(lib) {
        lib
    } else {
        Path::new("/var/tmp")
    };
    fs::canonicalize(base).doing("find", base)
}

//! The user that PostgreSQL runs as.
//!
//! PostgreSQL refuses to run as root. As root we therefore run it as `postgres`, else as `nobody`,
//! else as user 65534; otherwise as ourselves. `initdb` looks its user up by number, so a user
//! with an entry in `/etc/passwd` is preferred.
//!
//! Invariant: a command of ours as root never keeps root's groups or environment (secrets!).
//! Left out: access-control lists and directory services; only modes and `/etc/passwd` count.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, chown},
    path::Path,
    process::Stdio,
};

use tokio::process::Command;

const NOBODY: u32 = 65534;

/// The user and group that PostgreSQL's programs run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerUser {
    uid: u32,
    gid: u32,
    switched: bool,
}

impl ServerUser {
    /// Ourselves, or a user without rights when we are root.
    pub fn pick() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self::ourselves();
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let (uid, gid) = unprivileged(&passwd);
        Self {
            uid,
            gid,
            switched: true,
        }
    }

    /// Ourselves, root or not: for files that only we need.
    pub(crate) fn ourselves() -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Self {
            uid: uid.as_raw(),
            gid: gid.as_raw(),
            switched: false,
        }
    }

    /// The user id.
    pub fn uid(self) -> u32 {
        self.uid
    }

    /// The group id.
    pub fn gid(self) -> u32 {
        self.gid
    }

    /// The same, but as the owner of data that exists: a later run may be root where the first was
    /// not. `None` when we may not become that owner, or when it is root.
    pub(crate) fn as_owner(self, owner: &fs::Metadata) -> Option<Self> {
        if owner.uid() == self.uid {
            return Some(self);
        }
        let possible = self.switched && owner.uid() != 0;
        possible.then(|| Self {
            uid: owner.uid(),
            gid: owner.gid(),
            switched: true,
        })
    }

    /// Whether this user gets into `folder`, by the x bits of it and of all folders above it.
    pub(crate) fn can_enter(self, folder: &Path) -> bool {
        if !self.switched {
            return true;
        }
        let Ok(real) = fs::canonicalize(folder) else {
            return false;
        };
        real.ancestors()
            .all(|folder| fs::metadata(folder).is_ok_and(|meta| self.has_x(&meta)))
    }

    fn has_x(self, meta: &fs::Metadata) -> bool {
        let bit = if meta.uid() == self.uid {
            0o100
        } else if meta.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        meta.mode() & bit != 0
    }

    /// Makes the user the owner of `path`, when it is not us.
    pub(crate) fn own(self, path: &Path) -> io::Result<()> {
        if self.switched {
            chown(path, Some(self.uid), Some(self.gid))
        } else {
            Ok(())
        }
    }

    /// The same for an open file, whatever its name means by now.
    pub(crate) fn own_file(self, file: &fs::File) -> io::Result<()> {
        if self.switched {
            std::os::unix::fs::fchown(file, Some(self.uid), Some(self.gid))
        } else {
            Ok(())
        }
    }

    /// A command that runs as this user, in a process group of its own (a terminal's Ctrl-C is for
    /// us to handle) and with an environment that makes its messages predictable.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null());
        if self.switched {
            // The standard library empties the list of further groups on its own here.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }
}

/// User and group for a server that root starts, from the text of `/etc/passwd`.
fn unprivileged(passwd: &str) -> (u32, u32) {
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| entry(passwd, name))
        .unwrap_or((NOBODY, NOBODY))
}

fn entry(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid: u32 = fields.nth(1)?.parse().ok()?;
        let gid: u32 = fields.next()?.parse().ok()?;
        (uid != 0).then_some((uid, gid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root in a small container image would not get a server at all.
    #[test]
    fn root_finds_a_user_without_rights() {
        let both =
            "root:x:0:0::/root:/bin/sh\nnobody:x:99:98::/:/x\npostgres:x:101:104:,,,:/p:/x\n";
        assert_eq!(unprivileged(both), (101, 104));
        assert_eq!(unprivileged("nobody:x:99:98::/:/x\n"), (99, 98));
        assert_eq!(unprivileged("postgres:x:0:0::/:/x\n"), (NOBODY, NOBODY));
        assert_eq!(unprivileged(""), (NOBODY, NOBODY));
    }

    /// `waangu up` below /root would fail with "permission denied" instead of moving the files.
    #[test]
    fn closed_folders_are_noticed() -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let closed = tempfile::tempdir()?;
        let inner = closed.path().join("inner");
        fs::create_dir(&inner)?;
        let other = ServerUser {
            uid: 54_321,
            gid: 54_321,
            switched: true,
        };
        fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700))?;
        assert!(!other.can_enter(&inner));
        fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o711))?;
        assert!(other.can_enter(&inner));
        assert!(!other.can_enter(&inner.join("absent")));
        Ok(())
    }
}

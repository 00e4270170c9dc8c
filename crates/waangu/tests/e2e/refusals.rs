//! Starts that can't be: each says in one line what to do, and ends with exit code 1.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::support::process::all;
use crate::support::{Folder, Platform, Ran, run, shared, skipped};

/// One line on stderr that begins with `error:`; talk about progress may stand before it, indented.
fn refused(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(ran.stdout, "", "{ran:?}");
    let lines: Vec<&str> = ran
        .stderr
        .lines()
        .skip_while(|line| !line.starts_with("error: "))
        .collect();
    assert_eq!(lines.len(), 1, "one line, please: {}", ran.stderr);
    for word in words {
        assert!(lines[0].contains(word), "`{word}` is not in: {}", lines[0]);
    }
}

async fn up(state: &Path, more: &[&str]) -> Ran {
    let args = ["up", "--state", state.to_str().unwrap(), "--http-port", "0"];
    run(&[&args[..], more].concat()).await
}

/// Nothing may be left that runs in the folder.
fn quiet(folder: &Folder) {
    let path = folder.path().to_str().unwrap();
    let left: Vec<_> = all()
        .into_iter()
        .filter(|process| process.command.contains(&format!("{path}/")))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The usual reason why nothing starts: something else has the port.
#[tokio::test]
async fn a_port_in_use() {
    let folder = Folder::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    let state = folder.state();
    let args = [
        "up",
        "--state",
        state.to_str().unwrap(),
        "--http-port",
        &port,
    ];
    refused(&run(&args).await, &[&port, "in use", "--http-port"]);
    quiet(&folder);
    // The refused port is not the one that the next start takes for its own.
    drop(other);
    let platform = Platform::start(folder, &["--http-port", "0"]).await;
    assert!(!platform.ready.gateway.ends_with(&format!(":{port}")));
}

/// Two supervisors on one folder would fight over the same databases.
#[tokio::test]
async fn two_on_one_folder() {
    let platform = shared().await;
    let state = platform.folder.state();
    let pid = platform.pid().to_string();
    let words = [state.to_str().unwrap(), &pid, "in use", "--state"];
    refused(&up(&state, &[]).await, &words);
    let ready = fs::read_to_string(platform.folder.join("ready.json")).unwrap();
    assert!(ready.contains(&pid), "the first one's ready file is gone");
    platform.operate("GET", "/tenants", None).await.expect(200);
}

/// An older program must not touch what a newer one has written.
#[tokio::test]
async fn a_newer_folder() {
    let folder = Folder::new();
    let state = folder.state();
    fs::create_dir(&state).unwrap();
    fs::write(state.join("VERSION"), "2\n").unwrap();
    refused(
        &up(&state, &[]).await,
        &["version 2", "newer program", "--state"],
    );
    fs::write(state.join("VERSION"), "holiday pictures\n").unwrap();
    refused(&up(&state, &[]).await, &["VERSION", "--state"]);
    assert_eq!(
        fs::read(state.join("VERSION")).unwrap(),
        b"holiday pictures\n"
    );
    assert!(
        !state.join("pg").exists(),
        "something was written all the same"
    );
}

/// Root may write anywhere, so what stands here for a folder that can't be written is one that can't
/// be made.
#[tokio::test]
async fn a_folder_that_cant_be() {
    let folder = Folder::new();
    fs::write(folder.join("file"), "in the way").unwrap();
    refused(&up(&folder.join("file"), &[]).await, &["file", "--state"]);
    refused(
        &up(&folder.join("file/x"), &[]).await,
        &["file/x", "--state"],
    );
    let folder_in_the_way = folder.join("state/lock");
    fs::create_dir_all(&folder_in_the_way).unwrap();
    refused(&up(&folder.state(), &[]).await, &["--state"]);
}

/// A disk that is full must be named as such before PostgreSQL stumbles over it in words of its own.
#[tokio::test]
async fn a_full_disk() {
    let folder = Folder::new();
    let small = folder.join("small");
    fs::create_dir(&small).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&small)
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        skipped("a full disk", "mounting a small one is not allowed here");
        return;
    }
    refused(&up(&small, &[]).await, &["free", "--state"]);
    let full = vec![0_u8; 2 * 1024 * 1024];
    assert!(fs::write(small.join("full"), full).is_err());
    let ran = up(&small, &[]).await;
    let fresh = up(&small.join("fresh"), &[]).await;
    let read_only = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(&small)
        .output();
    let refusal = up(&small, &[]).await;
    let unmounted = Command::new("umount").arg(&small).status().unwrap();
    assert!(unmounted.success());
    refused(&ran, &["free", "--state"]);
    refused(&fresh, &["--state"]);
    assert!(read_only.is_ok_and(|output| output.status.success()));
    refused(&refusal, &["--state"]);
}

/// Somebody who has edited the secrets must be told so, without the secrets on the screen.
#[tokio::test]
async fn broken_secrets() {
    let folder = Folder::new();
    let state = folder.state();
    let mut platform = Platform::start(folder, &["--http-port", "0"]).await;
    platform.signal(rustix::process::Signal::TERM);
    platform.ended(std::time::Duration::from_secs(10)).await;
    let file = state.join("secrets.toml");
    let good = fs::read_to_string(&file).unwrap();
    let cut = &good[..good.len() / 2];
    for broken in [
        cut.to_owned(),
        String::new(),
        good.replace("_token = ", "_token : "),
    ] {
        fs::write(&file, &broken).unwrap();
        let ran = up(&state, &[]).await;
        refused(&ran, &["secrets.toml"]);
        for secret in good.split('"').skip(1).step_by(2) {
            assert!(
                !ran.stderr.contains(secret),
                "a secret is shown: {}",
                ran.stderr
            );
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), broken);
    }
    // Without them nothing opens any more: new ones would fit no lock.
    fs::remove_file(&file).unwrap();
    refused(&up(&state, &[]).await, &["secrets.toml"]);
    fs::write(&file, &good).unwrap();
    platform.again(&["--http-port", "0"]).await;
    platform.operate("GET", "/tenants", None).await.expect(200);
}

/// A ready file that can't be written would be noticed only when everything runs, and then all of it
/// would have to end again.
#[tokio::test]
async fn a_ready_file_that_cant_be() {
    let folder = Folder::new();
    let file = folder.join("nowhere/ready.json");
    let ran = up(&folder.state(), &["--ready-file", file.to_str().unwrap()]).await;
    refused(&ran, &["nowhere/ready.json"]);
    quiet(&folder);
}

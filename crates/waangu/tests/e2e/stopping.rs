//! Ending it.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::support::platform::spawn;
use crate::support::process::{Process, alive, descendants};
use crate::support::{Folder, Platform, until};

/// The contract: all of it stops within this time.
const LIMIT: Duration = Duration::from_secs(10);

/// A platform that does not stop holds its ports and its disk; one that is stopped with a request in
/// hand, or with connections open, must stop all the same. A ready file left behind sends everybody to
/// a platform that is not there.
#[tokio::test]
async fn both_signals_stop_everything() {
    let folder = Arc::new(Folder::new());
    for signal in [Signal::TERM, Signal::INT] {
        let mut platform = Platform::start(Arc::clone(&folder), &["--http-port", "0"]).await;
        let all = descendants(platform.pid());
        assert!(all.len() > 5, "{all:?}");
        // A connection that is kept open, and a request that is not finished.
        let http = platform.http();
        http.get(&format!("{}/healthz", platform.ready.gateway))
            .send()
            .await
            .expect(200);
        let begun = Instant::now();
        platform.signal(signal);
        let status = platform.ended(LIMIT).await;
        println!("{signal:?}: stopped after {:?}", begun.elapsed());
        assert_eq!(status.code(), Some(0), "{}", platform.folder.said());
        let left = alive(&all);
        assert!(left.is_empty(), "{left:?}");
        for file in ["ready.json", "state/ready.json"] {
            assert!(!platform.folder.join(file).exists(), "{file}");
        }
        let doctor = platform.cli(&["doctor"]).await;
        assert_eq!(doctor.code, Some(1), "{doctor:?}");
        drop(http);
    }
}

/// Somebody who has second thoughts presses Ctrl-C before it is up.
#[tokio::test]
async fn a_start_can_be_stopped() {
    let folder = Folder::new();
    for delay in [60, 400, 1200] {
        let mut up = spawn(&folder, &["--http-port", "0", "--demo"]);
        sleep(Duration::from_millis(delay)).await;
        let pid = i32::try_from(up.id()).unwrap();
        let all = descendants(pid);
        Process::find(pid).unwrap().signal(Signal::INT);
        let status = until("`up` ends", LIMIT, async || up.try_wait().unwrap()).await;
        println!("after {delay} ms: {status}");
        until("all have ended", Duration::from_secs(5), async || {
            alive(&all).is_empty().then_some(())
        })
        .await;
        assert!(!folder.join("ready.json").exists());
    }
    // And a start after that finds a folder that is whole.
    let platform = Platform::start(folder, &["--http-port", "0", "--demo"]).await;
    platform
        .sign_in("awa@teranga-market", platform.demo_password())
        .await;
}

/// The port is part of every address, of the tokens' issuer and of people's bookmarks: a restart that
/// changes it signs everybody out.
#[tokio::test]
async fn a_port_chosen_once_stays() {
    let folder = Arc::new(Folder::new());
    let mut addresses = Vec::new();
    for args in [&["--http-port", "0"][..], &["--http-port", "0"], &[]] {
        let mut platform = Platform::start(Arc::clone(&folder), args).await;
        addresses.push(platform.ready.gateway.clone());
        platform.signal(Signal::TERM);
        platform.ended(LIMIT).await;
    }
    addresses.dedup();
    assert_eq!(addresses.len(), 1, "{addresses:?}");
    assert!(!addresses[0].ends_with(":0"), "{addresses:?}");
}

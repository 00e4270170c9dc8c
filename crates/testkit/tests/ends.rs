//! A test process leaves no server behind, however it ends.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use waangu_testkit::{cluster, connect};

/// A server left behind by each `cargo test` would fill a developer's machine within a day.
#[tokio::test]
async fn a_killed_test_process_leaves_no_server() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "a_process_to_be_killed",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let folder = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("folder=")?.1.to_owned()))
        .expect("the other process says where its server is");
    assert!(Path::new(&folder).join("postmaster.pid").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = async {
        while Path::new(&folder).parent().is_some_and(Path::exists) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .expect("server and folder are gone");
}

/// Not a test: the process that is killed in the one above.
#[tokio::test]
#[ignore = "started by another test, as a process of its own"]
async fn a_process_to_be_killed() {
    let server = cluster().await;
    let client = connect(&server.superuser_dsn("postgres")).await.unwrap();
    let row = client.query_one("show data_directory", &[]).await.unwrap();
    println!("folder={}", row.get::<_, &str>(0));
    std::future::pending::<()>().await;
}

//! `waangu tenant import`: thousands of clients from a file, whatever is wrong with it and whatever dies
//! on the way.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Folder, Platform, Ran, shared, until, waangu};

fn file(folder: &Folder, text: &str) -> PathBuf {
    let path = folder.join("tenants.csv");
    std::fs::write(&path, text).unwrap();
    path
}

async fn import(platform: &Platform, file: &Path, more: &[&str]) -> Ran {
    let mut words = vec![
        "--output",
        "json",
        "tenant",
        "import",
        file.to_str().unwrap(),
    ];
    words.extend(more);
    platform.cli(&words).await
}

/// Line, slug, status, code and field of each line.
fn lines(ran: &Ran) -> Vec<(u64, String, String, String, String)> {
    let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"));
    let lines = report["lines"].as_array().unwrap().iter();
    let told = lines.map(|line| {
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let number = line["line"].as_u64().unwrap();
        (
            number,
            text("slug"),
            text("status"),
            text("code"),
            text("field"),
        )
    });
    told.collect()
}

fn wanted(lines: &[(u64, &str, &str, &str, &str)]) -> Vec<(u64, String, String, String, String)> {
    let own = |(line, slug, status, code, field): &(u64, &str, &str, &str, &str)| {
        let text = |text: &str| text.to_owned();
        (*line, text(slug), text(status), text(code), text(field))
    };
    lines.iter().map(own).collect()
}

async fn slugs(platform: &Platform, prefix: &str) -> Vec<String> {
    let tenants = platform.tenants().await;
    let slugs = tenants.iter().filter_map(|tenant| tenant["slug"].as_str());
    slugs
        .filter(|slug| slug.starts_with(prefix))
        .map(str::to_owned)
        .collect()
}

const FILE: &str = "\
slug,country,parent,tier,profile,plan,name
imp-leaf,SN,imp-middle,,,,Leaf
imp-middle,SN,imp-root,,,,
imp-root,SN,,,,,\"Root, Ltd\"
imp-abroad,DE,imp-root,,,,
imp-mars,XX,,,,,
imp-japan,JP,,,,,
Imp Bad,SN,,,,,
imp-root,SN,,,,,Again
imp-hen,SN,imp-egg,,,,
imp-egg,SN,imp-hen,,,,
imp-tier,SN,,premium,,,
imp-bank,SN,,,bank,,
imp-plan,SN,,,,imp-gold,
imp-orphan,SN,imp-nobody,,,,
imp-below-bad,SN,imp-japan,,,,
teranga-market,SN,,,,,Another
imp-short,SN
imp-last,FR,,shared,,,
";

/// One typing mistake must cost one line and not ten thousand; a dry run must say the same as the run;
/// and whoever runs it twice must not get everything twice.
#[tokio::test]
async fn bad_lines_cost_themselves_and_nobody_else() {
    let platform = shared().await;
    let folder = Folder::new();
    let path = file(&folder, FILE);
    let failed = |line, slug, code, field| (line, slug, "failed", code, field);
    let verdict = |status: &'static str| {
        wanted(&[
            (2, "imp-leaf", status, "", ""),
            (3, "imp-middle", status, "", ""),
            (4, "imp-root", status, "", ""),
            failed(5, "imp-abroad", "parent-country-forbidden", "parent"),
            failed(6, "imp-mars", "country-unknown", "country"),
            failed(7, "imp-japan", "country-unknown", "country"),
            failed(8, "Imp Bad", "slug-invalid", "slug"),
            failed(9, "imp-root", "slug-taken", "slug"),
            failed(10, "imp-hen", "parent-cycle", "parent"),
            failed(11, "imp-egg", "parent-cycle", "parent"),
            failed(12, "imp-tier", "tier-unknown", "tier"),
            failed(13, "imp-bank", "profile-unknown", "profile"),
            failed(14, "imp-plan", "plan-unknown", "plan"),
            failed(15, "imp-orphan", "parent-unknown", "parent"),
            failed(16, "imp-below-bad", "parent-unknown", "parent"),
            failed(17, "teranga-market", "slug-taken", "name"),
            failed(18, "imp-short", "malformed-line", ""),
            (19, "imp-last", status, "", ""),
        ])
    };
    let dry = import(platform, &path, &["--dry-run"]).await;
    assert_eq!(dry.code, Some(1), "{dry:?}");
    assert_eq!(lines(&dry), verdict("possible"));
    let report: Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!(report["lines"][17]["placement"]["tier"], "shared");
    let none = import(platform, &path, &["--all-or-nothing"]).await;
    assert_eq!((none.code, lines(&none)), (Some(1), verdict("possible")));
    assert_eq!(slugs(platform, "imp-").await, [""; 0]);

    let first = import(platform, &path, &[]).await;
    assert_eq!(first.code, Some(1), "{first:?}");
    assert!(first.stderr.contains("14 of 18 lines failed"), "{first:?}");
    assert_eq!(lines(&first), verdict("created"));
    let mut made = slugs(platform, "imp-").await;
    made.sort();
    assert_eq!(made, ["imp-last", "imp-leaf", "imp-middle", "imp-root"]);
    let leaf = platform
        .operate("GET", "/tenants/imp-leaf", None)
        .await
        .expect(200);
    assert_eq!(
        (&leaf["parent"], &leaf["name"]),
        (&json!("imp-middle"), &json!("Leaf"))
    );
    for more in [&[][..], &["--dry-run"]] {
        let again = import(platform, &path, more).await;
        assert_eq!(lines(&again), verdict("exists"), "{more:?}");
    }
    // Another file may say the same in other words; one that says something else is told so.
    let other = "slug,country\nimp-last,FR\nimp-root,SN\n";
    let path = file(&folder, other);
    let ran = import(platform, &path, &[]).await;
    let named = failed(3, "imp-root", "slug-taken", "name");
    let wanted = wanted(&[(2, "imp-last", "exists", "", ""), named]);
    assert_eq!((ran.code, lines(&ran)), (Some(1), wanted));

    // What was imported and deleted since must not be said to be there.
    let gone = platform
        .cli(&["tenant", "delete", "imp-last", "--yes"])
        .await;
    assert_eq!(gone.code, Some(0), "{gone:?}");
    let path = file(&folder, FILE);
    let ran = import(platform, &path, &[]).await;
    let (.., status, code, _) = lines(&ran).pop().unwrap();
    assert_eq!(
        (status.as_str(), code.as_str()),
        ("failed", "tenant-not-found")
    );
}

/// A file that nobody can understand is a mistake of usage, and one without a mistake ends well.
#[tokio::test]
async fn exit_codes_tell_files_apart() {
    let platform = shared().await;
    let folder = Folder::new();
    let missing = folder.join("nothing.csv");
    assert_eq!(import(platform, &missing, &[]).await.code, Some(1));
    let path = file(&folder, "slug,country,colour\nimq-a,SN,blue\n");
    let ran = import(platform, &path, &[]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""));
    assert!(ran.stderr.contains("colour"), "{ran:?}");
    let path = file(&folder, "country,slug\nSN,imq-a\n");
    for parallel in ["0", "65", "x"] {
        let ran = import(platform, &path, &["--parallel", parallel]).await;
        assert_eq!(ran.code, Some(2), "{parallel}");
    }
    let path = path.to_str().unwrap();
    let ran = platform.cli(&["tenant", "import", path, "--dry-run"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stdout.contains("1 possible, 0 exist, 0 failed"),
        "{ran:?}"
    );
    let ran = platform
        .cli(&["tenant", "import", path, "--all-or-nothing"])
        .await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stdout.contains("1 created, 0 exist, 0 failed"),
        "{ran:?}"
    );
}

/// A night's import that dies at line four thousand goes on in the morning: nobody is lost, nobody is
/// there twice, and a control plane that dies meanwhile costs a pause.
#[tokio::test]
async fn it_goes_on_after_any_death() {
    let platform = Platform::start(Folder::new(), &["--http-port", "0"]).await;
    let folder = Folder::new();
    let mut text = "slug,country,parent\n".to_owned();
    for number in (0..120).rev() {
        let parent = if number % 4 == 0 {
            String::new()
        } else {
            format!("line-{}", number - 1)
        };
        let _infallible = writeln!(text, "line-{number},SN,{parent}");
    }
    let path = file(&folder, &text);
    let mut cli = Command::new(waangu())
        .arg("--ready-file")
        .arg(platform.folder.join("ready.json"))
        .args(["tenant", "import"])
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("some are made", Duration::from_secs(20), async || {
        (slugs(&platform, "line-").await.len() > 15).then_some(())
    })
    .await;
    cli.kill().unwrap();
    cli.wait().unwrap();
    let before = slugs(&platform, "line-").await.len();
    assert!(before < 120, "killed too late to show anything");

    let (ran, ()) = tokio::join!(import(&platform, &path, &[]), async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        platform.control().unwrap().signal(Signal::KILL);
    });
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["failed"], 0);
    let exists = report["exists"].as_u64().unwrap();
    assert!(exists >= 10, "{exists} of {before}");
    let tenants = platform.tenants().await;
    assert_eq!(tenants.len(), 120);
    assert!(tenants.iter().all(|tenant| tenant["state"] == "active"));
}

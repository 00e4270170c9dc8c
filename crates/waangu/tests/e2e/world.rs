//! The declared world on a running platform: apply, cells, placement, profiles, promotion.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Folder, Platform, Ran, Session, db::in_database, shared, until};

/// The repository's world files.
const FLEET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fleet");

fn copy_fleet(to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(FLEET).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

async fn apply(platform: &Platform, dir: &Path, more: &[&str]) -> Ran {
    let dir = dir.to_str().unwrap();
    platform
        .cli(&[&["apply", "--dir", dir], more].concat())
        .await
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from} in {}", file.display());
    fs::write(file, text.replacen(from, to, 1)).unwrap();
}

/// Whoever reads a diff before saying yes must see none where nothing differs, or learns to ignore it.
#[tokio::test]
async fn a_fresh_platform_is_as_its_files_declare() {
    let platform = shared().await;
    let ran = apply(platform, Path::new(FLEET), &["--dry-run"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.stdout, "no changes: the registry is as declared\n");
    let own = platform.folder.state().join("fleet");
    let ran = apply(platform, &own, &["--dry-run", "--output", "json"]).await;
    let diff: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        diff,
        json!({ "applied": false, "changes": [], "warnings": [] })
    );
}

/// A mistake in one of many files would cost an afternoon, and half a world would be applied.
#[tokio::test]
async fn mistakes_in_files_are_found_with_file_and_line() {
    let platform = shared().await;
    for (file, from, to, said) in [
        (
            "cells.toml",
            "capacity = 20000",
            "capacity = 0",
            "line 10: it has to be at least 1",
        ),
        (
            "cells.toml",
            "capacity = 20000",
            "kapacity = 20000",
            "line 10: unknown field `kapacity`",
        ),
        (
            "cells.toml",
            "\"sn-dakar-a\"",
            "\"eu-west-1a\"",
            "line 11: `eu-west-1a` is declared twice",
        ),
        (
            "places.toml",
            "\"dc\"",
            "\"cellar\"",
            "line 28: `cellar` is not a provider",
        ),
        (
            "places.toml",
            "[\"aws-eu-west-1\"]",
            "[\"moon\"]",
            "line 53: there is no region `moon`",
        ),
        (
            "profiles.toml",
            "\"dedicated\"",
            "\"solo\"",
            "line 18: `solo` is not a tier",
        ),
        (
            "profiles.toml",
            "version = 1",
            "version = 2",
            "line 3: version 2 is not known",
        ),
        (
            "profiles.toml",
            "{ users = 5000 }",
            "{ user = 5000 }",
            "line 26: nobody declares the limit `user`",
        ),
        (
            "profiles.toml",
            "rows = 5_000_000",
            "rows = 0",
            "line 58: it has to be at least 1",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        copy_fleet(folder.path());
        edit(&folder.path().join(file), from, to);
        let ran = apply(platform, folder.path(), &[]).await;
        assert!(matches!(ran.code, Some(1 | 3)), "{ran:?}");
        assert!(
            ran.stderr.contains(file) && ran.stderr.contains(said),
            "{said}: {ran:?}"
        );
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    }
    let ran = apply(platform, Path::new(FLEET), &["--dry-run"]).await;
    assert!(
        ran.stdout.starts_with("no changes"),
        "nothing was applied: {ran:?}"
    );
}

/// A world that changes while tenants live in it: all of it on one platform of its own.
#[tokio::test]
async fn a_world_changes_under_its_tenants() {
    let folder = Folder::new();
    let mut platform = Platform::start(folder, &["--http-port", "0"]).await;
    let own = platform.folder.state().join("fleet");
    third_cell(&mut platform, &own).await;
    declared_changes(&platform, &own).await;
    capacity_is_never_overrun(&platform, &own).await;
    buckets_are_bounded(&platform).await;
    drained(&platform).await;
}

/// A new server is declared, gets a login with the next start, and takes tenants.
async fn third_cell(platform: &mut Platform, own: &Path) {
    let words = [
        "cell",
        "add",
        "de-1",
        "--region",
        "hetzner-fsn1",
        "--capacity",
        "5",
    ];
    let ran = platform.cli(&words).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("takes no tenants yet"), "{ran:?}");
    assert_eq!(platform.cli(&words).await.code, Some(3), "twice");
    let born = ["tenant", "create", "too-soon", "--country", "DE"];
    let ran = platform.cli(&born).await;
    // Another region of the country's rule has a cell.
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = platform.cli(&["tenant", "explain", "too-soon"]).await;
    assert!(ran.stdout.contains("not configured here"), "{ran:?}");

    let cells = own.join("cells.toml");
    // First in its file, to show that the control database stays where it is.
    edit(
        &cells,
        "[[cells]]",
        "[[cells]]\nid = \"de-1\"\nregion = \"hetzner-fsn1\"\ncapacity = 5\nbucket_limit = 2\n\n[[cells]]",
    );
    platform.signal(rustix::process::Signal::TERM);
    platform.ended(Duration::from_secs(30)).await;
    platform.again(&["--http-port", "0"]).await;
    let ran = platform.cli(&["tenant", "explain", "too-soon"]).await;
    assert!(ran.stdout.contains("it would go to de-1"), "{ran:?}");
    let view = platform
        .operate("GET", "/cells/de-1", None)
        .await
        .expect(200);
    assert_eq!(view["configured"], true, "{view}");
    let measured = || async {
        let view = platform
            .operate("GET", "/cells/de-1", None)
            .await
            .expect(200);
        (view["usage"]["bytes"].as_i64()? > 1_000_000).then_some(())
    };
    until("the cell is measured", Duration::from_secs(30), measured).await;
}

/// What changes is shown, done once, recorded, and refused where data would have to move.
async fn declared_changes(platform: &Platform, own: &Path) {
    let ran = apply(platform, own, &["--dry-run"]).await;
    assert_eq!(
        ran.stdout, "~ cell de-1\n    bucket_limit 400 → 2\nto do: 0 to add, 1 to change\n",
        "{ran:?}"
    );
    let ran = apply(platform, own, &[]).await;
    assert!(
        ran.stdout.ends_with("done: 0 to add, 1 to change\n"),
        "{ran:?}"
    );
    let ran = apply(platform, own, &[]).await;
    assert!(ran.stdout.starts_with("no changes"), "{ran:?}");
    let audit = platform
        .operate("GET", "/audit?limit=1", None)
        .await
        .expect(200);
    assert_eq!(audit["items"][0]["action"], "world.apply", "{audit}");

    let elsewhere = tempfile::tempdir().unwrap();
    copy_fleet(elsewhere.path());
    edit(
        &elsewhere.path().join("cells.toml"),
        "\"aws-eu-west-1\"",
        "\"aws-us-east-1\"",
    );
    let ran = apply(platform, elsewhere.path(), &[]).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("cells.toml, line 8"), "{ran:?}");

    let fewer = tempfile::tempdir().unwrap();
    copy_fleet(fewer.path());
    edit(
        &fewer.path().join("places.toml"),
        "code = \"US\"\n",
        "code = \"CA\"\n",
    );
    let ran = apply(platform, fewer.path(), &["--dry-run", "--prune"]).await;
    for line in ["+ country CA", "- country US\n", "- cell de-1\n"] {
        assert!(ran.stdout.contains(line), "{line}: {ran:?}");
    }
    edit(
        &fewer.path().join("places.toml"),
        "code = \"DE\"\n",
        "code = \"AT\"\n",
    );
    let ran = apply(platform, fewer.path(), &["--prune"]).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(
        ran.stderr.contains("country DE: used by 1 tenants"),
        "{ran:?}"
    );
    let ran = apply(platform, own, &["--dry-run"]).await;
    assert!(
        ran.stdout.starts_with("no changes"),
        "all or nothing: {ran:?}"
    );
}

/// Two operators at once would put more on a server than it can carry.
async fn capacity_is_never_overrun(platform: &Platform, own: &Path) {
    // Only de-1 may hold Germans from now on.
    edit(
        &own.join("places.toml"),
        "[\"hetzner-fsn1\", \"aws-eu-west-1\"]",
        "[\"hetzner-fsn1\"]",
    );
    let ran = apply(platform, own, &[]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stderr
            .contains("too-soon of DE lives in region aws-eu-west-1"),
        "{ran:?}"
    );
    let births = (0..16).map(|n| async move {
        let wish = json!({
            "slug": format!("berlin-{n}"), "name": "B", "country": "DE", "profile": "multisite",
        });
        let answer = platform.operate("POST", "/tenants", Some(&wish)).await;
        answer.status
    });
    let mut answers = BTreeMap::new();
    for status in futures_util::future::join_all(births).await {
        *answers.entry(status).or_insert(0) += 1;
    }
    assert_eq!(answers, BTreeMap::from([(202, 5), (409, 11)]));
    let view = platform
        .operate("GET", "/cells/de-1", None)
        .await
        .expect(200);
    assert_eq!(view["tenants"], 5, "{view}");
}

/// A database with too many schemas slows everybody in it; one that is empty is a waste.
async fn buckets_are_bounded(platform: &Platform) {
    let tenants = platform.tenants().await;
    let mut buckets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for tenant in tenants
        .iter()
        .filter(|tenant| tenant["placement"]["cell"] == "de-1")
    {
        let database = tenant["placement"]["database"].as_str().unwrap().to_owned();
        let slug = tenant["slug"].as_str().unwrap().to_owned();
        buckets.entry(database).or_default().push(slug);
    }
    let sizes: Vec<(&str, usize)> = buckets
        .iter()
        .map(|(database, slugs)| (database.as_str(), slugs.len()))
        .collect();
    assert_eq!(
        sizes,
        [
            ("waangu_schema_1", 2),
            ("waangu_schema_2", 2),
            ("waangu_schema_3", 1)
        ]
    );
    // Room that a deleted tenant leaves is used again, the lowest first.
    for slug in &buckets["waangu_schema_1"] {
        platform
            .change("DELETE", &format!("/tenants/{slug}"), None)
            .await;
    }
    let wish = json!({ "slug": "bonn", "name": "B", "country": "DE", "profile": "multisite" });
    let accepted = platform.change("POST", "/tenants", Some(&wish)).await;
    assert_eq!(accepted["placement"]["database"], "waangu_schema_1");
    // An empty one beyond the first goes.
    let last = &buckets["waangu_schema_3"][0];
    platform
        .change("DELETE", &format!("/tenants/{last}"), None)
        .await;
    let cell = platform
        .ready
        .cells
        .iter()
        .find(|cell| cell.id == "de-1")
        .unwrap();
    let admin = Session::open(&in_database(&cell.superuser_dsn, "postgres")).await;
    let gone = || async {
        let sql = "select count(*) from pg_database where datname = 'waangu_schema_3'";
        (admin.number(sql).await == 0).then_some(())
    };
    until("the empty bucket is dropped", Duration::from_secs(40), gone).await;
}

/// A server is to be switched off: nobody new comes, and whoever remains is named.
async fn drained(platform: &Platform) {
    let ran = platform.cli(&["cell", "drain", "de-1"]).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(
        ran.stdout.contains("bonn") && ran.stdout.contains("nowhere"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("3 tenants remain"), "{ran:?}");
    let ran = platform
        .cli(&["tenant", "create", "koeln", "--country", "DE"])
        .await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("de-1: is draining"), "{ran:?}");
    for tenant in platform.tenants().await {
        if tenant["placement"]["cell"] == "de-1" {
            let path = format!("/tenants/{}", tenant["slug"].as_str().unwrap());
            platform.change("DELETE", &path, None).await;
        }
    }
    assert_eq!(platform.cli(&["cell", "drain", "de-1"]).await.code, Some(0));
    let ran = platform.cli(&["cell", "activate", "de-1"]).await;
    assert!(ran.stdout.contains("active"), "{ran:?}");
    assert_eq!(platform.cli(&["cell", "show", "mars"]).await.code, Some(4));
}

/// An auditor asks why this client is treated otherwise than its sector: the answer is on the screen.
#[tokio::test]
async fn a_tenant_differs_from_its_profile_by_explicit_override_only() {
    let platform = shared().await;
    let slug = "bank-minor";
    let create = [
        "tenant",
        "create",
        slug,
        "--country",
        "FR",
        "--profile",
        "fintech",
    ];
    let refused = platform
        .cli(&[&create[..], &["--tier", "shared"]].concat())
        .await;
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("service level high needs tier dedicated"),
        "{refused:?}"
    );
    let made = platform
        .cli(&[&create[..], &["--tier", "shared", "--sla", "standard"]].concat())
        .await;
    assert_eq!(made.code, Some(0), "{made:?}");
    for line in [
        "tier: shared (override; profile gives dedicated)",
        "sla: standard (override; profile gives high)",
        "retention_days: 1825 (profile)",
        "mfa: required (profile)",
    ] {
        assert!(made.stdout.contains(line), "{line}: {made:?}");
    }
    let set = platform
        .cli(&["tenant", "set", slug, "retention_days", "3650"])
        .await;
    assert!(
        set.stdout.contains("3650 (override; profile gives 1825)"),
        "{set:?}"
    );
    for (key, value, code) in [
        ("retention_days", "-1", 3),
        ("mfa", "perhaps", 3),
        ("tier", "schema", 3),
        ("colour", "red", 4),
    ] {
        let ran = platform.cli(&["tenant", "set", slug, key, value]).await;
        assert_eq!(ran.code, Some(code), "{key}: {ran:?}");
    }
    assert_eq!(
        platform
            .cli(&["tenant", "set", slug, "retention_days"])
            .await
            .code,
        Some(0)
    );
    let settings = platform
        .operate("GET", &format!("/tenants/{slug}/settings"), None)
        .await
        .expect(200);
    let retention = settings["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["key"] == "retention_days");
    assert_eq!(retention.unwrap()["origin"], "profile", "{settings}");
}

/// A version that nobody has tried would reach production.
#[tokio::test]
async fn versions_go_from_one_environment_to_the_next() {
    let platform = shared().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dev.json");
    let ran = platform
        .cli(&[
            "promote",
            "inventory",
            "--to",
            "test",
            "--export",
            file.to_str().unwrap(),
        ])
        .await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = platform
        .cli(&["promote", "inventory", "--to", "preprod"])
        .await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("version-not-run-before"), "{ran:?}");
    let own = platform
        .cli(&["promote", "--import", file.to_str().unwrap()])
        .await;
    assert_eq!(own.code, Some(3), "one's own record: {own:?}");

    // What the installation of the test environment would have written.
    let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let version = record["runs"][0]["version"].as_str().unwrap().to_owned();
    record["environment"] = json!("test");
    let mut run = record["runs"][0].clone();
    run["environment"] = json!("test");
    record["runs"].as_array_mut().unwrap().push(run);
    fs::write(&file, record.to_string()).unwrap();
    let ran = platform
        .cli(&["promote", "--import", file.to_str().unwrap()])
        .await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let wish = format!("inventory@{version}");
    let ran = platform.cli(&["promote", &wish, "--to", "preprod"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = platform.cli(&["promote", &wish, "--to", "prod"]).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
}

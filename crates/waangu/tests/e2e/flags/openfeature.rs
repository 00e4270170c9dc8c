//! The flags as OpenFeature's own clients read them: `@openfeature` packages of pinned versions, in node.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use super::set;
use crate::support::{PASSWORD, Platform, shared, skipped};

/// Installing packages and starting node, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// The program and its packages' pinned versions, in a folder of their own below the build's.
async fn prepared() -> Result<PathBuf, String> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openfeature");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openfeature");
    std::fs::create_dir_all(&folder).unwrap();
    let mut fresh = false;
    for file in ["package.json", "package-lock.json", "read.mjs"] {
        let wanted = std::fs::read(from.join(file)).unwrap();
        if std::fs::read(folder.join(file)).ok() != Some(wanted.clone()) {
            std::fs::write(folder.join(file), wanted).unwrap();
            fresh = true;
        }
    }
    if fresh || !folder.join("node_modules/@openfeature/web-sdk").exists() {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
        let installed = ended(npm.current_dir(&folder)).await?;
        if !installed.status.success() {
            return Err(String::from_utf8_lossy(&installed.stderr).into_owned());
        }
    }
    Ok(folder)
}

async fn ended(command: &mut Command) -> Result<Output, String> {
    let output = timeout(PATIENCE, command.kill_on_drop(true).output()).await;
    let output = output.map_err(|_late| "it does not end".to_owned())?;
    output.map_err(|error| error.to_string())
}

/// What the clients of somebody of a tenant get.
async fn read(folder: &Path, platform: &Platform, slug: &str, flags: &Value) -> Value {
    let token = platform.sign_in(&format!("root@{slug}"), PASSWORD).await;
    let mut node = Command::new("node");
    node.arg("read.mjs")
        .current_dir(folder)
        .env("NODE_EXTRA_CA_CERTS", &platform.ready.ca)
        .env("BASE", platform.at(slug, ""))
        .env("TOKEN", token)
        .env("FLAGS", flags.to_string());
    let output = ended(&mut node).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// A front end's authors use an ordinary OpenFeature client; if it can't read a tenant's flags, there
/// are none for them. And what a browser says of itself must not make it another tenant.
#[tokio::test]
async fn an_ordinary_openfeature_client_reads_a_tenants_flags() {
    let folder = match prepared().await {
        Ok(folder) => folder,
        Err(why) => return skipped("OpenFeature's clients", &why),
    };
    let platform = shared().await;
    for slug in ["of-gold", "of-plain"] {
        platform.tenant(slug, "shared").await;
    }
    let plan = json!({ "entitlements": { "users": 50, "inventory.products": 500 } });
    platform
        .operate("PUT", "/plans/of-gold", Some(&plan))
        .await
        .expect(200);
    let wish = json!({ "plan": "of-gold" });
    platform
        .operate("PATCH", "/tenants/of-gold", Some(&wish))
        .await
        .expect(200);
    set(platform, "of-gold", "inventory.batch_moves", &json!(false)).await;
    set(platform, "of-gold", "inventory.products", &json!(7)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let asked = json!({
        "inventory.batch_moves": true, "inventory.products": -1, "users": -1, "nothing": "mine",
    });
    let told = |value: Value, reason: &str, origin: &str| json!({ "value": value, "reason": reason, "variant": origin, "origin": origin });
    let targeted = "TARGETING_MATCH";
    let missing = json!({ "value": "mine", "reason": "ERROR", "errorCode": "FLAG_NOT_FOUND" });
    let gold = json!({
        "inventory.batch_moves": told(json!(false), targeted, "override"),
        "inventory.products": told(json!(7), targeted, "override"),
        "users": told(json!(50), targeted, "plan"),
        "nothing": missing,
    });
    let got = read(&folder, platform, "of-gold", &asked).await;
    assert_eq!(got, json!({ "server": gold, "web": gold }));

    let asked = json!({ "inventory.batch_moves": false });
    let defaults = json!({ "inventory.batch_moves": told(json!(true), "STATIC", "default") });
    let got = read(&folder, platform, "of-plain", &asked).await;
    assert_eq!(got, json!({ "server": defaults, "web": defaults }));
}

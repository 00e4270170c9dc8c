//! The command line as scripts use it.

use serde_json::Value;

use crate::support::{Folder, Ran, run, shared};

const TREE: &[(&str, &[&str])] = &[
    ("up", &[]),
    ("control", &[]),
    ("gateway", &[]),
    (
        "tenant",
        &[
            "create",
            "import",
            "list",
            "show",
            "tree",
            "explain",
            "set",
            "suspend",
            "resume",
            "delete",
            "move",
            "moves",
            "cancel-move",
        ],
    ),
    ("module", &["list", "enable", "disable"]),
    ("user", &["list", "create", "delete"]),
    ("role", &["list", "set"]),
    ("audit", &["tail"]),
    ("cell", &["list", "show", "add", "drain", "activate"]),
    ("flag", &["keys", "list", "get", "set", "unset"]),
    (
        "plan",
        &["list", "show", "put", "delete", "assign", "unassign"],
    ),
    ("apply", &[]),
    ("promote", &[]),
    ("doctor", &[]),
    ("openapi", &[]),
    ("docs", &["errors", "cli", "fleet"]),
];

/// A script branches on the exit code, and shows people the one line on stderr.
fn refused(ran: &Ran, code: i32) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert_eq!(ran.stdout, "", "{ran:?}");
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert!(
        lines.len() == 1 && lines[0].starts_with("error: "),
        "{ran:?}"
    );
}

/// Help is how somebody finds the way without us.
#[tokio::test]
async fn every_command_explains_itself() {
    let mut commands = vec![vec![]];
    for (command, subcommands) in TREE {
        commands.push(vec![*command]);
        commands.extend(subcommands.iter().map(|sub| vec![*command, *sub]));
    }
    for mut words in commands {
        words.push("--help");
        let ran = run(&words).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stdout.contains("Usage:"), "{words:?}: {ran:?}");
    }
    let version = run(&["--version"]).await;
    assert_eq!(version.code, Some(0));
    assert!(version.stdout.starts_with("waangu "), "{version:?}");
}

/// Scripts tell "refused" from "not found" from "broken" by the exit code alone.
#[tokio::test]
async fn exit_codes_tell_what_happened() {
    let platform = shared().await;
    for words in [
        &["tenant", "create", "cli-x", "--country", "XX"][..],
        &["tenant", "create", "teranga-market", "--country", "SN"],
        &["tenant", "create", "Bad Slug", "--country", "SN"],
        &[
            "tenant",
            "create",
            "cli-x",
            "--country",
            "SN",
            "--parent",
            "nobody",
        ],
        &["tenant", "delete", "sahel-group", "--yes"],
        &["plan", "put", "cli-plan", "usres=5"],
        &["plan", "assign", "teranga-market", "nothing"],
        &["user", "create", "teranga-market", "x", "--role", "boss"],
        &[
            "user",
            "create",
            "teranga-market",
            "x",
            "--password",
            "short",
        ],
    ] {
        refused(&platform.cli(words).await, 3);
    }
    for words in [
        &["tenant", "show", "nobody"][..],
        &["tenant", "suspend", "nobody"],
        &["flag", "list", "nobody"],
        &["flag", "set", "teranga-market", "usres", "5"],
        &["flag", "unset", "teranga-market", "users"],
        &["plan", "show", "nothing"],
        &["tenant", "delete", "nobody", "--yes"],
        &["user", "list", "nobody"],
        &["user", "delete", "teranga-market", "nobody"],
        &["role", "set", "teranga-market", "nobody", "tenant-admin"],
    ] {
        refused(&platform.cli(words).await, 4);
    }
    for words in [
        &["tenant", "delete", "teranga-market"][..],
        &["flag", "set", "teranga-market", "users", "many"],
        &["plan", "put", "cli-plan", "inventory.batch_moves=perhaps"],
    ] {
        refused(&platform.cli(words).await, 2);
    }
    for words in [
        &["tenant"][..],
        &["tenant", "create", "cli-x"],
        &["tenant", "show"],
        &["fly"],
        &["tenant", "list", "--output", "yaml"],
    ] {
        let ran = platform.cli(words).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(!ran.stderr.is_empty() && ran.stdout.is_empty(), "{ran:?}");
    }
    let folder = Folder::new();
    let state = folder.state();
    let away = ["--state", state.to_str().unwrap(), "tenant", "list"];
    let ran = run(&away).await;
    refused(&ran, 1);
    assert!(ran.stderr.contains("waangu up"), "{ran:?}");
}

/// Whatever a program asks for as JSON, it must be able to read.
#[tokio::test]
async fn json_is_json() {
    let platform = shared().await;
    for words in [
        &["tenant", "list"][..],
        &["tenant", "tree"],
        &["tenant", "show", "min-sante"],
        &["module", "list"],
        &["user", "list", "teranga-market"],
        &["role", "list"],
        &["audit", "tail", "--limit", "5"],
        &["audit", "tail", "--tenant", "min-sante"],
        &["cell", "list"],
        &["flag", "keys"],
        &["flag", "list", "teranga-market"],
        &["flag", "get", "teranga-market", "users"],
        &["plan", "list"],
        &["cell", "show", "eu-west-1a"],
        &["tenant", "explain", "min-sante"],
        &["promote"],
        &["doctor"],
        &[
            "tenant",
            "create",
            "cli-json",
            "--country",
            "FR",
            "--name",
            "Été",
        ],
        &["module", "disable", "cli-json", "inventory"],
        &["module", "enable", "cli-json", "inventory"],
        &[
            "user",
            "create",
            "cli-json",
            "amy",
            "--role",
            "inventory.clerk",
        ],
        &["role", "set", "cli-json", "amy", "inventory.viewer"],
        &["tenant", "suspend", "cli-json"],
        &["tenant", "resume", "cli-json"],
        &["tenant", "delete", "cli-json", "--yes"],
    ] {
        let ran = platform.cli(&[&["--output", "json"], words].concat()).await;
        assert_eq!(ran.code, Some(0), "{words:?}: {ran:?}");
        let parsed: Result<Value, _> = serde_json::from_str(&ran.stdout);
        assert!(parsed.is_ok(), "{words:?}: {}", ran.stdout);
        assert!(!ran.stdout.contains('\u{1b}'), "colours in {words:?}");
        let ran = platform.cli(&["tenant", "tree"]).await;
        assert!(ran.stdout.contains("sahel-senegal"), "{ran:?}");
    }
}

/// The doctor is who people ask when nothing works: it has to be right when all is well, too.
#[tokio::test]
async fn the_doctor_knows_well_from_ill() {
    let platform = shared().await;
    let well = platform.cli(&["doctor"]).await;
    assert_eq!(well.code, Some(0), "{well:?}");
    let folder = Folder::new();
    let state = folder.state();
    let ran = run(&["--state", state.to_str().unwrap(), "doctor"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("waangu up"), "{ran:?}");
}

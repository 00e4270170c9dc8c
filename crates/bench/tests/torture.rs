//! The tortures, short and from a fixed seed; `cargo xtask torture` runs them as long as one likes.

use std::path::Path;
use std::process::Command;

/// A move that loses or doubles a write under kills would make everything else about it worthless.
#[test]
fn a_short_torture_of_moves_loses_nothing() {
    let bench = Path::new(env!("CARGO_BIN_EXE_bench"));
    assert!(
        bench.with_file_name("waangu").exists(),
        "waangu does not stand beside {}: run `cargo xtask test`, or `cargo build --workspace`",
        bench.display()
    );
    let output = Command::new(bench)
        .args(["relocation", "--torture", "0.3", "--seed", "7"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{talk}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.ends_with(", 0 losses"), "{said}{talk}");
    assert!(!last.starts_with("0 operations"), "{said}{talk}");
}

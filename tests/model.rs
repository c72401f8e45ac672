//! `make check-model` compares each proof of the secure wire with the expected result. A stub stands for the prover here.

use std::fs;
use std::process::{Command, Output};

use crate::lab::Scratch;

/// Says of three queries that they are proved.
const ALL_TRUE: &str = "#!/bin/sh\nfor query in 1 2 3; do echo \"RESULT event($query) ==> event(1) is true.\"; done\n";

/// Runs `make check-model` with these runs and this program.
fn make(runs: &str, proverif: &str) -> Output {
    let mut command = Command::new("make");
    command.args(["--no-print-directory", "check-model"]).arg(format!("RUNS={runs}"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("MAKEFLAGS").env("PROVERIF", proverif);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn differing_result_fails_model() {
    let scratch = Scratch::new();
    let proverif = scratch.write("proverif", ALL_TRUE, 0o755);
    let proverif = proverif.to_str().unwrap();
    let run = |name| make(name, proverif);

    let same = run("agreement");
    assert!(same.status.success() && said(&same).starts_with("ok      agreement "), "{}", said(&same));
    // An attack is expected: no attack is a difference, in one of its queries or in their number.
    for name in ["tooth-nothing-agreed", "limit-wrong-head"] {
        let differs = run(name);
        assert!(
            !differs.status.success() && said(&differs).starts_with(&format!("FAILED  {name} ")),
            "{}",
            said(&differs)
        );
    }
    let missing = run("no-such-run");
    assert!(
        !missing.status.success() && said(&missing).contains("no run of this name: no-such-run"),
        "{}",
        said(&missing)
    );
}

#[test]
fn long_check_includes_model() {
    let makefile = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Makefile")).unwrap();
    let recipe = makefile.split("\ncheck-long:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    assert!(recipe.split_whitespace().any(|part| part == "check-model"), "{recipe}");
    let missing = make("", "/nonexistent/proverif");
    assert!(
        !missing.status.success() && said(&missing).contains("/nonexistent/proverif: not found"),
        "{}",
        said(&missing)
    );
}

//! `make check` says how long each of its parts has taken and, in its last line, what was not run.

use std::process::Command;

use crate::lab::Scratch;

const PARTS: &str = "
.PHONY: tests attacks wrong green
tests:
	@echo 'test module::runs ... ok'
	@echo 'test module::one ... ignored, they need another machine'
	@echo 'test module::two ... ignored, they need another machine'
	@echo 'test alone ... ignored'
	@echo 'It would be NOT RUN: no: this line begins with something else'
attacks:
	@echo 'NOT RUN: attack first: an old kernel' >&2
	@echo 'test attacks ... NOT RUN: attack second: an old kernel'
	@echo 'NOT RUN: attack third: a new kernel'
	@echo 'NOT RUN: linter: it is not here'
wrong:
	@echo 'something is wrong'; exit 3
green:
	@echo 'NOT A PROBLEM'
";

/// Runs these parts, and returns what is said and the status.
fn parts(names: &[&str]) -> (Vec<String>, Option<i32>) {
    let scratch = Scratch::new();
    let file = scratch.write("Makefile", PARTS, 0o644);
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parts"));
    command.arg(format!("make -f {}", file.display())).arg("check").args(names).env_remove("MAKEFLAGS");
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (text.lines().map(str::to_owned).collect(), output.status.code())
}

/// The last line without the seconds.
fn verdict(lines: &[String]) -> String {
    let words: Vec<_> = lines.last().unwrap().split(' ').collect();
    let seconds = words.iter().position(|word| word.parse::<u32>().is_ok()).unwrap();
    [&words[..seconds], &words[seconds + 1..]].concat().join(" ")
}

#[test]
fn last_line_lists_skipped_parts() {
    let (lines, status) = parts(&["tests", "attacks", "green"]);
    assert_eq!(status, Some(0), "{lines:?}");
    let not_run = "2 module tests (they need another machine), test alone (ignored), 2 attacks (an old kernel), \
        attack third (a new kernel), linter (it is not here)";
    assert_eq!(verdict(&lines), format!("check: green in s; not run: {not_run}"));
    for part in ["tests", "attacks", "green"] {
        assert!(lines.iter().any(|line| line.starts_with(&format!("  {part} ")) && line.ends_with(" s")), "{lines:?}");
    }
    let (lines, status) = parts(&["green"]);
    assert_eq!((verdict(&lines).as_str(), status), ("check: green in s; not run: nothing", Some(0)));
}

#[test]
fn failed_part_is_last_with_its_status() {
    let (lines, status) = parts(&["attacks", "wrong", "green", "tests"]);
    assert_eq!(status, Some(2), "what make ends with");
    let not_run = "2 attacks (an old kernel), attack third (a new kernel), linter (it is not here), green tests";
    assert_eq!(verdict(&lines), format!("check: wrong FAILED after s; not run: {not_run}"));
    assert!(!lines.iter().any(|line| line == "NOT A PROBLEM"));
}

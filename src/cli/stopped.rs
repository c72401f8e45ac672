//! Answer of `show NAME` for a tunnel that does not run: whether its file exists, and the state of its unit.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::location;
use crate::log;

/// Directory that exists where systemd is the service manager (`sd_booted(3)`).
const SYSTEMD: &str = "/run/systemd/system";
/// Longest wait for the service manager.
const LIMIT: Duration = Duration::from_secs(2);
/// Properties of the unit.
const PROPERTIES: &str = "--property=LoadState,ActiveState,SubState,Result,ExecMainStatus,StateChangeTimestamp";

/// Reason why a tunnel has no status, and advice.
pub fn sentence(name: &str) -> String {
    let listed = "`ethudp show` lists the running tunnels";
    if Path::new(name).extension().is_some_and(|end| end == "toml") {
        return format!("must be the NAME of a running tunnel, not a file; {listed}");
    }
    let file = Path::new(location::DIRECTORY).join(format!("{name}.toml"));
    if !file.exists() {
        return format!("not running, and {} does not exist; {listed}", file.display());
    }
    let unit = if Path::new(SYSTEMD).is_dir() { ask(name).ok().and_then(|text| of_unit(name, &text)) } else { None };
    unit.unwrap_or_else(|| format!("not running; start it with `ethudp up {name}` ({} exists)", file.display()))
}

/// Properties of the unit from systemd, within a time limit.
fn ask(name: &str) -> io::Result<String> {
    let mut command = Command::new("systemctl");
    command.args(["show", &format!("ethudp@{name}"), PROPERTIES]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let start = Instant::now();
    // The output of some hundred bytes fits into the pipe.
    while child.try_wait()?.is_none() {
        if start.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        sleep(Duration::from_millis(5));
    }
    let mut text = String::new();
    child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?.take(1 << 16).read_to_string(&mut text)?;
    Ok(text)
}

/// Sentence about the unit; `None` if the unit does not exist.
fn of_unit(name: &str, text: &str) -> Option<String> {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        log::untrusted(line.unwrap_or_default())
    };
    if value("LoadState") != "loaded" {
        return None;
    }
    let (state, result) = (value("ActiveState"), value("Result"));
    let since = match value("StateChangeTimestamp") {
        time if time.is_empty() => String::new(),
        time => format!(" since {time}"),
    };
    let journal = format!("see `journalctl -u ethudp@{name} -p warning`");
    let cause = match (result.as_str(), value("ExecMainStatus").as_str()) {
        ("success" | "", _) => None,
        ("exit-code", "78") => Some(format!("configuration error (status 78), run `ethudp check {name}`")),
        ("exit-code", "79") => Some("its workers crashed repeatedly (status 79)".into()),
        ("exit-code", status) => Some(format!("ended with status {status}")),
        ("start-limit-hit", _) => Some(format!("started too often, run `systemctl reset-failed ethudp@{name}`")),
        ("oom-kill", _) => Some("killed by the kernel because memory ran out".into()),
        (other, _) => Some(format!("result {other}")),
    };
    let sub = if value("SubState") == "auto-restart" { ", waiting for its next start" } else { "" };
    Some(match (state.as_str(), cause) {
        ("inactive", None) => {
            format!("not running: ethudp@{name} is inactive{since}; start it with `systemctl start ethudp@{name}`")
        }
        (_, None) => format!("no answer: ethudp@{name} is {state}{sub}{since}; {journal}"),
        (_, Some(cause)) => format!("not running: ethudp@{name} is {state}{sub}{since}: {cause}; {journal}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sentence for a unit in this state.
    fn say(state: &str, sub: &str, result: &str, status: &str) -> String {
        let text = format!(
            "LoadState=loaded\nActiveState={state}\nSubState={sub}\nResult={result}\nExecMainStatus={status}\n\
             StateChangeTimestamp=Tue 2026-12-01 01:20:00 UTC\n"
        );
        of_unit("a", &text).unwrap()
    }

    #[test]
    fn each_unit_state_has_advice() {
        let failed = say("failed", "failed", "exit-code", "78");
        let begin =
            "not running: ethudp@a is failed since Tue 2026-12-01 01:20:00 UTC: configuration error (status 78)";
        assert!(failed.starts_with(begin) && failed.contains("`ethudp check a`"), "{failed}");
        for (state, sub, result, status, words) in [
            ("failed", "failed", "exit-code", "79", "crashed repeatedly (status 79); see `journalctl -u ethudp@a"),
            ("failed", "failed", "start-limit-hit", "1", "`systemctl reset-failed ethudp@a`"),
            ("failed", "failed", "watchdog", "0", ": result watchdog"),
            ("activating", "auto-restart", "exit-code", "1", "is activating, waiting for its next start since"),
            ("activating", "start", "success", "0", "no answer: ethudp@a is activating since"),
            ("inactive", "dead", "success", "0", "start it with `systemctl start ethudp@a`"),
        ] {
            let text = say(state, sub, result, status);
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn missing_unit_has_no_state() {
        assert_eq!(of_unit("a", "LoadState=not-found\nActiveState=inactive\n"), None);
        assert_eq!(of_unit("a", ""), None);
        let text = of_unit("a", "LoadState=loaded\nActiveState=\u{1b}[2J\nResult=\u{9b}x\n").unwrap();
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}

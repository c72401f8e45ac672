//! The classic command without `-d`: returns when the tunnel is ready, and the key is gone from its command line.

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Background, Running, Scratch, Sites, allowed, assert_udp, wait_for};

/// Ends what was started in the background, however the test ends.
struct Supervisor(Pid);

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGTERM);
        wait_for("end in the background", crate::lab::PATIENCE, || kill(self.0, None).is_err().then_some(()));
    }
}

fn status(scratch: &Scratch, name: &str) -> Option<serde_json::Value> {
    let stream = UnixStream::connect(scratch.path().join(format!("{name}.sock"))).ok()?;
    serde_json::from_reader(stream).ok()
}

fn supervisor(scratch: &Scratch, name: &str) -> Option<Supervisor> {
    let status = status(scratch, name)?;
    Some(Supervisor(Pid::from_raw(i32::try_from(status["pids"]["supervisor"].as_i64()?).ok()?)))
}

#[test]
fn background_start_returns_when_ready() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let arguments = "-n a -i -dev eu0 -k top-secret 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24";
    let run = Background::run(&sites.a, &scratch, &[], &arguments.split(' ').collect::<Vec<_>>());
    assert_eq!(run.status.code(), Some(0), "{}", run.output);
    // Ready means: the address is there, the worker forwards.
    let supervisor = supervisor(&scratch, "a").expect("a tunnel in the background");
    let _b = Running::classic(&sites.b, "b", "-i -k top-secret 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24");
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    let line = fs::read_to_string(format!("/proc/{}/cmdline", supervisor.0)).unwrap();
    assert!(line.contains("-k\0**********\0") && !line.contains("top-secret"), "{line:?}");
    for stream in 0..3 {
        let target = fs::read_link(format!("/proc/{}/fd/{stream}", supervisor.0)).unwrap();
        assert_eq!(target.to_str(), Some("/dev/null"), "standard stream {stream}");
    }
    drop(supervisor);
    assert_eq!(scratch.entries(), [""; 0]);
    assert!(!sites.a.interfaces().contains(&"eu0".into()));
}

#[test]
fn inherited_descriptors_are_closed() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let arguments = "-n a -i -dev eu0 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24";
    let mut command = crate::lab::ethudp(&scratch, &[], &arguments.split(' ').collect::<Vec<_>>());
    // As in `ethudp ... 2>&1 | cat`, and with one more descriptor that a shell has left open.
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = sites.a.spawn(&mut command);
    drop(command);
    assert!(child.wait().unwrap().success());
    let _supervisor = supervisor(&scratch, "a").expect("a tunnel in the background");
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(std::io::copy(&mut reader, &mut std::io::sink())));
    assert!(ended.recv_timeout(crate::lab::PATIENCE).is_ok(), "a process holds the pipe");
}

#[test]
fn worker_is_replaced_after_its_ticks() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let arguments = "-x 2 -n a -i -dev eu0 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24";
    let run = Background::run(&sites.a, &scratch, &[], &arguments.split(' ').collect::<Vec<_>>());
    assert_eq!(run.status.code(), Some(0), "{}", run.output);
    let _supervisor = supervisor(&scratch, "a").expect("a tunnel in the background");
    let worker = || status(&scratch, "a").and_then(|status| status["pids"]["worker"].as_i64());
    let first = worker();
    let mut without = Duration::ZERO;
    wait_for("two replacements", crate::lab::PATIENCE, || {
        let now = std::time::Instant::now();
        while worker().is_none() {}
        without = without.max(now.elapsed());
        (status(&scratch, "a")?["worker_restarts"].as_u64()? >= 2).then_some(())
    });
    assert_ne!(worker(), first);
    assert!(without < allowed(Duration::from_secs(1)), "{without:?} without a worker");
}

#[test]
fn default_key_and_xor_warn_once() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", "-enc xor -i 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24");
    a.replace_worker();
    for words in ["key is EthUDP's default \"123456\"", "xor is not encryption"] {
        assert_eq!(a.log().matches(words).count(), 1, "{}", a.log());
    }
}

#[test]
fn failed_start_has_message_and_status() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let arguments = "-e 192.0.2.1 6000 192.0.2.2 6000 eth9";
    let run = Background::run(&sites.a, &scratch, &[], &arguments.split(' ').collect::<Vec<_>>());
    assert_eq!(run.status.code(), Some(1));
    assert!(run.output.contains("interface \"eth9\": no such interface"), "{}", run.output);
    assert!(supervisor(&scratch, "eth9").is_none());
}

#[test]
fn unread_log_blocks_nothing() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let (_reader, writer) = std::io::pipe().unwrap();
    let arguments = "-d -n a -i -dev eu0 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24";
    let mut command = crate::lab::ethudp(&scratch, &[], &arguments.split(' ').collect::<Vec<_>>());
    command.stdout(std::process::Stdio::null()).stderr(writer);
    let mut child = sites.a.spawn(&mut command);
    drop(command);
    wait_for("ready", crate::lab::PATIENCE, || {
        status(&scratch, "a").filter(|status| status["pids"]["worker"].is_i64())
    });
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    // Each prints statistics; a pipe holds 64 KiB.
    for _ in 0..250 {
        kill(pid, Signal::SIGHUP).unwrap();
        std::thread::sleep(Duration::from_millis(4));
    }
    assert!(status(&scratch, "a").is_some(), "no status any more");
    kill(pid, Signal::SIGTERM).unwrap();
    let ended = wait_for("end", crate::lab::PATIENCE, || child.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
}

//! `ethudp show` among sockets that are not what they should be, and a control socket under a storm.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::lab::{Background, ETHUDP, Namespace, PATIENCE, Running, Scratch, Sites, allowed, wait_for};

const TAP: &str = "-i -dev eu0 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24";
/// Longest that one deadline over all may take, with the start of the program on a busy machine.
const DEADLINE: Duration = Duration::from_secs(5);

/// Answers everybody at this socket in this way, until the test's process ends.
fn serve(socket: PathBuf, answer: impl Fn(UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
}

#[test]
fn bad_status_sockets_are_named() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", TAP);
    let honest = serde_json::to_string(&a.status()).unwrap();
    let socket = |name: &str| a.scratch.path().join(format!("{name}.sock"));
    let lie = honest.replace("\"tap\"", "\"\\u001b]0;evil\\u0007\\u009b2J\\u202etap\"").replace("\"a\"", "\"good\"");
    assert_ne!(lie, honest);
    serve(socket("liar"), move |mut stream| drop(stream.write_all(lie.as_bytes())));
    serve(socket("endless"), |mut stream| while stream.write_all(&[b' '; 4096]).is_ok() {});
    serve(socket("nonsense"), |mut stream| drop(stream.write_all(b"{\"name\": \"\\u001b[31m\"}")));
    // No process ever accepts, so that its queue is full after one; the other drips.
    let silent = UnixListener::bind(socket("silent")).unwrap();
    nix::sys::socket::listen(&silent, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _queue: Vec<_> = (0..1).map(|_| UnixStream::connect(socket("silent")).unwrap()).collect();
    serve(socket("slow"), |mut stream| {
        while stream.write_all(b" ").is_ok() {
            sleep(Duration::from_millis(300));
        }
    });
    std::fs::write(socket("file"), honest).unwrap();
    let script =
        "import socket,sys,time\ns=socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\ntime.sleep(30)";
    let mut foreign = Command::new("setpriv")
        .args([
            "--pdeathsig=KILL", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "/usr/bin/python3", "-c", script,
        ])
        .arg(socket("foreign"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("foreign socket", DEADLINE, || UnixStream::connect(socket("foreign")).ok());

    let start = Instant::now();
    let run = Background::run(&sites.a, &a.scratch, &[], &["show"]);
    let text = run.output;
    assert!(start.elapsed() < allowed(DEADLINE), "{:?}: {text}", start.elapsed());
    assert_eq!(run.status.code(), Some(1), "{text}");
    assert!(text.contains("\na: tap, connecting, "), "{text}");
    // Shown under the name of its socket, without what a terminal would obey.
    assert!(text.contains("\nliar:  ]0;evil  2J tap, connecting, "), "{text}");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'), "{text:?}");
    for (name, words) in [
        ("endless", "answer longer than 1048576 bytes"),
        ("nonsense", "invalid answer: "),
        ("silent", "no answer within 2 s"),
        ("slow", "no answer within 2 s"),
        ("file", "not a socket"),
        ("foreign", "control socket belongs to a process of user 65534, who may not run tunnels"),
    ] {
        let named = |line: &str| line.contains(&format!("tunnel \"{name}\"")) && line.contains(words);
        assert_eq!(text.lines().filter(|line| named(line)).count(), 1, "{name}: {text}");
    }
    let run = Background::run(&sites.a, &a.scratch, &[], &["show", "foreign"]);
    assert!(run.status.code() == Some(1) && run.output.contains("who may not run tunnels"), "{}", run.output);
    foreign.kill().unwrap();
    foreign.wait().unwrap();
}

/// As under the unit, where each tunnel has a directory of its own, and beside them those that root has started.
#[test]
fn tunnels_in_subdirectories_are_found() {
    let sites = Sites::new();
    let root = Scratch::new();
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let user = nix::unistd::User::from_name("ethudp").unwrap().unwrap();
    std::os::unix::fs::chown(root.path(), Some(user.uid.as_raw()), None).unwrap();
    let place = |name: &str| root.path().join(name);
    let start = |directory: &str, site: &Namespace, name: &str, arguments: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig=KILL", "--", ETHUDP, "-d", "-n", name]).args(arguments.split(' '));
        command.env("RUNTIME_DIRECTORY", place(directory)).env_remove("NOTIFY_SOCKET").stderr(Stdio::piped());
        site.spawn(&mut command)
    };
    let answers = |directory: &str, name: &str| {
        let run = Background::run(&sites.a, &root, &[], &["show", name]);
        run.output.starts_with(&format!("{name}: connecting")).then_some(place(directory))
    };
    let mut a = start("a", &sites.a, "a", TAP);
    wait_for("a", DEADLINE, || answers("a", "a"));
    let mut c = start("", &sites.b, "c", "-i -dev eu0 192.0.2.2 6000 192.0.2.9 6000 10.8.0.2 24");
    wait_for("c", DEADLINE, || answers("", "c"));
    let all = Background::run(&sites.a, &root, &[], &["show"]);
    assert!(all.status.success() && all.output.contains("a: tap") && all.output.contains("\nc: tap"), "{}", all.output);
    for (directory, name) in [("c", "c"), ("", "a"), ("", "c")] {
        let output = start(directory, &sites.a, name, TAP).wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains("already running ("), "{directory:?}, {name}: {said}");
    }

    // A user whose directory root made is believed; one who could have made it himself is not.
    let script = "import socket,sys,time\ns=socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\nwhile True:\n \
                  try: s.accept()[0].send(b'{}')\n except OSError: pass";
    std::fs::create_dir(place("d")).unwrap();
    std::os::unix::fs::chown(place("d"), Some(64_103), Some(64_103)).unwrap();
    let mut other = Command::new("setpriv")
        .args([
            "--pdeathsig=KILL", "--reuid=64103", "--regid=64103", "--clear-groups", "/usr/bin/python3", "-c", script,
        ])
        .arg(place("d/d.sock"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let says = |words: &str| Background::run(&sites.a, &root, &[], &["show", "d"]).output.contains(words).then_some(());
    wait_for("d", DEADLINE, || says("invalid answer: "));
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(says("control socket belongs to a process of user 64103, who may not run tunnels").is_some());
    for child in [&mut a, &mut c, &mut other] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Without a /run/ethudp of tmpfiles.d, with any umask.
#[test]
fn root_makes_runtime_directories() {
    let sites = Sites::new();
    let script = format!(
        "mount -t tmpfs none /run && umask 077 && {{ {ETHUDP} -d -n a {TAP} & }} && for i in $(seq 100); do \
         test -S /run/ethudp/a.sock && break; sleep 0.05; done; \
         stat -c '%a %U:%G %n' /run/ethudp /run/ethudp/a.sock; {ETHUDP} show | head -n 1; \
         setpriv --reuid=nobody --regid=ethudp-status --clear-groups ls /run/ethudp; \
         kill $! && wait; ls -A /run/ethudp"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "setpriv", "--pdeathsig=KILL", "bash", "-c", &script]);
    command.env_remove("RUNTIME_DIRECTORY").env_remove("NOTIFY_SOCKET");
    let output = sites.a.spawn(command.stdout(Stdio::piped())).wait_with_output().unwrap();
    let lines: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(lines[0], "1751 ethudp:ethudp-status /run/ethudp");
    assert_eq!(lines[1], "660 ethudp:ethudp-status /run/ethudp/a.sock");
    assert!(lines[2].starts_with("a: "), "{lines:?}");
    assert_eq!(lines[3..], ["a.sock"], "{lines:?}");
}

#[test]
fn stopped_supervisor_is_reported() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", TAP);
    let supervisor = a.pid("supervisor");
    kill(supervisor, Signal::SIGSTOP).unwrap();
    let run = Background::run(&sites.a, &a.scratch, &[], &["show", "a"]);
    kill(supervisor, Signal::SIGCONT).unwrap();
    let words = "tunnel \"a\": no answer within 2 s: check whether its supervisor is stopped";
    assert!(run.status.code() == Some(1) && run.output.contains(words), "{}", run.output);
    assert!(run.took < allowed(DEADLINE), "{:?}", run.took);
}

/// Twelve clients that connect and close without end once stalled the supervisor for 19 s.
#[test]
fn request_storm_delays_nothing() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", TAP);
    let (socket, worker) = (a.scratch.path().join("a.sock"), a.pid("worker"));
    let (over, connections) = (AtomicBool::new(false), AtomicU64::new(0));
    let (socket, over, connections) = (&socket, &over, &connections);
    let replaced = || a.log().lines().filter(|line| line.ends_with(" forwards")).count() > 1;
    let took = thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(move || {
                while !over.load(Relaxed) {
                    connections.fetch_add(u64::from(UnixStream::connect(socket).is_ok()), Relaxed);
                }
            });
        }
        sleep(Duration::from_millis(500));
        let start = Instant::now();
        kill(worker, Signal::SIGKILL).unwrap();
        while !replaced() && start.elapsed() < PATIENCE {
            sleep(Duration::from_millis(5));
        }
        over.store(true, Relaxed);
        start.elapsed()
    });
    assert!(connections.load(Relaxed) > 1000, "{connections:?} connections are no storm");
    assert!(took < allowed(Duration::from_secs(3)), "the next worker forwarded after {took:?}");
}

/// Connects again and again, with and without taking the answer.
const STORM: &str = "import socket,sys,threading\ndef go(takes):\n while True:\n  try:\n   s=socket.socket(socket.AF_UNIX)\n   \
                     s.connect(sys.argv[1])\n   if takes: s.recv(1 << 20)\n   s.close()\n  except OSError: pass\n\
                     for n in range(12): threading.Thread(target=go,args=(n%2,)).start()";

/// More than half of these failed once, and said that the invalid answer: .
#[test]
fn root_is_answered_under_storm() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", TAP);
    let mut storms: Vec<_> = (0..2)
        .map(|_| {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig=KILL", "--reuid=64104", "--regid=ethudp-status", "--clear-groups"]);
            command.args(["/usr/bin/python3", "-c", STORM]).arg(a.scratch.path().join("a.sock"));
            command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    sleep(Duration::from_secs(1));
    let asked: Vec<_> = (0..20).map(|_| Background::run(&sites.a, &a.scratch, &[], &["show", "a"])).collect();
    for storm in &mut storms {
        assert!(storm.try_wait().unwrap().is_none(), "the storm is over");
        storm.kill().unwrap();
        storm.wait().unwrap();
    }
    let failed: Vec<_> = asked.iter().filter(|run| !run.output.starts_with("a: ")).map(|run| &run.output).collect();
    assert!(failed.is_empty(), "{} of 20: {failed:?}", failed.len());
}

#[test]
fn closed_connection_means_busy() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    serve(scratch.path().join("busy.sock"), drop);
    let run = Background::run(&sites.a, &scratch, &[], &["show", "busy"]);
    let words = "tunnel \"busy\": no answer within 2 s: the supervisor is busy with other requests";
    assert!(run.status.code() == Some(1) && run.output.contains(words), "{}", run.output);
}

#[test]
fn stopped_tunnel_shows_its_unit() {
    const SYSTEMCTL: &str = "/usr/bin/systemctl";
    if !std::path::Path::new(SYSTEMCTL).exists() {
        crate::lab::not_run("show of a stopped unit", "no systemctl here");
        return;
    }
    let sites = Sites::new();
    let scratch = Scratch::new();
    let said = "#!/bin/sh\ntest \"$2\" = ethudp@site || exit 1\nprintf 'LoadState=loaded\\nActiveState=failed\\nSubState=failed\\n\
                Result=exit-code\\nExecMainStatus=78\\nStateChangeTimestamp=today\\n'\n";
    let systemctl = scratch.write("systemctl", said, 0o755);
    let script = format!(
        "mkdir {0}/etc && cp -a /etc/passwd /etc/group {0}/etc && mount -t tmpfs none /etc && cp -a {0}/etc/* /etc && \
         mkdir /etc/ethudp && touch /etc/ethudp/site.toml && mount -t tmpfs none /run || exit 9; \
         {ETHUDP} show site; {ETHUDP} show other; mkdir -p /run/systemd/system; mount --bind {1} {SYSTEMCTL}; {ETHUDP} show site",
        scratch.path().display(),
        systemctl.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "setpriv", "--pdeathsig=KILL", "sh", "-c", &script]);
    command.env("RUNTIME_DIRECTORY", scratch.path()).stderr(Stdio::piped());
    let output = sites.a.spawn(&mut command).wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = text.lines().collect();
    for (line, words) in lines.iter().zip([
        "tunnel \"site\": not running; start it with `ethudp up site` (/etc/ethudp/site.toml exists)",
        "tunnel \"other\": not running, and /etc/ethudp/other.toml does not exist; `ethudp show` lists the running tunnels",
        "tunnel \"site\": not running: ethudp@site is failed since today: configuration error (status 78), run `ethudp \
         check site`",
    ]) {
        assert!(line.contains(words), "{words}: {text}");
    }
    assert!(lines.len() == 3 && output.status.code() == Some(1), "{text}");
}

#[test]
fn show_help_is_about_show() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let run = |arguments: &[&str]| Background::run(&sites.a, &scratch, &[], arguments).output;
    let help = run(&["help", "show"]);
    assert!(help.contains("Usage: ethudp show") && !help.contains("genkey"), "{help}");
    for option in ["--watch", "--all"] {
        let text = run(&["show", option]);
        assert!(text.contains(&format!("unexpected argument '{option}'")) && !text.contains("as a value"), "{text}");
    }
}

/// What a host says and what a firewall or a router on the way says are different faults.
#[test]
fn port_unreachable_and_prohibited_are_told_apart() {
    let sites = Sites::new();
    sites.b.inside(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    sites.b.ip("route add prohibit 198.51.100.9");
    sites.a.ip("route add 198.51.100.9 via 192.0.2.2");
    for (name, port, peer, words) in [
        ("refused", 6001, "192.0.2.2", " port unreachable: ethudp does not listen on the peer's port"),
        ("filtered", 6002, "198.51.100.9", " prohibited: a firewall at the peer or on the path"),
    ] {
        let arguments = format!("-i -dev {name} 192.0.2.1 {port} {peer} {port} 10.8.0.1 24");
        let tunnel = Running::classic(&sites.a, name, &arguments);
        let text = wait_for(words, PATIENCE, || {
            let text = Background::run(&sites.a, &tunnel.scratch, &[], &["show", name]).output;
            text.contains(words).then_some(text)
        });
        assert_eq!(
            (text.matches(" unreachable: ").count(), text.contains("other errors")),
            (usize::from(port == 6001), false)
        );
        assert!(
            text.contains(&format!("  interface   {name}: ")) && text.contains(" written to it, 0 dropped\n"),
            "{text}"
        );
    }
}

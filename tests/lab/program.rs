//! The program under test.

use std::fs::{self, File, Permissions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Namespace, PATIENCE, wait_for};

/// The supervisor; helper and worker are beside it.
pub const ETHUDP: &str = env!("CARGO_BIN_EXE_ethudp");

/// A directory that goes with the test.
pub struct Scratch {
    path: PathBuf,
    /// Executables that are to stand in the places of worker and resolver.
    worker: Option<&'static str>,
    resolver: Option<&'static str>,
}

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let parent = std::env::temp_dir().join(format!("ethudp-test-{}-{number}", std::process::id()));
        // Any user of a tunnel puts its control socket there, and root executes the copies there. So other users must not
        // find it.
        let path = parent.join(format!("{:016x}", RandomState::new().build_hasher().finish()));
        for (path, mode) in [(&parent, 0o711), (&path, 0o777)] {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        Self { path, worker: None, resolver: None }
    }

    /// One in which the tunnel finds another executable in its worker's place.
    pub fn with_worker(worker: &'static str) -> Self {
        let mut scratch = Self::new();
        scratch.worker = Some(worker);
        scratch
    }

    /// One in which the tunnel finds another executable in its resolver's place.
    pub fn with_resolver(resolver: &'static str) -> Self {
        let mut scratch = Self::new();
        scratch.resolver = Some(resolver);
        scratch
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it writable for its owner only, as the directory of files of tunnels must be.
    pub fn close(&self) {
        fs::set_permissions(&self.path, Permissions::from_mode(0o755)).unwrap();
    }

    /// Writes a file with this mode.
    pub fn write(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.path.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    /// What is in it.
    pub fn entries(&self) -> Vec<String> {
        fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.path.parent().unwrap());
    }
}

/// An executable of this build.
pub fn built(name: &str) -> PathBuf {
    let path = Path::new(ETHUDP).with_file_name(name);
    assert!(path.exists(), "{} is not built: cargo build --workspace", path.display());
    path
}

/// Copies an executable of this build to where anybody can run it. By another process: were the copy open for writing in
/// this one, a child that another thread forks meanwhile would hold it open, and it could not be executed.
pub fn copy_built(name: &str, to: &Path) {
    let copied = Command::new("cp").arg(built(name)).arg(to).status().unwrap();
    assert!(copied.success(), "cp {name} {}", to.display());
}

/// Where this machine has libpcap.
pub fn libpcap() -> String {
    let find = "readlink -f $(/sbin/ldconfig -p | sed -n 's/.*libpcap.so.[01].* => //p' | head -n 1)";
    let found = Command::new("sh").args(["-c", find]).output().unwrap().stdout;
    String::from_utf8(found).unwrap().trim().to_owned()
}

/// A command for the program that dies with the calling thread, `prefix` being options of setpriv(1).
pub fn ethudp(scratch: &Scratch, prefix: &[&str], arguments: &[&str]) -> Command {
    // The build may be in a directory that another user cannot enter.
    let copied = !prefix.is_empty() || scratch.worker.is_some() || scratch.resolver.is_some();
    let mut program = PathBuf::from(ETHUDP);
    let worker = scratch.worker.unwrap_or("ethudp-worker");
    let resolver = scratch.resolver.unwrap_or("ethudp-resolver");
    let others = [("ethudp-worker", worker), ("ethudp-resolver", resolver)];
    for (name, source) in ["ethudp", "ethudp-helper"].map(|name| (name, name)).into_iter().chain(others) {
        if copied {
            copy_built(source, &scratch.path().join(name));
        } else {
            built(source);
        }
    }
    if copied {
        program = scratch.path().join("ethudp");
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).args(prefix).arg("--").arg(program).args(arguments);
    command.env("RUNTIME_DIRECTORY", scratch.path()).env_remove("NOTIFY_SOCKET");
    command
}

/// A tunnel in the foreground.
pub struct Running {
    child: Child,
    pub scratch: Scratch,
    name: String,
}

impl Running {
    /// Starts a tunnel by classic arguments behind `-d -n NAME` and waits until it is ready.
    pub fn classic(namespace: &Namespace, name: &str, arguments: &str) -> Self {
        let words = ["-d", "-n", name].into_iter().chain(arguments.split_whitespace());
        Self::start(namespace, Scratch::new(), name, &[], &words.collect::<Vec<_>>())
    }

    /// Starts a tunnel from a file of this content and waits until it is ready.
    pub fn up(namespace: &Namespace, name: &str, content: &str) -> Self {
        let scratch = Scratch::new();
        let file = scratch.write(&format!("{name}.toml"), content, 0o644);
        Self::start(namespace, scratch, name, &[], &["up", file.to_str().unwrap()])
    }

    pub fn start(namespace: &Namespace, scratch: Scratch, name: &str, prefix: &[&str], arguments: &[&str]) -> Self {
        let command = ethudp(&scratch, prefix, arguments);
        Self::run(namespace, scratch, name, command)
    }

    /// Starts a tunnel that finds the names of this file in its scratch directory, and waits until it is ready or says why not.
    pub fn with_hosts(namespace: &Namespace, scratch: Scratch, name: &str, content: &str, hosts: &Path) -> Self {
        Self::with_mount(namespace, scratch, name, content, (hosts, "/etc/hosts"))
    }

    /// Starts a tunnel that finds this file in the place of another, and waits until it is ready or says why not.
    pub fn with_mount(
        namespace: &Namespace,
        scratch: Scratch,
        name: &str,
        content: &str,
        (source, place): (&Path, &str),
    ) -> Self {
        built("ethudp-resolver");
        let file = scratch.write(&format!("{name}.toml"), content, 0o644);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--propagation", "private", "bash", "-c"]);
        command.arg("mount --bind \"$0\" \"$1\" && shift && exec \"$@\"").arg(source).arg(place);
        command.args([ETHUDP, "up"]).arg(file);
        command.env("RUNTIME_DIRECTORY", scratch.path()).env_remove("NOTIFY_SOCKET");
        Self::run(namespace, scratch, name, command)
    }

    fn run(namespace: &Namespace, scratch: Scratch, name: &str, mut command: Command) -> Self {
        let log = File::create(scratch.path().join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = namespace.spawn(&mut command);
        let mut running = Self { child, scratch, name: name.to_owned() };
        wait_for("ready", PATIENCE, || {
            let ended = running.child.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?} ended: {}", running.log());
            running.try_status().filter(|status| status["state"] != "starting")
        });
        running
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.path().join("log")).unwrap()
    }

    /// Its status, if it answers.
    pub fn try_status(&self) -> Option<Value> {
        let mut text = String::new();
        let socket = self.scratch.path().join(format!("{}.sock", self.name));
        UnixStream::connect(socket).ok()?.read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Its status.
    pub fn status(&self) -> Value {
        self.try_status().expect("status")
    }

    /// One number of its status, as in `"/port/rx_frames"`.
    pub fn count(&self, pointer: &str) -> u64 {
        self.status().pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}: not in the status"))
    }

    /// Process id of "supervisor", "helper" or "worker".
    pub fn pid(&self, process: &str) -> Pid {
        let pid = self.status()["pids"][process].as_i64().unwrap_or_else(|| panic!("no {process}"));
        Pid::from_raw(i32::try_from(pid).unwrap())
    }

    /// Waits until its state is `state`.
    pub fn wait_state(&self, state: &str, limit: Duration) {
        wait_for(state, limit, || self.try_status().filter(|status| status["state"] == state));
    }

    /// Kills the worker and waits until another forwards.
    pub fn replace_worker(&self) {
        let old = self.pid("worker");
        kill(old, Signal::SIGKILL).unwrap();
        wait_for("new worker", PATIENCE, || {
            let status = self.try_status()?;
            status["pids"]["worker"].as_i64().filter(|&pid| pid != i64::from(old.as_raw()))
        });
    }

    /// Ends it as a user would and returns how it ended.
    pub fn stop(mut self) -> ExitStatus {
        self.terminate()
    }

    fn terminate(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = kill(pid, Signal::SIGTERM);
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if start.elapsed() > PATIENCE {
                let _ = kill(pid, Signal::SIGKILL);
                return self.child.wait().unwrap();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.name, self.log());
        }
        self.terminate();
    }
}

/// A run of the program that ends by itself, or goes to the background.
pub struct Background {
    pub status: ExitStatus,
    pub output: String,
    pub took: Duration,
}

impl Background {
    /// Runs the program to the end of the process that was started.
    pub fn run(namespace: &Namespace, scratch: &Scratch, prefix: &[&str], arguments: &[&str]) -> Self {
        let start = Instant::now();
        // Files, not pipes: what goes to the background would keep a pipe open.
        let file = scratch.path().join("output");
        let output = File::create(&file).unwrap();
        let mut command = ethudp(scratch, prefix, arguments);
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let mut child = namespace.spawn(&mut command);
        let status = wait_for("end", PATIENCE, || child.try_wait().unwrap());
        let took = start.elapsed();
        let output = fs::read_to_string(&file).unwrap();
        fs::remove_file(file).unwrap();
        Self { status, output, took }
    }
}

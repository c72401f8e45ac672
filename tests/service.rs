//! What a service manager sees and keeps: readiness, and the TAP over a restart (`sd_notify(3)`, `sd_listen_fds(3)`).

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ethudp_stubs::raw::call;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use privsep::sys::scm;

use crate::lab::{Background, ETHUDP, Namespace, Running, Scratch, Sites, assert_udp, not_run, udp_passes, wait_for};

/// The test in the place of systemd.
pub struct Manager {
    scratch: Scratch,
    socket: UnixDatagram,
    /// Whether what the service logs is the journal's.
    journal: bool,
    /// Names for the service, in the place of `/etc/hosts`.
    hosts: Option<PathBuf>,
    /// Name of the descriptor that says which starts have been before.
    pub starts: Option<&'static str>,
}

/// A service that runs; ended like by `systemctl stop`.
pub struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

impl Service {
    /// Its main process, the supervisor.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).unwrap())
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Manager {
    pub fn new() -> Self {
        let scratch = Scratch::new();
        let socket = UnixDatagram::bind(scratch.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(crate::lab::PATIENCE)).unwrap();
        Self { scratch, socket, journal: false, hosts: None, starts: None }
    }

    /// Has the service find these names, from now on.
    pub fn hosts(&mut self, text: &str) {
        // Written in place: a service that runs has the file mounted.
        self.hosts = Some(self.scratch.write("hosts", text, 0o644));
    }

    /// Starts `ethudp up` on a file of this content, with what was stored as descriptor 3.
    pub fn launch(&self, site: &Namespace, file: &str, stored: Option<OwnedFd>) -> Service {
        let file = self.scratch.write("a.toml", file, 0o644);
        // LISTEN_PID is known only to the process that becomes the service.
        let names: Vec<_> = stored.iter().map(|_| "tap-0").chain(self.starts).collect();
        let descriptors = if stored.is_some() { "3>&1 4</dev/null" } else { "3</dev/null" };
        let (count, names) = (names.len(), names.join(":"));
        let listen = format!("export LISTEN_FDS={count} LISTEN_FDNAMES={names} LISTEN_PID=$$; exec {descriptors};");
        let listen = if count > 0 { &listen } else { "" };
        let log = self.scratch.path().join("log");
        // The journal is known by the device and inode of its stream.
        let journal = if self.journal { "export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2);" } else { "" };
        let mount = |hosts: &PathBuf| format!("mount --bind {} /etc/hosts;", hosts.display());
        let mount = self.hosts.as_ref().map_or_else(String::new, mount);
        let script =
            format!("{listen} exec >{} 2>&1; {mount} {journal} exec {ETHUDP} up {}", log.display(), file.display());
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if self.hosts.is_some() {
            command.args(["unshare", "--mount", "--propagation", "private"]);
        }
        command.args(["bash", "-c", &script]);
        command.env("RUNTIME_DIRECTORY", self.scratch.path());
        command.env("NOTIFY_SOCKET", self.scratch.path().join("notify")).env("WATCHDOG_USEC", "400000");
        // As its standard output: nothing else that a test starts meanwhile inherits it.
        command.stdout(stored.map_or_else(Stdio::null, Stdio::from));
        Service(site.spawn(&mut command))
    }

    /// All messages that have come.
    pub fn heard(&self) -> String {
        self.socket.set_nonblocking(true).unwrap();
        let next = || {
            let mut buffer = [0; 4096];
            let length = self.socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned() + "\n")
        };
        let heard = std::iter::from_fn(next).collect();
        self.socket.set_nonblocking(false).unwrap();
        heard
    }

    /// Whether a message with these words is among those that have come.
    pub fn hears(&self, words: &str) -> bool {
        self.heard().contains(words)
    }

    /// Waits until the service has ended by itself, for a new start; all that it has said till then.
    pub fn ends(&self, service: &mut Service) -> String {
        let mut said = String::new();
        let ended = wait_for("end of the service", Duration::from_secs(150), || {
            said += &self.heard();
            service.0.try_wait().unwrap()
        });
        assert_eq!(ended.code(), Some(1), "{}", self.log());
        said + &self.heard()
    }

    /// The status of the service.
    pub fn status(&self) -> serde_json::Value {
        let mut text = String::new();
        let mut socket = UnixStream::connect(self.scratch.path().join("a.sock")).unwrap();
        socket.read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("log")).unwrap()
    }

    /// Waits until the service has logged these words.
    pub fn wait_log(&self, words: &str) {
        wait_for(words, Duration::from_secs(20), || self.log().contains(words).then_some(()));
    }

    /// Starts it and waits for READY; also returns what it has given to store, and all that it has said till then.
    pub fn start(&self, site: &Namespace, file: &str, stored: Option<OwnedFd>) -> (Service, Option<OwnedFd>, String) {
        let service = self.launch(site, file, stored);
        let (mut to_store, mut said) = (None, String::new());
        while !said.contains("READY=1") {
            let mut buffer = [0; 4096];
            let (length, descriptors) = scm::recv(self.socket.as_fd(), &mut buffer)
                .unwrap_or_else(|error| panic!("no message of the service: {error}\n{said}\n{}", self.log()));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            assert_eq!(descriptors.len(), usize::from(text.starts_with("FDSTORE=1")), "{text}");
            // Other descriptors are stored for their names alone.
            to_store = descriptors.into_iter().next().filter(|_| text.contains("FDNAME=tap-0")).or(to_store);
            said += &(text + "\n");
        }
        (service, to_store, said)
    }
}

pub fn file(tap: &str) -> String {
    format!(
        "mode = \"{}\"\nwire = \"classic\"\n[tap]\nname = \"eu0\"\n{tap}\n[[path]]\nlocal = \"192.0.2.1:6000\"\n\
         remote = \"192.0.2.2:6000\"\n",
        if tap.contains("bridge") { "bridge" } else { "tap" }
    )
}

#[test]
fn interface_survives_restart() {
    let sites = Sites::new();
    let _b = Running::classic(&sites.b, "b", "-i 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24");
    sites.a.quiet(false);
    let manager = Manager::new();
    let first = file("address = [\"10.8.0.1/24\", \"10.8.7.1/16\"]\nmtu = 1300");
    let (service, stored, said) = manager.start(&sites.a, &first, None);
    assert!(said.contains("FDSTORE=1\nFDNAME=tap-0\n"), "{said}");
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    let index = sites.a.index("eu0");
    drop(service);
    assert_eq!(sites.a.index("eu0"), index, "gone although its queue is kept");

    // Other addresses, no MTU.
    sites.a.ip("addr add 10.99.0.1/24 dev eu0");
    let (service, stored, _) = manager.start(&sites.a, &file("address = [\"10.8.0.1/24\", \"10.8.7.1/24\"]"), stored);
    assert_eq!(sites.a.index("eu0"), index);
    let shown = sites.a.ip("addr show eu0");
    assert!(shown.contains("10.8.0.1/24") && shown.contains("10.8.7.1/24") && shown.contains("mtu 1500"), "{shown}");
    assert_eq!(shown.matches("inet ").count(), 2, "{shown}");
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    drop(service);

    // The kernel takes secondary addresses away with their primary one. What has a lifetime is a running program's, which
    // would not notice that it is gone.
    let two = file("address = [\"10.8.0.1/24\", \"10.8.0.3/24\", \"fe80::1/64\"]");
    let (service, stored, _) = manager.start(&sites.a, &two, stored);
    drop(service);
    sites.a.ip("addr add 10.77.0.1/24 dev eu0 valid_lft 900 preferred_lft 900");
    sites.a.ip("addr add 10.78.0.1 peer 10.78.0.2/32 dev eu0");
    let one = file("address = [\"10.8.0.3/24\", \"fe80::1/64\"]");
    let (service, stored, _) = manager.start(&sites.a, &one, stored);
    let shown = sites.a.ip("addr show eu0");
    for (address, count) in [("10.8.0.3/24", 1), ("10.8.0.1/24", 0), ("fe80::1/64", 1), ("10.77.0.1/24", 1)] {
        assert_eq!(shown.matches(address).count(), count, "{address}: {shown}");
    }
    drop(service);

    // Into a bridge, again, and out of it.
    sites.a.ip("link add br0 type bridge");
    let bridged = file("bridge = \"br0\"");
    let (service, stored, _) = manager.start(&sites.a, &bridged, stored);
    drop(service);
    let (service, stored, _) = manager.start(&sites.a, &bridged, stored);
    assert!(sites.a.ip("-o link show eu0").contains("master br0"));
    drop(service);
    let (service, stored, _) = manager.start(&sites.a, &file(""), stored);
    assert!(!sites.a.ip("-o link show eu0").contains("master br0"));
    assert_eq!(sites.a.index("eu0"), index);
    drop((service, stored));
    wait_for("removed interface", crate::lab::PATIENCE, || {
        (!sites.a.interfaces().contains(&"eu0".into())).then_some(())
    });
}

#[test]
fn stored_tap_settings_are_restored() {
    let sites = Sites::new();
    let manager = Manager::new();
    let tap = file("address = [\"10.8.0.1/24\"]");
    let (service, mut stored, _) = manager.start(&sites.a, &tap, None);
    let index = sites.a.index("eu0");
    drop(service);
    let _b = Running::classic(&sites.b, "b", "-i 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24");
    let (nothing, one, twelve) = ([0_u8; 4], [1_u8, 0, 0, 0], [12_u8, 0, 0, 0]);
    // The classic BPF program that takes nothing, and its struct sock_fprog.
    let program = [6_u64];
    let fprog = [1_u64, program.as_ptr() as u64];
    // For frames to one address, which is not the interface's.
    let filter = [0_u8, 0, 1, 0, 2, 0, 0, 0, 0, 1];
    let requests: [(&str, u64, *const u8); 6] = [
        ("TUNSETVNETHDRSZ", libc::TUNSETVNETHDRSZ, twelve.as_ptr()),
        ("TUNSETVNETLE", libc::TUNSETVNETLE, one.as_ptr()),
        ("TUNATTACHFILTER", libc::TUNATTACHFILTER, fprog.as_ptr().cast()),
        ("TUNSETTXFILTER", libc::TUNSETTXFILTER, filter.as_ptr()),
        ("TUNSETSNDBUF", libc::TUNSETSNDBUF, one.as_ptr()),
        ("TUNSETCARRIER", libc::TUNSETCARRIER, nothing.as_ptr()),
    ];
    for (name, request, argument) in requests {
        let queue = stored.take().unwrap();
        call(libc::SYS_ioctl, &[queue.as_raw_fd().into(), request.cast_signed(), argument as i64]).expect(name);
        let (service, again, _) = manager.start(&sites.a, &tap, Some(queue));
        assert_eq!(sites.a.index("eu0"), index, "{name}: made anew");
        assert!(udp_passes(&sites.a, &sites.b, "10.8.0.2", Duration::from_secs(10)), "{name}: nothing passes");
        stored = again;
        drop(service);
    }
}

#[test]
fn foreign_stored_tap_is_released() {
    let sites = Sites::new();
    let manager = Manager::new();
    let (service, stored, _) = manager.start(&sites.a, &file(""), None);
    drop(service);
    let renamed = file("").replace("eu0", "eu1");
    let (service, stored_again, said) = manager.start(&sites.a, &renamed, stored);
    assert!(said.contains("FDSTOREREMOVE=1\nFDNAME=tap-0\n"), "{said}");
    assert!(sites.a.interfaces().contains(&"eu1".into()) && !sites.a.interfaces().contains(&"eu0".into()));
    drop((service, stored_again));
    // One that has been moved to another namespace, while another interface has its name here.
    let (service, stored, _) = manager.start(&sites.a, &file(""), None);
    let elsewhere = Namespace::new();
    let inhabitant = Service(elsewhere.spawn(Command::new("sleep").arg("60")));
    sites.a.ip(&format!("link set eu0 netns {}", inhabitant.0.id()));
    drop(service);
    sites.a.ip("link add eu0 type veth peer name other");
    let mut service = manager.launch(&sites.a, &file("address = [\"10.8.0.1/24\"]"), stored);
    let ended = wait_for("end", crate::lab::PATIENCE, || service.0.try_wait().unwrap());
    assert!(!ended.success() && manager.log().contains("\"eu0\": already exists"), "{}", manager.log());
    // Else the next start would find it again.
    assert!(manager.hears("FDSTOREREMOVE=1"), "what is stored is not let go");
    assert!(!sites.a.ip("addr show eu0").contains("10.8.0.1"));
    sites.a.ip("link delete eu0");
    drop(inhabitant);
    // Something that is no TAP.
    let (service, _, _) = manager.start(&sites.a, &file(""), Some(std::fs::File::open("/dev/null").unwrap().into()));
    assert!(sites.a.interfaces().contains(&"eu0".into()));
    drop(service);
}

#[test]
fn manager_gets_state_and_watchdog() {
    let sites = Sites::new();
    let manager = Manager::new();
    let (service, _, said) = manager.start(&sites.a, &file("address = [\"10.8.0.1/24\"]"), None);
    let path = "path 1 of 1: 192.0.2.1:6000 to 192.0.2.2:6000, connecting";
    assert!(said.contains(&format!("STATUS=connecting, {path}")), "{said}");
    let b = Running::classic(&sites.b, "b", "-i 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24");
    let hear = |words: &str| {
        wait_for(words, crate::lab::PATIENCE, || {
            let mut buffer = [0; 4096];
            let length = manager.socket.recv(&mut buffer).ok()?;
            String::from_utf8_lossy(&buffer[..length]).contains(words).then_some(())
        });
    };
    hear("STATUS=up, path 1 of 1: 192.0.2.1:6000 to 192.0.2.2:6000, up");
    drop(b);
    hear("STATUS=down");
    for _ in 0..5 {
        hear("WATCHDOG=1");
    }
    drop(service);
    hear("STOPPING=1");
}

#[test]
fn journal_lines_have_priority_and_tunnel() {
    let sites = Sites::new();
    let manager = Manager { journal: true, ..Manager::new() };
    let (service, _, _) = manager.start(&sites.a, &file("address = [\"10.8.0.1/24\"]"), None);
    drop(service);
    let log = manager.log();
    assert!(log.contains("<4>a: wire classic: ") && log.contains("<6>a: worker "), "{log}");
    for line in log.lines() {
        assert!(["<3>a: ", "<4>a: ", "<6>a: "].iter().any(|start| line.starts_with(start)), "{line:?}");
    }
}

#[test]
fn lost_helper_triggers_restart() {
    let sites = Sites::new();
    let manager = Manager::new();
    let helper = || Pid::from_raw(i32::try_from(manager.status()["pids"]["helper"].as_i64().unwrap()).unwrap());
    let address = "address = [\"10.8.0.1/24\"]";
    let (mut service, stored, _) = manager.start(&sites.a, &file(address), None);
    let index = sites.a.index("eu0");
    kill(helper(), Signal::SIGKILL).unwrap();
    let ended = wait_for("end", crate::lab::PATIENCE, || service.0.try_wait().unwrap());
    // So that the manager starts it again.
    assert_eq!(ended.code(), Some(1), "{}", manager.log());
    assert!(manager.log().contains("helper"), "{}", manager.log());
    let never = format!("repair = \"never\"\n{}", file(address));
    let (mut service, ..) = manager.start(&sites.a, &never, stored);
    assert_eq!(sites.a.index("eu0"), index);
    kill(helper(), Signal::SIGKILL).unwrap();
    wait_for("degraded", crate::lab::PATIENCE, || manager.hears("STATUS=degraded").then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    assert!(service.0.try_wait().unwrap().is_none(), "{}", manager.log());
}

#[test]
fn lost_helper_hides_no_trouble() {
    let sites = Sites::new();
    let manager = Manager::new();
    sites.a.ip("link add br0 type bridge");
    sites.a.ip("link set br0 up");
    // In half a day.
    let hour = (std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() / 3600 + 12) % 24;
    let device = "[[path]]\nlocal = \"0.0.0.0:6001\"\nremote = \"192.0.2.2:6001\"\ndevice = \"dev1\"\n";
    let text = format!("repair = \"{hour:02}:00\"\n{}{device}", file("bridge = \"br0\""));
    let (mut service, ..) = manager.start(&sites.a, &text, None);
    let wait = |state: &str, words: [&str; 2]| {
        wait_for(state, crate::lab::PATIENCE, || {
            let status = manager.status();
            let reason = status["reason"].as_str().unwrap_or_default();
            (status["state"] == state && words.iter().all(|words| reason.contains(words))).then_some(())
        });
    };
    let helper = Pid::from_raw(i32::try_from(manager.status()["pids"]["helper"].as_i64().unwrap()).unwrap());
    kill(helper, Signal::SIGKILL).unwrap();
    wait("degraded", ["device \"dev1\": no such interface", "helper ended"]);
    sites.a.ip("link set br0 down");
    wait("local-down", ["\"br0\" is down: run `ip link set dev br0 up`", "helper ended"]);
    sites.a.ip("link set br0 up");
    wait("degraded", ["device \"dev1\"", "helper ended"]);
    // A new start that joins the bridge is not put off until the helper's.
    sites.a.ip("link set eu0 nomaster");
    manager.ends(&mut service);
    assert!(manager.log().contains("restarting to join the bridge"), "{}", manager.log());
}

#[test]
fn required_confinement_is_fatal() {
    let sites = Sites::new();
    let text = format!("require-confinement = true\n{}", file(""));
    // Root without CAP_SYS_ADMIN, as in many a container.
    let scratch = Scratch::new();
    let path = scratch.write("a.toml", &text, 0o644);
    let arguments = ["up", path.to_str().unwrap()];
    let run = Background::run(&sites.a, &scratch, &["--bounding-set", "-sys_admin"], &arguments);
    let lacks = "require-confinement: this kernel or container lacks ";
    assert!(run.output.contains(lacks) && run.output.contains("an empty network namespace"), "{}", run.output);
    assert_eq!(run.status.code(), Some(78));
    // With it, only an older kernel has less than all.
    let other = Scratch::new();
    let path = other.write("b.toml", &file(""), 0o644);
    let b = Running::start(&sites.a, other, "b", &[], &["up", path.to_str().unwrap()]);
    let all = b.count("/confinement/landlock_abi") > 0 && b.status()["confinement"]["mdwe"] == true;
    drop(b);
    if all {
        Running::up(&sites.a, "a", &text);
    } else {
        not_run("start with require-confinement", "the kernel lacks Landlock or MDWE");
    }
}

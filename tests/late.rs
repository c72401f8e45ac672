//! A path that is missing when the tunnel starts, and one whose device or name changes later.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lab::{Background, Running, Scratch, Sites, assert_udp, join, wait_for};
use crate::service::Manager;

/// Time in which a tunnel is up.
const UP: Duration = Duration::from_secs(20);

/// A file for a TAP with these paths.
fn file(host: u8, paths: &str) -> String {
    format!("mode = \"tap\"\nwire = \"classic\"\n[tap]\nname = \"eu0\"\naddress = [\"10.8.0.{host}/24\"]\n{paths}")
}

fn path(local: &str, remote: &str, more: &str) -> String {
    format!("[[path]]\nlocal = \"{local}\"\nremote = \"{remote}\"\n{more}\n")
}

/// The other end, which takes the peer wherever it is.
fn other(sites: &Sites) -> Running {
    Running::up(&sites.b, "b", &file(2, &path("0.0.0.0:6000", "any", "")))
}

fn text<'a>(status: &'a Value, pointer: &str) -> &'a str {
    status.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer}: {status}"))
}

#[test]
fn missing_device_or_name_spares_other_paths() {
    let sites = Sites::new();
    let _b = other(&sites);
    let paths =
        [path("192.0.2.1:6003", "192.0.2.2:6000", "device = \"wwan0\""), path("192.0.2.1:6000", "192.0.2.2:6000", "")];
    let a = Running::up(&sites.a, "a", &file(1, &paths.concat()));
    a.wait_state("up", UP);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    let status = a.status();
    assert_eq!((text(&status, "/paths/0/state"), text(&status, "/paths/1/state")), ("absent", "up"));
    assert_eq!((&status["paths"][0]["active"], &status["paths"][1]["active"]), (&false.into(), &true.into()));
    assert!(text(&status, "/paths/0/reason").contains("device \"wwan0\": no such interface"), "{status}");
    assert!(text(&status, "/reason").contains("path 1: device \"wwan0\""), "{status}");
    assert!(a.log().contains("path 1 not opened: device \"wwan0\": no such interface"), "{}", a.log());
    let shown = Background::run(&sites.a, &a.scratch, &[], &["show", "a"]);
    assert!(shown.output.contains("192.0.2.1:6003 to 192.0.2.2:6000: absent"), "{}", shown.output);
    drop(a);

    let paths = [path("192.0.2.1:6000", "192.0.2.2:6000", ""), path("192.0.2.1:6003", "none.invalid:6000", "")];
    let a = Running::up(&sites.a, "a", &file(1, &paths.concat()));
    a.wait_state("up", UP);
    let status = a.status();
    assert_eq!((text(&status, "/paths/0/state"), text(&status, "/paths/1/state")), ("up", "connecting"));
    let reason = text(&status, "/paths/1/reason");
    assert!(reason.contains("\"none.invalid\"") && reason.contains("it is looked up again"), "{reason}");
}

#[test]
fn missing_address_spares_other_paths() {
    let sites = Sites::new();
    let _b = other(&sites);
    sites.a.ip("route add blackhole 203.0.113.2");
    sites.a.ip("route add prohibit 203.0.113.3");
    for (local, remote, reason) in [
        ("192.0.2.99:6003", "192.0.2.2:6000", "local address 192.0.2.99: not an address of this host"),
        ("192.0.2.1:6003", "203.0.113.1:6000", "remote address 203.0.113.1:6000: no route"),
        ("192.0.2.1:6003", "203.0.113.2:6000", "remote address 203.0.113.2:6000: no usable route: Invalid argument"),
        ("192.0.2.1:6003", "203.0.113.3:6000", "remote address 203.0.113.3:6000: no usable route: Permission denied"),
        ("[2001:db8:7::1]:6003", "[2001:db8::2]:6000", "local address 2001:db8:7::1: not an address of this host"),
    ] {
        let paths = [path("192.0.2.1:6000", "192.0.2.2:6000", ""), path(local, remote, "")];
        let a = Running::up(&sites.a, "a", &file(1, &paths.concat()));
        a.wait_state("up", UP);
        let status = a.status();
        assert_eq!((text(&status, "/paths/0/state"), text(&status, "/paths/1/state")), ("up", "absent"));
        assert!(text(&status, "/paths/1/reason").contains(reason), "{status}");
        assert!(text(&status, "/reason").contains("restart the tunnel"), "{status}");
    }
}

#[test]
fn late_address_is_used_after_restart() {
    let sites = Sites::new();
    let _b = other(&sites);
    let manager = Manager::new();
    let text = file(1, &path("192.0.2.11:6000", "192.0.2.2:6000", ""));
    let (mut service, stored, _) = manager.start(&sites.a, &text, None);
    let index = sites.a.index("eu0");
    sites.a.ip("addr add 192.0.2.11/24 dev wan");
    manager.ends(&mut service);
    let (_service, _stored, _) = manager.start(&sites.a, &text, stored);
    assert_eq!(sites.a.index("eu0"), index);
    wait_for("up", UP, || manager.hears("STATUS=up").then_some(()));
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
}

#[test]
fn tunnel_starts_without_paths() {
    let sites = Sites::new();
    let wires = ["", "[[path]]\nlocal = \"192.0.2.1:6001\"\nremote = \"192.0.2.2:6000\"\ndevice = \"wwan1\"\n"];
    for more in wires {
        let missing = path("192.0.2.1:6000", "192.0.2.2:6000", "device = \"wwan0\"");
        let manager = Manager::new();
        let (_service, _stored, _) = manager.start(&sites.a, &file(1, &(missing + more)), None);
        let status = manager.status();
        assert_eq!(text(&status, "/state"), "connecting", "{status}");
        assert!(text(&status, "/reason").contains("device \"wwan0\": no such interface"), "{status}");
        assert!(sites.a.interfaces().contains(&"eu0".into()));
        // The worker lives although it has nothing to send by.
        let worker = |status: &Value| status["pids"]["worker"].as_i64();
        let old = worker(&status).unwrap();
        kill(Pid::from_raw(i32::try_from(old).unwrap()), Signal::SIGKILL).unwrap();
        let status = wait_for("new worker", UP, || {
            Some(manager.status()).filter(|status| worker(status).is_some_and(|new| new != old))
        });
        assert_eq!(status["paths"].as_array().unwrap().len(), 1 + more.matches("path").count());
    }
}

#[test]
fn unmanaged_tunnel_needs_a_path() {
    let sites = Sites::new();
    let device = path("192.0.2.1:6000", "192.0.2.2:6000", "device = \"wwan0\"");
    let address = path("192.0.2.99:6000", "192.0.2.2:6000", "");
    let scratch = Scratch::new();
    let file = scratch.write("a.toml", &file(1, &(device + &address)), 0o644);
    let run = Background::run(&sites.a, &scratch, &[], &["up", file.to_str().unwrap()]);
    assert_eq!(run.status.code(), Some(1), "{}", run.output);
    for words in ["path 1: device \"wwan0\": no such interface", "path 2: local address 192.0.2.99: not an address"] {
        assert!(run.output.contains(words), "{}", run.output);
    }
    assert!(!sites.a.interfaces().contains(&"eu0".into()));
}

#[test]
fn unmanaged_tunnel_retries_names() {
    let sites = Sites::new();
    let _b = other(&sites);
    let scratch = Scratch::new();
    let hosts = scratch.write("hosts", "", 0o644);
    // A path without its device does not count as one to start with.
    let paths = [
        path("192.0.2.1:6003", "192.0.2.2:6000", "device = \"wwan0\""),
        path("192.0.2.1:6000", "peer.example:6000", ""),
    ];
    let a = Running::with_hosts(&sites.a, scratch, "a", &file(1, &paths.concat()), &hosts);
    let status = a.status();
    assert!(text(&status, "/reason").contains("remote name \"peer.example\""), "{status}");
    assert!(a.log().contains("retrying every 5 s"), "{}", a.log());
    // Longer than a tunnel waits that a service manager starts again.
    std::thread::sleep(Duration::from_secs(17));
    assert!(!sites.a.interfaces().contains(&"eu0".into()), "{}", a.log());
    a.scratch.write("hosts", "192.0.2.2 peer.example\n", 0o644);
    a.wait_state("up", UP);
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
}

#[test]
fn classic_start_needs_every_path() {
    let sites = Sites::new();
    for (arguments, words) in [
        ("192.0.2.99 6000 192.0.2.2 6000", "not an address of this host"),
        ("192.0.2.1 6000 203.0.113.1 6000", "no route"),
        ("192.0.2.1 6000 none.invalid 6000", "remote name \"none.invalid\""),
    ] {
        let line = format!("-d -i {arguments} 10.8.0.1 24");
        let run = Background::run(&sites.a, &Scratch::new(), &[], &line.split(' ').collect::<Vec<_>>());
        assert!(!run.status.success() && run.output.contains(words), "{line}: {}", run.output);
    }
}

/// A device `dev1` of site a, joined to `far1` of site b, with the addresses 198.51.100.1 and .2.
fn second_network(sites: &Sites) {
    join((&sites.a, "dev1"), (&sites.b, "far1"), 1500);
    sites.a.ip("addr add 198.51.100.1/24 dev dev1");
    sites.b.ip("addr add 198.51.100.2/24 dev far1");
}

#[test]
fn new_device_triggers_restart() {
    let sites = Sites::new();
    let _b = other(&sites);
    let manager = Manager::new();
    let text = file(1, &path("198.51.100.1:6000", "198.51.100.2:6000", "device = \"dev1\""));
    let (mut service, mut stored, _) = manager.start(&sites.a, &text, None);
    let index = sites.a.index("eu0");
    let mut before = String::new();
    for words in ["device \"dev1\": exists now", "device \"dev1\": now another interface of this name"] {
        assert!(!manager.log().contains(words), "{}", manager.log());
        if before.is_empty() {
            second_network(&sites);
        } else {
            sites.a.ip("link delete dev1");
            manager.wait_log("device \"dev1\": removed");
            second_network(&sites);
        }
        manager.ends(&mut service);
        before = manager.log();
        assert!(before.contains(words) && before.contains("to open the device of a path"), "{before}");
        (service, stored, _) = manager.start(&sites.a, &text, stored);
        assert_eq!(sites.a.index("eu0"), index);
        wait_for("up", UP, || manager.hears("STATUS=up").then_some(()));
        assert_udp(&sites.a, &sites.b, "10.8.0.2");
    }
    drop((service, stored));
}

#[test]
fn unrelated_starts_delay_no_device() {
    let sites = Sites::new();
    let mut manager = Manager::new();
    manager.starts = Some("starts-2-failure-7-path");
    let text = file(1, &path("198.51.100.1:6000", "198.51.100.2:6000", "device = \"dev1\""));
    let (mut service, ..) = manager.start(&sites.a, &text, None);
    let started = Instant::now();
    second_network(&sites);
    let said = manager.ends(&mut service);
    // After a start for a device just before, a minute.
    assert!(started.elapsed() < Duration::from_secs(45), "{}", manager.log());
    for words in
        ["FDSTOREREMOVE=1\nFDNAME=starts-2-failure-7-path\n", "FDSTORE=1\nFDNAME=starts-2-failure-1-device-7-path\n"]
    {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn repair_never_ignores_devices() {
    let sites = Sites::new();
    let paths =
        [path("192.0.2.1:6000", "192.0.2.2:6000", ""), path("0.0.0.0:6003", "198.51.100.2:6000", "device = \"dev1\"")];
    let text = format!("repair = \"never\"\n{}", file(1, &paths.concat()));
    let manager = Manager::new();
    let (mut service, ..) = manager.start(&sites.a, &text, None);
    second_network(&sites);
    manager.wait_log("device \"dev1\": exists now; restart the tunnel to use it");
    std::thread::sleep(Duration::from_secs(4));
    assert!(service.runs(), "{}", manager.log());
}

#[test]
fn repair_never_starts_despite_names() {
    let sites = Sites::new();
    let name = path("192.0.2.1:6003", "none.invalid:6000", "");
    let never = |paths: &str| format!("repair = \"never\"\n{}", file(1, paths));
    let manager = Manager::new();
    let with_another = never(&(path("192.0.2.1:6000", "192.0.2.2:6000", "") + &name));
    let (service, ..) = manager.start(&sites.a, &with_another, None);
    let reason = manager.status()["paths"][1]["reason"].clone();
    assert!(reason.as_str().unwrap().contains("\"none.invalid\""), "{reason}");
    drop(service);
    // The running tunnel looks the name up again, but nothing opens the path without its device.
    let manager = Manager::new();
    let device = path("192.0.2.1:6000", "192.0.2.2:6000", "device = \"wwan0\"");
    let (service, _, said) = manager.start(&sites.a, &never(&(device.clone() + &name)), None);
    assert!(said.contains("STATUS=connecting: remote name"), "{said}");
    drop(service);
    // A local name is resolved only at the start, so the service manager is to see that there is no path.
    let manager = Manager::new();
    let local = path("none.invalid:6003", "192.0.2.2:6000", "");
    let said = manager.ends(&mut manager.launch(&sites.a, &never(&(device + &local)), None));
    assert!(!said.contains("READY=1") && said.contains("STATUS=connecting: local name"), "{said}");
    for words in ["path 1: device \"wwan0\": no such interface", "path 2: local name \"none.invalid\""] {
        assert!(manager.log().contains(words), "{}", manager.log());
    }
}

#[test]
fn unresolved_name_needs_no_restart() {
    let sites = Sites::new();
    let _b = other(&sites);
    let mut manager = Manager::new();
    manager.hosts("");
    let text = file(1, &path("192.0.2.1:6000", "peer.example:6000", ""));
    // Ready, although there is no address: the start of a machine waits for it.
    let (mut service, _stored, said) = manager.start(&sites.a, &text, None);
    assert!(said.contains("EXTEND_TIMEOUT_USEC=") && said.contains("STATUS=connecting: remote name"), "{said}");
    manager.hosts("192.0.2.2 peer.example\n");
    wait_for("up", Duration::from_secs(90), || manager.hears("STATUS=up").then_some(()));
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    assert!(service.runs());
}

#[test]
fn moved_local_name_triggers_restart() {
    let sites = Sites::new();
    let _b = other(&sites);
    let mut manager = Manager::new();
    manager.hosts("192.0.2.1 here.example\n");
    let text = file(1, &path("here.example:6000", "192.0.2.2:6000", ""));
    let (mut service, stored, _) = manager.start(&sites.a, &text, None);
    wait_for("up", UP, || manager.hears("STATUS=up").then_some(()));
    sites.a.ip("addr del 192.0.2.1/24 dev wan");
    sites.a.ip("addr add 192.0.2.11/24 dev wan");
    manager.hosts("192.0.2.11 here.example\n");
    // A minute of patience, and the time until the path is down.
    let said = manager.ends(&mut service);
    // The next start knows that it is not the first.
    assert!(said.contains("FDSTORE=1\nFDNAME=starts-1-name\n"), "{said}");
    assert!(manager.log().contains("to resolve the name of a path"), "{}", manager.log());
    let (_service, _stored, _) = manager.start(&sites.a, &text, stored);
    wait_for("up", UP, || manager.hears("STATUS=up").then_some(()));
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
}

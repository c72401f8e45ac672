//! What each process may still do, as the kernel tells it.

use std::fs;
use std::path::PathBuf;

use crate::filters::run_without_landlock;
use crate::lab::{Running, Scratch, Sites};

const NO_CAPABILITIES: &str = "0000000000000000";

/// Each process, its threads, and its filters where it is started by root: the worker inherits the supervisor's, and the
/// helper puts a second one on the one with which it opens.
const PROCESSES: [(&str, usize, u32); 3] = [("supervisor", 1, 1), ("helper", 1, 2), ("worker", 2, 2)];

/// A field of a `status` file in /proc, if the kernel has it.
fn optional(status: &str, name: &str) -> Option<String> {
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    Some(line?.trim().to_owned())
}

/// As before, one that every kernel has.
fn field(status: &str, name: &str) -> String {
    optional(status, name).unwrap_or_else(|| panic!("no {name}"))
}

/// How many filters a thread has; since Linux 5.9.
fn filters(status: &str) -> Option<u32> {
    optional(status, "Seccomp_filters").map(|count| count.parse().unwrap())
}

/// The `status` files of all threads of a process.
fn threads(pid: nix::unistd::Pid) -> Vec<String> {
    let tasks: Vec<PathBuf> =
        fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path().join("status")).collect();
    tasks.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn no_process_keeps_privileges() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", "-i 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24");
    let user = nix::unistd::User::from_name("ethudp").unwrap().unwrap().uid.to_string();
    // The filters of this test, which its children inherit.
    let inherited = filters(&fs::read_to_string("/proc/thread-self/status").unwrap());
    for (process, count, own_filters) in PROCESSES {
        let threads = threads(a.pid(process));
        assert_eq!(threads.len(), count, "threads of the {process}");
        for status in threads {
            for name in ["Uid", "Gid"] {
                let ids = field(&status, name);
                assert!(ids.split_whitespace().all(|id| id != "0"), "{process}: {name} {ids}");
            }
            assert!(field(&status, "Uid").split_whitespace().all(|id| id == user), "{process}: not user ethudp");
            assert_eq!(field(&status, "Groups"), "", "{process}: supplementary groups");
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(field(&status, set), NO_CAPABILITIES, "{process}: {set}");
            }
            assert_eq!(field(&status, "NoNewPrivs"), "1", "{process}");
            assert_eq!(field(&status, "Seccomp"), "2", "{process}: a thread without filter");
            assert_eq!(filters(&status), inherited.map(|count| count + own_filters), "{process}: filters");
        }
        // Non-dumpable: its files in /proc belong to root, so no process of its uid can trace it or open its memory.
        let owner =
            std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{}/mem", a.pid(process))).unwrap());
        assert_eq!(owner, 0, "{process} is dumpable");
    }
    let confinement = &a.status()["confinement"];
    assert_eq!((&confinement["netns"], &confinement["seccomp"]), (&true.into(), &true.into()), "{confinement}");
}

#[test]
fn resolver_keeps_no_privileges() {
    let sites = Sites::new();
    let without = Running::classic(&sites.b, "b", "-i 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24");
    assert!(without.status()["pids"]["resolver"].is_null(), "a tunnel without a name has a resolver");
    let scratch = Scratch::new();
    let hosts = scratch.write("hosts", "192.0.2.2 peer.example\n", 0o644);
    let text =
        "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"peer.example:6000\"\n";
    let a = Running::with_hosts(&sites.a, scratch, "a", text, &hosts);
    let (pid, user) = (a.pid("resolver"), nix::unistd::User::from_name("ethudp").unwrap().unwrap().uid.to_string());
    let [status] = &threads(pid)[..] else { panic!("several threads") };
    assert!(field(status, "Uid").split_whitespace().all(|id| id == user), "not user ethudp");
    assert!(field(status, "Gid").split_whitespace().all(|id| id != "0"));
    assert_eq!(field(status, "Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(status, set), NO_CAPABILITIES, "{set}");
    }
    assert_eq!((field(status, "NoNewPrivs"), field(status, "Seccomp")), ("1".into(), "2".into()));
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}/mem")).unwrap());
    assert_eq!(owner, 0, "the resolver is dumpable");
    // It has its channel, and its standard streams lead nowhere. It is in the network of the host, where the name servers are.
    let open =
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| fs::read_link(entry.unwrap().path()).unwrap());
    let mut open: Vec<_> = open.map(|target| target.to_string_lossy().split('[').next().unwrap().to_owned()).collect();
    open.sort();
    assert_eq!(open, ["/dev/null", "/dev/null", "/dev/null", "socket:"]);
    let network = |process| fs::read_link(format!("/proc/{}/ns/net", a.pid(process))).unwrap();
    assert_eq!(network("resolver"), network("helper"));
    assert_ne!(network("resolver"), network("supervisor"));
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(environment.is_empty(), "the resolver has an environment");
}

#[test]
fn required_confinement_covers_resolver() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let text = "require-confinement = true\nmode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"192.0.2.1:6000\"\n\
                remote = \"peer.example:6000\"\n";
    let file = scratch.write("a.toml", text, 0o644);
    let run = run_without_landlock(&sites, &scratch, &file);
    let words = "lacks Landlock to confine the resolver";
    assert!(run.status.code() == Some(78) && run.output.contains(words), "{}", run.output);
}

#[test]
fn worker_has_only_its_handles() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", "-i 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24");
    let network = |process| fs::read_link(format!("/proc/{}/ns/net", a.pid(process))).unwrap();
    assert_eq!(network("worker"), network("supervisor"));
    assert_ne!(network("worker"), network("helper"));
    let interfaces = fs::read_to_string(format!("/proc/{}/net/dev", a.pid("worker"))).unwrap();
    let names: Vec<_> = interfaces.lines().skip(2).map(|line| line.split(':').next().unwrap().trim()).collect();
    assert_eq!(names, ["lo"]);
    let mut open: Vec<String> = fs::read_dir(format!("/proc/{}/fd", a.pid("worker")))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().to_string_lossy().into_owned())
        .map(|target| target.split('[').next().unwrap().to_owned())
        .collect();
    open.sort();
    // TAP, standard streams, two eventfds by which its threads wake each other, channel to the supervisor, UDP socket.
    let expected =
        ["/dev/net/tun", "/dev/null", "/dev/null", "/dev/null", "anon_inode:", "anon_inode:", "socket:", "socket:"];
    assert_eq!(open, expected);
    let environment = fs::read(format!("/proc/{}/environ", a.pid("worker"))).unwrap();
    assert!(environment.is_empty(), "the worker has an environment");
}

#[test]
fn helper_and_worker_limits_are_zero() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", "-i 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24");
    for process in ["helper", "worker"] {
        let limits = fs::read_to_string(format!("/proc/{}/limits", a.pid(process))).unwrap();
        for name in ["Max processes", "Max file size", "Max core file size"] {
            let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"], "{process}: {name}");
        }
    }
}

#[test]
fn helper_and_worker_memory_is_limited() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", "-i 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24");
    // What each may have of its own, and what it has at most, in MiB.
    for (process, own, has) in [("helper", 8, 8), ("worker", 64, 24)] {
        let limits = fs::read_to_string(format!("/proc/{}/limits", a.pid(process))).unwrap();
        let limit = |name| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let [soft, hard] = [0, 1].map(|word| line.split_whitespace().nth(word).unwrap().parse::<u64>().unwrap());
            assert_eq!(soft, hard, "{process}: {name}");
            soft
        };
        let status = &threads(a.pid(process))[0];
        let mapped: u64 = field(status, "VmSize").strip_suffix(" kB").unwrap().parse().unwrap();
        assert!(mapped < has << 10, "{process}: {mapped} kB are mapped");
        assert_eq!(limit("Max data size"), own << 20, "{process}");
        let more = limit("Max address space").saturating_sub(mapped << 10);
        // What was mapped when the limit was set may have been given back.
        assert!(more <= (own + 1) << 20, "{process}: {more} bytes more");
        println!("{process}: {mapped} kB mapped, {more} bytes more");
    }
}

#[test]
fn supervisor_process_count_is_limited() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", "-i 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24");
    let limits = fs::read_to_string(format!("/proc/{}/limits", a.pid("supervisor"))).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max processes")).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().take(2).map(|word| word.parse().unwrap()).collect();
    assert!(numbers.iter().all(|&number| number <= 4096), "{line}");
}

#[test]
fn user_option_is_honoured() {
    let sites = Sites::new();
    let a = Running::classic(&sites.a, "a", "--user nobody -i 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24");
    let user = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid.to_string();
    for process in ["supervisor", "helper", "worker"] {
        let uid = field(&threads(a.pid(process))[0], "Uid");
        assert!(uid.split_whitespace().all(|id| id == user), "{process}: {uid}");
    }
}

/// docs/decisions/0018-seed.md
#[test]
fn worker_start_needs_no_jitter_entropy() {
    let worker = fs::read(std::path::Path::new(crate::lab::ETHUDP).with_file_name("ethudp-worker")).unwrap();
    let has = |name: &[u8]| worker.windows(name.len()).any(|window| window == name);
    assert!(has(b"CRYPTO_sysrand"), "the names of functions are not in it, and cannot be looked for");
    assert!(!has(b"jent_entropy_init"), "built without .cargo/config.toml");
}

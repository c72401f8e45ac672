//! Filters of the mirror modes: what compiles them has no power and bounds, and what cannot be used is refused.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ethudp_stubs::raw::call;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Background, ETHUDP, Running, Scratch, Sites, children, copy_built, ethudp, libpcap, wait_for};
use crate::service::Manager;

/// Longest that anything may take here, on a machine with much other work.
const LIMIT: Duration = Duration::from_secs(90);

/// The file of a mirror of `lan` with this filter.
fn mirror(filter: &str) -> String {
    format!(
        "mode = \"mirror\"\nwire = \"classic\"\n[mirror]\ninterface = \"lan\"\nfilter = \"{filter}\"\n\
         [[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n"
    )
}

/// A filter of so many hosts, which libpcap takes the third power of their number to compile.
fn hosts(count: usize) -> String {
    let host = |number: usize| format!("host 10.{}.{}.{}", number % 7, number / 200, number % 200);
    (0..count).map(host).collect::<Vec<_>>().join(" or ")
}

/// What `ethudp check` says of a filter, and its status, for a user without any power.
fn check(sites: &Sites, filter: &str) -> (Option<i32>, String) {
    let scratch = Scratch::new();
    let file = scratch.write("m.toml", &mirror(filter), 0o644);
    let other_user = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"];
    let run = Background::run(&sites.a, &scratch, &other_user, &["check", file.to_str().unwrap()]);
    (run.status.code(), run.output)
}

/// The compiler that a process has started, once it has given up all that it gives up.
fn compiler(parent: Pid) -> Pid {
    wait_for("filter compiler", LIMIT, || {
        let child = |(pid, _)| {
            let name = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            (name == b"ethudp-filter\0" && status.contains("\nSeccomp_filters:\t2\n")).then_some(pid)
        };
        children(parent).into_iter().find_map(child)
    })
}

#[test]
fn check_and_up_refuse_kernel_limits() {
    let sites = Sites::new();
    let _lans = sites.lans(1500);
    let loops = "ip6 protochain 6";
    let (status, text) = check(&sites, loops);
    assert!(status == Some(78) && text.contains("do not use `protochain`"), "{text}");
    let scratch = Scratch::new();
    let file = scratch.write("m.toml", &mirror(loops), 0o644);
    let run = Background::run(&sites.a, &scratch, &[], &["up", file.to_str().unwrap()]);
    assert!(run.status.code() == Some(78) && run.output.contains("do not use `protochain`"), "{}", run.output);
}

#[test]
fn port_names_need_no_resolver() {
    let sites = Sites::new();
    for filter in ["udp port syslog or tcp port domain", "host localhost and ip proto ospf", "vlan 7"] {
        let (status, text) = check(&sites, filter);
        assert_eq!(status, Some(0), "{filter}: {text}");
    }
    for (filter, words) in [
        ("host peer.example", "unknown host 'peer.example'; use the address"),
        ("port nosuchport", "unknown port 'nosuchport'; must be a tcpdump filter"),
        ("udp port", "syntax error"),
    ] {
        let (status, text) = check(&sites, filter);
        assert!(status == Some(78) && text.contains(words), "{filter}: {text}");
    }
}

#[test]
fn filter_compilation_is_bounded() {
    let sites = Sites::new();
    for (count, words) in [(8000, "at most 65536"), (2000, "needs more than 64 MiB of memory to compile")] {
        let (status, text) = check(&sites, &hosts(count));
        assert!(status == Some(78) && text.contains(words) && text.len() < 1000, "{count}: {text}");
    }
    let scratch = Scratch::new();
    let file = scratch.write("m.toml", &mirror(&hosts(700)), 0o644);
    let mut command = ethudp(&scratch, &[], &["check", file.to_str().unwrap()]);
    let mut child = sites.a.spawn(command.stderr(Stdio::piped()));
    wait_for("end", LIMIT, || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    // Of processor time, or of a machine that has none to give.
    let status = output.status.code();
    let over = |code, words| status == Some(code) && text.contains(words);
    assert!(over(78, "needs more than 10 s to compile") || over(1, "is not compiled within 60 s"), "{text}");
}

#[test]
fn compiler_ends_with_its_tunnel() {
    let sites = Sites::new();
    let _lans = sites.lans(1500);
    let scratch = Scratch::new();
    let file = scratch.write("m.toml", &mirror(&hosts(500)), 0o644);
    let mut command = ethudp(&scratch, &[], &["up", file.to_str().unwrap()]);
    let mut child = sites.a.spawn(&mut command);
    let supervisor = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let compiler = compiler(supervisor);
    let status = fs::read_to_string(format!("/proc/{compiler}/status")).unwrap();
    let user = nix::unistd::User::from_name("ethudp").unwrap().unwrap().uid;
    for line in [
        &format!("\nUid:\t{user}\t{user}\t{user}\t{user}\n")[..],
        "\nGroups:\t \n",
        "\nNoNewPrivs:\t1\n",
        "\nCapInh:\t0000000000000000\n",
        "\nCapPrm:\t0000000000000000\n",
        "\nCapEff:\t0000000000000000\n",
        "\nCapBnd:\t0000000000000000\n",
        "\nCapAmb:\t0000000000000000\n",
        "\nSeccomp:\t2\n",
        "\nThreads:\t1\n",
    ] {
        assert!(status.contains(line), "{line:?} in {status}");
    }
    let limits = fs::read_to_string(format!("/proc/{compiler}/limits")).unwrap();
    for (name, value) in
        [("Max cpu time", "10"), ("Max processes", "0"), ("Max file size", "0"), ("Max data size", "67108864")]
    {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert_eq!(line.split_whitespace().next(), Some(value), "{name}");
    }
    kill(supervisor, Signal::SIGTERM).unwrap();
    let ended = wait_for("end", Duration::from_secs(10), || child.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
    assert!(!fs::exists(format!("/proc/{compiler}")).unwrap(), "the compiler is still there");
}

#[test]
fn compiling_start_extends_timeout() {
    let sites = Sites::new();
    let _lans = sites.lans(1500);
    let manager = Manager::new();
    let service = manager.launch(&sites.a, &mirror(&hosts(300)), None);
    let compiler = compiler(service.pid());
    kill(compiler, Signal::SIGSTOP).unwrap();
    // Longer than the compiler may take, and the helper after it.
    let said = manager.heard();
    let microseconds = said.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC=")).unwrap_or_default();
    assert!(microseconds.parse::<u64>().is_ok_and(|time| time > 70_000_000), "{said:?}");
    assert_eq!(manager.status()["state"], "starting");
    kill(compiler, Signal::SIGCONT).unwrap();
    let mut said = String::new();
    wait_for("READY=1", LIMIT, || {
        said += &manager.heard();
        said.contains("READY=1").then_some(())
    });
}

/// From now on this thread and what it starts are on a kernel without Landlock.
fn without_landlock() {
    let (load, equal, end) = (0x20, 0x15, 0x06_u64);
    let number = libc::SYS_landlock_create_ruleset.cast_unsigned();
    let (no_such_call, allow) = (0x5_0000 | libc::ENOSYS as u64, 0x7fff_0000_u64);
    // struct sock_filter: code, two distances, value.
    let program = [load, equal | 1 << 24 | number << 32, end | no_such_call << 32, end | allow << 32];
    let filter = [program.len() as u64, program.as_ptr() as u64];
    call(libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS.into(), 1, 0, 0, 0]).unwrap();
    call(libc::SYS_seccomp, &[libc::SECCOMP_SET_MODE_FILTER.into(), 0, filter.as_ptr() as i64]).unwrap();
}

/// Runs a tunnel on a kernel without Landlock until it ends.
pub fn run_without_landlock(sites: &Sites, scratch: &Scratch, file: &Path) -> Background {
    std::thread::scope(|scope| {
        let run = || {
            without_landlock();
            Background::run(&sites.a, scratch, &[], &["up", file.to_str().unwrap()])
        };
        scope.spawn(run).join().unwrap()
    })
}

#[test]
fn required_confinement_covers_compiler() {
    let sites = Sites::new();
    let _lans = sites.lans(1500);
    for (require, words) in [
        ("require-confinement = true\n", "lacks Landlock to confine the filter compiler"),
        // Else it does its work: this filter cannot be compiled.
        ("", "syntax error"),
    ] {
        let scratch = Scratch::new();
        let file = scratch.write("m.toml", &(require.to_owned() + &mirror("udp port")), 0o644);
        let run = run_without_landlock(&sites, &scratch, &file);
        assert!(run.status.code() == Some(78) && run.output.contains(words), "{require}: {}", run.output);
    }
}

#[test]
fn check_needs_no_setuid() {
    let sites = Sites::new();
    let scratch = Scratch::new();
    let file = scratch.write("m.toml", &mirror("udp port 514"), 0o644);
    for dropped in ["-setuid", "-setgid", "-all"] {
        let run = Background::run(&sites.a, &scratch, &["--bounding-set", dropped], &["check", file.to_str().unwrap()]);
        assert_eq!(run.status.code(), Some(0), "{dropped}: {}", run.output);
    }
}

/// libpcap, and what the distribution has linked it with, would run with all that a process has.
#[test]
fn only_compiler_loads_libpcap() {
    let sites = Sites::new();
    let _lans = sites.lans(1500);
    let tunnel = Running::classic(&sites.a, "m", "-t 192.0.2.1 6000 192.0.2.2 6000 lan udp");
    for process in ["supervisor", "helper", "worker"] {
        let maps = fs::read_to_string(format!("/proc/{}/maps", tunnel.pid(process))).unwrap();
        assert!(!maps.contains("libpcap"), "{process}");
    }
    assert_eq!(children(tunnel.pid("supervisor")).len(), 2, "helper and worker");
}

/// In the place of libpcap: does what an attacker would who has taken it over by a filter, and says what has succeeded.
const EXPLOITED: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/if_packet.h>
static int interface, tried;
static char said[256];
static void try(const char *what, long result) {
    tried++;
    if (result >= 0) { strcat(said, what); strcat(said, " "); }
}
void *pcap_open_live(const char *name, int a, int b, int c, char *error) {
    interface = socket(AF_PACKET, SOCK_RAW, 0);
    if (interface < 0) { strcpy(error, "no packet socket"); return 0; }
    struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = 1 };
    bind(interface, (void *)&to, sizeof to);
    return &interface;
}
void *pcap_open_dead(int a, int b) { return &interface; }
int pcap_fileno(void *handle) { return interface; }
char *pcap_geterr(void *handle) { return said; }
void pcap_freecode(void *program) {}
void pcap_close(void *handle) {}
int pcap_compile(void *handle, void *program, const char *filter, int optimize, uint32_t mask) {
    char frame[60] = { 0 };
    struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = 1, .sll_halen = 6 };
    int one = 1;
    try("shadow", open("/etc/shadow", O_RDONLY));
    try("passwd", open("/etc/passwd", O_RDONLY));
    try("key", open(filter + 4, O_RDONLY));
    try("memory", open("/proc/self/mem", O_RDWR));
    try("write", open("/tmp/ethudp-exploited", O_RDWR | O_CREAT, 0600));
    try("null", open("/dev/null", O_WRONLY));
    try("interface", open("/sys/class/net/lo/mtu", O_RDONLY));
    try("hosts-write", open("/etc/hosts", O_WRONLY));
    try("inet", socket(AF_INET, SOCK_DGRAM, 0));
    try("unix", socket(AF_UNIX, SOCK_STREAM, 0));
    try("packet", socket(AF_PACKET, SOCK_RAW, 0));
    try("netlink", socket(AF_NETLINK, SOCK_RAW, 0));
    try("send", sendto(interface, frame, sizeof frame, 0, (void *)&to, sizeof to));
    struct iovec part = { frame, sizeof frame };
    struct msghdr message = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1 };
    try("sendmsg", sendmsg(interface, &message, 0));
    try("write-frame", write(interface, frame, sizeof frame));
    try("rebind", bind(interface, (void *)&to, sizeof to));
    try("hear-again", setsockopt(interface, SOL_SOCKET, 27, &one, sizeof one));
    try("fork", syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    try("exec", execve("/bin/true", (char *[]){ "true", 0 }, (char *[]){ 0 }));
    try("signal", kill(getppid(), 0));
    try("trace", ptrace(PTRACE_ATTACH, getppid(), 0, 0));
    try("namespace", unshare(CLONE_NEWUSER));
    try("user", syscall(SYS_setresuid, 0, 0, 0));
    try("dumpable", prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    try("executable", (long)mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    void *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    try("made-executable", mprotect(page, 4096, PROT_READ | PROT_EXEC));
    try("much-memory", (long)mmap(0, 80 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    try("bpf", syscall(SYS_bpf, 0, 0, 0));
    sprintf(said + strlen(said), "of %d", tried);
    return -1;
}
"#;

#[test]
fn exploited_libpcap_reaches_nothing() {
    let sites = Sites::new();
    let _lans = sites.lans(1500);
    let scratch = Scratch::new();
    let (source, library) = (scratch.write("exploited.c", EXPLOITED, 0o600), scratch.path().join("exploited.so"));
    let built = Command::new("cc").args(["-shared", "-fPIC", "-w", "-o"]).args([&library, &source]).status().unwrap();
    assert!(built.success());
    let real = libpcap();
    // Which the compiler's user could read.
    let key = scratch.write("key", "secret", 0o644);
    let file = scratch.write("m.toml", &mirror(&format!("key {}", key.display())), 0o644);
    // Where another user finds it.
    let copy = scratch.path().join("ethudp");
    copy_built("ethudp", &copy);
    for (program, command, user) in [
        (ETHUDP, "up", ""),
        (copy.to_str().unwrap(), "check", "setpriv --reuid=nobody --regid=nogroup --clear-groups "),
    ] {
        let script =
            format!("mount --bind {} {real} && exec {user}{program} {command} {}", library.display(), file.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "setpriv", "--pdeathsig=KILL", "sh", "-c", &script]);
        command.env("RUNTIME_DIRECTORY", scratch.path()).env_remove("NOTIFY_SOCKET").stderr(Stdio::piped());
        let output = sites.a.spawn(&mut command).wait_with_output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(78) && text.contains("\": of 28; must be a tcpdump filter"), "{text}");
    }
    assert!(!fs::exists("/tmp/ethudp-exploited").unwrap());
}

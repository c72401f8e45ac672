//! Underlays that lose datagrams by their size, or runs of datagrams, silently: traffic goes on after a short pause.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::sleep;
use std::time::{Duration, Instant};

use privsep::sys::option;

use crate::lab::{PATIENCE, Running, Sites, allowed, wait_for};
use crate::secure::End;

const BYTES: usize = 1 << 20;
/// Longest pause of a transfer.
const STALL: Duration = Duration::from_secs(2);
/// Bytes of a transfer after which the underlay changes.
const CHANGE: usize = BYTES / 4;

/// Makes both hosts drop received datagrams of the tunnel that are longer than `most` bytes. A host sees runs uncut, unless the sender
/// segments them in software.
fn drop_longer(sites: &Sites, most: u32) {
    for site in [&sites.a, &sites.b] {
        site.run("nft", "add table ip way");
        site.run("nft", "add chain ip way in { type filter hook prerouting priority -400 ; }");
        site.run("nft", &format!("add rule ip way in iifname wan udp dport 6000 ip length > {most} drop"));
    }
}

/// Underlay on which runs are segmented before the middle.
fn without_runs() -> Sites {
    let sites = Sites::new();
    for site in [&sites.a, &sites.b] {
        site.run("ethtool", "-K wan tx-udp-segmentation off");
    }
    sites
}

fn up(sites: &Sites) -> (Running, Running) {
    let ends = (End::A.start(sites, "a"), End::B.start(sites, "b"));
    ends.0.wait_state("up", PATIENCE);
    ends.1.wait_state("up", PATIENCE);
    ends
}

/// Longest pause between two arrivals.
struct Pauses {
    last: Instant,
    longest: Duration,
}

impl Pauses {
    fn new() -> Self {
        Self { last: Instant::now(), longest: Duration::ZERO }
    }

    fn arrived(&mut self) {
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
    }
}

/// Sends [`BYTES`] by TCP from A to B at about 10 Mbit/s. Calls `change` in the middle. Returns the longest pause.
fn by_tcp(sites: &Sites, change: impl FnOnce()) -> Duration {
    let listener = sites.b.inside(|| TcpListener::bind(("10.8.0.2", 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let mut stream = sites.a.inside(|| TcpStream::connect_timeout(&target, PATIENCE).unwrap());
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let (mut buffer, mut received, mut pauses) = (vec![0; 65_536], 0, Pauses::new());
            while received < BYTES {
                received += stream.read(&mut buffer).unwrap();
                pauses.arrived();
            }
            pauses.longest
        });
        let mut change = Some(change);
        for number in 0..BYTES / 16_384 {
            if number * 16_384 == CHANGE {
                change.take().unwrap()();
            }
            stream.write_all(&[7; 16_384]).unwrap();
            sleep(Duration::from_millis(12));
        }
        receiver.join().unwrap()
    })
}

/// Bytes that arrive in each tenth of a second while A sends to B by TCP as fast as it can. Calls `change` after `before`.
fn flood(sites: &Sites, before: Duration, after: Duration, change: impl FnOnce()) -> (Vec<usize>, Vec<usize>) {
    const TENTH: Duration = Duration::from_millis(100);
    let listener = sites.b.inside(|| TcpListener::bind(("10.8.0.2", 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let mut stream = sites.a.inside(|| TcpStream::connect_timeout(&target, PATIENCE).unwrap());
    let arrived = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 1 << 18];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                arrived.fetch_add(length, Relaxed);
            }
        });
        let sender = stream.try_clone().unwrap();
        scope.spawn(|| {
            let block = vec![7; 1 << 16];
            while stream.write_all(&block).is_ok() {}
        });
        let sample = |time: Duration| {
            let tenths = 0..time.as_millis() / TENTH.as_millis();
            let tenth = |_| {
                let begin = arrived.load(Relaxed);
                sleep(TENTH);
                arrived.load(Relaxed) - begin
            };
            tenths.map(tenth).collect()
        };
        let before = sample(before);
        change();
        let after = sample(after);
        sender.shutdown(Shutdown::Both).unwrap();
        (before, after)
    })
}

/// Sends [`BYTES`] by UDP with DF, as QUIC does. Data without an acknowledgement is sent again, in datagrams of 1200 bytes.
fn by_udp(sites: &Sites, change: impl FnOnce()) -> Duration {
    const AGAIN: Duration = Duration::from_millis(200);
    let receiver = sites.b.inside(|| UdpSocket::bind(("10.8.0.2", 7000)).unwrap());
    let sender = sites.a.inside(|| UdpSocket::bind(("10.8.0.1", 7000)).unwrap());
    option::set_int(sender.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO).unwrap();
    sender.connect("10.8.0.2:7000".parse::<SocketAddr>().unwrap()).unwrap();
    sender.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let (mut seen, mut count, mut pauses, mut buffer) = (vec![false; BYTES], 0, Pauses::new(), [0; 2000]);
            while count < BYTES {
                let (length, from) = receiver.recv_from(&mut buffer).unwrap();
                let start = usize::from_be_bytes(buffer[..8].try_into().unwrap());
                let arrived = &mut seen[start..start + length - 8];
                let new = arrived.iter().filter(|seen| !**seen).count();
                arrived.fill(true);
                count += new;
                if new > 0 {
                    pauses.arrived();
                }
                receiver.send_to(&buffer[..8], from).unwrap();
            }
            pauses.longest
        });
        let (mut change, mut size, mut sent, mut acknowledged) = (Some(change), 1386, 0, 0);
        let mut again: VecDeque<Range<usize>> = VecDeque::new();
        let mut open: HashMap<usize, (Range<usize>, Instant)> = HashMap::new();
        let start = Instant::now();
        while acknowledged < BYTES && !receiver.is_finished() {
            assert!(start.elapsed() < PATIENCE, "{acknowledged} bytes of {BYTES}");
            if acknowledged >= CHANGE && change.is_some() {
                change.take().unwrap()();
            }
            while open.len() < 32 {
                let next = again.pop_front().unwrap_or(sent..BYTES);
                let range = next.start..next.end.min(next.start + size);
                if range.is_empty() {
                    break;
                }
                let datagram = [&range.start.to_be_bytes()[..], &vec![7; range.len()]].concat();
                if let Err(error) = sender.send(&datagram) {
                    if error.raw_os_error() == Some(libc::EMSGSIZE) {
                        size = 1192;
                    }
                    again.push_front(if next.end <= sent { next } else { range.clone() });
                    sent = sent.max(range.end);
                    break;
                }
                if range.end < next.end && next.end <= sent {
                    again.push_front(range.end..next.end);
                }
                sent = sent.max(range.end);
                open.insert(range.start, (range, Instant::now()));
            }
            let mut buffer = [0; 8];
            match sender.recv(&mut buffer) {
                Ok(_) => {
                    let answered = open.remove(&usize::from_be_bytes(buffer));
                    acknowledged += answered.map_or(0, |(range, _)| range.len());
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                // The answer "fragmentation needed".
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE), "{error}"),
            }
            for (_, (range, _)) in open.extract_if(|_, (_, at)| at.elapsed() > AGAIN) {
                size = 1192;
                again.push_back(range);
            }
        }
        receiver.join().unwrap()
    })
}

/// Waits until both ends send packets of at most `most` bytes, and four less at least.
fn wait_path_mtu(ends: &(Running, Running), most: u64) {
    for end in [&ends.0, &ends.1] {
        wait_for("the path MTU", PATIENCE, || {
            let path = end.status()["paths"][0].clone();
            let found = path["path_mtu"].as_u64().unwrap();
            (path["path_mtu_searched"] == true && (most - 4..=most).contains(&found)).then_some(())
        });
    }
}

fn assert_short(what: &str, pause: Duration) {
    eprintln!("longest pause {what}: {} ms", pause.as_millis());
    assert!(pause < allowed(STALL), "{what}: nothing arrived for {pause:?}");
}

#[test]
fn full_size_is_found_at_start() {
    let sites = Sites::new();
    let ends = up(&sites);
    wait_path_mtu(&ends, 1500);
    let status =
        wait_for("runs", PATIENCE, || Some(ends.0.status()).filter(|it| it["paths"][0]["runs_arrive"] == true));
    assert!(status["reason"].is_null(), "{status}");
}

#[test]
fn silent_limit_before_session_stalls_nothing() {
    let sites = without_runs();
    drop_longer(&sites, 1280);
    let ends = up(&sites);
    assert_short("of TCP, limit before the session", by_tcp(&sites, || {}));
    assert_short("of UDP, limit before the session", by_udp(&sites, || {}));
    wait_path_mtu(&ends, 1280);
    assert!(ends.0.log().contains("the path carries datagrams of 1252 bytes, less than the 1472"), "{}", ends.0.log());
}

#[test]
fn silent_limit_during_tcp_stalls_briefly() {
    let sites = without_runs();
    let ends = up(&sites);
    wait_path_mtu(&ends, 1500);
    assert_short("of TCP, limit during the transfer", by_tcp(&sites, || drop_longer(&sites, 1280)));
    wait_path_mtu(&ends, 1280);
}

#[test]
fn silent_limit_during_udp_stalls_briefly() {
    let sites = without_runs();
    let ends = up(&sites);
    wait_path_mtu(&ends, 1500);
    assert_short("of UDP, limit during the transfer", by_udp(&sites, || drop_longer(&sites, 1340)));
    wait_path_mtu(&ends, 1340);
}

/// In mode tap a sender learns the size of a path that carries less than its interface.
#[test]
fn too_long_packet_is_answered() {
    let sites = without_runs();
    drop_longer(&sites, 1380);
    let ends = up(&sites);
    wait_path_mtu(&ends, 1380);
    for (site, host) in [(&sites.a, 1), (&sites.b, 2)] {
        site.inside(|| std::fs::write("/proc/sys/net/ipv6/conf/eu0/disable_ipv6", "0").unwrap());
        site.ip(&format!("addr add fd00::{host}/64 dev eu0 nodad"));
    }
    // 1380 less IP, UDP, the overhead and the inner Ethernet header; the search may end four bytes below.
    for (from, to, level, name) in [
        ("10.8.0.1", "10.8.0.2", libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        ("fd00::1", "fd00::2", libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    ] {
        let sender = sites.a.inside(|| UdpSocket::bind((from, 7001)).unwrap());
        option::set_int(sender.as_fd(), level, name, libc::IP_PMTUDISC_DO).unwrap();
        let to: std::net::IpAddr = to.parse().unwrap();
        let long = |length: usize| sender.send_to(&vec![7; length], (to, 7001));
        let header = if to.is_ipv4() { 28 } else { 48 };
        let mtu = wait_for("the answer", PATIENCE, || {
            let _ = long(1400 - header);
            let route = sites.a.ip(&format!("route get {to}"));
            route.split(" mtu ").nth(1).map(|rest| rest.split_whitespace().next().unwrap().parse::<usize>().unwrap())
        });
        assert!((1298..=1302).contains(&mtu), "{to}: {mtu}");
        assert_eq!(long(mtu - header + 1).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        let receiver = sites.b.inside(|| UdpSocket::bind((to, 7001)).unwrap());
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        long(mtu - header).unwrap();
        assert_eq!(receiver.recv(&mut [0; 2000]).unwrap(), mtu - header);
    }
    assert!(ends.0.count("/port/rx_dropped_too_big") >= 2, "{}", ends.0.status());
}

/// A network that drops runs uncut, before the session and from a time on.
#[test]
fn lost_runs_heal() {
    for before in [true, false] {
        let sites = Sites::new();
        if before {
            drop_longer(&sites, 1500);
        }
        let ends = up(&sites);
        wait_path_mtu(&ends, 1500);
        let change = || {
            if !before {
                drop_longer(&sites, 1500);
            }
        };
        assert_short(&format!("with lost runs, before the session: {before}"), by_tcp(&sites, change));
        let status = wait_for("the loss of runs", PATIENCE, || {
            Some(ends.0.status()).filter(|status| status["paths"][0]["runs_arrive"] == false)
        });
        let reason = status["reason"].as_str().unwrap();
        let said = "runs of datagrams do not reach the peer (0 of 6 in runs of 2, 0 of 24 in runs of 8), single ones of 1472 bytes do (3 of 3)";
        assert!(status["state"] == "up" && reason.starts_with(said) && reason.contains("`ethtool -K "), "{status}");
        assert_eq!(ends.0.log().matches(said).count(), 1, "{}", ends.0.log());
    }
}

/// A network that begins to drop runs while TCP sends as fast as it can.
#[test]
fn lost_runs_under_load_heal_within_seconds() {
    const HEALED: Duration = Duration::from_secs(5);
    let sites = Sites::new();
    let ends = up(&sites);
    wait_path_mtu(&ends, 1500);
    let (before, after) = flood(&sites, Duration::from_secs(2), Duration::from_secs(8), || drop_longer(&sites, 1500));
    let mean = |tenths: &[usize]| tenths.iter().sum::<usize>() / tenths.len();
    let (with_runs, singly) = (mean(&before[10..]), mean(&after[50..]));
    assert!(singly > with_runs / 20, "{after:?}");
    let healed = after.windows(5).position(|window| mean(window) > singly / 2).unwrap();
    let healed = Duration::from_millis(100) * u32::try_from(healed + 5).unwrap();
    eprintln!("{with_runs} bytes in 100 ms with runs, {singly} without, after {healed:?}");
    assert!(healed < allowed(HEALED), "{healed:?}: {after:?}");
}

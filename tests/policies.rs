//! Several paths: each policy, and as many paths as a file may have. A path is cut without a sign: its links stay up.

use std::fmt::Write;
use std::net::UdpSocket;
use std::time::Duration;

use crate::lab::{Namespace, PATIENCE, Running, Scratch, assert_udp, join, wait_for};
use crate::secure::KEYS;

/// Two sites with this many uplinks `w1`, `w2` ... of their own, and a tunnel over all of them.
struct Uplinks {
    sites: [Namespace; 2],
    ends: [Running; 2],
}

impl Uplinks {
    /// `policy` is a line of both files. Each path has the lines that `path` returns for its number.
    fn new(count: u8, policy: &str, path: impl Fn(u8) -> &'static str) -> Self {
        let sites = [Namespace::new(), Namespace::new()];
        for number in 1..=count {
            let name = format!("w{number}");
            join((&sites[0], &name), (&sites[1], &name), 1500);
            for (site, host) in sites.iter().zip(1..) {
                site.ip(&format!("addr add 192.0.{number}.{host}/24 dev {name}"));
            }
        }
        for site in &sites {
            site.run("nft", "add table ip way");
            site.run("nft", "add chain ip way in { type filter hook prerouting priority -400 ; }");
        }
        let end = |which: usize| {
            let (ours, theirs, scratch) = (which + 1, 2 - which, Scratch::new());
            scratch.write("end.key", KEYS[which].0, 0o600);
            let mut text = format!(
                "mode = \"tap\"\n{policy}\n[tap]\nname = \"eu0\"\naddress = [\"10.8.0.{ours}/24\"]\n[secure]\n\
                 private-key-file = \"end.key\"\npeer-public-key = \"{}\"\n",
                KEYS[1 - which].1
            );
            for number in 1..=count {
                let (local, remote) = (format!("192.0.{number}.{ours}:6000"), format!("192.0.{number}.{theirs}:6000"));
                let _ = writeln!(text, "[[path]]\nlocal = \"{local}\"\nremote = \"{remote}\"\n{}", path(number));
            }
            let file = scratch.write("t.toml", &text, 0o644);
            Running::start(&sites[which], scratch, "t", &[], &["up", file.to_str().unwrap()])
        };
        let ends = [end(0), end(1)];
        for end in &ends {
            wait_for("all paths up", PATIENCE, || {
                let paths = end.status()["paths"].as_array().unwrap().clone();
                (paths.len() == usize::from(count) && paths.iter().all(|path| path["state"] == "up")).then_some(())
            });
        }
        Self { sites, ends }
    }

    /// Drops what arrives by this path at this site.
    fn cut(&self, site: usize, number: u8) {
        self.sites[site].run("nft", &format!("add rule ip way in iifname w{number} drop"));
    }

    /// Number of the path of the status, counted from one, by which this end sends most of `frames`.
    fn sent(&self, which: usize, path: usize) -> u64 {
        self.ends[which].count(&format!("/paths/{path}/tx_datagrams"))
    }

    /// Sockets of this many flows from the first site to the second.
    fn flows(&self, count: u16) -> Vec<(UdpSocket, UdpSocket)> {
        let socket = |which: usize| {
            let socket = self.sites[which].inside(|| UdpSocket::bind((format!("10.8.0.{}", which + 1), 0)).unwrap());
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let flow = |_| {
            let (from, to) = (socket(0), socket(1));
            from.connect(to.local_addr().unwrap()).unwrap();
            (from, to)
        };
        (0..count).map(flow).collect()
    }
}

/// Numbers of the datagrams that have arrived.
fn arrived(socket: &UdpSocket) -> Vec<u32> {
    let mut bytes = [0; 4];
    std::iter::from_fn(|| socket.recv(&mut bytes).ok().map(|_| u32::from_be_bytes(bytes))).collect()
}

/// Sends numbered datagrams by each flow, one each millisecond and flow, and calls `midway` after half of them. Returns the numbers
/// that arrive in each flow.
fn stream(flows: &[(UdpSocket, UdpSocket)], count: u32, midway: impl FnOnce()) -> Vec<Vec<u32>> {
    let (mut found, mut midway) = (vec![Vec::new(); flows.len()], Some(midway));
    let take =
        |found: &mut Vec<Vec<u32>>| found.iter_mut().zip(flows).for_each(|(all, flow)| all.extend(arrived(&flow.1)));
    for number in 0..count {
        if number == count / 2
            && let Some(midway) = midway.take()
        {
            midway();
        }
        for (from, _) in flows {
            from.send(&number.to_be_bytes()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
        take(&mut found);
    }
    let start = std::time::Instant::now();
    while found.iter().any(|all| all.len() < count as usize) && start.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
        take(&mut found);
    }
    found
}

#[test]
fn duplicate_survives_cut_without_loss() {
    let tunnel = Uplinks::new(3, "policy = \"duplicate\"", |_| "");
    assert_udp(&tunnel.sites[0], &tunnel.sites[1], "10.8.0.2");
    let flows = tunnel.flows(1);
    let found = stream(&flows, 2000, || tunnel.cut(1, 1));
    // All of them, once and in order.
    assert_eq!(found, [(0..2000).collect::<Vec<_>>()]);
    let (copies, replays) = (tunnel.ends[1].count("/session/copies"), tunnel.ends[1].count("/session/replays"));
    assert!(copies > 900 && replays == 0, "{copies} copies, {replays} replays");
    let status = tunnel.ends[0].status();
    assert_eq!((&status["policy"], &status["paths"][1]["active"]), (&"duplicate".into(), &true.into()));
}

#[test]
fn balance_keeps_order_of_flows() {
    let tunnel = Uplinks::new(2, "policy = \"balance\"", |number| if number == 1 { "weight = 3" } else { "" });
    assert_udp(&tunnel.sites[0], &tunnel.sites[1], "10.8.0.2");
    let before = [0, 1].map(|path| tunnel.sent(0, path));
    let flows = tunnel.flows(40);
    let found = stream(&flows, 200, || {});
    for all in found {
        assert_eq!(all, (0..200).collect::<Vec<_>>());
    }
    // 40 flows, three quarters of them by the first path. Without a bound on chance: one flow in twenty at least by each.
    let sent = [0, 1].map(|path| tunnel.sent(0, path) - before[path]);
    assert!(sent.iter().all(|&sent| sent > 400), "{sent:?}");
    let status = tunnel.ends[0].status();
    assert!([0, 1].iter().all(|&path| status["paths"][path]["active"] == true), "{status}");
    // The flows of a path that is cut go on by the other.
    tunnel.cut(1, 1);
    wait_for("one active path", PATIENCE, || {
        let status = tunnel.ends[0].status();
        (status["paths"][0]["active"] == false).then_some(())
    });
    let found = stream(&flows, 20, || {});
    assert!(found.iter().all(|all| all.len() >= 20), "{found:?}");
}

#[test]
fn each_of_eight_paths_is_used() {
    let tunnel = Uplinks::new(8, "", |_| "");
    for number in 1..=8 {
        let active = usize::from(number) - 1;
        for end in &tunnel.ends {
            wait_for("active path", PATIENCE, || (end.status()["paths"][active]["active"] == true).then_some(()));
        }
        let before = tunnel.sent(0, active);
        assert_udp(&tunnel.sites[0], &tunnel.sites[1], "10.8.0.2");
        assert!(tunnel.sent(0, active) > before);
        for site in [0, 1] {
            tunnel.cut(site, number);
        }
    }
    for end in &tunnel.ends {
        end.wait_state("down", PATIENCE);
    }
}

//! Where the keys of the secure wire are: in the memory of which processes, and how long. The peer is this test, which therefore
//! knows them.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64ct::{Base64, Encoding};
use curve25519_dalek::MontgomeryPoint;
use ethudp_worker::wire::secure::handshake::{Answered, Initiator, Random};
use ethudp_worker::wire::secure::keys::Pair;
use ethudp_worker::wire::secure::message::{Form, Message, offer, parse};
use ethudp_worker::wire::secure::{Keys, Sending, content, crypt};
use nix::unistd::Pid;
use privsep::ipc::Timestamp;

use crate::lab::{Running, Scratch, Sites, Wire, frame, wait_for};

const LIMIT: Duration = crate::lab::PATIENCE;
/// Time after which a session ends that is not the current one any more, and by which nothing comes.
const GOING: Duration = Duration::from_secs(10);

/// Bytes that are nowhere by chance.
fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

fn public(private: [u8; 32]) -> [u8; 32] {
    MontgomeryPoint::mul_base_clamped(private).to_bytes()
}

/// The regions of a process's memory that can be read and of whose line in /proc/PID/maps this is true.
fn regions(process: Pid, mut is_wanted: impl FnMut(&str) -> bool) -> Vec<Vec<u8>> {
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with('r') && is_wanted(line)) {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        // The kernel's own pages cannot be read so.
        let Ok(length) = memory.read_at(&mut bytes, start) else { continue };
        bytes.truncate(length);
        all.push(bytes);
    }
    all
}

/// Number of places of `part` (Horspool's search, because this code is not optimised and a worker has megabytes).
fn occurrences(regions: &[Vec<u8>], part: &[u8]) -> usize {
    let last = part.len() - 1;
    let mut steps = [part.len(); 256];
    for (place, byte) in part[..last].iter().enumerate() {
        steps[usize::from(*byte)] = last - place;
    }
    let mut found = 0;
    for bytes in regions {
        let mut place = last;
        while place < bytes.len() {
            found += usize::from(bytes[place] == part[last] && bytes[place - last..=place] == *part);
            place += steps[usize::from(bytes[place])];
        }
    }
    found
}

/// All of a process's memory, as it is at this moment.
fn memory(process: Pid) -> Vec<Vec<u8>> {
    let regions = regions(process, |_| true);
    let read: usize = regions.iter().map(Vec::len).sum();
    assert!(read > 1 << 20, "{read} bytes of {process} read");
    regions
}

/// How many times a memory has one of these in it, or half of one.
fn copies(memory: &[Vec<u8>], secrets: &[&[u8]]) -> usize {
    secrets.iter().flat_map(|secret| secret.chunks(16)).map(|half| occurrences(memory, half)).sum()
}

fn copies_of(memory: &[Vec<u8>], keys: &Keys) -> usize {
    copies(memory, &[&keys.sending[..], &keys.receiving[..]])
}

/// The other end.
struct Peer {
    socket: UdpSocket,
    pair: Pair,
}

impl Peer {
    /// Makes a session, whose first datagram is answered, with one of these ciphers.
    fn session(&self, offer: u8) -> Keys {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = Timestamp(u64::try_from(since.as_nanos()).unwrap());
        let mut draw: Random = Box::new(|bytes| getrandom::fill(bytes).unwrap());
        let mut initiator = Initiator::new(&self.pair, Form::Long, offer, (7, 0), now, &mut draw).unwrap();
        let initiation = initiator.bytes().to_vec();
        let answered = self.ask(&initiation, |answer| match parse(answer) {
            Some(Message::Response(response)) if response.receiver == 7 => Some(initiator.take(&response).unwrap()),
            _ => None,
        });
        let Answered::Keys(keys) = answered else { panic!("the short form") };
        let mut ping = [
            &[0; crypt::HEADER][..],
            &content::ping([1; 8], content::DatagramCounts::default(), false),
            &[0; crypt::TAG],
        ]
        .concat();
        Sending::new(&keys).seal(0, &mut ping).unwrap();
        self.ask(&ping, |answer| (crypt::receiver(answer) == Some(keys.our_index)).then_some(()));
        keys
    }

    /// Sends a datagram and waits for the answer to it.
    fn ask<T>(&self, datagram: &[u8], mut is_answer: impl FnMut(&[u8]) -> Option<T>) -> T {
        self.socket.send(datagram).unwrap();
        let mut buffer = [0; 2000];
        wait_for("an answer", LIMIT, || {
            self.socket.recv(&mut buffer).ok().and_then(|length| is_answer(&buffer[..length]))
        })
    }
}

/// A tunnel with these private and pre-shared keys, and its peer.
fn start(private: [u8; 32], psk: [u8; 32]) -> (Sites, Running, Peer) {
    let (sites, scratch, theirs) = (Sites::new(), Scratch::new(), random());
    scratch.write("a.key", &Base64::encode_string(&private), 0o600);
    scratch.write("a.psk", &Base64::encode_string(&psk), 0o600);
    let text = format!(
        "mode = \"tap\"\n[tap]\nname = \"eu0\"\n[[path]]\nlocal = \"0.0.0.0:6000\"\nremote = \"any\"\n[secure]\n\
         private-key-file = \"a.key\"\n\
         psk-file = \"a.psk\"\npeer-public-key = \"{}\"\n",
        Base64::encode_string(&public(theirs))
    );
    let file = scratch.write("a.toml", &text, 0o644);
    let running = Running::start(&sites.a, scratch, "a", &[], &["up", file.to_str().unwrap()]);
    let socket = sites.b.inside(|| UdpSocket::bind("192.0.2.2:6000").unwrap());
    socket.connect("192.0.2.1:6000").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let pair = Pair::new(&theirs, public(private), &psk, [0; 8]).unwrap();
    (sites, running, Peer { socket, pair })
}

#[test]
fn session_keys_stay_in_worker() {
    let tunnels = [offer::CHACHA, offer::CHACHA | offer::AES].map(|offer| {
        let (sites, a, peer) = start(random(), random());
        let first = peer.session(offer);
        // What sends frames has the first session by this, and no frame comes that would give it the second.
        Wire::new(&sites.a, "eu0").send(&frame(1, 100));
        wait_for("the frame", LIMIT, || (a.count("/port/rx_frames") > 0).then_some(()));
        let sessions = [first, peer.session(offer)];
        // The first is still there for what is under way. The search may take longer than the first has.
        let early = memory(a.pid("worker"));
        let found = sessions.each_ref().map(|keys| copies_of(&early, keys) > 0);
        assert_eq!(found, [true; 2], "{:?}: cannot be found", sessions[0].cipher);
        (sites, a, sessions)
    });
    thread::sleep(GOING);
    for (_, a, [first, second]) in &tunnels {
        let worker = a.pid("worker");
        wait_for("the first session is wiped", LIMIT, || (copies_of(&memory(worker), first) == 0).then_some(()));
        assert!(copies_of(&memory(worker), second) > 0, "{:?}", second.cipher);
        for process in ["supervisor", "helper"] {
            let memory = memory(a.pid(process));
            assert_eq!([first, second].map(|keys| copies_of(&memory, keys)), [0, 0], "{process}, {:?}", first.cipher);
        }
        assert_eq!(a.status()["worker_restarts"], 0);
    }
}

#[test]
fn helper_never_has_private_key() {
    let (private, psk) = (random(), random());
    let (_sites, a, peer) = start(private, psk);
    peer.session(offer::CHACHA);
    let texts = [private, psk].map(|key| Base64::encode_string(&key));
    for (key, text) in [private, psk].iter().zip(&texts) {
        let has = |process| copies(&memory(a.pid(process)), &[&key[..], &text.as_bytes()[..32]]);
        assert!(has("supervisor") > 0 && has("worker") > 0);
        assert_eq!(has("helper"), 0);
        assert!(!a.log().contains(text) && !a.status().to_string().contains(text));
    }
}

#[test]
fn handshakes_copy_no_keys() {
    let (private, psk) = (random(), random());
    let (_sites, a, peer) = start(private, psk);
    for _ in 0..4 {
        peer.session(offer::CHACHA);
    }
    assert!(a.count("/session/handshakes") >= 4);
    // Not the stack, of which nothing is promised; and without the bytes of a key at its ends, of which X25519 changes some bits.
    let of = |process| {
        let regions = regions(a.pid(process), |line| line.contains(" rw-p ") && !line.ends_with("[stack]"));
        [private, psk].map(|key| occurrences(&regions, &key[1..31]))
    };
    let [private, psk] = of("worker");
    assert!(private <= 1 && psk <= 1, "the private key {private} times, the pre-shared one {psk} times");
    // The search finds what is there: the supervisor has both for the next worker.
    assert!(of("supervisor").into_iter().all(|found| found > 0));
}

//! No unused key stays in the heap. With the worker's allocator, the test searches the memory of this process for known keys.
//! Stacks are excluded: copies on a stack stay until they are overwritten.

use std::fs::File;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use aws_lc_rs::agreement::{PrivateKey, X25519};
use ethudp_worker::batch::Batch;
use ethudp_worker::wire::secure::keys::{KEY, Pair, public};
use ethudp_worker::wire::secure::{CipherKind, Keys, Opening, Sending, Session, SessionConfig};
use ethudp_worker::wire::{Counters, Outbox};
use privsep::ipc::{Address, Remote, Secure, State, Timestamp};
use privsep::sys::worker::heap::WipingAllocator;

#[global_allocator]
static HEAP: WipingAllocator = WipingAllocator::new();

const SECOND: u64 = 1_000_000;
const STACK: usize = 2 << 20;

/// Key in a form that occurs nowhere else.
#[derive(Clone, Copy, PartialEq)]
struct Masked([u8; KEY]);

impl Masked {
    fn new(key: &[u8]) -> Self {
        Self(std::array::from_fn(|at| key[at] ^ 0x55))
    }

    fn is(&self, bytes: &[u8]) -> bool {
        bytes.iter().zip(self.0).all(|(byte, masked)| byte ^ 0x55 == masked)
    }
}

/// Writable memory of this process without the stack of `local`.
fn memory(local: usize) -> Vec<Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let number = |text| usize::from_str_radix(text, 16).unwrap();
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw-p ") && !line.ends_with("[stack]")) {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (mut start, end) = (number(start), number(end));
        // A mapping above a stack may be merged with it.
        if (start..end).contains(&local) {
            start = end.min(start + STACK);
        }
        all.push(start..end);
    }
    all
}

/// Number of occurrences of each key.
fn found(keys: &[Masked], local: usize) -> Vec<usize> {
    let (file, mut found) = (File::open("/proc/self/mem").unwrap(), vec![0; keys.len()]);
    for range in memory(local) {
        let mut bytes = vec![0; range.len()];
        if file.read_exact_at(&mut bytes, range.start as u64).is_err() {
            continue;
        }
        let own = bytes.as_ptr().addr();
        for (at, window) in bytes.windows(KEY).enumerate() {
            // This copy of a part of the memory is itself in the memory.
            if (own..own + bytes.len()).contains(&(range.start + at)) {
                continue;
            }
            for (key, count) in keys.iter().zip(&mut found) {
                *count += usize::from(key.0[0] ^ 0x55 == window[0] && key.is(window));
            }
        }
    }
    found
}

/// Runs a function on its own stack, which the search excludes; and serially, because a search has copies of keys.
fn apart<T: Send + 'static>(run: impl FnOnce(usize) -> T + Send + 'static) -> T {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(|| {
        let local = 0_u8;
        run(std::ptr::from_ref(&local).addr())
    });
    thread.unwrap().join().unwrap()
}

/// Random enough not to occur by chance.
fn bytes(seed: u64) -> [u8; KEY] {
    let mut state = seed;
    std::array::from_fn(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
}

#[test]
fn session_keys_are_wiped() {
    apart(|local| {
        for cipher in [CipherKind::ChaCha20Poly1305, CipherKind::Aes256Gcm] {
            let keys = [Masked::new(&bytes(1)), Masked::new(&bytes(2))];
            let (sending, receiving) = (bytes(1), bytes(2));
            let made = Keys { sending, receiving, cipher, our_index: 1, their_index: 2, peer_features: 0 };
            let (sending, opening) = (Arc::new(Sending::new(&made)), Box::new(Opening::new(&made, 2)));
            drop(made);
            let there = found(&keys, local);
            assert!(there.iter().all(|&count| count > 0), "{cipher:?}: {there:?} of keys that are in use");
            drop((sending, opening));
            assert_eq!(found(&keys, local), [0, 0], "{cipher:?}");
        }
    });
}

fn home(end: usize) -> SocketAddr {
    ([192, 0, 2, if end == 0 { 1 } else { 2 }], 6000).into()
}

/// Random bytes that an end has drawn.
type Drawn = Arc<Mutex<Vec<Masked>>>;

fn session(end: usize, drawn: &Drawn) -> Box<Session> {
    let private = |end: usize| bytes(10 + end as u64);
    let peer = PrivateKey::from_private_key(&X25519, &private(1 - end)).unwrap();
    let (drawn, mut seed) = (Arc::clone(drawn), 100 * (1 + end as u64));
    let random = move |to: &mut [u8]| {
        seed += 1;
        to.copy_from_slice(&bytes(seed)[..to.len()]);
        if to.len() == KEY {
            drawn.lock().unwrap().push(Masked::new(to));
        }
    };
    Box::new(Session::new(SessionConfig {
        pair: Pair::new(&private(end), public(&peer).unwrap(), &bytes(20), [0; 8]).unwrap(),
        offer: 3,
        remotes: &[Remote::Fixed(Address(home(1 - end)))],
        paths: &[],
        secure: &Secure { datagram: 1472, ..Secure::default() },
        delivers: true,
        exit_after: None,
        state: &State::default(),
        wall: Box::new(|_| Timestamp(1000)),
        random: Box::new(random),
    }))
}

/// Lets two ends communicate until a time.
fn talk(ends: &mut [Box<Session>; 2], until_us: u64) {
    let (counters, mut outbox, mut batch) =
        (Counters::new(&State::default(), 1), Outbox::default(), Batch::with_slots(2));
    let mut now_us = 0;
    while now_us < until_us {
        let mut under_way = Vec::new();
        for (which, end) in ends.iter_mut().enumerate() {
            end.on_time(now_us, &counters, &mut outbox);
            under_way.extend(outbox.batch().frames(0).map(|bytes| (1 - which, bytes.to_vec())));
            outbox.clear();
        }
        while let Some((to, datagram)) = under_way.pop() {
            batch.clear();
            batch.append_copy(&datagram);
            ends[to].receive(0, &mut batch, now_us, &counters, &mut outbox);
            under_way.extend(outbox.batch().frames(0).map(|bytes| (1 - to, bytes.to_vec())));
            outbox.clear();
        }
        now_us = ends.iter().map(|end| end.due_us()).fold(u64::MAX, u64::min).max(now_us + 1);
    }
}

#[test]
fn handshake_secrets_are_wiped() {
    let (handshakes, ephemerals, kept, left) = apart(|local| {
        let drawn = Drawn::default();
        let mut ends = [session(0, &drawn), session(1, &drawn)];
        // A handshake and two rekeys.
        talk(&mut ends, 250 * SECOND);
        let handshakes = ends[0].report(0).secure().unwrap().counts.handshakes;
        let drawn = drawn.lock().unwrap().clone();
        let ephemerals = found(&drawn, local);
        let long_lived = [10, 11, 20].map(|seed| Masked::new(&bytes(seed)));
        let kept = found(&long_lived, local);
        drop(ends);
        (handshakes, ephemerals, kept, found(&long_lived, local))
    });
    assert_eq!(handshakes, 3);
    assert!(ephemerals.len() >= 6, "{ephemerals:?}");
    assert!(ephemerals.iter().all(|&count| count == 0), "ephemeral keys are left: {ephemerals:?}");
    assert!(kept.iter().all(|&count| count > 0), "{kept:?} of keys that are in use");
    assert_eq!(left, [0, 0, 0], "keys of the file are left");
}

//! Network: fate of datagrams on their way.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use crate::SECOND;
use crate::end::{Datagram, End};

/// Pseudorandom numbers from a seed (splitmix64).
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.next() % limit }
    }

    /// True once in `of` times on average.
    pub fn chance(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

/// Sky: conditions of a path for a while.
#[derive(Debug, Clone, Copy)]
pub struct Sky {
    /// Whether each direction is cut.
    pub cut: [bool; 2],
    /// Lost datagrams, and duplicated ones, in a thousand.
    loss: u64,
    double: u64,
    delay: u64,
    /// Most additional delay, drawn for each datagram, so that datagrams overtake each other.
    jitter: u64,
}

impl Sky {
    pub fn any(random: &mut Random) -> Self {
        let cut = match random.below(6) {
            0 => [true, true],
            1 => [true, false],
            2 => [false, true],
            _ => [false, false],
        };
        let loss = [0, 0, 10, 40][random.below(4) as usize];
        let double = [0, 20, 100][random.below(3) as usize];
        let (delay, jitter) = (random.below(SECOND / 10), random.below(SECOND / 20));
        Self { cut, loss, double, delay, jitter }
    }

    /// Random conditions with longer delays: a round trip takes up to a second.
    pub fn far(random: &mut Random) -> Self {
        let near = Self::any(random);
        Self { delay: near.delay + random.below(7 * SECOND / 20), ..near }
    }

    /// Random conditions under which every datagram arrives, once.
    pub fn clear(random: &mut Random) -> Self {
        Self { cut: [false, false], loss: 0, double: 0, ..Self::any(random) }
    }

    /// Random conditions under which nothing is lost, and each datagram takes equally long, up to 50 ms.
    pub fn steady(random: &mut Random) -> Self {
        let delay = 500 + random.below(SECOND / 20);
        Self { cut: [false, false], loss: 0, jitter: 0, delay, ..Self::any(random) }
    }

    /// The same conditions with at least one direction cut.
    pub fn cut(self, random: &mut Random) -> Self {
        Self { cut: [[true, true], [true, false], [false, true]][random.below(3) as usize], ..self }
    }

    /// The same conditions with no direction cut.
    pub fn whole(self) -> Self {
        Self { cut: [false, false], ..self }
    }

    /// Whether an answer can arrive.
    pub fn works(&self) -> bool {
        self.cut == [false, false]
    }

    /// Whether every datagram of an end arrives, or none.
    pub fn loses_nothing_from(&self, end: usize) -> bool {
        self.cut[end] || self.loss == 0
    }

    pub fn loses_nothing(&self) -> bool {
        self.works() && self.loss == 0
    }
}

/// The path to use: the first one that works.
pub fn first_that_works(skies: &[Sky]) -> Option<usize> {
    skies.iter().position(Sky::works)
}

/// NAT before end 0: the source address of its datagrams changes, and unused mappings are forgotten.
struct Nat {
    address: SocketAddr,
    used: u64,
}

/// Time after which an unused mapping is forgotten.
const FORGETS: u64 = 30 * SECOND;

pub struct Net {
    skies: Vec<Sky>,
    /// NAT of each path, if there is one.
    nat: Option<Vec<Nat>>,
    /// Datagrams in flight for each end, by time and number.
    under_way: [BTreeMap<(u64, u64), Datagram>; 2],
    number: u64,
    /// Copies of each frame's datagrams, whole or both fragments, that reach the other end, by sender.
    copies: [HashMap<u64, Vec<u64>>; 2],
}

impl Net {
    pub fn new(paths: usize, nat: bool) -> Self {
        let clear = Sky { cut: [false, false], loss: 0, double: 0, delay: 1000, jitter: 0 };
        let nats = (0..paths).map(|path| Nat { address: ([203, 0, 113, 1], 1000 + path as u16).into(), used: 0 });
        Self {
            skies: vec![clear; paths],
            nat: nat.then(|| nats.collect()),
            under_way: Default::default(),
            number: 0,
            copies: Default::default(),
        }
    }

    pub fn paths(&self) -> usize {
        self.skies.len()
    }

    pub fn set(&mut self, skies: &[Sky]) {
        self.skies = skies.to_vec();
    }

    pub fn move_nat(&mut self, random: &mut Random) {
        for nat in self.nat.iter_mut().flatten() {
            nat.address = ([203, 0, 113, 1 + random.below(200) as u8], 1024 + random.below(60000) as u16).into();
        }
    }

    /// Takes a datagram of end `from`.
    pub fn send(&mut self, from: usize, mut datagram: Datagram, now: u64, random: &mut Random) {
        let path = datagram.path;
        if let Some(nat) = &mut self.nat {
            let nat = &mut nat[path];
            if from == 0 {
                if now > nat.used + FORGETS {
                    nat.address.set_port(1024 + random.below(60000) as u16);
                }
                nat.used = now;
                datagram.source = nat.address;
            } else if datagram.target != Some(nat.address) || now > nat.used + FORGETS {
                // The address is no longer mapped.
                return;
            }
        }
        let sky = self.skies[path];
        let copies = 1 + u64::from(random.below(1000) < sky.double);
        let mut arrive = 0;
        for _ in 0..copies {
            if sky.cut[from] || random.below(1000) < sky.loss {
                continue;
            }
            self.put(1 - from, datagram.clone(), now + sky.delay + random.below(sky.jitter + 1));
            arrive += 1;
        }
        if let Some(frame) = datagram.frame {
            self.copies[from].entry(frame).or_default().push(arrive);
        }
    }

    /// Delivers a datagram of any sender to an end at a time.
    pub fn put(&mut self, end: usize, datagram: Datagram, arrives: u64) {
        self.number += 1;
        self.under_way[end].insert((arrives, self.number), datagram);
    }

    /// Time at which the next datagram can be taken, by ends that may be stopped until a time.
    pub fn due(&self, stopped_until: [u64; 2]) -> u64 {
        let first = |end: usize| self.under_way[end].keys().next().map(|(time, _)| (*time).max(stopped_until[end]));
        first(0).into_iter().chain(first(1)).min().unwrap_or(u64::MAX)
    }

    /// Takes the next datagram that has arrived for an end.
    pub fn take(&mut self, end: usize, now: u64) -> Option<Datagram> {
        let first = self.under_way[end].first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Number of times that a frame may be delivered: the number of arrivals of all its datagrams.
    pub fn copies(&self, sender: usize, frame: u64) -> u64 {
        self.copies[sender].get(&frame).and_then(|halves| halves.iter().min()).copied().unwrap_or(0)
    }

    /// Forgets frames that no end remembers.
    pub fn forget(&mut self, ends: &[End; 2]) {
        for (copies, end) in self.copies.iter_mut().zip(ends) {
            copies.retain(|number, _| end.frames.contains_key(number));
        }
    }
}

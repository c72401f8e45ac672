//! A steady stream of datagrams through a tunnel, each with its number and the time it was sent, watched where it arrives.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Namespace, PATIENCE, wait_for};

/// Time between two datagrams: 10,000 a second.
const STEP: Duration = Duration::from_micros(100);
/// A sender that is this late does not make up for it: what counts is a steady stream.
const LATE: Duration = Duration::from_millis(5);
const PORT: u16 = 7100;

/// What has arrived.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrived {
    /// Number of datagrams.
    pub frames: u64,
    /// Longest time between one and the next.
    pub gap: Duration,
    /// Longest time one was under way.
    pub oldest: Duration,
    /// Datagrams that did not.
    pub lost: u64,
    /// Datagrams that came a second time, or behind one that was sent later.
    pub disorder: u64,
}

/// A stream that runs until it is dropped.
pub struct Stream {
    stop: Arc<AtomicBool>,
    arrived: Arc<Mutex<Arrived>>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    /// Starts to send from one namespace to `address` in the other.
    pub fn start(from: &Namespace, to: &Namespace, address: &str) -> Self {
        let receiver = to.inside(|| UdpSocket::bind((address, PORT)).unwrap());
        receiver.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let sender = from.inside(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap());
        sender.connect((address, PORT)).unwrap();
        let (stop, arrived) = (Arc::<AtomicBool>::default(), Arc::default());
        let start = Instant::now();
        let threads = [
            thread::spawn({
                let stop = Arc::clone(&stop);
                move || send(&sender, start, &stop)
            }),
            thread::spawn({
                let (stop, arrived) = (Arc::clone(&stop), Arc::clone(&arrived));
                move || receive(&receiver, start, &stop, &arrived)
            }),
        ];
        Self { stop, arrived, threads: threads.into() }
    }

    /// Waits until a datagram has arrived since `take` was called last.
    pub fn wait_arrived(&self) {
        wait_for("a datagram of the stream", PATIENCE, || (self.arrived.lock().unwrap().frames > 0).then_some(()));
    }

    /// What has arrived since this was asked last.
    pub fn take(&self) -> Arrived {
        std::mem::take(&mut self.arrived.lock().unwrap())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let result = thread.join();
            assert!(result.is_ok() || thread::panicking(), "the stream has failed");
        }
    }
}

fn send(socket: &UdpSocket, start: Instant, stop: &AtomicBool) {
    let (mut number, mut due) = (0_u64, Instant::now());
    while !stop.load(Relaxed) {
        let time = u64::try_from(start.elapsed().as_micros()).unwrap();
        // No buffer may be free for a moment.
        let _ = socket.send(&[number.to_be_bytes(), time.to_be_bytes()].concat());
        number += 1;
        due = (due + STEP).max(Instant::now().checked_sub(LATE).unwrap());
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn receive(socket: &UdpSocket, start: Instant, stop: &AtomicBool, arrived: &Mutex<Arrived>) {
    let (mut buffer, mut next, mut last) = ([0; 16], 0, None::<Instant>);
    while !stop.load(Relaxed) {
        let Ok(16) = socket.recv(&mut buffer) else { continue };
        let now = Instant::now();
        let word = |at| u64::from_be_bytes(buffer[at..at + 8].try_into().unwrap());
        let (number, age) = (word(0), now.saturating_duration_since(start + Duration::from_micros(word(8))));
        let mut arrived = arrived.lock().unwrap();
        arrived.frames += 1;
        arrived.gap = arrived.gap.max(last.map_or(Duration::ZERO, |last| now - last));
        arrived.oldest = arrived.oldest.max(age);
        arrived.lost += number.saturating_sub(next);
        arrived.disorder += u64::from(number < next);
        next = next.max(number + 1);
        last = Some(now);
    }
}

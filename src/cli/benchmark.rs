//! `-B`: what seals and opens frames is measured in a worker of its own, confined as always.

use std::os::fd::AsFd;

use nix::unistd::geteuid;
use privsep::PROTOCOL;
use privsep::ipc::{self, BenchmarkResult, Channel, Classic, FromWorker, Secrets, ToWorker};
use privsep::sys::supervisor::start;

use crate::error::Context;
use crate::service::confine::{self, Keeps};
use crate::service::{executables, identity};
use crate::tunnel::cipher;
use crate::{Error, log, supervise};

/// Sizes that are always measured, in bytes: the smallest frame, one of an old phone call, the usual largest, a jumbo.
const SIZES: [u16; 4] = [64, 200, 1514, 9000];

/// Measures and prints; `length` is the size that the original would measure.
pub fn run(classic: Classic, secrets: Secrets, length: u16) -> Result<(), Error> {
    let say = || "benchmark".to_owned();
    let executables = executables::open()?;
    // As for a tunnel: nothing is measured as root.
    let user = if geteuid().is_root() { identity::choose(None)? } else { None };
    let keeps = Keeps { worker: &executables.worker, runtime: None, system_log: false };
    confine::give_up_privileges(user, &keeps).context(say)?;
    let (ours, theirs) = ipc::pair().context(say)?;
    let pid = start::spawn(executables.worker.as_fd(), c"ethudp-worker", theirs.as_fd(), None).context(say)?;
    let _child = supervise::Child::new(pid);
    drop(theirs);
    let channel = Channel::<ToWorker, FromWorker>::new(ours);
    let sizes = [&[length], &SIZES[..]].concat();
    channel.send(&ToWorker::Benchmark(PROTOCOL, classic, sizes), &[]).context(say)?;
    channel.send(&ToWorker::Secrets(secrets), &[]).context(say)?;
    match channel.recv().context(say)? {
        Some((FromWorker::Benchmark(results), _)) if !results.is_empty() => {
            let (name, lz4) = (cipher::name(classic.cipher), if classic.compress { "on" } else { "off" });
            log::print(&format!("enc_algorithm = {name}, lz4 = {lz4}, one thread\n"))?;
            log::print(&table(&results))
        }
        Some((FromWorker::Dying(text), _)) => Err(Error::failure(format!("benchmark: {}", log::untrusted(&text)))),
        _ => Err(Error::failure("benchmark: the worker ended without a result")),
    }
}

/// The original's fields for its one size, then a line for each size, sealing and opening.
fn table(results: &[BenchmarkResult]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let per_second = |ns: f64| 1e9 / ns;
    let first = &results[0];
    let (frame, datagram) = (f64::from(first.frame), f64::from(first.datagram));
    let packets = per_second(first.seal_ns);
    let _ = writeln!(
        text,
        "PPS: {packets:.0} PKT/S, {}({}) Byte, {:.0}({:.0}) Byte/S",
        first.frame,
        first.datagram,
        packets * frame,
        packets * datagram
    );
    let _ = writeln!(text, "UDP BPS: {:.0}({:.0}) BPS", 8.0 * packets * frame, 8.0 * packets * datagram);
    let _ = writeln!(text, "\n frame  datagram       seal packets/s    bit/s       open packets/s    bit/s");
    for result in results {
        let line = |ns: f64| format!("{:>14.0}  {:>8.2} G", per_second(ns), 8.0 * f64::from(result.frame) / ns);
        let (seal, open) = (line(result.seal_ns), line(result.open_ns));
        let _ = writeln!(text, "{:>6}  {:>8}       {seal}       {open}", result.frame, result.datagram);
    }
    text
}

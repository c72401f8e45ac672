//! What an attacker in the worker's place does again and again: crash, until the tunnel gives up, and talk, of which the log
//! gets little.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use super::worker::Lab;
use crate::lab::{allowed, wait_for};

/// Crashes that end a tunnel.
const CRASHES: usize = 60;

/// Three crashes at once are answered ever later, and one after a second takes that back: so it is over soonest.
#[test]
fn sixty_crashes_end_the_tunnel() {
    let lab = Lab::tap();
    let [supervisor, helper, _] = lab.lasting();
    let order = lab.a.scratch.path().join("attack");
    let (start, mut ordered) = (Instant::now(), 0);
    while lab.a.log().matches("ended: SIGSYS").count() < CRASHES {
        assert!(start.elapsed() < allowed(Duration::from_secs(60)), "{ordered} ordered: {}", lab.a.log());
        // Each takes the order away.
        if ordered < CRASHES && order.symlink_metadata().is_err() {
            let attack = if ordered % 4 == 3 { "crash-later" } else { "crash-at-once" };
            lab.order(attack, [supervisor, helper]);
            ordered += 1;
            if ordered == 1 {
                kill(lab.a.pid("worker"), Signal::SIGKILL).unwrap();
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    wait_for("end", crate::lab::PATIENCE, || lab.a.try_status().is_none().then_some(()));
    let said = || lab.a.log().contains("worker crashed 60 times in ten minutes").then_some(());
    wait_for("reason", crate::lab::PATIENCE, said);
    println!("after {:?}", start.elapsed());
    let Lab { a, sites, .. } = lab;
    assert_eq!(a.stop().code(), Some(79));
    assert!(!sites.a.interfaces().contains(&"eu0".into()));
}

/// Lines about paths, of the two workers that talk and the one before, and one line about the rest. Ten lines must have come
/// back before that, each of which takes six seconds.
#[test]
fn worker_messages_obey_log_budget() {
    let lab = Lab::tap();
    let [supervisor, helper, _] = lab.lasting();
    let start = Instant::now();
    let mut worker = lab.next_worker(&[]);
    for _ in 0..2 {
        lab.order("babble", [supervisor, helper]);
        kill(lab.a.pid("worker"), Signal::SIGKILL).unwrap();
        worker = lab.next_worker(&[&worker]);
        std::thread::sleep(Duration::from_secs(8));
    }
    let said = |words: &str| lab.a.log().lines().filter(|line| line.contains(words)).count();
    let about = || said("frames use path") + said(" is up") + said(" is down");
    let most = || 20 + usize::try_from(start.elapsed().as_secs() / 6).unwrap();
    // Twice eight seconds, of which the first is silent, with twenty messages each.
    assert!(about() >= 20 && about() <= most(), "{} lines, at most {}", about(), most());
    assert_eq!(said("suppressed"), 0);
    wait_for("the rest", crate::lab::PATIENCE, || (said("suppressed") > 0).then_some(()));
    let log = lab.a.log();
    let count =
        log.lines().find_map(|line| line.split(" more messages about paths").next()?.rsplit(' ').next()?.parse().ok());
    let count: u64 = count.unwrap();
    println!("{} lines, {count} left out after {:?}", about(), start.elapsed());
    assert!(count > 500 && about() <= most(), "{} lines, {count} left out", about());
    assert_eq!(said("worker"), said("forwards") + said("ended: SIGKILL"), "the worker has broken no rule: {log}");
}

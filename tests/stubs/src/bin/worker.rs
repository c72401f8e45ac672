//! Started in the place of `ethudp-worker`: as it is, with a line missing in its table, or as an attacker in it.
//!
//! What it is to be is said by a link `attack` beside its executable, which it takes away and which points to the name of the
//! attack, process ids of supervisor and helper: Landlock lets no worker read a file, but a link. Without one it is the real worker. A test that starts it itself says by the name that the
//! program is given (`argv[0]`): "without CALL", or "without CALL, then panic", or "... overflow", "... damage" or "... memory".

use std::env;
use std::fs;
use std::process::ExitCode;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use ethudp_stubs::{Attack, Loot, Needs, SURVIVED, attacks, raw, sleep};
use ethudp_worker::{confine, run};
use privsep::ipc::{Channel, Confinement, Error, FromWorker, Handles, Never, ToWorker};
use privsep::sys::process;

/// Time for which it behaves: after a second a worker's death is answered without delay.
const QUIET: Duration = Duration::from_millis(1100);
/// Longer than any test.
const LIFE: Duration = Duration::from_secs(600);
/// Time for the supervisor to act.
const JUDGEMENT: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let name = env::args().next().unwrap_or_default();
    if let Some(words) = name.strip_prefix("without ") {
        let (call, end) = words.split_once(", then ").unwrap_or((words, ""));
        return run_without(call, end.to_owned());
    }
    match order() {
        None => run(confine::ALLOWED),
        Some((attack, pids)) => match be_taken_over(attack, pids) {
            Ok(()) => ExitCode::from(SURVIVED),
            Err(_) => ExitCode::FAILURE,
        },
    }
}

/// What the file says.
fn order() -> Option<(&'static Attack, [i32; 2])> {
    let file = env::current_exe().ok()?.with_file_name("attack");
    let text = fs::read_link(&file).ok()?.into_os_string().into_string().ok()?;
    fs::remove_file(file).ok()?;
    let mut words = text.split_whitespace();
    let name = words.next()?;
    let mut pid = || words.next()?.parse().ok();
    Some((attacks().find(|attack| attack.name == name)?, [pid()?, pid()?]))
}

/// The real worker with one line missing in its table. A thread that is there before the seal ends it in this way.
fn run_without(call: &str, end: String) -> ExitCode {
    let table: Vec<_> = confine::ALLOWED.iter().filter(|allowed| allowed.name != call).copied().collect();
    if !end.is_empty() {
        let (started, runs) = mpsc::channel();
        thread::spawn(move || {
            let _ = started.send(());
            thread::park_timeout(QUIET);
            match end.as_str() {
                "overflow" => _ = overflow(1),
                "damage" => raw::free_twice(),
                // More than the allocator takes from its heap.
                "memory" => {
                    drop(std::hint::black_box(vec![0_u8; 4 << 20]));
                    // The end of a thread needs calls that are not in the table.
                    sleep(LIFE);
                }
                _ => panic!("a bug in the worker"),
            }
        });
        // A thread that starts makes calls that are not in the table.
        let _ = runs.recv();
    }
    run(&table)
}

/// Uses up the stack.
fn overflow(depth: u64) -> u64 {
    let page = std::hint::black_box([depth; 512]);
    if page[0] == 0 { 0 } else { overflow(depth + 1) + page[1] }
}

/// All that the real worker does up to its seal, by the same code, and then the attack, in a thread as the real one's.
fn be_taken_over(attack: &'static Attack, [supervisor_pid, helper_pid]: [i32; 2]) -> Result<(), Error> {
    let executable = env::current_exe()?;
    confine::before_reading()?;
    let supervisor = Channel::<FromWorker, ToWorker>::new(process::inherited(process::SUPERVISOR_FD)?);
    let Some((ToWorker::Start { state, .. }, _)) = supervisor.recv()? else { return Ok(()) };
    let Some((ToWorker::Secrets(_), _)) = supervisor.recv()? else { return Ok(()) };
    let helper = process::inherited(process::HANDLES_FD)?;
    let channel = Channel::<Never, Handles>::new(helper.try_clone()?);
    let Some((_, handles)) = channel.recv()? else { return Ok(()) };
    let mut handles = handles.into_iter();
    let (Some(port), Some(path)) = (handles.next(), handles.next()) else { return Ok(()) };
    let confinement =
        if attack.needs == Needs::Supervisor { Confinement::default() } else { confine::before_threads()? };
    let loot =
        Arc::new(Loot { supervisor, helper, port, path, executable, tick: state.tick, supervisor_pid, helper_pid });
    let (ready, gate) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let attacker = thread::spawn({
        let (loot, ready, gate) = (Arc::clone(&loot), Arc::clone(&ready), Arc::clone(&gate));
        move || {
            ready.wait();
            gate.wait();
            if attack.needs != Needs::Haste {
                sleep(QUIET);
            }
            (attack.run)(&loot);
            sleep(JUDGEMENT);
            std::process::exit(SURVIVED.into())
        }
    });
    ready.wait();
    let confinement = if attack.needs == Needs::Supervisor {
        confinement
    } else if matches!(attack.needs, Needs::NoFilter | Needs::Landlock) {
        confine::limit()?;
        confinement
    } else {
        confine::for_good(confinement, confine::ALLOWED)?
    };
    loot.supervisor.send(&FromWorker::Confined(confinement), &[])?;
    gate.wait();
    let _ = attacker.join();
    Ok(())
}

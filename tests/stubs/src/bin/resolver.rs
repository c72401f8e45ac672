//! A resolver that has been taken over.
//!
//! With arguments, it confines itself by the resolver's own code as the process that the first argument names, and makes the attempt
//! that the second one names. Without arguments, it stands in the place of `ethudp-resolver`: it answers the first question for each
//! name with 192.0.2.2, and then does what the name tells.

use std::env;
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use ethudp_resolver::confine;
use ethudp_stubs::SURVIVED;
use ethudp_stubs::helper::DENIED;
use ethudp_stubs::resolver::{ATTEMPTS, Tools};
use nix::sys::socket::{MsgFlags, send};
use privsep::ipc::{Address, Answer, Channel, FromResolver, Identity, ToResolver};
use privsep::sys::process;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [process, name, user] = &arguments[..] else { return lie() };
    let attempt = ATTEMPTS.iter().find(|attempt| attempt.name == name).expect("no such attempt");
    let tools = Tools::new().expect("tools");
    let id = user.parse().expect("a user");
    privsep::confine::at_start().expect("start");
    let _lacks = confine::before_questions(Some(Identity { uid: id, gid: id })).expect("before questions");
    if process == "asking" {
        confine::before_asking().expect("before asking");
    }
    match (attempt.run)(&tools) {
        Ok(_) => ExitCode::from(SURVIVED),
        Err(error) => {
            let status = error.raw_os_error().and_then(|number| u8::try_from(DENIED + number).ok());
            status.map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

fn lie() -> ExitCode {
    let supervisor = process::inherited(process::SUPERVISOR_FD).expect("a channel");
    let channel = Channel::<FromResolver, ToResolver>::new(supervisor.try_clone().expect("a copy"));
    let Ok(Some((ToResolver::Start { names, become_user, .. }, _))) = channel.recv() else { return ExitCode::FAILURE };
    let one = |last: u8| Address(([192, 0, 2, last], 0).into());
    let mut honest = true;
    while let Ok(Some((ToResolver::Ask(name), _))) = channel.recv() {
        let say = |number: u8, addresses: Vec<Address>| {
            let _ = channel.send(&FromResolver::Answer(number, Answer(Ok(addresses))), &[]);
        };
        let lie = names[usize::from(name)].split('.').next().unwrap_or_default();
        if std::mem::take(&mut honest) {
            say(name, vec![one(2)]);
            if lie == "later" {
                continue;
            }
        }
        match lie {
            "twice" => say(name, vec![one(2)]),
            "another" => say(name.wrapping_add(1), vec![one(2)]),
            "garbage" => _ = send(supervisor.as_raw_fd(), &[0xff; 100], MsgFlags::empty()),
            "long" => _ = send(supervisor.as_raw_fd(), &[0; 9000], MsgFlags::empty()),
            "end" => return ExitCode::SUCCESS,
            // In answer to the second question.
            "later" => say(name, vec![one(2); 9]),
            "stay" => {
                // As the resolver.
                privsep::confine::drop_privileges(become_user).expect("no privileges");
                say(name, vec![one(2)]);
                loop {
                    std::thread::sleep(std::time::Duration::from_secs(60));
                }
            }
            _ => {}
        }
    }
    ExitCode::SUCCESS
}

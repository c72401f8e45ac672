//! The privileged helper: opens every handle of a plan at once, gives up its privileges, and passes the handles on.
//!
//! The helper reads only from the supervisor: one plan, then requests. A request to serve has a socket: the helper sends the handles
//! down that socket, and never reads from the worker at the other end. A request of two bytes sets the carrier of a TAP. The helper
//! ends on any violation.

pub mod confine;
mod open;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use privsep::PROTOCOL;
use privsep::ipc::{self, Channel, FromHelper, Handle, Handles, Never, Plan, PortPlan, TapPlan, ToHelper};
use privsep::sys::{process, tap};

/// Entry point of the program.
pub fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ethudp-helper: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), ipc::Error> {
    confine::before_plan()?;
    let supervisor = Channel::<FromHelper, ToHelper>::new(process::inherited(process::SUPERVISOR_FD)?);
    let Some((plan, stored)) = receive_plan(&supervisor)? else { return Ok(()) };
    let given = stored.is_some();
    let stored = stored.and_then(|tap| open::tap::same_tap(&plan.port, tap));
    if given && stored.is_none() {
        supervisor.send(&FromHelper::LetGo, &[])?;
    }
    let handles = match open::everything(&plan, stored) {
        Ok(handles) => handles,
        Err(reason) => return supervisor.send(&FromHelper::Failed(reason), &[]),
    };
    confine::give_up_privileges(plan.become_user)?;
    let port = handles.port.as_fd();
    let store = plan.store && matches!(plan.port, PortPlan::Tap(_));
    let opened = FromHelper::Opened { interface: handles.interface.clone(), index: handles.index, store };
    supervisor.send(&opened, if store { std::slice::from_ref(&port) } else { &[] })?;
    while let Some((message, descriptors)) = supervisor.recv()? {
        match message {
            ToHelper::Serve => hand_out(&handles, descriptors)?,
            // Fails only once the interface is removed, which ends the tunnel.
            ToHelper::Carrier(on) if follows(&plan.port) => drop(tap::set_carrier(port, on)),
            ToHelper::Carrier(_) => return Err(ipc::Error::Violation("carrier that the plan does not allow")),
            ToHelper::Plan(..) => return Err(ipc::Error::Violation("second plan")),
        }
    }
    Ok(())
}

/// Receives the plan, and the TAP of an earlier run where one was stored.
fn receive_plan(supervisor: &Channel<FromHelper, ToHelper>) -> Result<Option<(Plan, Option<OwnedFd>)>, ipc::Error> {
    match supervisor.recv()? {
        None => Ok(None),
        Some((ToHelper::Plan(PROTOCOL, plan), stored)) => Ok(Some((plan, stored.into_iter().next()))),
        Some((ToHelper::Plan(..), _)) => Err(ipc::Error::Violation("supervisor and helper are of different versions")),
        Some(_) => Err(ipc::Error::Violation("request without a plan")),
    }
}

/// Whether requests set the carrier of this port.
fn follows(port: &PortPlan) -> bool {
    matches!(port, PortPlan::Tap(TapPlan { follow: true, .. }))
}

/// Sends every handle down the worker's socket, one way. The supervisor handles the death of a worker.
fn hand_out(handles: &open::Handles, descriptors: Vec<OwnedFd>) -> Result<(), ipc::Error> {
    let port = (Handle::Port, handles.port.as_fd());
    let paths = (0..).zip(&handles.paths).map(|(number, path)| (Handle::Path(number), path.as_fd()));
    let (kinds, all): (Vec<_>, Vec<_>) = std::iter::once(port).chain(paths).unzip();
    let kinds = Handles(kinds);
    for socket in descriptors {
        match Channel::<Handles, Never>::new(socket).send(&kinds, &all) {
            Err(ipc::Error::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
            result => result?,
        }
    }
    Ok(())
}

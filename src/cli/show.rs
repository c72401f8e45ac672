//! `ethudp show`: prints the status of running tunnels.

use super::stopped;
use crate::error::Context;
use crate::service::control_socket;
use crate::tunnel::names;
use crate::{Error, log};
use ethudp_status::Status;
use ethudp_status::ask::{self, Unknown};

/// Shows one tunnel, or all running ones.
pub fn show(name: Option<&str>, json: bool) -> Result<(), Error> {
    let directory = control_socket::directory()?;
    if let Some(name) = name {
        names::tunnel(name).map_err(Error::Usage)?;
        let status = ask::one(&directory, name).map_err(|unknown| match unknown {
            Unknown::NotRunning => Error::failure(format!("tunnel {name:?}: {}", stopped::sentence(name))),
            Unknown::Reason(reason) => Error::failure(format!("tunnel {name:?}: {reason}")),
        })?;
        log::print(&if json { status.json() } else { status.text() })?;
        return match status.exit_status() {
            0 => Ok(()),
            other => Err(Error::Reported(other)),
        };
    }
    let all = ask::all(&directory)
        .map_err(|error| Error::failure(format!("runtime directory {}: {}", directory.display(), ask::said(&error))))?;
    let mut known: Vec<Status> = Vec::new();
    let mut unknown = false;
    for (name, answer) in all {
        match answer {
            Ok(status) => known.push(status),
            Err(reason) => {
                unknown = true;
                log::error(&format!("tunnel {name:?} ({}): {reason}", directory.display()));
            }
        }
    }
    if known.is_empty() && unknown {
        // An unreadable status does not tell whether a tunnel runs.
    } else if json {
        log::print(&(serde_json::to_string(&known).context(|| "status".into())? + "\n"))?;
    } else if known.is_empty() {
        let lacks = if directory.is_dir() { "" } else { ", which does not exist" };
        log::print(&format!("no tunnel runs ({}{lacks})\n", directory.display()))?;
    } else if let [status] = &known[..] {
        log::print(&status.text())?;
    } else {
        log::print(&known.iter().map(Status::line).collect::<String>())?;
    }
    if unknown { Err(Error::Reported(1)) } else { Ok(()) }
}

//! `ethudp show`: asks running tunnels for their status.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::error::Context;
use crate::status::Status;
use crate::{Error, log, runtime, tunnel};

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(2);
/// Longest answer in bytes.
const LONGEST: u64 = 64 << 10;

/// Shows one tunnel, or all that run.
pub fn show(name: Option<&str>, json: bool) -> Result<(), Error> {
    let directory = runtime::directory();
    if let Some(name) = name {
        tunnel::name(name).map_err(Error::Usage)?;
        let status = ask(&directory.join(format!("{name}.sock"))).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                Error::failure(format!("tunnel {name:?}: does not run; `ethudp show` lists those that do"))
            }
            _ => Error::failure(format!("tunnel {name:?}: {}", said(&error))),
        })?;
        log::print(&if json { status.json() } else { status.text() });
        return Ok(());
    }
    let (all, failure) = all(&directory)
        .map_err(|error| Error::failure(format!("runtime directory {}: {}", directory.display(), said(&error))))?;
    if all.is_empty() && failure.is_some() {
        // Whether a tunnel runs is not known.
    } else if json {
        log::print(&(serde_json::to_string(&all).context(|| "status".into())? + "\n"));
    } else if all.is_empty() {
        log::print(&format!("no tunnel runs ({})\n", directory.display()));
    } else {
        for status in &all {
            log::print(&status.text());
        }
    }
    failure.map_or(Ok(()), Err)
}

/// What has failed, and who may ask when it is that.
fn said(error: &std::io::Error) -> String {
    let denied = error.kind() == ErrorKind::PermissionDenied;
    format!("{error}{}", if denied { "; needs root, or the tunnels' user or group" } else { "" })
}

/// The status of every tunnel that answers, by name, and why the first that does not answer does not.
fn all(directory: &Path) -> std::io::Result<(Vec<Status>, Option<Error>)> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Vec::new(), None)),
        entries => entries?,
    };
    let mut all = Vec::new();
    let mut failure = None;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sock") {
            match ask(&path) {
                Ok(status) => all.push(status),
                // Left by a supervisor that was killed, or about to be removed.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {}
                Err(error) => {
                    let say = || Error::failure(format!("control socket {}: {}", path.display(), said(&error)));
                    failure.get_or_insert_with(say);
                }
            }
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((all, failure))
}

fn ask(socket: &Path) -> std::io::Result<Status> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut text = String::new();
    stream.take(LONGEST).read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(|error| std::io::Error::other(format!("answer cannot be read: {error}")))
}

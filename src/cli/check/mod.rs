//! `ethudp check`: checks files without starting a tunnel. For people, and for tools that validate a file before they install it.

mod unit;

use std::path::{Path, PathBuf};

use super::location::{self, DIRECTORY};
use crate::service::directory::Directory;
use crate::tunnel::{self, Port, Tunnel, advice, names, taken};
use crate::{Error, filter, log};

/// Arguments of `ethudp check`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Files, or NAMEs for /etc/ethudp/NAME.toml
    #[arg(value_name = "NAME|FILE", required = true)]
    tunnels: Vec<PathBuf>,
    /// Name of the tunnel: the final file name in DIRECTORY, without .toml [default: from the file's own name]
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// Final directory of the file and its keys [default: /etc/ethudp with --as, else the file's own]
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

/// Future name and directory of a file.
struct Destination {
    name: String,
    /// Directory of the file and of its keys.
    home: PathBuf,
    /// Whether the file is a copy. Then its name, owner and mode say nothing about the installed file.
    copy: bool,
}

/// Checks all files. Prints a line for each wrong file and for each warning.
pub fn check(options: &Options) -> Result<(), Error> {
    if let Some(name) = &options.name {
        names::tunnel(name).map_err(Error::Usage)?;
        if options.tunnels.len() > 1 {
            return Err(Error::usage(format!("--as {name}: needs exactly one file; check other files without --as")));
        }
    }
    let mut failed = None;
    for argument in &options.tunnels {
        if let Err(error) = check_one(&location::file(argument), options) {
            if !matches!(error, Error::Reported(_)) {
                log::error(&error.to_string());
            }
            failed.get_or_insert(error.status());
        }
    }
    failed.map_or(Ok(()), |status| Err(Error::Reported(status)))
}

fn check_one(file: &Path, options: &Options) -> Result<(), Error> {
    let destination = Destination::of(file, options);
    let read = tunnel::file::look(file, &destination.name, &destination.home)
        .map_err(|error| destination.elsewhere(file, error))?;
    let (tunnel, name) = (&read.tunnel, file.display());
    if !destination.copy {
        tunnel::file::trusted(file, &read)?;
    }
    if let Some(twin) = &read.twin {
        return Err(Error::configuration(format!("{name}: {}", tunnel::file::is_twin_of(twin))));
    }
    if let Port::Mirror { filter, .. } = &tunnel.port {
        filter::check(filter).map_err(|error| Error::configuration(format!("{name}: {error}")))?;
    }
    for line in advice::of(tunnel).into_iter().chain(taken::warnings(tunnel)).chain(writable_by_others(file)) {
        log::warning(&format!("{name}: {line}"));
    }
    let in_place = destination.home.join(format!("{}.toml", destination.name)) == file;
    let obstacles = unit::obstacles(&read, &destination.name, &destination.home, in_place);
    // Fatal where the unit will find the file, on a host with a service manager.
    let fatal = !obstacles.is_empty() && destination.home == Path::new(DIRECTORY) && unit::starts_tunnels();
    for line in obstacles {
        let line = format!("{name}: {line}");
        if fatal { log::error(&line) } else { log::warning(&line) }
    }
    if fatal { Err(Error::Reported(78)) } else { log::print(&summary(file, tunnel)) }
}

fn summary(file: &Path, tunnel: &Tunnel) -> String {
    let (file, mode, wire) = (file.display().to_string(), tunnel.port.mode(), tunnel.wire.name());
    format!("{}: tunnel {:?}, mode {mode}, wire {wire}: ok\n", log::visible(&file), tunnel.name)
}

impl Destination {
    fn of(file: &Path, options: &Options) -> Self {
        let own = match file.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            other => other.unwrap_or(Path::new("/")),
        };
        let home = match (&options.dir, &options.name) {
            (Some(directory), _) => directory.clone(),
            (None, Some(_)) => DIRECTORY.into(),
            (None, None) => own.to_owned(),
        };
        // Other spellings of the same directory.
        let same = |directory: &Path| directory.canonicalize().ok() == Path::new(DIRECTORY).canonicalize().ok();
        let home = if home.exists() && same(&home) { DIRECTORY.into() } else { home };
        let copy = options.name.is_some() || options.dir.is_some();
        let of_file = || if copy { name_of(file) } else { tunnel::file::name_of(file) };
        Self { name: options.name.clone().unwrap_or_else(of_file), home, copy }
    }

    /// Adds advice to an error if the file would be right in the usual directory.
    fn elsewhere(&self, file: &Path, error: Error) -> Error {
        if self.copy || tunnel::file::look(file, &self.name, Path::new(DIRECTORY)).is_err() {
            return error;
        }
        let name = &self.name;
        Error::configuration(format!(
            "{error}; the same file is correct in {DIRECTORY}: `ethudp check --as {name} FILE` checks a file that becomes \
             {DIRECTORY}/{name}.toml"
        ))
    }
}

/// Name of the tunnel, from the name of a copy, which may have a prefix or suffix: `site.toml2024-1`, `.site.toml.swp`.
fn name_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let name = name.trim_start_matches(['.', '#', '-']);
    let stem = name.find(".toml").map_or_else(|| name.split('.').next().unwrap_or_default(), |at| &name[..at]);
    // A copy may have a name that no tunnel can have.
    names::tunnel(stem).unwrap_or_else(|_| "tunnel".into())
}

/// Warning if other users can replace the file.
fn writable_by_others(file: &Path) -> Option<String> {
    let directory = file.parent().map(Directory::open)?.ok()?;
    directory.foreign_hand().ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_keep_the_tunnel_name() {
        for (file, name) in [
            ("/etc/ethudp/site.toml", "site"),
            ("/etc/ethudp/site.toml20241201-7-x3f", "site"),
            ("/etc/ethudp/.site.toml.swp", "site"),
            ("/etc/ethudp/site.a.toml", "site.a"),
            ("/root/.ansible/tmp/ansible-tmp-1700000000.1-2/source", "source"),
            ("/root/.ansible/tmp/ansible-tmp-1700000000.1-2/.source.toml", "source"),
            ("/var/tmp/siteXXq1.toml", "siteXXq1"),
            ("/tmp/a b", "tunnel"),
            ("/tmp/...", "tunnel"),
        ] {
            assert_eq!(name_of(Path::new(file)), name, "{file}");
        }
    }
}

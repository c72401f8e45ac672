//! The command line with subcommands: `ethudp up`, `check`, `show`, `init` and the others.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use nix::unistd::geteuid;

use super::keys::KeyKind;
use super::{Command, check, classic, convert, init, location};
use crate::Error;
use crate::log::{self, Level};
use crate::service::{control_socket, identity};
use crate::supervise::policy::{Missing, OnSignal, Place, Policies, TicksOver};
use crate::tunnel;
use ethudp_status::ask;

/// Policies that service managers expect, and users at a terminal.
const POLICIES: Policies = Policies {
    place: Place::Foreground,
    missing: Missing::Start,
    on_hangup: OnSignal::Reload,
    on_user: OnSignal::LogStatistics,
    ticks_over: TicksOver::End,
};

/// Layer-2 tunnel: Ethernet frames between two sites in UDP datagrams.
#[derive(Parser)]
#[command(name = "ethudp", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Run a tunnel in the foreground
    Up {
        /// A file, or a NAME for /etc/ethudp/NAME.toml
        #[arg(value_name = "NAME|FILE")]
        tunnel: PathBuf,
        /// Unprivileged user that all processes change to when root starts them [default: ethudp]
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Log only warnings and errors
        #[arg(short, long, conflicts_with = "verbose")]
        quiet: bool,
        /// Log more, for troubleshooting
        #[arg(long)]
        verbose: bool,
    },
    /// Check configuration files without starting the tunnels
    Check(check::Options),
    /// Print the configuration file for a classic command line
    Convert {
        /// Write each secret to a file of mode 0600 in this directory, and name that file in the output
        #[arg(long, value_name = "DIRECTORY")]
        dir: Option<PathBuf>,
        /// EthUDP's arguments
        #[arg(value_name = "CLASSIC-ARGS", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Create key and configuration file of a tunnel, and print a line for the other end
    Init(init::parameters::Options),
    /// Print a new private key
    Genkey(KeyArguments),
    /// Read a private key from standard input and print its public key
    Pubkey(KeyArguments),
    /// Print a new pre-shared key
    Genpsk(KeyArguments),
    /// Show the state of running tunnels
    Show {
        /// Name of a tunnel [default: all running tunnels]
        name: Option<String>,
        /// Print JSON: an object with NAME, an array without
        #[arg(long)]
        json: bool,
    },
}

/// Commands for keys, which use standard input and output.
#[derive(clap::Args)]
struct KeyArguments {
    /// Hidden argument for a better error message.
    #[arg(hide = true)]
    files: Vec<PathBuf>,
}

impl KeyArguments {
    fn refuse_file(&self, command: &str, sign: char) -> Result<(), Error> {
        let Some(file) = self.files.first() else { return Ok(()) };
        let what = if sign == '<' { "reads standard input" } else { "writes to standard output" };
        let file = file.display();
        Err(Error::usage(format!("unexpected argument {file}: {command} {what}; use `ethudp {command} {sign}{file}`")))
    }
}

/// Output of `help COMMAND`, if the command exists.
pub fn help_of(command: &str) -> Option<String> {
    let mut arguments = Arguments::command();
    arguments.build();
    arguments.find_subcommand_mut(command).map(|command| command.render_help().to_string())
}

/// Output of `-h`, `--help` and `help`: both command lines.
pub fn help() -> String {
    format!(
        "{}\nThe command line of EthUDP also works. It speaks the classic wire, which authenticates nothing, to peers \
         that run EthUDP:\n\n{}",
        Arguments::command().render_help(),
        classic::HELP
    )
}

/// Parses all arguments, with the program's name first.
pub fn parse(arguments: Vec<OsString>) -> Result<Command, Error> {
    let has_line = arguments.iter().any(|word| init::paste::has_line(&word.to_string_lossy()));
    let broken =
        if has_line { "; if the line of --peer contains a space or a line break, put it in quotes" } else { "" };
    let action = match Arguments::try_parse_from(arguments) {
        Ok(Arguments { action }) => action,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            return Ok(Command::Text(error.to_string()));
        }
        Err(error) => return Err(Error::Usage(one_line(&error) + broken)),
    };
    match action {
        Action::Up { tunnel, user, quiet, verbose } => {
            log::least(match (quiet, verbose) {
                (true, _) => Level::Warning,
                (_, true) => Level::Debug,
                _ => Level::Info,
            });
            check_privileges(&tunnel)?;
            let runs = |name: &str| control_socket::directory().is_ok_and(|root| ask::one(&root, name).is_ok());
            let mut tunnel = tunnel::file::load(&location::file(&tunnel), runs)?;
            tunnel.user = user;
            Ok(Command::Run(Box::new(tunnel), POLICIES))
        }
        Action::Check(options) => Ok(Command::Check(options)),
        Action::Convert { dir, arguments } => {
            match classic::parse(without_program_name(&arguments), &mut Vec::new())? {
                Command::Run(tunnel, _) => convert::text(&tunnel, dir.as_deref()).map(Command::Text),
                other => Ok(other),
            }
        }
        Action::Init(options) => Ok(Command::Init(options)),
        Action::Genkey(arguments) => arguments.refuse_file("genkey", '>').map(|()| Command::Key(KeyKind::Private)),
        Action::Pubkey(arguments) => arguments.refuse_file("pubkey", '<').map(|()| Command::Key(KeyKind::Public)),
        Action::Genpsk(arguments) => arguments.refuse_file("genpsk", '>').map(|()| Command::Key(KeyKind::PreShared)),
        Action::Show { name, json } => Ok(Command::Show { name, json }),
    }
}

/// Refuses a start without capabilities, before an unreadable key causes a less helpful error.
fn check_privileges(tunnel: &Path) -> Result<(), Error> {
    if identity::has_powers()? {
        return Ok(());
    }
    let (shown, user) = (tunnel.display(), geteuid());
    let by_name = location::file(tunnel) != tunnel;
    let unit = if by_name { format!(" or `sudo systemctl start ethudp@{shown}`") } else { String::new() };
    Err(Error::failure(format!(
        "no privilege: user {user} lacks CAP_NET_ADMIN and CAP_NET_RAW; start the tunnel with `sudo ethudp up {shown}`{unit}"
    )))
}

/// Removes the program's name from a classic command line.
fn without_program_name(arguments: &[OsString]) -> &[OsString] {
    match arguments {
        [first, rest @ ..] if matches!(Path::new(first).file_name(), Some(n) if n == "ethudp" || n == "EthUDP") => rest,
        all => all,
    }
}

/// Message of clap in one line.
fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no command given: use up, check, show, init, convert, genkey, pubkey or genpsk; `ethudp --help` explains \
                them".into();
    }
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Usage:"));
    // No value begins with a dash, so this tip never helps.
    let lines = lines.filter(|line| !line.starts_with("tip: to pass "));
    let line = lines.collect::<Vec<_>>().join("; ");
    line.strip_prefix("error: ").unwrap_or(&line).replace(":; ", ": ").replace("For more information, try", "try")
}

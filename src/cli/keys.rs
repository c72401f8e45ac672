//! `ethudp genkey | pubkey | genpsk`: keys on standard input and output, in the form of `wg`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use zeroize::Zeroizing;

use crate::error::Context;
use crate::service::files;
use crate::tunnel::keys::{self, Private};
use crate::{Error, log};

/// Longest input in bytes: a key, and more to see that it is none.
const LONGEST: u64 = 4096;

/// Which key is wanted.
pub enum KeyKind {
    /// A new private key.
    Private,
    /// The public key of the private one on standard input.
    Public,
    /// A new pre-shared key.
    PreShared,
}

/// Writes it to standard output.
pub fn run(kind: &KeyKind) -> Result<(), Error> {
    let key = match kind {
        KeyKind::Private => keys::new_private().context(randomness)?,
        KeyKind::PreShared => keys::random().context(randomness)?,
        KeyKind::Public => Private::new(keys::public(&*read()?)),
    };
    if !matches!(kind, KeyKind::Public) {
        warn_of_readers();
    }
    let line = Zeroizing::new(format!("{}\n", *keys::text(&key)));
    let mut output = io::stdout().lock();
    output.write_all(line.as_bytes()).and_then(|()| output.flush()).context(|| "standard output".into())
}

/// What failed when there is no randomness.
pub fn randomness() -> String {
    "randomness of the kernel".into()
}

fn read() -> Result<Private, Error> {
    // Without the buffer that standard input has, and with room from the start, so that no copy of it is left behind.
    let mut text = Zeroizing::new(Vec::with_capacity(8192));
    let input = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let read = input.and_then(|input| input.take(LONGEST).read_to_end(&mut text));
    read.context(|| "standard input".into())?;
    keys::parse("standard input", &text).map_err(Error::Failure)
}

/// As `wg` does: a file that the shell has made may be open to all.
fn warn_of_readers() {
    let output = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let Ok(metadata) = output.and_then(|file| file.metadata()) else { return };
    if let Some(flaw) = files::foreign_mode(&metadata).filter(|_| metadata.is_file()) {
        log::warning(&format!("standard output {flaw}, or made after `umask 077`; `up` would refuse it"));
    }
}

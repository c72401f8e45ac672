//! `ethudp genkey | pubkey | genpsk`: keys on standard input and output, in the format of `wg`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use zeroize::Zeroizing;

use crate::error::Context;
use crate::service::files;
use crate::tunnel::keys::{self, Private};
use crate::{Error, log};

/// Longest input in bytes, longer than any key.
const LONGEST: u64 = 4096;

/// Key to write.
pub enum KeyKind {
    /// A new private key.
    Private,
    /// The public key of the private one on standard input.
    Public,
    /// A new pre-shared key.
    PreShared,
}

/// Writes the key to standard output.
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

/// Name of the failed action when the kernel has no randomness.
pub fn randomness() -> String {
    "random numbers of the kernel".into()
}

fn read() -> Result<Private, Error> {
    // Unbuffered, and with enough capacity, so that no copy of the key stays in memory.
    let mut text = Zeroizing::new(Vec::with_capacity(8192));
    let input = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let read = input.and_then(|input| input.take(LONGEST).read_to_end(&mut text));
    read.context(|| "standard input".into())?;
    keys::parse("standard input", &text).map_err(Error::Failure)
}

/// Warns like `wg` if the file of standard output is readable for other users.
fn warn_of_readers() {
    let output = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let Ok(metadata) = output.and_then(|file| file.metadata()) else { return };
    if let Some(flaw) = files::foreign_mode(&metadata).filter(|_| metadata.is_file()) {
        log::warning(&format!("standard output {flaw}: `up` will refuse this file; run `umask 077` before `genkey`"));
    }
}

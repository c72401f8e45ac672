//! Removes secrets from this process's command line, which every user of the host can read in `/proc`.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

/// Overwrites the arguments at these positions (0 is the program's name) in the memory that `/proc/self/cmdline` shows.
///
/// The kernel reports the address of that memory (proc(5), `stat` field 48, `arg_start`); `/proc/self/mem` writes to it. The
/// standard library has copied the arguments before.
pub fn hide(positions: &[usize]) -> io::Result<()> {
    let line = fs::read("/proc/self/cmdline")?;
    let stat = fs::read_to_string("/proc/self/stat")?;
    // Field 2 is the program's name in parentheses and may contain any character. Field 3 follows the last parenthesis.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
    let start = fields.and_then(|mut fields| fields.nth(45)).and_then(|field| field.parse::<u64>().ok());
    let start = start.filter(|&start| start > 0).ok_or(ErrorKind::InvalidData)?;
    let memory = File::options().write(true).open("/proc/self/mem")?;
    let mut offset = start;
    for (position, argument) in line.split_inclusive(|&byte| byte == 0).enumerate() {
        if positions.contains(&position) {
            memory.write_all_at(&vec![b'*'; argument.len().saturating_sub(1)], offset)?;
        }
        offset += argument.len() as u64;
    }
    Ok(())
}

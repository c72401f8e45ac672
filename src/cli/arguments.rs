//! Takes secrets out of this process's command line, which every user of the host can read in `/proc`.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

/// Overwrites the operand of every `option` in the memory that `/proc/self/cmdline` shows.
///
/// The kernel tells where that memory begins (proc(5), `stat` field 48, `arg_start`), and `/proc/self/mem` writes to it.
/// The standard library has made its own copy of the arguments before.
pub fn hide_operands(option: &str) -> io::Result<()> {
    let line = fs::read("/proc/self/cmdline")?;
    let stat = fs::read_to_string("/proc/self/stat")?;
    // Field 2 is the program's name in parentheses, which may hold anything; field 3 follows the last of them.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
    let start = fields.and_then(|mut fields| fields.nth(45)).and_then(|field| field.parse::<u64>().ok());
    let start = start.filter(|&start| start > 0).ok_or(ErrorKind::InvalidData)?;
    let memory = File::options().write(true).open("/proc/self/mem")?;
    let (mut offset, mut hide) = (0, false);
    for argument in line.split_inclusive(|&byte| byte == 0) {
        let length = argument.len().saturating_sub(1);
        if hide {
            memory.write_all_at(&vec![b'*'; length], start + offset)?;
        }
        hide = !hide && &argument[..length] == option.as_bytes();
        offset += argument.len() as u64;
    }
    Ok(())
}

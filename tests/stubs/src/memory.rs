//! Ways to fill more memory than a limit allows.

// An argument is a machine word, whatever it means.
#![allow(clippy::cast_possible_wrap)]

use std::io;

use crate::raw::call;

/// `MAP_PRIVATE | MAP_ANONYMOUS`.
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
/// Bytes that are taken at a time.
const PIECE: i64 = 1 << 20;
/// What may come to more than the limit says: rooms that are there already, and pieces.
const SLACK: u64 = 4 << 20;

/// One of them: whether it gets at more than so many bytes.
pub type Way = fn(u64) -> io::Result<()>;

/// All of them. The first is what an allocator does.
pub const WAYS: [(&str, Way); 5] = [
    ("plain", |limit| fill(limit, WRITE, PRIVATE, None)),
    ("like-a-stack", |limit| fill(limit, WRITE, PRIVATE | libc::MAP_GROWSDOWN, None)),
    ("read-only-when-full", |limit| fill(limit, WRITE, PRIVATE, Some(libc::PROT_READ))),
    ("out-of-reach-when-full", |limit| fill(limit, WRITE, PRIVATE, Some(libc::PROT_NONE))),
    ("reserved", |limit| fill(limit, libc::PROT_NONE, PRIVATE | libc::MAP_NORESERVE, Some(WRITE))),
];

/// Takes more than `limit` bytes in pieces, each of which may then get another protection, and gives them back.
fn fill(limit: u64, protection: i32, flags: i32, then: Option<i32>) -> io::Result<()> {
    let most = (limit + SLACK) as i64 / PIECE;
    let mut pieces = Vec::with_capacity(100);
    let take = |piece: &mut i64| {
        *piece = call(libc::SYS_mmap, &[0, PIECE, protection.into(), flags.into(), -1])?;
        then.map_or(Ok(0), |then| call(libc::SYS_mprotect, &[*piece, PIECE, then.into()]))
    };
    let result = (0..most).try_for_each(|_| {
        let mut piece = 0;
        let taken = take(&mut piece);
        pieces.extend((piece > 0).then_some(piece));
        taken.map(drop)
    });
    for piece in pieces {
        let _ = call(libc::SYS_munmap, &[piece, PIECE]);
    }
    result
}

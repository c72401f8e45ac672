//! Attacks that would leave something behind in a handle, which the helper also passes to every later worker.

// An argument is a machine word, whatever it means.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use crate::{Attack, Loot, Needs, raw};

/// `struct sockaddr_in`: 192.0.2.2, the peer's host, port 999: not the peer.
const STRANGER: [u8; 16] = [2, 0, 3, 231, 192, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0];
/// The same over IPv6, `struct sockaddr_in6`: `2001:db8::2`, port 999.
const STRANGER_6: [u8; 28] =
    [10, 0, 3, 231, 0, 0, 0, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0];
/// Timestamps that the kernel takes of what is sent, asked for with each message (Documentation/networking/timestamping.rst):
/// when it enters the queue of the interface, and when it leaves.
const STAMPS: u32 = 1 << 8 | 1 << 1;
/// Datagrams that fill a receive buffer, each with its bookkeeping, more than once.
const MANY: usize = 40_000;
/// Bytes of each.
const LONG: usize = 1400;

const fn killed(name: &'static str, needs: Needs, run: fn(&Loot)) -> Attack {
    Attack { name, needs, expected: "ended: SIGSYS", run }
}

const fn let_through(name: &'static str, needs: Needs, run: fn(&Loot)) -> Attack {
    Attack { name, needs, expected: "ended: exit status 66", run }
}

/// The table.
pub const REMAINS: &[Attack] = &[
    // What is held back for more keeps the address it was for, and the socket keeps it with that.
    killed("sendmsg-with-more-to-come", Needs::Nothing, |loot| send(&loot.path, libc::MSG_MORE, Some(&STRANGER))),
    killed("sendmmsg-with-more-to-come", Needs::Nothing, |loot| {
        send_many(&loot.path, libc::MSG_MORE, &STRANGER);
    }),
    killed("sendmsg-with-more-to-come-over-ipv6", Needs::Ipv6, |loot| {
        send(&loot.path, libc::MSG_MORE, Some(&STRANGER_6));
    }),
    killed("sendmmsg-with-more-to-come-over-ipv6", Needs::Ipv6, |loot| {
        send_many(&loot.path, libc::MSG_MORE, &STRANGER_6);
    }),
    killed("sendmsg-with-more-to-come-on-the-channel", Needs::Nothing, |loot| send(&loot.helper, libc::MSG_MORE, None)),
    // What changes routes, neighbours or buffers beyond the message.
    killed("sendmsg-that-confirms-a-neighbour", Needs::Nothing, |loot| send(&loot.path, libc::MSG_CONFIRM, None)),
    killed("sendmsg-past-the-routes", Needs::Nothing, |loot| send(&loot.path, libc::MSG_DONTROUTE, None)),
    killed("sendmsg-without-copy", Needs::Nothing, |loot| send(&loot.path, libc::MSG_ZEROCOPY, None)),
    killed("sendmsg-out-of-band", Needs::Raw, |loot| send(&loot.port, libc::MSG_OOB, None)),
    killed("sendmsg-with-unknown-flag", Needs::Nothing, |loot| send(&loot.path, 1 << 30, None)),
    // The filter cannot see what is in a message, so this goes through.
    let_through("another-address-on-a-connected-socket", Needs::Nothing, |loot| {
        (0..100).for_each(|_| send(&loot.path, 0, Some(&STRANGER)));
    }),
    let_through("timestamps-that-fill-the-buffer-of-the-path", Needs::Nothing, |loot| ask_for_stamps(&loot.path)),
    let_through("timestamps-that-fill-the-buffer-of-the-port", Needs::Raw, |loot| ask_for_stamps(&loot.port)),
    let_through("frames-that-the-port-refuses", Needs::Nothing, |loot| {
        (0..100).for_each(|length| send_bytes(&loot.port, length));
    }),
];

fn flags(more: i32) -> i64 {
    i64::from(more | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
}

/// A message of these bytes, to this address.
fn message(bytes: &mut libc::iovec, to: Option<&[u8]>) -> libc::msghdr {
    libc::msghdr {
        msg_name: to.map_or(ptr::null_mut(), |to| to.as_ptr().cast_mut().cast()),
        msg_namelen: to.map_or(0, |to| to.len() as u32),
        msg_iov: bytes,
        msg_iovlen: 1,
        msg_control: ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    }
}

fn vector(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn send(socket: &OwnedFd, more: i32, to: Option<&[u8]>) {
    let mut bytes = [0x55; 64];
    let mut bytes = vector(&mut bytes);
    let message = message(&mut bytes, to);
    let _ = raw::call(libc::SYS_sendmsg, &[socket.as_raw_fd().into(), &raw const message as i64, flags(more)]);
}

fn send_many(socket: &OwnedFd, more: i32, to: &[u8]) {
    let mut bytes = [0x55; 64];
    let mut bytes = vector(&mut bytes);
    let mut all = libc::mmsghdr { msg_hdr: message(&mut bytes, Some(to)), msg_len: 0 };
    let _ = raw::call(libc::SYS_sendmmsg, &[socket.as_raw_fd().into(), &raw mut all as i64, 1, flags(more)]);
}

/// By write(2), as the worker gives frames to a TAP.
fn send_bytes(port: &OwnedFd, length: usize) {
    let bytes = vec![0xff_u8; length];
    let _ = raw::call(libc::SYS_write, &[port.as_raw_fd().into(), bytes.as_ptr() as i64, length as i64]);
}

/// Sends so much with a wish for timestamps that what comes back, unread, fills the receive buffer.
fn ask_for_stamps(socket: &OwnedFd) {
    // `struct cmsghdr` and a number: length, level, type, value.
    let mut control = [20_u64, (libc::SOL_SOCKET as u64) | (libc::SO_TIMESTAMPING as u64) << 32, u64::from(STAMPS)];
    // No frame that anybody takes, for a packet socket; no datagram that can be decoded, for a path.
    let mut bytes = vec![0x55; LONG];
    let mut bytes = vector(&mut bytes);
    let mut message = message(&mut bytes, None);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control));
    for _ in 0..MANY {
        let _ = raw::call(libc::SYS_sendmsg, &[socket.as_raw_fd().into(), &raw const message as i64, flags(0)]);
    }
}

//! Socket addresses as the kernel has them (ip(7), ipv6(7)).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use libc::{sa_family_t, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};

/// No address.
// SAFETY: a sockaddr_storage is plain old data; all zero is a valid value.
pub const EMPTY: sockaddr_storage = unsafe { std::mem::zeroed() };
/// Size of a `sockaddr_storage`.
#[allow(clippy::cast_possible_truncation)] // 128
pub const LENGTH: socklen_t = size_of::<sockaddr_storage>() as socklen_t;

/// Writes an address and returns its length.
#[allow(clippy::cast_possible_truncation)] // Families and sizes are small.
pub fn encode(address: SocketAddr, storage: &mut sockaddr_storage) -> socklen_t {
    *storage = EMPTY;
    match address {
        SocketAddr::V4(address) => {
            // SAFETY: a sockaddr_storage is larger than, and aligned for, every kind of address.
            let kind = unsafe { &mut *(&raw mut *storage).cast::<sockaddr_in>() };
            kind.sin_family = libc::AF_INET as sa_family_t;
            kind.sin_port = address.port().to_be();
            kind.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
            size_of::<sockaddr_in>() as socklen_t
        }
        SocketAddr::V6(address) => {
            // SAFETY: as above.
            let kind = unsafe { &mut *(&raw mut *storage).cast::<sockaddr_in6>() };
            kind.sin6_family = libc::AF_INET6 as sa_family_t;
            kind.sin6_port = address.port().to_be();
            kind.sin6_addr.s6_addr = address.ip().octets();
            kind.sin6_scope_id = address.scope_id();
            size_of::<sockaddr_in6>() as socklen_t
        }
    }
}

/// Reads an address; `None` for any other family.
pub fn decode(storage: &sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is one; all bytes are initialised.
            let kind = unsafe { &*(&raw const *storage).cast::<sockaddr_in>() };
            let ip = Ipv4Addr::from(kind.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(kind.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let kind = unsafe { &*(&raw const *storage).cast::<sockaddr_in6>() };
            let ip = Ipv6Addr::from(kind.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(kind.sin6_port), 0, kind.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_there_and_back() {
        for text in ["192.0.2.1:6000", "[2001:db8::1]:65535", "[fe80::1%3]:1"] {
            let (address, mut storage) = (text.parse().unwrap(), EMPTY);
            assert!(encode(address, &mut storage) <= LENGTH);
            assert_eq!(decode(&storage), Some(address));
        }
        assert_eq!(decode(&EMPTY), None);
    }
}

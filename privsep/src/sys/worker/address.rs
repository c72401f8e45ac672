//! Conversion of socket addresses to and from the kernel's structures (ip(7), ipv6(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use libc::{in_addr, in6_addr, sa_family_t, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};

/// Empty address.
// SAFETY: a sockaddr_storage is plain old data; all zero is a valid value.
pub const EMPTY: sockaddr_storage = unsafe { std::mem::zeroed() };
/// Size of a `sockaddr_storage`.
#[allow(clippy::cast_possible_truncation)] // 128
pub const LENGTH: socklen_t = size_of::<sockaddr_storage>() as socklen_t;

/// `INADDR_ANY`.
pub const ANY: in_addr = in_addr { s_addr: 0 };

/// Converts an IPv4 address to the kernel's structure.
pub fn in_addr(address: Ipv4Addr) -> in_addr {
    in_addr { s_addr: u32::from_ne_bytes(address.octets()) }
}

/// Converts an IPv4 address from the kernel's structure.
pub fn ipv4(address: in_addr) -> Ipv4Addr {
    address.s_addr.to_ne_bytes().into()
}

/// Converts an address to the kernel's IPv6 structure; an IPv4 address becomes a mapped one (RFC 4291, 2.5.5.2).
pub fn in6_addr(address: IpAddr) -> in6_addr {
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    in6_addr { s6_addr: address.octets() }
}

/// Address as an IPv6 socket takes it: IPv4 becomes a mapped address.
pub fn for_v6(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(address) => (address.ip().to_ipv6_mapped(), address.port()).into(),
        SocketAddr::V6(_) => address,
    }
}

/// Writes an address and returns its length in bytes.
#[allow(clippy::cast_possible_truncation)] // Families and sizes are small.
pub fn encode(address: SocketAddr, storage: &mut sockaddr_storage) -> socklen_t {
    *storage = EMPTY;
    match address {
        SocketAddr::V4(address) => {
            // SAFETY: a sockaddr_storage is larger than, and aligned for, every kind of address.
            let kind = unsafe { &mut *(&raw mut *storage).cast::<sockaddr_in>() };
            kind.sin_family = libc::AF_INET as sa_family_t;
            kind.sin_port = address.port().to_be();
            kind.sin_addr = in_addr(*address.ip());
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

/// Reads an address; a mapped one becomes IPv4. `None` for any other family.
pub fn decode(storage: &sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is one; all bytes are initialised.
            let kind = unsafe { &*(&raw const *storage).cast::<sockaddr_in>() };
            Some(SocketAddrV4::new(ipv4(kind.sin_addr), u16::from_be(kind.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let kind = unsafe { &*(&raw const *storage).cast::<sockaddr_in6>() };
            let (ip, port) = (Ipv6Addr::from(kind.sin6_addr.s6_addr), u16::from_be(kind.sin6_port));
            Some(match ip.to_ipv4_mapped() {
                Some(ip) => SocketAddrV4::new(ip, port).into(),
                None => SocketAddrV6::new(ip, port, 0, kind.sin6_scope_id).into(),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_addresses_round_trip() {
        for text in ["192.0.2.1:6000", "[2001:db8::1]:65535", "[fe80::1%3]:1"] {
            let (address, mut storage) = (text.parse().unwrap(), EMPTY);
            assert!(encode(address, &mut storage) <= LENGTH);
            assert_eq!(decode(&storage), Some(address));
        }
        let (address, mut storage) = ("192.0.2.1:6000".parse().unwrap(), EMPTY);
        encode(for_v6(address), &mut storage);
        assert_eq!((i32::from(storage.ss_family), decode(&storage)), (libc::AF_INET6, Some(address)));
        assert_eq!(decode(&EMPTY), None);
    }
}

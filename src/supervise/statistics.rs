//! Statistics in EthUDP's fields, with an additional line for the secure wire.

use privsep::ipc::{PathHealth, PathReport, SecureState, State};

use crate::status::cipher_of;

/// Lines of one report. `addresses` are local and remote address of each path.
pub fn lines(state: &State, addresses: &[(String, String)]) -> Vec<String> {
    let current = name(state.active.into()).trim_start().to_uppercase();
    let mut lines = vec![format!(
        "============= version: {}, myticket={}, master_slave={}, current_remote={current}",
        env!("CARGO_PKG_VERSION"),
        state.tick,
        u8::from(addresses.len() > 1),
    )];
    let each = || (0..).map(name).zip(&state.paths).zip(addresses);
    for ((name, PathReport { health, .. }), (local, remote)) in each() {
        let status = u8::from(*health == PathHealth::Up);
        lines.push(format!("{}: ST:{status} {local} --> {remote}", name.to_uppercase()));
    }
    for ((name, PathReport { counters: c, .. }), _) in each() {
        lines.push(format!(
            "{name} ping_send/pong_recv: {}/{}, ping_recv/pong_send: {}/{}, udp_send_err: {}",
            c.pings_sent,
            c.pongs_received,
            c.pings_received,
            c.pongs_sent,
            c.tx_errors.saturating_add(c.tx_dropped_oversize)
        ));
    }
    let port = &state.port;
    lines.push(format!(
        "       raw interface recv:{}/{} send:{}/{}, raw_send_err: {}",
        port.rx_frames,
        port.rx_bytes,
        port.tx_frames,
        port.tx_bytes,
        port.tx_errors.saturating_add(port.tx_dropped_oversize)
    ));
    for ((name, PathReport { counters: c, .. }), _) in each() {
        lines.push(format!(
            "{name} udp interface recv:{}/{} send:{}/{}",
            c.rx_datagrams, c.rx_bytes, c.tx_datagrams, c.tx_bytes
        ));
    }
    for ((name, PathReport { counters: c, .. }), _) in each() {
        lines.push(format!(
            "{name} udp not decoded: {}, decoded to no frame: {}, without password: {}",
            c.rx_dropped_invalid, c.rx_implausible, c.rx_dropped_foreign
        ));
    }
    let seal = &state.seal;
    let grown = seal.bytes.saturating_add(seal.compress_overhead).saturating_add(seal.encrypt_overhead);
    let sent = grown.saturating_sub(seal.compress_saved);
    #[allow(clippy::cast_precision_loss)] // A percentage.
    let percent = if seal.bytes > 0 { 100.0 * sent as f64 / seal.bytes as f64 } else { 100.0 };
    lines.push(format!(
        "udp {} bytes, lz4 save {} bytes, lz4 overhead {} bytes, encrypt overhead {} bytes, {percent:.0}%",
        seal.bytes, seal.compress_saved, seal.compress_overhead, seal.encrypt_overhead
    ));
    lines.extend(state.secure().map(session));
    lines
}

/// Name of a path, six characters wide. EthUDP has two paths with these names.
fn name(path: usize) -> String {
    match path {
        0 => "master".into(),
        1 => " slave".into(),
        _ => format!("path {}", path + 1),
    }
}

fn session(secure: &SecureState) -> String {
    let now = secure.session.map_or_else(
        || "none".into(),
        |now| {
            let by = if now.began_here { "here" } else { "by the peer" };
            format!("{}, begun {by} {} s ago", cipher_of(now.cipher), now.age_ms / 1000)
        },
    );
    let counts = &secure.counts;
    format!(
        "session {now}; handshakes: {}, rekeys: {}; dropped replays: {}, not authentic: {}, initiations: {}, messages: {}, \
         content: {}, incomplete: {}; copies: {}",
        counts.handshakes,
        counts.rekeys,
        counts.replays,
        counts.auth_failures,
        counts.dropped_initiations,
        counts.dropped_messages,
        counts.dropped_content,
        counts.dropped_incomplete,
        counts.copies
    )
}

#[cfg(test)]
mod tests {
    use privsep::ipc::{
        PathCounters, PortCounters, SealCounters, SecureCounters, SessionCipher, SessionReport, WireState,
    };

    use super::*;

    #[test]
    fn recipe_explains_statistics() {
        let page = include_str!("../../docs/RECIPES.md")
            .replace("version: 0.1.0", concat!("version: ", env!("CARGO_PKG_VERSION")));
        let counters = PathCounters {
            pings_sent: 3600,
            pongs_received: 3598,
            pings_received: 3597,
            pongs_sent: 3597,
            tx_errors: 2,
            rx_datagrams: 86_000,
            rx_bytes: 65_000_000,
            tx_datagrams: 88_000,
            tx_bytes: 68_000_000,
            rx_dropped_invalid: 4,
            rx_dropped_foreign: 3,
            ..PathCounters::default()
        };
        let slave = PathCounters { pings_sent: 3600, tx_datagrams: 3600, tx_bytes: 36_000, ..PathCounters::default() };
        let path = |health, counters| PathReport { health, counters, ..PathReport::default() };
        let session = SessionReport { cipher: SessionCipher::Aes256Gcm, age_ms: 40_000, began_here: true };
        let counts = SecureCounters { handshakes: 60, rekeys: 59, ..SecureCounters::default() };
        let state = State {
            tick: 3600,
            blocked: false,
            port: PortCounters {
                rx_frames: 81_000,
                rx_bytes: 64_000_000,
                tx_frames: 79_000,
                tx_bytes: 61_000_000,
                tx_errors: 1,
                ..PortCounters::default()
            },
            seal: SealCounters {
                bytes: 64_000_000,
                compress_saved: 9_000_000,
                compress_overhead: 500,
                encrypt_overhead: 600_000,
            },
            wire: WireState::Secure(SecureState { session: Some(session), counts, ..SecureState::default() }),
            paths: vec![path(PathHealth::Up, counters), path(PathHealth::Down, slave)],
            active: 0,
        };
        let address = |port: u16| (format!("192.0.2.1:{port}"), format!("198.51.100.7:{port}"));
        let lines = lines(&state, &[address(6000), address(6001)]);
        assert!(page.contains(&lines.join("\n")), "docs/RECIPES.md must have:\n{}", lines.join("\n"));
    }

    #[test]
    fn every_path_has_lines() {
        let state = State { active: 2, paths: vec![PathReport::default(); 4], ..State::default() };
        let address = |port: u16| (format!("192.0.2.1:{port}"), format!("198.51.100.7:{port}"));
        let lines = lines(&state, &[1, 2, 3, 4].map(address));
        for name in ["master", " slave", "path 3", "path 4"] {
            let count = |line: &&String| line.to_lowercase().starts_with(name);
            assert_eq!(lines.iter().filter(count).count(), 4, "{name}");
        }
        assert!(lines[0].ends_with("current_remote=PATH 3"), "{}", lines[0]);
    }

    #[test]
    fn secure_counters_are_listed() {
        let counts = SecureCounters {
            handshakes: 11,
            rekeys: 12,
            replays: 13,
            copies: 19,
            auth_failures: 14,
            dropped_initiations: 15,
            dropped_messages: 16,
            dropped_content: 17,
            dropped_incomplete: 18,
        };
        assert!(!lines(&State::default(), &[]).iter().any(|line| line.contains("session")));
        let last = |session| {
            let wire = WireState::Secure(SecureState { counts, session, ..SecureState::default() });
            lines(&State { wire, ..State::default() }, &[]).pop().unwrap()
        };
        assert_eq!(
            last(None),
            "session none; handshakes: 11, rekeys: 12; dropped replays: 13, not authentic: 14, initiations: 15, messages: 16, \
             content: 17, incomplete: 18; copies: 19"
        );
        let session = SessionReport { cipher: SessionCipher::Aes256Gcm, age_ms: 61_999, began_here: true };
        assert!(last(Some(session)).starts_with("session aes-256-gcm, begun here 61 s ago; handshakes: 11,"));
        assert!(last(Some(SessionReport { began_here: false, ..session })).contains(", begun by the peer 61 s ago;"));
    }
}

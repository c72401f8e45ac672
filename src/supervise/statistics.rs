//! Statistics in the fields of the original.

use privsep::ipc::{PathHealth, PathReport, State};

/// The lines of one report; `addresses` are local and remote of each path.
pub fn lines(state: &State, addresses: &[(String, String)]) -> Vec<String> {
    let names = ["master", " slave"];
    let current = if state.active == 0 { "MASTER" } else { "SLAVE" };
    let mut lines = vec![format!(
        "============= version: {}, myticket={}, master_slave={}, current_remote={current}",
        env!("CARGO_PKG_VERSION"),
        state.tick,
        u8::from(addresses.len() > 1),
    )];
    let each = || names.iter().zip(&state.paths).zip(addresses);
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
    lines
}

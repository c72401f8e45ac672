//! Frames and datagrams that are too long, or superframes that cannot be segmented: one line each at the first occurrence. Pure.

use privsep::ipc::State;

/// Whether each line was logged.
#[derive(Debug, Default)]
pub struct Oversize {
    port: bool,
    path: bool,
    offload: bool,
}

impl Oversize {
    /// Lines for the log about events that a report has for the first time.
    pub fn note(&mut self, state: &State, interface: &str) -> Vec<String> {
        let mut lines = Vec::new();
        if state.port.tx_dropped_oversize > 0 && !std::mem::replace(&mut self.port, true) {
            lines.push(format!(
                "interface {interface:?}: dropping frames of the peer that are longer than its MTU (tx_dropped_oversize): \
                 set the MTU of the other end's local side, plus 4 bytes for 802.1ad tags"
            ));
        }
        if state.port.rx_dropped_offload > 0 && !std::mem::replace(&mut self.offload, true) {
            lines.push(format!(
                "interface {interface:?}: dropping superframes (GSO) that cannot be segmented, as of SCTP or of TCP in \
                 GRE, IPIP or VXLAN (rx_dropped_offload): run `ethtool -K {interface} gro off`, and `ethtool -K DEVICE \
                 gso off tso off` on the device of the inner tunnel"
            ));
        }
        let path = state.paths.iter().any(|path| path.counters.tx_dropped_oversize > 0);
        if path && !std::mem::replace(&mut self.path, true) {
            lines.push("dropping datagrams that are too long to be sent (tx_dropped_oversize)".into());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use privsep::ipc::PathReport;

    use super::*;

    #[test]
    fn oversize_is_reported_once_per_side() {
        let (mut sizes, mut state) =
            (Oversize::default(), State { paths: vec![PathReport::default()], ..State::default() });
        assert!(sizes.note(&state, "lan").is_empty());
        state.port.tx_dropped_oversize = 1;
        assert!(
            sizes.note(&state, "lan")[0].contains("\"lan\": dropping frames of the peer that are longer than its MTU")
        );
        state.paths[0].counters.tx_dropped_oversize = 7;
        assert_eq!(sizes.note(&state, "lan").len(), 1);
        assert!(sizes.note(&state, "lan").is_empty());
        state.port.rx_dropped_offload = 1;
        assert!(sizes.note(&state, "lan")[0].contains("`ethtool -K lan gro off`"));
        assert!(sizes.note(&state, "lan").is_empty());
    }
}

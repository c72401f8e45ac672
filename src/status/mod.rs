//! Status of this tunnel, which the control socket returns. [`ethudp_status`] has its fields.

mod collect;
pub mod words;

pub use collect::{Facts, Seen, before_start, collect};
pub use ethudp_status::{PathState, Status, lacks};
pub use words::{Mismatch, cipher_of, lost_runs_sentence, lost_size_sentence, move_sentence, trouble_sentence};

#[cfg(test)]
mod tests {
    use super::*;

    /// A status with all fields.
    fn status() -> Status {
        before_start(&crate::tunnel::example::secure(""), None)
    }

    #[test]
    fn other_versions_of_status_are_readable() {
        let mut value = serde_json::to_value(status()).unwrap();
        let fields = value.as_object_mut().unwrap();
        fields.insert("of_tomorrow".into(), 7.into());
        for name in ["schema", "seal", "session", "reason", "uptime_s", "version"] {
            fields.remove(name);
        }
        let port = fields["port"].as_object_mut().unwrap();
        port.remove("rx_broadcast");
        port.insert("rx_of_tomorrow".into(), 7.into());
        let read: Status = serde_json::from_value(value).unwrap();
        assert_eq!((read.schema, read.port.counters.rx_broadcast), (0, 0));
    }

    /// Text for a tunnel with this worker, if any, and this many restarts.
    fn text(mode: &str, local_side: &str, worker: Option<i32>, restarts: u64) -> String {
        let file = format!(
            "mode = {mode:?}\nwire = \"classic\"\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n\
             {local_side}\n"
        );
        let tunnel = crate::tunnel::file::from_text(&file, "a", std::path::Path::new("")).unwrap();
        let mut status = before_start(&tunnel, None);
        (status.pids.worker, status.worker_restarts) = (worker, restarts);
        assert_eq!(status.paths[0].state, PathState::Connecting);
        status.text()
    }

    #[test]
    fn text_names_absent_parts() {
        let tap = text("tap", "", None, 0);
        assert!(tap.contains("worker -, 0 worker restarts\n  worker      not started\n"), "{tap}");
        assert!(tap.contains("192.0.2.2:6000: connecting, active"), "{tap}");
        for mode in ["mirror", "mirror-udp"] {
            let mirror = text(mode, "[mirror]\ninterface = \"eth1\"", Some(7), 1);
            assert!(mirror.contains("worker 7, 1 worker restart\n  worker      seccomp no"), "{mirror}");
            assert!(mirror.contains("192.0.2.2:6000: one-way, active"), "{mirror}");
        }
    }

    #[test]
    fn session_names_peer_and_cipher() {
        let tunnel = crate::tunnel::example::secure("");
        let text = before_start(&tunnel, None).text();
        for words in [
            "a: starting (tap, wire secure)\n",
            "  session     none: no frames are sent\n",
            "  handshake   Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, ML-KEM-768\n",
            &format!("  fingerprint {}\n", tunnel.secure().unwrap().fingerprint()),
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let mut status = before_start(&tunnel, None);
        let session = status.session.as_mut().unwrap();
        (session.cipher, session.age_s, session.psk) = (Some("aes-256-gcm".into()), Some(61), true);
        let text = status.text();
        assert!(text.contains("  session     aes-256-gcm, for 1 min 1 s: encrypted and authenticated\n"), "{text}");
        assert!(text.contains("ML-KEM-768, pre-shared key\n") && !text.contains("pieces"), "{text}");
        status.session.as_mut().unwrap().counters.dropped_incomplete = 7;
        assert!(status.text().contains("  7 dropped_incomplete: frames whose pieces did not all arrive"));
    }
}

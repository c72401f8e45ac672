//! A status as people and the service manager read it.

use std::fmt::Write;
use std::time::Duration;

use privsep::ipc::{PathCounters, PathHealth};

use super::words::{PROHIBITED, REFUSED, health, lacks};
use super::{PathStatus, SessionStatus, Status};

impl Status {
    /// A path's state in words: nobody need answer a mirror, so that it does not connect.
    fn path_state<'a>(&self, path: &'a PathStatus) -> &'a str {
        let silent =
            self.wire == "classic" && self.mode.starts_with("mirror") && path.state == health(PathHealth::Connecting);
        if silent { "one-way" } else { &path.state }
    }

    /// As a line for the service manager: state, peer, path, what the kernel lacks.
    pub fn words(&self, by_root: bool) -> String {
        let active = self.paths.iter().enumerate().find(|(_, path)| path.active);
        let path = active.map_or_else(String::new, |(index, path)| {
            format!(
                ", path {} of {}: {} to {}, {}",
                index + 1,
                self.paths.len(),
                path.local,
                path.remote,
                self.path_state(path)
            )
        });
        let lacks = if self.pids.worker.is_some() { lacks(&self.confinement, by_root) } else { Vec::new() };
        let lacks = if lacks.is_empty() { String::new() } else { format!("; not to be had: {}", lacks.join(", ")) };
        let reason = self.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        format!("{}{reason}{path}{lacks}", self.state)
    }

    /// As one line, for a list.
    pub fn line(&self) -> String {
        let rtt = self.paths.iter().find(|path| path.active).and_then(|path| path.rtt_ms);
        let rtt = rtt.map_or_else(String::new, |rtt| format!(", rtt {rtt:.2} ms"));
        format!("{}: {}, {}{rtt}\n", self.name, self.mode, self.words(false))
    }

    /// What keeps others from reading: a cipher, or a session.
    fn protection_text(&self, text: &mut String) {
        if let Some(session) = &self.session {
            return self.session_text(session, text);
        }
        let lz4 = if self.lz4 { ", lz4" } else { "" };
        let _ = writeln!(text, "  cipher      {}: {}{lz4}", self.cipher, self.protection);
    }

    /// What the session is made of, and with whom it is.
    fn session_text(&self, session: &SessionStatus, text: &mut String) {
        let _ = match (&session.cipher, session.age_s) {
            (Some(cipher), Some(age)) => {
                writeln!(
                    text,
                    "  session     {cipher}, for {}: {}",
                    duration(Duration::from_secs(age)),
                    self.protection
                )
            }
            _ => writeln!(text, "  session     none: nothing is sent"),
        };
        let psk = if session.psk { ", pre-shared key" } else { "" };
        let _ = writeln!(text, "  handshake   {}, {}{psk}", session.handshake, session.kem);
        let _ = writeln!(text, "  peer's key  {}", session.peer_public_key);
        let _ = writeln!(text, "  fingerprint {}", session.fingerprint);
        let counts = &session.counters;
        let _ = writeln!(
            text,
            "              {} handshake{}, {} of them to change keys; refused: {} replayed, {} not authentic",
            counts.handshakes,
            if counts.handshakes == 1 { "" } else { "s" },
            counts.rekeys,
            counts.replays,
            counts.auth_failures
        );
        if counts.dropped_incomplete > 0 {
            let count = counts.dropped_incomplete;
            let _ = writeln!(text, "              {count} frames were lost because not all of their pieces came");
        }
    }

    /// As text for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let (port, pids, confinement) = (&self.port.counters, &self.pids, &self.confinement);
        let pid = |pid: Option<i32>| pid.map_or_else(|| "-".into(), |pid| pid.to_string());
        let yes = |value| if value { "yes" } else { "no" };
        let _ = writeln!(text, "{}: {} ({}, wire {})", self.name, self.state, self.mode, self.wire);
        if let Some(reason) = &self.reason {
            let _ = writeln!(text, "  because     {reason}");
        }
        let _ = writeln!(
            text,
            "  program     ethudp {}, up for {}",
            self.version,
            duration(Duration::from_secs(self.uptime_s))
        );
        self.protection_text(&mut text);
        if let Some(error) = &self.last_error {
            let _ = writeln!(text, "  last error  {error}");
        }
        let plural = if self.worker_restarts == 1 { "" } else { "s" };
        let _ = writeln!(
            text,
            "  processes   supervisor {}, helper {}, worker {}, {} worker restart{plural}",
            pids.supervisor,
            pid(pids.helper),
            pid(pids.worker),
            self.worker_restarts
        );
        let _ = match pids.worker {
            None => writeln!(text, "  worker      not started"),
            Some(_) => writeln!(
                text,
                "  worker      seccomp {}, empty network {}, Landlock ABI {}, MDWE {}",
                yes(confinement.seccomp),
                yes(confinement.netns),
                confinement.landlock_abi,
                yes(confinement.mdwe)
            ),
        };
        let drops = [
            port.rx_dropped_oversize, port.rx_dropped_kernel, port.rx_dropped_stale, port.rx_errors,
            port.tx_dropped_short, port.tx_dropped_direction, port.tx_dropped_oversize, port.tx_errors,
        ];
        let dropped = drops.into_iter().fold(0, u64::saturating_add);
        let _ = writeln!(
            text,
            "  interface   {}: {} frames ({} bytes) taken from it, {} ({} bytes) given to it, {} dropped",
            self.port.interface, port.rx_frames, port.rx_bytes, port.tx_frames, port.tx_bytes, dropped
        );
        if port.tx_dropped_oversize > 0 {
            let count = port.tx_dropped_oversize;
            let _ = writeln!(
                text,
                "              {count} were longer than its MTU: is that of the other end's local side larger?"
            );
        }
        if port.tx_dropped_direction > 0 {
            let count = port.tx_dropped_direction;
            let _ = writeln!(
                text,
                "              {count} came from the peer, and this end writes none: for the end of a mirror set `direction = \"receive\"` \
                 and another mode than mirror"
            );
        }
        for path in &self.paths {
            let rtt = path.rtt_ms.map_or_else(|| "-".into(), |rtt| format!("{rtt:.2} ms"));
            let active = if path.active { ", active" } else { "" };
            let mtu = path.underlay_mtu.map_or_else(|| "-".into(), |mtu| mtu.to_string());
            let (PathStatus { local, remote, .. }, state) = (path, self.path_state(path));
            let _ = writeln!(text, "  path        {local} to {remote}: {state}{active}, rtt {rtt}, MTU {mtu}");
            if let Some(reason) = &path.reason {
                let _ = writeln!(text, "              {reason}");
            }
            if path.state == "absent" {
                continue;
            }
            if let Some(age) = path.last_rx_ms {
                let age = duration(Duration::from_millis(age));
                let _ = writeln!(text, "              last datagram received {age} ago");
            }
            let counters = &path.counters;
            let _ = writeln!(
                text,
                "              sent {} datagrams ({} bytes), received {} ({} bytes)",
                counters.tx_datagrams, counters.tx_bytes, counters.rx_datagrams, counters.rx_bytes
            );
            for (count, what) in self.lost(counters) {
                if count > 0 {
                    let _ = writeln!(text, "              {count} {what}");
                }
            }
        }
        text
    }

    /// What a path has not taken or sent, and why.
    fn lost(&self, counters: &PathCounters) -> [(u64, &'static str); 12] {
        let (invalid, foreign) = if self.session.is_some() {
            (
                "were not the peer's, came twice, or had been changed on the way",
                "came from an address that the file excludes",
            )
        } else {
            (
                "could not be decoded: is cipher, key or lz4 of the two ends the same?",
                "came from somebody who has not told the password",
            )
        };
        let told = counters.rx_refused.saturating_add(counters.rx_prohibited);
        [
            (counters.rx_dropped_invalid, invalid),
            (counters.rx_implausible, "could be decoded, but to nothing that an Ethernet carries"),
            (counters.rx_dropped_foreign, foreign),
            (counters.rx_dropped_oversize, "were longer than any that we send"),
            (counters.rx_dropped_stale, "were too late"),
            (counters.rx_refused, REFUSED),
            (counters.rx_prohibited, PROHIBITED),
            (counters.rx_errors.saturating_sub(told), "other errors came back"),
            (counters.tx_errors, "could not be sent"),
            (counters.tx_dropped_oversize, "were too long to be sent, even in fragments"),
            (counters.tx_dropped_unfragmentable, "were too long for two fragments"),
            (counters.tx_dropped_unlearned, "were not sent: no address of the peer was known, or no session made"),
        ]
    }
}

/// A time in the two largest units that it has.
fn duration(time: Duration) -> String {
    let (ms, s) = (time.as_millis(), time.as_secs());
    match s {
        0 => format!("{ms} ms"),
        1..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86400 => format!("{} h {} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86400, s / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ConfinementStatus, before_start};
    use super::*;

    /// The text for a tunnel whose worker is not there, or is, and has been started again so many times.
    fn text(mode: &str, local_side: &str, worker: Option<i32>, restarts: u64) -> String {
        let file = format!(
            "mode = {mode:?}\nwire = \"classic\"\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n\
             {local_side}\n"
        );
        let tunnel = crate::tunnel::file::from_text(&file, "a", std::path::Path::new("")).unwrap();
        let mut status = before_start(&tunnel, None);
        (status.pids.worker, status.worker_restarts) = (worker, restarts);
        assert_eq!(status.paths[0].state, "connecting");
        status.text()
    }

    #[test]
    fn the_text_says_what_is_not_there_and_how_a_mirror_is() {
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
    fn a_session_says_what_it_is_made_of_and_whom_it_is_with() {
        let tunnel = crate::tunnel::example::secure("");
        let text = before_start(&tunnel, None).text();
        for words in [
            "a: starting (tap, wire secure)\n",
            "  session     none: nothing is sent\n",
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
        assert!(status.text().contains("  7 frames were lost because not all of their pieces came\n"));
    }

    #[test]
    fn what_is_lacking_is_named() {
        let nothing = ConfinementStatus { netns: false, landlock_abi: 0, mdwe: false, seccomp: false };
        let all = ["Landlock", "memory-deny-write-execute", "seccomp", "an empty network namespace"];
        assert_eq!(lacks(&nothing, true), all);
        let unit = ConfinementStatus { netns: false, landlock_abi: 6, mdwe: true, seccomp: true };
        assert_eq!(lacks(&unit, false), [""; 0]);
        assert_eq!(lacks(&unit, true), all[3..]);
    }
}

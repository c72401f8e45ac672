//! Fuzz targets of the supervisor. Any text is a tunnel or an error of one line. Messages of a worker and of netlink are accepted
//! or rejected.

#![allow(clippy::missing_panics_doc)] // A panic is the result of a fuzz target.

mod init;
mod supervise;

use std::ffi::OsString;
use std::path::Path;

use privsep::netlink::{self, Link};

use crate::cli::{Command, classic, convert};
use crate::tunnel::{file, keys, vlan_map};
use ethudp_status::ask::{self, Unknown};

/// Parses the text as classic arguments (one a line), as a VLAN map and as a file.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let arguments: Vec<_> = text.lines().map(OsString::from).collect();
    // `-map` would read a file. The text itself is parsed as a map below.
    if !arguments.iter().any(|argument| argument == "-map" || argument == "-m") {
        match classic::parse(&arguments, &mut Vec::new()) {
            Ok(Command::Run(tunnel, _)) => {
                if let Ok(file) = convert::text(&tunnel, None) {
                    assert!(toml::from_str::<toml::Table>(&file).is_ok(), "{file}");
                }
            }
            Ok(_) => {}
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
        }
    }
    if let Err(error) = vlan_map::parse("map", text) {
        assert!(!error.contains('\n'), "{error}");
    }
    if let Err(error) = file::from_text(text, "name", Path::new("/nonexistent")) {
        assert!(!error.contains('\n'), "{error}");
    }
}

/// Parses the data as a peer's line of `init`.
pub fn line(data: &[u8]) {
    init::line(data);
}

/// Parses the data as the reply of a control socket to `show`: a status without control characters, or an error of one line.
pub fn answer(data: &[u8]) {
    let moves = |text: &str| text.contains(|letter: char| letter.is_control() && letter != '\n');
    match ask::understand(data, "name") {
        Ok(status) => {
            assert!(!moves(&status.text()) && !moves(&status.line()), "{status:?}");
            let again = ask::understand(status.json().as_bytes(), "name");
            assert!(again.is_ok_and(|again| again.json() == status.json()));
        }
        Err(Unknown::Reason(reason)) => assert!(!reason.contains(char::is_control), "{reason}"),
        Err(Unknown::NotRunning) => unreachable!("it has answered"),
    }
}

/// Takes the data as the existing file of `init --peer`.
pub fn existing(data: &[u8]) {
    init::existing(data);
}

/// Parses the data as the text of a key, and as a private key followed by the peer's public key. Returns whether the pair is
/// accepted, `None` if the data is too short.
pub fn keys(data: &[u8]) -> Option<bool> {
    let text = data.trim_ascii();
    match keys::parse("key", data) {
        Ok(key) => assert!(base64(text) == Some(*key) && keys::text(&key).as_bytes() == text),
        Err(error) => {
            assert!(base64(text).is_none() && !error.contains('\n'), "{error}");
            // The error must not repeat text that may be a secret.
            let said = std::str::from_utf8(text).is_ok_and(|text| text.len() > 20 && error.contains(text));
            assert!(!said || text.contains(&b' '), "{error}");
        }
    }
    let (private, rest) = data.split_first_chunk()?;
    let peer = rest.first_chunk()?;
    let parsed = keys::parse_public("peer", &keys::text(peer));
    assert!(parsed.as_ref().is_err() || parsed.as_ref() == Ok(peer));
    Some(parsed.is_ok() && keys::check_peer("peer", private, peer).is_ok())
}

/// Decodes 32 bytes in canonical base64 (RFC 4648, section 4).
fn base64(text: &[u8]) -> Option<[u8; 32]> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (digits, b"=") = text.split_at_checked(43)? else { return None };
    let mut bits = Vec::new();
    for digit in digits {
        let value = ALPHABET.iter().position(|one| one == digit)?;
        bits.extend((0..6).rev().map(|bit| value >> bit & 1));
    }
    let bytes = bits.chunks_exact(8).map(|bits| bits.iter().fold(0, |byte, &bit| byte << 1 | u8::from(bit == 1)));
    let bytes: Vec<u8> = bytes.collect();
    bytes.try_into().ok().filter(|_| bits[256..] == [0, 0])
}

/// Takes the data as a message of a worker, as the supervisor does.
pub fn report(data: &[u8]) {
    supervise::report(data);
}

/// Takes the data as a message between supervisor and resolver, as either of them does.
pub fn resolver(data: &[u8]) {
    supervise::resolver(data);
}

/// Parses the data as messages of rtnetlink(7).
pub fn netlink(data: &[u8]) {
    for message in netlink::messages(data) {
        let _ = Link::parse(message.payload);
        let _ = netlink::permanent_address(message.payload, 1);
    }
    supervise::interfaces(data);
}

#[cfg(test)]
mod tests {
    use privsep::ipc::{
        Address, Answer, Carries, ChangeReason, ClassicState, FromResolver, FromWorker, Identity, LastChange,
        PathCounters, PathHealth, PathReport, PortCounters, Report, SealCounters, SecureCounters, SecureState,
        SessionCipher, SessionReport, State, Timestamp, ToResolver, Trouble, WireState,
    };

    fn replay(target: &str, check: fn(&[u8])) {
        let directory = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let seeds: Vec<_> = std::fs::read_dir(directory).unwrap().collect();
        assert!(seeds.len() > 5, "{target}: {} seeds", seeds.len());
        for seed in seeds {
            check(&std::fs::read(seed.unwrap().path()).unwrap());
        }
    }

    /// Seeds of the fuzzer: messages of every kind, with small and with extreme numbers.
    fn reports() -> Vec<FromWorker> {
        const MAX: u64 = u64::MAX;
        let learned = Some(Address(([203, 0, 113, 1], 9).into()));
        let absurd =
            PathCounters { rx_datagrams: MAX, rx_dropped_invalid: MAX, pings_sent: MAX, ..PathCounters::default() };
        let path = PathReport {
            health: PathHealth::Up,
            active: true,
            learned,
            last_pong: 7,
            rtt_us: 900,
            last_rx_ms: Some(3),
            local: Some([192, 0, 2, 9].into()),
            carries: Carries { datagram: u16::MAX, searched: true, loses: Some(true), runs: Some(false) },
            jitter_us: 80,
            loss_to_peer: Some(u16::MAX),
            loss_from_peer: Some(5),
            change: Some(LastChange { reason: ChangeReason::Silent, age_ms: MAX }),
            counters: absurd,
        };
        let port = PortCounters { rx_frames: 100, rx_dropped_oversize: MAX, ..PortCounters::default() };
        let seal = SealCounters { bytes: MAX, compress_overhead: 1, ..SealCounters::default() };
        let (late, cipher) = (Timestamp(MAX), SessionCipher::Aes256Gcm);
        let secure = SecureState {
            heard: late,
            sent: late,
            session: Some(SessionReport { cipher, age_ms: MAX, began_here: true }),
            trouble: Some(Trouble::Clock { behind_ms: MAX }),
            counts: SecureCounters { handshakes: 1, auth_failures: MAX, ..SecureCounters::default() },
        };
        let wire = WireState::Secure(secure);
        let state = State { tick: 60, active: 255, blocked: true, port, seal, wire, paths: Vec::new() };
        let fragment = WireState::Classic(ClassicState { fragment: u16::MAX });
        let troubled = SecureState { session: None, trouble: Some(Trouble::Version(255)), ..secure };
        let report = |report| FromWorker::Report(report);
        vec![
            report(Report::Tunnel(State { wire: fragment, ..State::default() }, 1)),
            report(Report::Tunnel(state.clone(), 2)),
            report(Report::Tunnel(State { tick: MAX, wire: WireState::Secure(troubled), ..state }, 255)),
            report(Report::Path(0, path)),
            report(Report::Path(1, PathReport { last_pong: MAX, rtt_us: MAX, last_rx_ms: Some(MAX), ..path })),
            report(Report::Path(0, PathReport::default())),
            FromWorker::Dying("panicked at \u{1b}[31mred\n".into()),
            FromWorker::Health(0, PathHealth::Down),
            FromWorker::Learned(1, Address(([0xfe80, 0, 0, 0, 0, 0, 0, 1], 9).into())),
            FromWorker::Active(3, Some(ChangeReason::Silent)),
            FromWorker::Finished,
        ]
    }

    /// Messages of supervisor and resolver, in packets.
    fn questions() -> Vec<Vec<u8>> {
        let packet = |message: &FromResolver| postcard::to_allocvec(message).unwrap();
        let found = |addresses: &[&str]| Ok(addresses.iter().map(|text| Address(text.parse().unwrap())).collect());
        let start = ToResolver::Start {
            protocol: privsep::PROTOCOL,
            become_user: Some(Identity { uid: 1000, gid: 1000 }),
            required: true,
            names: vec!["peer.example".into(), String::new()],
        };
        let answer = |found| packet(&FromResolver::Answer(0, Answer(found)));
        vec![
            answer(found(&["192.0.2.2:0", "[2001:db8::2]:7"])),
            answer(found(&["224.0.0.1:0", "[::ffff:192.0.2.2]:1", "0.0.0.0:0"])),
            answer(found(&["192.0.2.2:0"; 9])),
            answer(Err("Name or service\u{1b}[31m not known\n".into())),
            packet(&FromResolver::Lacks("Landlock".into())),
            postcard::to_allocvec(&Answer(found(&["[fe80::1%3]:0"]))).unwrap(),
            postcard::to_allocvec(&start).unwrap(),
            postcard::to_allocvec(&ToResolver::Ask(u8::MAX)).unwrap(),
        ]
    }

    /// Fails if the seeds are of another version. `ETHUDP_WRITE_SEEDS` rewrites them.
    #[test]
    fn stored_messages_are_current() {
        let reports = reports().iter().map(|message| postcard::to_allocvec(message).unwrap()).collect();
        for (target, packets) in [("report", reports), ("resolver", questions())] {
            let directory = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
            for (number, packet) in packets.iter().enumerate() {
                let path = format!("{directory}/{number:02}");
                if std::env::var_os("ETHUDP_WRITE_SEEDS").is_some() {
                    std::fs::create_dir_all(&directory).unwrap();
                    std::fs::write(&path, packet).unwrap();
                }
                let is_current = std::fs::read(&path).is_ok_and(|stored| stored == *packet);
                assert!(is_current, "{path}: run with ETHUDP_WRITE_SEEDS=1");
            }
        }
    }

    #[test]
    fn stored_seeds_hold() {
        replay("text", super::text);
        replay("report", super::report);
        replay("resolver", super::resolver);
        replay("netlink", super::netlink);
        replay("line", super::line);
        replay("answer", super::answer);
        replay("existing", super::existing);
        // The supervisor and the worker must accept the same keys.
        replay("keys", |data| assert_eq!(super::keys(data), ethudp_worker::fuzzing::pair(data)));
    }
}

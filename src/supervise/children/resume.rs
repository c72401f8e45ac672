//! State that outlives a worker, and the reason why each field is safe for the next one.
//!
//! A compromised worker may report anything before it ends. So a report is made harmless on arrival ([`accept`]), and the state
//! again at the end of its worker ([`carry_over`]). The exit status does not tell whether a worker was compromised.

use std::net::{IpAddr, SocketAddr};

use privsep::ipc::{Address, Carries, PathHealth, PathReport, Remote, SecureState, State, Timestamp, WireState};

use crate::tunnel::resolve::{self, Resolved};

/// State after a report whose wire and number of paths match, and whose tick is not in the future. `clock` is this host's.
///
/// Effect of a lie in each field:
///
/// - tick: the tick never decreases, so a tunnel with an end reaches it.
/// - active, health, `last_pong`: after five ping intervals the next worker judges by its own PINGs alone. A mirror of the classic
///   wire sends none, see [`carry_over`].
/// - local: only an address to which a peer can have sent, on a wildcard socket. It selects a source address, which the kernel
///   refuses unless it is one of this host's. The worker could select any of these itself.
/// - learned: only an address that the path may learn. With a password it ends with its worker.
/// - `classic.fragment`: any number is valid.
/// - `secure.heard`: the timestamp never decreases. One that is too high blocks initiations of the peer until this program is
///   started again. This end begins sessions meanwhile, and answers a refused initiation by one of its own.
/// - `secure.sent`: the timestamp never decreases. Its limit is the later of this host's clock and the previous value plus one
///   microsecond, so that the two timestamps are not both too high. The worker itself may have sent a higher one: the peer then
///   refuses initiations of this end, and answers them by its own.
/// - `secure.session`, `secure.trouble`: shown until the worker ends.
/// - blocked: shown until the worker ends.
/// - `paths.active`, `rtt_us`, `jitter_us`, loss, `change`, `last_rx_ms`, `carries`, counters: shown, and the next worker continues the
///   counters. Additions of the worker wrap, every sum here saturates.
pub fn accept(before: &State, said: State, resolved: &[Resolved], clock: Timestamp) -> State {
    let State { tick, active, blocked, port, seal, wire, paths } = said;
    let tick = tick.max(before.tick);
    let last = u8::try_from(resolved.len().saturating_sub(1)).unwrap_or(u8::MAX);
    let paths = paths.into_iter().zip(resolved).map(|(said, Resolved { local, remote, .. })| {
        // Each field is named, so that a new one is judged here.
        let PathReport { health, learned, local: asked, last_pong, last_rx_ms, carries, counters, .. } = said;
        let PathReport { active, rtt_us, jitter_us, loss_to_peer, loss_from_peer, change, .. } = said;
        let (learned, asked) = (
            learned.filter(|&Address(address)| may_be_peer(*local, remote, address)),
            asked.filter(|&ip| may_be_ours(*local, ip)),
        );
        let [loss_to_peer, loss_from_peer] = [loss_to_peer, loss_from_peer].map(|loss| loss.map(|loss| loss.min(1000)));
        PathReport {
            health,
            active,
            learned,
            local: asked,
            last_pong: last_pong.min(tick),
            rtt_us,
            jitter_us,
            loss_to_peer,
            loss_from_peer,
            change,
            last_rx_ms,
            carries,
            counters,
        }
    });
    let wire = match (&before.wire, wire) {
        (WireState::Secure(before), WireState::Secure(said)) => WireState::Secure(accept_secure(before, said, clock)),
        (_, said) => said,
    };
    State { tick, active: active.min(last), blocked, port, seal, wire, paths: paths.collect() }
}

/// Nanoseconds by which the last sent timestamp may grow between two reports after the clock was set back: one for each initiation.
const STEPS: u64 = 1000;

/// Accepts only timestamps that do not decrease: heard ones could be replayed, and sent ones may have been received.
fn accept_secure(before: &SecureState, said: SecureState, clock: Timestamp) -> SecureState {
    let SecureState { heard, sent, session, trouble, counts } = said;
    let latest = clock.max(Timestamp(before.sent.0.saturating_add(STEPS)));
    let (heard, sent) = (heard.bounded().max(before.heard), sent.min(latest).bounded().max(before.sent));
    SecureState { heard, sent, session, trouble, counts }
}

/// Whether a path may learn this address. The address must be within the path's limits, of a family that its socket receives, and a
/// possible source of a datagram. A path whose remote is a name uses only addresses that the supervisor has told.
pub fn may_be_peer(local: SocketAddr, remote: &Remote, address: SocketAddr) -> bool {
    let (only, before, port) = match *remote {
        Remote::Fixed(_) => return false,
        Remote::Named { now, before } => return [now, before].contains(&Some(Address(address))),
        Remote::Learned { address, before, port } => (address, before, port),
    };
    let ip = address.ip();
    let may_be = only.is_none_or(|only| only == ip) || before == Some(ip);
    let within = may_be && port.is_none_or(|port| port == address.port());
    within && address.port() != 0 && is_one_host(local, ip)
}

/// Whether a socket with this local address can have received a datagram to this address of the host.
fn may_be_ours(local: SocketAddr, asked: IpAddr) -> bool {
    local.ip().is_unspecified() && is_one_host(local, asked)
}

/// Whether this is the address of one host in its canonical form, of a family that the socket receives.
fn is_one_host(local: SocketAddr, ip: IpAddr) -> bool {
    resolve::is_host(ip) && resolve::reaches(local.ip(), ip) && ip == ip.to_canonical()
}

/// Parts of a state that may outlive its worker, which depend on the tunnel.
#[derive(Debug, Clone, Copy)]
pub struct Lasting {
    /// The learned address. It is dropped where a password identifies the peer: a worker could have set any peer, and the real one
    /// sends its password every second.
    pub peer: bool,
    /// Health of the paths, and the active path. Both are dropped without PINGs, because then no worker can tell whether a path is
    /// up, or whether its predecessor lied.
    pub health: bool,
}

/// Turns the state of an ended worker into the state of the next.
pub fn carry_over(state: &mut State, lasting: Lasting) {
    match &mut state.wire {
        // The last numbers may be a second old. The peer must not join halves of different datagrams.
        WireState::Classic(classic) => classic.fragment = classic.fragment.wrapping_add(0x4000) & !1,
        // The keys ended with the worker.
        WireState::Secure(secure) => (secure.session, secure.trouble) = (None, None),
    }
    state.blocked = false;
    for report in &mut state.paths {
        report.carries = Carries::default();
        if !lasting.peer {
            report.learned = None;
        }
        if !lasting.health {
            (report.health, report.last_pong, report.rtt_us) = (PathHealth::default(), 0, 0);
        }
    }
    if !lasting.health {
        state.active = 0;
    }
}

/// Resets the state after a worker's last tick, as EthUDP does.
pub fn begin_anew(state: &mut State, lasting: Lasting) {
    carry_over(state, lasting);
    state.tick = 0;
    for report in &mut state.paths {
        report.last_pong = 0;
    }
}

#[cfg(test)]
mod tests {
    use privsep::ipc::{ClassicState, PathCounters, PortCounters, SessionCipher, SessionReport, Trouble};

    use super::*;

    const ANY: Remote = Remote::ANY;

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn paths(remotes: &[Remote]) -> Vec<Resolved> {
        remotes.iter().map(|&remote| Resolved { local: socket("192.0.2.1:6000"), remote, underlay_mtu: None }).collect()
    }

    /// Report of a worker that lies in every field, for `paths` paths.
    fn lies(paths: usize) -> State {
        let counters = PathCounters { rx_datagrams: u64::MAX, pings_sent: u64::MAX, ..PathCounters::default() };
        let learned = Some(Address(socket("203.0.113.1:9")));
        let report = PathReport {
            health: PathHealth::Up,
            learned,
            local: Some([192, 0, 2, 9].into()),
            last_pong: u64::MAX,
            rtt_us: u64::MAX,
            last_rx_ms: Some(u64::MAX),
            carries: Carries { datagram: u16::MAX, searched: true, loses: Some(true), runs: Some(false) },
            loss_to_peer: Some(u16::MAX),
            counters,
            ..PathReport::default()
        };
        let port = PortCounters { rx_frames: u64::MAX, ..PortCounters::default() };
        let wire = WireState::Classic(ClassicState { fragment: u16::MAX });
        State { tick: 7, active: 255, wire, port, paths: vec![report; paths], ..State::default() }
    }

    #[test]
    fn report_counts_only_grow() {
        let before = State { tick: 60, ..State::default() };
        let state = accept(&before, lies(2), &paths(&[ANY, ANY]), Timestamp::MAX);
        assert_eq!((state.tick, state.active), (60, 1));
        assert!(state.paths.iter().all(|path| path.last_pong == 60 && path.loss_to_peer == Some(1000)));
    }

    #[test]
    fn timestamps_only_grow() {
        let with = |heard, sent| {
            let wire = WireState::Secure(SecureState { heard, sent, ..SecureState::default() });
            State { wire, ..State::default() }
        };
        let before = with(Timestamp(7), Timestamp(9));
        let kept = |heard, sent, clock| {
            let said = with(Timestamp(heard), Timestamp(sent));
            let state = accept(&before, said, &[], Timestamp(clock));
            let SecureState { heard, sent, .. } = *state.secure().unwrap();
            (heard.0, sent.0)
        };
        assert_eq!(kept(6, 8, 100), (7, 9));
        assert_eq!(kept(8, 10, 100), (8, 10));
        assert_eq!(kept(u64::MAX, u64::MAX, 9000), (Timestamp::MAX.0, 9000));
        // A clock that was set back does not stop a worker that counts on.
        assert_eq!([kept(8, 10, 3), kept(8, 5000, 3)], [(8, 10), (8, 1009)]);
    }

    #[test]
    fn only_timestamps_outlive_a_worker() {
        let session = SessionReport { cipher: SessionCipher::Aes256Gcm, age_ms: u64::MAX, began_here: true };
        let (sent, trouble) = (Timestamp(7), Some(Trouble::Psk));
        for end in [carry_over, begin_anew] {
            let secure = SecureState { sent, session: Some(session), trouble, ..SecureState::default() };
            let mut state = State { wire: WireState::Secure(secure), ..State::default() };
            end(&mut state, Lasting { peer: true, health: true });
            assert_eq!(state.secure(), Some(&SecureState { sent, ..SecureState::default() }));
        }
    }

    #[test]
    fn impossible_source_is_not_learned() {
        let local = socket("192.0.2.1:6000");
        let limits = |address: Option<&str>, port| {
            let [address, before] = [address, Some("203.0.113.3")].map(|text| text.map(|text| text.parse().unwrap()));
            Remote::Learned { address, before: before.filter(|_| address.is_some()), port }
        };
        let address = |text: Option<&str>| text.map(|text| Address(socket(text)));
        let named = |now, before| Remote::Named { now: address(now), before: address(before) };
        for (remote, address, may) in [
            (ANY, "203.0.113.1:9", true),
            (ANY, "0.0.0.0:9", false),
            (ANY, "224.0.0.1:9", false),
            (ANY, "255.255.255.255:9", false),
            (ANY, "203.0.113.1:0", false),
            (ANY, "[2001:db8::1]:9", false),
            (limits(Some("203.0.113.1"), None), "203.0.113.1:9", true),
            (limits(Some("203.0.113.2"), None), "203.0.113.1:9", false),
            (limits(Some("203.0.113.2"), None), "203.0.113.3:9", true),
            (limits(Some("203.0.113.2"), Some(8)), "203.0.113.3:9", false),
            (limits(None, Some(9)), "203.0.113.1:9", true),
            (limits(None, Some(8)), "203.0.113.1:9", false),
            (Remote::Fixed(Address(socket("203.0.113.1:9"))), "203.0.113.1:9", false),
            (named(Some("203.0.113.1:9"), None), "203.0.113.1:9", true),
            (named(Some("203.0.113.2:9"), Some("203.0.113.1:9")), "203.0.113.1:9", true),
            (named(Some("203.0.113.2:9"), None), "203.0.113.1:9", false),
            (named(None, None), "203.0.113.1:9", false),
        ] {
            assert_eq!(may_be_peer(local, &remote, socket(address)), may, "{address} for {remote:?}");
        }
        let v6 = socket("[2001:db8::2]:6000");
        for (address, may) in [("[2001:db8::1]:9", true), ("[ff02::1]:9", false), ("[::]:9", false)] {
            assert_eq!(may_be_peer(v6, &ANY, socket(address)), may, "{address}");
        }
        // A socket that receives both families. A worker learns no mapped address.
        let both = socket("[::]:6000");
        for (address, may) in [("203.0.113.1:9", true), ("[2001:db8::1]:9", true), ("[::ffff:203.0.113.1]:9", false)] {
            assert_eq!(may_be_peer(both, &ANY, socket(address)), may, "{address}");
        }
        let narrow = accept(&State::default(), lies(1), &paths(&[limits(None, Some(8))]), Timestamp::MAX);
        assert_eq!(narrow.paths[0].learned, None);
    }

    #[test]
    fn only_wildcard_sockets_have_local_address() {
        for (local, asked, may) in [
            ("0.0.0.0:1", "192.0.2.9", true),
            ("[::]:1", "192.0.2.9", true),
            ("[::]:1", "2001:db8::9", true),
            ("0.0.0.0:1", "2001:db8::9", false),
            ("192.0.2.1:1", "192.0.2.9", false),
            ("0.0.0.0:1", "224.0.0.1", false),
            ("0.0.0.0:1", "255.255.255.255", false),
            ("[::]:1", "::", false),
            ("[::]:1", "::ffff:192.0.2.9", false),
        ] {
            assert_eq!(may_be_ours(socket(local), asked.parse().unwrap()), may, "{asked} at {local}");
        }
        // The path is bound to an address.
        assert_eq!(accept(&State::default(), lies(1), &paths(&[ANY]), Timestamp::MAX).paths[0].local, None);
    }

    #[test]
    fn password_drops_learned_address() {
        for kept in [false, true] {
            for end in [carry_over, begin_anew] {
                let mut state = accept(&State::default(), lies(1), &paths(&[ANY]), Timestamp::MAX);
                end(&mut state, Lasting { peer: kept, health: true });
                assert_eq!(state.paths[0].learned.is_some(), kept);
            }
        }
    }

    #[test]
    fn mirror_starts_on_first_path() {
        let mut state = accept(&State::default(), lies(2), &paths(&[ANY, ANY]), Timestamp::MAX);
        carry_over(&mut state, Lasting { peer: true, health: false });
        assert_eq!(state.active, 0);
        assert!(state.paths.iter().all(|path| path.health == PathHealth::Connecting && path.last_pong == 0));
    }

    #[test]
    fn next_fragment_id_is_even_and_far() {
        for fragment in [0, 1, 0x7fff, u16::MAX] {
            let mut state = State { wire: WireState::Classic(ClassicState { fragment }), ..State::default() };
            carry_over(&mut state, Lasting { peer: true, health: true });
            let next = state.classic().unwrap().fragment;
            assert!(next.is_multiple_of(2) && next.wrapping_sub(fragment) >= 0x3fff, "{fragment} {next}");
        }
    }
}

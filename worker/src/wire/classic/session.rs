//! Session of the classic wire: receives, sends keepalives and knows the peer.

use std::net::SocketAddr;
use std::sync::Arc;

use privsep::ipc::{
    Classic, ClassicSecrets, ClassicState, PathHealth, PathReport, Settings, SharedPath, State, WireState,
};
use zeroize::Zeroizing;

use super::codec::{Codec, Kind, LONGEST, PING, PONG, Scratch, kind};
use super::fragment::{self, Outcome, Reassembly, Splitter};
use super::password::{self, Password};

use crate::batch::Batch;
use crate::endpoint::{Endpoint, Target};
use crate::frame::HEADER;
use crate::frame::plausible::is_plausible;
use crate::wire::counters::Counters;
use crate::wire::outbox::Outbox;
use crate::wire::paths::remote::Remote;
use crate::wire::paths::{Path, Paths};
use crate::wire::route::{Egress, Route};
use crate::wire::ticks::{TICK_US, Ticks};

/// Session of a tunnel.
pub struct Session {
    codec: Arc<Codec>,
    scratch: Scratch,
    splitter: Option<Splitter>,
    /// Password that a peer with a learned address must send.
    password: Option<Password>,
    messages: Messages,
    /// Whether PING and password are sent without a request.
    keepalive: bool,
    /// Whether frames are given to the local side.
    delivers: bool,
    ticks: Ticks,
    /// Beats of PINGs, by which the paths are judged; at EthUDP's interval the same as the ticks.
    beats: Ticks,
    paths: Paths<Extra>,
}

/// Control messages as datagrams.
struct Messages {
    ping: Zeroizing<Vec<u8>>,
    pong: Zeroizing<Vec<u8>>,
    password: Option<Zeroizing<Vec<u8>>>,
}

/// State of this wire for each path.
struct Extra {
    /// Last admitted source.
    admitted: Option<Endpoint>,
    reassembly: Option<Reassembly>,
    ping_sent_us: u64,
}

impl Session {
    /// Continues from the state of an earlier worker.
    pub fn new(
        settings: &Settings,
        classic: &Classic,
        secrets: &ClassicSecrets,
        state: &State,
        codec: Arc<Codec>,
        splitter: Option<Splitter>,
    ) -> Self {
        let password = Password::new(secrets.password.expose());
        let messages = Messages {
            ping: codec.seal_message(PING),
            pong: codec.seal_message(PONG),
            password: password.as_ref().map(|password| codec.seal_message(password.message())),
        };
        let reports = state.paths.iter().copied().chain(std::iter::repeat(PathReport::default()));
        let whole = classic.whole().map_or(LONGEST, usize::from);
        let paths = settings.remotes.iter().zip(&settings.paths).zip(reports).map(|((remote, of_path), report)| {
            let reassembly = splitter.as_ref().map(|_| Reassembly::default());
            let extra = Extra { admitted: None, reassembly, ping_sent_us: 0 };
            let mut path = Path::new(remote, &report, 1, whole, extra);
            path.egress.runs = of_path.runs;
            path
        });
        let paths = Paths::new(paths.collect(), state.active.into());
        Self {
            codec,
            scratch: Scratch::default(),
            splitter,
            password,
            messages,
            keepalive: classic.keepalive_ms.is_some(),
            delivers: settings.rules.receive,
            ticks: Ticks::new(state.tick, settings.exit_after),
            // The last answers of the earlier worker keep their age in beats.
            beats: Ticks::every(
                classic.keepalive_ms.map_or(TICK_US, |interval| 1000 * u64::from(interval)),
                state.tick,
            ),
            paths,
        }
    }

    /// See [`crate::wire::Session::receive`].
    pub fn receive(&mut self, number: usize, batch: &mut Batch, now_us: u64, counters: &Counters, out: &mut Outbox) {
        let (Some(path), Some(counts)) = (self.paths.all.get_mut(number), counters.paths.get(number)) else { return };
        if !batch.is_empty() {
            path.received_us = Some(now_us);
        }
        let (codec, scratch, password) = (&self.codec, &mut self.scratch, self.password.as_ref());
        // The peer does not answer datagrams whose source address the kernel chose.
        let unanswered = !path.estimate.serves(self.beats.now());
        let (mut implausible, mut short, mut unwritten) = (0, 0, 0);
        batch.filter_map(|source, buffer, length| {
            let Ok(length) = decode(path.wire.reassembly.as_mut(), codec, scratch, buffer, length, now_us) else {
                counts.rx_dropped_invalid.add(1);
                return None;
            };
            let length = length?;
            let decoded = &buffer[..length];
            let kind = kind(decoded);
            if unanswered && let (Remote::Fixed(_) | Remote::Named(_), Some(source)) = (&path.remote, source) {
                path.remote.set_place(source);
            }
            // The last admitted source is not checked again, unless it sends a password.
            if source.is_none() || source != path.wire.admitted || kind == Kind::Password {
                if !password::admit(&mut path.remote, password, source, decoded) {
                    counts.rx_dropped_foreign.add(1);
                    return None;
                }
                path.wire.admitted = source;
            }
            // Counted only: implausible frames are still delivered.
            implausible += u64::from(match kind {
                Kind::Frame => !is_plausible(decoded),
                // Extra byte of a peer that compresses while this end does not.
                Kind::Ping | Kind::Pong => length == PING.len() + 1,
                Kind::Password => false,
            });
            match kind {
                Kind::Frame if !self.delivers => unwritten += 1,
                Kind::Frame if length < HEADER => short += 1,
                Kind::Frame => return Some(length),
                Kind::Ping => {
                    counts.pings_received.add(1);
                    let answer = &self.messages.pong;
                    let sent = say(self.splitter.as_ref(), number, path.egress(), answer, counts, out);
                    counts.pongs_sent.add(u64::from(sent));
                }
                Kind::Pong => {
                    counts.pongs_received.add(1);
                    if let Some(source) = source {
                        path.remote.answered_at(source.remote, true);
                    }
                    // An answer from an earlier address of the peer does not speak for the present one.
                    if path.is_at(source) {
                        path.estimate.answered(self.beats.now(), now_us.saturating_sub(path.wire.ping_sent_us));
                    }
                }
                Kind::Password => {}
            }
            None
        });
        counts.rx_implausible.add(implausible);
        counters.port.tx_dropped_short.add(short);
        counters.port.tx_dropped_direction.add(unwritten);
        self.paths.update_route();
    }

    /// See [`crate::wire::Session::on_time`]. One pass of the keepalive, in the order of the original.
    pub fn on_time(&mut self, now_us: u64, counters: &Counters, out: &mut Outbox) {
        let ticks = self.ticks.begin(now_us);
        if self.is_over() {
            return;
        }
        if ticks && self.keepalive {
            self.say_password(counters, out);
        }
        if !self.beats.begin(now_us) {
            return;
        }
        if self.keepalive {
            self.ping(now_us, counters, out);
        }
        self.paths.judge(self.beats.now());
        self.paths.all.iter_mut().for_each(|path| path.on_tick(now_us, false));
        self.paths.update_route();
    }

    /// Sends the password to peers with fixed addresses. A peer behind NAT must send its own password.
    fn say_password(&mut self, counters: &Counters, out: &mut Outbox) {
        let Some(secret) = &self.messages.password else { return };
        for (number, (path, counts)) in self.paths.all.iter().zip(&counters.paths).enumerate() {
            if !path.remote.is_learned() {
                say(self.splitter.as_ref(), number, path.egress(), secret, counts, out);
            }
        }
    }

    fn ping(&mut self, now_us: u64, counters: &Counters, out: &mut Outbox) {
        for (number, (path, counts)) in self.paths.all.iter_mut().zip(&counters.paths).enumerate() {
            let egress = path.egress();
            if egress.target != Target::Unknown {
                path.wire.ping_sent_us = now_us;
                let sent = say(self.splitter.as_ref(), number, egress, &self.messages.ping, counts, out);
                counts.pings_sent.add(u64::from(sent));
            }
        }
    }

    /// See [`crate::wire::Session::tell`].
    pub fn tell(&mut self, number: usize, address: SocketAddr, counters: &Counters, out: &mut Outbox) {
        let (Some(path), Some(counts)) = (self.paths.all.get_mut(number), counters.paths.get(number)) else { return };
        path.wire.admitted = None;
        let keep = self.keepalive && path.estimate.health() == PathHealth::Up;
        if let Some(target) = path.remote.tell(address, keep) {
            let egress = Egress { target, ..path.egress() };
            let sent = say(self.splitter.as_ref(), number, egress, &self.messages.ping, counts, out);
            counts.pings_sent.add(u64::from(sent));
        }
        self.paths.update_route();
    }

    /// Time of the next tick or beat, in microseconds.
    pub fn due_us(&self) -> u64 {
        if self.is_over() { u64::MAX } else { self.ticks.due_us().min(self.beats.due_us()) }
    }

    /// Whether the last tick is over.
    pub fn is_over(&self) -> bool {
        self.ticks.is_over()
    }

    /// Current route.
    pub fn route(&self) -> &Route {
        self.paths.route()
    }

    /// See [`crate::wire::Session::report`].
    pub fn report(&mut self, now_us: u64) -> State {
        // Counts a PONG since the last tick as well: no report shows a round trip time on a path that is still connecting.
        self.paths.judge(self.beats.now());
        let (tick, beat) = (self.ticks.now(), self.beats.now());
        // The next worker counts its beats from the tick on.
        let keep_age = |_: &Extra, report: &mut PathReport| {
            report.last_pong = tick.saturating_sub(beat.saturating_sub(report.last_pong));
        };
        State {
            tick,
            active: self.paths.active(),
            wire: WireState::Classic(ClassicState { fragment: self.splitter.as_ref().map_or(0, Splitter::sequence) }),
            paths: self.paths.reports(now_us, keep_age),
            ..State::default()
        }
    }
}

/// Error: the datagram does not belong to this wire.
struct Invalid;

/// Reassembles and decodes the datagram in `buffer[..length]` in place. `None` if it waits for its other half.
fn decode(
    reassembly: Option<&mut Reassembly>,
    codec: &Codec,
    scratch: &mut Scratch,
    buffer: &mut [u8],
    length: usize,
    now_us: u64,
) -> Result<Option<usize>, Invalid> {
    let length = match reassembly.map(|table| table.take(buffer, length, now_us / 1000)) {
        None | Some(Outcome::Whole) => length,
        Some(Outcome::Joined(length)) => length,
        Some(Outcome::Waits) => return Ok(None),
        Some(Outcome::Invalid) => return Err(Invalid),
    };
    codec.open(buffer, length, scratch).map(Some).ok_or(Invalid)
}

/// Adds a control message to the outbox, as fragments if it is long. False if it does not leave.
fn say(
    splitter: Option<&Splitter>,
    path: usize,
    Egress { target, datagram: whole, .. }: Egress,
    datagram: &[u8],
    counts: &SharedPath,
    out: &mut Outbox,
) -> bool {
    if target == Target::Unknown {
        counts.tx_dropped_unlearned.add(1);
        return false;
    }
    let Some(splitter) = splitter else { return out.post(path, target, datagram) };
    let sent = splitter.split(datagram, whole, |piece| out.push(path, target, |to| fragment::write(&piece, to)));
    counts.tx_dropped_unfragmentable.add(u64::from(!sent));
    sent
}

//! Classic wire, compatible with `EthUDP` byte for byte. One datagram is one frame or one of three control words. A PING leaves
//! every tick; a path without PONGs is left; the peer's address may be learned. Nothing is authenticated.
//!
//! [`codec`] is the format of a datagram (with [`lz4`] and [`cbc`]), and [`fragment`] that of fragments. [`password`] identifies
//! the peer, [`paths`](super::paths) chooses the path. [`Session`] and [`Sealer`] combine them.

mod cbc;
pub mod codec;
pub mod fragment;
mod lz4;
pub mod password;
mod sealer;
mod session;

use std::sync::Arc;

use privsep::ipc::{Classic, ClassicSecrets, Settings, State};

use codec::Codec;
use fragment::Splitter;
pub use sealer::Sealer;
pub use session::Session;

/// Makes the session and the sealer of a tunnel.
pub fn machines(settings: &Settings, classic: &Classic, secrets: &ClassicSecrets, state: &State) -> (Session, Sealer) {
    let codec = Arc::new(Codec::new(classic.cipher, secrets.key.expose(), classic.compress));
    let fragment = state.classic().map_or(0, |state| state.fragment);
    let splitter = classic.whole().map(|_| Splitter::new(fragment));
    let session = Session::new(settings, classic, secrets, state, Arc::clone(&codec), splitter.clone());
    let sealer = Sealer::new(codec, splitter, session.route().clone());
    (session, sealer)
}

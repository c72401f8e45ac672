//! The classic wire: `EthUDP`'s, byte for byte. One datagram is one frame, or one of three control words; a PING every tick,
//! a path that is left when no PONG comes, a peer that may be learned. It has no authentication of any kind.
//!
//! [`codec`] is the form of a datagram (with [`lz4`] and [`cbc`]), [`fragment`] that of one which is too long, [`password`] tells
//! who is the peer, [`paths`](super::paths) which path is used; [`Session`] and [`Sealer`] put it together.

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

/// Makes both machines of a tunnel.
pub fn machines(settings: &Settings, classic: &Classic, secrets: &ClassicSecrets, state: &State) -> (Session, Sealer) {
    let codec = Arc::new(Codec::new(classic.cipher, secrets.key.expose(), classic.compress));
    let fragment = state.classic().map_or(0, |state| state.fragment);
    let splitter = classic.whole().map(|_| Splitter::new(fragment));
    let session = Session::new(settings, classic, secrets, state, Arc::clone(&codec), splitter.clone());
    let sealer = Sealer::new(codec, splitter, session.route().clone());
    (session, sealer)
}

//! Channels between the processes: `SOCK_SEQPACKET` socket pairs, one message a packet, encoded by postcard.
//!
//! Each direction has one enum. A message has a size limit, and its kind fixes the number of descriptors. A truncated packet, an
//! undecodable one or another number of descriptors is an error; the receiver treats it as fatal for the sender. End of file is the
//! orderly shutdown.

mod helper;
mod resolver;
mod worker;

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, socketpair};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use zeroize::Zeroizing;

pub use helper::*;
pub use resolver::*;
pub use worker::*;

use crate::sys::scm;

/// Messages of one direction.
pub trait Message: Serialize + DeserializeOwned {
    /// Largest encoded size in bytes.
    const MAX: usize;

    /// Number of descriptors that travel with this message.
    fn descriptors(&self) -> usize {
        0
    }
}

/// Error of sending or receiving a message.
#[derive(Debug, Error)]
pub enum Error {
    /// The socket failed; `WouldBlock` if a peer that does not read has filled it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer broke the rules of the channel.
    #[error("channel: {0}")]
    Violation(&'static str),
}

/// One end of a channel that sends `Tx` and receives `Rx`.
#[derive(Debug)]
pub struct Channel<Tx, Rx> {
    socket: OwnedFd,
    kinds: PhantomData<fn(Tx) -> Rx>,
}

/// Decodes the message in a packet.
pub fn from_packet<Rx: Message>(packet: &[u8]) -> Result<Rx, Error> {
    let (message, rest) =
        postcard::take_from_bytes::<Rx>(packet).map_err(|_| Error::Violation("message cannot be decoded"))?;
    if rest.is_empty() { Ok(message) } else { Err(Error::Violation("bytes after the message")) }
}

/// Returns a connected pair of `SOCK_SEQPACKET` sockets, close-on-exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

impl<Tx: Message, Rx: Message> Channel<Tx, Rx> {
    /// Takes over one end of a [`pair`].
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, kinds: PhantomData }
    }

    /// Sends one message; waits while the peer's queue is full.
    pub fn send(&self, message: &Tx, descriptors: &[BorrowedFd<'_>]) -> Result<(), Error> {
        self.send_with(message, descriptors, MsgFlags::empty())
    }

    /// Sends one message without descriptors, or fails with `WouldBlock`: for a peer that may be frozen.
    pub fn try_send(&self, message: &Tx) -> Result<(), Error> {
        self.send_with(message, &[], MsgFlags::MSG_DONTWAIT)
    }

    fn send_with(&self, message: &Tx, descriptors: &[BorrowedFd<'_>], flags: MsgFlags) -> Result<(), Error> {
        if descriptors.len() != message.descriptors() {
            return Err(Error::Violation("wrong number of descriptors for this kind of message"));
        }
        // Allocated at full size: a buffer that grows would leave unwiped copies of a key.
        let mut buffer = Zeroizing::new(vec![0_u8; Tx::MAX]);
        let encoded = postcard::to_slice(message, &mut buffer).map_err(|_| Error::Violation("message too large"))?;
        Ok(scm::send(self.socket.as_fd(), encoded, descriptors, flags)?)
    }

    /// Receives one message, waiting for it; `None` at end of file.
    pub fn recv(&self) -> Result<Option<(Rx, Vec<OwnedFd>)>, Error> {
        let mut buffer = Zeroizing::new(vec![0_u8; Rx::MAX]);
        let (length, descriptors) = match scm::recv(self.socket.as_fd(), &mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Error::Violation("truncated message"));
            }
            Err(error) => return Err(error.into()),
        };
        if length == 0 {
            return Ok(None);
        }
        let message = from_packet::<Rx>(&buffer[..length])?;
        if descriptors.len() != message.descriptors() {
            return Err(Error::Violation("wrong number of descriptors for this kind of message"));
        }
        Ok(Some((message, descriptors)))
    }
}

impl<Tx, Rx> AsFd for Channel<Tx, Rx> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Note {
        Text(String),
        WithDescriptor,
    }

    impl Message for Note {
        const MAX: usize = 64;

        fn descriptors(&self) -> usize {
            usize::from(*self == Note::WithDescriptor)
        }
    }

    fn channels() -> (Channel<Note, Note>, Channel<Note, Note>) {
        let (a, b) = pair().unwrap();
        (Channel::new(a), Channel::new(b))
    }

    #[test]
    fn messages_and_descriptors_arrive() {
        let (a, b) = channels();
        a.send(&Note::Text("hello".into()), &[]).unwrap();
        a.send(&Note::WithDescriptor, &[a.as_fd()]).unwrap();
        assert_eq!(b.recv().unwrap().unwrap().0, Note::Text("hello".into()));
        let (message, descriptors) = b.recv().unwrap().unwrap();
        assert_eq!((message, descriptors.len()), (Note::WithDescriptor, 1));
        drop((a, descriptors));
        assert!(b.recv().unwrap().is_none());
    }

    #[test]
    fn last_words_arrive_despite_unread_messages() {
        let (a, b) = channels();
        b.send(&Note::Text("unread".into()), &[]).unwrap();
        a.send(&Note::Text("last words".into()), &[]).unwrap();
        drop(a);
        assert_eq!(b.recv().unwrap().unwrap().0, Note::Text("last words".into()));
        assert!(b.recv().unwrap().is_none());
    }

    #[test]
    fn sender_refuses_long_messages() {
        let (a, _b) = channels();
        assert!(matches!(a.send(&Note::Text("x".repeat(65)), &[]), Err(Error::Violation(_))));
    }

    #[test]
    fn receiver_detects_violations() {
        let (a, b) = channels();
        let text = postcard::to_allocvec(&Note::Text("x".into())).unwrap();
        let packets: [(Vec<u8>, usize); 5] = [
            (vec![0; 65], 0),                                           // longer than the limit
            (vec![9, 9], 0),                                            // no such variant
            ([&text[..], &[0]].concat(), 0),                            // bytes behind it
            (text, 1),                                                  // a descriptor too many
            (postcard::to_allocvec(&Note::WithDescriptor).unwrap(), 0), // one too few
        ];
        for (bytes, count) in packets {
            scm::send(a.as_fd(), &bytes, &vec![a.as_fd(); count], MsgFlags::empty()).unwrap();
            assert!(matches!(b.recv(), Err(Error::Violation(_))), "{bytes:?} with {count} descriptors");
        }
    }

    #[test]
    fn excess_descriptors_are_closed() {
        let (a, b) = channels();
        // The pipe reports its end only when every copy of the write end is closed.
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let bytes = postcard::to_allocvec(&Note::WithDescriptor).unwrap();
        for count in [2, 17, 200] {
            scm::send(a.as_fd(), &bytes, &vec![writer.as_fd(); count], MsgFlags::empty()).unwrap();
            assert!(matches!(b.recv(), Err(Error::Violation(_))), "{count} descriptors");
        }
        drop(writer);
        assert_eq!(nix::unistd::read(reader, &mut [0]), Ok(0));
    }

    #[test]
    fn try_send_does_not_block() {
        let (a, _b) = channels();
        let full = (0..100_000).find_map(|_| a.try_send(&Note::Text("x".into())).err());
        assert!(matches!(full, Some(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock));
    }
}

//! The local side: where frames come from and go to.

mod raw;
mod tap;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use privsep::ipc::PortKind;

use crate::batch::Batch;
use crate::counters;
use crate::io::Received;

/// Opened by the helper; shared by the threads, each of which makes its own [`Source`] or [`Sink`].
pub struct Port {
    pub kind: PortKind,
    pub handle: OwnedFd,
    pub counters: counters::Port,
}

/// Takes frames from the port.
pub enum Source {
    Tap(tap::Source),
    Raw(raw::Source),
}

impl Source {
    pub fn new(port: Arc<Port>) -> Self {
        match port.kind {
            PortKind::Tap => Self::Tap(tap::Source::new(port)),
            PortKind::Raw | PortKind::Mirror { .. } => Self::Raw(raw::Source::new(port)),
        }
    }

    /// Fills the batch with what is waiting, without blocking. Frames over the limit are dropped.
    pub fn receive(&mut self, batch: &mut Batch) -> Received {
        match self {
            Self::Tap(tap) => tap.receive(batch),
            Self::Raw(raw) => raw.receive(batch),
        }
    }

    /// See [`crate::io::forget_errors`]; a TAP has no such queue.
    pub fn forget_errors(&mut self, batch: &mut Batch) {
        if let Self::Raw(raw) = self {
            raw.forget_errors(batch);
        }
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tap(tap) => tap.as_fd(),
            Self::Raw(raw) => raw.as_fd(),
        }
    }
}

/// Gives frames to the port.
pub enum Sink {
    Tap(tap::Sink),
    Raw(raw::Sink),
}

impl Sink {
    pub fn new(port: Arc<Port>) -> Self {
        match port.kind {
            PortKind::Tap => Self::Tap(tap::Sink::new(port)),
            // A mirror's sink is never given a frame: its rules drop what is received.
            PortKind::Raw | PortKind::Mirror { .. } => Self::Raw(raw::Sink::new(port)),
        }
    }

    /// Gives away every frame of the batch, each of at least an Ethernet header.
    pub fn send(&mut self, batch: &Batch) {
        match self {
            Self::Tap(tap) => tap.send(batch),
            Self::Raw(raw) => raw.send(batch),
        }
    }
}

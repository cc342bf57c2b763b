//! How much is held of requests that are not whole yet, and whose turn it is to grow.
//!
//! Each stream may send what its window allows before anybody asks. What comes
//! after that needs credit, and credit is where a bound can be kept without
//! refusing anybody: beyond a limit it goes to the oldest only, who become
//! whole and make room for the next.

use super::stream::{Gone, Kind, Stream};
use super::{ServerConfig, ServerConnection, State};
use crate::grpc::{PREFIX, Violation, code};
use crate::refusals;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The largest flow-control window (RFC 9113, 6.9.1).
const MAX_WINDOW: usize = (1 << 31) - 1;

/// A request that holds no more is never refused for what others hold: one frame.
const SMALL: usize = 16 * 1024;

/// What one connection holds of requests that are not whole, and all of them.
#[derive(Debug)]
pub(crate) struct Arrivals {
    held: AtomicUsize,
    of_all: Arc<AtomicUsize>,
    turns: AtomicU64,
}

impl Arrivals {
    pub(crate) fn new(config: &ServerConfig) -> Arc<Self> {
        Arc::new(Self {
            held: AtomicUsize::new(0),
            of_all: Arc::clone(&config.incomplete),
            turns: AtomicU64::new(0),
        })
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// The part of one stream; it counts for as long as it lives.
#[derive(Debug)]
pub(crate) struct Holding {
    arrivals: Arc<Arrivals>,
    size: usize,
    /// Who began to hold first has the lowest. Not the stream's number: an old
    /// one that begins late must not take the turn of who is half way.
    turn: u64,
}

impl Holding {
    /// Brings `holding` to `size`, and makes or ends it where needed.
    pub(crate) fn note(holding: &mut Option<Self>, arrivals: &Arc<Arrivals>, size: usize) {
        match holding {
            _ if size == 0 => *holding = None,
            Some(holding) => holding.set(size),
            None => {
                let turn = arrivals.turns.fetch_add(1, Ordering::Relaxed);
                let mut new = Self {
                    arrivals: Arc::clone(arrivals),
                    size: 0,
                    turn,
                };
                new.set(size);
                *holding = Some(new);
            }
        }
    }

    /// Whether this one has to go, because all connections hold too much. Small
    /// requests are served all the same.
    pub(crate) fn is_too_much(&self, config: &ServerConfig) -> bool {
        self.size > SMALL
            && self.arrivals.of_all.load(Ordering::Relaxed) > config.limits.max_incomplete_of_all
    }

    fn set(&mut self, size: usize) {
        for counter in [&self.arrivals.held, &*self.arrivals.of_all] {
            // Wraps around where `size` is the smaller one, as the counter does.
            counter.fetch_add(size.wrapping_sub(self.size), Ordering::Relaxed);
        }
        self.size = size;
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// What a stream has to do with the limit.
#[derive(Default)]
pub(super) struct Share {
    /// What is held of a request that is not whole yet.
    pub(super) holding: Option<Holding>,
    /// Whether credit waits for its turn.
    pub(super) is_rationed: bool,
    /// Credit that waits for its turn.
    pub(super) kept: usize,
}

/// The refusal of a call for what all connections hold.
pub(crate) fn too_much() -> Violation {
    let why = "the server holds too many requests that are not whole";
    Violation::new(code::RESOURCE_EXHAUSTED, why)
}

impl Stream {
    /// Bytes that are held of what is not whole yet.
    fn incomplete(&self) -> usize {
        let message = self.message.as_ref().map_or(0, bytes::Bytes::len);
        let unframed = self.dialect.as_ref().map_or(0, |dialect| dialect.held());
        self.deframer.len() + self.body.len() + message + unframed
    }

    /// The most that it can come to.
    fn at_most(&self, config: &ServerConfig) -> usize {
        let limit = match (&self.kind, &config.http) {
            (Kind::Http { .. }, Some(http)) => http.max_body,
            _ => config.limits.max_message,
        };
        self.incomplete().max(match self.deframer.announced() {
            Some(size) => PREFIX + size.min(limit),
            None if self.message.is_some() => 0,
            None => PREFIX + limit,
        })
    }
}

impl ServerConnection {
    /// Bytes that are held of requests that are not whole yet.
    pub fn incomplete(&self) -> usize {
        self.arrivals.held()
    }

    /// Whether credit goes to the oldest only.
    fn is_scarce(&self) -> bool {
        self.arrivals.held() > self.config.limits.max_incomplete / 2
    }

    /// To be called before a stream is polled: what it would give back at once
    /// may have to wait for its turn.
    pub(super) fn prepare(&mut self, entry: &mut Stream) {
        entry.share.is_rationed = self.is_scarce();
        self.is_rationing |= entry.share.is_rationed;
    }

    /// To be called after a stream was polled.
    pub(super) fn note_arrival(&mut self, entry: &mut Stream) -> Result<(), Gone> {
        let size = entry.incomplete();
        Holding::note(&mut entry.share.holding, &self.arrivals, size);
        match &entry.share.holding {
            Some(holding) if holding.is_too_much(&self.config) && entry.is_refusable() => {
                self.config.refusals.count(refusals::MEMORY);
                Err(too_much().into())
            }
            _ => Ok(()),
        }
    }

    /// Gives the credit that was kept back to those whose turn it is. What is
    /// kept back from the others is added to the connection's window, which
    /// they would close otherwise. True if anybody got something.
    ///
    /// While credit is scarce, the turn is that of the oldest ones whose
    /// requests, when whole, take no more than the other half of the limit;
    /// of the oldest in any case, so that there is always one that goes on.
    /// Nobody loses a turn but by becoming whole, so that no more is ever held
    /// than the limit and one window for each stream.
    pub(super) fn ration(&mut self) -> bool {
        if !self.is_rationing {
            return false;
        }
        let mut room = usize::MAX;
        if self.is_scarce() {
            room = self.config.limits.max_incomplete / 2;
        }
        let mut queue: Vec<(u64, u32)> = Vec::new();
        let mut given = false;
        for (&stream, entry) in &mut self.streams {
            match &entry.share.holding {
                Some(holding) => queue.push((holding.turn, stream)),
                None => given |= entry.give_kept(),
            }
        }
        queue.sort_unstable();
        let oldest = queue.first().map(|(_, stream)| *stream);
        for (_, stream) in queue {
            let Some(entry) = self.streams.get_mut(&stream) else {
                continue;
            };
            let fits = room.checked_sub(entry.at_most(&self.config));
            if fits.is_none() && Some(stream) != oldest {
                break;
            }
            room = fits.unwrap_or(0);
            given |= entry.give_kept();
        }
        let kept = self
            .streams
            .values()
            .map(|entry| entry.share.kept)
            .sum::<usize>();
        self.is_rationing = kept > 0;
        self.widen(kept);
        given
    }

    /// Sets the connection's window to what it is without the bytes kept back.
    fn widen(&mut self, kept: usize) {
        if kept != self.widened
            && let State::Open(connection) = &mut self.state
        {
            self.widened = kept;
            let window = (self.config.limits.connection_window as usize + kept).min(MAX_WINDOW);
            connection.set_target_window_size(u32::try_from(window).unwrap_or(u32::MAX >> 1));
        }
    }
}

//! The sending half of one stream: what the application gave, until h2 takes it.

use crate::grpc::Framed;
use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

/// Queued bytes of a stream beyond which its sender has to wait.
pub(crate) const SEND_BUFFER: usize = 64 * 1024;

enum End {
    Data,
    Trailers(HeaderMap),
}

/// Sends DATA as flow control allows, then the end. h2's `send_data` buffers
/// without bound, so nothing is given to it that it has no capacity for.
pub(crate) struct Outbound {
    stream: SendStream<Bytes>,
    queue: VecDeque<Bytes>,
    queued: usize,
    end: Option<End>,
    done: bool,
    blocked: bool,
    /// Bytes that were given to h2.
    sent: u64,
    /// When `sent` was last seen to grow, and what it was.
    moved: Option<(Duration, u64)>,
}

impl Outbound {
    pub(crate) fn new(stream: SendStream<Bytes>) -> Self {
        Self {
            stream,
            queue: VecDeque::new(),
            queued: 0,
            end: None,
            done: false,
            blocked: false,
            sent: 0,
            moved: None,
        }
    }

    /// Queues DATA; false if the sender should wait for [`Self::take_writable`].
    pub(crate) fn push(
        &mut self,
        data: impl Into<Framed>,
        context: &mut Context<'_>,
    ) -> Result<bool, h2::Error> {
        let Framed { first, rest } = data.into();
        for piece in [first, rest] {
            if !piece.is_empty() {
                self.queued += piece.len();
                self.queue.push_back(piece);
            }
        }
        self.flush(context)?;
        self.blocked = self.queued > SEND_BUFFER;
        Ok(!self.blocked)
    }

    /// Ends the stream after what is queued.
    pub(crate) fn end(
        &mut self,
        trailers: Option<HeaderMap>,
        context: &mut Context<'_>,
    ) -> Result<(), h2::Error> {
        self.end = Some(trailers.map_or(End::Data, End::Trailers));
        self.flush(context)
    }

    /// A whole short answer at once: h2 buffers it, which one message bounds.
    pub(crate) fn send_whole(
        &mut self,
        data: impl Into<Framed>,
        trailers: Option<HeaderMap>,
        context: &mut Context<'_>,
    ) -> Result<(), h2::Error> {
        let data = data.into();
        if data.len() > SEND_BUFFER || !self.queue.is_empty() {
            self.push(data, context)?;
            return self.end(trailers, context);
        }
        self.done = true;
        let data = data.joined();
        match trailers {
            None => self.stream.send_data(data, true),
            Some(trailers) => {
                self.stream.send_data(data, false)?;
                self.stream.send_trailers(trailers)
            }
        }
    }

    /// [`Self::send_whole`] if the peer has room for it. If not it stays here,
    /// where [`Self::stalled`] sees it, and not in h2 for as long as the peer likes.
    pub(crate) fn answer(
        &mut self,
        data: impl Into<Framed>,
        trailers: Option<HeaderMap>,
        context: &mut Context<'_>,
    ) -> Result<(), h2::Error> {
        let data = data.into();
        let size = data.len();
        self.stream.reserve_capacity(size);
        if self.stream.capacity() >= size {
            return self.send_whole(data, trailers, context);
        }
        self.push(data, context)?;
        self.end(trailers, context)
    }

    /// Since when the peer takes nothing of what waits for it, as far as this
    /// was called often enough to tell.
    pub(crate) fn stalled(&mut self, now: Duration) -> Duration {
        match self.moved {
            Some((since, sent)) if sent == self.sent && !self.queue.is_empty() => {
                now.saturating_sub(since)
            }
            _ => {
                self.moved = Some((now, self.sent));
                Duration::ZERO
            }
        }
    }

    /// Gives h2 what it has capacity for. To be called whenever the stream wakes.
    pub(crate) fn flush(&mut self, context: &mut Context<'_>) -> Result<(), h2::Error> {
        while let Some(front) = self.queue.front_mut() {
            self.stream.reserve_capacity(self.queued.min(SEND_BUFFER));
            let capacity = self.stream.capacity();
            if capacity == 0 {
                match self.stream.poll_capacity(context) {
                    Poll::Ready(Some(Ok(_))) => continue,
                    Poll::Ready(Some(Err(error))) => return Err(error),
                    Poll::Ready(None) | Poll::Pending => return Ok(()),
                }
            }
            let data = front.split_to(capacity.min(front.len()));
            if front.is_empty() {
                self.queue.pop_front();
            }
            self.queued -= data.len();
            self.sent += data.len() as u64;
            self.stream.send_data(data, false)?;
        }
        match self.end.take() {
            Some(End::Data) => {
                self.done = true;
                self.stream.send_data(Bytes::new(), true)
            }
            Some(End::Trailers(trailers)) => {
                self.done = true;
                self.stream.send_trailers(trailers)
            }
            None => Ok(()),
        }
    }

    /// True once after a refused [`Self::push`], when there is room again.
    pub(crate) fn take_writable(&mut self) -> bool {
        let writable = self.blocked && self.queued <= SEND_BUFFER / 2;
        self.blocked &= !writable;
        writable
    }

    /// Whether the end was handed to h2.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    pub(crate) fn reset(&mut self, reason: Reason) {
        self.done = true;
        self.queue.clear();
        self.stream.send_reset(reason);
    }

    pub(crate) fn poll_reset(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Reason, h2::Error>> {
        self.stream.poll_reset(context)
    }
}

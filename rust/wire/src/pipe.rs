//! The in-memory socket that the `h2` crate believes it talks to, and the list
//! on which its wakers leave the streams that can make progress.

use crate::guard::{Flood, Guard};
use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// h2's allowance for small DATA frames. It guards a buffer that we empty at
/// once, and what it takes for frames of reset streams it never gives back: any
/// connection on which streams are cancelled often enough would end by it.
pub(crate) const DATA_FRAME_BUDGET: usize = usize::MAX;

/// Output that waits for the socket: beyond this h2 keeps frames to itself, so
/// that its own per-stream bounds hold.
pub(crate) const OUTPUT_LIMIT: usize = 256 * 1024;

/// Unread input beyond which the caller should stop reading from its socket.
pub(crate) const INPUT_LIMIT: usize = 256 * 1024;

/// Buffers that grew beyond this are given back when they run empty, so that
/// an idle connection costs little.
const KEEP: usize = 4 * 1024;

struct Buffers {
    guard: Guard,
    /// Input that was given away, before `input`.
    given: Bytes,
    input: BytesMut,
    output: BytesMut,
    /// How much there was to send the last time.
    drained: usize,
    eof: bool,
}

impl Buffers {
    fn backlog(&self) -> usize {
        self.given.len() + self.input.len()
    }
}

/// One end is given to h2, the other is kept; both are this type.
#[derive(Clone)]
pub(crate) struct Pipe(Arc<Mutex<Buffers>>);

impl Pipe {
    pub(crate) fn new(guard: Guard) -> Self {
        Self(Arc::new(Mutex::new(Buffers {
            guard,
            given: Bytes::new(),
            input: BytesMut::new(),
            output: BytesMut::new(),
            drained: 0,
            eof: false,
        })))
    }

    pub(crate) fn feed(&self, data: &[u8], now: Duration, has_calls: bool) {
        let mut buffers = self.0.lock();
        buffers.guard.set_now(now, has_calls);
        buffers.input.extend_from_slice(data);
    }

    /// As [`Self::feed`], without copying if nothing waits.
    pub(crate) fn feed_bytes(&self, data: Bytes, now: Duration, has_calls: bool) {
        let mut buffers = self.0.lock();
        buffers.guard.set_now(now, has_calls);
        if buffers.backlog() == 0 {
            buffers.given = data;
        } else {
            buffers.input.extend_from_slice(&data);
        }
    }

    pub(crate) fn feed_eof(&self) {
        self.0.lock().eof = true;
    }

    pub(crate) fn has_eof(&self) -> bool {
        self.0.lock().eof
    }

    pub(crate) fn backlog(&self) -> usize {
        self.0.lock().backlog()
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.0.lock().output.is_empty()
    }

    /// To be called when h2 has had its turn and what it has delivered was
    /// handled, with the messages that were complete: true if h2 may have more now.
    pub(crate) fn resume(&self, messages: u32) -> Result<bool, Flood> {
        let guard = &mut self.0.lock().guard;
        guard
            .flood()
            .map_or_else(|| Ok(guard.resume(messages)), Err)
    }

    /// Whether the peer has begun a header block and does not end it.
    pub(crate) fn is_stuck_in_headers(&self, now: Duration) -> bool {
        self.0.lock().guard.is_stuck_in_headers(now)
    }

    /// Whether the peer has sent a reset that was not told of yet.
    pub(crate) fn take_reset_seen(&self) -> bool {
        self.0.lock().guard.take_reset_seen()
    }

    /// Looks through the pending output, which [`Self::drain`] has to follow:
    /// resets in it that blame the peer.
    pub(crate) fn inspect_output(&self) -> u32 {
        let Buffers { guard, output, .. } = &mut *self.0.lock();
        guard.sent(output);
        guard.take_resets_made()
    }

    /// Adds the frame that ends the connection. h2 writes whole frames, and this
    /// is the last.
    pub(crate) fn end_by(&self, flood: Flood) {
        let Buffers { guard, output, .. } = &mut *self.0.lock();
        output.extend_from_slice(&flood.goaway(guard.last_stream()));
    }

    /// Shows the pending output to `take` and forgets it; `None` if there is none.
    pub(crate) fn drain<R>(&self, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let mut buffers = self.0.lock();
        if buffers.output.is_empty() {
            return None;
        }
        let result = take(&buffers.output);
        buffers.drained = buffers.output.len();
        if buffers.output.capacity() > KEEP {
            buffers.output = BytesMut::new();
        } else {
            buffers.output.clear();
        }
        Some(result)
    }
}

/// Where large frames are written, more of them follow, as many as the last time: fewer bytes are
/// moved than by doubling.
fn make_room(output: &mut BytesMut, size: usize, last: usize) {
    if size > KEEP && output.capacity() - output.len() < size {
        let likely = (8 * (output.len() + size)).min(OUTPUT_LIMIT);
        output.reserve(size.max(likely).max(last.saturating_sub(output.len())));
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffers = self.0.lock();
        let Buffers {
            guard,
            given,
            input,
            eof,
            ..
        } = &mut *buffers;
        let next: &[u8] = if given.is_empty() { input } else { given };
        let size = next.len().min(into.remaining());
        let size = guard.admit(&next[..size]);
        if size == 0 {
            return if *eof && next.is_empty() {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
        }
        into.put_slice(&next[..size]);
        if given.is_empty() {
            input.advance(size);
            if input.is_empty() {
                *input = BytesMut::new();
            }
        } else {
            given.advance(size);
            if given.is_empty() {
                *given = Bytes::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffers = self.0.lock();
        if buffers.output.len() >= OUTPUT_LIMIT {
            return Poll::Pending;
        }
        buffers.output.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut buffers = self.0.lock();
        if buffers.output.len() >= OUTPUT_LIMIT {
            return Poll::Pending;
        }
        let size = slices.iter().map(|slice| slice.len()).sum();
        let last = buffers.drained;
        make_room(&mut buffers.output, size, last);
        for slice in slices {
            buffers.output.extend_from_slice(slice);
        }
        Poll::Ready(Ok(size))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Streams whose wakers fired since the last look.
#[derive(Default)]
pub(crate) struct ReadyList(Mutex<Vec<u32>>);

impl ReadyList {
    /// Moves the ready streams into `into`, which must be empty; false if there are none.
    pub(crate) fn take(&self, into: &mut Vec<u32>) -> bool {
        std::mem::swap(&mut *self.0.lock(), into);
        !into.is_empty()
    }
}

/// Wakes by putting a stream's id on the ready list, at most once until it is looked at.
pub(crate) struct StreamWaker {
    stream: u32,
    queued: AtomicBool,
    list: Arc<ReadyList>,
}

impl StreamWaker {
    pub(crate) fn new(stream: u32, list: &Arc<ReadyList>) -> (Arc<Self>, Waker) {
        let this = Arc::new(Self {
            stream,
            queued: AtomicBool::new(false),
            list: Arc::clone(list),
        });
        let waker = Waker::from(Arc::clone(&this));
        (this, waker)
    }

    /// To be called before the stream is polled: a wake from now on counts again.
    pub(crate) fn rearm(&self) {
        self.queued.store(false, Ordering::Relaxed);
    }
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.list.0.lock().push(self.stream);
        }
    }
}

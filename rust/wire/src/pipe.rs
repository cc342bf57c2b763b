//! The in-memory socket that the `h2` crate believes it talks to, and the list
//! on which its wakers leave the streams that can make progress.

use bytes::BytesMut;
use parking_lot::Mutex;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
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

#[derive(Default)]
struct Buffers {
    input: BytesMut,
    output: BytesMut,
    eof: bool,
}

/// One end is given to h2, the other is kept; both are this type.
#[derive(Clone, Default)]
pub(crate) struct Pipe(Arc<Mutex<Buffers>>);

impl Pipe {
    pub(crate) fn feed(&self, data: &[u8]) {
        self.0.lock().input.extend_from_slice(data);
    }

    pub(crate) fn feed_eof(&self) {
        self.0.lock().eof = true;
    }

    pub(crate) fn has_eof(&self) -> bool {
        self.0.lock().eof
    }

    pub(crate) fn backlog(&self) -> usize {
        self.0.lock().input.len()
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.0.lock().output.is_empty()
    }

    /// Shows the pending output to `take` and forgets it; `None` if there is none.
    pub(crate) fn drain<R>(&self, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let mut buffers = self.0.lock();
        if buffers.output.is_empty() {
            return None;
        }
        let result = take(&buffers.output);
        if buffers.output.capacity() > KEEP {
            buffers.output = BytesMut::new();
        } else {
            buffers.output.clear();
        }
        Some(result)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffers = self.0.lock();
        if buffers.input.is_empty() {
            return if buffers.eof {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
        }
        let size = buffers.input.len().min(into.remaining());
        into.put_slice(&buffers.input.split_to(size));
        if buffers.input.is_empty() {
            buffers.input = BytesMut::new();
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
        let mut written = 0;
        for slice in slices {
            buffers.output.extend_from_slice(slice);
            written += slice.len();
        }
        Poll::Ready(Ok(written))
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

//! A connection that does not wait for ever: neither for a request that is begun and never ended, nor for a client that does not
//! take its answer. hyper ends connections that are idle, but gives a request's first line as long as an idle connection.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::room::Progress;

/// How an answer learns that what it has handed over has left this process. In the request's extensions.
#[derive(Clone, Debug)]
pub struct Flushes(pub(super) Arc<Progress>);

impl Flushes {
    /// Returns when everything written before the call, and perhaps more, has been flushed.
    pub async fn next(&self) {
        let mut flushed = self.0.flushed.subscribe();
        // the sender lives as long as `self`
        let _ = flushed.changed().await;
    }
}

/// A stream with its limits.
pub struct Watched<S> {
    inner: S,
    progress: Arc<Progress>,
    /// For the head of a request, from its first byte; of the first one from the beginning of the connection.
    head: Duration,
    /// For the client to take something of its answer.
    write: Duration,
    /// When the head that is being read must be there, and where the connection stood when it began.
    reading: Option<(u64, Pin<Box<Sleep>>)>,
    writing: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    pub fn new(inner: S, progress: Arc<Progress>, head: Duration, write: Duration) -> Self {
        let reading = Some((progress.now(), Box::pin(sleep(head))));
        Self { inner, progress, head, write, reading, writing: None }
    }

    /// Whether the head of a request takes too long.
    fn is_late(&mut self, cx: &mut Context<'_>, came: bool) -> bool {
        let now = self.progress.now();
        if self.reading.as_ref().is_some_and(|(begun, _)| *begun != now) {
            self.reading = None;
        }
        if self.reading.is_none() && came && now.is_multiple_of(2) {
            self.reading = Some((now, Box::pin(sleep(self.head))));
        }
        match &mut self.reading {
            // bytes that trickle in keep the timer from being asked
            Some((_, due)) if came => due.deadline() <= Instant::now(),
            Some((_, due)) => due.as_mut().poll(cx).is_ready(),
            None => false,
        }
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.writing = None;
            return poll;
        }
        let due = self.writing.get_or_insert_with(|| Box::pin(sleep(self.write)));
        match due.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(too_slow("the client does not take its answer"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn too_slow(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        let came = buf.filled().len() - before;
        // an error or the end of the stream is told as it is
        if (poll.is_pending() || came > 0) && self.is_late(cx, came > 0) {
            return Poll::Ready(Err(too_slow("the head of the request did not come in time")));
        }
        // of a body whoever reads it learns, and can say so
        if !self.progress.read(came) && self.progress.now().is_multiple_of(2) {
            return Poll::Ready(Err(io::Error::other("too much is being read for the head of another large request")));
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.written(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        if matches!(poll, Poll::Ready(Ok(()))) {
            self.progress.flushed.send_replace(());
        }
        self.written(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.written(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.written(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

//! How much is taken on, and how long the peer is waited for.

use super::stream::{Kind, Phase, Sending, refuse_grpc};
use super::{ServerConfig, ServerConnection, State};
use crate::grpc::{Violation, code};
use crate::guard::Flood;
use crate::message::Problem;
use crate::refusals;
use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use std::sync::atomic::Ordering;

/// There is always room for it: a server that answers this one only while it is idle is taken for
/// dead when it is needed most, and what asks is what restarts it.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

impl ServerConfig {
    /// Counts a call, if there is room for one.
    pub(crate) fn claim_call(&self, path: &str) -> bool {
        self.limits.max_calls.is_none_or(|most| {
            let has_room = |calls| calls < most || path == HEALTH_CHECK;
            let more = |calls| has_room(calls).then_some(calls + 1);
            self.calls
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
                .is_ok()
        })
    }

    /// Counts that many less.
    pub(crate) fn release_calls(&self, count: u32) {
        if self.limits.max_calls.is_some() {
            self.calls.fetch_sub(count as usize, Ordering::Relaxed);
        }
    }
}

impl ServerConfig {
    /// Counts a call that is refused for what its head says.
    pub(crate) fn count_bad_head(&self, path: &str) {
        let table = self.grpc.as_ref();
        let is_known = table.is_some_and(|table| table.find(path).is_some());
        self.refusals.count(if is_known {
            refusals::MALFORMED
        } else {
            refusals::UNKNOWN_METHOD
        });
    }
}

impl Kind {
    /// Counts a request that is none of what is served; a browser's question what it may send is
    /// answered, not refused.
    pub(super) fn count_refused(&self, config: &ServerConfig) {
        if let Self::Refused { answer, .. } = self
            && !answer.status.is_success()
        {
            config.refusals.count(refusals::MALFORMED);
        }
    }
}

impl ServerConnection {
    /// Whether another stream would be one too many.
    pub(super) fn is_full(&self) -> bool {
        let most = self.config.limits.max_streams as usize;
        self.live as usize >= most || self.streams.len() >= 2 * most
    }

    /// Refuses a call for what its head says.
    pub(super) fn refuse_head(
        &self,
        path: &str,
        violation: &Violation,
        respond: SendResponse<Bytes>,
    ) {
        self.config.count_bad_head(path);
        refuse_grpc(violation, respond);
    }

    /// Such a stream is counted where its reset is sent, as all that the peer has
    /// provoked, but if it is reset already: then none is sent.
    pub(super) fn refuse_stream(&mut self, mut respond: SendResponse<Bytes>) {
        self.config.refusals.count(refusals::STREAMS);
        if self.pipe.take_reset_seen() {
            self.count_reset();
        }
        respond.send_reset(Reason::REFUSED_STREAM);
    }

    /// Counts a call, if there is room for one among those of all connections.
    pub(super) fn begin_call(&mut self, kind: &Kind) -> bool {
        kind.count_refused(&self.config);
        let path = match kind {
            Kind::Grpc { method, .. } => method.path(),
            Kind::Http { .. } | Kind::Refused { .. } => "",
        };
        let claimed = self.config.claim_call(path);
        self.live += u32::from(claimed);
        if !claimed {
            self.config.refusals.count(refusals::OVERLOADED);
        }
        claimed
    }

    /// The handler of a call that was reported as [`ServerEvent::Reset`] has ended.
    pub fn handler_ended(&mut self, _stream: u32) {
        if self.live > 0 {
            self.live -= 1;
            self.config.release_calls(1);
        }
        self.since = self.now;
    }

    /// Each reset has made us work for nothing: beyond a rate, the peer is cut off.
    pub(super) fn count_reset(&mut self) {
        if !self.resets.take(self.now) {
            self.flood = Some(Flood::RESETS);
        }
    }

    pub(super) fn end_by(&mut self, flood: Flood) {
        if !matches!(self.state, State::Closed) {
            self.config.refusals.count_flood(flood.of);
            self.pipe.end_by(flood);
            self.close(Some(flood.to_string()));
        }
    }

    /// Ends requests that take too long to arrive, or to be skipped.
    pub(super) fn expire_requests(&mut self) {
        let now = self.now;
        let late: Vec<u32> = self
            .streams
            .iter()
            .filter(|(_, entry)| entry.phase == Phase::Arriving || entry.is_skipping())
            .filter(|(_, entry)| entry.arrives_until < now)
            .map(|(stream, _)| *stream)
            .collect();
        for stream in late {
            let Some(mut entry) = self.streams.remove(&stream) else {
                continue;
            };
            match (entry.phase, &entry.kind) {
                (Phase::Arriving, Kind::Grpc { .. }) => {
                    let why = "the request took too long to arrive";
                    let violation = Violation::new(code::DEADLINE_EXCEEDED, why);
                    self.refuse(stream, entry, &violation);
                    continue;
                }
                (Phase::Arriving, Kind::Refused { .. }) => self.answer_refused(stream, &mut entry),
                (Phase::Arriving, Kind::Http { .. }) => {
                    self.deliver_http(stream, &mut entry, Some(Problem::Timeout));
                }
                _ => entry.stop_receiving(),
            }
            self.streams.insert(stream, entry);
            self.progress(stream);
        }
    }

    /// Ends answers that the peer does not take, and streams on which nothing happens.
    pub(super) fn expire_streams(&mut self) {
        let (now, limits) = (self.now, &self.config.limits);
        let (mut blocked, mut idle) = (Vec::new(), Vec::new());
        for (&stream, entry) in &mut self.streams {
            if let Sending::Body(body) = &mut entry.sending
                && body.stalled(now) > limits.blocked_timeout
            {
                blocked.push(stream);
            } else if entry.phase == Phase::Handled
                && entry.receiving.is_some()
                && matches!(entry.kind, Kind::Grpc { .. })
                && now.saturating_sub(entry.active_at) > limits.stream_idle_timeout
            {
                idle.push(stream);
            }
        }
        for stream in blocked {
            if let Some(mut entry) = self.streams.remove(&stream) {
                entry.reset(Reason::CANCEL);
                self.give_up(stream, &entry, code::CANCELLED);
            }
        }
        for stream in idle {
            if let Some(entry) = self.streams.remove(&stream) {
                let why = "nothing came or went for too long";
                self.refuse(stream, entry, &Violation::new(code::DEADLINE_EXCEEDED, why));
            }
        }
    }
}

impl Drop for ServerConnection {
    fn drop(&mut self) {
        self.config.release_calls(self.live);
    }
}

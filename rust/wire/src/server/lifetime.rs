//! How a connection ends by its age, and how a dead client is found.

use super::{ServerConnection, State};
use crate::keepalive::{AgeLimits, Care, Keepalive, ping};
use h2::{PingPong, Reason};
use std::time::Duration;

/// When a connection is to end, and whether its peer lives.
pub(super) struct Lifetime {
    retires_at: Option<Duration>,
    cut_at: Option<Duration>,
    keepalive: Option<Keepalive>,
    pings: Option<PingPong>,
}

impl Lifetime {
    pub(super) fn new(config: &super::ServerConfig, now: Duration) -> Self {
        let age = config.age.as_ref().map(AgeLimits::next);
        Self {
            retires_at: age.map(|age| now.saturating_add(age)),
            cut_at: None,
            keepalive: config.keepalive.map(|each| Keepalive::new(each, now)),
            pings: None,
        }
    }

    pub(super) fn heard(&mut self, now: Duration) {
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.heard(now);
        }
    }
}

impl ServerConnection {
    /// Ends a connection that is old, and pings or ends one that is quiet.
    pub(super) fn check_lifetime(&mut self) {
        let now = self.now;
        let has_calls = self.in_flight() > 0;
        let State::Open(connection) = &mut self.state else {
            return;
        };
        if self.lifetime.retires_at.is_some_and(|at| at <= now) {
            self.lifetime.retires_at = None;
            let grace = self.config.age.as_ref().map(|age| age.grace);
            self.lifetime.cut_at = grace.map(|grace| now.saturating_add(grace));
            connection.graceful_shutdown();
        }
        if self.lifetime.cut_at.is_some_and(|at| at <= now) {
            self.lifetime.cut_at = None;
            connection.abrupt_shutdown(Reason::NO_ERROR);
        }
        let Some(keepalive) = &mut self.lifetime.keepalive else {
            return;
        };
        match keepalive.look(now, has_calls) {
            Care::Wait => {}
            Care::Ping => {
                let pings = &mut self.lifetime.pings;
                if pings.is_none() {
                    *pings = connection.ping_pong();
                }
                ping(pings.as_mut());
            }
            Care::Close => {
                let error = keepalive.gave_up();
                self.close(Some(error));
            }
        }
    }

    /// A stream began. Their numbers end: a client has to go on elsewhere before.
    pub(super) fn note_stream(&mut self, stream: u32) {
        self.since = self.now;
        if stream >= self.config.limits.last_stream {
            self.shutdown();
        }
    }
}

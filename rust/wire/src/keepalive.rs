//! Pings that find a dead peer, a limit to the peer's own, and the age of connections.
//!
//! Source: gRFC A8 (client-side keepalive) and A9 (server-side connection management).

use h2::{Ping, PingPong};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

/// When to ping a quiet peer.
#[derive(Clone, Copy, Debug)]
pub struct KeepaliveSettings {
    /// Nothing has come for so long: ping.
    pub time: Duration,
    /// Nothing has come for so long after a ping: the peer is dead.
    pub timeout: Duration,
    /// Whether to ping while there are no calls.
    pub without_calls: bool,
}

/// What to do about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    Wait,
    Ping,
    Close,
}

/// Watches over one peer. Whatever comes from it is a sign of life.
#[derive(Debug)]
pub(crate) struct Keepalive {
    settings: KeepaliveSettings,
    /// When something came, or when there was nothing to ping for.
    quiet_since: Duration,
    pinged: Option<Duration>,
}

impl Keepalive {
    pub(crate) fn new(settings: KeepaliveSettings, now: Duration) -> Self {
        Self {
            settings,
            quiet_since: now,
            pinged: None,
        }
    }

    /// Why the connection was closed.
    pub(crate) fn gave_up(&self) -> String {
        format!("no answer to a ping within {:?}", self.settings.timeout)
    }

    /// Something came.
    pub(crate) fn heard(&mut self, now: Duration) {
        self.quiet_since = now;
        self.pinged = None;
    }

    /// When to `look` again, whatever comes until then.
    pub(crate) fn due(&self, now: Duration) -> Duration {
        // An answer brings the next ping, before this one has timed out.
        let after_answer = self.pinged.map(|at| at.saturating_add(self.settings.time));
        match after_answer {
            Some(next) if next > now => self.limit().min(next),
            _ => self.limit(),
        }
    }

    /// Until then, something has to come.
    fn limit(&self) -> Duration {
        match self.pinged {
            None => self.quiet_since.saturating_add(self.settings.time),
            Some(since) => since.saturating_add(self.settings.timeout),
        }
    }

    pub(crate) fn look(&mut self, now: Duration, has_calls: bool) -> Care {
        if now < self.limit() {
            Care::Wait
        } else if self.pinged.is_some() {
            Care::Close
        } else if has_calls || self.settings.without_calls {
            self.pinged = Some(now);
            Care::Ping
        } else {
            self.quiet_since = now;
            Care::Wait
        }
    }
}

/// Sends a ping, unless the answer to one is still under way, which does as well.
pub(crate) fn ping(pings: Option<&mut PingPong>) {
    if let Some(pings) = pings {
        let _ = pings.poll_pong(&mut Context::from_waker(Waker::noop()));
        let _ = pings.send_ping(Ping::opaque());
    }
}

/// How often a client may ping.
#[derive(Clone, Copy, Debug)]
pub struct PingLimits {
    /// The least time between two pings.
    pub min_interval: Duration,
    /// Whether that holds without calls too; otherwise it is then two hours.
    pub without_calls: bool,
}

impl Default for PingLimits {
    fn default() -> Self {
        Self {
            min_interval: Duration::from_secs(300),
            without_calls: false,
        }
    }
}

/// The least time between two pings of a client that has no calls, unless
/// these are allowed: TCP's own keepalive is as slow.
const WITHOUT_CALLS: Duration = Duration::from_secs(7200);

/// Pings that come too early, before the one that ends the connection.
const STRIKES: u32 = 2;

/// What ends a connection says this, so that the client waits longer from then on.
pub(crate) const TOO_MANY_PINGS: &str = "too_many_pings";

/// Counts the pings of one client. HEADERS and DATA that it is sent make it
/// innocent again: implementations measure the path when these come.
#[derive(Debug)]
pub(crate) struct PingCount {
    limits: PingLimits,
    has_calls: bool,
    last: Option<Duration>,
    strikes: u32,
}

impl PingCount {
    pub(crate) fn new(limits: PingLimits) -> Self {
        Self {
            limits,
            has_calls: false,
            last: None,
            strikes: 0,
        }
    }

    /// Whether the client has calls.
    pub(crate) fn set_busy(&mut self, has_calls: bool) {
        self.has_calls = has_calls;
    }

    /// The client was sent something.
    pub(crate) fn forgive(&mut self) {
        self.last = None;
        self.strikes = 0;
    }

    /// A ping came. False if it is one too many.
    pub(crate) fn allow(&mut self, now: Duration) -> bool {
        let interval = if self.has_calls || self.limits.without_calls {
            self.limits.min_interval
        } else {
            WITHOUT_CALLS
        };
        let early = self
            .last
            .is_some_and(|last| now.saturating_sub(last) < interval);
        self.last = Some(now);
        self.strikes += u32::from(early);
        self.strikes <= STRIKES
    }
}

/// When connections end for their age, so that clients find new servers.
#[derive(Clone, Debug)]
pub struct AgeLimits {
    /// A connection takes no new calls from this age on, give or take a tenth.
    pub max_age: Duration,
    /// Its calls have so long to end.
    pub grace: Duration,
    /// Connections so far, for [`Self::next`].
    pub made: Arc<AtomicU32>,
}

impl AgeLimits {
    /// The age of one more connection: those made together must not end
    /// together. Multiples of the golden ratio spread evenly however many they are.
    pub(crate) fn next(&self) -> Duration {
        const GOLDEN: u32 = 0x9E37_79B9;
        let place = self.made.fetch_add(1, Ordering::Relaxed);
        let share = f64::from(place.wrapping_mul(GOLDEN)) / f64::from(u32::MAX);
        self.max_age
            .saturating_sub(self.max_age / 10)
            .saturating_add((self.max_age / 5).mul_f64(share))
    }
}

/// Here 3/4 of the stream ids are used up: the connection should be replaced.
pub const LAST_STREAM: u32 = (1 << 31) / 4 * 3;

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn watch(without_calls: bool) -> Keepalive {
        let settings = KeepaliveSettings {
            time: s(10),
            timeout: s(3),
            without_calls,
        };
        Keepalive::new(settings, s(100))
    }

    #[test]
    fn a_quiet_peer_is_pinged_and_given_up() {
        let mut watch = watch(false);
        assert_eq!(watch.due(s(100)), s(110));
        assert_eq!(watch.look(s(109), true), Care::Wait);
        assert_eq!(watch.look(s(110), true), Care::Ping);
        assert_eq!(watch.due(s(110)), s(113));
        assert_eq!(watch.look(s(112), true), Care::Wait);
        assert_eq!(watch.look(s(113), true), Care::Close);
    }

    #[test]
    fn an_answer_to_a_ping_brings_the_next_one_in_time() {
        let settings = KeepaliveSettings {
            time: s(1),
            timeout: s(20),
            without_calls: true,
        };
        let mut watch = Keepalive::new(settings, s(0));
        let mut pings = Vec::new();
        let mut now = s(0);
        while now < s(5) {
            now = watch.due(now);
            if watch.look(now, true) == Care::Ping {
                pings.push(now);
                watch.heard(now);
            }
        }
        assert_eq!(pings, [s(1), s(2), s(3), s(4), s(5)]);
        now = watch.due(now);
        assert_eq!(watch.look(now, true), Care::Ping);
        while watch.look(now, true) == Care::Wait {
            assert!(watch.due(now) > now, "time goes on");
            now = watch.due(now);
        }
        assert_eq!(now, s(26));
    }

    #[test]
    fn whatever_comes_is_a_sign_of_life() {
        let mut watch = watch(false);
        watch.heard(s(105));
        assert_eq!(watch.look(s(114), true), Care::Wait);
        assert_eq!(watch.look(s(115), true), Care::Ping);
        watch.heard(s(115));
        assert_eq!(watch.look(s(124), true), Care::Wait);
        assert_eq!(watch.look(s(125), true), Care::Ping);
    }

    #[test]
    fn without_calls_there_is_no_ping_unless_allowed() {
        let mut quiet = watch(false);
        assert_eq!(quiet.look(s(110), false), Care::Wait);
        assert_eq!(quiet.due(s(110)), s(120));
        assert_eq!(quiet.look(s(120), true), Care::Ping);
        assert_eq!(watch(true).look(s(110), false), Care::Ping);
    }

    #[test]
    fn the_third_early_ping_is_one_too_many() {
        let mut count = PingCount::new(PingLimits::default());
        count.set_busy(true);
        let mut at = s(0);
        for _ in 0..100 {
            assert!(count.allow(at));
            at += s(300);
        }
        for (early, allowed) in [(1, true), (2, true), (3, false)] {
            assert_eq!(count.allow(s(99 * 300 + early)), allowed);
        }
    }

    #[test]
    fn what_a_client_is_sent_makes_it_innocent() {
        let mut count = PingCount::new(PingLimits::default());
        count.set_busy(true);
        for at in 0..100 {
            assert!(count.allow(s(at)));
            if at % 3 == 2 {
                count.forgive();
            }
        }
    }

    #[test]
    fn a_client_without_calls_may_ping_every_two_hours() {
        let mut strict = PingCount::new(PingLimits::default());
        let mut open = PingCount::new(PingLimits {
            without_calls: true,
            ..PingLimits::default()
        });
        let allowed = |count: &mut PingCount, step: u64| {
            (0..10).filter(|at| count.allow(s(at * step))).count()
        };
        assert_eq!(allowed(&mut strict, 300), 3);
        assert_eq!(allowed(&mut open, 300), 10);
        let mut strict = PingCount::new(PingLimits::default());
        assert_eq!(allowed(&mut strict, 7200), 10);
    }

    #[test]
    fn ages_spread_over_a_fifth() {
        let limits = AgeLimits {
            max_age: s(1000),
            grace: s(1),
            made: Arc::default(),
        };
        let mut ages: Vec<_> = (0..100).map(|_| limits.next()).collect();
        ages.sort();
        assert!(ages[0] >= s(900) && ages[99] <= s(1100));
        let gap = ages.windows(2).all(|two| two[1] <= two[0] + s(5));
        assert!(gap);
    }
}

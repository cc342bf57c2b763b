//! Bounds on what a peer makes us do for nothing, told from the heads of its frames.
//!
//! Every frame of HTTP/2 is cheap to send and costs its receiver something, so
//! each kind has been used for a flood: CVE-2019-9511 to 9518 (pings, settings,
//! resets, empty frames, tiny data), VU#421644 (CONTINUATION), CVE-2023-44487
//! (rapid reset), CVE-2025-8671 (resets that the peer provokes). h2 answers some
//! of them. The guard stands in front of it and counts all: a frame that useful
//! traffic explains is paid by that traffic, as each message sent to a peer may
//! bring two updates of a window back; any other comes out of a bucket of *glitches*
//! (the word of nginx and nghttp2 for them) that refills with time.
//!
//! It reads nine bytes of each frame, keeps none of the rest, and comes to the
//! same result however the bytes are split.

mod bucket;
mod scanner;

use crate::keepalive::{PingCount, PingLimits};
pub(crate) use bucket::Bucket;
pub use bucket::Rate;
use h2::Reason;
use scanner::{Head, Scanner};
use std::time::Duration;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const PRIORITY: u8 = 2;
const CONTINUATION: u8 = 9;

/// Both `END_STREAM` and ACK (RFC 9113, 6).
const END: u8 = 1;
const END_HEADERS: u8 = 4;

/// RFC 9113, 3.4: what a client sends before its first frame.
const PREFACE: usize = 24;

/// DATA with less content than this costs as much as it lacks; more earns.
const SMALL: usize = 256;

/// What a message earns: a framing prefix and a body may come in a small frame each.
const EARNED_BY_MESSAGE: usize = 2 * SMALL;

/// What a DATA frame that we send explains: an update of either window, and a
/// ping that measures the bandwidth, as grpc-go and gRPC's core send them.
const EARNED_BY_DATA: u32 = 3;

/// What a stream explains: two HEADERS, an update of its window, a priority, a reset.
const EARNED_BY_STREAM: u32 = 5;

/// What a reset of ours explains: small messages that crossed it, which will earn nothing.
const STRAY_AFTER_RESET: u32 = 100;

/// As many frames may answer what was sent long ago: the small messages that
/// fit in a window, twice.
const EARNED_AT_MOST: u32 = 65_536;

/// What a peer may do for nothing before its connection ends by
/// `GOAWAY(ENHANCE_YOUR_CALM)`.
#[derive(Clone, Debug)]
pub struct FloodLimits {
    /// CONTINUATION frames in one header block.
    pub continuations: u32,
    /// Empty ones among them.
    pub empty_continuations: u32,
    /// Bytes of one header block, encoded; `None` is four times the largest header list.
    pub header_block: Option<usize>,
    /// From the first byte of a header block to its last.
    pub header_timeout: Duration,
    /// Entries of one SETTINGS frame.
    pub settings_entries: usize,
    /// DATA without content or HEADERS without a field, one after the other.
    pub empty_frames: u32,
    /// What small DATA frames may lack to 256 bytes each, in all, beyond what
    /// whole messages and larger frames earn. Beyond it each is a glitch.
    pub small_data: usize,
    /// PING, SETTINGS, PRIORITY, `WINDOW_UPDATE`, `RST_STREAM` and unknown frames
    /// that no other traffic explains.
    pub glitches: Rate,
    /// Streams that the peer resets before they are answered, or makes us reset.
    pub resets: Rate,
}

impl Default for FloodLimits {
    fn default() -> Self {
        Self {
            continuations: 8,
            empty_continuations: 1,
            header_block: None,
            header_timeout: Duration::from_secs(10),
            settings_entries: 32,
            empty_frames: 10,
            small_data: 25_600,
            glitches: Rate {
                burst: 1000,
                per_second: 100,
            },
            resets: Rate {
                burst: 200,
                per_second: 33,
            },
        }
    }
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flood {
    /// What there was too much of.
    pub(crate) of: &'static str,
}

impl Flood {
    pub(crate) const REASON: Reason = Reason::ENHANCE_YOUR_CALM;

    pub(crate) const RESETS: Self = Self { of: "resets" };

    pub(crate) const HEADERS: Self = Self {
        of: "seconds for its headers",
    };

    const PINGS: Self = Self { of: "pings" };

    /// The frame that ends the connection (RFC 9113, 6.8). What it says of pings
    /// is gRFC A8's, and the other floods are named likewise.
    pub(crate) fn goaway(self, last_stream: u32) -> Vec<u8> {
        let debug = format!("too_many_{}", self.of.replace(' ', "_"));
        let length = u32::try_from(8 + debug.len()).unwrap_or(8).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], 7, 0, 0, 0, 0, 0];
        frame.extend_from_slice(&last_stream.to_be_bytes());
        frame.extend_from_slice(&u32::from(Self::REASON).to_be_bytes());
        frame.extend_from_slice(debug.as_bytes());
        frame
    }
}

impl std::fmt::Display for Flood {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "the peer sent too many {}", self.of)
    }
}

enum Verdict {
    Pass,
    /// First let h2 handle what came before: it may earn enough.
    Wait,
    End(Flood),
}

/// A header block that has begun and not ended.
#[derive(Clone, Copy)]
struct Block {
    since: Duration,
    size: usize,
    continuations: u32,
    empty: u32,
    /// Its last frame has begun.
    ends: bool,
}

/// Watches the frames of one connection, both ways.
pub(crate) struct Guard {
    limits: FloodLimits,
    header_block: usize,
    is_server: bool,
    input: Scanner,
    output: Scanner,
    now: Duration,
    /// Frames without content that useful traffic has explained in advance.
    earned: u32,
    /// What small frames may still lack.
    small: usize,
    glitches: Bucket,
    pings: Option<PingCount>,
    /// Small DATA frames for streams that we have ended.
    stray: u32,
    empty_frames: u32,
    block: Option<Block>,
    last_stream: u32,
    resets_seen: u32,
    resets_made: u32,
    waiting: bool,
    resumed: bool,
    flood: Option<Flood>,
}

impl Guard {
    /// For the server's side of a connection.
    pub(crate) fn of_server(limits: FloodLimits, max_header_bytes: u32, now: Duration) -> Self {
        Self::new(limits, max_header_bytes, now, true)
    }

    /// For the client's side of a connection.
    pub(crate) fn of_client(limits: FloodLimits, max_header_bytes: u32, now: Duration) -> Self {
        Self::new(limits, max_header_bytes, now, false)
    }

    fn new(limits: FloodLimits, max_header_bytes: u32, now: Duration, is_server: bool) -> Self {
        let (theirs, ours) = if is_server {
            (PREFACE, 0)
        } else {
            (0, PREFACE)
        };
        Self {
            header_block: limits
                .header_block
                .unwrap_or(4 * max_header_bytes as usize)
                .max(SMALL),
            is_server,
            input: Scanner::after(theirs),
            output: Scanner::after(ours),
            now,
            earned: 0,
            small: limits.small_data,
            glitches: Bucket::new(limits.glitches, now),
            limits,
            pings: None,
            stray: 0,
            empty_frames: 0,
            block: None,
            last_stream: 0,
            resets_seen: 0,
            resets_made: 0,
            waiting: false,
            resumed: false,
            flood: None,
        }
    }

    /// Holds a client to how often it may ping.
    pub(crate) fn limit_pings(&mut self, limits: PingLimits) {
        self.pings = Some(PingCount::new(limits));
    }

    /// To be called before the next input.
    pub(crate) fn set_now(&mut self, now: Duration, has_calls: bool) {
        self.now = now;
        if let Some(pings) = &mut self.pings {
            pings.set_busy(has_calls);
        }
    }

    /// How many bytes of `data`, the next of the input, h2 may have now.
    pub(crate) fn admit(&mut self, data: &[u8]) -> usize {
        if self.waiting || self.flood.is_some() {
            return 0;
        }
        let mut at = 0;
        while let Some(head) = self.input.next(data, &mut at, extra_of_input) {
            match self.judge(&head) {
                Verdict::Pass => self.input.pass(&head),
                Verdict::Wait => {
                    self.waiting = true;
                    return self.input.step_back(at);
                }
                Verdict::End(flood) => {
                    self.flood = Some(flood);
                    return self.input.step_back(at);
                }
            }
        }
        data.len()
    }

    /// Goes on after a pause, with what the `messages` that came before have
    /// earned. False if there was none.
    pub(crate) fn resume(&mut self, messages: u32) -> bool {
        let earned = (messages as usize).saturating_mul(EARNED_BY_MESSAGE);
        self.earn_small(earned);
        self.resumed = std::mem::take(&mut self.waiting);
        self.resumed
    }

    /// Takes note of the frames that h2 has made.
    pub(crate) fn sent(&mut self, data: &[u8]) {
        let mut at = 0;
        while let Some(head) = self.output.next(data, &mut at, extra_of_output) {
            if let (DATA | HEADERS, Some(pings)) = (head.kind, &mut self.pings) {
                pings.forgive();
            }
            match head.kind {
                DATA => self.earn(EARNED_BY_DATA),
                HEADERS if !self.is_server => self.earn(EARNED_BY_STREAM),
                PING | SETTINGS if head.flags & END == 0 => self.earn(1),
                RST_STREAM if blames_peer(head.extra) => self.resets_made += 1,
                RST_STREAM => {
                    self.stray = (self.stray + STRAY_AFTER_RESET).min(EARNED_AT_MOST);
                }
                _ => {}
            }
            self.output.pass(&head);
        }
    }

    /// Whether a reset of the peer's has not been asked for yet: one that h2
    /// tells of without is its own, and counted where it is sent.
    pub(crate) fn take_reset_seen(&mut self) -> bool {
        let seen = self.resets_seen > 0;
        self.resets_seen = self.resets_seen.saturating_sub(1);
        seen
    }

    /// Resets that blamed the peer, since the last look.
    pub(crate) fn take_resets_made(&mut self) -> u32 {
        std::mem::take(&mut self.resets_made)
    }

    /// Why the connection has to end, if it has to.
    pub(crate) fn flood(&self) -> Option<Flood> {
        self.flood
    }

    /// The last stream of the peer's that h2 was told of.
    pub(crate) fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// Whether a header block is under way for too long.
    pub(crate) fn is_stuck_in_headers(&self, now: Duration) -> bool {
        self.block.is_some_and(|block| {
            (!block.ends || self.input.is_inside_frame())
                && now.saturating_sub(block.since) > self.limits.header_timeout
        })
    }

    fn judge(&mut self, head: &Head) -> Verdict {
        match head.kind {
            DATA => self.judge_data(head),
            HEADERS | PUSH_PROMISE => self.judge_headers(head),
            CONTINUATION => self.judge_continuation(head),
            SETTINGS if head.flags & END == 0 => {
                if head.length / 6 > self.limits.settings_entries {
                    return end("SETTINGS entries");
                }
                self.glitch("SETTINGS frames")
            }
            SETTINGS => self.explained("SETTINGS acknowledgements"),
            PING if head.flags & END == 0 && !self.may_ping() => Verdict::End(Flood::PINGS),
            PING => self.explained("PING frames"),
            PRIORITY => self.explained("PRIORITY frames"),
            WINDOW_UPDATE => self.explained("WINDOW_UPDATE frames"),
            RST_STREAM => {
                self.resets_seen = self.resets_seen.saturating_add(1);
                self.explained("RST_STREAM frames")
            }
            _ => self.glitch("frames of other kinds"),
        }
    }

    fn may_ping(&mut self) -> bool {
        let now = self.now;
        self.pings.as_mut().is_none_or(|pings| pings.allow(now))
    }

    fn judge_data(&mut self, head: &Head) -> Verdict {
        if head.flags & END != 0 {
            return Verdict::Pass; // one a stream, at most
        }
        let content = head.content();
        let cost = SMALL.saturating_sub(content);
        let affordable = cost <= self.small || self.stray > 0;
        if !std::mem::take(&mut self.resumed) && !affordable {
            return Verdict::Wait;
        }
        if content > 0 {
            self.empty_frames = 0;
        } else if let flood @ Verdict::End(_) = self.count_empty() {
            return flood;
        }
        if !affordable {
            return self.glitch("small DATA frames");
        }
        if cost > self.small {
            self.stray -= 1;
        } else {
            self.small -= cost;
        }
        self.earn_small(content.saturating_sub(SMALL));
        Verdict::Pass
    }

    fn judge_headers(&mut self, head: &Head) -> Verdict {
        let block = Block {
            since: self.now,
            size: head.content(),
            continuations: 0,
            empty: 0,
            ends: head.flags & END_HEADERS != 0,
        };
        self.block = Some(block);
        if block.size > self.header_block {
            return end("bytes of headers");
        }
        if block.size > 0 {
            self.empty_frames = 0;
        } else if let flood @ Verdict::End(_) = self.count_empty() {
            return flood;
        }
        if self.is_server {
            self.last_stream = self.last_stream.max(head.stream);
            if let Some(pings) = &mut self.pings {
                pings.set_busy(true);
            }
            self.earn(EARNED_BY_STREAM);
            Verdict::Pass
        } else {
            self.explained("HEADERS frames")
        }
    }

    fn judge_continuation(&mut self, head: &Head) -> Verdict {
        let Some(block) = self.block.as_mut().filter(|block| !block.ends) else {
            return Verdict::Pass; // h2 knows what to do about it
        };
        block.continuations += 1;
        block.empty += u32::from(head.length == 0);
        block.size += head.length;
        block.ends = head.flags & END_HEADERS != 0;
        let block = *block;
        if block.continuations > self.limits.continuations {
            return end("CONTINUATION frames");
        }
        if block.empty > self.limits.empty_continuations {
            return end("empty CONTINUATION frames");
        }
        if block.size > self.header_block {
            return end("bytes of headers");
        }
        Verdict::Pass
    }

    fn count_empty(&mut self) -> Verdict {
        self.empty_frames += 1;
        if self.empty_frames > self.limits.empty_frames {
            end("empty frames")
        } else {
            Verdict::Pass
        }
    }

    /// A frame that other traffic may explain.
    fn explained(&mut self, what: &'static str) -> Verdict {
        if self.earned > 0 {
            self.earned -= 1;
            Verdict::Pass
        } else {
            self.glitch(what)
        }
    }

    fn glitch(&mut self, what: &'static str) -> Verdict {
        if self.glitches.take(self.now) {
            Verdict::Pass
        } else {
            end(what)
        }
    }

    fn earn(&mut self, frames: u32) {
        self.earned = (self.earned + frames).min(EARNED_AT_MOST);
    }

    fn earn_small(&mut self, bytes: usize) {
        self.small = (self.small + bytes).min(self.limits.small_data);
    }
}

fn end(of: &'static str) -> Verdict {
    Verdict::End(Flood { of })
}

/// Whether a reset of ours was the peer's doing: all but those that say that we
/// want no more of a stream, or that we have failed.
fn blames_peer(code: u32) -> bool {
    !matches!(
        Reason::from(code),
        Reason::NO_ERROR | Reason::CANCEL | Reason::INTERNAL_ERROR
    )
}

/// Padding has to be known: it is no content.
fn extra_of_input(kind: u8, flags: u8) -> usize {
    usize::from(matches!(kind, DATA | HEADERS) && flags & scanner::PADDED != 0)
}

/// The error code of a reset.
fn extra_of_output(kind: u8, _: u8) -> usize {
    if kind == RST_STREAM { 4 } else { 0 }
}

#[cfg(test)]
mod tests;

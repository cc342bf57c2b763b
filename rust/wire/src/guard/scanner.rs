//! The heads of frames in a stream of bytes that may be cut anywhere.

/// RFC 9113, 6.1 and 6.2.
pub(super) const PADDED: u8 = 8;

/// RFC 9113, 4.1.
const HEAD: usize = 9;

/// As many bytes of a payload may be asked for with the head.
const EXTRA: usize = 4;

/// The head of a frame.
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// What was asked for of the payload, as one number.
    pub(super) extra: u32,
    /// How many bytes that are.
    taken: usize,
}

impl Head {
    /// Bytes of the payload that are not padding.
    pub(super) fn content(&self) -> usize {
        let padding = if self.taken == 1 { 1 + self.extra } else { 0 };
        self.length.saturating_sub(padding as usize)
    }
}

/// Finds the frames. It keeps a head that is incomplete, and nothing else.
pub(super) struct Scanner {
    head: [u8; HEAD + EXTRA],
    have: usize,
    skip: usize,
}

impl Scanner {
    /// Frames begin after `skip` bytes.
    pub(super) fn after(skip: usize) -> Self {
        Self {
            head: [0; HEAD + EXTRA],
            have: 0,
            skip,
        }
    }

    /// The next head, which ends before `data[*at]`; call [`Self::pass`] or
    /// [`Self::step_back`] with it. `extra` tells by kind and flags how many
    /// bytes of the payload belong to it.
    pub(super) fn next(
        &mut self,
        data: &[u8],
        at: &mut usize,
        extra: fn(u8, u8) -> usize,
    ) -> Option<Head> {
        let skipped = self.skip.min(data.len() - *at);
        self.skip -= skipped;
        *at += skipped;
        if !self.fill(HEAD, data, at) {
            return None;
        }
        let [kind, flags] = [self.head[3], self.head[4]];
        let length = self.number(0, 3) as usize;
        let taken = extra(kind, flags).min(length);
        if !self.fill(HEAD + taken, data, at) {
            return None;
        }
        Some(Head {
            length,
            kind,
            flags,
            stream: self.number(5, 4) & 0x7fff_ffff,
            extra: self.number(HEAD, taken),
            taken,
        })
    }

    /// The frame goes through.
    pub(super) fn pass(&mut self, head: &Head) {
        self.skip = head.length - head.taken;
        self.have = 0;
    }

    /// Whether a payload has begun and not ended.
    pub(super) fn is_inside_frame(&self) -> bool {
        self.skip > 0
    }

    /// Gives the last byte of the head back, so that the frame stays incomplete
    /// for who has the bytes before; `at` is as [`Self::next`] left it.
    pub(super) fn step_back(&mut self, at: usize) -> usize {
        self.have -= 1;
        at - 1
    }

    fn number(&self, from: usize, size: usize) -> u32 {
        let bytes = &self.head[from..from + size];
        bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u32::from(*byte))
    }

    fn fill(&mut self, need: usize, data: &[u8], at: &mut usize) -> bool {
        let missing = need.saturating_sub(self.have).min(data.len() - *at);
        self.head[self.have..self.have + missing].copy_from_slice(&data[*at..*at + missing]);
        self.have += missing;
        *at += missing;
        self.have >= need
    }
}

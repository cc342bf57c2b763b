//! What a server says first and h2 does not tell: how large a header list it takes.

use http::HeaderMap;

/// RFC 9113, 6.5 and 6.5.2: the frame, and what is looked for in it.
const SETTINGS: u8 = 4;
const MAX_HEADER_LIST_SIZE: u8 = 6;

/// RFC 9113, 4.1 and 6.5.1.
const HEAD: usize = 9;
const ENTRY: usize = 6;

/// A first frame with more entries ends the connection, or is not understood here.
const MOST: usize = HEAD + 32 * ENTRY;

/// RFC 9113, 6.5.2: what each field counts beside its name and its value.
const FIELD: usize = 32;

/// Metadata that is sent before the server has told its limit: what those of
/// gRPC's core are sure to take.
pub(super) const ASSUMED_MAX_METADATA: usize = 8 * 1024;

/// Reads the frame that a server begins with (RFC 9113, 3.4).
#[derive(Default)]
pub(super) struct Greeting {
    seen: Vec<u8>,
}

impl Greeting {
    /// Takes what came next: the limit once it is known, the largest number if there is none.
    pub(super) fn read(&mut self, data: &[u8]) -> Option<usize> {
        let wanted = (MOST - self.seen.len()).min(data.len());
        self.seen.extend_from_slice(&data[..wanted]);
        let (head, payload) = self.seen.split_at_checked(HEAD)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if head[3] != SETTINGS || HEAD + length > MOST {
            return Some(usize::MAX);
        }
        let entries = payload.get(..length)?.chunks_exact(ENTRY);
        let limit = entries.rev().find_map(|entry| match *entry {
            [0, MAX_HEADER_LIST_SIZE, a, b, c, d] => Some(u32::from_be_bytes([a, b, c, d])),
            _ => None,
        });
        Some(limit.map_or(usize::MAX, |limit| limit as usize))
    }
}

/// What fields count, by RFC 9113, 6.5.2.
pub(super) fn list_size(headers: &HeaderMap) -> usize {
    let sizes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD);
    sizes.sum()
}

/// The most that a request counts beside its metadata, its path and what all of a connection have.
pub(super) const OWN_FIELDS: usize = ":method".len()
    + "POST".len()
    + ":scheme".len()
    + "https".len()
    + ":path".len()
    + ":authority".len()
    + "grpc-timeout".len()
    + "99999999M".len()
    + "grpc-encoding".len()
    + "deflate".len()
    + 6 * FIELD;

#[cfg(test)]
mod tests {
    use super::*;

    /// Another setting, then two of the one.
    const FRAME: &[u8] = &[
        0, 0, 18, SETTINGS, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 9, 0, 6, 0, 0, 0, 7, 0, 6, 0, 0, 64, 0,
    ];

    #[test]
    fn the_last_limit_of_the_first_frame_holds_however_it_is_cut() {
        for size in 1..=FRAME.len() {
            let mut greeting = Greeting::default();
            let parts = FRAME.chunks(size);
            let found = parts.fold(None, |_, part| greeting.read(part));
            assert_eq!(found, Some(16 * 1024), "{size}");
        }
    }

    #[test]
    fn nothing_is_known_before_the_frame_is_whole() {
        assert_eq!(Greeting::default().read(&FRAME[..FRAME.len() - 1]), None);
    }

    #[test]
    fn what_says_nothing_of_it_has_no_limit() {
        for kind in [SETTINGS, 8] {
            let frame = [0, 0, 0, kind, 0, 0, 0, 0, 0];
            assert_eq!(Greeting::default().read(&frame), Some(usize::MAX));
        }
        let endless = [0xff, 0xff, 0xff, SETTINGS, 0, 0, 0, 0, 0];
        assert_eq!(Greeting::default().read(&endless), Some(usize::MAX));
    }
}

use super::{CONTINUATION, DATA, END, END_HEADERS, Flood, FloodLimits, Guard, HEADERS, PING};
use super::{PREFACE, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, scanner};
use proptest::prelude::*;
use std::time::Duration;

const NOW: Duration = Duration::from_secs(100);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn guard() -> Guard {
    let mut guard = Guard::of_server(FloodLimits::default(), 16 * 1024, NOW);
    assert_eq!(guard.admit(&[0; PREFACE]), PREFACE);
    guard
}

/// Frames of this kind that pass, of `most`.
fn passes(guard: &mut Guard, frame: &[u8], most: usize) -> usize {
    (0..most)
        .find(|_| guard.admit(frame) < frame.len() && guard.flood().is_some())
        .unwrap_or(most)
}

#[test]
fn each_flood_ends_one_beyond_its_limit() {
    let open = || frame(HEADERS, 0, 1, b"x");
    for (first, flood, limit, of) in [
        (vec![], frame(PING, 0, 0, &[0; 8]), 1000, "PING frames"),
        (vec![], frame(SETTINGS, 0, 0, b""), 1000, "SETTINGS frames"),
        (
            vec![],
            frame(SETTINGS, 0, 0, &[0; 33 * 6]),
            0,
            "SETTINGS entries",
        ),
        (
            vec![],
            frame(PRIORITY, 0, 1, &[0; 5]),
            1000,
            "PRIORITY frames",
        ),
        (
            vec![],
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
            1000,
            "WINDOW_UPDATE frames",
        ),
        (
            vec![],
            frame(RST_STREAM, 0, 1, &[0; 4]),
            1000,
            "RST_STREAM frames",
        ),
        (
            vec![],
            frame(0xfa, 0, 0, b"?"),
            1000,
            "frames of other kinds",
        ),
        (vec![], frame(DATA, 0, 1, b""), 10, "empty frames"),
        (vec![], frame(HEADERS, 0, 1, b""), 10, "empty frames"),
        (
            open(),
            frame(CONTINUATION, 0, 1, b"x"),
            8,
            "CONTINUATION frames",
        ),
        (
            open(),
            frame(CONTINUATION, 0, 1, b""),
            1,
            "empty CONTINUATION frames",
        ),
        (
            open(),
            frame(CONTINUATION, 0, 1, &[0; 16_384]),
            3,
            "bytes of headers",
        ),
    ] {
        let mut guard = guard();
        assert_eq!(guard.admit(&first), first.len());
        // What the header block explains is not this test's concern.
        guard.earned = 0;
        assert_eq!(passes(&mut guard, &flood, 5000), limit, "{of}");
        assert_eq!(guard.flood(), Some(Flood { of }));
        assert_eq!(guard.admit(&flood), 0, "nothing more after the end");
    }
}

/// 25,600 bytes, at 255 each, and then 1,000 glitches.
#[test]
fn tiny_data_that_makes_no_message_ends() {
    let tiny = frame(DATA, 0, 1, b"x");
    let padded = frame(
        DATA,
        scanner::PADDED,
        1,
        &[&[200, 1][..], &[0; 200]].concat(),
    );
    for flood in [tiny, padded] {
        let mut guard = guard();
        let mut passed = 0;
        while guard.flood().is_none() && passed < 5000 {
            let mut size = guard.admit(&flood);
            if guard.resume(0) {
                size += guard.admit(&flood[size..]);
            }
            passed += usize::from(size == flood.len());
        }
        assert_eq!(passed, 25_600 / 255 + 1000);
    }
}

#[test]
fn small_messages_without_end_are_welcome() {
    let mut guard = guard();
    // A prefix and a body in a frame each, many to a read.
    let message = [frame(DATA, 0, 1, &[0; 5]), frame(DATA, 0, 1, b"tick")].concat();
    let read = message.repeat(1000);
    for _ in 0..20 {
        let mut rest = &read[..];
        while !rest.is_empty() {
            let size = guard.admit(rest);
            rest = &rest[size..];
            assert!(size > 0 || guard.waiting, "{:?}", guard.flood());
            guard.resume(u32::try_from(size / message.len() + 1).unwrap());
        }
    }
    assert!(guard.flood().is_none());
}

#[test]
fn what_we_send_explains_updates_and_pings() {
    let mut guard = guard();
    let answer = [
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 9]),
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9]),
        frame(PING, 0, 0, &[0; 8]),
    ]
    .concat();
    let sent = frame(DATA, 0, 1, b"small");
    for _ in 0..10 {
        // A window full of messages, and then all that they bring back.
        guard.sent(&sent.repeat(5000));
        assert_eq!(passes(&mut guard, &answer, 5000), 5000);
    }
}

#[test]
fn calls_without_end_explain_their_resets() {
    let mut guard = guard();
    let call = [
        frame(HEADERS, END_HEADERS, 1, b"x"),
        frame(PRIORITY, 0, 1, &[0; 5]),
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 1, 0]),
        frame(DATA, END, 1, b"tiny"),
        frame(RST_STREAM, 0, 1, &[0; 4]),
    ]
    .concat();
    assert_eq!(passes(&mut guard, &call, 20_000), 20_000);
}

#[test]
fn time_forgives_glitches() {
    let mut guard = guard();
    let ping = frame(PING, 0, 0, &[0; 8]);
    assert_eq!(passes(&mut guard, &ping, 1000), 1000);
    guard.set_now(NOW + Duration::from_secs(2), false);
    assert_eq!(passes(&mut guard, &ping, 5000), 200);
}

#[test]
fn resets_of_ours_are_told_apart() {
    let mut guard = Guard::of_server(FloodLimits::default(), 16 * 1024, NOW);
    let codes = [0_u32, 1, 2, 3, 5, 7, 8, 11];
    for code in codes {
        guard.sent(&frame(RST_STREAM, 0, 1, &code.to_be_bytes()));
    }
    assert_eq!(guard.take_resets_made(), 5);
    assert_eq!(guard.take_resets_made(), 0);
    assert!(!guard.take_reset_seen());
}

#[test]
fn a_header_block_that_does_not_end_is_late_after_a_while() {
    let mut guard = guard();
    guard.admit(&frame(HEADERS, 0, 1, b"x"));
    guard.admit(&frame(CONTINUATION, 0, 1, b"x"));
    assert!(!guard.is_stuck_in_headers(NOW + Duration::from_secs(10)));
    assert!(guard.is_stuck_in_headers(NOW + Duration::from_secs(11)));
    guard.admit(&frame(CONTINUATION, END_HEADERS, 1, b"x"));
    assert!(!guard.is_stuck_in_headers(NOW + Duration::from_secs(11)));
    let whole = frame(HEADERS, END_HEADERS, 3, b"more");
    guard.admit(&whole[..11]);
    assert!(guard.is_stuck_in_headers(NOW + Duration::from_secs(11)));
    guard.admit(&whole[11..]);
    assert!(!guard.is_stuck_in_headers(NOW + Duration::from_secs(11)));
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    (0_u8..11, any::<u8>(), 0_u32..4, payload)
        .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload))
}

/// Where a guard ends a connection, if it does, and why.
fn outcome(pieces: &[&[u8]]) -> (usize, Option<Flood>, u32, usize) {
    let limits = FloodLimits {
        glitches: super::Rate {
            burst: 5,
            per_second: 0,
        },
        small_data: 1000,
        ..FloodLimits::default()
    };
    let mut guard = Guard::of_server(limits, 100, NOW);
    let mut admitted = 0;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() && guard.flood().is_none() {
            let size = guard.admit(rest);
            admitted += size;
            rest = &rest[size..];
            guard.resume(0);
        }
    }
    (admitted, guard.flood(), guard.earned, guard.small)
}

proptest! {
    #[test]
    fn pieces_make_no_difference(
        frames in prop::collection::vec(any_frame(), 0..40),
        size in 1_usize..40,
    ) {
        let bytes = [vec![0; PREFACE], frames.concat()].concat();
        let pieces: Vec<_> = bytes.chunks(size).collect();
        prop_assert_eq!(outcome(&[&bytes]), outcome(&pieces));
    }
}

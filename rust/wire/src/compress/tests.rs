use super::*;
use proptest::prelude::*;

/// A message as `encoding` compresses it, whatever its size.
fn packed(encoding: Encoding, message: &[u8]) -> Vec<u8> {
    encoding.pack(message, vec![0; PREFIX]).unwrap()[PREFIX..].to_vec()
}

fn status(result: Result<Bytes, Violation>) -> u32 {
    result.unwrap_err().status
}

#[test]
fn names_are_found_and_identity_is_none() {
    for each in Encoding::ALL {
        assert_eq!(Encoding::from_name(each.name().as_bytes()), Some(each));
        assert!(each.is_accepted_by(ACCEPTED.as_bytes()));
        assert!(each.is_accepted_by(format!("br,{}", each.name()).as_bytes()));
        assert!(!each.is_accepted_by(b"identity, br"));
    }
    assert_eq!(Encoding::from_name(b"identity"), None);
    assert_eq!(Encoding::from_name(b"GZIP"), None);
}

#[test]
fn a_message_at_the_limit_passes_and_one_byte_more_does_not() {
    for encoding in Encoding::ALL {
        for size in [0, 1, LEAST - 1, LEAST, LEAST + 1, 100_000] {
            let message = vec![b'x'; size];
            let small = packed(encoding, &message);
            assert_eq!(encoding.decompress(&small, size).unwrap(), message);
            if size > 0 {
                let refused = encoding.decompress(&small, size - 1);
                assert_eq!(status(refused), code::RESOURCE_EXHAUSTED, "{encoding:?}");
            }
        }
    }
}

#[test]
fn no_more_is_allocated_than_the_limit_and_a_byte() {
    for (size, packed, limit) in [
        (0, 10, 5),
        (0, 10, usize::MAX),
        (4096, 10, 5000),
        (1 << 40, 10, 1 << 41),
    ] {
        let next = grown(size, packed, limit);
        assert!(next > size.min(limit) && next <= limit.saturating_add(1));
    }
}

#[test]
fn a_bomb_without_its_size_stops_at_the_limit() {
    let limit = 256 * 1024;
    // 8 MiB of zeros: zstd's streaming encoder does not tell the size in advance.
    let zeros = vec![0; 8 * 1024 * 1024];
    let mut bomb = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    io::Write::write_all(&mut bomb, &zeros).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(matches!(zstd_safe::get_frame_content_size(&bomb), Ok(None)));
    let refused = Encoding::Zstd.decompress(&bomb, limit);
    assert_eq!(status(refused), code::RESOURCE_EXHAUSTED);
    let whole = Encoding::Zstd.decompress(&bomb, zeros.len()).unwrap();
    assert_eq!(whole.len(), zeros.len());
    for encoding in [Encoding::Gzip, Encoding::Deflate] {
        let refused = encoding.decompress(&packed(encoding, &zeros), limit);
        assert_eq!(status(refused), code::RESOURCE_EXHAUSTED);
    }
}

#[test]
fn a_frame_that_lies_about_its_size_costs_nothing() {
    // A zstd frame of one segment that claims 2^63 bytes and holds none.
    let mut lie = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1110_0000];
    lie.extend_from_slice(&(1_u64 << 63).to_le_bytes());
    let refused = Encoding::Zstd.decompress(&lie, usize::MAX - 1);
    assert_eq!(status(refused), code::RESOURCE_EXHAUSTED);
}

#[test]
fn what_is_cut_short_or_followed_by_more_is_refused() {
    let message: Vec<u8> = (0..5000_u32).flat_map(u32::to_le_bytes).collect();
    for encoding in Encoding::ALL {
        let whole = packed(encoding, &message);
        for size in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
            let refused = encoding.decompress(&whole[..size], 100_000);
            assert_eq!(status(refused), code::INTERNAL, "{encoding:?} {size}");
        }
        let mut more = whole.clone();
        more.push(0);
        assert_eq!(status(encoding.decompress(&more, 100_000)), code::INTERNAL);
    }
}

#[test]
fn what_does_not_get_smaller_is_sent_as_it_is() {
    let mut noise = Vec::new();
    let mut state = 1_u64;
    while noise.len() < 10_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        noise.extend_from_slice(&state.to_be_bytes()[..4]);
    }
    for encoding in Encoding::ALL {
        for message in [&noise[..], &[0; SMALLEST - 1], b""] {
            let framed = grpc::frame(message);
            assert_eq!(encoding.compress(framed.clone()), framed);
        }
        let framed = encoding.compress(grpc::frame(&[0; SMALLEST]));
        assert_eq!(framed[0], grpc::COMPRESSED);
        assert_eq!(
            framed[1..PREFIX],
            u32::try_from(framed.len() - PREFIX).unwrap().to_be_bytes()
        );
    }
}

proptest! {
    #[test]
    fn every_message_survives_in_any_chunks(
        blocks in prop::collection::vec((any::<u8>(), 0_usize..3000), 0..8),
        chunk in 1_usize..2000,
    ) {
        let message: Vec<u8> = blocks
            .iter()
            .flat_map(|(byte, size)| (0..*size).map(move |at| if at % 200 == 0 { 7 } else { *byte }))
            .collect();
        for encoding in Encoding::ALL {
            let framed = encoding.compress(grpc::frame(&message));
            let mut deframer = grpc::Deframer::new(Some(encoding));
            let mut found = Vec::new();
            for piece in framed.chunks(chunk) {
                deframer.push(Bytes::copy_from_slice(piece));
                while let Some(each) = deframer.next(message.len()).unwrap() {
                    found.push(each);
                }
            }
            prop_assert_eq!(&found, &[&message[..]]);
            prop_assert!(deframer.is_empty());
        }
    }

    #[test]
    fn any_bytes_end_in_a_message_or_a_status(data in prop::collection::vec(any::<u8>(), 0..200)) {
        for encoding in Encoding::ALL {
            match encoding.decompress(&data, 1000) {
                Ok(message) => prop_assert!(message.len() <= 1000),
                Err(violation) => prop_assert!(
                    [code::INTERNAL, code::RESOURCE_EXHAUSTED].contains(&violation.status)
                ),
            }
        }
    }
}

//! XXH64, which gRPC's hashing balancers use, so that other clients choose alike.

const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME_5: u64 = 0x27d4_eb2f_1656_67c5;

/// The hash of some bytes.
///
/// Source: Collet, "xxHash fast digest algorithm" (the XXH64 section of `xxhash_spec.md`).
pub fn xxh64(data: &[u8], seed: u64) -> u64 {
    let (stripes, rest) = data.as_chunks::<32>();
    let mut hash = if stripes.is_empty() {
        seed.wrapping_add(PRIME_5)
    } else {
        converged(stripes, seed)
    };
    hash = hash.wrapping_add(data.len() as u64);
    let (lanes, rest) = rest.as_chunks::<8>();
    for lane in lanes {
        hash ^= round(0, u64::from_le_bytes(*lane));
        hash = hash.rotate_left(27).wrapping_mul(PRIME_1);
        hash = hash.wrapping_add(PRIME_4);
    }
    let (halves, rest) = rest.as_chunks::<4>();
    for half in halves {
        hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(PRIME_1);
        hash = hash.rotate_left(23).wrapping_mul(PRIME_2);
        hash = hash.wrapping_add(PRIME_3);
    }
    for &byte in rest {
        hash ^= u64::from(byte).wrapping_mul(PRIME_5);
        hash = hash.rotate_left(11).wrapping_mul(PRIME_1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME_2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 32)
}

/// Four accumulators over the stripes of 32 bytes, and what they come to together.
fn converged(stripes: &[[u8; 32]], seed: u64) -> u64 {
    let mut accumulators = [
        seed.wrapping_add(PRIME_1).wrapping_add(PRIME_2),
        seed.wrapping_add(PRIME_2),
        seed,
        seed.wrapping_sub(PRIME_1),
    ];
    for stripe in stripes {
        let (lanes, _) = stripe.as_chunks::<8>();
        for (accumulator, lane) in accumulators.iter_mut().zip(lanes) {
            *accumulator = round(*accumulator, u64::from_le_bytes(*lane));
        }
    }
    let [a, b, c, d] = accumulators;
    let sum = a
        .rotate_left(1)
        .wrapping_add(b.rotate_left(7))
        .wrapping_add(c.rotate_left(12))
        .wrapping_add(d.rotate_left(18));
    accumulators.into_iter().fold(sum, |hash, accumulator| {
        (hash ^ round(0, accumulator))
            .wrapping_mul(PRIME_1)
            .wrapping_add(PRIME_4)
    })
}

fn round(accumulator: u64, lane: u64) -> u64 {
    accumulator
        .wrapping_add(lane.wrapping_mul(PRIME_2))
        .rotate_left(31)
        .wrapping_mul(PRIME_1)
}

#[cfg(test)]
mod tests {
    use super::xxh64;

    #[test]
    fn gives_the_published_values() {
        // The specification's generator of test bytes, and the checks of xxHash's own self-test.
        let mut generator: u64 = 2_654_435_761;
        let bytes: Vec<u8> = (0..222)
            .map(|_| {
                let byte = generator.to_be_bytes()[0];
                generator = generator.wrapping_mul(11_400_714_785_074_694_797);
                byte
            })
            .collect();
        let prime = 2_654_435_761;
        for (length, seed, expected) in [
            (0, 0, 0xef46_db37_51d8_e999),
            (0, prime, 0xac75_fda2_929b_17ef),
            (1, 0, 0xe934_a84a_db05_2768),
            (1, prime, 0x5014_6076_43a9_b4c3),
            (4, 0, 0x9136_a0dc_a574_57ee),
            (4, prime, 0xcaab_286b_d8e9_fdb5),
            (14, 0, 0x8282_dcc4_994e_35c8),
            (14, prime, 0xc3bd_6bf6_3deb_6df0),
            (32, 0, 0x18b2_1649_2bb4_4b70),
            (32, prime, 0xb3f3_3bdf_93ad_e409),
            (63, 0, 0xa9ef_be0f_a0f3_f4e7),
            (63, prime, 0x6c91_1fad_b05b_6fc2),
            (222, 0, 0xb641_ae8c_b691_c174),
            (222, prime, 0x20cb_8ab7_ae10_c14a),
        ] {
            assert_eq!(xxh64(&bytes[..length], seed), expected, "{length} {seed}");
        }
        assert_eq!(xxh64(b"abc", 0), 0x44bc_2cf5_ad77_0999);
    }
}

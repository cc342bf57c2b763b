//! Base64 (RFC 4648) as JSON carries bytes: written in the standard alphabet with padding, read in
//! the standard or the URL-safe alphabet, with or without padding.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const INVALID: u8 = 0xff;
const VALUES: [u8; 256] = values();

pub(crate) fn encode(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    let symbol = |bits: u32| ALPHABET[(bits & 0x3f) as usize];
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        out.push(symbol(bits >> 18));
        out.push(symbol(bits >> 12));
        out.push(if chunk.len() > 1 {
            symbol(bits >> 6)
        } else {
            b'='
        });
        out.push(if chunk.len() > 2 { symbol(bits) } else { b'=' });
    }
}

/// Append the decoded bytes; `None` if the text is no base64.
pub(crate) fn decode(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    let digits = match text {
        [digits @ .., b'=', b'='] if digits.len() % 4 == 2 => digits,
        [digits @ .., b'='] if digits.len() % 4 == 3 => digits,
        digits => digits,
    };
    out.reserve(digits.len() / 4 * 3 + 3);
    for chunk in digits.chunks(4) {
        let mut bits = 0_u32;
        for &symbol in chunk {
            let value = VALUES[usize::from(symbol)];
            if value == INVALID {
                return None;
            }
            bits = bits << 6 | u32::from(value);
        }
        let bytes = match chunk.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            // Six bits are no byte.
            _ => return None,
        };
        bits <<= 6 * (4 - chunk.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..=bytes]);
    }
    Some(())
}

const fn values() -> [u8; 256] {
    let mut values = [INVALID; 256];
    let mut at = 0;
    while at < 64 {
        values[ALPHABET[at as usize] as usize] = at;
        at += 1;
    }
    values[b'-' as usize] = values[b'+' as usize];
    values[b'_' as usize] = values[b'/' as usize];
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(&mut out, text.as_bytes()).map(|()| out)
    }

    #[test]
    fn both_alphabets_and_both_paddings_are_read() {
        for text in ["+/8=", "+/8", "-_8=", "-_8"] {
            assert_eq!(decoded(text), Some(vec![0xfb, 0xff]), "{text}");
        }
        assert_eq!(decoded(""), Some(vec![]));
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "a", "a=", "ab=", "abc==", "ab cd", "====", "ab\n", "é", "abcde",
        ] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes: Vec<u8> = (0..=255).collect();
        for len in 0..bytes.len() {
            let mut text = Vec::new();
            encode(&mut text, &bytes[..len]);
            assert_eq!(
                decoded(std::str::from_utf8(&text).unwrap()).unwrap(),
                bytes[..len]
            );
        }
    }
}

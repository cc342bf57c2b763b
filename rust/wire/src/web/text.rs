//! The base64 of `application/grpc-web-text`.

use crate::grpc::{Violation, code};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// Characters that stand for three bytes together.
const QUANTUM: usize = 4;

pub(super) fn encode(data: &[u8]) -> Bytes {
    Bytes::from(STANDARD.encode(data))
}

/// Decodes base64 as it comes. Padding may end any quantum, not only the last
/// one: a sender encodes what it has and goes on.
#[derive(Debug, Default)]
pub(super) struct TextDecoder {
    /// The start of a quantum, less than four characters.
    partial: Vec<u8>,
}

impl TextDecoder {
    pub(super) fn decode(&mut self, data: &[u8]) -> Result<Vec<u8>, Violation> {
        let mut decoded = Vec::with_capacity(data.len() / QUANTUM * 3 + 3);
        let mut rest = data;
        if !self.partial.is_empty() {
            let missing = (QUANTUM - self.partial.len()).min(rest.len());
            self.partial.extend_from_slice(&rest[..missing]);
            rest = &rest[missing..];
            if self.partial.len() < QUANTUM {
                return Ok(decoded);
            }
            decode_run(&self.partial, &mut decoded)?;
            self.partial.clear();
        }
        let whole = rest.len() / QUANTUM * QUANTUM;
        let (mut run, partial) = rest.split_at(whole);
        self.partial.extend_from_slice(partial);
        while let Some(padding) = run.iter().position(|byte| *byte == b'=') {
            let (padded, next) = run.split_at((padding / QUANTUM + 1) * QUANTUM);
            decode_run(padded, &mut decoded)?;
            run = next;
        }
        decode_run(run, &mut decoded)?;
        Ok(decoded)
    }

    pub(super) fn end(&self) -> Result<(), Violation> {
        if self.partial.is_empty() {
            Ok(())
        } else {
            Err(Violation::new(
                code::INTERNAL,
                "the request ended inside a base64 quantum",
            ))
        }
    }
}

fn decode_run(run: &[u8], decoded: &mut Vec<u8>) -> Result<(), Violation> {
    STANDARD.decode_vec(run, decoded).map_err(|error| {
        Violation::new(code::INTERNAL, format!("the request is no base64: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_chunking_of_padded_runs_gives_the_same_bytes() {
        let runs: [&[u8]; 5] = [b"a", b"bc", b"def", b"", b"ghij"];
        let text: Vec<u8> = runs.iter().flat_map(|run| encode(run)).collect();
        for size in 1..=text.len() {
            let mut decoder = TextDecoder::default();
            let mut found = Vec::new();
            for chunk in text.chunks(size) {
                found.extend(decoder.decode(chunk).unwrap());
            }
            decoder.end().unwrap();
            assert_eq!(found, b"abcdefghij");
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for bad in [
            &b"=AAA"[..],
            b"A=AA",
            b"AA=A",
            b"A A=",
            b"AAA\n",
            b"AA-_",
            b"AB==",
        ] {
            assert!(TextDecoder::default().decode(bad).is_err(), "{bad:?}");
        }
        let mut decoder = TextDecoder::default();
        decoder.decode(b"AAAAA").unwrap();
        assert!(decoder.end().is_err());
    }
}

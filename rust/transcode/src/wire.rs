//! The protobuf wire format, as far as both directions need it.

use crate::error::{Error, ErrorKind, Result};

/// Deepest nesting of unknown groups that is skipped: protobuf's own limit for messages.
const MAX_GROUPS: usize = 100;

pub(crate) const VARINT: u8 = 0;
pub(crate) const FIXED64: u8 = 1;
pub(crate) const BYTES: u8 = 2;
const GROUP_START: u8 = 3;
const GROUP_END: u8 = 4;
pub(crate) const FIXED32: u8 = 5;

/// A field's tag as it stands on the wire: encoded once, copied ever after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    bytes: [u8; 5],
    len: u8,
}

impl Tag {
    pub(crate) fn new(number: u32, wire: u8) -> Self {
        let mut encoded = Vec::with_capacity(5);
        put_varint(&mut encoded, u64::from(number) << 3 | u64::from(wire));
        let mut bytes = [0; 5];
        for (slot, byte) in bytes.iter_mut().zip(&encoded) {
            *slot = *byte;
        }
        // A field number has 29 bits, so its tag never needs more than five bytes.
        let len = u8::try_from(encoded.len().min(5)).unwrap_or(5);
        Self { bytes, len }
    }

    #[inline]
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[..usize::from(self.len)]);
    }
}

#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

#[inline]
fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Begin a length-delimited value whose length is not known yet.
#[inline]
pub(crate) fn open(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len()
}

/// End what [`open`] began: set its length, and move the content if that takes several bytes.
pub(crate) fn close(out: &mut Vec<u8>, start: usize) {
    let len = out.len() - start;
    if len < 0x80 {
        out[start - 1] = low_byte(len as u64);
        return;
    }
    let mut prefix = Vec::with_capacity(5);
    put_varint(&mut prefix, len as u64);
    let grown = prefix.len() - 1;
    out.resize(out.len() + grown, 0);
    out.copy_within(start..start + len, start + grown);
    out[start - 1..start + grown].copy_from_slice(&prefix);
}

#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[inline]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// One value as it stands on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Raw<'m> {
    /// A varint or fixed-width number, by its bits.
    Number(u64),
    /// A string, bytes, message or packed numbers.
    Bytes(&'m [u8]),
}

/// Reads a message's fields one by one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WireReader<'m> {
    rest: &'m [u8],
}

impl<'m> WireReader<'m> {
    pub(crate) fn new(message: &'m [u8]) -> Self {
        Self { rest: message }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes that are left.
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    /// The next field's number, wire type and value; unknown groups are skipped.
    #[inline]
    pub(crate) fn field(&mut self) -> Result<Option<(u32, u8, Raw<'m>)>> {
        while !self.rest.is_empty() {
            let (number, wire) = self.tag()?;
            if wire == GROUP_START {
                self.skip_group(number)?;
                continue;
            }
            return Ok(Some((number, wire, self.value(wire)?)));
        }
        Ok(None)
    }

    #[inline]
    fn tag(&mut self) -> Result<(u32, u8)> {
        let tag = u32::try_from(self.varint()?).map_err(|_| invalid("tag out of range"))?;
        if tag >> 3 == 0 {
            return Err(invalid("field number 0"));
        }
        Ok((tag >> 3, tag.to_le_bytes()[0] & 7))
    }

    #[inline]
    pub(crate) fn value(&mut self, wire: u8) -> Result<Raw<'m>> {
        match wire {
            VARINT => Ok(Raw::Number(self.varint()?)),
            FIXED64 => Ok(Raw::Number(self.fixed64()?)),
            FIXED32 => Ok(Raw::Number(u64::from(self.fixed32()?))),
            BYTES => {
                let len = usize::try_from(self.varint()?).map_err(|_| truncated())?;
                Ok(Raw::Bytes(self.take(len)?))
            }
            _ => Err(invalid("unexpected wire type")),
        }
    }

    fn skip_group(&mut self, number: u32) -> Result<()> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            let (number, wire) = self.tag()?;
            match wire {
                GROUP_START if open.len() == MAX_GROUPS => return Err(invalid("nested too deep")),
                GROUP_START => open.push(number),
                GROUP_END if number == innermost => drop(open.pop()),
                GROUP_END => return Err(invalid("group ends that has not begun")),
                _ => drop(self.value(wire)?),
            }
        }
        Ok(())
    }

    #[inline]
    fn varint(&mut self) -> Result<u64> {
        if let Some((&first, rest)) = self.rest.split_first()
            && first < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(first));
        }
        let mut value = 0;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 {
            truncated()
        } else {
            invalid("varint of over 10 bytes")
        })
    }

    fn fixed64(&mut self) -> Result<u64> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(truncated)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*head))
    }

    fn fixed32(&mut self) -> Result<u32> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(truncated)?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*head))
    }

    fn take(&mut self, len: usize) -> Result<&'m [u8]> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or_else(truncated)?;
        self.rest = rest;
        Ok(head)
    }
}

pub(crate) fn invalid(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidReply, reason)
}

fn truncated() -> Error {
    invalid("the message ends in the middle of a field")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_gets_a_longer_prefix() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 70_000] {
            let mut out = vec![9];
            let start = open(&mut out);
            out.extend((0..len).map(|at: u32| at.to_le_bytes()[0]));
            close(&mut out, start);
            let mut reader = WireReader::new(&out[1..]);
            let Raw::Bytes(content) = reader.value(BYTES).unwrap() else {
                panic!("no bytes")
            };
            assert_eq!(u32::try_from(content.len()), Ok(len));
            assert!(
                content
                    .iter()
                    .zip(0u32..)
                    .all(|(byte, at)| *byte == at.to_le_bytes()[0])
            );
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn zigzag_is_undone() {
        for value in [0, 1, -1, i64::MAX, i64::MIN] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn unknown_groups_are_skipped() {
        let mut out = Vec::new();
        Tag::new(7, GROUP_START).put(&mut out);
        Tag::new(1, VARINT).put(&mut out);
        put_varint(&mut out, 300);
        Tag::new(7, GROUP_END).put(&mut out);
        Tag::new(2, VARINT).put(&mut out);
        put_varint(&mut out, 5);
        let (number, _, value) = WireReader::new(&out).field().unwrap().unwrap();
        assert!(number == 2 && matches!(value, Raw::Number(5)));
        assert!(WireReader::new(&out[..4]).field().is_err());
    }
}

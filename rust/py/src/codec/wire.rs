//! The protobuf wire format, free of Python.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

use super::fault::{Fault, Flaw, Parsed};

/// How a value is delimited on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Fixed32 = 5,
}

/// Highest field number of the format: 29 bits.
pub(super) const MAX_NUMBER: u32 = (1 << 29) - 1;

/// A field's number and wire type, encoded once when the plan is built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag {
    bytes: [u8; 5],
    len: u8,
}

impl Tag {
    pub(super) fn new(number: u32, wire: Wire) -> Self {
        let mut rest = number << 3 | wire as u32;
        let mut tag = Self {
            bytes: [0; 5],
            len: 0,
        };
        for byte in &mut tag.bytes {
            tag.len += 1;
            *byte = rest.to_le_bytes()[0] & 0x7f;
            rest >>= 7;
            if rest == 0 {
                break;
            }
            *byte |= 0x80;
        }
        tag
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        match self.len {
            1 => out.push(self.bytes[0]),
            len => out.extend_from_slice(&self.bytes[..usize::from(len)]),
        }
    }
}

pub(super) fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// The same bits as a signed integer.
pub(super) fn signed(value: u64) -> i64 {
    i64::from_ne_bytes(value.to_ne_bytes())
}

/// The same bits as an unsigned integer.
pub(super) fn unsigned(value: i64) -> u64 {
    u64::from_ne_bytes(value.to_ne_bytes())
}

pub(super) fn zigzag(value: i64) -> u64 {
    unsigned((value << 1) ^ (value >> 63))
}

pub(super) fn unzigzag(value: u64) -> i64 {
    signed(value >> 1) ^ -signed(value & 1)
}

/// Open a length-delimited value: its length is written by [`end_length`].
pub(super) fn begin_length(out: &mut Vec<u8>) -> usize {
    // Most lengths fit one byte, so only the others pay for moving what follows.
    out.push(0);
    out.len()
}

pub(super) fn end_length(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    if let Some(low) = u8::try_from(length).ok().filter(|&low| low < 0x80) {
        out[start - 1] = low;
        return;
    }
    let mut tail = [0; 10];
    let mut extra = 0;
    let mut rest = length;
    out[start - 1] = rest.to_le_bytes()[0] | 0x80;
    loop {
        rest >>= 7;
        tail[extra] = rest.to_le_bytes()[0] & 0x7f;
        extra += 1;
        if rest < 0x80 {
            break;
        }
        tail[extra - 1] |= 0x80;
    }
    let end = out.len();
    out.resize(end + extra, 0);
    out.copy_within(start..end, start + extra);
    out[start..start + extra].copy_from_slice(&tail[..extra]);
}

/// A cursor over one message. Positions count from the start of the outermost message, so that
/// errors can name the byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    data: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, pos: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.pos
    }

    pub(super) fn is_done(&self) -> bool {
        self.pos >= self.data.len()
    }

    /// What was read since `start`.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        &self.data[start..self.pos]
    }

    /// What is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.data[self.pos..]
    }

    fn take(&mut self, count: usize) -> Parsed<&'a [u8]> {
        let taken = self
            .pos
            .checked_add(count)
            .and_then(|end| self.data.get(self.pos..end))
            .ok_or_else(|| Fault::new(Flaw::Truncated, self.data.len()))?;
        self.pos += count;
        Ok(taken)
    }

    /// A varint; bits above the 64th are dropped, as betterproto2 does.
    #[inline]
    pub(super) fn varint(&mut self) -> Parsed<u64> {
        match self.data.get(self.pos) {
            Some(&byte) if byte < 0x80 => {
                self.pos += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Parsed<u64> {
        let mut value = 0;
        for (index, &byte) in self.rest().iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.pos += index + 1;
                return Ok(value);
            }
        }
        Err(if self.rest().len() < 10 {
            Fault::new(Flaw::Truncated, self.data.len())
        } else {
            Fault::new(Flaw::Varint, self.pos)
        })
    }

    /// True if any bit of the varint is set, also one above the 64th.
    pub(super) fn bool(&mut self) -> Parsed<bool> {
        let start = self.pos;
        self.varint()?;
        Ok(self.since(start).iter().any(|byte| byte & 0x7f != 0))
    }

    pub(super) fn fixed32(&mut self) -> Parsed<[u8; 4]> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(bytes)
    }

    pub(super) fn fixed64(&mut self) -> Parsed<[u8; 8]> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(bytes)
    }

    /// The body of a length-delimited value, as a reader of its own.
    pub(super) fn body(&mut self) -> Parsed<Self> {
        let length = self.varint()?;
        let start = self.pos;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        Ok(Self {
            data: &self.data[..self.pos],
            pos: start,
        })
    }

    /// Field number and wire type (0 to 7).
    #[inline]
    pub(super) fn tag(&mut self) -> Parsed<(u32, u8)> {
        let start = self.pos;
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).unwrap_or(u32::MAX);
        if number == 0 || number > MAX_NUMBER {
            return Err(Fault::new(Flaw::Tag, start));
        }
        Ok((number, key.to_le_bytes()[0] & 7))
    }

    pub(super) fn skip(&mut self, wire: u8) -> Parsed<()> {
        match wire {
            0 => self.varint().map(drop),
            1 => self.take(8).map(drop),
            2 => self.body().map(drop),
            5 => self.take(4).map(drop),
            3 | 4 => Err(Fault::new(Flaw::Group, self.pos)),
            _ => Err(Fault::new(Flaw::WireType(wire), self.pos)),
        }
    }
}

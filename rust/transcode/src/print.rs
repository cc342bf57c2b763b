//! Protobuf wire bytes into JSON text.

use std::collections::HashMap;
use std::fmt::Debug;

use crate::base64;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::{Field, Form, Kind, Message, Pool, Shape};
use crate::text::{put_float, put_signed, put_string, put_unsigned};
use crate::wire::{self, Raw, WireReader, invalid, unzigzag};

/// Messages that a reply may nest: protobuf's own limit.
const MAX_DEPTH: usize = 100;

/// Translates one message.
///
/// The wire may have fields in any order, repeated ones scattered and single ones several times.
/// So each message is first cut into its fields, on a stack that all levels share, and sorted if
/// need be.
pub(crate) struct Printer<'p, 'm> {
    pub(crate) pool: &'p Pool,
    pub(crate) out: Vec<u8>,
    defaults: bool,
    entries: Vec<Entry<'m>>,
    depth: usize,
}

/// One occurrence of a known field.
#[derive(Clone, Copy)]
struct Entry<'m> {
    /// Index of the field in its message.
    field: usize,
    raw: Raw<'m>,
}

/// A map's key by its value, not by its bytes.
#[derive(PartialEq, Eq, Hash)]
enum MapKey<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

impl<'p, 'm> Printer<'p, 'm> {
    pub(crate) fn new(pool: &'p Pool, defaults: bool, size_hint: usize) -> Self {
        let out = Vec::with_capacity(size_hint * 2 + 64);
        Self {
            pool,
            out,
            defaults,
            entries: Vec::with_capacity(16),
            depth: 0,
        }
    }

    pub(crate) fn message(&mut self, index: u32, bytes: &'m [u8]) -> Result<()> {
        self.descend(|printer| {
            let message = printer.pool.message(index);
            if message.form != Form::Regular {
                return printer.known(message, bytes);
            }
            printer.out.push(b'{');
            printer.fields(message, bytes, &mut true)?;
            printer.out.push(b'}');
            Ok(())
        })
    }

    /// Print one level deeper, if the limit allows.
    pub(crate) fn descend(&mut self, print: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.depth == MAX_DEPTH {
            return Err(Error::new(
                ErrorKind::Unprintable,
                "messages are nested too deep",
            ));
        }
        self.depth += 1;
        print(self)?;
        self.depth -= 1;
        Ok(())
    }

    /// The fields of a message, without braces; `first` is whether nothing stands before them.
    pub(crate) fn fields(
        &mut self,
        message: &'p Message,
        bytes: &'m [u8],
        first: &mut bool,
    ) -> Result<()> {
        let base = self.scan(message, bytes)?;
        let end = self.entries.len();
        let mut at = base;
        let mut next = 0;
        while at < end {
            let index = self.entries[at].field;
            let run = self.run(at, end);
            self.missing_fields(&message.fields[next..index], first)?;
            self.field(&message.fields[index], at, run, first)?;
            (at, next) = (run, index + 1);
        }
        self.missing_fields(&message.fields[next..], first)?;
        self.entries.truncate(base);
        Ok(())
    }

    /// One field's value alone: what a route's `response_body` names.
    pub(crate) fn member(
        &mut self,
        message: &'p Message,
        bytes: &'m [u8],
        index: usize,
    ) -> Result<()> {
        let base = self.scan(message, bytes)?;
        let end = self.entries.len();
        let field = &message.fields[index];
        match (base..end).find(|at| self.entries[*at].field == index) {
            Some(at) => self.field_value(field, at, self.run(at, end))?,
            None => self.default(field)?,
        }
        self.entries.truncate(base);
        Ok(())
    }

    /// Cut a message into entries, sorted by field; the index of the first.
    fn scan(&mut self, message: &'p Message, bytes: &'m [u8]) -> Result<usize> {
        let base = self.entries.len();
        let mut reader = WireReader::new(bytes);
        let (mut last, mut is_sorted, mut oneofs, mut oneof_twice) = (0, true, 0_u64, false);
        while let Some((number, wire, raw)) = reader.field()? {
            // What the schema does not know, or knows with another type, is an unknown field.
            let Some(index) = message.by_number(number) else {
                continue;
            };
            let field = &message.fields[index];
            let is_packed = wire == wire::BYTES && field.is_repeated();
            if (wire != field.kind.wire() && !is_packed) || field.kind == Kind::Group {
                continue;
            }
            if self.is_foreign(field.kind, raw) {
                continue;
            }
            if let Some(oneof) = field.oneof {
                let bit = 1 << (oneof % 64);
                oneof_twice |= oneofs & bit != 0;
                oneofs |= bit;
            }
            is_sorted &= index >= last;
            last = index;
            self.entries.push(Entry { field: index, raw });
        }
        if oneof_twice {
            self.keep_last_of_oneofs(message, base);
        }
        if !is_sorted {
            self.entries[base..].sort_by_key(|entry| entry.field);
        }
        Ok(base)
    }

    /// Whether this is a number that a closed enum has not: an unknown field, too.
    fn is_foreign(&self, kind: Kind, raw: Raw<'_>) -> bool {
        let (Kind::Enum(index), Raw::Number(bits)) = (kind, raw) else {
            return false;
        };
        let enumeration = self.pool.enumeration(index);
        enumeration.closed && enumeration.quoted_name(low_i32(bits)).is_none()
    }

    /// A oneof's last field wins, and forgets what its earlier occurrences held before another.
    fn keep_last_of_oneofs(&mut self, message: &'p Message, base: usize) {
        let mut winners = vec![None; message.oneofs.len()];
        let mut closed = vec![false; message.oneofs.len()];
        let mut kept = self.entries.split_off(base);
        kept.reverse();
        kept.retain(|entry| {
            let Some(oneof) = message.fields[entry.field].oneof.map(usize::from) else {
                return true;
            };
            let wins = *winners[oneof].get_or_insert(entry.field) == entry.field;
            closed[oneof] |= !wins;
            !closed[oneof]
        });
        self.entries.extend(kept.into_iter().rev());
    }

    /// End of the entries of the field at `start`.
    fn run(&self, start: usize, end: usize) -> usize {
        let field = self.entries[start].field;
        let same = self.entries[start..end]
            .iter()
            .take_while(|entry| entry.field == field);
        start + same.count()
    }

    /// A field that the message has, from its entries `start..end`.
    fn field(
        &mut self,
        field: &'p Field,
        start: usize,
        end: usize,
        first: &mut bool,
    ) -> Result<()> {
        let is_default =
            field.shape == Shape::Implicit && is_default(field.kind, self.entries[end - 1].raw);
        if is_default && !self.defaults {
            return Ok(());
        }
        self.key(field, first);
        self.field_value(field, start, end)
            .map_err(|error| error.in_field(&field.json_name))
    }

    fn field_value(&mut self, field: &'p Field, start: usize, end: usize) -> Result<()> {
        match field.shape {
            Shape::Implicit | Shape::Explicit => match field.kind {
                Kind::Message(index) if end - start > 1 => self.merged(index, start, end),
                kind => self.value(kind, self.entries[end - 1].raw),
            },
            Shape::Expanded | Shape::Packed => self.list(field.kind, start, end),
            Shape::Map => self.map(field.kind, start, end),
        }
    }

    /// A message that came in parts: put together, they are its encoding.
    fn merged(&mut self, index: u32, start: usize, end: usize) -> Result<()> {
        let mut whole = Vec::new();
        for entry in &self.entries[start..end] {
            if let Raw::Bytes(part) = entry.raw {
                whole.extend_from_slice(part);
            }
        }
        let mut inner = self.fork();
        inner.message(index, &whole)?;
        self.out = inner.out;
        Ok(())
    }

    /// A printer that goes on here with bytes of its own; its output is to be taken back.
    pub(crate) fn fork<'n>(&mut self) -> Printer<'p, 'n> {
        Printer {
            pool: self.pool,
            out: std::mem::take(&mut self.out),
            defaults: self.defaults,
            entries: Vec::new(),
            depth: self.depth,
        }
    }

    fn list(&mut self, kind: Kind, start: usize, end: usize) -> Result<()> {
        self.out.push(b'[');
        let mut count = 0;
        for at in start..end {
            match self.entries[at].raw {
                Raw::Bytes(packed) if kind.wire() != wire::BYTES => {
                    let mut reader = WireReader::new(packed);
                    while !reader.is_empty() {
                        let raw = reader.value(kind.wire())?;
                        if !self.is_foreign(kind, raw) {
                            self.item(kind, raw, &mut count)?;
                        }
                    }
                }
                raw => self.item(kind, raw, &mut count)?,
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn item(&mut self, kind: Kind, raw: Raw<'m>, count: &mut usize) -> Result<()> {
        if *count > 0 {
            self.out.push(b',');
        }
        self.value(kind, raw)
            .map_err(|error| error.in_item(*count))?;
        *count += 1;
        Ok(())
    }

    fn map(&mut self, kind: Kind, start: usize, end: usize) -> Result<()> {
        let Kind::Message(index) = kind else {
            return Ok(());
        };
        let [key_field, value_field] = self.pool.message(index).fields.as_slice() else {
            return Ok(());
        };
        let mut pairs = Vec::with_capacity(end - start);
        for at in start..end {
            if let Raw::Bytes(entry) = self.entries[at].raw {
                pairs.push(read_entry(key_field.kind, value_field.kind, entry)?);
            }
        }
        last_of_each(key_field.kind, &mut pairs);
        self.out.push(b'{');
        for (at, (key, value)) in pairs.into_iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            self.map_key(key_field.kind, key)?;
            self.out.push(b':');
            self.value(value_field.kind, value)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn map_key(&mut self, kind: Kind, raw: Raw<'m>) -> Result<()> {
        let is_quoted = matches!(
            kind,
            Kind::String
                | Kind::Int64
                | Kind::Sint64
                | Kind::Sfixed64
                | Kind::Uint64
                | Kind::Fixed64
        );
        if !is_quoted {
            self.out.push(b'"');
        }
        self.value(kind, raw)?;
        if !is_quoted {
            self.out.push(b'"');
        }
        Ok(())
    }

    fn missing_fields(&mut self, fields: &'p [Field], first: &mut bool) -> Result<()> {
        if !self.defaults {
            return Ok(());
        }
        for field in fields {
            if field.shape != Shape::Explicit {
                self.key(field, first);
                self.default(field)?;
            }
        }
        Ok(())
    }

    fn default(&mut self, field: &'p Field) -> Result<()> {
        match field.shape {
            Shape::Implicit => return self.value(field.kind, zero(field.kind)),
            Shape::Explicit => self.out.extend_from_slice(b"null"),
            Shape::Expanded | Shape::Packed => self.out.extend_from_slice(b"[]"),
            Shape::Map => self.out.extend_from_slice(b"{}"),
        }
        Ok(())
    }

    fn key(&mut self, field: &Field, first: &mut bool) {
        if !std::mem::replace(first, false) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(&field.json_key);
    }

    pub(crate) fn value(&mut self, kind: Kind, raw: Raw<'m>) -> Result<()> {
        match raw {
            Raw::Number(bits) => {
                self.number(kind, bits);
                Ok(())
            }
            Raw::Bytes(bytes) => match kind {
                Kind::Message(index) => self.message(index, bytes),
                Kind::Bytes => {
                    self.out.push(b'"');
                    base64::encode(&mut self.out, bytes);
                    self.out.push(b'"');
                    Ok(())
                }
                _ => self.string(bytes),
            },
        }
    }

    pub(crate) fn string(&mut self, bytes: &[u8]) -> Result<()> {
        let text = std::str::from_utf8(bytes).map_err(|_| invalid("a string is not UTF-8"))?;
        put_string(&mut self.out, text);
        Ok(())
    }

    fn number(&mut self, kind: Kind, bits: u64) {
        let out = &mut self.out;
        match kind {
            Kind::Double => put_float(out, f64::from_bits(bits), &f64::from_bits(bits)),
            Kind::Float => {
                let value = f32::from_bits(low_u32(bits));
                let wide = f64::from(value);
                // The largest float's shortest digits are beyond it, where some readers stop.
                let is_last = value.abs() >= f32::MAX;
                put_float(
                    out,
                    wide,
                    if is_last { &wide } else { &value as &dyn Debug },
                );
            }
            Kind::Bool => out.extend_from_slice(if bits == 0 { b"false" } else { b"true" }),
            Kind::Int32 | Kind::Sfixed32 => put_signed(out, low_i32(bits).into()),
            Kind::Sint32 => put_signed(out, unzigzag(low_u32(bits).into())),
            Kind::Uint32 | Kind::Fixed32 => put_unsigned(out, low_u32(bits).into()),
            Kind::Enum(index) => {
                let enumeration = self.pool.enumeration(index);
                match enumeration.quoted_name(low_i32(bits)) {
                    _ if enumeration.is_null => out.extend_from_slice(b"null"),
                    Some(name) => out.extend_from_slice(name),
                    None => put_signed(out, low_i32(bits).into()),
                }
            }
            // 64-bit numbers are strings: JSON's own would lose digits in many a reader.
            _ => {
                out.push(b'"');
                match kind {
                    Kind::Uint64 | Kind::Fixed64 => put_unsigned(out, bits),
                    Kind::Sint64 => put_signed(out, unzigzag(bits)),
                    _ => put_signed(out, bits.cast_signed()),
                }
                out.push(b'"');
            }
        }
    }
}

/// Key and value of a map's entry.
pub(crate) fn read_entry(key: Kind, value: Kind, entry: &[u8]) -> Result<(Raw<'_>, Raw<'_>)> {
    let mut pair = (zero(key), zero(value));
    let mut reader = WireReader::new(entry);
    while let Some((number, wire, raw)) = reader.field()? {
        match number {
            1 if wire == key.wire() => pair.0 = raw,
            2 if wire == value.wire() => pair.1 = raw,
            _ => {}
        }
    }
    Ok(pair)
}

/// Leave only the last of the pairs that have the same key.
pub(crate) fn last_of_each<'m>(kind: Kind, pairs: &mut Vec<(Raw<'m>, Raw<'m>)>) {
    if pairs.len() < 2 {
        return;
    }
    // A keyed hash: services hand out keys that clients have chosen.
    let mut last = HashMap::with_capacity(pairs.len());
    for (at, (key, _)) in pairs.iter().enumerate() {
        last.insert(map_key(kind, *key), at);
    }
    if last.len() < pairs.len() {
        let mut at = 0;
        pairs.retain(|(key, _)| {
            let is_last = last.get(&map_key(kind, *key)) == Some(&at);
            at += 1;
            is_last
        });
    }
}

fn map_key(kind: Kind, raw: Raw<'_>) -> MapKey<'_> {
    match raw {
        Raw::Bytes(bytes) => MapKey::Bytes(bytes),
        Raw::Number(bits) => MapKey::Number(match kind {
            Kind::Bool => u64::from(bits != 0),
            Kind::Int32 | Kind::Uint32 | Kind::Sint32 => low_u32(bits).into(),
            _ => bits,
        }),
    }
}

fn zero(kind: Kind) -> Raw<'static> {
    if kind.wire() == wire::BYTES {
        Raw::Bytes(&[])
    } else {
        Raw::Number(0)
    }
}

pub(crate) fn is_default(kind: Kind, raw: Raw<'_>) -> bool {
    match raw {
        Raw::Bytes(bytes) => bytes.is_empty(),
        Raw::Number(bits) => match kind {
            Kind::Int32 | Kind::Uint32 | Kind::Sint32 | Kind::Enum(_) => low_u32(bits) == 0,
            _ => bits == 0,
        },
    }
}

/// The low half: how protobuf reads a 32-bit field from a longer varint.
fn low_u32(bits: u64) -> u32 {
    let [a, b, c, d, ..] = bits.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

pub(crate) fn low_i32(bits: u64) -> i32 {
    low_u32(bits).cast_signed()
}

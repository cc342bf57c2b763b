//! The body of a request, by length or in chunks (RFC 9112, 6 and 7.1).

use super::head::{self, Framing};
use super::lines::{Lines, Scan};
use crate::message::{HttpLimits, Problem};
use bytes::{Buf, Bytes, BytesMut};

/// Longest line with a chunk's size and extensions.
const MAX_SIZE_LINE: usize = 256;

/// Extensions have no use here, so a body gets by with few (what hyper and Go
/// allow is of the same order).
const MAX_EXTENSION_BYTES: usize = 4 * 1024;

/// Sixteen digits are all that 64 bits can hold.
const MAX_SIZE_DIGITS: usize = 16;

/// A body of which a part has yet to come.
#[derive(Debug)]
pub(super) struct Body {
    /// Most bytes of content to take.
    limit: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Length { whole: usize, left: usize },
    Chunked(Chunks),
}

impl Body {
    pub(super) fn new(framing: Framing, limits: &HttpLimits) -> Self {
        let kind = match framing {
            Framing::Empty => Kind::Length { whole: 0, left: 0 },
            Framing::Length(length) => Kind::Length {
                whole: length,
                left: length,
            },
            Framing::Chunked => Kind::Chunked(Chunks::new(limits)),
        };
        Self {
            limit: limits.max_body,
            kind,
        }
    }

    /// Takes what has come from `input`; the content once all of it is there.
    ///
    /// After [`Problem::BodyTooLarge`] the rest can be skipped.
    pub(super) fn read(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Problem> {
        match &mut self.kind {
            Kind::Length { whole, .. } if *whole > self.limit => Err(Problem::BodyTooLarge),
            // The content stays where it arrived: no second buffer, no copy.
            Kind::Length { whole, .. } if input.len() < *whole => Ok(None),
            Kind::Length { whole, .. } => Ok(Some(input.split_to(*whole).freeze())),
            Kind::Chunked(chunks) => {
                let done = chunks.decode(input, self.limit, true)?;
                Ok(done.then(|| chunks.content.split().freeze()))
            }
        }
    }

    /// Takes what has come from `input`, and whether that was the last of it. Only the sizes of
    /// chunks are checked: what is taken is bounded by what was given.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Result<(Bytes, bool), Problem> {
        match &mut self.kind {
            Kind::Length { left, .. } => {
                let here = input.len().min(*left);
                *left -= here;
                Ok((input.split_to(here).freeze(), *left == 0))
            }
            Kind::Chunked(chunks) => {
                let done = chunks.decode(input, usize::MAX, true)?;
                Ok((chunks.content.split().freeze(), done))
            }
        }
    }

    /// Raises the limit; false if the body is known to break the new one too.
    pub(super) fn allow(&mut self, factor: usize) -> bool {
        self.limit = self.limit.saturating_mul(factor);
        match &self.kind {
            Kind::Length { whole, .. } => *whole <= self.limit,
            Kind::Chunked(chunks) => chunks.announced <= self.limit,
        }
    }

    /// Drops what has come from `input`; true once the body has ended.
    pub(super) fn skip(&mut self, input: &mut BytesMut) -> Result<bool, Problem> {
        match &mut self.kind {
            Kind::Length { left, .. } => {
                let here = input.len().min(*left);
                input.advance(here);
                *left -= here;
                Ok(*left == 0)
            }
            Kind::Chunked(chunks) => {
                chunks.content = BytesMut::new();
                chunks.decode(input, self.limit, false)
            }
        }
    }
}

/// Decodes the chunked coding.
#[derive(Debug)]
struct Chunks {
    state: State,
    content: BytesMut,
    /// Sum of the sizes of all chunks so far.
    announced: usize,
    extension_bytes: usize,
    max_trailer_bytes: usize,
    max_trailers: usize,
}

/// What the next byte is.
#[derive(Debug)]
enum State {
    SizeLine,
    Content { left: usize },
    EndOfContent,
    Trailers(Lines),
    Ended,
}

impl Chunks {
    fn new(limits: &HttpLimits) -> Self {
        Self {
            state: State::SizeLine,
            content: BytesMut::new(),
            announced: 0,
            extension_bytes: 0,
            max_trailer_bytes: limits.max_header_bytes,
            max_trailers: limits.max_headers,
        }
    }

    fn decode(&mut self, input: &mut BytesMut, limit: usize, keep: bool) -> Result<bool, Problem> {
        loop {
            match &mut self.state {
                State::SizeLine => {
                    let Some(size) = self.size_line(input)? else {
                        return Ok(false);
                    };
                    self.state = match size {
                        0 => State::Trailers(Lines::of_trailers()),
                        left => State::Content { left },
                    };
                    self.announced = self.announced.saturating_add(size);
                    if self.announced > limit {
                        return Err(Problem::BodyTooLarge);
                    }
                }
                State::Content { left } => {
                    let here = input.len().min(*left);
                    if keep {
                        self.content.extend_from_slice(&input[..here]);
                    }
                    input.advance(here);
                    *left -= here;
                    if *left > 0 {
                        return Ok(false);
                    }
                    self.state = State::EndOfContent;
                }
                State::EndOfContent => {
                    if !b"\r\n".starts_with(&input[..input.len().min(2)]) {
                        return Err(Problem::Malformed);
                    }
                    if input.len() < 2 {
                        return Ok(false);
                    }
                    input.advance(2);
                    self.state = State::SizeLine;
                }
                State::Trailers(lines) => match lines.advance(input, self.max_trailer_bytes) {
                    Scan::More => return Ok(false),
                    Scan::End(end) => {
                        head::check_trailers(&input.split_to(end), self.max_trailers)?;
                        self.state = State::Ended;
                    }
                    Scan::Malformed => return Err(Problem::Malformed),
                    Scan::TooLarge => return Err(Problem::HeadersTooLarge),
                },
                State::Ended => return Ok(true),
            }
        }
    }

    /// Takes one size line from `input`, if it is there, and answers the size.
    fn size_line(&mut self, input: &mut BytesMut) -> Result<Option<usize>, Problem> {
        let Some(end) = input
            .iter()
            .take(MAX_SIZE_LINE)
            .position(|&byte| byte == b'\n')
        else {
            return if input.len() < MAX_SIZE_LINE {
                Ok(None)
            } else {
                Err(Problem::Malformed)
            };
        };
        let line = input.split_to(end + 1);
        let line = line.strip_suffix(b"\r\n").ok_or(Problem::Malformed)?;
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let (digits, extensions) = line.split_at(digits);
        self.extension_bytes += extensions.len();
        if self.extension_bytes > MAX_EXTENSION_BYTES || !are_extensions(extensions) {
            return Err(Problem::Malformed);
        }
        hexadecimal(digits).map(Some).ok_or(Problem::Malformed)
    }
}

fn hexadecimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > MAX_SIZE_DIGITS {
        return None;
    }
    let digits = std::str::from_utf8(digits).ok()?;
    let size = u64::from_str_radix(digits, 16).ok()?;
    Some(usize::try_from(size).unwrap_or(usize::MAX))
}

/// RFC 9112, 7.1.1, without the white space that it calls bad. Extensions mean
/// nothing to us and are dropped, but one that does not follow the grammar,
/// such as a quoted string with a line end inside, may look complete to one
/// reader and not to the next (CVE-2026-33870).
fn are_extensions(mut rest: &[u8]) -> bool {
    while let Some(extension) = rest.strip_prefix(b";") {
        let Some(after_name) = skip_token(extension) else {
            return false;
        };
        rest = after_name;
        if let Some(value) = rest.strip_prefix(b"=") {
            let after_value = match value.strip_prefix(b"\"") {
                Some(quoted) => skip_quoted(quoted),
                None => skip_token(value),
            };
            match after_value {
                Some(after_value) => rest = after_value,
                None => return false,
            }
        }
    }
    rest.is_empty()
}

/// What follows the token at the start of `text`, if there is one.
fn skip_token(text: &[u8]) -> Option<&[u8]> {
    let is_of_token =
        |byte: &&u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(*byte);
    let length = text.iter().take_while(is_of_token).count();
    (length > 0).then(|| &text[length..])
}

/// What follows the quoted string whose opening quote is already taken.
fn skip_quoted(text: &[u8]) -> Option<&[u8]> {
    let mut bytes = text.iter().enumerate();
    while let Some((position, &byte)) = bytes.next() {
        match byte {
            b'"' => return text.get(position + 1..),
            b'\\' => match bytes.next() {
                Some((_, &escaped)) if is_text(escaped) => {}
                _ => return None,
            },
            byte if is_text(byte) => {}
            _ => return None,
        }
    }
    None
}

fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)
}

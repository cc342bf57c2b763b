//! Message compression: gzip, deflate and zstd, each message by itself.
//!
//! Source: the gRPC project's "gRPC Compression" document. Its `deflate` is the
//! zlib format (RFC 1950), as HTTP's is and as every implementation sends it.

use crate::grpc::{self, Framed, PREFIX, Violation, code};
use bytes::{BufMut, Bytes};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::HeaderMap;
use std::io;
use zstd::zstd_safe;

/// Names of the protocol's headers.
pub(crate) const ENCODING: &str = "grpc-encoding";
pub(crate) const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// What both sides here take, as a header.
pub(crate) const ACCEPTED: &str = "identity, deflate, gzip, zstd";

/// The name of no compression.
pub(crate) const IDENTITY: &str = "identity";

/// Messages smaller than this go into one packet either way, and cost less as they are.
pub const SMALLEST: usize = 1024;

/// A first guess of what a message decompresses to.
const USUAL_RATIO: usize = 4;

/// The least that is allocated for a decompressed message, unless the limit is lower.
const LEAST: usize = 4096;

/// The defaults of zlib and zstd, as other implementations use them.
const LEVEL: Compression = Compression::new(6);
const ZSTD_LEVEL: i32 = 3;

/// zlib's largest window, which every reader has to take.
const WINDOW_BITS: u8 = 15;

/// A way to compress messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, for all its name.
    Deflate,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    /// Every encoding there is.
    pub const ALL: [Self; 3] = [Self::Gzip, Self::Deflate, Self::Zstd];

    /// The encoding of this name; `None` for `identity` too.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|each| each.name().as_bytes() == name)
    }

    /// The encoding that somebody chose by name, or why there is none.
    pub fn named(name: &str) -> Result<Option<Self>, String> {
        match Self::from_name(name.as_bytes()) {
            None if name != IDENTITY => {
                Err(format!("compression {name:?}: expected one of {ACCEPTED}"))
            }
            found => Ok(found),
        }
    }

    /// Its name in headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    /// Whether a peer that sent this `grpc-accept-encoding` takes it.
    pub fn is_accepted_by(self, accepted: &[u8]) -> bool {
        accepted
            .split(|byte| *byte == b',')
            .any(|each| each.trim_ascii() == self.name().as_bytes())
    }

    /// The encoding that `headers` announce; an unknown one is the error.
    pub(crate) fn announced(headers: &HeaderMap) -> Result<Option<Self>, String> {
        match headers.get(&grpc::ENCODING) {
            None => Ok(None),
            Some(value) if value == IDENTITY => Ok(None),
            Some(value) => Self::from_name(value.as_bytes())
                .map(Some)
                .ok_or_else(|| format!("grpc-encoding {value:?} is not supported")),
        }
    }

    /// Compresses a framed message if that makes it smaller.
    pub fn compress(self, framed: impl Into<Framed>) -> Bytes {
        let framed = framed.into().joined();
        if framed.len() < PREFIX + SMALLEST {
            return framed;
        }
        let mut packed = Vec::with_capacity(framed.len() / 2);
        packed.put_bytes(0, PREFIX);
        // What fails here is memory: uncompressed will do.
        let Some(mut packed) = self.pack(&framed[PREFIX..], packed) else {
            return framed;
        };
        if packed.len() >= framed.len() {
            return framed;
        }
        let size = u32::try_from(packed.len() - PREFIX).unwrap_or(u32::MAX);
        packed[0] = grpc::COMPRESSED;
        packed[1..PREFIX].copy_from_slice(&size.to_be_bytes());
        packed.into()
    }

    /// Appends the compressed `message` to `packed`.
    fn pack(self, message: &[u8], mut packed: Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Self::Gzip => deflate(Compress::new_gzip(LEVEL, WINDOW_BITS), message, packed),
            Self::Deflate => deflate(Compress::new(LEVEL, true), message, packed),
            Self::Zstd => {
                packed.reserve_exact(zstd_safe::compress_bound(message.len()));
                let mut cursor = io::Cursor::new(packed);
                cursor.set_position(PREFIX as u64);
                zstd_safe::compress(&mut cursor, message, ZSTD_LEVEL).ok()?;
                Some(cursor.into_inner())
            }
        }
    }

    /// Decompresses a message. Beyond `limit` bytes nothing is made: a bomb
    /// costs no more than a message that is just small enough.
    pub fn decompress(self, packed: &[u8], limit: usize) -> Result<Bytes, Violation> {
        let message = match self {
            Self::Gzip => inflate(Decompress::new_gzip(WINDOW_BITS), packed, limit),
            Self::Deflate => inflate(Decompress::new(true), packed, limit),
            Self::Zstd => unpack_zstd(packed, limit),
        };
        match message {
            Ok(Some(message)) => Ok(message.into()),
            Ok(None) => Err(Violation::new(
                code::RESOURCE_EXHAUSTED,
                format!("message decompresses to more than the limit of {limit} bytes"),
            )),
            Err(error) => Err(Violation::new(
                code::INTERNAL,
                format!("message cannot be decompressed by {}: {error}", self.name()),
            )),
        }
    }
}

/// The next size of a buffer that has to grow.
fn grown(size: usize, packed: usize, limit: usize) -> usize {
    let wanted = if size == 0 {
        packed.saturating_mul(USUAL_RATIO)
    } else {
        size.saturating_mul(2)
    };
    wanted.max(LEAST).min(limit.saturating_add(1))
}

fn deflate(mut compress: Compress, message: &[u8], mut packed: Vec<u8>) -> Option<Vec<u8>> {
    loop {
        let rest = message.get(usize::try_from(compress.total_in()).ok()?..)?;
        match compress.compress_vec(rest, &mut packed, FlushCompress::Finish) {
            Ok(Status::StreamEnd) => return Some(packed),
            Ok(_) => packed.reserve(packed.len().max(SMALLEST)),
            Err(_) => return None,
        }
    }
}

/// `None` if there is more than `limit`.
fn inflate(
    mut decompress: Decompress,
    packed: &[u8],
    limit: usize,
) -> Result<Option<Vec<u8>>, String> {
    let mut message = Vec::new();
    loop {
        let size = grown(message.len(), packed.len(), limit);
        message.reserve_exact(size - message.len());
        let taken = usize::try_from(decompress.total_in()).unwrap_or(usize::MAX);
        let rest = packed.get(taken..).unwrap_or_default();
        let status = decompress
            .decompress_vec(rest, &mut message, FlushDecompress::Finish)
            .map_err(|error| error.to_string())?;
        if message.len() > limit {
            return Ok(None);
        }
        let left = packed.len() as u64 - decompress.total_in();
        if status == Status::StreamEnd {
            return if left == 0 {
                Ok(Some(message))
            } else {
                Err(format!("{left} bytes follow its end"))
            };
        }
        if message.len() < message.capacity() {
            return Err("it is cut short".to_owned());
        }
    }
}

/// In one step, as the message is then its own window: a stream's could be
/// 128 MiB (RFC 8878, 3.1.1.1.2), whatever the size of its message.
fn unpack_zstd(packed: &[u8], limit: usize) -> Result<Option<Vec<u8>>, String> {
    let told = zstd_safe::get_frame_content_size(packed)
        .map_err(|_| "it has no zstd frame".to_owned())?
        .map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    if told.is_some_and(|size| size > limit) {
        return Ok(None);
    }
    let mut context = zstd_safe::DCtx::try_create().ok_or("there is no memory for it")?;
    let mut message: Vec<u8> = Vec::new();
    let mut size = told.unwrap_or_else(|| grown(0, packed.len(), limit));
    loop {
        // What the frame tells may be a lie.
        if message.try_reserve_exact(size).is_err() {
            return Ok(None);
        }
        match context.decompress(&mut message, packed) {
            Ok(_) if message.len() > limit => return Ok(None),
            Ok(_) => return Ok(Some(message)),
            Err(DESTINATION_TOO_SMALL) if size > limit => return Ok(None),
            Err(DESTINATION_TOO_SMALL) => size = grown(size, packed.len(), limit),
            Err(code) => return Err(zstd_safe::get_error_name(code).to_owned()),
        }
    }
}

/// `ZSTD_error_dstSize_tooSmall`, as zstd's functions return it.
const DESTINATION_TOO_SMALL: zstd_safe::ErrorCode = 0_usize.wrapping_sub(70);

#[cfg(test)]
mod tests;

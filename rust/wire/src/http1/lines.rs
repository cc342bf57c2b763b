//! Finds the end of a head or of a trailer section, however the bytes arrive.

/// How far a block of lines has been looked at.
///
/// Each byte is seen once and judged in its order, so the verdict does not
/// depend on how the bytes were split. What a more tolerant reader would take
/// as the end of a line is refused here: a bare LF, a CR without LF, and a
/// line that goes on after white space (RFC 9112, 2.2 and 5.2).
#[derive(Debug)]
pub(super) struct Lines {
    scanned: usize,
    length_of_line: usize,
    after_cr: bool,
    /// RFC 9112, 2.2: one empty line before a request line is forgiven.
    forgives_empty: bool,
}

/// What [`Lines::advance`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// The block goes on.
    More,
    /// The block and the empty line after it are this long.
    End(usize),
    Malformed,
    /// The block has no end within the limit.
    TooLarge,
}

impl Lines {
    pub(super) fn of_head() -> Self {
        Self {
            scanned: 0,
            length_of_line: 0,
            after_cr: false,
            forgives_empty: true,
        }
    }

    pub(super) fn of_trailers() -> Self {
        Self {
            forgives_empty: false,
            ..Self::of_head()
        }
    }

    pub(super) fn started(&self) -> bool {
        self.scanned > 0
    }

    /// How many bytes have been looked at, an offending one included.
    pub(super) fn scanned(&self) -> usize {
        self.scanned
    }

    /// Looks at what has been added to `block`, which only ever grows at its end.
    pub(super) fn advance(&mut self, block: &[u8], limit: usize) -> Scan {
        for &byte in block.iter().skip(self.scanned) {
            if self.scanned >= limit {
                return Scan::TooLarge;
            }
            self.scanned += 1;
            match byte {
                b'\n' if self.after_cr => {
                    self.after_cr = false;
                    if self.length_of_line == 0 && !self.forgives_empty {
                        return Scan::End(self.scanned);
                    }
                    self.length_of_line = 0;
                    self.forgives_empty = false;
                }
                _ if self.after_cr => return Scan::Malformed,
                b'\r' => self.after_cr = true,
                b' ' | b'\t' if self.length_of_line == 0 => return Scan::Malformed,
                b'\t' => self.length_of_line += 1,
                0..0x20 | 0x7f => return Scan::Malformed,
                _ => self.length_of_line += 1,
            }
        }
        Scan::More
    }
}

//! Walks compressed header fields (RFC 7541 §5, §6) as far as it takes to find `:authority`: lengths are
//! followed, the table of fields sent before is not kept.

/// The field, and its place in the static table (RFC 7541 appendix A).
const AUTHORITY: &[u8] = b":authority";
const AUTHORITY_INDEX: usize = 1;
/// No number in a request that is served is larger: it would be a length or a place in a table.
const MOST: usize = 1 << 24;

/// The bytes are no fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault;

/// What a number stands for.
#[derive(Clone, Copy, Debug)]
enum Number {
    /// A whole field by its place in the table, or the table's size: nothing follows.
    Alone,
    /// The name of a field by its place; 0 when it is written out.
    Name,
    /// Length of a name.
    NameLength { plain: bool },
    /// Length of the value of a field, of `:authority` or not.
    ValueLength { authority: bool, plain: bool },
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// Before a field.
    Start,
    /// In a number whose first byte was full.
    Number { what: Number, value: usize, shift: u32 },
    /// Before the length of a name.
    NameLength,
    /// In a name, so many bytes of which are to come; `matched` of `:authority` came, if all fit.
    Name { left: usize, matched: Option<usize> },
    /// Before the length of a value.
    ValueLength { authority: bool },
    /// In a value.
    Value { left: usize, mend: bool },
}

/// The walk so far.
#[derive(Debug)]
pub(super) struct Fields(At);

impl Default for Fields {
    fn default() -> Self {
        Self(At::Start)
    }
}

impl Fields {
    /// Whether a block of fields may end here.
    pub(super) fn at_end(&self) -> bool {
        matches!(self.0, At::Start)
    }

    /// Takes the next byte and changes it if it is a percent sign in an authority.
    pub(super) fn step(&mut self, byte: &mut u8) -> Result<(), Fault> {
        self.0 = match self.0 {
            At::Start => start(*byte)?,
            At::Number { what, value, shift } => {
                let value = (usize::from(*byte & 0x7f) << shift)
                    .checked_add(value)
                    .filter(|value| *value <= MOST)
                    .ok_or(Fault)?;
                if *byte & 0x80 == 0 {
                    known(what, value)?
                } else if shift >= 21 {
                    return Err(Fault);
                } else {
                    let shift = shift + 7;
                    At::Number { what, value, shift }
                }
            }
            At::NameLength => {
                let plain = *byte & 0x80 == 0;
                number(*byte, 7, Number::NameLength { plain })?
            }
            At::Name { left, matched } => {
                let matched = matched.filter(|n| AUTHORITY.get(*n) == Some(byte)).map(|n| n + 1);
                name(left - 1, matched)
            }
            At::ValueLength { authority } => {
                let plain = *byte & 0x80 == 0;
                number(*byte, 7, Number::ValueLength { authority, plain })?
            }
            At::Value { left, mend } => {
                if mend && *byte == b'%' {
                    *byte = b'-';
                }
                value(left - 1, mend)
            }
        };
        Ok(())
    }
}

/// The first byte of a field (RFC 7541 §6).
fn start(byte: u8) -> Result<At, Fault> {
    match byte {
        0x80.. => number(byte, 7, Number::Alone),
        0x40..0x80 => number(byte, 6, Number::Name),
        0x20..0x40 => number(byte, 5, Number::Alone),
        0..0x20 => number(byte, 4, Number::Name),
    }
}

/// A number that begins in the low bits of `byte` (RFC 7541 §5.1).
fn number(byte: u8, bits: u32, what: Number) -> Result<At, Fault> {
    let full = (1_u8 << bits) - 1;
    match byte & full {
        first if first == full => Ok(At::Number {
            what,
            value: usize::from(full),
            shift: 0,
        }),
        first => known(what, usize::from(first)),
    }
}

fn known(what: Number, number: usize) -> Result<At, Fault> {
    match what {
        Number::Alone => Ok(At::Start),
        Number::Name if number == 0 => Ok(At::NameLength),
        Number::Name => Ok(At::ValueLength {
            authority: number == AUTHORITY_INDEX,
        }),
        // A field without a name is none.
        Number::NameLength { .. } if number == 0 => Err(Fault),
        Number::NameLength { plain } => Ok(name(number, (plain && number == AUTHORITY.len()).then_some(0))),
        Number::ValueLength { authority, plain } => Ok(value(number, authority && plain)),
    }
}

fn name(left: usize, matched: Option<usize>) -> At {
    match left {
        0 => At::ValueLength {
            authority: matched == Some(AUTHORITY.len()),
        },
        _ => At::Name { left, matched },
    }
}

fn value(left: usize, mend: bool) -> At {
    match left {
        0 => At::Start,
        _ => At::Value { left, mend },
    }
}

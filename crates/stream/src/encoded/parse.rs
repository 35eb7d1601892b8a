//! Reading of encoded values: heads, skipping, checks.

use rmp::Marker;

use crate::value::is_big_int;

/// Error in encoded values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end within a value.
    #[error("a value ends early")]
    Short,
    /// There is no such value.
    #[error("{0}")]
    NoValue(&'static str),
    /// Lists and maps are nested too deep.
    #[error("lists and maps are nested too deep")]
    TooDeep,
}

/// First part of a value: all of it, or the number of its elements.
pub(super) enum Head<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    Text(&'a [u8]),
    Digits(&'a [u8]),
    List(usize),
    Map(usize),
}

#[inline]
fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N], Malformed> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(Malformed::Short)?;
    *bytes = rest;
    Ok(taken)
}

#[inline]
fn take_slice<'a>(bytes: &mut &'a [u8], n: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = bytes.split_at_checked(n).ok_or(Malformed::Short)?;
    *bytes = rest;
    Ok(taken)
}

fn take_u8(bytes: &mut &[u8]) -> Result<usize, Malformed> {
    take::<1>(bytes).map(|[byte]| usize::from(*byte))
}

fn take_u16(bytes: &mut &[u8]) -> Result<usize, Malformed> {
    take(bytes).map(|it| usize::from(u16::from_be_bytes(*it)))
}

fn take_u32(bytes: &mut &[u8]) -> Result<usize, Malformed> {
    take(bytes).map(|it| u32::from_be_bytes(*it) as usize)
}

/// Reads the head of the value at the front of `bytes`.
#[inline]
pub(super) fn head<'a>(bytes: &mut &'a [u8]) -> Result<Head<'a>, Malformed> {
    let [marker] = *take(bytes)?;
    let text = |bytes: &mut &'a [u8], n| take_slice(bytes, n).map(Head::Text);
    let digits = |bytes: &mut &'a [u8], n| take_slice(bytes, n).map(Head::Digits);
    Ok(match Marker::from_u8(marker) {
        Marker::FixPos(value) => Head::Int(value.into()),
        Marker::FixNeg(value) => Head::Int(value.into()),
        Marker::FixStr(n) => text(bytes, n.into())?,
        Marker::I64 => Head::Int(i64::from_be_bytes(*take(bytes)?)),
        Marker::U8 => Head::Int(u8::from_be_bytes(*take(bytes)?).into()),
        Marker::U16 => Head::Int(u16::from_be_bytes(*take(bytes)?).into()),
        Marker::U32 => Head::Int(u32::from_be_bytes(*take(bytes)?).into()),
        Marker::U64 => {
            let value = u64::from_be_bytes(*take(bytes)?);
            i64::try_from(value).map_or(Head::UInt(value), Head::Int)
        }
        Marker::F64 => Head::Float(f64::from_be_bytes(*take(bytes)?)),
        Marker::Null => Head::Null,
        Marker::True => Head::Bool(true),
        Marker::False => Head::Bool(false),
        Marker::Str8 => {
            let n = take_u8(bytes)?;
            text(bytes, n)?
        }
        Marker::Str16 => {
            let n = take_u16(bytes)?;
            text(bytes, n)?
        }
        Marker::Str32 => {
            let n = take_u32(bytes)?;
            text(bytes, n)?
        }
        Marker::I8 => Head::Int(i8::from_be_bytes(*take(bytes)?).into()),
        Marker::I16 => Head::Int(i16::from_be_bytes(*take(bytes)?).into()),
        Marker::I32 => Head::Int(i32::from_be_bytes(*take(bytes)?).into()),
        Marker::F32 => Head::Float(f32::from_be_bytes(*take(bytes)?).into()),
        Marker::FixArray(n) => Head::List(n.into()),
        Marker::Array16 => Head::List(take_u16(bytes)?),
        Marker::Array32 => Head::List(take_u32(bytes)?),
        Marker::FixMap(n) => Head::Map(n.into()),
        Marker::Map16 => Head::Map(take_u16(bytes)?),
        Marker::Map32 => Head::Map(take_u32(bytes)?),
        Marker::Bin8 => {
            let n = take_u8(bytes)?;
            digits(bytes, n)?
        }
        Marker::Bin16 => {
            let n = take_u16(bytes)?;
            digits(bytes, n)?
        }
        Marker::Bin32 => {
            let n = take_u32(bytes)?;
            digits(bytes, n)?
        }
        Marker::Reserved
        | Marker::Ext8
        | Marker::Ext16
        | Marker::Ext32
        | Marker::FixExt1
        | Marker::FixExt2
        | Marker::FixExt4
        | Marker::FixExt8
        | Marker::FixExt16 => return Err(Malformed::NoValue("an extension type is no value")),
    })
}

/// Skips the next `n` values, whatever is in them.
#[inline]
pub(super) fn skip(bytes: &mut &[u8], n: usize) -> Result<(), Malformed> {
    let mut left = n;
    while left > 0 {
        left -= 1;
        match head(bytes)? {
            // A forged length does not overflow: each element takes a byte at least.
            Head::List(n) => left = left.saturating_add(n),
            Head::Map(n) => left = left.saturating_add(2 * n),
            _ => {}
        }
    }
    Ok(())
}

/// Checks the value at the front of `bytes`, and removes it.
pub(super) fn check(bytes: &mut &[u8], depth: usize) -> Result<(), Malformed> {
    match head(bytes)? {
        Head::Text(text) => check_text(text),
        Head::Digits(digits) => match std::str::from_utf8(digits).is_ok_and(is_big_int) {
            true => Ok(()),
            false => Err(Malformed::NoValue("binary data is no value")),
        },
        Head::List(_) | Head::Map(_) if depth == 0 => Err(Malformed::TooDeep),
        Head::List(n) => (0..n).try_for_each(|_| check(bytes, depth - 1)),
        Head::Map(n) => (0..n).try_for_each(|_| {
            match head(bytes)? {
                Head::Text(key) => check_text(key)?,
                _ => return Err(Malformed::NoValue("a key of a map is not text")),
            }
            check(bytes, depth - 1)
        }),
        Head::Null | Head::Bool(_) | Head::Int(_) | Head::UInt(_) | Head::Float(_) => Ok(()),
    }
}

fn check_text(text: &[u8]) -> Result<(), Malformed> {
    std::str::from_utf8(text).map(drop).map_err(|_| Malformed::NoValue("a text is not UTF-8"))
}

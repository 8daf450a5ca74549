//! TensorBoard event files: scalars in TFRecord framing.
//!
//! A record is its length (8 bytes, little-endian), the masked CRC-32C of those 8 bytes, the data, and the masked CRC-32C of the data.
//! The data are an `Event` in protobuf's wire encoding, of which five fields are needed. Sources: tensorflow/core/lib/io/record_writer.h,
//! tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto; RFC 3720, section B.4 (CRC-32C).
//!
//! Written by hand because the crates that do it (`tboard` 0.1.1, `tfrecord` 0.15, `tensorboard-rs` 0.5.9) were last released in 2024,
//! 2023 and 2022 and each brings a protobuf library, for what takes a hundred lines here.

use std::{io::Write, path::Path};

use tamis_nn::atomic_write::write_whole;

use crate::{Error, Result};

/// One point of a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scalar<'a> {
    /// The curve's name; what stands before a `/` groups curves.
    pub(crate) tag: &'a str,
    /// Its place on the horizontal axis.
    pub(crate) step: u64,
    /// When it was, in seconds since 1970 (UTC).
    pub(crate) wall_time: f64,
    /// The value; a file holds 32 bits of it.
    pub(crate) value: f64,
}

/// Writes a file of these points, in their order, whole. `began` is its own wall time, in seconds since 1970 (UTC).
///
/// # Errors
///
/// If the file cannot be written.
pub(crate) fn write(path: &Path, began: f64, scalars: &[Scalar<'_>]) -> Result<()> {
    write_whole(path, &mut |out| {
        let mut put = |data: &[u8]| out.write_all(&record(data)).map_err(Error::io(path, "write"));
        put(&header(began))?;
        scalars.iter().try_for_each(|scalar| put(&event(scalar)))
    })
}

/// The event that every file begins with: `wall_time = 1`, `file_version = 3`.
fn header(began: f64) -> Vec<u8> {
    let mut data = double(1, began);
    data.extend(bytes(3, b"brain.Event:2"));
    data
}

/// An event of one scalar: `wall_time = 1`, `step = 2`, `summary = 5` { `value = 1` { `tag = 1`, `simple_value = 2` } }.
fn event(scalar: &Scalar<'_>) -> Vec<u8> {
    let mut value = bytes(1, scalar.tag.as_bytes());
    value.push(field(2, 5));
    value.extend((scalar.value as f32).to_le_bytes());
    let mut data = double(1, scalar.wall_time);
    data.push(field(2, 0));
    data.extend(varint(scalar.step));
    data.extend(bytes(5, &bytes(1, &value)));
    data
}

/// What a field begins with; wire types: 0 varint, 1 eight bytes, 2 a length and as many bytes, 5 four bytes.
fn field(number: u8, wire_type: u8) -> u8 {
    number << 3 | wire_type
}

fn double(number: u8, value: f64) -> Vec<u8> {
    [&[field(number, 1)][..], &value.to_le_bytes()].concat()
}

fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
    [&[field(number, 2)][..], &varint(value.len() as u64), value].concat()
}

/// Seven bits a byte, low ones first; the eighth says that more follow.
fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), data, &masked(data)].concat()
}

/// TFRecord's mask keeps the checksum of data that hold checksums from being trivial.
fn masked(data: &[u8]) -> [u8; 4] {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// CRC-32C (Castagnoli), bit by bit: a file has some hundred thousand bytes.
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in data {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, section B.4: 32 bytes of zeros, 32 of ones, 0 to 31; and the check value of the catalogue of CRCs.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_scalar_is_the_event_that_the_wire_encoding_makes_of_it() {
        let scalar = Scalar {
            tag: "a/b",
            step: 300,
            wall_time: 2.0,
            value: 0.5,
        };
        // 2.0 is 0x4000000000000000; 300 = 2 * 128 + 44 is ac 02; 0.5 is 0x3f000000; value: 5 + 5 bytes, summary: 12.
        let want = [
            &[0x09, 0, 0, 0, 0, 0, 0, 0, 0x40][..],
            &[0x10, 0xac, 0x02],
            &[0x2a, 12, 0x0a, 10],
            &[0x0a, 3, b'a', b'/', b'b'],
            &[0x15, 0, 0, 0, 0x3f],
        ]
        .concat();
        assert_eq!(event(&scalar), want);
        let record = record(&want);
        assert_eq!(record.len(), 8 + 4 + 26 + 4);
        assert_eq!(record[..8], [26, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(record[12..38], want[..]);
    }
}

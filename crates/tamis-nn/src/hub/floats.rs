//! Arrays of 16-, 32- and 64-bit floating-point numbers as `f32`.

use std::path::Path;

use safetensors::{Dtype, tensor::TensorView};

use crate::{Error, Place, Result};

/// The numbers of a tensor.
///
/// # Errors
///
/// If they are not floating-point numbers.
pub fn of_tensor(path: &Path, tensor: &TensorView<'_>) -> Result<Vec<f32>> {
    read(path, tensor.data(), dtype_of(path, tensor)?)
}

/// The type of a tensor's numbers, in short.
///
/// # Errors
///
/// If they are not floating-point numbers.
pub fn dtype_of(path: &Path, tensor: &TensorView<'_>) -> Result<&'static str> {
    match tensor.dtype() {
        Dtype::F32 => Ok("f32"),
        Dtype::F64 => Ok("f64"),
        Dtype::F16 => Ok("f16"),
        Dtype::BF16 => Ok("bf16"),
        other => Err(of_no_known_type(path, &format!("{other:?}"))),
    }
}

/// How many bytes a number of this type has.
pub fn bytes(dtype: &str) -> usize {
    match dtype {
        "f64" => 8,
        "f32" => 4,
        _ => 2,
    }
}

/// That numbers are of a type that is not read.
pub fn of_no_known_type(path: &Path, found: &str) -> Error {
    Error::data(
        Place::file(path),
        "numbers of type float16, bfloat16, float32 or float64",
        found.to_owned(),
    )
}

/// Little-endian numbers of a type named as NumPy and safetensors have them in short: f16, bf16, f32, f64.
///
/// # Errors
///
/// If the type is another.
pub fn read(path: &Path, bytes: &[u8], dtype: &str) -> Result<Vec<f32>> {
    let half = |bits: u16, exponent_bits: u32| -> f32 {
        if exponent_bits == 8 {
            return f32::from_bits(u32::from(bits) << 16);
        }
        let (sign, exponent, fraction) = (u32::from(bits >> 15) << 31, (bits >> 10) & 31, u32::from(bits & 1023));
        match exponent {
            // subnormal: fraction x 2^-24
            0 => f32::from_bits(sign | (fraction as f32 * 2f32.powi(-24)).to_bits()),
            31 => f32::from_bits(sign | 0x7f80_0000 | (fraction << 13)),
            _ => f32::from_bits(sign | ((u32::from(exponent) + 112) << 23) | (fraction << 13)),
        }
    };
    let pairs = || bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    match dtype {
        "f32" => Ok(bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()),
        "f64" => Ok(bytes
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
            .collect()),
        "f16" => Ok(pairs().map(|bits| half(bits, 5)).collect()),
        "bf16" => Ok(pairs().map(|bits| half(bits, 8)).collect()),
        other => Err(of_no_known_type(path, other)),
    }
}

//! Arrays of 16-, 32- and 64-bit floating-point numbers as `f32`.

use std::path::Path;

use half::{bf16, f16};
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
    let pairs = || bytes.as_chunks::<2>().0.iter();
    match dtype {
        "f32" => Ok(bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()),
        "f64" => Ok(bytes
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
            .collect()),
        "f16" => Ok(pairs().map(|&pair| f16::from_le_bytes(pair).to_f32()).collect()),
        "bf16" => Ok(pairs().map(|&pair| bf16::from_le_bytes(pair).to_f32()).collect()),
        other => Err(of_no_known_type(path, other)),
    }
}

//! Embeddings that the user computed: a .npy array, or a .safetensors file with `train`, `validation` and `test`.
//!
//! Vectors belong to the records of the files in order, bad rows included, so that an array made from the same files always
//! fits. A .npy array holds the records of train, then validation, then test. Shapes: `(records, dim)` for texts,
//! `(records, 2, dim)` for pairs, `(records, 1 + choices, dim)` for questions. Vectors are brought to unit length, as those
//! of every other embedder.

use std::{path::Path, sync::Arc};

use tamis_nn::{Matrix, hub::tensors};

use crate::{Error, Place, Result, data::Split, embed::Embedded};

/// The names of the splits, and of a safetensors file's tensors.
const SPLITS: [&str; 3] = ["train", "validation", "test"];

/// An array as it lies in a file.
struct Array {
    /// Records, segments of a record, length of a vector.
    shape: [usize; 3],
    values: Vec<f32>,
}

/// The vectors of each split's examples.
///
/// # Errors
///
/// If the file cannot be read, is broken, holds something that is not finite, or does not fit the splits.
pub fn load(path: &Path, splits: &[&Split]) -> Result<Vec<Embedded>> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    let records: Vec<usize> = splits.iter().map(|split| split.records()).collect();
    let arrays = if path.extension().is_some_and(|extension| extension == "npy") {
        cut(path, &parse_npy(path, &bytes)?, &records)?
    } else {
        parse_safetensors(path, &bytes, splits.len())?
    };
    for (array, name) in arrays.iter().zip(SPLITS) {
        let (dim, own) = (arrays[0].shape[2], array.shape[2]);
        if own != dim {
            return Err(Error::data(
                Place::file(path),
                format!("vectors of one length, {dim} as in train"),
                format!("{own} in {name}"),
            ));
        }
    }
    splits
        .iter()
        .zip(SPLITS)
        .zip(arrays.into_iter().zip(records))
        .map(|((split, name), (array, records))| of_split(path, name, split, &array, records))
        .collect()
}

fn of_split(path: &Path, name: &str, split: &Split, array: &Array, records: usize) -> Result<Embedded> {
    let [rows, segments, dim] = array.shape;
    if rows != records {
        return Err(Error::data(
            Place::file(path),
            format!("{records} rows for {name}, one a record"),
            rows.to_string(),
        )
        .with_hint("embed every record of the files in order, those with mistakes too"));
    }
    let mut first_record = vec![0];
    for file in &split.files {
        first_record.push(first_record[first_record.len() - 1] + file.records as usize);
    }
    let mut starts = vec![0];
    let mut vectors = Vec::new();
    for example in &split.examples {
        let wanted = example.input.texts().len();
        // A prompt and its response may share one vector.
        let wanted = if matches!(example.input, crate::data::Input::Response { .. }) {
            segments
        } else {
            wanted
        };
        if wanted > segments {
            return Err(Error::data(
                Place::file(path),
                format!("{wanted} vectors a row for {name}, shape (records, {wanted}, dim)"),
                format!("shape ({rows}, {segments}, {dim})"),
            ));
        }
        let row = first_record[example.origin.file as usize] + example.origin.record as usize;
        for segment in 0..wanted {
            let at = (row * segments + segment) * dim;
            let vector = &array.values[at..at + dim];
            if !vector.iter().all(|x| x.is_finite()) {
                return Err(Error::data(
                    Place::file(path),
                    "finite numbers",
                    format!("NaN or infinity in {name}, row {}", row + 1),
                ));
            }
            // In f64, where the square of no f32 is too large.
            let norm = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
            vectors.extend(vector.iter().map(|&x| (f64::from(x) * scale) as f32));
        }
        starts.push(starts[starts.len() - 1] + wanted as u32);
    }
    let count = vectors.len() / dim.max(1);
    Ok(Embedded {
        vectors: Arc::new(Matrix::from_vec(vectors, count, dim)),
        starts,
    })
}

/// One array of all splits, cut by their numbers of records.
fn cut(path: &Path, array: &Array, records: &[usize]) -> Result<Vec<Array>> {
    let [rows, segments, dim] = array.shape;
    let total: usize = records.iter().sum();
    if rows != total {
        let parts: Vec<String> = records.iter().map(ToString::to_string).collect();
        return Err(Error::data(
            Place::file(path),
            format!("{total} rows ({})", parts.join(" + ")),
            rows.to_string(),
        )
        .with_hint("the array holds the records of train, then validation, then test, those with mistakes too"));
    }
    let mut values = array.values.as_slice();
    Ok(records
        .iter()
        .map(|&rows| {
            let (own, rest) = values.split_at(rows * segments * dim);
            values = rest;
            Array {
                shape: [rows, segments, dim],
                values: own.to_vec(),
            }
        })
        .collect())
}

/// Two or three dimensions as records, segments, length.
fn shape_of(path: &Path, shape: &[usize]) -> Result<[usize; 3]> {
    match *shape {
        [rows, dim] if dim > 0 => Ok([rows, 1, dim]),
        [rows, segments, dim] if segments > 0 && dim > 0 => Ok([rows, segments, dim]),
        _ => Err(Error::data(
            Place::file(path),
            "an array of shape (records, dim) or (records, segments, dim)",
            format!("{shape:?}"),
        )),
    }
}

/// A NumPy array, format version 1 to 3.
fn parse_npy(path: &Path, bytes: &[u8]) -> Result<Array> {
    let broken = |found: &str| Error::data(Place::file(path), "a NumPy array in C order", found.to_owned());
    let body = bytes
        .strip_prefix(b"\x93NUMPY")
        .ok_or_else(|| broken("another kind of file"))?;
    let (start, length) = match *body {
        [1, _, a, b, ..] => (4, usize::from(u16::from_le_bytes([a, b]))),
        [2 | 3, _, a, b, c, d, ..] => (6, u32::from_le_bytes([a, b, c, d]) as usize),
        _ => return Err(broken("a header of an unknown version")),
    };
    let header = body
        .get(start..start + length)
        .and_then(|header| std::str::from_utf8(header).ok())
        .ok_or_else(|| broken("a header cut short"))?;
    let value = |key: &str| {
        header
            .split_once(&format!("'{key}':"))
            .map(|(_, rest)| rest.trim_start())
    };
    let (Some(descr), Some(order), Some(shape)) = (value("descr"), value("fortran_order"), value("shape")) else {
        return Err(broken("a header without descr, fortran_order and shape"));
    };
    if order.starts_with("True") {
        return Err(
            broken("Fortran order").with_hint("save it with `numpy.save(path, numpy.ascontiguousarray(array))`")
        );
    }
    let dtype = match descr.trim_start_matches('\'').split('\'').next().unwrap_or_default() {
        "<f4" => "f32",
        "<f8" => "f64",
        "<f2" => "f16",
        other => other,
    };
    let shape = shape.trim_start_matches('(').split(')').next().unwrap_or_default();
    let shape: Vec<usize> = shape
        .split(',')
        .map(str::trim)
        .filter(|size| !size.is_empty())
        .map(|size| size.parse().map_err(|_| broken("a shape that cannot be read")))
        .collect::<Result<_>>()?;
    let shape = shape_of(path, &shape)?;
    let values = tamis_nn::hub::floats::read(path, &body[start + length..], dtype)?;
    if shape
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size))
        != Some(values.len())
    {
        return Err(broken(&format!("{} numbers for shape {shape:?}", values.len())));
    }
    Ok(Array { shape, values })
}

fn parse_safetensors(path: &Path, bytes: &[u8], splits: usize) -> Result<Vec<Array>> {
    let parsed = tensors::parse(path, bytes)?;
    SPLITS[..splits]
        .iter()
        .map(|name| {
            let tensor = parsed.tensor(name).map_err(|_| {
                let mut have = parsed.names();
                have.sort_unstable();
                let have = if have.is_empty() {
                    "none".to_owned()
                } else {
                    have.join(", ")
                };
                Error::data(Place::file(path), format!("a tensor named `{name}`"), have)
            })?;
            Ok(Array {
                shape: shape_of(path, tensor.shape())?,
                values: tamis_nn::hub::floats::of_tensor(path, &tensor)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;
    use crate::data::{Compression, Example, Format, Input, Origin, SourceFile};
    use tamis_nn::Fingerprint;

    /// Three records, the second of them bad.
    fn split() -> Split {
        let file = SourceFile {
            path: "t.jsonl".into(),
            format: Format::JsonLines,
            compression: Compression::Plain,
            records: 3,
            hash: Fingerprint::of(["t"]),
        };
        let example = |record| Example {
            input: Input::Text("x".into()),
            target: 0,
            origin: Origin {
                file: 0,
                line: record + 1,
                record,
            },
        };
        Split {
            files: vec![file],
            examples: vec![example(0), example(2)],
        }
    }

    fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        [
            b"\x93NUMPY\x01\x00",
            &(header.len() as u16).to_le_bytes()[..],
            header.as_bytes(),
            data,
        ]
        .concat()
    }

    fn loaded(name: &str, bytes: &[u8]) -> Result<Vec<Embedded>> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("writes");
        load(&path, &[&split()])
    }

    fn all_of(embedded: &Embedded) -> Vec<f32> {
        let store = &embedded.vectors;
        store.rows(0..store.count()).expect("reads").into_owned()
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    #[test]
    fn vectors_belong_to_records_bad_ones_included() {
        let bytes = npy("<f4", "(3, 2)", &floats(&[3.0, 4.0, 9.0, 9.0, 0.0, -2.0]));
        let embedded = loaded("v.npy", &bytes).expect("loads");
        assert_eq!(*all_of(&embedded[0]), [0.6, 0.8, 0.0, -1.0]);
        // 0x3c00 is 1, 0x4000 is 2, 0xc000 is -2, 0x0001 is 2^-24, in half precision
        let halves: Vec<u8> = [0x3c00u16, 0, 0x4000, 0x4000, 0, 0xc000]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let embedded = loaded("v.npy", &npy("<f2", "(3, 2)", &halves)).expect("loads");
        assert_eq!(*all_of(&embedded[0]), [1.0, 0.0, 0.0, -1.0]);
        let tensors =
            safetensors::tensor::TensorView::new(Dtype::F32, vec![3, 2], &bytes[bytes.len() - 24..]).expect("a view");
        let bytes = safetensors::serialize([("train", tensors)], None).expect("serialises");
        assert_eq!(
            *all_of(&loaded("v.safetensors", &bytes).expect("loads")[0]),
            [0.6, 0.8, 0.0, -1.0]
        );
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let said = |name: &str, bytes: &[u8]| {
            let error = loaded(name, bytes).expect_err("is refused");
            assert!(error.is_input());
            let text = error.to_string();
            text.split_once(name).map_or(text.clone(), |(_, rest)| rest.to_owned())
        };
        let all = [
            said("v.npy", &npy("<f4", "(2, 2)", &floats(&[1.0; 4]))),
            said(
                "v.npy",
                &npy("<f4", "(3, 2)", &floats(&[1.0, 1.0, 1.0, 1.0, f32::NAN, 1.0])),
            ),
            said("v.npy", &npy("<i8", "(3, 1)", &[0; 24])),
            said("v.npy", &npy("<f4", "(3,)", &floats(&[1.0; 3]))),
            said("v.npy", &npy("<f4", "(3, 2)", &floats(&[1.0; 5]))),
            said("v.npy", b"\x93NUMPY\x01\x00\xff\xff{"),
            said("v.npy", b"hello"),
            said("v.safetensors", &[0xff; 40]),
        ];
        insta::assert_snapshot!(all.join("\n"));
    }
}

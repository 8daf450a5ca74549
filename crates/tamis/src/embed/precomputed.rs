//! Embeddings that the user computed: a .npy array, or a .safetensors file with `train`, `validation` and `test`.
//!
//! Vectors belong to the records of the files in order, bad rows included, so that an array made from the same files always
//! fits. A .npy array holds the records of train, then validation, then test. Shapes: `(records, dim)` for texts,
//! `(records, 2, dim)` for pairs, `(records, 1 + choices, dim)` for questions. Vectors are brought to unit length, as those
//! of every other embedder.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use safetensors::{SafeTensors, tensor::TensorView};
use tamis_nn::hub::{floats, tensors};

use crate::{
    Error, Place, Result,
    data::{Input, Split},
    embed::Embedded,
    vectors::Collector,
};

/// The names of the splits, and of a safetensors file's tensors.
const SPLITS: [&str; 3] = ["train", "validation", "test"];

/// An array as it lies in a file: the records of one split.
struct Array<'a> {
    /// Records, segments of a record, length of a vector.
    shape: [usize; 3],
    /// The type of its numbers, in short.
    dtype: &'static str,
    numbers: &'a mut dyn Read,
}

/// The vectors of each split's examples; where they are many, from a file in the folder.
///
/// # Errors
///
/// If the file cannot be read, is broken, holds something that is not finite, or does not fit the splits.
pub fn load(path: &Path, splits: &[&Split], folder: &Path) -> Result<Vec<Embedded>> {
    let splits = splits.iter().copied().zip(SPLITS);
    if path.extension().is_some_and(|extension| extension == "npy") {
        let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(Error::io(path, "read"))?);
        let Header {
            shape: [rows, segments, dim],
            dtype,
        } = read_npy_header(path, &mut file)?;
        check_records(path, rows, splits.clone().map(|(split, _)| split.records()))?;
        return splits
            .map(|(split, name)| {
                let array = Array {
                    shape: [split.records(), segments, dim],
                    dtype,
                    numbers: &mut file,
                };
                of_split(path, name, split, array, folder)
            })
            .collect();
    }
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    let parsed = tensors::parse(path, &bytes)?;
    let mut first = None;
    splits
        .map(|(split, name)| {
            let tensor = tensor(path, &parsed, name)?;
            let shape = shape_of(path, tensor.shape())?;
            let dim = *first.get_or_insert(shape[2]);
            if shape[2] != dim {
                return Err(Error::data(
                    Place::file(path),
                    format!("vectors of one length, {dim} as in train"),
                    format!("{} in {name}", shape[2]),
                ));
            }
            let array = Array {
                shape,
                dtype: floats::dtype_of(path, &tensor)?,
                numbers: &mut tensor.data(),
            };
            of_split(path, name, split, array, folder)
        })
        .collect()
}

fn of_split<'a>(path: &'a Path, name: &str, split: &Split, array: Array<'a>, folder: &Path) -> Result<Embedded> {
    let [rows, segments, dim] = array.shape;
    if rows != split.records() {
        return Err(Error::data(
            Place::file(path),
            format!("{} rows for {name}, one a record", split.records()),
            rows.to_string(),
        )
        .with_hint("embed every record of the files in order, those with mistakes too"));
    }
    let mut first_record = vec![0];
    for file in &split.files {
        first_record.push(first_record[first_record.len() - 1] + file.records as usize);
    }
    let wanted = |input: &Input| match input {
        // A prompt and its response may share one vector.
        Input::Response { .. } => segments,
        other => other.texts().len(),
    };
    let mut starts = vec![0];
    for example in &split.examples {
        let wanted = wanted(&example.input);
        if wanted > segments {
            return Err(Error::data(
                Place::file(path),
                format!("{wanted} vectors a row for {name}, shape (records, {wanted}, dim)"),
                format!("shape ({rows}, {segments}, {dim})"),
            ));
        }
        starts.push(starts[starts.len() - 1] + wanted as u32);
    }
    let mut records = Records::new(path, array);
    let mut vectors = Collector::new(folder, starts[split.examples.len()] as usize, dim)?;
    for (example, range) in split.examples.iter().zip(starts.windows(2)) {
        let row = first_record[example.origin.file as usize] + example.origin.record as usize;
        let record = records.read(row)?;
        for vector in record.chunks_exact(dim).take((range[1] - range[0]) as usize) {
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
            let unit: Vec<f32> = vector.iter().map(|&x| (f64::from(x) * scale) as f32).collect();
            vectors.push(&unit)?;
        }
    }
    records.skip_rest()?;
    Ok(Embedded {
        vectors: vectors.finish()?,
        starts,
    })
}

/// The records of a split one after the other, so that no more than one is in memory.
struct Records<'a> {
    path: &'a Path,
    array: Array<'a>,
    bytes: Vec<u8>,
    /// The one that is read next.
    next: usize,
}

impl<'a> Records<'a> {
    fn new(path: &'a Path, array: Array<'a>) -> Self {
        let [_, segments, dim] = array.shape;
        let bytes = match array.shape[0] {
            0 => 0,
            _ => segments * dim * floats::bytes(array.dtype),
        };
        Self {
            path,
            array,
            bytes: vec![0; bytes],
            next: 0,
        }
    }

    /// The numbers of a record, which is the one read last or one behind it.
    fn read(&mut self, record: usize) -> Result<Vec<f32>> {
        assert!(record + 1 >= self.next, "examples in the order of their files");
        while self.next <= record {
            self.array
                .numbers
                .read_exact(&mut self.bytes)
                .map_err(Error::io(self.path, "read"))?;
            self.next += 1;
        }
        Ok(floats::read(self.path, &self.bytes, self.array.dtype)?)
    }

    /// Goes on to where the next split begins.
    fn skip_rest(mut self) -> Result<()> {
        match self.array.shape[0] {
            0 => Ok(()),
            records => self.read(records - 1).map(drop),
        }
    }
}

/// One array of all splits has the records of all.
fn check_records(path: &Path, rows: usize, records: impl Iterator<Item = usize>) -> Result<()> {
    let records: Vec<usize> = records.collect();
    let total: usize = records.iter().sum();
    if rows == total {
        return Ok(());
    }
    let parts: Vec<String> = records.iter().map(ToString::to_string).collect();
    Err(Error::data(
        Place::file(path),
        format!("{total} rows ({})", parts.join(" + ")),
        rows.to_string(),
    )
    .with_hint("the array holds the records of train, then validation, then test, those with mistakes too"))
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

/// What a NumPy array's header says.
struct Header {
    shape: [usize; 3],
    dtype: &'static str,
}

/// Reads the header of a NumPy array, format version 1 to 3, up to its numbers.
fn read_npy_header(path: &Path, file: &mut BufReader<File>) -> Result<Header> {
    let broken = |found: &str| Error::data(Place::file(path), "a NumPy array in C order", found.to_owned());
    let mut read = |length: usize, found: &str| {
        let mut bytes = vec![0; length];
        let read = file.read_exact(&mut bytes);
        read.map(|()| bytes).map_err(|_| broken(found))
    };
    if read(6, "another kind of file")? != b"\x93NUMPY" {
        return Err(broken("another kind of file"));
    }
    let cut_short = "a header cut short";
    let length = match read(2, cut_short)?[0] {
        1 => u32::from(u16::from_le_bytes(read(2, cut_short)?.try_into().unwrap_or_default())),
        2 | 3 => u32::from_le_bytes(read(4, cut_short)?.try_into().unwrap_or_default()),
        _ => return Err(broken("a header of an unknown version")),
    };
    // No header is longer; a broken one is not to ask for all memory.
    if length > 1 << 20 {
        return Err(broken("a header of more than a megabyte"));
    }
    let header = String::from_utf8(read(length as usize, cut_short)?).map_err(|_| broken(cut_short))?;
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
        other => return Err(floats::of_no_known_type(path, other).into()),
    };
    let shape = shape.trim_start_matches('(').split(')').next().unwrap_or_default();
    let shape: Vec<usize> = shape
        .split(',')
        .map(str::trim)
        .filter(|size| !size.is_empty())
        .map(|size| size.parse().map_err(|_| broken("a shape that cannot be read")))
        .collect::<Result<_>>()?;
    let shape = shape_of(path, &shape)?;
    let at = file.stream_position().map_err(Error::io(path, "read"))?;
    let end = file.seek(SeekFrom::End(0)).map_err(Error::io(path, "read"))?;
    file.seek(SeekFrom::Start(at)).map_err(Error::io(path, "read"))?;
    let (bytes, each) = (end - at, floats::bytes(dtype) as u64);
    let numbers = bytes / each;
    let wanted = shape
        .iter()
        .try_fold(1u64, |product, &size| product.checked_mul(size as u64));
    if wanted != Some(numbers) || bytes % each != 0 {
        return Err(broken(&format!("{numbers} numbers for shape {shape:?}")));
    }
    Ok(Header { shape, dtype })
}

/// The tensor of a split.
fn tensor<'a>(path: &Path, parsed: &SafeTensors<'a>, name: &str) -> Result<TensorView<'a>> {
    parsed.tensor(name).map_err(|_| {
        let mut have = parsed.names();
        have.sort_unstable();
        let have = if have.is_empty() {
            "none".to_owned()
        } else {
            have.join(", ")
        };
        Error::data(Place::file(path), format!("a tensor named `{name}`"), have)
    })
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;
    use crate::data::{Compression, Example, Format, Origin, SourceFile};
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
        load(&path, &[&split()], folder.path())
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

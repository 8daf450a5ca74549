//! An encoder's tensors under the names that transformers gives them: read from `model.safetensors`, and named to be written.

use std::{
    borrow::Cow,
    collections::HashMap,
    io::Write,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensorError, SafeTensors, View, tensor::TensorView};

use crate::{
    Error, Matrix, Place, Result,
    atomic_write::write_whole,
    encoder::{EncoderWeights, Layer, LayerNorm},
    hub::{
        config::{Config, Family},
        floats,
    },
    kernels::linear::Linear,
};

const WORDS: &str = "embeddings.word_embeddings.weight";
const POSITIONS: &str = "embeddings.position_embeddings.weight";
const TYPES: &str = "embeddings.token_type_embeddings.weight";
const NORM: &str = "embeddings.LayerNorm";

/// A file of weights: all of a model's, or one of several shards.
pub struct WeightFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// A file's tensors by their names.
pub struct Shard<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
}

impl WeightFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn read(path: PathBuf) -> Result<Self> {
        let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
        Ok(Self { path, bytes })
    }

    /// The tensors of each of a model's files.
    ///
    /// # Errors
    ///
    /// If a file is broken.
    pub fn parse_all(files: &[Self]) -> Result<Vec<Shard<'_>>> {
        let mut shards = Vec::new();
        for Self { path, bytes } in files {
            let tensors = parse(path, bytes)?;
            shards.push(Shard { path, tensors });
        }
        Ok(shards)
    }
}

/// The tensors of a model, behind the name of the model that may stand before all of them.
pub struct Tensors<'a> {
    shards: &'a [Shard<'a>],
    prefix: &'a str,
}

/// The header of a safetensors file.
///
/// # Errors
///
/// If it is broken.
pub fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    Error::unless_pointer(path, "a safetensors file", bytes)?;
    SafeTensors::deserialize(bytes).map_err(|error| {
        let found = match error {
            SafeTensorError::MetadataIncompleteBuffer => {
                format!("{} bytes, not as many as its header tells of", bytes.len())
            }
            _ => format!("a broken header ({error})"),
        };
        Error::data(Place::file(path), "a safetensors file", found)
            .with_hint("the file is damaged, or was not fetched to its end: fetch it anew")
    })
}

/// What the parts of layer `l` are called: queries, keys, values, what follows the heads, its norm, intermediate, output, their norm.
fn layer_names(family: Family, l: usize) -> [String; 8] {
    match family {
        Family::Bert | Family::Roberta => [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "attention.output.LayerNorm",
            "intermediate.dense",
            "output.dense",
            "output.LayerNorm",
        ]
        .map(|name| format!("encoder.layer.{l}.{name}")),
        Family::DistilBert => [
            "attention.q_lin",
            "attention.k_lin",
            "attention.v_lin",
            "attention.out_lin",
            "sa_layer_norm",
            "ffn.lin1",
            "ffn.lin2",
            "output_layer_norm",
        ]
        .map(|name| format!("transformer.layer.{l}.{name}")),
    }
}

impl<'a> Tensors<'a> {
    /// The tensors behind whatever name the word embeddings have before theirs.
    ///
    /// # Errors
    ///
    /// If no tensor has their name.
    pub fn new(shards: &'a [Shard<'a>]) -> Result<Self> {
        Self::beside(shards, WORDS)
    }

    /// The tensors behind whatever name a tensor has before its own.
    ///
    /// # Errors
    ///
    /// If no tensor has that name.
    pub(super) fn beside(shards: &'a [Shard<'a>], tensor: &str) -> Result<Self> {
        let mut names = shards.iter().flat_map(|shard| shard.tensors.names());
        let all = Self { shards, prefix: "" };
        match names.find_map(|name| name.strip_suffix(tensor)) {
            Some(prefix) => Ok(Self { shards, prefix }),
            None => Err(all.lacks(tensor)),
        }
    }

    /// The file that is named where something is wrong with no one tensor.
    pub fn path(&self) -> &'a Path {
        self.shards.first().map_or(Path::new(""), |shard| shard.path)
    }

    fn lacks(&self, name: &str) -> Error {
        let expected = match self.shards.len() {
            1 => format!("a tensor named {name}"),
            files => format!("a tensor named {name} in one of {files} files"),
        };
        Error::data(Place::file(self.path()), expected, "none")
    }

    fn find(&self, name: &str) -> Option<(&'a Path, TensorView<'a>)> {
        self.shards
            .iter()
            .find_map(|shard| Some((shard.path, shard.tensors.tensor(name).ok()?)))
    }

    /// The same tensors by their full names.
    pub fn in_full(&self) -> Self {
        Self { prefix: "", ..*self }
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.find(&format!("{}{name}", self.prefix)).is_some()
    }

    /// The encoder of a model with this configuration.
    ///
    /// # Errors
    ///
    /// If a tensor is not there, or has another shape.
    pub fn encoder(&self, config: &Config) -> Result<EncoderWeights> {
        let hidden = config.shape.hidden;
        let positions = self.matrix(POSITIONS, None, hidden)?;
        if positions.rows() <= config.shape.first_position + 2 {
            return Err(Error::data(
                Place::file(self.path()),
                "position embeddings",
                format!("{} rows", positions.rows()),
            ));
        }
        Ok(EncoderWeights {
            token_embeddings: self.matrix(WORDS, None, hidden)?,
            position_embeddings: positions,
            token_type_embeddings: if config.family != Family::DistilBert && self.has(TYPES) {
                self.matrix(TYPES, None, hidden)?
            } else {
                Matrix::zeros(0, hidden)
            },
            norm: self.norm(NORM, hidden)?,
            layers: (0..config.layers)
                .map(|l| self.layer(config.family, l, hidden))
                .collect::<Result<_>>()?,
            shape: config.shape.clone(),
        })
    }

    fn layer(&self, family: Family, l: usize, hidden: usize) -> Result<Layer> {
        let [
            query,
            key,
            value,
            out,
            attention_norm,
            intermediate,
            output,
            output_norm,
        ] = layer_names(family, l);
        let parts = [query, key, value]
            .iter()
            .map(|name| self.linear(name, hidden, Some(hidden)))
            .collect::<Result<Vec<Linear>>>()?;
        let weight = parts.iter().flat_map(|part| part.weight.as_slice()).copied().collect();
        let intermediate = self.linear(&intermediate, hidden, None)?;
        Ok(Layer {
            qkv: Linear {
                weight: Matrix::from_vec(weight, 3 * hidden, hidden),
                bias: parts.into_iter().flat_map(|part| part.bias).collect(),
            },
            attention_output: self.linear(&out, hidden, Some(hidden))?,
            attention_norm: self.norm(&attention_norm, hidden)?,
            output: self.linear(&output, intermediate.weight.rows(), Some(hidden))?,
            intermediate,
            output_norm: self.norm(&output_norm, hidden)?,
        })
    }

    /// The numbers of a tensor whose last side is `cols`, and how many rows of them there are.
    pub(super) fn numbers(&self, name: &str, rows: Option<usize>, cols: usize) -> Result<(Vec<f32>, usize)> {
        let name = format!("{}{name}", self.prefix);
        let (path, tensor) = self.find(&name).ok_or_else(|| self.lacks(&name))?;
        let (found_rows, found_cols) = match *tensor.shape() {
            [rows, cols] => (rows, cols),
            [cols] => (1, cols),
            _ => (0, 0),
        };
        if found_cols != cols || found_rows == 0 || rows.is_some_and(|rows| rows != found_rows) {
            return Err(Error::data(
                Place::file(path),
                format!(
                    "{name} of shape ({}, {cols})",
                    rows.map_or("any".to_owned(), |rows| rows.to_string())
                ),
                format!("{:?}", tensor.shape()),
            ));
        }
        Ok((floats::of_tensor(path, &tensor)?, found_rows))
    }

    pub(super) fn matrix(&self, name: &str, rows: Option<usize>, cols: usize) -> Result<Matrix> {
        let (numbers, rows) = self.numbers(name, rows, cols)?;
        Ok(Matrix::from_vec(numbers, rows, cols))
    }

    /// A linear layer, of as many outputs as it has where none are told.
    ///
    /// # Errors
    ///
    /// If a tensor is not there, or has another shape.
    pub fn linear(&self, name: &str, inputs: usize, outputs: Option<usize>) -> Result<Linear> {
        let weight = self.matrix(&format!("{name}.weight"), outputs, inputs)?;
        let (bias, _) = self.numbers(&format!("{name}.bias"), Some(1), weight.rows())?;
        Ok(Linear { weight, bias })
    }

    /// A layer norm; old files call its parts gamma and beta.
    fn norm(&self, name: &str, hidden: usize) -> Result<LayerNorm> {
        let [weight, bias] = if self.has(&format!("{name}.gamma")) {
            ["gamma", "beta"]
        } else {
            ["weight", "bias"]
        };
        Ok(LayerNorm {
            weight: self.numbers(&format!("{name}.{weight}"), Some(1), hidden)?.0,
            bias: self.numbers(&format!("{name}.{bias}"), Some(1), hidden)?.0,
        })
    }
}

/// A tensor to be written: its shape and its numbers, row after row.
pub struct Numbers<'a> {
    shape: Vec<usize>,
    values: &'a [f32],
}

impl View for Numbers<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values)
    }
}

/// Tensors under their names.
#[derive(Default)]
pub struct Named<'a>(pub Vec<(String, Numbers<'a>)>);

impl<'a> Named<'a> {
    /// Writes them to a safetensors file, as transformers and peft read it.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(self, path: &Path) -> Result<()> {
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let bytes = safetensors::serialize(self.0, Some(metadata))
            .map_err(|error| Error::io(path, "write")(std::io::Error::other(error)))?;
        write_whole(path, &mut |out| out.write_all(&bytes).map_err(Error::io(path, "write")))
    }

    /// An encoder's tensors, with the model's name and a point before each.
    /// The encoder of a model with this configuration.
    ///
    /// # Errors
    ///
    /// If a tensor is not there, or has another shape.
    pub fn encoder(&mut self, model: &str, family: Family, weights: &'a EncoderWeights) {
        let hidden = weights.shape.hidden;
        self.matrix(format!("{model}.{WORDS}"), &weights.token_embeddings);
        self.matrix(format!("{model}.{POSITIONS}"), &weights.position_embeddings);
        if weights.token_type_embeddings.rows() > 0 {
            self.matrix(format!("{model}.{TYPES}"), &weights.token_type_embeddings);
        }
        self.norm(&format!("{model}.{NORM}"), &weights.norm);
        for (l, layer) in weights.layers.iter().enumerate() {
            let names = layer_names(family, l).map(|name| format!("{model}.{name}"));
            let attention = &layer.qkv;
            let parts = attention.weight.as_slice().chunks_exact(hidden * hidden);
            for (name, (weight, bias)) in names.iter().zip(parts.zip(attention.bias.chunks_exact(hidden))) {
                self.push(format!("{name}.weight"), vec![hidden, hidden], weight);
                self.push(format!("{name}.bias"), vec![hidden], bias);
            }
            let [_, _, _, out, attention_norm, intermediate, output, output_norm] = &names;
            self.linear(out, &layer.attention_output);
            self.norm(attention_norm, &layer.attention_norm);
            self.linear(intermediate, &layer.intermediate);
            self.linear(output, &layer.output);
            self.norm(output_norm, &layer.output_norm);
        }
    }

    /// A linear layer's tensors.
    pub fn linear(&mut self, name: &str, map: &'a Linear) {
        self.matrix(format!("{name}.weight"), &map.weight);
        self.push(format!("{name}.bias"), vec![map.bias.len()], &map.bias);
    }

    fn norm(&mut self, name: &str, norm: &'a LayerNorm) {
        self.push(format!("{name}.weight"), vec![norm.weight.len()], &norm.weight);
        self.push(format!("{name}.bias"), vec![norm.bias.len()], &norm.bias);
    }

    fn matrix(&mut self, name: String, matrix: &'a Matrix) {
        self.push(name, vec![matrix.rows(), matrix.cols()], matrix.as_slice());
    }

    pub(super) fn push(&mut self, name: String, shape: Vec<usize>, values: &'a [f32]) {
        self.0.push((name, Numbers { shape, values }));
    }
}

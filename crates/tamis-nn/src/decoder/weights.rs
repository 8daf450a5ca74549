//! The weights of a decoder, their sizes, and the names that transformers gives them.

use crate::{
    Error, Matrix,
    kernels::{causal_attention::GroupedHeads, linear::Linear, rotary::Rotary},
    named_enum,
};

/// The sizes and choices of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderShape {
    /// The length of a token's vector.
    pub hidden: usize,
    /// Numbers between the two halves of a feed-forward layer.
    pub intermediate: usize,
    /// How attention divides a token's vector.
    pub heads: GroupedHeads,
    /// Added to the mean square in every norm.
    pub norm_epsilon: f32,
    /// How queries and keys are turned by their positions.
    pub rotary: Rotary,
    /// The longest sequence.
    pub positions: usize,
}

/// The linear layers of a decoder's layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Projection {
    /// `hidden` to all query heads.
    Query,
    /// `hidden` to all key heads.
    Key,
    /// `hidden` to all value heads.
    Value,
    /// All heads to `hidden`.
    Output,
    /// `hidden` to `intermediate`, through the activation.
    Gate,
    /// `hidden` to `intermediate`.
    Up,
    /// `intermediate` to `hidden`.
    Down,
}

named_enum!(Projection, "lora_target_modules", Error, {
    Query => "q_proj": "the queries of attention",
    Key => "k_proj": "the keys of attention",
    Value => "v_proj": "the values of attention",
    Output => "o_proj": "what follows attention's heads",
    Gate => "gate_proj": "the gate of the feed-forward layer",
    Up => "up_proj": "the feed-forward layer's first half",
    Down => "down_proj": "the feed-forward layer's second half",
});

impl Projection {
    /// All of them, in the order in which a layer keeps them.
    pub const ALL: [Self; 7] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Output,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    /// Where it stands in a layer, as transformers names it: `self_attn.q_proj`.
    pub fn path(self) -> String {
        let block = match self {
            Self::Query | Self::Key | Self::Value | Self::Output => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        };
        format!("{block}.{}", self.name())
    }

    /// Its inputs and outputs.
    pub fn sizes(self, shape: &DecoderShape) -> [usize; 2] {
        let heads = shape.heads;
        let (keys, queries) = (heads.groups * heads.width, heads.groups * heads.per_group * heads.width);
        match self {
            Self::Query => [shape.hidden, queries],
            Self::Key | Self::Value => [shape.hidden, keys],
            Self::Output => [queries, shape.hidden],
            Self::Gate | Self::Up => [shape.hidden, shape.intermediate],
            Self::Down => [shape.intermediate, shape.hidden],
        }
    }
}

/// The weights of the norms over each head's queries and keys, shapes `(head width,)`.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadNorms {
    /// Of queries.
    pub query: Vec<f32>,
    /// Of keys.
    pub key: Vec<f32>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderLayer {
    /// The norm before attention, shape `(hidden,)`.
    pub attention_norm: Vec<f32>,
    /// By [`Projection`].
    pub projections: [Linear; 7],
    /// The norms of queries and keys, where the model has them.
    pub head_norms: Option<HeadNorms>,
    /// The norm before the feed-forward layer, shape `(hidden,)`.
    pub feed_forward_norm: Vec<f32>,
}

/// A decoder's weights.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderWeights {
    /// The sizes and choices.
    pub shape: DecoderShape,
    /// Shape `(vocabulary, hidden)`.
    pub token_embeddings: Matrix,
    /// From first to last.
    pub layers: Vec<DecoderLayer>,
    /// The norm before the head, shape `(hidden,)`.
    pub norm: Vec<f32>,
    /// What scores every token of the vocabulary, shape `(vocabulary, hidden)`; none: the token embeddings do.
    pub head: Option<Matrix>,
}

/// A tensor by its name in the model's files, and whether weight decay is for it.
pub struct NamedTensor<'a> {
    /// Such as `model.norm.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its numbers.
    pub values: &'a mut [f32],
    /// Weights decay; norms and biases do not.
    pub decays: bool,
}

impl DecoderWeights {
    /// What scores every token of the vocabulary, shape `(vocabulary, hidden)`.
    pub fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.token_embeddings)
    }

    /// Weights of zeros, of these ones' shapes: what a gradient is added up in.
    pub fn zeros_like(&self) -> Self {
        let matrix = |matrix: &Matrix| Matrix::zeros(matrix.rows(), matrix.cols());
        let vector = |values: &Vec<f32>| vec![0.0; values.len()];
        Self {
            shape: self.shape.clone(),
            token_embeddings: matrix(&self.token_embeddings),
            layers: self
                .layers
                .iter()
                .map(|layer| DecoderLayer {
                    attention_norm: vector(&layer.attention_norm),
                    projections: layer.projections.each_ref().map(Linear::zeros_like),
                    head_norms: layer.head_norms.as_ref().map(|norms| HeadNorms {
                        query: vector(&norms.query),
                        key: vector(&norms.key),
                    }),
                    feed_forward_norm: vector(&layer.feed_forward_norm),
                })
                .collect(),
            norm: vector(&self.norm),
            head: self.head.as_ref().map(matrix),
        }
    }

    /// Every tensor, in a fixed order, by its name in the model's files.
    pub fn tensors_mut(&mut self) -> Vec<NamedTensor<'_>> {
        let mut tensors = Vec::new();
        push_matrix(
            &mut tensors,
            "model.embed_tokens.weight".into(),
            &mut self.token_embeddings,
        );
        for (l, layer) in self.layers.iter_mut().enumerate() {
            let name = |part: &str| format!("model.layers.{l}.{part}");
            push_vector(&mut tensors, name("input_layernorm.weight"), &mut layer.attention_norm);
            for (projection, linear) in Projection::ALL.into_iter().zip(&mut layer.projections) {
                let name = name(&projection.path());
                push_matrix(&mut tensors, format!("{name}.weight"), &mut linear.weight);
                if !linear.bias.is_empty() {
                    push_vector(&mut tensors, format!("{name}.bias"), &mut linear.bias);
                }
            }
            if let Some(norms) = &mut layer.head_norms {
                push_vector(&mut tensors, name("self_attn.q_norm.weight"), &mut norms.query);
                push_vector(&mut tensors, name("self_attn.k_norm.weight"), &mut norms.key);
            }
            let norm = name("post_attention_layernorm.weight");
            push_vector(&mut tensors, norm, &mut layer.feed_forward_norm);
        }
        push_vector(&mut tensors, "model.norm.weight".into(), &mut self.norm);
        if let Some(head) = &mut self.head {
            push_matrix(&mut tensors, "lm_head.weight".into(), head);
        }
        tensors
    }
}

/// A tensor that decays.
pub(crate) fn push_matrix<'a>(tensors: &mut Vec<NamedTensor<'a>>, name: String, matrix: &'a mut Matrix) {
    tensors.push(NamedTensor {
        name,
        shape: vec![matrix.rows(), matrix.cols()],
        values: matrix.as_mut_slice(),
        decays: true,
    });
}

/// A tensor that does not.
fn push_vector<'a>(tensors: &mut Vec<NamedTensor<'a>>, name: String, values: &'a mut [f32]) {
    tensors.push(NamedTensor {
        name,
        shape: vec![values.len()],
        values,
        decays: false,
    });
}

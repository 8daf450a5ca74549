//! A decoder's passes over packed sequences: forward, with what the backward pass needs or without, and backward.
//!
//! Products and loops are cut between the threads of the present pool, and every sum runs in one order, so the number of threads changes no
//! bit. Kept for the backward pass are, per token and layer, the inputs of its two halves, queries, keys and values, what attention gives,
//! the two halves of the feed-forward layer, and the few numbers that adapters make of their inputs. The rest is made again: outputs of
//! norms and of the activation, attention's probabilities, dropout's masks.

use rayon::prelude::*;

use crate::{
    Matrix,
    decoder::{
        lora::{Adapter, Lora},
        sketch::{GradientSketch, Sides},
        weights::{DecoderLayer, DecoderWeights, Projection},
    },
    kernels::{
        causal_attention::{Attended, Segment},
        dropout::Dropout,
        linear::{FrozenWeight, Linear, Part, Workspace},
        low_rank::{Few, LowRankWorkspace},
        packed::{PackedMatrix, ProductDtype, RowBuffer, Rows, sum_of_products},
        prepacked::Begin,
        rms_norm::{rms_norm, rms_norm_backward},
        rotary::{RotaryTable, Turn},
        swiglu::{swiglu, swiglu_backward},
    },
};

/// Tokens packed one behind the other, and which of them see one another.
#[derive(Debug, Clone, Copy)]
pub struct PackedTokens<'a> {
    /// Shape `(tokens,)`.
    pub tokens: &'a [u32],
    /// They cover the tokens, in order.
    pub segments: &'a [Segment],
}

/// A decoder with its adapters, if it has any.
#[derive(Debug, Clone, Copy)]
pub struct Adapted<'a> {
    /// The decoder.
    pub weights: &'a DecoderWeights,
    /// Its linear layers, packed, where they are not trained.
    pub frozen: Option<&'a FrozenProjections>,
    /// Its adapters.
    pub lora: Option<&'a Lora>,
    /// What is dropped from adapters' inputs in this pass.
    pub dropout: Dropout,
}

/// A decoder's linear layers, packed for many passes; layer by layer, by [`Projection`].
#[derive(Debug)]
pub struct FrozenProjections(Vec<[FrozenWeight; 7]>);

impl FrozenProjections {
    /// Packs them.
    pub fn new(weights: &DecoderWeights, dtype: ProductDtype) -> Self {
        let pack = |linear: &Linear| FrozenWeight::new(linear.whole(), dtype);
        let layers = weights.layers.iter();
        Self(layers.map(|layer| layer.projections.each_ref().map(pack)).collect())
    }
}

/// Where a backward pass adds the gradient.
#[derive(Debug)]
pub enum GradientInto<'g> {
    /// Of every weight.
    Full(&'g mut DecoderWeights),
    /// Of the adapters.
    Lora(&'g mut Lora),
    /// A sketch of every segment's own, shape `(segments, width)`, which is written over.
    Sketch(&'g GradientSketch, &'g mut Matrix),
}

impl<'g> From<&'g mut DecoderGradient> for GradientInto<'g> {
    fn from(gradient: &'g mut DecoderGradient) -> Self {
        match gradient {
            DecoderGradient::Full(weights) => Self::Full(weights),
            DecoderGradient::Lora(lora) => Self::Lora(lora),
        }
    }
}

/// The gradient of what is trained.
#[derive(Debug, Clone)]
pub enum DecoderGradient {
    /// Of every weight.
    Full(Box<DecoderWeights>),
    /// Of the adapters.
    Lora(Lora),
}

/// What a forward pass leaves for the backward pass. Its buffers are used again by the next.
#[derive(Debug, Default)]
pub struct Tape {
    positions: Vec<u32>,
    table: RotaryTable,
    layers: Vec<LayerTape>,
    /// The first layer that the last forward pass has kept.
    kept: usize,
    output: Vec<f32>,
    buffers: Buffers,
}

/// What one step hands to the next.
#[derive(Debug, Default)]
struct Buffers {
    normed: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    d: Vec<f32>,
    /// As wide as the feed-forward layer, so that the others need not grow and shrink.
    inner: Vec<f32>,
    d_inner: Vec<f32>,
    /// What several linear layers read.
    rows: RowBuffer,
    linear: LinearBuffers,
}

/// Buffers of one linear layer with its adapter.
#[derive(Debug, Default)]
struct LinearBuffers {
    input: Vec<f32>,
    d_low: Vec<f32>,
    rows: RowBuffer,
    low_rows: RowBuffer,
    /// The layer's weight, where it is trained.
    weight: PackedMatrix,
    /// One matrix of the adapter.
    matrix: PackedMatrix,
    low_rank: LowRankWorkspace,
    /// Both sides of a sketch, shapes `(tokens, side)`.
    sketched: [Vec<f32>; 2],
    workspace: Workspace,
}

impl Buffers {
    /// For products in these numbers.
    fn new(dtype: ProductDtype) -> Self {
        let linear = LinearBuffers {
            rows: RowBuffer::new(dtype),
            low_rows: RowBuffer::new(dtype),
            weight: PackedMatrix::new(dtype),
            matrix: PackedMatrix::new(dtype),
            workspace: Workspace::new(dtype),
            ..LinearBuffers::default()
        };
        Self {
            rows: RowBuffer::new(dtype),
            linear,
            ..Self::default()
        }
    }
}

/// One layer's part.
#[derive(Debug, Default)]
struct LayerTape {
    /// The layer's input, shape `(tokens, hidden)`.
    input: Vec<f32>,
    /// Before the norms of heads, where the model has them; shapes `(tokens, heads * width)`.
    plain_queries: Vec<f32>,
    plain_keys: Vec<f32>,
    /// Turned, group by group: see [`crate::kernels::causal_attention`].
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    /// What attention gives, shape `(tokens, heads * width)`.
    context: Vec<f32>,
    /// The input of the feed-forward half, shape `(tokens, hidden)`.
    attended: Vec<f32>,
    /// Shape `(tokens, intermediate)`; the backward pass puts their derivatives there.
    gate: Vec<f32>,
    up: Vec<f32>,
    /// What each adapter's first matrix makes of its input, scaled, shape `(tokens, rank)`; by [`Projection`].
    low: [Vec<f32>; 7],
}

impl Tape {
    /// For products in these numbers.
    pub fn new(dtype: ProductDtype) -> Self {
        Self {
            buffers: Buffers::new(dtype),
            ..Self::default()
        }
    }
}

impl LayerTape {
    fn attended(&self) -> Attended<'_> {
        Attended {
            queries: &self.queries,
            keys: &self.keys,
            values: &self.values,
        }
    }
}

impl Adapted<'_> {
    /// The last layer's vectors, before the norm that the head reads, shape `(tokens, hidden)`. What a backward pass needs is kept of the
    /// layers from `keep` on; one layer's memory serves for all below.
    ///
    /// # Panics
    ///
    /// If a token is not in the vocabulary, or the segments do not cover the tokens.
    pub fn forward<'t>(&self, packed: PackedTokens<'_>, keep: usize, tape: &'t mut Tape) -> &'t [f32] {
        let Tape {
            positions,
            table,
            layers,
            kept,
            output,
            buffers,
        } = tape;
        positions.clear();
        for segment in packed.segments {
            let first = segment.prefix.len() as u32;
            positions.extend(first..first + segment.tokens.len() as u32);
        }
        let most = positions.iter().max().map_or(0, |&last| last as usize + 1);
        *table = self.weights.shape.rotary.table(most);
        output.clear();
        for &token in packed.tokens {
            output.extend_from_slice(self.weights.token_embeddings.row(token as usize));
        }
        let count = self.weights.layers.len();
        layers.resize_with(count, LayerTape::default);
        *kept = keep;
        for l in 0..count {
            let pass = self.layer(l, packed.segments, positions, table);
            pass.forward(output, &mut layers[if l < keep { 0 } else { l }], buffers);
        }
        output
    }

    /// Backward through the last [`Adapted::forward`], down to the first layer whose gradient is asked for: adds the gradient of a loss,
    /// given its derivative by what that returned; `upstream` is written over.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit the last forward pass, or it has not kept a layer.
    pub fn backward(
        &self,
        packed: PackedTokens<'_>,
        upstream: &mut [f32],
        tape: &mut Tape,
        mut gradient: GradientInto<'_>,
    ) {
        let first = match &gradient {
            GradientInto::Sketch(sketch, _) => sketch.first(),
            GradientInto::Full(_) | GradientInto::Lora(_) => 0,
        };
        assert!(tape.kept <= first, "a pass that was kept from layer {first} on");
        for l in (first..self.weights.layers.len()).rev() {
            let pass = self.layer(l, packed.segments, &tape.positions, &tape.table);
            pass.backward(upstream, &mut tape.layers[l], &mut gradient, &mut tape.buffers);
        }
        if let GradientInto::Full(gradient) = gradient {
            let hidden = self.weights.shape.hidden;
            for (&token, d) in packed.tokens.iter().zip(upstream.chunks_exact(hidden)) {
                let row = gradient.token_embeddings.row_mut(token as usize);
                row.iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
            }
        }
    }

    fn layer<'a>(
        &'a self,
        l: usize,
        segments: &'a [Segment],
        positions: &'a [u32],
        table: &'a RotaryTable,
    ) -> LayerPass<'a> {
        LayerPass {
            model: self,
            l,
            layer: &self.weights.layers[l],
            segments,
            positions,
            table,
        }
    }
}

/// One layer in one pass.
struct LayerPass<'a> {
    model: &'a Adapted<'a>,
    l: usize,
    layer: &'a DecoderLayer,
    segments: &'a [Segment],
    positions: &'a [u32],
    table: &'a RotaryTable,
}

impl LayerPass<'_> {
    fn hidden(&self) -> usize {
        self.model.weights.shape.hidden
    }

    fn epsilon(&self) -> f32 {
        self.model.weights.shape.norm_epsilon
    }

    /// From the layer's input in `x` to its output there.
    fn forward(&self, x: &mut Vec<f32>, kept: &mut LayerTape, buffers: &mut Buffers) {
        let Buffers {
            normed,
            a,
            b,
            c,
            inner,
            rows,
            linear,
            ..
        } = buffers;
        let heads = self.model.weights.shape.heads;
        kept.input.clone_from(x);
        rms_norm(x, &self.layer.attention_norm, self.epsilon(), normed);
        let packed = rows.pack(normed, self.hidden());
        for (projection, out) in [
            (Projection::Query, &mut *a),
            (Projection::Key, b),
            (Projection::Value, c),
        ] {
            self.apply(projection, normed, packed, &mut kept.low, out, linear);
        }
        if let Some(norms) = &self.layer.head_norms {
            for (norm, plain, out) in [
                (&norms.query, &mut kept.plain_queries, &mut *a),
                (&norms.key, &mut kept.plain_keys, &mut *b),
            ] {
                std::mem::swap(plain, out);
                rms_norm(plain, norm, self.epsilon(), out);
            }
        }
        for (tokens, turn, out) in [
            (&*a, Turn::Forward, &mut kept.queries),
            (b, Turn::Forward, &mut kept.keys),
            (c, Turn::None, &mut kept.values),
        ] {
            self.table.to_groups(tokens, heads.groups, self.positions, turn, out);
        }
        heads.attend(kept.attended(), self.segments, a);
        self.table
            .to_tokens(a, heads.groups, self.positions, Turn::None, &mut kept.context);
        let packed = rows.pack(&kept.context, heads.groups * heads.per_group * heads.width);
        self.apply(Projection::Output, &kept.context, packed, &mut kept.low, a, linear);
        add(x, a);

        kept.attended.clone_from(x);
        rms_norm(x, &self.layer.feed_forward_norm, self.epsilon(), normed);
        let packed = rows.pack(normed, self.hidden());
        for (projection, out) in [(Projection::Gate, &mut kept.gate), (Projection::Up, &mut kept.up)] {
            self.apply(projection, normed, packed, &mut kept.low, out, linear);
        }
        swiglu(&kept.gate, &kept.up, inner);
        let packed = rows.pack(inner, inner.len() / self.positions.len());
        self.apply(Projection::Down, inner, packed, &mut kept.low, a, linear);
        add(x, a);
    }

    /// `down`, the derivative by the layer's output, becomes that by its input.
    fn backward(&self, down: &mut [f32], kept: &mut LayerTape, gradient: &mut GradientInto<'_>, buffers: &mut Buffers) {
        let Buffers {
            normed,
            a,
            b,
            c,
            d,
            inner,
            d_inner,
            linear,
            ..
        } = buffers;
        let heads = self.model.weights.shape.heads;
        let low = &kept.low;
        let mut through = |projection, x: &[f32], upstream: &[f32], begin, out: &mut Vec<f32>| {
            let into = gradient.of(self.l, projection);
            self.apply_backward(projection, x, low, upstream, begin, out, into, linear);
        };
        swiglu(&kept.gate, &kept.up, inner);
        through(Projection::Down, inner, down, Begin::Zero, d_inner);
        swiglu_backward(d_inner, &mut kept.gate, &mut kept.up);
        rms_norm(&kept.attended, &self.layer.feed_forward_norm, self.epsilon(), normed);
        through(Projection::Gate, normed, &kept.gate, Begin::Zero, a);
        through(Projection::Up, normed, &kept.up, Begin::There, a);
        rms_norm_backward(
            &kept.attended,
            &self.layer.feed_forward_norm,
            self.epsilon(),
            a,
            gradient.layer(self.l).map(|layer| &mut layer.feed_forward_norm[..]),
        );
        add(down, a);

        let mut through = |projection, x: &[f32], upstream: &[f32], begin, out: &mut Vec<f32>| {
            let into = gradient.of(self.l, projection);
            self.apply_backward(projection, x, low, upstream, begin, out, into, linear);
        };
        through(Projection::Output, &kept.context, down, Begin::Zero, a);
        self.table.to_groups(a, heads.groups, self.positions, Turn::None, d);
        heads.attend_backward(kept.attended(), self.segments, d, a, b, c);
        for (by_group, turn, out) in [
            (&*a, Turn::Back, &mut kept.queries),
            (b, Turn::Back, &mut kept.keys),
            (c, Turn::None, &mut kept.values),
        ] {
            self.table.to_tokens(by_group, heads.groups, self.positions, turn, out);
        }
        if let Some(norms) = &self.layer.head_norms {
            let mut into = gradient.layer(self.l).and_then(|layer| layer.head_norms.as_mut());
            let d_query = into.as_mut().map(|norms| &mut norms.query[..]);
            rms_norm_backward(
                &kept.plain_queries,
                &norms.query,
                self.epsilon(),
                &mut kept.queries,
                d_query,
            );
            let d_key = into.map(|norms| &mut norms.key[..]);
            rms_norm_backward(&kept.plain_keys, &norms.key, self.epsilon(), &mut kept.keys, d_key);
        }
        rms_norm(&kept.input, &self.layer.attention_norm, self.epsilon(), normed);
        for (projection, upstream, begin) in [
            (Projection::Query, &kept.queries, Begin::Zero),
            (Projection::Key, &kept.keys, Begin::There),
            (Projection::Value, &kept.values, Begin::There),
        ] {
            let into = gradient.of(self.l, projection);
            self.apply_backward(projection, normed, low, upstream, begin, a, into, linear);
        }
        rms_norm_backward(
            &kept.input,
            &self.layer.attention_norm,
            self.epsilon(),
            a,
            gradient.layer(self.l).map(|layer| &mut layer.attention_norm[..]),
        );
        add(down, a);
    }

    /// The adapter of a linear layer, what its output is multiplied by, and what is dropped from its input.
    fn adapter(&self, projection: Projection) -> Option<(&Adapter, f32, Dropout)> {
        let lora = self.model.lora?;
        let adapter = lora.layers[self.l][projection as usize].as_ref()?;
        let place = (self.l * Projection::ALL.len() + projection as usize) as u64;
        Some((adapter, lora.settings.scale(), self.model.dropout.at(place)))
    }

    /// `x Mᵀ` into `out`, `M` being packed in `packed` for it.
    fn times(&self, x: Rows<'_>, matrix: &Matrix, packed: &mut PackedMatrix, out: &mut Vec<f32>) {
        Part::of_matrix(matrix).prepack_forward(packed);
        out.resize(self.positions.len() * matrix.rows(), 0.0);
        sum_of_products(&[(x, packed)], Begin::Zero, out);
    }

    /// A linear layer with its adapter: `rows` are its inputs `x`, packed. What the adapter's first matrix gives is left in `low`.
    fn apply(
        &self,
        projection: Projection,
        x: &[f32],
        rows: Rows<'_>,
        low: &mut [Vec<f32>; 7],
        out: &mut Vec<f32>,
        buffers: &mut LinearBuffers,
    ) {
        let LinearBuffers {
            input,
            rows: input_rows,
            low_rows,
            weight,
            matrix,
            ..
        } = buffers;
        let linear = &self.layer.projections[projection as usize];
        let weight = if let Some(frozen) = self.model.frozen {
            &frozen.0[self.l][projection as usize].forward
        } else {
            linear.whole().prepack_forward(weight);
            weight
        };
        out.resize(self.positions.len() * linear.outputs(), 0.0);
        let begin = Begin::bias(&linear.bias);
        let Some((adapter, scale, dropout)) = self.adapter(projection) else {
            return sum_of_products(&[(rows, weight)], begin, out);
        };
        let low = &mut low[projection as usize];
        let dropped_rows = if dropout.is_nothing() {
            rows
        } else {
            input_rows.pack(dropped(x, dropout, input), linear.weight.cols())
        };
        self.times(dropped_rows, &adapter.a, matrix, low);
        low.iter_mut().for_each(|x| *x *= scale);
        Part::of_matrix(&adapter.b).prepack_forward(matrix);
        sum_of_products(
            &[(rows, weight), (low_rows.pack(low, adapter.a.rows()), matrix)],
            begin,
            out,
        );
    }

    /// Backward through [`LayerPass::apply`]: adds to the gradient, and to `out`, or in place of it, the derivative by `x`.
    #[expect(clippy::too_many_arguments, reason = "what came in, what comes back, and buffers")]
    fn apply_backward(
        &self,
        projection: Projection,
        x: &[f32],
        low: &[Vec<f32>; 7],
        upstream: &[f32],
        begin: Begin<'_>,
        out: &mut Vec<f32>,
        gradient: ProjectionGradient<'_>,
        buffers: &mut LinearBuffers,
    ) {
        let LinearBuffers {
            input,
            d_low,
            rows,
            low_rows,
            weight,
            matrix,
            low_rank,
            sketched,
            workspace,
        } = buffers;
        let linear = &self.layer.projections[projection as usize];
        let weight = if let Some(frozen) = self.model.frozen {
            &frozen.0[self.l][projection as usize].backward
        } else {
            linear.whole().prepack_backward(weight);
            weight
        };
        out.resize(x.len(), 0.0);
        let rows = rows.pack(upstream, linear.outputs());
        let mut adapters = None;
        match gradient {
            ProjectionGradient::Full(gradient) => gradient.add_gradient(0, x, upstream, linear.outputs(), workspace),
            ProjectionGradient::Lora(gradient) => adapters = gradient,
            ProjectionGradient::Sketch(sketch, sides, sketches) => {
                let [left, right] = sketched;
                self.times(rows, &sides.a, matrix, left);
                self.times(low_rows.pack(x, linear.weight.cols()), &sides.b, matrix, right);
                sketch.write(sides, left, right, self.segments, sketches);
            }
            ProjectionGradient::None => {}
        }
        let Some((adapter, scale, dropout)) = self.adapter(projection) else {
            return sum_of_products(&[(rows, weight)], begin, out);
        };
        let (low, rank) = (&low[projection as usize], adapter.a.rows());
        d_low.resize(low.len(), 0.0);
        Part::of_matrix(&adapter.b).prepack_backward(matrix);
        sum_of_products(&[(rows, matrix)], Begin::Zero, d_low);
        d_low.iter_mut().for_each(|d| *d *= scale);
        if let Some(gradient) = adapters {
            low_rank.add_gradient(low, rank, upstream, Few::Columns, gradient.b.as_mut_slice());
            let into = gradient.a.as_mut_slice();
            low_rank.add_gradient(d_low, rank, dropped(x, dropout, input), Few::Rows, into);
        }
        Part::of_matrix(&adapter.a).prepack_backward(matrix);
        let low_term = (low_rows.pack(d_low, rank), &*matrix);
        if dropout.is_nothing() {
            return sum_of_products(&[(rows, weight), low_term], begin, out);
        }
        sum_of_products(&[(rows, weight)], begin, out);
        input.resize(out.len(), 0.0);
        sum_of_products(&[low_term], Begin::Zero, input);
        drop_in_parallel(input, dropout);
        add(out, input);
    }
}

/// Where the gradient of one linear layer goes.
enum ProjectionGradient<'g> {
    Full(&'g mut Linear),
    Lora(Option<&'g mut Adapter>),
    Sketch(&'g GradientSketch, &'g Sides, &'g mut Matrix),
    None,
}

impl GradientInto<'_> {
    fn of(&mut self, l: usize, projection: Projection) -> ProjectionGradient<'_> {
        match self {
            Self::Full(weights) => ProjectionGradient::Full(&mut weights.layers[l].projections[projection as usize]),
            Self::Lora(lora) => ProjectionGradient::Lora(lora.layers[l][projection as usize].as_mut()),
            Self::Sketch(sketch, sketches) => match sketch.sides(l, projection) {
                Some(sides) => ProjectionGradient::Sketch(sketch, sides, sketches),
                None => ProjectionGradient::None,
            },
        }
    }

    /// A layer's, where all weights are trained.
    fn layer(&mut self, l: usize) -> Option<&mut DecoderLayer> {
        match self {
            Self::Full(weights) => Some(&mut weights.layers[l]),
            Self::Lora(_) | Self::Sketch(..) => None,
        }
    }
}

/// Numbers that one thread takes at a time.
const CHUNK: usize = 1 << 14;

/// `sum += values`.
fn add(sum: &mut [f32], values: &[f32]) {
    sum.par_chunks_mut(CHUNK)
        .zip(values.par_chunks(CHUNK))
        .for_each(|(sum, values)| sum.iter_mut().zip(values).for_each(|(sum, x)| *sum += x));
}

/// The values, or a copy with some dropped.
fn dropped<'v>(values: &'v [f32], dropout: Dropout, copy: &'v mut Vec<f32>) -> &'v [f32] {
    if dropout.is_nothing() {
        return values;
    }
    copy.clear();
    copy.extend_from_slice(values);
    drop_in_parallel(copy, dropout);
    copy
}

fn drop_in_parallel(values: &mut [f32], dropout: Dropout) {
    values
        .par_chunks_mut(CHUNK)
        .enumerate()
        .for_each(|(i, chunk)| dropout.apply(chunk, i * CHUNK));
}

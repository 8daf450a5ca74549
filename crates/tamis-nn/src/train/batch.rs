//! Examples as sequences of tokens, and batches of them packed one behind the other.

use crate::encoder::Packed;

/// What a model is to learn from an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objective {
    /// The right one of its answers, from 0: a label, or a choice.
    Class(u32),
    /// Its one sequence, as far as the tokens' types are 1: what a language model is to say.
    Response,
}

impl Objective {
    /// The right answer; that of a response is its only one.
    pub fn class(self) -> u32 {
        match self {
            Self::Class(class) => class,
            Self::Response => 0,
        }
    }
}

/// The examples of a split, tokenized: a text or a pair is one sequence, a question one for each of its choices. For a language model a
/// conversation is one sequence, and a row with several answers one for each; the type of a token is 1 where it is to be said, else 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenizedSplit {
    tokens: Vec<u32>,
    types: Vec<u8>,
    /// Sequence `i` is `tokens[sequences[i]..sequences[i + 1]]`.
    sequences: Vec<usize>,
    /// Example `i` owns sequences `examples[i]..examples[i + 1]`.
    examples: Vec<usize>,
    objectives: Vec<Objective>,
    /// Scores a sequence: one a label, or 1 where each choice has a sequence of its own.
    outputs: usize,
    /// Sequences that were cut to the longest length.
    pub truncated: u64,
}

impl TokenizedSplit {
    /// No examples; each sequence is going to have this many scores.
    pub fn new(outputs: usize) -> Self {
        Self {
            sequences: vec![0],
            examples: vec![0],
            outputs,
            ..Self::default()
        }
    }

    /// Adds an example: the tokens and token types of each of its sequences, and what is to be learnt from it.
    ///
    /// # Panics
    ///
    /// If an example has no sequence, or a sequence no tokens.
    pub fn push(&mut self, sequences: impl IntoIterator<Item = (Vec<u32>, Vec<u8>)>, objective: Objective) {
        for (tokens, types) in sequences {
            assert!(!tokens.is_empty() && tokens.len() == types.len(), "a type a token");
            self.tokens.extend(tokens);
            self.types.extend(types);
            self.sequences.push(self.tokens.len());
        }
        assert!(
            self.sequences.len() - 1 > self.examples[self.examples.len() - 1],
            "a sequence an example"
        );
        self.examples.push(self.sequences.len() - 1);
        self.objectives.push(objective);
    }

    /// Adds the examples of another split of the same data. What was cut there is not counted again.
    ///
    /// # Panics
    ///
    /// If their sequences have another number of scores.
    pub fn append(&mut self, more: &Self) {
        assert_eq!(self.outputs, more.outputs, "splits of one task");
        let (tokens, sequences) = (self.tokens.len(), self.sequences.len() - 1);
        self.tokens.extend(&more.tokens);
        self.types.extend(&more.types);
        self.sequences
            .extend(more.sequences[1..].iter().map(|end| tokens + end));
        self.examples
            .extend(more.examples[1..].iter().map(|end| sequences + end));
        self.objectives.extend(&more.objectives);
    }

    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.objectives.len()
    }

    /// The numbers of all examples.
    pub fn all(&self) -> Vec<u32> {
        (0..self.len() as u32).collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objectives.is_empty()
    }

    /// The right answers of some examples, in their order.
    pub fn classes_of(&self, examples: &[u32]) -> Vec<u32> {
        examples.iter().map(|&i| self.objectives[i as usize].class()).collect()
    }

    /// Scores a sequence.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The most answers that an example has.
    pub fn answers(&self) -> usize {
        let choices = self.examples.windows(2).map(|range| range[1] - range[0]).max();
        self.outputs * choices.unwrap_or(1)
    }

    /// The sequences of an example, each its tokens and their types.
    pub fn sequences_of(&self, example: u32) -> impl ExactSizeIterator<Item = (&[u32], &[u8])> {
        let range = self.examples[example as usize]..self.examples[example as usize + 1];
        range.map(|i| {
            let tokens = self.sequences[i]..self.sequences[i + 1];
            (&self.tokens[tokens.clone()], &self.types[tokens])
        })
    }

    /// What is to be learnt from an example.
    pub fn objective(&self, example: u32) -> Objective {
        self.objectives[example as usize]
    }

    /// How many sequences there are.
    pub fn sequences(&self) -> usize {
        self.sequences.len() - 1
    }

    /// Where each example's sequences begin, and the end; shape `(examples + 1,)`.
    pub fn example_starts(&self) -> Vec<u32> {
        self.examples.iter().map(|&start| start as u32).collect()
    }

    /// How many tokens an example has.
    pub fn tokens_of(&self, example: u32) -> usize {
        let range = &self.examples[example as usize..][..2];
        self.sequences[range[1]] - self.sequences[range[0]]
    }

    /// The most tokens of any example.
    pub fn longest(&self) -> usize {
        (0..self.len() as u32)
            .map(|example| self.tokens_of(example))
            .max()
            .unwrap_or(0)
    }

    /// These examples as one batch.
    pub fn batch(&self, examples: &[u32]) -> Batch {
        let mut batch = Batch {
            starts: vec![0],
            groups: vec![0],
            ..Batch::default()
        };
        for &example in examples {
            let range = self.examples[example as usize]..self.examples[example as usize + 1];
            let tokens = self.sequences[range.start]..self.sequences[range.end];
            let shift = batch.tokens.len();
            batch.tokens.extend_from_slice(&self.tokens[tokens.clone()]);
            batch.types.extend_from_slice(&self.types[tokens.clone()]);
            let ends = self.sequences[range.start + 1..=range.end].iter();
            batch.starts.extend(ends.map(|end| end - tokens.start + shift));
            batch
                .groups
                .push(batch.groups[batch.groups.len() - 1] + range.len() * self.outputs);
            batch.objectives.push(self.objectives[example as usize]);
        }
        batch
    }

    /// Cuts a list of examples where the tokens of a part would pass `most`; an example is never cut.
    pub fn parts<'e>(&self, examples: &'e [u32], most: usize) -> Vec<&'e [u32]> {
        let mut parts = Vec::new();
        let (mut from, mut sum) = (0, 0);
        for (i, &example) in examples.iter().enumerate() {
            let tokens = self.tokens_of(example);
            if sum + tokens > most && i > from {
                parts.push(&examples[from..i]);
                (from, sum) = (i, 0);
            }
            sum += tokens;
        }
        if from < examples.len() {
            parts.push(&examples[from..]);
        }
        parts
    }
}

/// Examples packed one behind the other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// All tokens.
    pub tokens: Vec<u32>,
    /// Their types.
    pub types: Vec<u8>,
    /// Where each sequence begins, and the end.
    pub starts: Vec<usize>,
    /// Where each example's scores begin among all sequences', and the end.
    pub groups: Vec<usize>,
    /// What is to be learnt from each example.
    pub objectives: Vec<Objective>,
}

impl Batch {
    /// What an encoder reads.
    pub fn packed(&self) -> Packed<'_> {
        Packed {
            tokens: &self.tokens,
            types: &self.types,
            starts: &self.starts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_packed_with_all_their_choices() {
        let mut encoded = TokenizedSplit::new(1);
        let sequence = |tokens: &[u32]| (tokens.to_vec(), vec![0; tokens.len()]);
        encoded.push([sequence(&[1, 2]), sequence(&[3])], Objective::Class(1));
        encoded.push([sequence(&[4]), sequence(&[5, 6]), sequence(&[7])], Objective::Class(2));
        assert_eq!((encoded.len(), encoded.answers(), encoded.longest()), (2, 3, 4));
        let batch = encoded.batch(&[1, 0]);
        assert_eq!(batch.tokens, [4, 5, 6, 7, 1, 2, 3]);
        assert_eq!(batch.starts, [0, 1, 3, 4, 6, 7]);
        assert_eq!(batch.groups, [0, 3, 5]);
        assert_eq!(batch.objectives, [Objective::Class(2), Objective::Class(1)]);
        assert_eq!(encoded.parts(&[0, 1, 0], 7), [&[0u32, 1][..], &[0]]);
        assert_eq!(encoded.parts(&[1, 1], 1), [&[1u32][..], &[1]]);
    }

    #[test]
    fn a_split_that_is_appended_reads_as_if_its_examples_had_been_pushed() {
        let sequence = |tokens: &[u32]| (tokens.to_vec(), vec![1; tokens.len()]);
        let (mut first, mut second, mut both) =
            (TokenizedSplit::new(1), TokenizedSplit::new(1), TokenizedSplit::new(1));
        for encoded in [&mut first, &mut both] {
            encoded.push([sequence(&[1, 2]), sequence(&[3])], Objective::Class(1));
        }
        for encoded in [&mut second, &mut both] {
            encoded.push([sequence(&[4]), sequence(&[5, 6])], Objective::Class(0));
            encoded.push([sequence(&[7, 8, 9])], Objective::Class(0));
        }
        first.append(&second);
        assert_eq!(first, both);
    }

    #[test]
    fn a_text_has_a_score_a_label() {
        let mut encoded = TokenizedSplit::new(3);
        encoded.push([(vec![1, 2], vec![0, 0])], Objective::Class(2));
        encoded.push([(vec![1], vec![0])], Objective::Class(0));
        assert_eq!(encoded.batch(&[0, 1]).groups, [0, 3, 6]);
        assert_eq!(encoded.answers(), 3);
    }
}

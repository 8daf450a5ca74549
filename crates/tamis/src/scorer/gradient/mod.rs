//! What rewards rows of responses: a fine-tune of a language model, approximated in closed form from sketches of single rows' gradients.

pub mod basis;
pub mod gradient_data;
pub mod probe;

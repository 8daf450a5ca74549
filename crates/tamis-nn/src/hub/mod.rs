//! The files of a transformers model: found, read and written.
//!
//! A model is a folder with `config.json`, `model.safetensors` and a tokenizer. Known are encoders with the layers of BERT: BERT
//! itself, RoBERTa and its kin, and DistilBERT; a model with other layers is refused, never run wrongly.

pub mod chat_template;
pub mod classifier;
pub mod config;
pub mod datasets;
pub mod decoder_config;
pub mod files;
pub mod floats;
pub mod language_model;
pub mod modules;
pub mod pretrained;
pub mod remote;
pub mod tensors;
pub mod tokenizer;

//! The command as users meet it: whole runs, killed runs, and what it says when the input is not as it must be.

mod agents;
mod bad_input;
mod bad_vectors;
mod clusters;
mod finetune;
mod fixture;
mod help;
mod outputs;
mod resume;
mod study;
mod user_files;

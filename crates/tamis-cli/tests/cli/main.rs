//! The command as users meet it: whole runs, killed runs, and what it says when the input is not as it must be.

mod agents;
mod bad_input;
mod bad_vectors;
mod clusters;
#[cfg(unix)]
mod faults;
mod finetune;
mod fixture;
mod folders;
mod help;
mod language_models;
mod outputs;
mod responses;
mod resume;
mod small;
mod study;
#[cfg(unix)]
mod trainers;
mod user_files;

//! Calls into readers of other crates, some of which panic on damaged files.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
};

thread_local! {
    static CATCHES: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is caught by [`unless_it_panics`].
fn catches() -> bool {
    CATCHES.get()
}

/// Sets a panic hook that is silent on what [`unless_it_panics`] catches, and else says what the one before it said. Once a process.
pub fn say_nothing_of_caught_panics() {
    let say = take_hook();
    set_hook(Box::new(move |panic| {
        if !catches() {
            say(panic);
        }
    }));
}

/// What a reader returns, or what it said when it panicked. Nothing that it changed may be used afterwards.
///
/// # Errors
///
/// If it panicked.
pub fn unless_it_panics<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    let before = CATCHES.replace(true);
    let done = catch_unwind(AssertUnwindSafe(read));
    CATCHES.set(before);
    done.map_err(|said| {
        let text = said.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| said.downcast_ref::<&str>().copied())
            .unwrap_or("it gave up")
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_words() {
        assert_eq!(unless_it_panics(|| 1), Ok(1));
        assert_eq!(unless_it_panics(|| assert!(catches(), "is told")), Ok(()));
        assert!(!catches());
        let nothing: Vec<u8> = Vec::new();
        let said = unless_it_panics(|| nothing[3]).expect_err("there is no such byte");
        assert!(said.contains("index out of bounds"), "{said}");
    }
}

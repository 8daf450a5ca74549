//! A page that shows a run or a study, made from the files in its folder: self-contained, no network, light and dark.

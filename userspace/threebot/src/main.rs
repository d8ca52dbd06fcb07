//! The 3Bot.
fn main() {}

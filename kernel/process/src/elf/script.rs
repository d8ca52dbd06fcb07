//! `#!` lines (execve(2), "Interpreter scripts").

use crate::{Error, Result};

/// Bytes of a file that are looked at (`BINPRM_BUF_SIZE`).
pub(super) const HEAD: usize = 256;

/// What a script's first line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script<'a> {
    /// Path of the interpreter.
    pub interpreter: &'a [u8],
    /// Its one argument: the rest of the line.
    pub argument: Option<&'a [u8]>,
}

fn is_blank(b: &u8) -> bool {
    matches!(b, b' ' | b'\t')
}

/// Parses the first bytes of a file (up to 256 count). `None` if it is no script.
///
/// # Errors
/// [`Error::NotExecutable`] if it names no interpreter, or the name does not end
/// within those bytes.
pub fn parse(head: &[u8]) -> Result<Option<Script<'_>>> {
    let head = &head[..head.len().min(HEAD)];
    let Some(rest) = head.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let line_end = rest.iter().position(|b| matches!(b, b'\n' | 0));
    // A line that does not end here may be a cut one, unless the file ends too.
    let cut = line_end.is_none() && head.len() == HEAD;
    let line = &rest[..line_end.unwrap_or(rest.len())];
    let line = trim_start(line);
    let end = line.iter().position(is_blank);
    let interpreter = &line[..end.unwrap_or(line.len())];
    if interpreter.is_empty() || cut && end.is_none() {
        return Err(Error::NotExecutable);
    }
    let argument = trim_end(trim_start(&line[interpreter.len()..]));
    Ok(Some(Script {
        interpreter,
        argument: Some(argument).filter(|a| !a.is_empty()),
    }))
}

fn trim_start(s: &[u8]) -> &[u8] {
    &s[s.iter().take_while(|b| is_blank(b)).count()..]
}

fn trim_end(s: &[u8]) -> &[u8] {
    &s[..s.len() - s.iter().rev().take_while(|b| is_blank(b)).count()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn script<'a>(interpreter: &'a str, argument: Option<&'a str>) -> Option<Script<'a>> {
        Some(Script {
            interpreter: interpreter.as_bytes(),
            argument: argument.map(str::as_bytes),
        })
    }

    #[test]
    fn usual_lines() {
        assert_eq!(parse(b"#!/bin/sh\necho"), Ok(script("/bin/sh", None)));
        assert_eq!(
            parse(b"#! /bin/sh -e  \nx"),
            Ok(script("/bin/sh", Some("-e")))
        );
        let env = parse(b"#!/usr/bin/env python3 -u\n");
        assert_eq!(env, Ok(script("/usr/bin/env", Some("python3 -u"))));
        assert_eq!(parse(b"#!/bin/sh"), Ok(script("/bin/sh", None)));
        assert_eq!(parse(b"\x7fELF"), Ok(None));
    }

    #[test]
    fn a_line_without_a_name_is_refused() {
        assert_eq!(parse(b"#!\n/bin/sh"), Err(Error::NotExecutable));
        assert_eq!(parse(b"#!  \t"), Err(Error::NotExecutable));
    }

    #[test]
    fn a_name_that_may_be_cut_is_refused_and_an_argument_is_not() {
        let mut long = [b'a'; 300];
        long[..2].copy_from_slice(b"#!");
        assert_eq!(parse(&long), Err(Error::NotExecutable));
        long[10] = b' ';
        let s = parse(&long).unwrap().unwrap();
        assert_eq!((s.interpreter.len(), s.argument.unwrap().len()), (8, 245));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            bytes.splice(0..0, *b"#!");
            let _ = parse(&bytes);
        }
    }
}

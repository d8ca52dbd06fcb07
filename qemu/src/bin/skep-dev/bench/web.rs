//! `skep-dev bench-web FOLDER`: the files of a folder by HTTP, on standard input and
//! output.
//!
//! QEMU starts it for each connection that iPXE opens to [`ADDRESS`]. It knows what iPXE
//! asks: files, and parts of a disk image.

use anyhow::{Context as _, Result, bail};
use std::{
    fs::File,
    io::{self, BufRead, Read as _, Seek as _, SeekFrom, Write},
    path::Path,
};

/// Where guests find it.
pub(super) const ADDRESS: &str = "10.0.2.4";
/// Bytes of a line of a request at most.
const LINE_MAX: u64 = 4096;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    /// `GET`, not `HEAD`.
    wants_body: bool,
    name: String,
    /// First byte and last byte.
    range: Option<(u64, u64)>,
}

/// Answers until the client ends the connection.
pub(super) fn serve(folder: &Path, input: &mut dyn BufRead, output: &mut dyn Write) -> Result<()> {
    while let Some(request) = read(input)? {
        // No name leads out of the folder.
        let file = match request.name.contains('/') {
            true => None,
            false => File::open(folder.join(&request.name)).ok(),
        };
        match file {
            Some(file) => answer(&request, file, output)?,
            None => write!(
                output,
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
            )?,
        }
        output.flush()?;
    }
    Ok(())
}

fn answer(request: &Request, mut file: File, output: &mut dyn Write) -> Result<()> {
    let len = file.metadata()?.len();
    let (first, end) = match request.range {
        Some((first, last)) if first <= last && first < len => {
            let end = len.min(last.saturating_add(1));
            let last = end - 1;
            write!(output, "HTTP/1.1 206 Partial Content\r\n")?;
            write!(output, "Content-Range: bytes {first}-{last}/{len}\r\n")?;
            (first, end)
        }
        _ => {
            write!(output, "HTTP/1.1 200 OK\r\n")?;
            (0, len)
        }
    };
    write!(output, "Accept-Ranges: bytes\r\n")?;
    write!(output, "Content-Length: {}\r\n\r\n", end - first)?;
    if request.wants_body {
        file.seek(SeekFrom::Start(first))?;
        io::copy(&mut file.take(end - first), output)?;
    }
    Ok(())
}

/// The next request; `None` when there is none more.
fn read(input: &mut dyn BufRead) -> Result<Option<Request>> {
    let Some(line) = line(input)? else {
        return Ok(None);
    };
    let mut words = line.split(' ');
    let wants_body = match words.next() {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => bail!("not a request: {line}"),
    };
    let path = words.next().context("a request without a path")?;
    let name = path.trim_start_matches('/').to_string();
    let mut range = None;
    loop {
        let header = self::line(input)?.context("a request without an end")?;
        if header.is_empty() {
            break;
        }
        if let Some((field, value)) = header.split_once(':')
            && field.eq_ignore_ascii_case("range")
        {
            range = bytes(value.trim());
        }
    }
    Ok(Some(Request {
        wants_body,
        name,
        range,
    }))
}

/// The value of a `Range` header with one range and both its ends.
fn bytes(value: &str) -> Option<(u64, u64)> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// A line without its end.
fn line(input: &mut dyn BufRead) -> Result<Option<String>> {
    let mut line = Vec::new();
    input.take(LINE_MAX).read_until(b'\n', &mut line)?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(Some(String::from_utf8_lossy(line).into_owned())),
        None if line.is_empty() => Ok(None),
        None => bail!("a line without an end"),
    }
}

#[cfg(test)]
mod tests {
    use super::serve;
    use skep_qemu::node::TempFolder;
    use std::fs;

    fn ask(requests: &str) -> anyhow::Result<String> {
        let folder = TempFolder::new()?;
        fs::write(folder.path().join("file"), "0123456789")?;
        let mut output = Vec::new();
        serve(folder.path(), &mut requests.as_bytes(), &mut output)?;
        Ok(String::from_utf8(output)?)
    }

    #[test]
    fn files_and_their_parts_are_given_on_one_connection() {
        let all = ask("GET /file HTTP/1.1\r\nHost: x\r\n\r\n\
             HEAD /file HTTP/1.1\r\n\r\n\
             GET /file HTTP/1.1\r\nrange: bytes=2-4\r\n\r\n\
             GET /file HTTP/1.1\r\nRange: bytes=8-99\r\n\r\n")
        .unwrap();
        let bodies: Vec<_> = all.split("\r\n\r\n").collect();
        assert!(bodies[0].starts_with("HTTP/1.1 200 OK\r\n"), "{all}");
        assert!(bodies[1].starts_with("0123456789HTTP/1.1 200"), "{all}");
        assert!(bodies[1].contains("Content-Length: 10"), "{all}");
        assert!(bodies[2].starts_with("HTTP/1.1 206"), "{all}");
        assert!(bodies[2].contains("bytes 2-4/10"), "{all}");
        assert!(bodies[3].starts_with("234HTTP/1.1 206"), "{all}");
        assert!(bodies[3].contains("bytes 8-9/10"), "{all}");
        assert_eq!(bodies[4], "89");
    }

    #[test]
    fn what_is_not_there_or_not_asked_well_is_not_given() {
        for path in ["/other", "/../file", "//etc/passwd"] {
            let answer = ask(&format!("GET {path} HTTP/1.1\r\n\r\n")).unwrap();
            assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
        }
        for request in ["POST / HTTP/1.1\r\n\r\n", "GET /file HTTP/1.1\r\n", "GET"] {
            assert!(ask(request).is_err(), "{request}");
        }
    }
}

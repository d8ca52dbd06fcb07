//! Runs the entries of a test suite one after another inside a capsule, as the host
//! asks for them on port 9000 (`skep_qemu::suite`).
//!
//! A request is a line `SECONDS<TAB>COMMAND`. The answer is what the command printed,
//! each line behind a `|`, and a last line: `exit CODE`, `signal NUMBER`, or `late` for
//! a command that was killed after so many seconds. Between two entries nothing stays:
//! every process is killed and reaped, the folders for temporary files are emptied.
#![forbid(unsafe_code)]

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, wait};
use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Where the host asks.
const PORT: u16 = 9000;
/// Most bytes of a command's output that are kept: the last ones.
const OUTPUT_BYTES: usize = 4 << 20;
/// Pauses between looks at a command that runs, from the first to the longest.
const POLL_FIRST: Duration = Duration::from_millis(1);
const POLL_LONGEST: Duration = Duration::from_millis(50);
/// What entries leave files in.
const TEMPORARY: [&str; 2] = ["/tmp", "/dev/shm"];

fn main() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    loop {
        let (host, _) = listener.accept()?;
        // A host that went away asks again on another connection.
        if let Err(error) = serve(&host) {
            println!("the host went away: {error}");
        }
    }
}

fn serve(host: &TcpStream) -> io::Result<()> {
    let mut answers = host;
    answers.write_all(b"ready\n")?;
    for line in BufReader::new(host).lines() {
        let line = line?;
        let Some((seconds, command)) = line.split_once('\t') else {
            return Err(io::Error::other("not a request"));
        };
        let seconds = seconds.parse().map_err(io::Error::other)?;
        println!("{command}");
        let (output, end) = run(command, Duration::from_secs(seconds))?;
        answers.write_all(&framed(&output, &end))?;
    }
    Ok(())
}

/// The answer to one request.
fn framed(output: &[u8], end: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    let output = output.strip_suffix(b"\n").unwrap_or(output);
    for line in output.split(|byte| *byte == b'\n') {
        answer.push(b'|');
        answer.extend_from_slice(line);
        answer.push(b'\n');
    }
    answer.extend_from_slice(end.as_bytes());
    answer.push(b'\n');
    answer
}

/// Runs a command with the shell: what it printed, and how it ended.
fn run(command: &str, limit: Duration) -> io::Result<(Vec<u8>, String)> {
    let (reader, writer) = io::pipe()?;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).process_group(0);
    let child = shell
        .current_dir("/tmp")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn();
    // The command holds the pipe's other end.
    drop(shell);
    let child = match child {
        Ok(child) => child.id(),
        Err(error) => return Ok((error.to_string().into_bytes(), "exit 127".to_string())),
    };
    let output = thread::spawn(move || tail(reader));
    let end = wait_for(child, limit)?;
    sweep()?;
    let output = output.join().map_err(|_| io::Error::other("no output"))?;
    Ok((output?, end))
}

/// The last [`OUTPUT_BYTES`] at most that come out of the pipe.
fn tail(mut pipe: io::PipeReader) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let count = pipe.read(&mut chunk)?;
        if count == 0 {
            return Ok(kept);
        }
        kept.extend(chunk.iter().take(count));
        if kept.len() > OUTPUT_BYTES {
            kept.drain(..kept.len() - OUTPUT_BYTES / 2);
        }
    }
}

/// Waits for the process with this number, reaping others meanwhile.
fn wait_for(child: u32, limit: Duration) -> io::Result<String> {
    let started = Instant::now();
    let mut pause = POLL_FIRST;
    while started.elapsed() < limit {
        match wait(WaitOptions::NOHANG)? {
            Some((pid, status)) if pid.as_raw_nonzero().get().unsigned_abs() == child => {
                return Ok(said(status));
            }
            Some(_) => {}
            None => {
                thread::sleep(pause);
                pause = (pause * 3 / 2).min(POLL_LONGEST);
            }
        }
    }
    Ok("late".to_string())
}

fn said(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "exit 127".to_string(),
    }
}

/// Removes what an entry has left: processes and temporary files.
fn sweep() -> io::Result<()> {
    // -1, everybody but ourselves; nobody being there is as good.
    let _ = kill_process_group(Pid::INIT, Signal::KILL);
    while wait(WaitOptions::empty()).is_ok() {}
    for folder in TEMPORARY {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            remove(&entry?.path());
        }
    }
    Ok(())
}

/// Removes a file or a whole folder. What resists stays: it is not this program that
/// has to judge that.
fn remove(path: &Path) {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let _ = match is_folder {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
}

#[cfg(test)]
mod tests {
    use super::framed;

    #[test]
    fn output_cannot_pass_for_an_end() {
        let answer = framed(b"exit 0\nlate", "exit 1");
        assert_eq!(answer, b"|exit 0\n|late\nexit 1\n");
    }
}

//! QEMU's own test protocol (docs/devel/testing/qtest.rst): reaches into a running
//! machine's memory and device registers from outside, as a second master on its bus.

use anyhow::{Context as _, Result, bail};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// A connection; QEMU has to be started with `-qtest unix:PATH,server=on,wait=off`.
pub struct Qtest {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Qtest {
    /// Connects.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).context("cannot reach QEMU's test socket")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self {
            writer: stream.try_clone()?,
            reader: BufReader::new(stream),
        })
    }

    /// Writes 32 bits to a physical address.
    pub fn write_u32(&mut self, address: u64, value: u32) -> Result<()> {
        self.execute(&format!("writel {address:#x} {value:#x}"))
            .map(drop)
    }

    /// Writes 32 bits to a port.
    pub fn out_u32(&mut self, port: u16, value: u32) -> Result<()> {
        self.execute(&format!("outl {port:#x} {value:#x}"))
            .map(drop)
    }

    /// Reads 32 bits from a port.
    pub fn in_u32(&mut self, port: u16) -> Result<u32> {
        self.ask(&format!("inl {port:#x}"))
    }

    /// Reads 32 bits from a physical address.
    pub fn read_u32(&mut self, address: u64) -> Result<u32> {
        self.ask(&format!("readl {address:#x}"))
    }

    fn ask(&mut self, command: &str) -> Result<u32> {
        let answer = self.execute(command)?;
        let word = answer.trim().trim_start_matches("0x");
        // It is told as 64 bits.
        let value = u64::from_str_radix(word, 16);
        Ok(value.with_context(|| format!("not a number: {answer}"))? as u32)
    }

    fn execute(&mut self, command: &str) -> Result<String> {
        writeln!(self.writer, "{command}")?;
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            match line.trim().split_once(' ') {
                Some(("OK", rest)) => return Ok(rest.to_string()),
                Some(("IRQ", _)) => {}
                _ if line.trim() == "OK" => return Ok(String::new()),
                _ => bail!("QEMU refused {command}: {line}"),
            }
        }
    }
}

//! QEMU's debugger port: reaching into the CPUs of a node from outside.
//!
//! Source: GDB manual, appendix E (remote serial protocol); QEMU's thread numbers are
//! those of its CPUs, from 1.

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// How long QEMU may take to answer; it answers at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Numbers of registers in QEMU's `i386-64bit.xml`.
const RIP: u8 = 16;
const FLAGS: u8 = 17;
/// In the flags: interrupts are on.
const INTERRUPTS: u64 = 1 << 9;
/// `jmp` to itself.
const LOOP: [u8; 2] = [0xeb, 0xfe];
/// Where the kernel's image is (`kernel/machine/src/x86/kmap.rs`).
const IMAGE: u64 = 0xffff_9000_0000_0000;

/// A connection to the debugger port. The node stands still while there is one.
pub struct Gdb(UnixStream);

impl Gdb {
    /// The option by which QEMU opens the port at `socket`.
    pub fn option(socket: &Path) -> String {
        format!("unix:{},server=on,wait=off", socket.display())
    }

    /// Connects, which stops the node.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("no debugger port at {}", socket.display()))?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut gdb = Self(stream);
        // Single registers can be set only by those who have read what there are.
        gdb.command("qSupported:xmlRegisters=i386")?;
        gdb.command("qXfer:features:read:target.xml:0,ffb")?;
        Ok(gdb)
    }

    /// Parks a CPU, counted from 0, in an endless loop with interrupts off. The loop is
    /// put over the kernel's entry point, where no other CPU comes by; `kernel` is
    /// its file.
    pub fn lock_up(&mut self, cpu: usize, kernel: &Path) -> Result<()> {
        let header = fs::read(kernel)?;
        let entry = header.get(24..32).context("the kernel is no ELF file")?;
        let entry = IMAGE + u64::from_le_bytes(entry.try_into()?);
        self.expect_ok(&format!("Hg{:x}", cpu + 1))?;
        let flags = self.register(FLAGS)?;
        self.expect_ok(&format!("M{entry:x},{:x}:{}", LOOP.len(), hex(&LOOP)))?;
        self.set(RIP, &entry.to_le_bytes())?;
        let off = u32::try_from(flags & !INTERRUPTS)?;
        self.set(FLAGS, &off.to_le_bytes())?;
        ensure!(
            self.register(FLAGS)? & INTERRUPTS == 0 && self.register(RIP)? == entry,
            "CPU {cpu} does not take its registers"
        );
        Ok(())
    }

    /// Lets the node go on.
    pub fn detach(mut self) -> Result<()> {
        self.expect_ok("D")
    }

    fn register(&mut self, number: u8) -> Result<u64> {
        let text = self.command(&format!("p{number:x}"))?;
        let mut value = 0;
        for (place, digits) in text.as_bytes().chunks(2).enumerate().take(8) {
            let byte = u64::from_str_radix(std::str::from_utf8(digits)?, 16)
                .with_context(|| format!("register {number}: {text}"))?;
            value |= byte << (8 * place);
        }
        Ok(value)
    }

    fn set(&mut self, number: u8, bytes: &[u8]) -> Result<()> {
        self.expect_ok(&format!("P{number:x}={}", hex(bytes)))
    }

    fn expect_ok(&mut self, command: &str) -> Result<()> {
        let answer = self.command(command)?;
        ensure!(answer == "OK", "QEMU answers {answer:?} to {command:?}");
        Ok(())
    }

    /// Sends one packet; the answer. That the node has stopped, which may be told at any
    /// time, is no answer.
    fn command(&mut self, text: &str) -> Result<String> {
        write!(self.0, "{}", packet(text))?;
        loop {
            let answer = self.receive(text)?;
            if !answer.starts_with('T') {
                return Ok(answer);
            }
        }
    }

    /// The next packet, an answer to `text` perhaps.
    fn receive(&mut self, text: &str) -> Result<String> {
        let mut byte = [0];
        let mut answer = Vec::new();
        let mut next = |stream: &mut UnixStream| -> Result<u8> {
            stream
                .read_exact(&mut byte)
                .with_context(|| format!("no answer to {text:?}"))?;
            Ok(byte[0])
        };
        loop {
            match next(&mut self.0)? {
                b'$' => break,
                b'-' => bail!("QEMU did not understand {text:?}"),
                _ => {}
            }
        }
        loop {
            match next(&mut self.0)? {
                b'#' => break,
                other => answer.push(other),
            }
        }
        // The line is a socket: the sum of what came is not checked.
        let _sum = (next(&mut self.0)?, next(&mut self.0)?);
        self.0.write_all(b"+")?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

fn packet(text: &str) -> String {
    let sum = text.bytes().fold(0u8, |sum, byte| sum.wrapping_add(byte));
    format!("${text}#{sum:02x}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{hex, packet};

    #[test]
    fn packets_carry_their_sum() {
        assert_eq!(packet("g"), "$g#67");
        assert_eq!(packet("Hg2"), "$Hg2#e1");
        assert_eq!(hex(&0x1234u16.to_le_bytes()), "3412");
    }
}

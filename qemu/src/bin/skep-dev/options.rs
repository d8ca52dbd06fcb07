//! The flags of `scripts/run`.

use anyhow::{Context as _, Result, bail, ensure};
use skep_qemu::{Accel, Firmware};

/// What kind of node to run, and how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RunOptions {
    pub(crate) firmware: Firmware,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    /// Port of the status page on this machine; nginx gets the next one.
    pub(crate) port_base: u16,
    pub(crate) accel: Accel,
    /// Check that the node serves and heals, instead of staying in the foreground.
    pub(crate) check: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            firmware: Firmware::Direct,
            cpus: 2,
            memory_mib: 512,
            port_base: 8080,
            accel: Accel::Tcg,
            check: false,
        }
    }
}

impl RunOptions {
    pub(crate) const HELP: &str = "\
usage: scripts/run [flags]

Boots a node in QEMU and shows its console until Ctrl-C.

  --firmware bios|uefi|direct  how it boots (direct)
  --cpus N                     number of CPUs (2)
  --memory MiB                 memory (512)
  --port-base N                port of the status page; nginx gets the next (8080)
  --accel tcg|kvm              who executes the node's instructions (tcg)
  --check                      boot, wait for the page, kill nginx, wait for the
                               page again, print the times and end with 0 or 1";

    /// Reads the flags; `None` when help was asked for.
    pub(crate) fn parse(words: &[String]) -> Result<Option<Self>> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(flag) = words.next() {
            match flag.as_str() {
                "--help" | "-h" => return Ok(None),
                "--check" => {
                    options.check = true;
                    continue;
                }
                _ => {}
            }
            let value = words.next().map(String::as_str);
            let value = || value.with_context(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--firmware" => options.firmware = firmware(value()?)?,
                "--accel" => options.accel = accel(value()?)?,
                "--cpus" => options.cpus = number(flag, value()?, 1, 255)?,
                "--memory" => options.memory_mib = number(flag, value()?, 1, 1 << 20)?,
                "--port-base" => {
                    options.port_base = u16::try_from(number(flag, value()?, 1, 65_534)?)?;
                }
                _ => bail!("unknown flag {flag}\n\n{}", Self::HELP),
            }
        }
        Ok(Some(options))
    }
}

fn firmware(word: &str) -> Result<Firmware> {
    Ok(match word {
        "direct" => Firmware::Direct,
        "bios" => Firmware::Bios,
        "uefi" => Firmware::Uefi,
        _ => bail!("--firmware is bios, uefi or direct, not {word}"),
    })
}

fn accel(word: &str) -> Result<Accel> {
    Ok(match word {
        "tcg" => Accel::Tcg,
        "kvm" => Accel::Kvm,
        _ => bail!("--accel is tcg or kvm, not {word}"),
    })
}

fn number(flag: &str, word: &str, min: u32, max: u32) -> Result<u32> {
    let number = word
        .parse()
        .with_context(|| format!("{flag} needs a number, not {word}"))?;
    ensure!(
        (min..=max).contains(&number),
        "{flag} goes from {min} to {max}"
    );
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::RunOptions;
    use skep_qemu::{Accel, Firmware};

    fn parse(line: &str) -> anyhow::Result<Option<RunOptions>> {
        let words: Vec<_> = line.split_whitespace().map(str::to_string).collect();
        RunOptions::parse(&words)
    }

    #[test]
    fn every_flag_is_understood() {
        let line = "--firmware uefi --cpus 4 --memory 128 --port-base 9000 --accel kvm --check";
        let expected = RunOptions {
            firmware: Firmware::Uefi,
            cpus: 4,
            memory_mib: 128,
            port_base: 9000,
            accel: Accel::Kvm,
            check: true,
        };
        assert_eq!(parse(line).unwrap(), Some(expected));
        assert_eq!(parse("").unwrap(), Some(RunOptions::default()));
        assert_eq!(parse("--cpus 4 --help").unwrap(), None);
    }

    #[test]
    fn wrong_flags_are_refused_with_a_reason() {
        for (line, reason) in [
            ("--cpus", "needs a value"),
            ("--cpus none", "needs a number"),
            ("--cpus 0", "goes from 1"),
            ("--port-base 65535", "goes from 1"),
            ("--firmware efi", "bios, uefi or direct"),
            ("--what 3", "unknown flag"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}

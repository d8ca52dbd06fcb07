//! Amounts as people write them: `64MiB`, `250ms`.

use anyhow::{Context, Result, bail};

/// Splits `12.5 MiB`-like text into number and unit; only whole numbers are taken.
fn split(text: &str) -> Result<(u64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = number
        .parse()
        .with_context(|| format!("'{text}' is not a whole number"))?;
    Ok((number, unit.trim()))
}

/// Bytes from `1048576`, `1024KiB`, `1MiB` and so on.
pub(crate) fn bytes(text: &str) -> Result<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => bail!("'{text}' has an unknown unit; use B, KiB, MiB, GiB or TiB"),
    };
    number
        .checked_mul(factor)
        .with_context(|| format!("'{text}' is too much"))
}

/// Milliseconds from `250ms`, `10s`, `5min`, `1h`.
pub(crate) fn milliseconds(text: &str) -> Result<u32> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => bail!("'{text}' needs a unit; use ms, s, min or h"),
    };
    let product = number
        .checked_mul(factor)
        .and_then(|total| u32::try_from(total).ok());
    product.with_context(|| format!("'{text}' is too long"))
}

/// Bytes for people: at most one decimal, the largest fitting unit.
pub(crate) fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut unit = "B";
    let mut scaled = bytes as f64;
    for larger in UNITS {
        if scaled < 1024.0 {
            break;
        }
        scaled /= 1024.0;
        unit = larger;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{scaled:.1} {unit}")
    }
}

/// Milliseconds for people.
pub(crate) fn show_milliseconds(time: u32) -> String {
    match time {
        0 => "0s".into(),
        time if time % 3_600_000 == 0 => format!("{}h", time / 3_600_000),
        time if time % 60_000 == 0 => format!("{}min", time / 60_000),
        time if time % 1000 == 0 => format!("{}s", time / 1000),
        time => format!("{time}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        assert_eq!(bytes("64MiB").unwrap(), 64 << 20);
        assert_eq!(bytes("4096").unwrap(), 4096);
        assert_eq!(milliseconds("250ms").unwrap(), 250);
        assert_eq!(milliseconds("2 min").unwrap(), 120_000);
        assert!(bytes("64MB").is_err() && bytes("x").is_err() && bytes("99999999TiB").is_err());
        assert!(milliseconds("10").is_err() && milliseconds("9999h").is_err());
        assert_eq!(show_bytes(1536), "1.5 KiB");
        assert_eq!(
            (show_milliseconds(90_000), show_milliseconds(3_600_000)),
            ("90s".into(), "1h".into())
        );
    }
}

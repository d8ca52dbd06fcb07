//! Taking a tar archive into an image.

use super::files::{Entry, Existing, Files, Kind, normal, show};
use anyhow::{Context, Result, bail};
use skep_api::tree::Meta;
use std::io::Read;
use tar::EntryType;

/// Adds everything in the archive, except what `leave_out` says of a path.
///
/// Devices, pipes and sockets are left out; returns their paths.
pub(crate) fn add(
    files: &mut Files,
    archive: impl Read,
    leave_out: impl Fn(&[u8]) -> bool,
) -> Result<Vec<String>> {
    const BROKEN: &str = "the tar archive is broken; make or fetch it again";
    let mut skipped = Vec::new();
    for entry in tar::Archive::new(archive).entries().context(BROKEN)? {
        let mut entry = entry.context(BROKEN)?;
        let path = normal(&entry.path_bytes())?;
        if leave_out(&path) {
            continue;
        }
        let header = entry.header();
        let number = |value: u64| {
            u32::try_from(value).with_context(|| format!("{} has no 32-bit owner", show(&path)))
        };
        let meta = Meta {
            // Twelve bits are left: the cast keeps the value.
            mode: (header.mode().context(BROKEN)? & 0o7777) as u16,
            uid: number(header.uid().context(BROKEN)?)?,
            gid: number(header.gid().context(BROKEN)?)?,
            mtime: i64::try_from(header.mtime().context(BROKEN)?).unwrap_or(i64::MAX),
        };
        let kind = match header.entry_type() {
            EntryType::Directory => Kind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).context(BROKEN)?;
                Kind::File(content.into())
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().context(BROKEN)?;
                Kind::Symlink(target.into_owned())
            }
            EntryType::Link => {
                let target = normal(&entry.link_name_bytes().context(BROKEN)?)?;
                let at = files.resolve_parent(&target)?;
                match files.get(&at) {
                    Some(Entry {
                        kind: kind @ (Kind::File(_) | Kind::Symlink(_)),
                        ..
                    }) => kind.clone(),
                    _ => bail!(
                        "{} is a hard link to {}, which is missing",
                        show(&path),
                        show(&at)
                    ),
                }
            }
            EntryType::XGlobalHeader => continue,
            _ => {
                skipped.push(show(&path));
                continue;
            }
        };
        if path.is_empty() && !matches!(kind, Kind::Directory) {
            bail!("{BROKEN}");
        }
        files.insert(&path, Entry { meta, kind }, Existing::Replace)?;
    }
    Ok(skipped)
}

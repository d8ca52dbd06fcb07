//! The standard ramdisk: 3Bot and nginx, made with the owner's command line as
//! any owner would.

use anyhow::{Context as _, Result};
use skep_qemu::{
    Artifacts,
    command::{output, run},
    ramdisk::THREEBOT,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Instant, SystemTime},
};

const NGINX: &str = "nginx";

/// Makes whatever of it is missing or older than what it is made from.
pub(crate) fn build() -> Result<()> {
    let artifacts = Artifacts::new();
    let start = Instant::now();
    eprintln!("build: the ramdisk ...");
    make(&artifacts).context("the ramdisk could not be made")?;
    eprintln!(
        "build: the ramdisk done in {:.1} s",
        start.elapsed().as_secs_f32()
    );
    Ok(())
}

fn make(artifacts: &Artifacts) -> Result<()> {
    let cli = artifacts.require(artifacts.cli())?;
    let sources = artifacts.root().join("userspace/capsules");
    let key = artifacts.owner_key();
    if !key.exists() {
        output(Command::new(&cli).arg("keygen").arg("-o").arg(&key))?;
    }
    let nginx = artifacts.nginx_image();
    if is_stale(&nginx.join("tree"), &[&sources.join(NGINX), &cli])? {
        eprintln!("build: packing Debian's nginx (the first time fetches its packages)");
        let recipe = sources.join(NGINX).join("image.toml");
        let mut pack = Command::new(&cli);
        run(pack
            .args(["pack", "--recipe"])
            .arg(recipe)
            .arg("-o")
            .arg(&nginx))?;
    }
    let threebot = pack_threebot(artifacts, &cli)?;
    let manifests = [
        sign(artifacts, &cli, THREEBOT, &threebot)?,
        sign(artifacts, &cli, NGINX, &nginx)?,
    ];
    let mut bundle = Command::new(&cli);
    bundle
        .arg("bundle")
        .arg("--config")
        .arg(sources.join("node.toml"));
    bundle
        .arg("--owner")
        .arg(&key)
        .arg("--manifest")
        .args(&manifests);
    bundle
        .arg("--image")
        .args([&threebot, &nginx])
        .arg("-o")
        .arg(artifacts.ramdisk());
    output(&mut bundle)?;
    Ok(())
}

/// Makes the image of busybox that scenarios run.
pub(crate) fn pack_shell() -> Result<()> {
    let artifacts = Artifacts::new();
    let cli = artifacts.require(artifacts.cli())?;
    let shell = artifacts.root().join("userspace/capsules/shell");
    let image = artifacts.shell_image();
    if is_stale(&image.join("tree"), &[&shell, &cli])? {
        let mut pack = Command::new(&cli);
        pack.args(["pack", "--recipe"])
            .arg(shell.join("image.toml"));
        output(pack.arg("-o").arg(&image)).context("busybox could not be packed")?;
    }
    Ok(())
}

/// The image of the 3Bot: its one program.
fn pack_threebot(artifacts: &Artifacts, cli: &Path) -> Result<PathBuf> {
    let program = artifacts.require(artifacts.threebot())?;
    let image = artifacts.out().join("threebot-image");
    if is_stale(&image.join("tree"), &[&program, cli])? {
        let folder = artifacts.out().join("threebot-files");
        fs::create_dir_all(folder.join("bin"))?;
        fs::copy(&program, folder.join("bin").join(THREEBOT))?;
        let mut pack = Command::new(cli);
        output(
            pack.arg("pack")
                .arg("--dir")
                .arg(&folder)
                .arg("-o")
                .arg(&image),
        )?;
    }
    Ok(image)
}

/// Signs the manifest of a capsule in `userspace/capsules/`.
fn sign(artifacts: &Artifacts, cli: &Path, name: &str, image: &Path) -> Result<PathBuf> {
    let source = artifacts
        .root()
        .join("userspace/capsules")
        .join(name)
        .join("manifest.toml");
    let signed = artifacts.out().join(format!("{name}.manifest"));
    let mut sign = Command::new(cli);
    sign.arg("sign")
        .arg(source)
        .arg("--key")
        .arg(artifacts.owner_key());
    output(sign.arg("--image").arg(image).arg("-o").arg(&signed))?;
    Ok(signed)
}

/// Whether `made` is missing or older than anything in `sources`.
fn is_stale(made: &Path, sources: &[&Path]) -> Result<bool> {
    let Ok(made) = fs::metadata(made).and_then(|found| found.modified()) else {
        return Ok(true);
    };
    for source in sources {
        if newest(source)? > made {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Time of the last change of a file, or of anything in a folder.
fn newest(path: &Path) -> Result<SystemTime> {
    let metadata =
        fs::symlink_metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut newest = metadata.modified()?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            newest = newest.max(self::newest(&entry?.path())?);
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::is_stale;
    use skep_qemu::node::TempFolder;
    use std::{
        fs,
        time::{Duration, SystemTime},
    };

    #[test]
    fn made_things_are_stale_when_missing_or_older_than_a_source() {
        let folder = TempFolder::new().unwrap();
        let (made, sources) = (folder.path().join("made"), folder.path().join("sources"));
        fs::create_dir(&sources).unwrap();
        fs::write(sources.join("a"), "").unwrap();
        assert!(is_stale(&made, &[&sources]).unwrap());
        fs::write(&made, "").unwrap();
        let later = SystemTime::now() + Duration::from_secs(10);
        fs::File::options()
            .write(true)
            .open(&made)
            .unwrap()
            .set_modified(later)
            .unwrap();
        assert!(!is_stale(&made, &[&sources]).unwrap());
        let latest = later + Duration::from_secs(10);
        let source = fs::File::options()
            .write(true)
            .open(sources.join("a"))
            .unwrap();
        source.set_modified(latest).unwrap();
        assert!(is_stale(&made, &[&sources]).unwrap());
    }
}

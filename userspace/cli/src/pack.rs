//! `skep pack`: an image from a folder, an archive or Debian packages.

use crate::debian;
use crate::image::files::Files;
use crate::image::folder::{self, Manner};
use crate::image::store::Store;
use crate::image::tarball;
use crate::units::show_bytes;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// What to pack, and where to.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true))]
pub(crate) struct PackArgs {
    /// Take this folder as the image
    #[arg(long, value_name = "FOLDER", group = "source")]
    dir: Option<PathBuf>,
    /// Take this uncompressed tar archive as the image
    #[arg(long, value_name = "FILE", group = "source")]
    tar: Option<PathBuf>,
    /// Take these Debian packages and what they need (repeat or list several)
    #[arg(long, value_name = "PACKAGE", group = "source", num_args = 1..)]
    deb: Vec<String>,
    /// Read all of this from a file: see userspace/capsules/nginx/image.toml
    #[arg(long, value_name = "FILE", group = "source")]
    recipe: Option<PathBuf>,
    /// Lay this folder over the image; later ones over earlier ones
    #[arg(long, value_name = "FOLDER")]
    overlay: Vec<PathBuf>,
    /// Leave this path of the image out, before any overlay
    #[arg(long, value_name = "PATH", num_args = 1..)]
    exclude: Vec<String>,
    /// Leave this package out although another depends on it
    #[arg(long, value_name = "PACKAGE", num_args = 1..)]
    without: Vec<String>,
    /// Keep documentation, manual pages and translations of packages
    #[arg(long)]
    keep_docs: bool,
    /// Keep fetched packages here [default: ~/.cache/skep/deb]
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Write the image to this folder, replacing an earlier image
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
}

/// What an image is made of: the options of `skep pack` as a TOML file, whose
/// paths are relative to its own folder.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Recipe {
    dir: Option<PathBuf>,
    tar: Option<PathBuf>,
    deb: Vec<String>,
    overlay: Vec<PathBuf>,
    exclude: Vec<String>,
    without: Vec<String>,
    keep_docs: bool,
}

impl Recipe {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the recipe {}", path.display()))?;
        let mut recipe: Self =
            toml::from_str(&text).with_context(|| format!("{} is not a recipe", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let paths = recipe
            .dir
            .iter_mut()
            .chain(&mut recipe.tar)
            .chain(&mut recipe.overlay);
        paths.for_each(|path| *path = folder.join(&*path));
        Ok(recipe)
    }

    /// The recipe of the command line: its file, if any, and its other options.
    fn of(args: &PackArgs) -> Result<Self> {
        let mut recipe = match &args.recipe {
            Some(path) => Self::read(path)?,
            None => Self {
                dir: args.dir.clone(),
                tar: args.tar.clone(),
                ..Self::default()
            },
        };
        recipe.deb.extend_from_slice(&args.deb);
        recipe.overlay.extend_from_slice(&args.overlay);
        recipe.exclude.extend_from_slice(&args.exclude);
        recipe.without.extend_from_slice(&args.without);
        recipe.keep_docs |= args.keep_docs;
        if recipe.deb.is_empty() && (recipe.keep_docs || !recipe.without.is_empty()) {
            bail!("--without and --keep-docs are about packages; they need --deb");
        }
        Ok(recipe)
    }
}

/// Packs, and prints the hash of the tree on standard output.
pub(crate) fn run(args: &PackArgs) -> Result<()> {
    let recipe = Recipe::of(args)?;
    let mut files = Files::default();
    let mut skipped = Vec::new();
    if let Some(dir) = &recipe.dir {
        skipped.extend(folder::add(&mut files, dir, Manner::Image)?);
    }
    if let Some(tar) = &recipe.tar {
        let file = File::open(tar).with_context(|| format!("cannot read {}", tar.display()))?;
        let added = tarball::add(&mut files, BufReader::new(file), |_| false);
        skipped
            .extend(added.with_context(|| {
                format!("{} is not an uncompressed tar archive", tar.display())
            })?);
    }
    if !recipe.deb.is_empty() {
        let request = debian::Request {
            packages: &recipe.deb,
            without: &recipe.without,
            keep_docs: recipe.keep_docs,
            cache: args.cache.clone(),
        };
        let taken = debian::add(&mut files, &request)?;
        eprintln!("packages: {}", taken.packages.join(", "));
        if !taken.cut.is_empty() {
            eprintln!("left out, needed only to install: {}", taken.cut.join(", "));
        }
        skipped.extend(taken.skipped);
    }
    for path in &recipe.exclude {
        if !files.remove(path.as_bytes())? {
            bail!("the image has no {path}; correct --exclude");
        }
    }
    for overlay in &recipe.overlay {
        skipped.extend(folder::add(&mut files, overlay, Manner::Overlay)?);
    }
    if let Some(latest) = source_date_epoch()? {
        files.clamp_times(latest);
    }
    if !skipped.is_empty() {
        eprintln!("left out, devices and the like: {}", skipped.join(", "));
    }
    let root = Store::write(&args.output, &files)?;
    let content = show_bytes(files.content_bytes());
    eprintln!(
        "{}: {} files and directories, {content}",
        args.output.display(),
        files.len()
    );
    println!("{root}");
    Ok(())
}

/// The latest time that an image may contain, by the custom of reproducible builds.
fn source_date_epoch() -> Result<Option<i64>> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => {
            let seconds = text.parse();
            seconds
                .map(Some)
                .context("SOURCE_DATE_EPOCH is not a number of seconds; unset it")
        }
        Err(_) => Ok(None),
    }
}

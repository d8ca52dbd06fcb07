//! Reads QR codes from what a node shows, with a reader of its own.

use anyhow::{Context as _, Result, ensure};
use rqrr::PreparedImage;

/// The text of the one code in a picture of so many pixels, by the brightness of each.
pub(crate) fn read(
    width: usize,
    height: usize,
    brightness: impl FnMut(usize, usize) -> u8,
) -> Result<String> {
    let mut image = PreparedImage::prepare_from_greyscale(width, height, brightness);
    let grids = image.detect_grids();
    ensure!(grids.len() == 1, "{} codes are shown", grids.len());
    let grid = grids.first().context("no code")?;
    let (_, text) = grid.decode().context("a code that cannot be read")?;
    Ok(text)
}

/// The text of a code given as rows of squares, dark ones set.
pub fn read_squares(rows: &[Vec<bool>]) -> Result<String> {
    /// Pixels along a square, and squares of light around the code.
    const SIDE: usize = 4;
    const QUIET: usize = 4;
    let is_dark = |x: usize, y: usize| {
        let square = |n: usize| (n / SIDE).checked_sub(QUIET);
        let row = square(y).and_then(|y| rows.get(y));
        row.zip(square(x))
            .and_then(|(row, x)| row.get(x))
            .is_some_and(|dark| *dark)
    };
    let side = |squares: usize| (squares + 2 * QUIET) * SIDE;
    let width = side(rows.first().map_or(0, Vec::len));
    read(width, side(rows.len()), |x, y| {
        if is_dark(x, y) { 0 } else { u8::MAX }
    })
}

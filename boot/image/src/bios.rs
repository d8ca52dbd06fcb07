//! The BIOS loader on its way to the disk: the boot sector, and the rest in sectors of its own,
//! whose place, length and sum the boot sector must know (`boot/bios/src/boot_sector.s`).

use crate::{gpt::SECTOR, loaders::with_key, release::Signing};
use anyhow::{Context as _, Result, ensure};

/// Bytes of the boot sector.
const BOOT_SECTOR_BYTES: usize = SECTOR as usize;
/// Where the loader begins in the file: it goes to 0x8000 in memory, the boot sector to 0x7c00.
const LOADER_AT: usize = 0x400;
/// Bytes that the boot sector reads at a time.
const PART_BYTES: usize = 64 * SECTOR as usize;
/// Where its parameters are: first sector, parts, sum.
const PARAMETERS_AT: usize = 428;

/// The loader with everything in its place.
pub(crate) struct Bios {
    /// The boot sector, with an empty partition table.
    pub(crate) boot_sector: Vec<u8>,
    /// The sectors that it reads.
    pub(crate) loader: Vec<u8>,
}

impl Bios {
    /// The loader for a disk that has it from `first_sector` on.
    ///
    /// # Errors
    /// The program is not our loader.
    pub(crate) fn new(program: &[u8], signing: &Signing, first_sector: u64) -> Result<Self> {
        let program = with_key(program, signing).context("the BIOS loader")?;
        ensure!(program.len() > LOADER_AT, "the BIOS loader is cut short");
        let mut boot_sector = program[..BOOT_SECTOR_BYTES].to_vec();
        let mut loader = program[LOADER_AT..].to_vec();
        loader.resize(loader.len().next_multiple_of(PART_BYTES), 0);
        let parameters = [
            u32::try_from(first_sector)?,
            u32::try_from(loader.len() / PART_BYTES)?,
            sum(&loader),
        ];
        let places = boot_sector[PARAMETERS_AT..].chunks_exact_mut(4);
        for (place, parameter) in places.zip(parameters) {
            ensure!(place == [0; 4], "the BIOS loader's boot sector is too long");
            place.copy_from_slice(&parameter.to_le_bytes());
        }
        Ok(Self {
            boot_sector,
            loader,
        })
    }

    /// Sectors of the loader.
    pub(crate) fn sectors(&self) -> u64 {
        self.loader.len() as u64 / SECTOR
    }
}

/// The sum by which the boot sector knows the loader: of words of 32 bits, each time turned by
/// one bit, so that words in another order have another one.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(4).fold(0u32, |sum, word| {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        sum.rotate_left(1).wrapping_add(word)
    })
}

#[cfg(test)]
mod tests {
    use super::{Bios, LOADER_AT, PART_BYTES, sum};
    use crate::release::Signing;
    use skep_api::{KeyPair, boot::LOADER_KEY_MARKER};

    fn program(len: usize) -> Vec<u8> {
        let mut program = vec![0; LOADER_AT];
        program[..428].fill(0x90);
        program.resize(LOADER_AT + len, 7);
        program.extend(LOADER_KEY_MARKER);
        program.extend([0; 100]);
        program
    }

    fn signing() -> Signing {
        Signing::new(KeyPair::from_seed([7; 32]).unwrap(), 3)
    }

    #[test]
    fn the_boot_sector_knows_place_length_and_sum_of_what_it_reads() {
        let bios = Bios::new(&program(70_000), &signing(), 34).unwrap();
        assert_eq!(bios.loader.len(), 3 * PART_BYTES);
        assert_eq!(bios.sectors(), 192);
        assert_eq!(bios.boot_sector.len(), 512);
        let word = |at: usize| {
            let bytes = bios.boot_sector[at..at + 4].try_into().unwrap();
            u32::from_le_bytes(bytes)
        };
        assert_eq!(
            (word(428), word(432), word(436)),
            (34, 3, sum(&bios.loader))
        );
        let key = signing().key.public().0;
        assert!(bios.loader[70_032..].starts_with(&key));
    }

    #[test]
    fn the_sum_tells_order_and_every_bit() {
        let bytes: Vec<u8> = (0..64).collect();
        let mut other = bytes.clone();
        other.swap(0, 4);
        assert_ne!(sum(&bytes), sum(&other));
        for bit in 0..512 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(sum(&bytes), sum(&other), "bit {bit}");
        }
    }

    #[test]
    fn what_is_not_the_loader_is_refused() {
        assert!(Bios::new(&program(0)[..LOADER_AT], &signing(), 34).is_err());
        let mut used = program(70_000);
        used[430] = 1;
        assert!(Bios::new(&used, &signing(), 34).is_err());
        let two = [program(10), program(10)].concat();
        assert!(Bios::new(&two, &signing(), 34).is_err());
    }
}

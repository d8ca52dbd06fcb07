//! Packs ramdisks: `skep_api::boot::packed` is the format, and what unpacks them.

use crate::lz4;
use anyhow::{Result, ensure};
use skep_api::boot::packed::{AS_IT_IS, BLOCK_BYTES, Packed, header, is_packed};
use std::borrow::Cow;

/// The ramdisk, packed; as it is where that saves nothing, and if it was packed before.
///
/// # Errors
/// What was packed does not come back: a mistake of the packer that must not leave here.
pub fn pack(ramdisk: &[u8]) -> Result<Cow<'_, [u8]>> {
    if is_packed(ramdisk) {
        return Ok(ramdisk.into());
    }
    let mut table = Vec::new();
    let mut blocks = Vec::new();
    for content in ramdisk.chunks(BLOCK_BYTES) {
        let packed = lz4::compress(content);
        if packed.len() < content.len() {
            table.push(u32::try_from(packed.len())?);
            blocks.extend_from_slice(&packed);
        } else {
            table.push(u32::try_from(content.len())? | AS_IT_IS);
            blocks.extend_from_slice(content);
        }
    }
    let mut all = header(ramdisk.len() as u64, &table);
    all.append(&mut blocks);
    if all.len() >= ramdisk.len() {
        return Ok(ramdisk.into());
    }
    ensure!(
        *unpack(&all)? == *ramdisk,
        "the ramdisk would not come back as it is; leave it unpacked"
    );
    Ok(all.into())
}

/// The ramdisk as the kernel will see it, whether it is packed or not.
///
/// # Errors
/// It is packed and not whole.
pub fn unpack(ramdisk: &[u8]) -> Result<Cow<'_, [u8]>> {
    if !is_packed(ramdisk) {
        return Ok(ramdisk.into());
    }
    let packed = Packed::parse(ramdisk)?;
    ensure!(packed.is_whole(), "the packed ramdisk is cut short");
    let mut plain = vec![0; packed.len()];
    let damaged = packed.unpack(&mut plain, || ())?;
    ensure!(
        damaged == 0,
        "{damaged} parts of the packed ramdisk are damaged"
    );
    Ok(plain.into())
}

#[cfg(test)]
mod tests {
    use super::{pack, unpack};

    fn ramdisk(len: u32) -> Vec<u8> {
        (0..len).map(|i| ((i / 11) ^ (i >> 9)) as u8).collect()
    }

    #[test]
    fn what_is_packed_comes_back_the_same_each_time() {
        for len in [20_000, 262_144, 262_145, 3_000_000] {
            let ramdisk = ramdisk(len);
            let packed = pack(&ramdisk).unwrap();
            assert!(packed.len() < ramdisk.len() / 2);
            assert!(*unpack(&packed).unwrap() == ramdisk);
            assert!(pack(&ramdisk).unwrap() == packed);
            // Not twice.
            assert!(pack(&packed).unwrap() == packed);
        }
    }

    /// Another packer is another image of the same inputs: that is to be meant.
    #[test]
    fn the_packer_does_not_change_by_accident() {
        let ramdisk = ramdisk(3_000_000);
        let packed = pack(&ramdisk).unwrap();
        let hash = skep_api::Hash::of(&packed).to_string();
        assert_eq!(
            hash,
            "f749edb223bab49e30e982d31c20f0e9bcecddf77983818b741831245c13158f"
        );
    }

    #[test]
    fn what_cannot_be_packed_stays_as_it_is() {
        let mut state = 1u64;
        let mut noise = Vec::new();
        for _ in 0..100_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            noise.push((state >> 56) as u8);
        }
        for ramdisk in [&noise[..], &[], b"short"] {
            assert!(*pack(ramdisk).unwrap() == *ramdisk);
            assert!(*unpack(ramdisk).unwrap() == *ramdisk);
        }
        // A part of it may be worth it.
        let mixed = [&noise[..], &noise, &noise, &vec![0; 500_000]].concat();
        let packed = pack(&mixed).unwrap();
        assert!(packed.len() < mixed.len() - 400_000);
        assert!(*unpack(&packed).unwrap() == mixed);
    }

    #[test]
    fn what_is_not_whole_is_told() {
        let packed = pack(&ramdisk(3_000_000)).unwrap().into_owned();
        let cut = &packed[..packed.len() - 1];
        assert!(unpack(cut).unwrap_err().to_string().contains("cut short"));
        let mut wrong = packed.clone();
        wrong[200..400].fill(0xff);
        assert!(unpack(&wrong).unwrap_err().to_string().contains("damaged"));
        wrong[20] ^= 1;
        assert!(unpack(&wrong).unwrap_err().to_string().contains("header"));
    }
}

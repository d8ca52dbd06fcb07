//! The screen: the BIOS's best mode whose memory lies in one piece (VESA BIOS Extensions 3.0),
//! or none.

use crate::firmware::{Registers, SHARED_SEGMENT, call, get, low, put};
use bootloader_api::info::{FrameBufferInfo, PixelFormat};
use bootloader_x86_64_common::RawFrameBufferInfo;
use x86_64::PhysAddr;

/// Largest screen that is chosen: text stays readable, and drawing quick.
const WIDTH_MAX: u16 = 1280;
const HEIGHT_MAX: u16 = 720;
/// Where the BIOS writes what it knows of the screen and of a mode, in the shared page.
const SCREEN_AT: u16 = 0x400;
const SCREEN_BYTES: usize = 512;
const MODE_AT: u16 = 0x600;
const MODE_BYTES: usize = 256;
/// Modes that are looked at: the list is the BIOS's.
const MODES_MAX: usize = 512;
const LIST_END: u16 = 0xffff;
/// Of a mode's attributes: it works here, is graphics, and its memory lies in one piece.
const WANTED: u16 = 0x0091;
/// Asks for that when the mode is set.
const LINEAR: u32 = 0x4000;
/// Memory models of colours that need no table.
const MODELS: [u8; 2] = [4, 6];

/// A mode that can be used.
#[derive(Clone, Copy)]
struct Mode {
    number: u16,
    address: u32,
    info: FrameBufferInfo,
}

/// Chooses a mode and sets it, if the machine has a screen that knows any.
pub(crate) fn set() -> Option<RawFrameBufferInfo> {
    put(SCREEN_AT, &[0; SCREEN_BYTES]);
    put(SCREEN_AT, b"VBE2");
    vesa(0x4f00, 0, SCREEN_AT)?;
    if get(SCREEN_AT) != *b"VESA" {
        return None;
    }
    let version = u16::from_le_bytes(get(SCREEN_AT + 4));
    let [offset_low, offset_high, segment_low, segment_high] = get(SCREEN_AT + 14);
    let segment = usize::from(u16::from_le_bytes([segment_low, segment_high]));
    let list = segment * 16 + usize::from(u16::from_le_bytes([offset_low, offset_high]));
    let mut best: Option<Mode> = None;
    for index in 0..MODES_MAX {
        let number = u16::from_le_bytes(low(list + 2 * index));
        if number == LIST_END {
            break;
        }
        let size = |mode: &Mode| (mode.info.width, mode.info.height, mode.info.bytes_per_pixel);
        if let Some(mode) = Mode::ask(number, version)
            && best.as_ref().is_none_or(|best| size(best) < size(&mode))
        {
            best = Some(mode);
        }
    }
    let best = best?;
    let set = call(
        0x10,
        Registers {
            eax: 0x4f02,
            ebx: u32::from(best.number) | LINEAR,
            ..Registers::default()
        },
    );
    worked(&set).then_some(RawFrameBufferInfo {
        addr: PhysAddr::new(u64::from(best.address)),
        info: best.info,
    })
}

/// Has the BIOS answer into the shared page at `at`; `None` if it does not know how.
fn vesa(function: u32, mode: u16, at: u16) -> Option<Registers> {
    let answer = call(
        0x10,
        Registers {
            eax: function,
            ecx: u32::from(mode),
            edi: u32::from(at),
            es: SHARED_SEGMENT,
            ..Registers::default()
        },
    );
    worked(&answer).then_some(answer)
}

fn worked(answer: &Registers) -> bool {
    answer.eax & 0xffff == 0x004f
}

impl Mode {
    /// What the BIOS says of a mode, if it can be used. A screen with colours that the kernel
    /// does not know is none.
    fn ask(number: u16, version: u16) -> Option<Self> {
        put(MODE_AT, &[0; MODE_BYTES]);
        vesa(0x4f01, number, MODE_AT)?;
        let word = |at: u16| u16::from_le_bytes(get(MODE_AT + at));
        let byte = |at: u16| u8::from_le_bytes(get(MODE_AT + at));
        let (width, height) = (word(18), word(20));
        let is_fit = word(0) & WANTED == WANTED
            && MODELS.contains(&byte(27))
            && (1..=WIDTH_MAX).contains(&width)
            && (1..=HEIGHT_MAX).contains(&height);
        let bytes_per_pixel = match byte(25) {
            24 => 3,
            32 => 4,
            _ => return None,
        };
        let pixel_format = match (byte(32), byte(34), byte(36)) {
            (0, 8, 16) => PixelFormat::Rgb,
            (16, 8, 0) => PixelFormat::Bgr,
            _ => return None,
        };
        let row = match word(50) {
            linear if version >= 0x300 && linear != 0 => linear,
            _ => word(16),
        };
        let address = u32::from_le_bytes(get(MODE_AT + 40));
        let row = usize::from(row);
        let stride = row / bytes_per_pixel;
        (is_fit && address != 0 && stride >= usize::from(width)).then_some(Self {
            number,
            address,
            info: FrameBufferInfo {
                byte_len: row * usize::from(height),
                width: usize::from(width),
                height: usize::from(height),
                pixel_format,
                bytes_per_pixel,
                stride,
            },
        })
    }
}

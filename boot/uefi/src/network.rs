//! The release that a loader starts which was itself loaded from the network: a file beside
//! it on the boot server, fetched in the way the firmware has just fetched the loader.
//!
//! | the loader came by | the release comes by |
//! | --- | --- |
//! | iPXE | iPXE, which has fetched both and shows them as files of its network device |
//! | UEFI HTTP boot | HTTP, from the loader's own address |
//! | UEFI PXE | TFTP, from the server that offered the loader |

use crate::disk::open;
use crate::machine::Uefi;
use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::net::IpAddr;
use skep_boot::{Failure, Machine as _, release::Volume};
use uefi::{
    CStr8, CStr16, Handle, boot, cstr8, cstr16,
    proto::{
        device_path::{DevicePath, DevicePathNodeEnum},
        loaded_image::LoadedImage,
        media::{
            file::{File as _, FileAttribute, FileMode, RegularFile},
            fs::SimpleFileSystem,
        },
        network::{
            http::{HttpBinding, HttpHelper},
            ip4config2::Ip4Config2,
            pxe::{BaseCode, Mode},
        },
    },
};
use uefi_raw::protocol::network::{http::HttpStatusCode, pxe::PxeBaseCodeDhcpV4Packet};

/// The release's name on the boot server (`skep pxe serve`).
const NAME: &str = "release";
const FILE_NAME: &CStr16 = cstr16!("release");
const TFTP_NAME: &CStr8 = cstr8!("release");
/// Bytes read from a file at a time.
const PART_BYTES: usize = 1 << 20;
/// Most bytes of a release that is believed to be one: a length that comes from the network.
const BYTES_MAX: u64 = skep_api::boot::release::RELEASE_BYTES_MAX;

/// The release that goes with this program, which is not on a disk.
///
/// # Errors
/// [`Failure::NotFromDisk`]: this program was not loaded from a network either;
/// [`Failure::NotFetched`], [`Failure::NoMemory`].
pub(crate) fn release() -> Result<Box<dyn Volume>, Failure> {
    let image = open::<LoadedImage>(boot::image_handle())?;
    let device = image.device().ok_or(Failure::NotFromDisk)?;
    if let Some(file) = beside(device) {
        return Ok(Box::new(File(file)));
    }
    let fetched = match own_url(device) {
        Some(url) => by_http(device, &url),
        None => by_tftp(device),
    };
    Ok(Box::new(Fetched(fetched?)))
}

/// A file of the device that this program came from: iPXE's, or a volume's.
fn beside(device: Handle) -> Option<RegularFile> {
    let mut volume = open::<SimpleFileSystem>(device).ok()?;
    let mut folder = volume.open_volume().ok()?;
    folder
        .open(FILE_NAME, FileMode::Read, FileAttribute::empty())
        .ok()?
        .into_regular_file()
}

struct File(RegularFile);

impl Volume for File {
    fn read(
        &mut self,
        offset: u64,
        into: &mut [u8],
        each: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), Failure> {
        self.0.set_position(offset).map_err(|_| Failure::Read)?;
        let mut done = 0;
        for part in into.chunks_mut(PART_BYTES) {
            let read = self.0.read(part).map_err(|_| Failure::Read)?;
            if read < part.len() {
                return Err(Failure::NotFetched);
            }
            each(done, part);
            done += read;
        }
        Ok(())
    }
}

/// A release in memory.
struct Fetched(&'static [u8]);

impl Volume for Fetched {
    fn read(
        &mut self,
        offset: u64,
        into: &mut [u8],
        each: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), Failure> {
        let from = usize::try_from(offset).ok();
        let from = from.and_then(|from| self.0.get(from..)?.get(..into.len()));
        into.copy_from_slice(from.ok_or(Failure::NotFetched)?);
        each(0, into);
        Ok(())
    }
}

/// The address that this program was loaded from by HTTP boot, which the firmware keeps in
/// the path of the network device (UEFI 2.10, 10.3.4.23).
fn own_url(device: Handle) -> Option<String> {
    let path = open::<DevicePath>(device).ok()?;
    path.node_iter().find_map(|node| match node.as_enum() {
        Ok(DevicePathNodeEnum::MessagingUri(uri)) => {
            let url = core::str::from_utf8(uri.value()).ok()?;
            let url = url.trim_end_matches('\0');
            (!url.is_empty()).then(|| url.to_string())
        }
        _ => None,
    })
}

/// Fetches the file that is beside `own` on its server.
fn by_http(device: Handle, own: &str) -> Result<&'static [u8], Failure> {
    let (folder, _) = own.rsplit_once('/').ok_or(Failure::NotFetched)?;
    let url = [folder, "/", NAME].concat();
    fetch(device, &url).map_err(|_| Failure::NotFetched)?
}

fn fetch(device: Handle, url: &str) -> uefi::Result<Result<&'static [u8], Failure>> {
    let path = boot::open_protocol_exclusive::<DevicePath>(device)?;
    let nic = boot::locate_device_path::<HttpBinding>(&mut &*path)?;
    drop(path);
    // The address by which the loader came was the boot manager's, and is not lent on.
    Ip4Config2::new(nic)?.ifup()?;
    let mut http = HttpHelper::new(nic)?;
    http.configure()?;
    http.request_get(url)?;
    let answer = http.response_first(true)?;
    if answer.status != HttpStatusCode::STATUS_200_OK {
        return Ok(Err(Failure::NotFetched));
    }
    let mut headers = answer.headers.iter();
    let length = headers.find(|(name, _)| name == "content-length");
    let Some(memory) = length.and_then(|(_, value)| room(value.parse().ok()?)) else {
        return Ok(Err(Failure::NotFetched));
    };
    let mut part = answer.body;
    let mut done = 0;
    loop {
        let Some(place) = memory.get_mut(done..done + part.len()) else {
            return Ok(Err(Failure::NotFetched));
        };
        place.copy_from_slice(&part);
        done += part.len();
        if done == memory.len() {
            return Ok(Ok(memory));
        }
        part = Vec::new();
        if http.response_more(&mut part)?.is_empty() {
            // It has said how long the file is, and sends no more of it.
            return Ok(Err(Failure::NotFetched));
        }
    }
}

/// Fetches the file from the server that this program came from.
fn by_tftp(device: Handle) -> Result<&'static [u8], Failure> {
    let mut pxe = open::<BaseCode>(device)?;
    let server = boot_server(pxe.mode()).ok_or(Failure::NotFetched)?;
    let length = pxe.tftp_get_file_size(&server, TFTP_NAME);
    let memory = length.ok().and_then(room).ok_or(Failure::NotFetched)?;
    let read = pxe.tftp_read_file(&server, TFTP_NAME, Some(memory));
    match read {
        Ok(read) if read == memory.len() as u64 => Ok(memory),
        _ => Err(Failure::NotFetched),
    }
}

/// Who offered this program: beside a DHCP server that knows nothing of booting another one
/// did (PXE 2.1, 2.2), whose answer is a packet of its own.
fn boot_server(mode: &Mode) -> Option<IpAddr> {
    let answers = [
        (mode.pxe_reply_received(), mode.pxe_reply()),
        (mode.proxy_offer_received(), mode.proxy_offer()),
        (mode.dhcp_ack_received(), mode.dhcp_ack()),
    ];
    answers.into_iter().find_map(|(is_there, packet)| {
        let packet: &PxeBaseCodeDhcpV4Packet = packet.as_ref();
        let server = packet.bootp_si_addr;
        (is_there && server != [0; 4]).then(|| IpAddr::from(server))
    })
}

/// Memory for a release of this length, if it can be one.
fn room(length: u64) -> Option<&'static mut [u8]> {
    if length == 0 || length > BYTES_MAX {
        return None;
    }
    Uefi::pages(usize::try_from(length).ok()?).ok()
}

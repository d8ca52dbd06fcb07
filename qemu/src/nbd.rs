//! A server of the NBD protocol, as much of it as QEMU asks for: the fixed newstyle
//! handshake, one export under any name, simple replies.
//!
//! Source: the protocol's specification, `doc/proto.md` of
//! github.com/NetworkBlockDevice/nbd. All numbers are big-endian.

use std::io::{self, Read, Write};

/// First words of the server (`NBDMAGIC`), and of an option (`IHAVEOPT`).
const MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Handshake flags: options are answered, and there is no padding after the export.
const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 1 << 1;
/// Options of the client.
const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_GO: u32 = 7;
/// Answers to them.
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = 1 << 31 | 1;
const INFO_EXPORT: u16 = 0;
/// What the export can do: it has flags, a cache to flush, and writes past the cache.
const EXPORT_FLAGS: u16 = 1 | 1 << 2 | 1 << 3;
/// Requests, and their flag that a write is durable before its answer.
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;
const CMD_FLUSH: u16 = 3;
const FLAG_FUA: u16 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
/// No option and no request of QEMU's is longer.
const LENGTH_MAX: u32 = 64 << 20;

/// What a request asks for.
pub(crate) enum Request<'a> {
    /// Bytes from this place on.
    Read(u64, &'a mut [u8]),
    /// These bytes to this place; whether they are to be durable before the answer.
    Write(u64, &'a [u8], bool),
    /// All that was answered before is to be durable.
    Flush,
}

/// A disk behind the protocol.
pub(crate) trait Export {
    /// Its bytes.
    fn size(&self) -> u64;

    /// Does what is asked. `Ok(false)`: it has no power, and nobody is answered any more.
    fn handle(&self, request: Request<'_>) -> io::Result<bool>;
}

/// Serves one client until it goes away.
pub(crate) fn serve(client: &mut (impl Read + Write), export: &impl Export) -> io::Result<()> {
    if handshake(client, export)? {
        while transmit(client, export)? {}
    }
    Ok(())
}

/// Agrees on the export; `false` when the client wants none.
fn handshake(client: &mut (impl Read + Write), export: &impl Export) -> io::Result<bool> {
    let hello = [
        &MAGIC.to_be_bytes()[..],
        &OPTION_MAGIC.to_be_bytes(),
        &(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes(),
    ];
    client.write_all(&hello.concat())?;
    let has_zeroes = u32::from_be_bytes(bytes(client)?) & u32::from(NO_ZEROES) == 0;
    let size = export.size().to_be_bytes();
    let flags = EXPORT_FLAGS.to_be_bytes();
    loop {
        expect(
            u64::from_be_bytes(bytes(client)?) == OPTION_MAGIC,
            "no option",
        )?;
        let option = u32::from_be_bytes(bytes(client)?);
        let length = u32::from_be_bytes(bytes(client)?);
        payload(client, length)?;
        match option {
            OPT_EXPORT_NAME => {
                let padding = if has_zeroes { 124 } else { 0 };
                client.write_all(&[&size[..], &flags, &vec![0; padding]].concat())?;
                return Ok(true);
            }
            OPT_GO => {
                let info = [&INFO_EXPORT.to_be_bytes()[..], &size, &flags].concat();
                answer(client, option, REP_INFO, &info)?;
                answer(client, option, REP_ACK, &[])?;
                return Ok(true);
            }
            OPT_ABORT => return answer(client, option, REP_ACK, &[]).map(|()| false),
            _ => answer(client, option, REP_ERR_UNSUP, &[])?,
        }
    }
}

fn answer(client: &mut impl Write, option: u32, what: u32, data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).map_err(io::Error::other)?;
    let head = [option, what, length].map(u32::to_be_bytes).concat();
    client.write_all(&[&OPTION_REPLY_MAGIC.to_be_bytes()[..], &head, data].concat())
}

/// Answers one request; `false` when the client has said good-bye.
fn transmit(client: &mut (impl Read + Write), export: &impl Export) -> io::Result<bool> {
    let magic = u32::from_be_bytes(bytes(client)?);
    expect(magic == REQUEST_MAGIC, "no request")?;
    let is_fua = u16::from_be_bytes(bytes(client)?) & FLAG_FUA != 0;
    let what = u16::from_be_bytes(bytes(client)?);
    let cookie: [u8; 8] = bytes(client)?;
    let offset = u64::from_be_bytes(bytes(client)?);
    let length = u32::from_be_bytes(bytes(client)?);
    let mut data = Vec::new();
    let done = match what {
        CMD_READ => {
            expect(length <= LENGTH_MAX, "a read without end")?;
            data.resize(length as usize, 0);
            export.handle(Request::Read(offset, &mut data))
        }
        CMD_WRITE => {
            let written = payload(client, length)?;
            export.handle(Request::Write(offset, &written, is_fua))
        }
        CMD_DISC => return Ok(false),
        CMD_FLUSH => export.handle(Request::Flush),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    let error = match done {
        Ok(true) => 0,
        Ok(false) => return Ok(true),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => EINVAL,
        Err(_) => EIO,
    };
    if error != 0 {
        data.clear();
    }
    let head = [REPLY_MAGIC, error].map(u32::to_be_bytes).concat();
    client.write_all(&[&head[..], &cookie, &data].concat())?;
    Ok(true)
}

fn bytes<const N: usize>(client: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn payload(client: &mut impl Read, length: u32) -> io::Result<Vec<u8>> {
    expect(length <= LENGTH_MAX, "more data than anybody sends")?;
    let mut data = vec![0; length as usize];
    client.read_exact(&mut data)?;
    Ok(data)
}

fn expect(holds: bool, or: &str) -> io::Result<()> {
    if holds {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, or))
    }
}

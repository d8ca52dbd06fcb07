//! Framing: how one message becomes the bytes of one `write()` and back.
//!
//! | offset | bytes | field, little-endian |
//! | --- | --- | --- |
//! | 0 | 4 | length of the body |
//! | 4 | 2 | [`PROTOCOL_VERSION`] |
//! | 6 | 2 | reserved, 0 |
//! | 8 | 4 | request id: chosen by the 3Bot (not 0), repeated in the reply; 0 in events |
//! | 12 | … | body: postcard of [`super::Request`] or [`super::Message`] |

use alloc::vec::Vec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Message, Request};

/// Raised with any change of the messages; both sides must have the same.
pub const PROTOCOL_VERSION: u16 = 9;
/// Most bytes of a whole frame, header included.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Bytes before the body.
pub const HEADER_BYTES: usize = 12;

/// The decoded first [`HEADER_BYTES`] of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the body that follows; the whole frame is within [`FRAME_BYTES_MAX`].
    pub body_bytes: usize,
    /// The sender's protocol version.
    pub version: u16,
    /// Request id, 0 in events.
    pub id: u32,
}

/// Why bytes are not a frame, or a message does not fit one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Fewer bytes than the header or the header's length says.
    Truncated,
    /// Longer than [`FRAME_BYTES_MAX`].
    TooLarge,
    /// A reserved field is not 0.
    Reserved,
    /// The sender speaks this other version.
    Version(u16),
    /// The body does not decode to a message, or has bytes left over.
    Malformed,
}

impl core::fmt::Display for FrameError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated => f.write_str("frame cut short"),
            Self::TooLarge => f.write_str("frame longer than 64 KiB"),
            Self::Reserved => f.write_str("reserved header field is not zero"),
            Self::Version(v) => write!(f, "protocol version {v}, expected {PROTOCOL_VERSION}"),
            Self::Malformed => f.write_str("body does not decode"),
        }
    }
}

impl core::error::Error for FrameError {}

/// Reads the header at the start of `bytes` and checks its length, not its version: a reply to
/// a wrong version still needs the id.
///
/// # Errors
///
/// `Truncated`, `TooLarge`, `Reserved`.
pub fn header(bytes: &[u8]) -> Result<Header, FrameError> {
    let Some((head, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(FrameError::Truncated);
    };
    let [l0, l1, l2, l3, v0, v1, r0, r1, i0, i1, i2, i3] = *head;
    let body_bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if body_bytes > FRAME_BYTES_MAX - HEADER_BYTES {
        return Err(FrameError::TooLarge);
    }
    if [r0, r1] != [0, 0] {
        return Err(FrameError::Reserved);
    }
    let version = u16::from_le_bytes([v0, v1]);
    Ok(Header {
        body_bytes,
        version,
        id: u32::from_le_bytes([i0, i1, i2, i3]),
    })
}

/// Splits the first whole frame off `bytes`: its header, its body, and what follows.
///
/// # Errors
///
/// Those of [`header`], and `Truncated` when the body is not all there.
pub fn split(bytes: &[u8]) -> Result<(Header, &[u8], &[u8]), FrameError> {
    let head = header(bytes)?;
    let rest = bytes.get(HEADER_BYTES..).ok_or(FrameError::Truncated)?;
    let (body, rest) = rest
        .split_at_checked(head.body_bytes)
        .ok_or(FrameError::Truncated)?;
    Ok((head, body, rest))
}

/// Makes the frame of a request. `id` must not be 0.
///
/// # Errors
///
/// `TooLarge`.
pub fn encode_request(id: u32, request: &Request) -> Result<Vec<u8>, FrameError> {
    encode(id, request)
}

/// Makes the frame of a reply (`id` of its request) or an event (`id` 0).
///
/// # Errors
///
/// `TooLarge`.
pub fn encode_message(id: u32, message: &Message) -> Result<Vec<u8>, FrameError> {
    encode(id, message)
}

/// Decodes the body of a request and checks it against every documented limit, so that the
/// kernel need not.
///
/// # Errors
///
/// The error to answer with, as [`super::Reply::Error`] under the header's id.
pub fn decode_request(head: &Header, body: &[u8]) -> Result<Request, super::ControlError> {
    let request: Request = decode(head, body).map_err(|error| match error {
        FrameError::Version(_) => super::ControlError::Version {
            kernel: PROTOCOL_VERSION,
        },
        _ => super::ControlError::Malformed,
    })?;
    super::limits::check(&request)?;
    Ok(request)
}

/// Decodes the body of what the kernel sent.
///
/// # Errors
///
/// `Version`, `Malformed`.
pub fn decode_message(head: &Header, body: &[u8]) -> Result<Message, FrameError> {
    decode(head, body)
}

fn encode<T: Serialize>(id: u32, message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = Vec::with_capacity(64);
    frame.extend_from_slice(&[0; HEADER_BYTES]);
    let mut frame = postcard::to_extend(message, frame).map_err(|_| FrameError::TooLarge)?;
    if frame.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge);
    }
    let body_bytes = u32::try_from(frame.len() - HEADER_BYTES).map_err(|_| FrameError::TooLarge)?;
    frame[0..4].copy_from_slice(&body_bytes.to_le_bytes());
    frame[4..6].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    frame[8..12].copy_from_slice(&id.to_le_bytes());
    Ok(frame)
}

fn decode<T: DeserializeOwned>(head: &Header, body: &[u8]) -> Result<T, FrameError> {
    if head.version != PROTOCOL_VERSION {
        return Err(FrameError::Version(head.version));
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Malformed),
    }
}

//! The form of a block device's request on the wire.

use alloc::vec::Vec;
use machine::AllocError;
use machine::block::{BlockError, Operation};
use machine::dma::{Direction, DmaBuffer, Reach, Segment};
use machine::virtio::{Chain, VirtioError};

/// The number of an operation on the wire (virtio 1.2, 5.2.6).
fn number(operation: Operation) -> u32 {
    match operation {
        Operation::Read => 0,
        Operation::Write => 1,
        Operation::Flush => 4,
        Operation::Discard => 11,
        Operation::WriteZeroes => 13,
    }
}

/// The sector in the header: discarding and zeroing have theirs in the data.
fn header_sector(operation: Operation, sector: u64) -> u64 {
    match operation {
        Operation::Read | Operation::Write => sector,
        _ => 0,
    }
}

/// The operation's number in four bytes, four that are reserved, and the sector.
const HEADER: usize = 16;
/// Puts `words` into a part of a request; what it has no room for is left out.
pub(crate) fn fill(bytes: &mut [u8], words: [[u8; 8]; 2]) {
    for (to, from) in bytes.iter_mut().zip(words.as_flattened()) {
        *to = *from;
    }
}

/// A value that is no status: the device must overwrite it.
const NO_STATUS: u8 = 0xff;

/// The memory around a request's data: its header and its status.
pub(crate) struct Headers {
    header: DmaBuffer,
    status: DmaBuffer,
}

impl Headers {
    /// `count` of them.
    pub(crate) fn many(reach: Reach, count: usize) -> Result<Vec<Headers>, AllocError> {
        let headers = DmaBuffer::many(reach, count, HEADER)?;
        let statuses = DmaBuffer::many(reach, count, 1)?;
        let pairs = headers.into_iter().zip(statuses);
        Ok(pairs
            .map(|(header, status)| Headers { header, status })
            .collect())
    }

    /// Puts header and status around `data`.
    pub(crate) fn frame(mut self, operation: Operation, sector: u64, data: Chain) -> Chain {
        let operation_number = u64::from(number(operation)).to_le_bytes();
        let sector = header_sector(operation, sector).to_le_bytes();
        fill(self.header.bytes_mut(), [operation_number, sector]);
        self.status.bytes_mut().fill(NO_STATUS);
        let mut chain = Chain::new();
        chain.push(Segment::buffer(self.header, 0..HEADER, Direction::ToDevice));
        chain.extend(data);
        chain.push(Segment::buffer(self.status, 0..1, Direction::FromDevice));
        chain
    }

    /// Takes a finished request apart: what was around its data, and what the
    /// device says.
    pub(crate) fn unframe(
        mut chain: Chain,
    ) -> Result<(Headers, Result<(), BlockError>), VirtioError> {
        let status = chain.pop().and_then(Segment::into_buffer);
        let header = chain.into_iter().next().and_then(Segment::into_buffer);
        let (Some(header), Some(status)) = (header, status) else {
            return Err(VirtioError::Misbehaved);
        };
        let answer = match status.bytes() {
            [0] => Ok(()),
            [2] => Err(BlockError::Unsupported),
            _ => Err(BlockError::Failed),
        };
        Ok((Headers { header, status }, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_request() {
        let headers = Headers::many(Reach::ALL, 1).unwrap().pop().unwrap();
        let mut data = Chain::new();
        let b = DmaBuffer::new(512).unwrap();
        data.push(Segment::buffer(b, 0..512, Direction::FromDevice));
        let mut chain = headers.frame(Operation::Read, 0x1234, data);
        let header = chain[0].as_buffer().unwrap().bytes().to_vec();
        assert_eq!(
            header,
            [0, 0, 0, 0, 0, 0, 0, 0, 0x34, 0x12, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(chain[2].len(), 1);
        assert_eq!(chain[2].as_buffer().unwrap().bytes(), [NO_STATUS]);
        chain[2].as_buffer_mut().unwrap().bytes_mut()[0] = 0;
        let (_, answer) = Headers::unframe(chain).unwrap();
        assert_eq!(answer, Ok(()));
    }

    #[test]
    fn an_untouched_status_is_a_failure() {
        let headers = Headers::many(Reach::ALL, 1).unwrap().pop().unwrap();
        let chain = headers.frame(Operation::Flush, 0, Chain::new());
        assert_eq!(chain[0].as_buffer().unwrap().bytes()[0], 4);
        let (_, answer) = Headers::unframe(chain).unwrap();
        assert_eq!(answer, Err(BlockError::Failed));
    }
}

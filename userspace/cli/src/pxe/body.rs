//! Bodies of the web server's answers.

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Bytes read from a file at a time.
const PIECE: u64 = 64 << 10;

/// Hears how many bytes have been read, and where in the file that was.
type Tell = Box<dyn FnMut(u64, u64)>;

/// What an answer carries.
pub(super) enum Body {
    /// A text, at once.
    Text(Bytes),
    /// A part of a file, piece by piece as the client takes it.
    File(Part),
}

/// A part of a file on its way.
pub(super) struct Part {
    file: File,
    first: u64,
    at: u64,
    end: u64,
    tell: Tell,
}

impl Body {
    /// The bytes of `file` from `first` to before `end`.
    pub(super) fn file(
        file: File,
        first: u64,
        end: u64,
        tell: impl FnMut(u64, u64) + 'static,
    ) -> Self {
        Self::File(Part {
            file,
            first,
            at: first,
            end,
            tell: Box::new(tell),
        })
    }
}

impl Part {
    fn next(&mut self) -> Option<io::Result<Bytes>> {
        let len = PIECE.min(self.end - self.at);
        if len == 0 {
            return None;
        }
        let mut piece = vec![0; len as usize];
        let read = self.file.read_exact_at(&mut piece, self.at);
        self.at += len;
        (self.tell)(self.at - self.first, self.at);
        Some(read.map(|()| Bytes::from(piece)))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = match self.get_mut() {
            Self::Text(text) if text.is_empty() => None,
            Self::Text(text) => Some(Ok(std::mem::take(text))),
            Self::File(part) => part.next(),
        };
        Poll::Ready(next.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Text(text) => text.len() as u64,
            Self::File(part) => part.end - part.at,
        })
    }
}

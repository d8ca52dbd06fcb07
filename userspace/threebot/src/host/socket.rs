//! Serves a runtime over a unix socket, frame by frame, as the kernel's device does: so the 3Bot
//! can be killed and started again while its capsules run on.

use std::io;

use skep_api::control::frame::{self, FrameError, HEADER_BYTES};
use skep_api::control::{EventRecord, FRAME_BYTES_MAX, Message, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

use crate::runtime::{Call, Runtime};

/// Calls, events and frames that wait for their turn.
const QUEUE_MAX: usize = 1024;

/// Serves one 3Bot until it goes away.
///
/// # Errors
///
/// What the socket gives, or a frame that is none.
pub async fn serve(runtime: impl Runtime + 'static, stream: UnixStream) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let (call, called) = mpsc::channel(QUEUE_MAX);
    let (sender, events) = mpsc::channel(QUEUE_MAX);
    let (frames, outgoing) = mpsc::channel(QUEUE_MAX);
    let serving = spawn_local(async move { runtime.serve(called, sender).await });
    let reporting = spawn_local(report(events, frames.clone()));
    let writing = spawn_local(write(outgoing, writer));
    let ended = read(reader, call, frames).await;
    // The runtime ends when its callers are gone; after that there is nothing to report or write.
    for task in [reporting, writing] {
        task.abort();
    }
    let _ = serving.await;
    ended
}

async fn read(
    mut reader: OwnedReadHalf,
    calls: mpsc::Sender<Call>,
    frames: mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    let mut incoming = Vec::new();
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    loop {
        let mut done = 0;
        loop {
            let (head, body) = match frame::split(&incoming[done..]) {
                Ok((head, body, _)) => (head, body),
                Err(FrameError::Truncated) => break,
                Err(error) => return Err(io::Error::other(error)),
            };
            let reply = match frame::decode_request(&head, body) {
                Ok(request) => {
                    let (reply, answer) = oneshot::channel();
                    let closed = |_| io::Error::from(io::ErrorKind::BrokenPipe);
                    calls.send(Call { request, reply }).await.map_err(closed)?;
                    answer.await.map_err(|_| io::ErrorKind::BrokenPipe)?
                }
                Err(error) => Reply::Error(error),
            };
            done += HEADER_BYTES + head.body_bytes;
            send(&frames, head.id, &Message::Reply(reply)).await?;
        }
        incoming.drain(..done);
        match reader.read(&mut buffer).await? {
            0 => return Ok(()),
            count => incoming.extend_from_slice(&buffer[..count]),
        }
    }
}

async fn report(mut events: mpsc::Receiver<EventRecord>, frames: mpsc::Sender<Vec<u8>>) {
    while let Some(event) = events.recv().await {
        if send(&frames, 0, &Message::Event(event)).await.is_err() {
            return;
        }
    }
}

async fn send(frames: &mpsc::Sender<Vec<u8>>, id: u32, message: &Message) -> io::Result<()> {
    let frame = frame::encode_message(id, message).map_err(io::Error::other)?;
    frames
        .send(frame)
        .await
        .map_err(|_| io::ErrorKind::BrokenPipe.into())
}

async fn write(mut frames: mpsc::Receiver<Vec<u8>>, mut writer: OwnedWriteHalf) {
    while let Some(frame) = frames.recv().await {
        if writer.write_all(&frame).await.is_err() {
            return; // the reading side sees it too
        }
    }
}

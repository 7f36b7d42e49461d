//! The frames of an execution's output: one byte of kind, the offset as eight bytes, the length as four (both
//! big-endian), and the payload.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::{Execution, Stream};

/// The longest payload of a frame, in bytes. A peer that announces a longer one is cut off.
pub const MAX_PAYLOAD: usize = 256 * 1024;

const HEADER: usize = 1 + 8 + 4;
const KIND_STDOUT: u8 = 1;
const KIND_STDERR: u8 = 2;
const KIND_STATUS: u8 = 3;
const KIND_KEEP_ALIVE: u8 = 4;

/// One piece of an output stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// Bytes of a stream, beginning at `offset`. An offset beyond the one asked for means that the bytes between
    /// were dropped by the output budget.
    Data {
        /// The stream that the bytes belong to.
        stream: Stream,
        /// Offset of the first byte.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The execution as it is now. The last frame of every stream; its state is `ended` when `follow` was asked for.
    Status(Box<Execution>),
    /// Sent after a while without output, so that a dead connection is noticed.
    KeepAlive,
}

/// The reason why bytes are not a frame. The connection is of no use afterwards.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A kind that this build does not know.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// The payload is longer than [`MAX_PAYLOAD`].
    #[error("a frame announces {0} bytes; at most {MAX_PAYLOAD} are taken")]
    TooLong(usize),
    /// The payload of a status frame is not an execution.
    #[error("a status frame is malformed")]
    BadStatus(#[source] serde_json::Error),
}

impl Frame {
    /// The frame as bytes.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] when the payload exceeds [`MAX_PAYLOAD`].
    pub fn encode(&self) -> Result<Bytes, FrameError> {
        let status;
        let (kind, offset, payload) = match self {
            Self::Data { stream: Stream::Stdout, offset, bytes } => (KIND_STDOUT, *offset, bytes.as_ref()),
            Self::Data { stream: Stream::Stderr, offset, bytes } => (KIND_STDERR, *offset, bytes.as_ref()),
            Self::Status(execution) => {
                status = serde_json::to_vec(execution).map_err(FrameError::BadStatus)?;
                (KIND_STATUS, 0, status.as_slice())
            }
            Self::KeepAlive => (KIND_KEEP_ALIVE, 0, [].as_slice()),
        };
        let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_PAYLOAD);
        let length = length.ok_or(FrameError::TooLong(payload.len()))?;
        let mut encoded = BytesMut::with_capacity(HEADER + payload.len());
        encoded.put_u8(kind);
        encoded.put_u64(offset);
        encoded.put_u32(length);
        encoded.put_slice(payload);
        Ok(encoded.freeze())
    }

    /// Takes one frame from the front of `buffer`; `None` when it is not complete yet.
    ///
    /// # Errors
    /// [`FrameError`] when the bytes cannot become a frame.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some(mut header) = buffer.get(..HEADER) else { return Ok(None) };
        let (kind, offset, length) = (header.get_u8(), header.get_u64(), header.get_u32() as usize);
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        if buffer.len() < HEADER + length {
            return Ok(None);
        }
        buffer.advance(HEADER);
        let bytes = buffer.split_to(length).freeze();
        Ok(Some(match kind {
            KIND_STDOUT => Self::Data { stream: Stream::Stdout, offset, bytes },
            KIND_STDERR => Self::Data { stream: Stream::Stderr, offset, bytes },
            KIND_STATUS => Self::Status(serde_json::from_slice(&bytes).map_err(FrameError::BadStatus)?),
            KIND_KEEP_ALIVE => Self::KeepAlive,
            other => return Err(FrameError::UnknownKind(other)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn data_survives_any_split(
            payload in prop::collection::vec(any::<u8>(), 0..512),
            offset: u64,
            stdout: bool,
            cut in 0_usize..600,
        ) {
            let stream = if stdout { Stream::Stdout } else { Stream::Stderr };
            let frame = Frame::Data { stream, offset, bytes: payload.into() };
            let encoded = frame.encode().unwrap();
            let cut = cut.min(encoded.len());
            let mut buffer = BytesMut::from(&encoded[..cut]);
            if cut < encoded.len() {
                prop_assert!(Frame::decode(&mut buffer).unwrap().is_none());
            }
            buffer.extend_from_slice(&encoded[cut..]);
            prop_assert_eq!(Frame::decode(&mut buffer).unwrap(), Some(frame));
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn rubbish_is_an_error_or_incomplete_but_never_a_panic(rubbish in prop::collection::vec(any::<u8>(), 0..64)) {
            drop(Frame::decode(&mut BytesMut::from(rubbish.as_slice())));
        }
    }

    #[test]
    fn a_frame_that_announces_too_much_is_refused_before_it_is_read() {
        let mut header = BytesMut::new();
        header.put_u8(KIND_STDOUT);
        header.put_u64(0);
        header.put_u32(u32::MAX);
        assert!(matches!(Frame::decode(&mut header), Err(FrameError::TooLong(_))));
    }
}

//! How messages are read: those that are made of more parts than a request can need are not.
//!
//! A part of two bytes becomes a structure of some hundred, so that a message within its limit could
//! otherwise take more memory than there is.

use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

/// The most fields that a message may have, each as often as it is there: tensors, parameters and files.
const MOST: usize = 10_000;

/// Messages of protocol buffers.
#[derive(Debug)]
pub(crate) struct Messages<T, U>(ProstCodec<T, U>);

impl<T, U> Default for Messages<T, U> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T: Message + Send + 'static, U: Message + Default + Send + 'static> Codec for Messages<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Reading<U>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Reading(PhantomData)
    }
}

/// Reads messages.
#[derive(Debug)]
pub(crate) struct Reading<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for Reading<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // Not copied.
        let message = buffer.copy_to_bytes(buffer.remaining());
        read(message).map(Some).map_err(Status::internal)
    }
}

/// Reads one message.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn read<U: Message + Default>(message: bytes::Bytes) -> Result<U, String> {
    if has_too_many_fields(&message) {
        return Err(format!("it has more than {MOST} fields"));
    }
    U::decode(message).map_err(|error| error.to_string())
}

/// Of a message that is damaged, what comes before the damage.
fn has_too_many_fields(mut message: &[u8]) -> bool {
    let mut skip = || {
        let (number, kind) = decode_key(&mut message).ok()?;
        skip_field(kind, number, &mut message, DecodeContext::default()).ok()
    };
    (0..=MOST).all(|_| skip().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::proto::ModelInferRequest;

    #[test]
    fn a_message_has_as_many_fields_as_it_may() {
        // An input with nothing in it.
        let message = |count: usize| read::<ModelInferRequest>(b"\x2a\0".repeat(count).into());
        assert_eq!(message(MOST).unwrap().inputs.len(), MOST);
        let told = message(MOST + 1).unwrap_err();
        assert_eq!(told, "it has more than 10000 fields");
        let damaged = read::<ModelInferRequest>(b"\x2a\x05".as_slice().into()).unwrap_err();
        assert!(damaged.contains("failed to decode"), "{damaged}");
    }
}

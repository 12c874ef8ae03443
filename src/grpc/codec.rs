//! How messages are read and written.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

use super::status::status;
use crate::oip::Code;

/// The most parts that a message may have. Each input, output, parameter or tensor in bytes is one.
const MOST: usize = 65_536;

/// As protobuf has it, but a message of very many parts is refused before they are read: two bytes make an
/// empty input, which takes hundreds in memory, so that a bound on a message's size alone is none on what
/// reading it takes.
pub(super) struct Bounded<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Bounded<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Bounded<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// Reads messages that have few enough parts.
pub(super) struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // Not copied: all of it is in one piece.
        read(message.copy_to_bytes(message.remaining())).map(Some)
    }
}

/// Reads one message.
///
/// # Errors
/// What is wrong with it: too many parts, or a damage, which is told as prost's own decoder does.
pub(super) fn read<U: Message + Default>(message: Bytes) -> Result<U, Status> {
    if has_more_than(MOST, &message) {
        let parts = "inputs, outputs, parameters and tensors in bytes";
        let text = format!("the message has more than {MOST} parts, which are its {parts}");
        return Err(status(Code::PayloadTooLarge, &text));
    }
    U::decode(message).map_err(|error| Status::internal(error.to_string()))
}

/// Whether a message has more fields than this. What cannot be read ends the count.
fn has_more_than(most: usize, mut message: &[u8]) -> bool {
    let mut skip = || {
        let (number, kind) = decode_key(&mut message).ok()?;
        skip_field(kind, number, &mut message, DecodeContext::default()).ok()
    };
    (0..=most).all(|_| skip().is_some())
}

#[cfg(test)]
mod tests {
    use super::super::proto::model_infer_request::InferInputTensor;
    use super::super::proto::{InferParameter, ModelInferRequest};
    use super::*;

    #[test]
    fn fields_are_counted_up_to_what_cannot_be_read() {
        let count = |message: &[u8]| (0..100).find(|most| !has_more_than(*most, message)).unwrap();
        assert_eq!(count(b""), 0);
        assert_eq!(count(b"\x08\x96\x01\x11........\x12\x02ab\x1b\x1c\x25...."), 5);
        assert_eq!(count(b"\x12\x05ab"), 0, "it is cut off");
        assert_eq!(count(b"\x08\x01\x0f\x08\x01"), 1, "there is no such type of field");
        assert_eq!(count(&[0xff; 20]), 0);
        let request = ModelInferRequest {
            model_name: "m".to_owned(),
            parameters: [("p".to_owned(), InferParameter::default())].into(),
            inputs: vec![InferInputTensor::default(); 3],
            raw_input_contents: vec![vec![0; 1000].into(); 3],
            ..ModelInferRequest::default()
        };
        assert_eq!(count(&request.encode_to_vec()), 8);
    }
}

//! Values and runs by the C interface of ONNX Runtime.
//!
//! `ort` lets a session run once at a time, for the sake of execution providers that need it. The CPU's
//! does not, so there several threads may run one session here. It also saves what `ort` notes of every
//! value, and the values of outputs that nobody has asked for.
#![expect(unsafe_code, reason = "the safe interface does not run a session from several threads")]

use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;

use ort::memory::{Allocator, MemoryInfo};
use ort::session::{RunOptions, SharedSessionInner};
use ort::{AsPointer, Error, sys};
use smallvec::SmallVec;

/// A value of ONNX Runtime's, released when it is dropped. It may be made of a buffer that is lent to it.
#[repr(transparent)]
pub(super) struct Value<'a>(NonNull<sys::OrtValue>, PhantomData<&'a [u8]>);

// SAFETY: a value is bound to no thread; who has it has it alone, and ONNX Runtime only reads what is lent.
unsafe impl Send for Value<'_> {}

impl Drop for Value<'_> {
    fn drop(&mut self) {
        // SAFETY: the value is owned here and not used after this.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) };
    }
}

/// Dimensions as ONNX Runtime has them.
pub(super) type Dims = SmallVec<[i64; 4]>;

/// What a tensor of ONNX Runtime's is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Description {
    /// Its element type as a number: one that this knows of or not.
    pub(super) element: i32,
    pub(super) dims: Dims,
}

type Element = sys::ONNXTensorElementDataType;

impl<'a> Value<'a> {
    /// A tensor over the elements in `data`, which may be more than the dimensions say, but not fewer.
    pub(super) fn over(
        data: &'a [u8],
        (element, dims): (Element, &[i64]),
        memory: &MemoryInfo<'_>,
    ) -> ort::Result<Self> {
        let mut value = ptr::null_mut();
        // SAFETY: the slices are as long as said, the runtime compares the length of the data with the
        // dimensions, and never writes to what a session is given. The value does not outlive the data.
        checked(unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                memory.ptr(),
                data.as_ptr().cast_mut().cast(),
                data.len(),
                dims.as_ptr(),
                dims.len(),
                element,
                &raw mut value,
            )
        })?;
        Self::made(value)
    }

    /// A tensor of empty strings, in ONNX Runtime's own memory.
    pub(super) fn strings(dims: &[i64]) -> ort::Result<Self> {
        let (allocator, mut value) = (Allocator::default(), ptr::null_mut());
        // SAFETY: the default allocator is never freed, and the dimensions are as many as said.
        checked(unsafe {
            (ort::api().CreateTensorAsOrtValue)(
                allocator.ptr().cast_mut(),
                dims.as_ptr(),
                dims.len(),
                Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
                &raw mut value,
            )
        })?;
        Self::made(value)
    }

    fn made(value: *mut sys::OrtValue) -> ort::Result<Self> {
        let value = NonNull::new(value).ok_or_else(|| Error::new("it made no value"))?;
        Ok(Self(value, PhantomData))
    }

    pub(super) fn ptr(&self) -> *mut sys::OrtValue {
        self.0.as_ptr()
    }

    /// Its element type and dimensions.
    ///
    /// # Errors
    /// When it is no tensor.
    pub(super) fn describe(&self) -> ort::Result<Description> {
        let (mut element, mut dims, mut rank) = (0_i32, ptr::null(), 0);
        // SAFETY: the value is alive, and the out pointers valid for a write. The type is an `i32` to C, and here one
        // too, so that it may be any.
        checked(unsafe {
            (ort::api().GetTensorElementTypeAndShapeDataReference)(
                self.ptr(),
                (&raw mut element).cast(),
                &raw mut dims,
                &raw mut rank,
            )
        })?;
        if rank == 0 {
            return Ok(Description { element, dims: Dims::new() });
        }
        if dims.is_null() {
            return Err(Error::new("it does not tell its dimensions"));
        }
        // SAFETY: the value has so many dimensions there, and nobody changes them.
        let dims = unsafe { slice::from_raw_parts(dims, rank) };
        Ok(Description { element, dims: dims.into() })
    }

    /// The bytes of a tensor of fixed-size elements.
    ///
    /// # Errors
    /// When its memory is not the machine's own.
    pub(super) fn bytes(&self) -> ort::Result<&[u8]> {
        let (api, mut length, mut data) = (ort::api(), 0, ptr::null_mut());
        self.check_place()?;
        // SAFETY: the value is alive, and the out pointer valid for a write.
        checked(unsafe { (api.GetTensorSizeInBytes)(self.ptr(), &raw mut length) })?;
        // SAFETY: as above.
        checked(unsafe { (api.GetTensorMutableData)(self.ptr(), &raw mut data) })?;
        if length == 0 || data.is_null() {
            return Ok(&[]);
        }
        // SAFETY: the tensor has so many bytes there, which live as long as it, and nobody writes to them.
        Ok(unsafe { slice::from_raw_parts(data.cast::<u8>(), length) })
    }

    /// Whether its memory can be read.
    fn check_place(&self) -> ort::Result<()> {
        let (api, mut memory, mut device) = (ort::api(), ptr::null(), 0_i32);
        // SAFETY: the value is alive, and the out pointer valid for a write.
        checked(unsafe { (api.GetTensorMemoryInfo)(self.ptr(), &raw mut memory) })?;
        // SAFETY: what tells of its memory belongs to the value. The device is an `i32` to C, and here one
        // too, so that it may be any.
        unsafe { (api.MemoryInfoGetDeviceType)(memory, (&raw mut device).cast()) };
        let cpu = sys::OrtMemoryInfoDeviceType::OrtMemoryInfoDeviceType_CPU as i32;
        if device == cpu { Ok(()) } else { Err(Error::new("its memory is a device's")) }
    }
}

/// Names as C has them.
#[derive(Default)]
pub(super) struct Names<'a>(Vec<*const c_char>, PhantomData<&'a CStr>);

impl<'a> FromIterator<&'a CStr> for Names<'a> {
    fn from_iter<I: IntoIterator<Item = &'a CStr>>(names: I) -> Self {
        Self(names.into_iter().map(CStr::as_ptr).collect(), PhantomData)
    }
}

/// The inputs of a run under their names.
#[derive(Default)]
pub(super) struct Inputs<'a> {
    names: Names<'a>,
    values: Vec<Value<'a>>,
}

impl<'a> Inputs<'a> {
    pub(super) fn push(&mut self, name: &'a CStr, value: Value<'a>) {
        self.names.0.push(name.as_ptr());
        self.values.push(value);
    }
}

/// Runs a session, and gives the outputs of these names, in their order; `None` where there is none.
///
/// A session with another execution provider than the CPU's must not be run by two threads at once.
pub(super) fn run(
    session: &SharedSessionInner,
    options: &RunOptions,
    inputs: &Inputs<'_>,
    outputs: &Names<'_>,
) -> ort::Result<Vec<Option<Value<'static>>>> {
    let mut values: Vec<Option<Value<'static>>> = outputs.0.iter().map(|_| None).collect();
    // SAFETY: session, options, inputs and names are alive, and each list is as long as said. A value, or
    // none, is represented as the pointer that it is; the runtime puts values that are then owned in the
    // place of the nulls. It allows runs of one session from several threads at once.
    checked(unsafe {
        (ort::api().Run)(
            session.ptr().cast_mut(),
            options.ptr(),
            inputs.names.0.as_ptr(),
            inputs.values.as_ptr().cast(),
            inputs.values.len(),
            outputs.0.as_ptr(),
            outputs.0.len(),
            values.as_mut_ptr().cast(),
        )
    })?;
    Ok(values)
}

/// What a call of the C interface has answered.
pub(super) fn checked(status: sys::OrtStatusPtr) -> ort::Result<()> {
    // SAFETY: the status comes from a call and is given up here.
    unsafe { Error::result_from_status(status) }
}

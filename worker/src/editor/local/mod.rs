//! The local editor: real pixel operations on this machine, free of charge.
//!
//! It always exists, so a folder of pictures can be edited without a key or a server. A prompt changes
//! nothing here, although it is part of the edit key; everything else is checked by [`LocalEditor::check`]
//! before a pixel is decoded.

mod alpha;
mod blur;
mod colour;
mod filters;
mod geometry;
mod median;
mod memory;
mod operations;
mod params;
mod samples;
mod warp;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use operations::{Operation, operation, operations};
pub use params::{Absent, Kind, Param};

use super::{EditError, EditRequest, EditSpec, Editor, Measure, Picture, Polled, Submitted, check_mask_size};
use crate::media::{self, Format, Media, MediaError, Pixels, check_pixels};
use geometry::Size;
use operations::{Colours, Shape};
use params::{Args, invalid};

/// The model name in the edit key. It must change whenever an operation gives other pixels for the same
/// parameters, including changed defaults: the cache would go on serving the old results.
pub const MODEL: &str = "local-2";
/// The provider kind in the edit key.
pub const KIND: &str = "local";

/// The editor of kind `local`; [`operations`] lists its edit types.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalEditor;

impl LocalEditor {
    /// Needs no settings.
    pub const fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Editor for LocalEditor {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn check(&self, spec: &EditSpec, image: Measure) -> Result<(), EditError> {
        let (operation, args) = prepare(spec)?;
        if let Some(mask) = spec.mask {
            check_mask_size(mask.media, image.media)?;
        }
        let Media { format, width, height, .. } = image.media;
        result_size(operation, &args, (width, height), format).map(drop)
    }

    async fn submit(&self, request: EditRequest) -> Result<Submitted, EditError> {
        let need = memory::needed(&request);
        match media::memory::run(need, move || edit(&request)).await {
            Ok(result) => result.map(Submitted::Done),
            // A bug in a decoder, which this picture triggers every time.
            Err(error) if error.is_panic() => Err(EditError::rejected(
                "undecodable",
                "the picture made the decoder or the operation fail unexpectedly",
            )),
            Err(_) => Err(EditError::NotSent("the program is ending".to_owned())),
        }
    }

    async fn poll(&self, provider_task_id: &str, _: Duration) -> Result<Polled, EditError> {
        // This editor never accepts a call, so it has given out no ids.
        Err(EditError::rejected("unknown_task", format!("the local editor has no task {provider_task_id:?}")))
    }
}

fn edit(request: &EditRequest) -> Result<Bytes, EditError> {
    let EditRequest { spec, image, mask } = request;
    let (operation, args) = prepare(spec)?;
    if let Some(mask) = mask {
        check_mask_size(mask.media, image.media)?;
    }
    let format = output_format(image);
    let mut pixels =
        Pixels::decode_managed(&image.bytes, &image.media).map_err(|error| refused(&error, ""))?;
    // A BMP cannot hold a profile, and grey may be given a coloured `fill`.
    let grey = !pixels.image.color().has_color();
    if operation.colours == Colours::Srgb || format == Format::Bmp || grey {
        pixels = pixels.into_srgb();
    }
    let size = (pixels.image.width(), pixels.image.height());
    result_size(operation, &args, size, format)?;
    pixels.image = match mask {
        None => (operation.apply)(&args, pixels.image)?,
        Some(mask) => {
            let mask = media::decode(&mask.bytes, &mask.media).map_err(|error| refused(&error, "mask: "))?;
            let weights = alpha::weights(mask);
            let edited = (operation.apply)(&args, pixels.image.clone())?;
            alpha::masked(pixels.image, edited, &weights)
        }
    };
    let (bytes, _) = pixels.encode(format).map_err(|error| refused(&error, ""))?;
    Ok(bytes.into())
}

/// The operation and its arguments, or the refusal; needs no picture.
fn prepare(spec: &EditSpec) -> Result<(&'static Operation, Args), EditError> {
    let EditSpec {
        edit_type,
        prompt: _, // changes nothing
        model,
        params,
        mask,
    } = spec;
    let operation = operation(edit_type).ok_or_else(|| {
        let known: Vec<_> = operations().map(|operation| operation.name).collect();
        let known = known.join(", ");
        EditError::rejected(
            "unknown_edit_type",
            format!("the local editor has no {edit_type:?}; it has {known}"),
        )
    })?;
    // Under another model's name a wrong result would enter the cache.
    if model != MODEL {
        return Err(EditError::rejected(
            "unknown_model",
            format!("the local editor has the model {MODEL:?}, not {model:?}"),
        ));
    }
    if mask.is_some() && !operation.takes_mask() {
        return Err(EditError::rejected(
            "mask_not_supported",
            format!("{edit_type} changes the size of the picture and takes no mask"),
        ));
    }
    let args = params::read(operation.params, params)?;
    Ok((operation, args))
}

/// The size of the result, if it is within our limits and the format's.
fn result_size(operation: &Operation, args: &Args, size: Size, format: Format) -> Result<Size, EditError> {
    let (width, height) = match operation.shape {
        Shape::Same => return Ok(size),
        Shape::Becomes(becomes) => becomes(args, size)?,
    };
    check_pixels(width, height).map_err(|error| refused(&error, "the result "))?;
    let format = Pixels::output_format(format);
    let most = format.max_side();
    if width.max(height) > most {
        return Err(invalid(format!(
            "params: the result would have {width} by {height} pixels, and a {format} can have at most \
             {most} on a side"
        )));
    }
    Ok((width, height))
}

/// The output format for a picture. A compressed BMP becomes a PNG: BMPs are written uncompressed, and a
/// kilobyte of one colour would become hundreds of megabytes.
fn output_format(picture: &Picture) -> Format {
    match picture.media.format {
        // biCompression
        Format::Bmp if picture.bytes.get(30).is_some_and(|method| matches!(method, 1 | 2)) => Format::Png,
        other => Pixels::output_format(other),
    }
}

fn refused(error: &MediaError, whose: &str) -> EditError {
    EditError::rejected(error.code(), format!("{whose}{error}"))
}

#[cfg(test)]
mod operation_tests;
#[cfg(test)]
mod tests;

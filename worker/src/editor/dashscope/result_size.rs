//! Refuses, before it is paid, an enlargement whose result is larger than the worker keeps.
//!
//! The provider's own limits (4096 pixels a side, factor 4) do not prevent it; the bound on the bytes of a
//! result decides. In a lossless format a picture takes a byte a pixel or more, except for plain areas; so a
//! result with more pixels than the bound has bytes could not be kept.

use retouch_shared::task::Params;

use crate::editor::{EditError, EditSpec, Measure};

/// Factors of the result's width and height, and the parameters that set them; `None` if the operation keeps
/// the size or the provider chooses it.
fn factors(params: &Params) -> Option<([f64; 2], &'static str)> {
    let factor = |name: &str| params.get(name).and_then(serde_json::Value::as_f64);
    if let Some(factor) = factor("upscale_factor") {
        return Some(([factor; 2], "upscale_factor"));
    }
    let sides = [("left_scale", "right_scale"), ("top_scale", "bottom_scale")];
    let grown = sides.map(|(one, other)| {
        [one, other].into_iter().filter_map(factor).map(|scale| scale - 1.0).sum::<f64>()
    });
    (grown != [0.0; 2])
        .then(|| (grown.map(|more| 1.0 + more), "top_scale, bottom_scale, left_scale and right_scale"))
}

/// Refuses a result with more pixels than `most` bytes.
///
/// # Errors
/// [`EditError::Rejected`] with parameter, size, limit and fix.
pub(super) fn check(spec: &EditSpec, image: Measure, most: Option<u64>) -> Result<(), EditError> {
    let (Some(most), Some((factors, names))) = (most, factors(&spec.params)) else { return Ok(()) };
    let [width, height] = [(image.media.width, factors[0]), (image.media.height, factors[1])]
        .map(|(side, factor)| f64::from(side) * factor);
    #[expect(clippy::cast_precision_loss, reason = "a bound on bytes is far below 2^52")]
    if width * height <= most as f64 {
        return Ok(());
    }
    let mib = most / (1024 * 1024);
    Err(EditError::rejected(
        "result_too_large",
        format!(
            "params.{names}: the result would have {width:.0} by {height:.0} pixels, and results of at most {mib} MiB are kept; \
             give a smaller factor or picture, or raise RETOUCH_RESULT_MAX_MIB"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Format, Media};

    fn refused(params: &str, side: u32, mib: u64) -> Option<String> {
        let spec = EditSpec {
            edit_type: "super_resolution".to_owned(),
            prompt: String::new(),
            model: "wanx2.1-imageedit".to_owned(),
            params: params.parse().unwrap(),
            mask: None,
        };
        let media = Media { format: Format::Png, width: side, height: side, on_its_side: false };
        check(&spec, Measure { media, bytes: 1 }, Some(mib * 1024 * 1024))
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn a_result_too_large_to_keep_is_refused_with_its_factor() {
        for (params, side, mib, part) in [
            ("{}", 4096, 1, None),
            (r#"{"upscale_factor":2}"#, 4096, 256, None),
            (r#"{"upscale_factor":4}"#, 4096, 256, None),
            (r#"{"upscale_factor":4}"#, 4096, 255, Some("16384 by 16384")),
            (r#"{"upscale_factor":1}"#, 1024, 1, None),
            (r#"{"top_scale":2,"bottom_scale":2.0,"left_scale":1.5}"#, 1000, 5, None),
            (r#"{"top_scale":2,"bottom_scale":2.0,"left_scale":1.5}"#, 1000, 4, Some("1500 by 3000")),
            (r#"{"upscale_factor":2,"seed":7}"#, 600, 1, Some("RETOUCH_RESULT_MAX_MIB")),
        ] {
            let refused = refused(params, side, mib);
            let fits = part
                .map_or(refused.is_none(), |part| refused.as_ref().is_some_and(|text| text.contains(part)));
            assert!(fits, "{params} of {side}: {refused:?}");
        }
    }
}

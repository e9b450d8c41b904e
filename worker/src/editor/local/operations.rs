//! The table of local operations, which `retouch` lists, checks and runs.
//!
//! A new operation is one entry here and one function beside the others; check, defaults, mask and listing
//! follow from the entry.

use image::DynamicImage;

use super::params::{Absent, Args, Param};
use super::{colour, filters, geometry};
use crate::editor::EditError;
use geometry::Size;

/// An operation on a picture without a provider.
pub struct Operation {
    /// The edit type.
    pub name: &'static str,
    /// One line.
    pub description: &'static str,
    /// Its parameters.
    pub params: &'static [Param],
    pub(super) shape: Shape,
    pub(super) colours: Colours,
    pub(super) scratch: Scratch,
    pub(super) apply: fn(&Args, DynamicImage) -> Result<DynamicImage, EditError>,
}

/// The colour space of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Colours {
    /// The picture's own: the result keeps its profile.
    Own,
    /// sRGB: the operation names colours, or converts between grey and colour, which invalidates a profile.
    Srgb,
}

/// Peak memory of an operation beside the picture.
#[derive(Clone, Copy)]
pub(super) enum Scratch {
    /// Negligible.
    InPlace,
    /// The picture in another pixel type.
    Converted,
    /// With alpha: alpha apart, and the picture in 16 bits.
    Filtered,
    /// As `Filtered`, and a copy or a plane of the picture.
    Copied,
    /// The result.
    Moved,
    /// Picture and result in 16 bits with alpha.
    Turned,
    /// The result, and floating point pixels between the two passes.
    Resampled,
}

/// The size of the result.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// Unchanged, so a mask can say where to edit.
    Same,
    /// Computed from the header alone.
    Becomes(fn(&Args, Size) -> Result<Size, EditError>),
}

impl Operation {
    /// Whether it takes a mask: every operation that keeps the size does.
    pub const fn takes_mask(&self) -> bool {
        matches!(self.shape, Shape::Same)
    }

    /// The parameters in one line, e.g. `sigma: 0.1 to 100 (default 3)`; empty if it has none.
    pub fn params_text(&self) -> String {
        let params: Vec<_> = self.params.iter().map(Param::to_string).collect();
        params.join("; ")
    }
}

/// Every operation, in listing order.
pub fn operations() -> impl Iterator<Item = &'static Operation> {
    OPERATIONS.iter()
}

/// The operation of this name.
pub fn operation(name: &str) -> Option<&'static Operation> {
    operations().find(|operation| operation.name == name)
}

static OPERATIONS: &[Operation] = &[
    Operation {
        name: "grayscale",
        description: "Shades of grey",
        params: &[],
        shape: Shape::Same,
        colours: Colours::Srgb,
        scratch: Scratch::Converted,
        apply: |_, image| Ok(colour::grayscale(image)),
    },
    Operation {
        name: "invert",
        description: "A negative",
        params: &[],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::InPlace,
        apply: |_, image| Ok(colour::invert(image)),
    },
    Operation {
        name: "sepia",
        description: "The brown of an old photograph",
        params: &[],
        shape: Shape::Same,
        colours: Colours::Srgb,
        scratch: Scratch::Converted,
        apply: |_, image| Ok(colour::sepia(image)),
    },
    Operation {
        name: "duotone",
        description: "Two colours, and what lies between them",
        params: &[
            Param::colour("shadows", "#1b1464", "what black becomes"),
            Param::colour("highlights", "#f7d046", "what white becomes"),
        ],
        shape: Shape::Same,
        colours: Colours::Srgb,
        scratch: Scratch::Converted,
        apply: |args, image| Ok(colour::duotone(image, &args.read()?)),
    },
    Operation {
        name: "posterize",
        description: "Few shades, as on a poster",
        params: &[Param::integer("levels", 2, 256, 4, "shades of each colour")],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::InPlace,
        apply: |args, image| Ok(colour::posterize(image, &args.read()?)),
    },
    Operation {
        name: "solarize",
        description: "A negative of the bright parts only",
        params: &[Param::integer("level", 0, 255, 128, "what counts as bright")],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::InPlace,
        apply: |args, image| Ok(colour::solarize(image, &args.read()?)),
    },
    Operation {
        name: "threshold",
        description: "Black and white, nothing between",
        params: &[Param::integer("level", 0, 255, 128, "what counts as white")],
        shape: Shape::Same,
        colours: Colours::Srgb,
        scratch: Scratch::Converted,
        apply: |args, image| Ok(colour::threshold(image, &args.read()?)),
    },
    Operation {
        name: "brighten",
        description: "Lighter, or darker",
        params: &[Param::number("amount", -100.0, 100.0, 20.0, "per cent of white to add")],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::InPlace,
        apply: |args, image| Ok(colour::brighten(image, &args.read()?)),
    },
    Operation {
        name: "contrast",
        description: "More contrast, or less",
        params: &[Param::number("amount", -100.0, 100.0, 20.0, "-100 is flat grey, 0 as it was")],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::InPlace,
        apply: |args, image| Ok(colour::contrast(image, &args.read()?)),
    },
    Operation {
        name: "saturate",
        description: "Stronger colours, or paler",
        params: &[Param::number("factor", 0.0, 10.0, 1.5, "0 is grey, 1 as it was")],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::InPlace,
        apply: |args, image| Ok(colour::saturate(image, &args.read()?)),
    },
    Operation {
        name: "hue_rotate",
        description: "Every hue moved around the colour circle",
        params: &[Param::number("degrees", -360.0, 360.0, 90.0, "how far")],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::InPlace,
        apply: |args, image| Ok(colour::hue_rotate(image, &args.read()?)),
    },
    Operation {
        name: "gamma",
        description: "Midtones lighter, or darker; black and white stay",
        params: &[Param::number("gamma", 0.1, 10.0, 1.4, "above 1 is lighter")],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::InPlace,
        apply: |args, image| Ok(colour::gamma(image, &args.read()?)),
    },
    Operation {
        name: "autocontrast",
        description: "Stretched until the darkest is black and the brightest white",
        params: &[Param::number("cutoff", 0.0, 40.0, 0.5, "per cent to ignore at either end")],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::InPlace,
        apply: |args, image| Ok(colour::autocontrast(image, &args.read()?)),
    },
    Operation {
        name: "vignette",
        description: "Darker towards the corners",
        params: &[Param::number("strength", 0.0, 1.0, 0.5, "1 makes the corners black")],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::InPlace,
        apply: |args, image| Ok(colour::vignette(image, &args.read()?)),
    },
    Operation {
        name: "noise",
        description: "Film grain; the same seed gives the same grain",
        params: &[
            Param::number("amount", 0.0, 100.0, 12.0, "its deviation, on the scale to 255"),
            Param::integer("seed", 0, u32::MAX as i64, 0, "another one, another grain"),
        ],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::InPlace,
        apply: |args, image| Ok(colour::noise(image, &args.read()?)),
    },
    Operation {
        name: "blur",
        description: "Gaussian blur",
        params: &[Param::number("sigma", 0.1, 100.0, 3.0, "how far it spreads, in pixels")],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::Filtered,
        apply: |args, image| Ok(filters::blur(image, &args.read()?)),
    },
    Operation {
        name: "sharpen",
        description: "Unsharp masking",
        params: &[
            Param::number("sigma", 0.1, 100.0, 1.5, "the size of the details, in pixels"),
            Param::number("amount", 0.0, 10.0, 1.0, "how much they are strengthened"),
            Param::number("threshold", 0.0, 255.0, 2.0, "fainter ones are left alone"),
        ],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::Copied,
        apply: |args, image| Ok(filters::sharpen(image, &args.read()?)),
    },
    Operation {
        name: "denoise",
        description: "Median filter: specks go, edges stay; the result has 8 bits a colour",
        params: &[Param::integer("radius", 1, 20, 1, "of the specks, in pixels")],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::Copied,
        apply: |args, image| Ok(filters::denoise(image, &args.read()?)),
    },
    Operation {
        name: "pixelate",
        description: "Coarse blocks",
        params: &[Param::integer("size", 2, 1024, 16, "the side of a block, in pixels")],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::Filtered,
        apply: |args, image| Ok(filters::pixelate(image, &args.read()?)),
    },
    Operation {
        name: "edges",
        description: "Edges, bright on black",
        params: &[Param::number("strength", 0.1, 10.0, 2.0, "how bright")],
        shape: Shape::Same,
        colours: Colours::Srgb,
        scratch: Scratch::Copied,
        apply: |args, image| Ok(filters::edges(image, &args.read()?)),
    },
    Operation {
        name: "sketch",
        description: "A pencil drawing",
        params: &[Param::number("sigma", 0.5, 50.0, 6.0, "the width of the strokes, in pixels")],
        shape: Shape::Same,
        colours: Colours::Srgb,
        scratch: Scratch::Copied,
        apply: |args, image| Ok(filters::sketch(image, &args.read()?)),
    },
    Operation {
        name: "emboss",
        description: "A relief, lit from one side",
        params: &[],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::Copied,
        apply: |_, image| Ok(filters::emboss(image)),
    },
    Operation {
        name: "flip",
        description: "Mirrored",
        params: &[Param::choice(
            "direction",
            &["horizontal", "vertical"],
            "horizontal",
            "horizontal swaps left and right",
        )],
        shape: Shape::Same,
        colours: Colours::Own,
        scratch: Scratch::Moved,
        apply: |args, image| Ok(geometry::flip(&image, &args.read()?)),
    },
    Operation {
        name: "rotate",
        description: "Turned clockwise; quarter turns are exact",
        params: &[
            Param::number("degrees", -360.0, 360.0, 90.0, "clockwise"),
            Param::colour("fill", "#00000000", "what shows in the corners; transparent is white in a JPEG"),
            Param::flag("expand", true, "whether the picture grows to hold its corners"),
        ],
        shape: Shape::Becomes(|args, size| Ok(geometry::rotate_size(&args.read()?, size))),
        colours: Colours::Own,
        scratch: Scratch::Turned,
        apply: |args, image| Ok(geometry::rotate(image, &args.read()?)),
    },
    Operation {
        name: "crop",
        description: "A part of the picture",
        params: &[
            Param::integer("x", 0, 65_534, 0, "its left edge"),
            Param::integer("y", 0, 65_534, 0, "its upper edge"),
            Param::side("width", Absent::Refused, "its width"),
            Param::side("height", Absent::Refused, "its height"),
        ],
        shape: Shape::Becomes(|args, size| geometry::crop_size(&args.read()?, size)),
        colours: Colours::Own,
        scratch: Scratch::Moved,
        apply: |args, image| Ok(geometry::crop(&image, &args.read()?)),
    },
    Operation {
        name: "border",
        description: "A frame of one colour around it",
        params: &[
            Param::integer("size", 1, 4096, 16, "its width, in pixels"),
            Param::colour("colour", "#ffffff", "its colour"),
        ],
        shape: Shape::Becomes(|args, size| Ok(geometry::border_size(&args.read()?, size))),
        colours: Colours::Srgb,
        scratch: Scratch::Turned,
        apply: |args, image| Ok(geometry::border(image, &args.read()?)),
    },
    Operation {
        name: "resize",
        description: "Another size",
        params: &[
            Param::side("width", Absent::Means("in proportion to the height"), "the new width"),
            Param::side("height", Absent::Means("in proportion to the width"), "the new height"),
            Param::choice(
                "fit",
                &["exact", "inside", "cover"],
                "exact",
                "with both given: distort, stay within, or cut what is too much",
            ),
            Param::choice(
                "filter",
                &["nearest", "triangle", "catmull_rom", "gaussian", "lanczos3"],
                "lanczos3",
                "how to resample",
            ),
        ],
        shape: Shape::Becomes(|args, size| geometry::resize_size(&args.read()?, size)),
        colours: Colours::Own,
        scratch: Scratch::Resampled,
        apply: |args, image| geometry::resize(image, &args.read()?),
    },
    Operation {
        name: "thumbnail",
        description: "Small, in proportion; never enlarged",
        params: &[Param::integer("size", 1, 4096, 256, "the longer side, in pixels")],
        shape: Shape::Becomes(|args, size| Ok(geometry::thumbnail_size(&args.read()?, size))),
        colours: Colours::Own,
        scratch: Scratch::Moved,
        apply: |args, image| Ok(geometry::thumbnail(image, &args.read()?)),
    },
    Operation {
        name: "upscale",
        description: "Enlarged (Lanczos)",
        params: &[Param::number("factor", 1.0, 4.0, 2.0, "how many times as wide and as high")],
        shape: Shape::Becomes(|args, size| Ok(geometry::upscale_size(&args.read()?, size))),
        colours: Colours::Own,
        scratch: Scratch::Resampled,
        apply: |args, image| Ok(geometry::upscale(image, &args.read()?)),
    },
];

//! What a picture is, told from its content and never from its name or a Content-Type header.

/// The picture formats that are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP.
    WebP,
    /// GIF; only its first frame counts.
    Gif,
    /// BMP.
    Bmp,
    /// TIFF.
    Tiff,
}

/// What a picture's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media {
    /// The format of the file.
    pub format: Format,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
}

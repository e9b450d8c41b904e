//! Multipart forms, read whole: their fields in order.

use axum::extract::{FromRequest, Multipart, Request};
use bytes::Bytes;

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) bytes: Bytes,
}

/// The fields of a form.
#[derive(Debug)]
pub(super) struct Form(pub(super) Vec<Field>);

impl Form {
    pub(super) async fn read(request: Request) -> Result<Self, String> {
        let mut form = Multipart::from_request(request, &()).await.map_err(|error| error.body_text())?;
        let mut fields = Vec::new();
        while let Some(field) = form.next_field().await.map_err(|error| error.body_text())? {
            let name = field.name().unwrap_or_default().to_owned();
            let bytes = field.bytes().await.map_err(|error| error.body_text())?;
            fields.push(Field { name, bytes });
        }
        Ok(Self(fields))
    }

    /// The value of a field that is text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let field = self.0.iter().find(|field| field.name == name)?;
        std::str::from_utf8(&field.bytes).ok()
    }
}

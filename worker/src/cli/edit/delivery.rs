//! Results on their way into the folder of results: each is written as soon as it is there.
//!
//! What must stay true: of pictures that have the same name, the one named first is written first, so that a
//! repeat of the command finds each under the name that it has.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use retouch_shared::event::{ImageError, ImageStatus};
use retouch_shared::key::Digest32;

use super::super::inputs::Picture;
use super::super::output::OutputFolder;
use crate::app::App;
use crate::media;
use crate::sources::fetch::Purpose;
use crate::store::TaskRecord;

/// What became of a picture: its file, or why there is none.
pub(super) type Delivered = Result<String, ImageError>;

/// Where the results go.
pub(super) struct Delivery {
    app: Arc<App>,
    pictures: Arc<[Picture]>,
    edit_type: String,
    out: OutputFolder,
    /// The picture before it that has the same name.
    before: Vec<Option<usize>>,
    /// The picture after it that has the same name.
    after: HashMap<usize, usize>,
    /// Answered, and not written yet: a reference, or why there is none.
    answered: BTreeMap<usize, Result<String, ImageError>>,
    delivered: Vec<Option<Delivered>>,
}

impl Delivery {
    pub(super) fn new(app: &Arc<App>, pictures: Arc<[Picture]>, edit_type: &str, out: OutputFolder) -> Self {
        let mut last: HashMap<(&Path, String), usize> = HashMap::new();
        let (mut before, mut after) = (Vec::new(), HashMap::new());
        for (at, picture) in pictures.iter().enumerate() {
            let earlier = last.insert((&picture.under, picture.input.stem()), at);
            if let Some(earlier) = earlier {
                after.insert(earlier, at);
            }
            before.push(earlier);
        }
        Self {
            app: Arc::clone(app),
            edit_type: edit_type.to_owned(),
            out,
            before,
            after,
            answered: BTreeMap::new(),
            delivered: vec![None; pictures.len()],
            pictures,
        }
    }

    /// What became of each picture so far.
    pub(super) fn delivered(&self) -> &[Option<Delivered>] {
        &self.delivered
    }

    /// A picture that has failed before it was in a task. Returns the places of the pictures that are settled
    /// by it.
    ///
    /// # Errors
    /// See [`Delivery::task`].
    pub(super) async fn failed(&mut self, at: usize, error: ImageError) -> Result<Vec<usize>> {
        self.answered.insert(at, Err(error));
        self.write_from(at).await
    }

    /// A task as it stands, whose images are these pictures. Returns the places of the pictures that are
    /// settled by it.
    ///
    /// # Errors
    /// A result cannot be had from our own blobs, or the folder cannot be written to.
    pub(super) async fn task(&mut self, task: &TaskRecord, places: &[usize]) -> Result<Vec<usize>> {
        let mut settled = Vec::new();
        for (image, at) in task.images.iter().zip(places) {
            let known = self.answered.contains_key(at) || self.delivered.get(*at).is_none_or(Option::is_some);
            let answer = match (image.status, &image.result_url, &image.error) {
                (ImageStatus::Waiting, _, _) => continue,
                _ if known => continue,
                (_, Some(reference), None) => Ok(reference.clone()),
                (_, _, Some(error)) => Err(error.clone()),
                (_, None, None) => continue,
            };
            self.answered.insert(*at, answer);
            settled.extend(self.write_from(*at).await?);
        }
        Ok(settled)
    }

    /// Also what waits for a picture of the same name: no more is to come.
    ///
    /// # Errors
    /// See [`Delivery::task`].
    pub(super) async fn rest(&mut self) -> Result<Vec<usize>> {
        let mut settled = Vec::new();
        while let Some(at) = self.answered.keys().next().copied() {
            self.write(at).await?;
            settled.push(at);
        }
        Ok(settled)
    }

    /// Writes this one if its turn has come, and those that have waited for it.
    async fn write_from(&mut self, at: usize) -> Result<Vec<usize>> {
        let mut settled = Vec::new();
        let mut next = Some(at);
        while let Some(at) = next {
            let earlier = self.before.get(at).copied().flatten();
            if earlier.is_some_and(|earlier| self.delivered.get(earlier).is_some_and(Option::is_none)) {
                break;
            }
            if !self.answered.contains_key(&at) {
                break;
            }
            self.write(at).await?;
            settled.push(at);
            next = self.after.get(&at).copied();
        }
        Ok(settled)
    }

    /// Dropped half-way, as by a signal, it leaves the answer for the next try.
    async fn write(&mut self, at: usize) -> Result<()> {
        let bytes = match self.answered.get(&at) {
            Some(Ok(reference)) => bytes_of(&self.app, reference).await?,
            Some(Err(error)) => Err(error.clone()),
            None => return Ok(()),
        };
        self.answered.remove(&at);
        let Some(picture) = self.pictures.get(at) else { return Ok(()) };
        let delivered = match bytes {
            Ok(bytes) => {
                let name = format!("{}-{}", picture.input.stem(), self.edit_type);
                let ending = media::identify(&bytes).map_or("bin", |kind| kind.extension);
                Ok(self.out.write(&picture.under, &name, ending, &bytes)?.display().to_string())
            }
            Err(error) => Err(error),
        };
        if let Some(place) = self.delivered.get_mut(at) {
            *place = Some(delivered);
        }
        Ok(())
    }
}

/// A result's bytes: from our blobs, or from the link that an older system has left.
///
/// # Errors
/// The inner one: the link leads to no picture, which says nothing about the other results.
async fn bytes_of(app: &App, reference: &str) -> Result<Result<Bytes, ImageError>> {
    if reference.starts_with("http://") || reference.starts_with("https://") {
        let fetched = app.results.fetch(reference, Purpose::Source).await;
        return Ok(fetched.map_err(|error| ImageError {
            code: "result_unavailable".to_owned(),
            message: format!("its result was imported as a link to {reference}, and {error}"),
        }));
    }
    let digest = reference.rsplit('/').next().unwrap_or_default();
    let hash: Digest32 = digest.parse().with_context(|| format!("{reference} is not one of our blobs"))?;
    Ok(Ok(app.blobs.get(hash).await?))
}

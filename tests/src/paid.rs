//! An installation whose edits go to the provider stand-in: a [`Site`], a [`StandIn`], and workers that have its key.

use std::path::PathBuf;
use std::time::Duration;

use image::ImageFormat;
use serde_json::{Value, json};

use crate::pictures;
use crate::program::{Program, Running};
use crate::site::{Site, working};
use crate::stand_in::{Asked, StandIn, expected};
use crate::tasks::data;

/// The model of the functions, and its lane.
pub const WANX: &str = "wanx2.1-imageedit";
/// See [`WANX`].
pub const LANE: &str = "dashscope.wanx2.1-imageedit";
/// What one picture of [`WANX`] costs, in millionths.
pub const PRICE: i64 = 140_000;

/// The installation and its provider.
pub struct Paid {
    /// The installation. Workers of it must be dropped before it is.
    pub site: Site,
    /// The provider.
    pub provider: StandIn,
}

impl Paid {
    /// On RabbitMQ and MariaDB.
    pub async fn on_servers() -> Self {
        Self::of(Site::on_servers().await).await
    }

    /// This installation, with a provider of its own.
    pub async fn of(site: Site) -> Self {
        Self { site, provider: StandIn::start().await }
    }

    /// The program on this installation with the provider's key; polls come often, because the stand-in is quick.
    #[must_use]
    pub fn program(&self, arguments: &[&str], toml: &str) -> Program {
        let brisk = "[editors.dashscope]\npoll_seconds = 0.1\n";
        self.site
            .program(arguments)
            .env("RETOUCH_CONFIG", self.settings(&format!("{brisk}{toml}")))
            .env("DASHSCOPE_API_KEY", StandIn::KEY)
            .env("DASHSCOPE_BASE_URL", self.provider.dashscope_url())
            .env("OPENAI_API_KEY", StandIn::KEY)
            .env("OPENAI_BASE_URL", self.provider.openai_url())
            .env("RETOUCH_PROBE_SECONDS", "1")
    }

    /// A worker that is working, with these settings in its file.
    pub async fn worker(&self, toml: &str) -> Running {
        self.worker_with(toml, &[]).await
    }

    /// As [`Paid::worker`], with further variables.
    pub async fn worker_with(&self, toml: &str, variables: &[(&str, &str)]) -> Running {
        let set = |program: Program, (name, value): &(&str, &str)| program.env(name, value);
        let worker = variables.iter().fold(self.program(&["worker"], toml), set).start();
        working(&worker).await;
        worker
    }

    fn settings(&self, toml: &str) -> PathBuf {
        let file = self.site.env.folder().join("retouch.toml");
        std::fs::write(&file, toml).unwrap();
        file
    }

    /// Whether an image's result is what the provider makes of `input` when it is asked so.
    #[must_use]
    pub fn is_right(&self, image: &Value, input: &[u8], asked: &Asked) -> bool {
        pictures::same_pixels(&self.site.result(image), &expected(input, asked))
    }

    /// How often the provider was paid in all, once nothing is under way there.
    #[must_use]
    pub fn billed(&self) -> u64 {
        self.provider.ledger().billed()
    }

    /// One column of the lane [`LANE`], as text.
    pub async fn lane(&self, column: &str) -> String {
        let sql = format!("SELECT COALESCE(CAST({column} AS CHAR), '-') FROM lanes WHERE name = '{LANE}'");
        self.site.texts(&sql).await.pop().unwrap_or_default()
    }

    /// Makes tasks take this long at the provider.
    pub fn takes(&self, duration: Duration) {
        self.provider.set(|settings| settings.task_duration = duration);
    }
}

/// A picture that the provider takes: 512 pixels on each side.
#[must_use]
pub fn picture(seed: u64) -> Vec<u8> {
    pictures::picture_as(seed, 512, 512, ImageFormat::Png)
}

/// A task for a function of [`WANX`], its pictures inside the message.
#[must_use]
pub fn task(id: &str, edit_type: &str, prompt: &str, pictures: &[Vec<u8>]) -> Value {
    let images: Vec<Value> = pictures.iter().map(|bytes| data(bytes)).collect();
    json!({"v": 1, "task_id": id, "edit_type": edit_type, "prompt": prompt, "images": images})
}

/// What the provider is asked by such a task.
#[must_use]
pub fn asked(function: &str, prompt: &str) -> Asked {
    Asked::new(WANX).function(function).prompt(prompt)
}

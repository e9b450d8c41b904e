//! The provider stand-in: DashScope's image edits and OpenAI's, as documented, on a port of this machine. It
//! keeps the provider's books and misbehaves on demand.
//!
//! Invariant: it follows the providers' documentation and never the worker's behaviour, and the official SDKs
//! run against it unchanged. Where the documentation is silent a comment says so, and a setting allows both.
//!
//! ```no_run
//! # use retouch_tests::stand_in::{Asked, Fault, OnCreate, StandIn, expected};
//! # async fn example(picture: &[u8], result: &[u8]) {
//! let provider = StandIn::start().await;
//! let lost = provider.arm(Fault::Create(OnCreate::Drop { created: true }));
//! // … something edits `picture` at `provider.dashscope_url()` with the key `StandIn::KEY` …
//! let edit = Asked::new("wanx2.1-imageedit").function("remove_watermark").param("seed", 7);
//! assert_eq!(lost.fired(), 1);
//! assert_eq!(provider.ledger().billed_of(&edit.identity(picture)), 1);
//! assert!(retouch_tests::pictures::same_pixels(result, &expected(picture, &edit)));
//! # }
//! ```

mod answers;
mod asked;
mod clock;
mod control;
mod dashscope;
mod faults;
mod form;
mod inputs;
mod ledger;
mod manage;
mod models;
mod openai;
mod results;
mod settings;
mod shapes;
mod state;
mod submit;
mod tasks;
mod uploads;
mod views;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{self, Next, map_response_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::runtime::{Builder, Runtime};

pub use self::answers::Refusal;
pub use self::asked::{Asked, Identity, expected, expected_nth};
pub use self::faults::{Arm, Armed, Chaos, Fault, OnCreate, OnRequest, OnResult, OnTask};
pub use self::ledger::{Bill, Create, Ledger, Told};
pub use self::models::{FUNCTIONS, MODELS, Model, Style, find as find_model};
pub use self::settings::{Limits, Makes, ModelLimits, Settings};
pub use self::shapes::Shape;
use self::state::Shared;

/// What a request said of its trace: its path, `traceparent` and `tracestate`.
pub type Traced = (String, Option<String>, Option<String>);

/// The account of [`StandIn::KEY`].
const ACCOUNT: &str = "1001";

/// The server; it stops on drop.
///
/// It has threads of its own: requests are dated on arrival, however busy the test's one thread is.
#[derive(Debug)]
pub struct StandIn {
    shared: Arc<Shared>,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl StandIn {
    /// A key that both providers accept.
    pub const KEY: &str = "sk-stand-in";
    /// Another key of the same account.
    pub const SECOND_KEY: &str = "sk-stand-in-second";
    /// A key of another account.
    pub const STRANGERS_KEY: &str = "sk-stand-in-stranger";

    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        Self::start_on(0)
    }

    /// Listens on this port of 127.0.0.1.
    #[must_use]
    pub fn start_on(port: u16) -> Self {
        let runtime =
            Builder::new_multi_thread().worker_threads(2).thread_name("stand-in").enable_all().build();
        let runtime = runtime.unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let keys = [(Self::KEY, ACCOUNT), (Self::SECOND_KEY, ACCOUNT), (Self::STRANGERS_KEY, "2002")];
        let shared = Arc::new(Shared::new(listener.local_addr().unwrap(), &keys));
        let router = router(Arc::clone(&shared));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let listener = listener.tap_io(|connection| connection.set_nodelay(true).unwrap());
            axum::serve(listener, router).await.unwrap();
        });
        Self { shared, runtime: Some(runtime) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// For `DASHSCOPE_BASE_URL`.
    #[must_use]
    pub fn dashscope_url(&self) -> String {
        self.shared.url("/api/v1")
    }

    /// For `OPENAI_BASE_URL`.
    #[must_use]
    pub fn openai_url(&self) -> String {
        self.shared.url("/v1")
    }

    /// Every request: its path, `traceparent` and `tracestate`.
    #[must_use]
    pub fn traces(&self) -> Vec<Traced> {
        self.shared.traces.lock().unwrap().clone()
    }

    /// The books as they are now.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.shared.now().0.ledger.clone()
    }

    /// The pictures and masks that were sent, to the byte, of every create that was accepted, in order.
    pub fn pictures(&self) -> Vec<(Bytes, Option<Bytes>)> {
        let (state, _) = self.shared.now();
        let tasks = state.tasks.ids.iter().filter_map(|id| state.tasks.get(id));
        tasks.map(|task| (task.work.edit.input.clone(), task.work.edit.mask.clone())).collect()
    }

    /// Changes settings: `provider.set(|settings| settings.limits = Limits::Off)`.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.shared.now().0.settings);
        self.shared.changed.send_replace(());
    }

    /// Arms a fault, for the next request unless the [`Arm`] says otherwise. Those armed first strike first.
    pub fn arm(&self, arm: impl Into<Arm>) -> Armed {
        self.shared.now().0.faults.arm(arm.into())
    }

    /// From now on faults strike at random, unless an armed one does. The count covers all of them.
    pub fn chaos(&self, seed: u64, chaos: Chaos) -> Armed {
        self.shared.now().0.faults.chaos(seed, chaos)
    }

    /// No fault strikes any more; held requests continue.
    pub fn clear_faults(&self) {
        self.shared.now().0.faults.clear();
    }

    /// Moves the provider's clock ahead: tasks end, URLs and tasks expire.
    pub fn advance(&self, by: Duration) {
        self.shared.clock.advance(by);
        self.shared.changed.send_replace(());
    }

    /// Stops the provider's clock: from now on only [`StandIn::advance`] moves it, and a slow machine changes no limit.
    pub fn stop_clock(&self) {
        self.shared.clock.stop();
    }

    /// The time of the provider's clock.
    #[must_use]
    pub fn clock(&self) -> DateTime<Utc> {
        self.shared.clock.now()
    }

    /// [`StandIn::KEY`] is refused from now on.
    pub fn disable_key(&self) {
        self.key_works(Self::KEY, false);
    }

    /// [`StandIn::KEY`] works again.
    pub fn enable_key(&self) {
        self.key_works(Self::KEY, true);
    }

    fn key_works(&self, key: &str, works: bool) {
        if let Some(known) = self.shared.now().0.keys.get_mut(key) {
            known.1 = works;
        }
    }

    /// Whether the account of [`StandIn::KEY`] owes money: then nothing new is accepted.
    pub fn arrears(&self, owes: bool) {
        let (mut state, _) = self.shared.now();
        match owes {
            true => state.in_arrears.insert(ACCOUNT.to_owned()),
            false => state.in_arrears.remove(ACCOUNT),
        };
    }

    /// Retires a model.
    pub fn retire(&self, model: &str) {
        self.shared.now().0.retired.insert(model.to_owned());
    }

    /// Revives a model, e.g. one that was retired in October 2026.
    pub fn revive(&self, model: &str) {
        self.shared.now().0.retired.remove(model);
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // Dropped where it is, it would wait for what is held.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Every answer shows the provider's clock, as HTTP servers do.
async fn dated(State(shared): State<Arc<Shared>>, mut response: Response) -> Response {
    let date = shared.clock.now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    response.headers_mut().insert(header::DATE, date.parse().unwrap());
    response
}

fn said(path: &str, headers: &HeaderMap) -> Traced {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    (path.to_owned(), header("traceparent"), header("tracestate"))
}

/// Notes what a request says of the trace that it is a part of.
async fn traced(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let noted = said(request.uri().path(), request.headers());
    shared.traces.lock().unwrap().push(noted);
    next.run(request).await
}

fn router(shared: Arc<Shared>) -> Router {
    const AIGC: &str = "/api/v1/services/aigc";
    Router::new()
        .route(&format!("{AIGC}/image2image/image-synthesis"), post(dashscope::image2image))
        .route(&format!("{AIGC}/multimodal-generation/generation"), post(dashscope::messages))
        .route(&format!("{AIGC}/image-generation/generation"), post(dashscope::messages_task))
        .route("/api/v1/tasks", get(manage::list))
        .route("/api/v1/tasks/", get(manage::list))
        .route("/api/v1/tasks/{id}", get(manage::query))
        .route("/api/v1/tasks/{id}/cancel", post(manage::cancel))
        .route("/api/v1/uploads", get(uploads::policy))
        // Object storage: an upload's host has no path.
        .route("/", post(uploads::upload))
        .route("/results/{name}", get(results::download))
        .route("/v1/images/edits", post(openai::edits))
        .route("/v1/models", get(openai::models))
        .merge(control::router())
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), traced))
        .layer(map_response_with_state(Arc::clone(&shared), dated))
        .layer(DefaultBodyLimit::max(dashscope::MOST_BODY))
        .with_state(shared)
}

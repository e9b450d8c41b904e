//! The contenders that are not Retouch: the classic design in Python (plain, in Celery, in Dramatiq), and the floor.

use std::ops::Range;

use async_trait::async_trait;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use sqlx::mysql::MySqlPool;

use super::contender::Contender;
use super::feed::{self, task};
use super::gallery::Gallery;
use super::run::LONG;
use super::tables;
use crate::broker::{Amqp, Queue};
use crate::env::Env;
use crate::program::{Program, Running, beside};
use crate::{python, wait};

/// What works the tasks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// pika, `PyMySQL` and requests in so many processes.
    Python(usize),
    /// The same body as a Celery task: two processes, as many as there are cores.
    Celery,
    /// The same body as a Dramatiq actor: two processes of eight threads.
    Dramatiq,
    /// See [`super::floor`].
    Floor {
        /// Whether it publishes an event for each task, confirmed.
        events: bool,
    },
}

impl Kind {
    /// Whether it needs packages from the Python index.
    #[must_use]
    pub const fn is_python(self) -> bool {
        !matches!(self, Self::Floor { .. })
    }
}

/// One contender with its own database and queue.
pub struct Plain {
    kind: Kind,
    pool: MySqlPool,
    amqp: Amqp,
    env: Env,
}

impl Plain {
    /// With every picture of the gallery in its cache.
    pub async fn new(kind: Kind, gallery: &Gallery) -> Self {
        let env = Env::new().await;
        let (pool, amqp) = (env.pool().await, env.amqp().await);
        tables::create(&pool, gallery).await;
        let this = Self { kind, pool, amqp, env };
        if matches!(kind, Kind::Python(_) | Kind::Floor { .. }) {
            // As Retouch's: confirmed means on the disk. Celery and Dramatiq declare their own.
            let mut quorum = FieldTable::default();
            quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            let name = this.queue().as_str().into();
            this.amqp.channel.queue_declare(name, durable, quorum).await.unwrap();
        }
        this
    }

    fn queue(&self) -> String {
        format!("{}.tasks", self.env.namespace())
    }

    fn set(&self, program: Program) -> Program {
        program
            .env("AMQP_URL", self.env.amqp_url())
            .env("DATABASE_URL", self.env.mysql_url())
            .env("BENCH_QUEUE", self.queue())
            .env("BENCH_EVENTS", format!("{}.events", self.env.namespace()))
    }

    async fn program(&self) -> Program {
        let program = match self.kind {
            Kind::Python(_) => python::bench_script("plain.py", &[]).await,
            Kind::Celery => {
                let arguments = ["-A", "celery_app", "worker", "--loglevel", "warning", "--concurrency", "2"];
                python::bench_tool("celery", &arguments).await
            }
            Kind::Dramatiq => {
                let arguments = ["dramatiq_app", "--processes", "2", "--threads", "8"];
                python::bench_tool("dramatiq", &arguments).await
            }
            Kind::Floor { events } => {
                let program = Program::other(beside("bench"), &["floor"]);
                program.env("BENCH_PUBLISHES", if events { "1" } else { "0" })
            }
        };
        self.set(program)
    }
}

#[async_trait(?Send)]
impl Contender for Plain {
    fn name(&self) -> String {
        match self.kind {
            Kind::Python(1) => "plain Python".to_owned(),
            Kind::Python(processes) => format!("plain Python × {processes}"),
            Kind::Celery => "Celery (2 processes)".to_owned(),
            Kind::Dramatiq => "Dramatiq (2 × 8 threads)".to_owned(),
            Kind::Floor { events: true } => "floor".to_owned(),
            Kind::Floor { events: false } => "floor without events".to_owned(),
        }
    }

    fn pool(&self) -> &MySqlPool {
        &self.pool
    }

    fn table(&self) -> &'static str {
        "plain_tasks"
    }

    async fn feed(&self, gallery: &Gallery, tasks: Range<u64>) {
        let tasks = tasks.map(|number| task(gallery, number, 1));
        let framework = match self.kind {
            Kind::Python(_) | Kind::Floor { .. } => {
                return feed::publish(&self.amqp, "", &self.queue(), tasks).await;
            }
            Kind::Celery => "celery",
            Kind::Dramatiq => "dramatiq",
        };
        let file = self.env.folder().join("tasks.jsonl");
        let lines: Vec<String> = tasks.map(|task| task.to_string()).collect();
        std::fs::write(&file, lines.join("\n")).unwrap();
        let sender = self.set(python::bench_script("enqueue.py", &[framework]).await.arg(&file));
        let sent = sender.run().await;
        assert!(sent.status.success(), "{}", sent.stderr);
    }

    async fn start(&self) -> Vec<Running> {
        let processes = if let Kind::Python(processes) = self.kind { processes } else { 1 };
        let mut running = Vec::new();
        for _ in 0..processes {
            running.push(self.program().await.start());
        }
        running
    }

    async fn check(&self, gallery: &Gallery, from: i64, tasks: Range<u64>) {
        let mut left = Vec::new();
        let drained = wait::poll(LONG, async || {
            left = self.env.queues().await;
            left.retain(|queue: &Queue| queue.ready + queue.unacknowledged > 0);
            left.is_empty().then_some(())
        });
        assert!(drained.await.is_some(), "{} leaves messages behind: {left:?}", self.name());
        tables::check(&self.pool, gallery, from, tasks, &self.name()).await;
    }
}

//! A command at work: pictures go in as tasks, their calls are performed, results are written as they come.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use retouch_shared::wire::ImageRef;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::account::Account;
use super::super::folders::LeftOut;
use super::super::inputs::{EditArgs, Picture};
use super::super::output::OutputFolder;
use super::super::report::{Aside, Report, Stopped};
use super::super::signals::Signals;
use super::super::{Ending, Failure};
use super::delivery::Delivery;
use super::feed::{Fed, feed};
use super::lanes::Lanes;
use super::left::{self, LeftAlone};
use super::progress::Progress;
use crate::app::App;
use crate::perform::OwnCalls;
use crate::store::{Cancelled, TaskRecord};

/// How often it is asked whether the lanes take calls.
const LANE_LOOK: Duration = Duration::from_secs(1);

/// Why a command ends before all its tasks do.
enum Stop {
    /// A signal.
    Interrupted,
    /// The lane takes no calls, for this reason.
    Lane(Stopped),
    /// `--max-cost` is used up.
    Cost,
}

/// The command.
pub(super) struct Run {
    app: Arc<App>,
    pictures: Arc<[Picture]>,
    feeding: Option<JoinHandle<Result<()>>>,
    fed: mpsc::UnboundedReceiver<Fed>,
    calls: OwnCalls,
    lanes: Lanes,
    /// Each task as it stands, with the places of its pictures, by the first of them.
    tasks: BTreeMap<usize, (Vec<usize>, TaskRecord)>,
    first_of: HashMap<String, usize>,
    failed_before: usize,
    delivery: Delivery,
    progress: Progress,
    left_alone: Option<LeftAlone>,
    json: bool,
}

impl Run {
    /// Begins to read the pictures.
    pub(super) fn start(
        app: &Arc<App>,
        edit: EditArgs,
        pictures: Arc<[Picture]>,
        mask: Option<ImageRef>,
        out: OutputFolder,
        json: bool,
    ) -> Self {
        let (tell, fed) = mpsc::unbounded_channel();
        let edit_type = edit.edit_type.clone();
        let feeding = feed(Arc::clone(app), edit, Arc::clone(&pictures), mask, tell);
        Self {
            app: Arc::clone(app),
            feeding: Some(tokio::spawn(feeding)),
            fed,
            calls: OwnCalls::new(app),
            lanes: Lanes::new(app),
            tasks: BTreeMap::new(),
            first_of: HashMap::new(),
            failed_before: 0,
            delivery: Delivery::new(app, Arc::clone(&pictures), &edit_type, out),
            progress: Progress::new(&edit_type, pictures.len(), json),
            pictures,
            left_alone: None,
            json,
        }
    }

    /// Works until all is answered, or until it is told to stop; says what came of it.
    pub(super) async fn finish(
        mut self,
        signals: &mut Signals,
        left_out: LeftOut,
        began: Instant,
    ) -> Result<Ending, Failure> {
        let ended = self.end(signals).await;
        self.progress.end();
        let mut report = self.report(left_out);
        if let Ok(Some(Stop::Lane(stopped))) = &ended {
            report.aside.stopped = Some(stopped.clone());
        }
        // Money is said also where the rest could not be found out.
        if ended.is_ok() || !report.aside.account.is_empty() {
            report.print_summary(self.json, began.elapsed());
        }
        match ended.map_err(Failure::Unreachable)? {
            None => Ok(report.ending()),
            Some(Stop::Cost) => {
                let line = "--max-cost is used up: what was not sent is cancelled; what was sent is in the cost above";
                self.progress.tell(line.to_owned());
                Ok(Ending::SomeFailed)
            }
            Some(Stop::Lane(stopped)) => Err(Failure::Unreachable(anyhow!(stopped.message))),
            Some(Stop::Interrupted) => {
                let done = self.delivery.delivered().iter().filter(|delivered| delivered.is_some()).count();
                let left = left::in_words(self.calls.waits(), done, self.pictures.len());
                Err(Failure::Interrupted(anyhow!("interrupted: {left}. The same command goes on from here")))
            }
        }
    }

    /// Works, winds down where it is told to stop, and delivers what is there.
    async fn end(&mut self, signals: &mut Signals) -> Result<Option<Stop>> {
        let worked = tokio::select! {
            worked = self.work() => worked,
            _ = signals.next() => Ok(Some(Stop::Interrupted)),
        };
        let stopped = match worked {
            Ok(stopped) => stopped,
            Err(error) => {
                self.wind_down(signals).await.ok();
                return Err(error);
            }
        };
        // What was carried on for earlier commands is handed on as it is.
        if stopped.is_some() || self.calls.is_at_work_for_others() {
            self.wind_down(signals).await?;
        }
        if let Some(Stop::Cost) = stopped {
            self.cancel_rest().await?;
        }
        self.deliver_rest().await?;
        if self.lanes.carried_on() > 0 {
            self.left_alone = left::by_others(&self.app, &self.ids(), 0).await?;
        }
        Ok(stopped)
    }

    /// Until all is answered, or why not.
    async fn work(&mut self) -> Result<Option<Stop>> {
        let mut lanes = Instant::now() + LANE_LOOK;
        loop {
            self.look().await?;
            if self.feeding.is_none() && self.calls.is_over() {
                return Ok(None);
            }
            if self.app.bill.is_used_up() && !self.calls.is_at_work_for_own() {
                return Ok(Some(Stop::Cost));
            }
            if Instant::now() >= lanes {
                lanes = Instant::now() + LANE_LOOK;
                if let Some(stopped) = self.lanes.look(&mut self.calls, &mut self.progress).await? {
                    return Ok(Some(Stop::Lane(stopped)));
                }
            }
            tokio::select! {
                biased;
                Some(fed) = self.fed.recv() => self.take(fed).await?,
                // All that it had to say has come: the channel ends with it.
                fed = ended(&mut self.feeding) => {
                    self.feeding = None;
                    fed?;
                    while let Ok(fed) = self.fed.try_recv() {
                        self.take(fed).await?;
                    }
                    self.all_fed().await?;
                }
                () = self.calls.pause() => {}
            }
        }
    }

    async fn look(&mut self) -> Result<()> {
        for task in self.calls.look().await? {
            self.update(task).await?;
        }
        self.progress.waits(&self.app.owner, self.calls.waits(), self.calls.is_at_work_for_own());
        Ok(())
    }

    async fn take(&mut self, fed: Fed) -> Result<()> {
        match fed {
            Fed::Failed(at, error) => {
                self.failed_before += 1;
                let settled = self.delivery.failed(at, error).await?;
                self.progress.settled(&settled, &self.pictures, self.delivery.delivered());
                Ok(())
            }
            Fed::Task(places, task) => {
                self.calls.add(&task);
                let first = places.first().copied().unwrap_or_default();
                self.first_of.insert(task.task_id.clone(), first);
                self.tasks.insert(first, (places, (*task).clone()));
                self.update(*task).await
            }
        }
    }

    /// Writes what has come of a task.
    async fn update(&mut self, task: TaskRecord) -> Result<()> {
        let known = self.first_of.get(&task.task_id).and_then(|first| self.tasks.get_mut(first));
        let Some((places, known)) = known else { return Ok(()) };
        *known = task;
        let settled = self.delivery.task(known, places).await?;
        self.progress.settled(&settled, &self.pictures, self.delivery.delivered());
        let spent = self.app.bill.statement(self.calls.of_others()).spent;
        self.progress.show(self.tasks.values().map(|(_, task)| task), self.failed_before, &spent);
        Ok(())
    }

    /// Writes also what waits for a picture of the same name, and what was being written when a signal came.
    async fn deliver_rest(&mut self) -> Result<()> {
        let mut settled = Vec::new();
        for (places, task) in self.tasks.values() {
            settled.extend(self.delivery.task(task, places).await?);
        }
        settled.extend(self.delivery.rest().await?);
        self.progress.settled(&settled, &self.pictures, self.delivery.delivered());
        Ok(())
    }

    /// From here on it is known which unfinished edits are this command's own.
    async fn all_fed(&mut self) -> Result<()> {
        if !self.calls.is_over() {
            // What is carried on is not left alone. Whether the command ends, the next look says again.
            self.look().await?;
            self.lanes.look(&mut self.calls, &mut self.progress).await?;
        }
        let carried_on = self.lanes.carried_on();
        self.left_alone = left::by_others(&self.app, &self.ids(), carried_on).await?;
        if let Some(left_alone) = self.left_alone.as_ref().filter(|_| !self.json) {
            self.progress.tell(left_alone.in_words());
        }
        Ok(())
    }

    /// Begins nothing more, and waits for what is under way here, at most the grace period. A second signal
    /// ends it at once.
    async fn wind_down(&mut self, signals: &mut Signals) -> Result<()> {
        self.app.shutdown.cancel();
        if let Some(feeding) = self.feeding.take() {
            feeding.abort();
        }
        let grace = self.app.settings.rhythm.grace;
        let finish = async {
            while let Ok(fed) = self.fed.try_recv() {
                self.take(fed).await?;
            }
            while self.calls.is_at_work() {
                self.calls.pause().await;
                self.look().await?;
            }
            // What the signal came between is read once more.
            let open = self.tasks.values().filter(|(_, task)| !task.status.has_ended());
            let ids: Vec<String> = open.map(|(_, task)| task.task_id.clone()).collect();
            for id in ids {
                if let Some(task) = self.app.store.find_task(&id).await? {
                    self.update(task).await?;
                }
            }
            self.look().await
        };
        tokio::select! {
            finished = tokio::time::timeout(grace, finish) => finished.unwrap_or(Ok(())),
            _ = signals.next() => Ok(()),
        }
    }

    /// What would cost more than was allowed is not left for a worker to buy.
    async fn cancel_rest(&mut self) -> Result<()> {
        let open = self.tasks.values().filter(|(_, task)| !task.status.has_ended());
        let ids: Vec<String> = open.map(|(_, task)| task.task_id.clone()).collect();
        for id in ids {
            if let Cancelled::Now { task, .. } | Cancelled::AlreadyEnded(task) =
                self.app.store.cancel_task(&id, Duration::ZERO).await?
            {
                self.update(*task).await?;
            }
        }
        Ok(())
    }

    fn ids(&self) -> Vec<String> {
        self.first_of.keys().cloned().collect()
    }

    fn report(&self, left_out: LeftOut) -> Report {
        let mut in_tasks = vec![false; self.pictures.len()];
        let delivered = self.delivery.delivered();
        let mut reports = Vec::new();
        for (places, task) in self.tasks.values() {
            let names: Vec<String> = places.iter().map(|at| self.name(*at)).collect();
            let mut report = Report::of_record(task, &names, |reference| self.app.resolve(reference));
            for (position, at) in places.iter().enumerate() {
                in_tasks[*at] = true;
                let answered = report.images.get_mut(position).filter(|image| image.error.is_none());
                match (answered, delivered.get(*at).and_then(Option::as_ref)) {
                    (Some(image), Some(Ok(output))) => image.output = Some(output.clone()),
                    (Some(_), Some(Err(error))) => report.undelivered(position, error.clone()),
                    _ => {}
                }
            }
            reports.push(report);
        }
        let mut report = Report::merged(reports).unwrap_or_else(Report::empty);
        let others = in_tasks.iter().enumerate().filter(|(_, in_task)| !**in_task);
        report.put(others.map(|(at, _)| {
            let error =
                delivered.get(at).and_then(Option::as_ref).and_then(|delivered| delivered.clone().err());
            (at, self.name(at), error)
        }));
        let statement = self.app.bill.statement(self.calls.of_others());
        let (account, cost) = Account::new(statement, self.tasks.values().map(|(_, task)| task));
        report.cost = cost;
        report.aside = Aside {
            left_out: Some(left_out).filter(|left_out| !left_out.is_empty()),
            account,
            left_alone: self.left_alone.clone(),
            stopped: None,
            under_way: None,
        };
        report
    }

    fn name(&self, at: usize) -> String {
        self.pictures.get(at).map(|picture| picture.input.name()).unwrap_or_default()
    }
}

/// The end of the feeding; never, where it has been heard of.
async fn ended(feeding: &mut Option<JoinHandle<Result<()>>>) -> Result<()> {
    match feeding {
        Some(feeding) => feeding.await?,
        None => std::future::pending().await,
    }
}

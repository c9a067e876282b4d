//! Following one job: server-sent events of its state and progress until it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, stream};
use tidegate_queue::{Change, Error, Job, JobId, Queue, State, Transition};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::identity;
use super::view::JobView;
use crate::api::parameters::Path;
use crate::api::sse;
use crate::app::App;
use crate::error::{Problem, ProblemBody};
use crate::listeners::{Caller, Listening};

/// 20 s of silence, then a comment: proxies close connections after 30 to 60 s without bytes.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// 1 s: what a restart of Redis takes at least.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows a job: an event `state` or `progress` with the whole job in its data whenever it changes, until it has ended.
#[utoipa::path(get, path = "/api/performance/async/job/{id}/events", tag = "jobs", params(("id" = String, Path, description = "The job's id.")),
    responses((status = 200, description = "`text/event-stream`; the stream ends with the job.", content_type = "text/event-stream", body = String),
        (status = 404, body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "The caller has too many streams open.", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, description = "Too many streams are open.", body = ProblemBody<'static>, content_type = "application/problem+json")))]
pub(crate) async fn events(
    extract::State(app): extract::State<Arc<App>>,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<Response, Problem> {
    let id = identity(&id)?;
    let queue = app.queues.find(id.queue()).await?.ok_or_else(|| Error::JobNotFound { id: id.clone() })?;
    let seat = app.listeners.admit(caller)?;
    // First subscribe, then look: what happens in between is seen twice rather than not at all.
    let changes = queue.follow(&id).await?;
    let last = app.queues.look(&id).await?;
    let mut follower =
        Follower { app, queue, id, changes, last, shown: Bytes::new(), has_ended: false, owed: None, _seat: seat };
    let first = follower.look("state").await?;
    let frames = stream::unfold((follower, first), |(mut follower, ready)| async move {
        let frame = match ready {
            Some(frame) => frame,
            None => follower.next().await?,
        };
        Some((frame, (follower, None)))
    });
    Ok(sse::events(Box::pin(frames) as Pin<Box<dyn Stream<Item = Bytes> + Send>>))
}

/// One listener of one job. Holds the last thing it showed, so that nothing is shown twice.
///
/// Until the job has ended it looks at what is small of it: a job of megabytes is read once, not with every progress.
struct Follower {
    app: Arc<App>,
    queue: Queue,
    id: JobId,
    changes: Receiver<Transition>,
    /// The job without what is large, for the last frame of one that is kept no longer than it runs.
    last: Job,
    shown: Bytes,
    has_ended: bool,
    /// News whose look failed because the backend was away: to be looked at again.
    owed: Option<News>,
    _seat: Listening,
}

/// Something has changed; `end` is what became of the job if that was its end.
struct News {
    event: &'static str,
    end: Option<(State, Transition)>,
}

/// What a listener was waiting for.
enum Heard {
    News(News),
    Silence,
    Over,
}

impl Follower {
    /// The next frame; `None` when the job has ended or is gone. While Redis is away the stream
    /// stays open and goes on when it is back.
    async fn next(&mut self) -> Option<Bytes> {
        let silence_ends = Instant::now() + HEARTBEAT;
        while !self.has_ended {
            let heard = match self.owed.take() {
                Some(news) => Heard::News(news),
                None => self.hear(silence_ends).await,
            };
            let News { event, end } = match heard {
                Heard::News(news) => news,
                Heard::Silence => return Some(Bytes::from_static(b": alive\n\n")),
                Heard::Over => return None,
            };
            match (self.look(event).await, end) {
                (Ok(Some(frame)), _) => return Some(frame),
                (Ok(None), _) => {}
                // Not kept (`retention: 0`): its end is all that is left of it.
                (Err(Error::JobNotFound { .. }), Some((state, transition))) => return self.end(state, &transition),
                // Its end is on the way to us.
                (Err(Error::JobNotFound { .. }), None) => {}
                (Err(error), end) if error.is_retryable() => {
                    self.owed = Some(News { event, end });
                    match self.pause(silence_ends).await {
                        Heard::News(_) => {}
                        Heard::Silence => return Some(Bytes::from_static(b": alive\n\n")),
                        Heard::Over => return None,
                    }
                }
                (Err(_), _) => return None,
            }
        }
        None
    }

    /// Waits for a change of the job.
    async fn hear(&mut self, silence_ends: Instant) -> Heard {
        let change = timeout_at(silence_ends, self.changes.recv()).await;
        let (event, end) = match change {
            Err(_) => return Heard::Silence,
            // The link to Redis was lost: follow anew before looking.
            Ok(Err(RecvError::Closed)) => {
                match self.queue.follow(&self.id).await {
                    Ok(changes) => self.changes = changes,
                    Err(_) => return self.pause(silence_ends).await,
                }
                ("state", None)
            }
            // What was missed may have been the end: look again.
            Ok(Err(RecvError::Lagged(_))) => ("state", None),
            Ok(Ok(Transition { change: Change::Pruned, .. })) => return Heard::Over,
            Ok(Ok(Transition { change: Change::Progress { .. }, .. })) => ("progress", None),
            Ok(Ok(transition)) => ("state", state_of_end(&transition.change).map(|state| (state, transition))),
        };
        Heard::News(News { event, end })
    }

    /// Lets the backend come back, then asks for a look.
    async fn pause(&self, silence_ends: Instant) -> Heard {
        tokio::select! {
            () = sleep_until(silence_ends) => Heard::Silence,
            () = sleep(PAUSE) => Heard::News(News { event: "state", end: None }),
        }
    }

    /// A frame with the job as it is now; `None` when that was the last thing shown.
    async fn look(&mut self, event: &str) -> Result<Option<Bytes>, Error> {
        self.last = self.app.queues.look(&self.id).await?;
        let job = if self.last.state.is_finished() { self.app.queues.job(&self.id).await? } else { self.last.clone() };
        Ok(self.show(event, job))
    }

    /// The last frame of a job whose record is gone.
    fn end(&mut self, state: State, transition: &Transition) -> Option<Bytes> {
        let job = Job {
            state,
            attempt: transition.attempt,
            finished_at: Some(transition.at),
            run_at: None,
            cancelling: false,
            ..self.last.clone()
        };
        self.show("state", job)
    }

    fn show(&mut self, event: &str, job: Job) -> Option<Bytes> {
        self.has_ended = job.state.is_finished();
        let view = JobView::new(job, self.app.queues.durability());
        let view = Bytes::from(serde_json::to_vec(&view).unwrap_or_default());
        if view == self.shown {
            return None;
        }
        self.shown = view.clone();
        Some(frame(event, &view))
    }
}

/// The state a job ends in by this change, if it does.
fn state_of_end(change: &Change) -> Option<State> {
    match change {
        Change::Completed => Some(State::Completed),
        Change::Cancelled => Some(State::Cancelled),
        Change::Discarded => Some(State::Discarded),
        _ => None,
    }
}

/// A result may hold line breaks between its tokens; each line of an event's data has its own prefix.
fn frame(event: &str, data: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(data.len() + 32);
    frame.extend_from_slice(b"event: ");
    frame.extend_from_slice(event.as_bytes());
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        frame.extend_from_slice(b"\ndata: ");
        frame.extend_from_slice(line);
    }
    frame.extend_from_slice(b"\n\n");
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_in_a_payload_does_not_break_the_frame() {
        assert_eq!(frame("state", b"{\"a\":\n1}"), "event: state\ndata: {\"a\":\ndata: 1}\n\n");
    }
}

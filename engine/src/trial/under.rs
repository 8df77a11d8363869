//! A search while a fault lives: what the fault costs in capacity.

use std::time::Duration;

use reports::record::InjectionRecord;
use tokio::sync::mpsc;

use super::{Asked, Ended, search};
use crate::capacity::{Search, Trial};
use crate::load::LoadError;
use crate::run::{Event, Observer, Signals};

/// What came of a search under a fault; what was learnt is in the search.
#[derive(Debug)]
pub struct Under {
    /// Who ended the search; none if the fault did not live as long as it.
    pub ended: Option<Ended>,
    /// The exit code of the fault: whether it was put back.
    pub code: u8,
    /// What became of each injection.
    pub injections: Vec<InjectionRecord>,
}

/// The exit code of a fault that is over and what became of each injection; or why nothing was touched.
pub type Held = Result<(u8, Vec<InjectionRecord>), (u8, String)>;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum UnderError {
    /// The fault could not be made; nothing was touched.
    #[error("{1}")]
    Fault(u8, String),
    /// The load could not be sent; the fault was put back.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// What must be there before the search begins.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// So many injections.
    pub injections: usize,
    /// And so long after the last of them.
    pub grown: Duration,
}

/// Passes events on, and tells when an injection is there; gone when the fault is over.
struct Herald<'o> {
    observer: &'o mut dyn Observer,
    told: mpsc::UnboundedSender<()>,
}

impl Observer for Herald<'_> {
    fn event(&mut self, at_s: f64, event: &Event) {
        if matches!(event, Event::Injected { .. }) {
            // Nobody listens once the search is over.
            let _ = self.told.send(());
        }
        self.observer.event(at_s, event);
    }
}

/// Makes the fault, searches while it lives, and takes it back, however the search ends. `held` makes it, and takes it
/// back at the first word; further words of the operator reach it as they do in a run.
///
/// # Errors
/// The fault or the load could not be made.
pub async fn under(
    held: impl AsyncFnOnce(Signals, &mut dyn Observer) -> Held,
    wanted: Wanted,
    asked: Asked<'_>,
    found: &mut Search,
    signals: &mut Signals,
    observer: &mut dyn Observer,
    told: impl FnMut(&Trial),
) -> Result<Under, UnderError> {
    let (stop, words) = mpsc::channel(4);
    let (herald, mut injected) = mpsc::unbounded_channel();
    let (over, mut is_over) = mpsc::channel::<()>(1);
    let held = async move {
        // Both go with this block: who waits for them learns that the fault is over.
        let (mut herald, _over) = (Herald { observer, told: herald }, over);
        held(Signals::from(words), &mut herald).await
    };
    let searched = async {
        let there = async {
            for _ in 0..wanted.injections {
                injected.recv().await?;
            }
            tokio::time::sleep(wanted.grown).await;
            Some(())
        };
        let there = tokio::select! {
            there = there => there,
            _ = signals.next() => {
                let _ = stop.send("the search is over").await;
                forward(&stop, signals, &mut is_over).await;
                return Some(Ok(Ended::ByOperator));
            }
        };
        let ended = match there {
            None => None,
            Some(()) => tokio::select! {
                ended = search(asked, found, signals, told) => Some(ended),
                () = until_over(&mut injected) => None,
            },
        };
        let _ = stop.send("the search is over").await;
        let spoke = forward(&stop, signals, &mut is_over).await;
        match ended {
            Some(Ok(_)) | None if spoke => Some(Ok(Ended::ByOperator)),
            ended => ended,
        }
    };
    let (held, searched) = tokio::join!(held, searched);
    let (code, injections) = held.map_err(|(code, why)| UnderError::Fault(code, why))?;
    Ok(Under { ended: searched.transpose()?, code, injections })
}

/// Until the fault is over; further injections of it are no end.
async fn until_over(injected: &mut mpsc::UnboundedReceiver<()>) {
    while injected.recv().await.is_some() {}
}

/// Hands the operator's words on to what takes the fault back, until it is over; whether there were any.
async fn forward(
    stop: &mpsc::Sender<&'static str>,
    signals: &mut Signals,
    over: &mut mpsc::Receiver<()>,
) -> bool {
    let mut spoke = false;
    loop {
        tokio::select! {
            _ = over.recv() => return spoke,
            word = signals.next() => {
                spoke = true;
                // More words than it can hear say no more.
                let _ = stop.try_send(word);
            }
        }
    }
}

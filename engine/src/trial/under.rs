//! A search while a fault lives: what the fault costs in capacity.

use reports::record::InjectionRecord;
use tokio::sync::mpsc;

use super::{Asked, Ended, search};
use crate::capacity::{Search, Trial};
use crate::load::LoadError;
use crate::run::inject::{AdHoc, hold};
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

/// Passes events on, and tells when the fault is there; gone when it is over.
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

/// Makes the fault, searches while it lives, and takes it back, however the search ends.
///
/// # Errors
/// The fault or the load could not be made.
pub async fn under(
    fault: AdHoc,
    asked: Asked<'_>,
    found: &mut Search,
    signals: &mut Signals,
    observer: &mut dyn Observer,
    told: impl FnMut(&Trial),
) -> Result<Under, UnderError> {
    let (stop, words) = mpsc::channel(4);
    let (herald, mut injected) = mpsc::unbounded_channel();
    let held = async {
        let mut herald = Herald { observer, told: herald };
        // The herald goes with this block: what waits for it learns that the fault is over.
        hold(fault, Signals::from(words), &mut herald).await
    };
    let searched = async {
        tokio::select! {
            there = injected.recv() => there?,
            _ = signals.next() => {
                let _ = stop.send("the search is over").await;
                return Some(Ok(Ended::ByOperator));
            }
        }
        let ended = tokio::select! {
            ended = search(asked, found, signals, told) => Some(ended),
            () = over(&mut injected) => None,
        };
        let _ = stop.send("the search is over").await;
        ended
    };
    let (held, searched) = tokio::join!(held, searched);
    let (code, injections) = held.map_err(|(code, why)| UnderError::Fault(code, why))?;
    Ok(Under { ended: searched.transpose()?, code, injections })
}

/// Until the fault is over; further injections of it are no end.
async fn over(injected: &mut mpsc::UnboundedReceiver<()>) {
    while injected.recv().await.is_some() {}
}

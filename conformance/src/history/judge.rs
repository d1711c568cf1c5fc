//! The verdict on a history that a case has played.

use super::{History, Reached, Saved, check, picture, reached, shrink};
use crate::context::Cx;
use crate::report::rerun;
use crate::verdict::{Failure, Verdict};

/// Fails the case if the history is not linearizable; otherwise adds the history's events to the
/// case's counts, and returns them.
///
/// A failure shows a picture of the shrunk violation, and names a file from which the violation is
/// checked again.
pub async fn judge(cx: &Cx, history: History) -> Verdict<Reached> {
    let (store, seed) = (cx.target().name().to_owned(), cx.seed());
    // The search may take long, and would block the runtime's thread.
    let judged = tokio::task::spawn_blocking(move || {
        let violation = check(&history).err().map(|violation| shrink(*violation));
        let said = violation.map(|violation| {
            let file = match Saved::write(&store, seed, &violation, &history) {
                Ok(path) => rerun::history(&path),
                Err(error) => format!("the history could not be saved: {error}"),
            };
            format!("{violation}\n{}{file}", picture(&violation))
        });
        (reached(&history), said)
    });
    let (met, said) = judged.await.map_err(|e| Failure::new("no panic", e.to_string()))?;
    if let Some(said) = said {
        return Err(Failure::new("one order of all calls that explains every answer", said));
    }
    cx.reached(&met);
    Ok(met)
}

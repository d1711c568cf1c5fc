//! What becomes of a history that a case has played.

use super::{History, Reached, Saved, check, picture, reached, shrink};
use crate::context::Cx;
use crate::report::rerun;
use crate::verdict::{Failure, Verdict};

/// Fails the case if no order explains the history, with a picture of the least that shows it and
/// a file to judge again; otherwise what it met is told to the case.
pub async fn judge(cx: &Cx, history: History) -> Verdict<Reached> {
    let (store, seed) = (cx.target().name().to_owned(), cx.seed());
    // It may take long, and nothing else could run meanwhile.
    let judged = tokio::task::spawn_blocking(move || {
        let violation = check(&history).err().map(|violation| shrink(*violation));
        let said = violation.map(|violation| {
            let file = match Saved::write(&store, seed, &violation, &history) {
                Ok(path) => rerun::history(&path),
                Err(error) => format!("it could not be saved: {error}"),
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

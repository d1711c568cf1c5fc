use std::time::{Duration, Instant};

use proptest::strategy::ValueTree;

use super::draw::Draw;
use super::{Mismatch, Trial};
use crate::verdict::Verdict;

/// The longest that shrinking takes. When this time is over, the shortest sequence so far is used.
const BUDGET: Duration = Duration::from_secs(30);

/// Shrinks a failing sequence. Returns the shortest and simplest one found, with its mismatch.
pub(super) async fn shrink<Tree: ValueTree<Value = Draw> + Send>(
    trial: &Trial<'_>,
    mut trees: Vec<Tree>,
    mut mismatch: Mismatch,
) -> Verdict<(Vec<Draw>, Mismatch)> {
    let began = Instant::now();
    // Calls after the failure did not cause it.
    trees.truncate(mismatch.before + 1);

    // Fewer calls: drop pieces of the sequence, ever smaller ones.
    let mut piece = trees.len().div_ceil(2);
    while piece > 0 && began.elapsed() < BUDGET {
        let mut start = 0;
        while start < trees.len() && began.elapsed() < BUDGET {
            let end = (start + piece).min(trees.len());
            let fewer: Vec<_> =
                trees.iter().take(start).chain(trees.iter().skip(end)).map(Tree::current).collect();
            match trial.afresh(&fewer).await? {
                Err(still) => {
                    trees.drain(start..end);
                    trees.truncate(still.before + 1);
                    mismatch = still;
                }
                Ok(()) => start = end,
            }
        }
        piece /= 2;
    }

    // The calls become simpler: each call is simplified by itself.
    let mut least: Vec<_> = trees.iter().map(Tree::current).collect();
    for (at, tree) in trees.iter_mut().enumerate() {
        let mut changed = tree.simplify();
        while changed && began.elapsed() < BUDGET {
            let mut plainer = least.clone();
            if let Some(draw) = plainer.get_mut(at) {
                *draw = tree.current();
            }
            changed = match trial.afresh(&plainer).await? {
                Err(still) => {
                    (least, mismatch) = (plainer, still);
                    tree.simplify()
                }
                Ok(()) => tree.complicate(),
            };
        }
    }
    Ok((least, mismatch))
}

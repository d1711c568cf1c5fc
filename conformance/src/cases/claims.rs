//! Checks of the target itself: it refuses what it does not claim, and its harm has an effect.

use std::time::Instant;

use membership::{Decision, DenyReason, EndpointId, Epoch, Store, UserKey};

use crate::case::declare;
use crate::context::Cx;
use crate::make::{admin, endpoint, room, user, user_key};
use crate::observe::Scope;
use crate::replicated::{each, servers};
use crate::scene::crew;
use crate::target::{
    Claim, Downgrade, Fault, Harm, Leaves, Loss, Lost, Need, Replacement, Rewind, Stored,
    TargetError,
};
use crate::verdict::{Failure, Verdict, holds};

declare! { "claims";
    an_unclaimed_ability_is_refused_and_changes_nothing: "ERR-2" "AUTH-4";
    every_harm_affects_the_harmed_server: "FAULT-1" "AUTH-2", needs Replicas;
}

const ADMIN: UserKey = UserKey::from_bytes([0xad; 32]);

async fn an_unclaimed_ability_is_refused_and_changes_nothing(cx: Cx) -> Verdict {
    let store = cx.open().await?;
    store.bootstrap_admin(admin(ADMIN)).await?;
    store.add_user(user(user_key(5))).await?;
    crew(&store, "r", &["ann", "bob"]).await?;
    let scope = Scope::new(&["r", "none"], &["ann", "bob"]).with_users(&[ADMIN, user_key(5)]);
    let before = scope.observe(&store).await?;
    for need in Need::ALL {
        if cx.target().claims(need) != Claim::Claimed {
            refused(&cx, need).await?;
            scope.observe(&store).await?.unchanged_since(&before)?;
        }
    }
    Ok(())
}

/// Asks the target for the ability `need`, which it does not claim, by every call that uses this
/// ability.
async fn refused(cx: &Cx, need: Need) -> Verdict {
    let instance = cx.instance();
    let (id, who): (_, EndpointId) = (room("r"), endpoint("bob"));
    let answers: Vec<(&str, Option<TargetError>)> = match need {
        Need::Faults => {
            let fault = Fault { name: "anything", stops_reads: true, stops_writes: true };
            vec![
                ("inject", instance.inject(&fault).await.err()),
                ("heal", instance.heal().await.err()),
            ]
        }
        Need::Corruption => vec![
            ("corrupt a room", instance.corrupt(&Stored::Room(id.clone())).await.err()),
            ("corrupt a member", instance.corrupt(&Stored::Member(id, who)).await.err()),
            ("corrupt a user", instance.corrupt(&Stored::User(ADMIN)).await.err()),
            ("corrupt the version", instance.corrupt(&Stored::Version).await.err()),
        ],
        Need::Epochs => {
            vec![("plant_epoch", instance.plant_epoch(&id, Epoch::MAX).await.err())]
        }
        Need::Replicas => vec![("replicas", instance.replicas().err())],
        Need::PowerCuts => vec![("files", instance.files().err())],
        Need::Existing => {
            let opened = instance.open_existing().await;
            vec![("open_existing", opened.err().map(TargetError::from))]
        }
        Need::Rewind => {
            let how = Rewind { name: "anything", closed: false, leaves: Leaves::Past };
            vec![
                ("remember", instance.remember().await.err()),
                ("rewind", instance.rewind(&how).await.err()),
            ]
        }
        Need::Replace => {
            vec![("replace", instance.replace(&Replacement { name: "anything" }).await.err())]
        }
        Need::Vanish => {
            let how = Loss { name: "anything", of: Lost::Everything, traces: true };
            vec![("lose", instance.lose(&how).await.err())]
        }
        Need::Downgrade => {
            vec![
                ("downgrade", instance.downgrade(&Downgrade { name: "anything" }).await.err()),
                ("upgrade", instance.upgrade().await.err()),
            ]
        }
        Need::Suspend => {
            vec![("suspend", instance.suspend(cx.target().op_timeout()).await.err())]
        }
        Need::Processes => vec![
            ("address", instance.address().err()),
            ("attach", cx.target().attach("anywhere").await.err()),
        ],
        Need::Bounded => {
            let opened = instance.open_bounded(cx.target().op_timeout()).await;
            vec![("open_bounded", opened.err().map(TargetError::from))]
        }
        // No call of the target is for this need alone: `Clients` and `Reopen` use `open`, and
        // `Synced` and `Unsynced` say when writes are synced.
        _ => Vec::new(),
    };
    for (asked, error) in answers {
        if error.is_none() {
            let expected = format!("{asked} to be refused: {need} is not claimed");
            return Err(Failure::new(expected, "it was done"));
        }
    }
    Ok(())
}

async fn every_harm_affects_the_harmed_server(cx: Cx) -> Verdict {
    let ways = [
        Harm::Isolate,
        Harm::Blackhole,
        Harm::Kill,
        Harm::Pause,
        Harm::Stop,
        Harm::Mute,
        Harm::Deafen,
        Harm::Slow,
    ];
    each(&cx, &ways, |cx, harm| async move {
        let store = cx.open_at(0).await?;
        store.bootstrap_admin(admin(ADMIN)).await?;
        holds(store.is_admin(&ADMIN).await.is_allowed(), "Allow before the harm", &())?;
        servers(&cx)?.harm(0, harm).await?;
        let began = Instant::now();
        let decision = store.is_admin(&ADMIN).await;
        let reached = match harm {
            // The link delays by a tenth of a second in each direction.
            Harm::Slow => began.elapsed() >= std::time::Duration::from_millis(100),
            _ => matches!(decision, Decision::Deny(DenyReason::Failed(_))),
        };
        holds(reached, "the harm to affect the client of its server", &decision)
    })
    .await
}

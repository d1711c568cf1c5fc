//! Random sequences of calls: a store must answer each as the model does.

use crate::case::declare;
use crate::context::Cx;
use crate::sequences::{Mix, agree};
use crate::verdict::Verdict;

declare! { "sequences";
    epochs_and_keys_are_as_in_the_model:
        "KEY-1" "KEY-2" "KEY-3" "KEY-4" "KEY-5" "KEY-6" "KEY-9" "KEY-10" "MEM-1" "MEM-3" "MEM-5"
        "ROOM-5" "ERR-4";
    users_and_decisions_are_as_in_the_model:
        "USER-1" "USER-2" "USER-3" "USER-4" "USER-5" "AUTH-1" "AUTH-3" "AUTH-5";
    everything_is_as_in_the_model: "LIN-1" "LIST-1" "LIST-4" "ERR-1" "ERR-2" "ERR-4";
    two_clients_in_turn_are_as_in_the_model: "LIN-1" "AUTH-3" "KEY-4" "LIST-4", needs Clients;
    a_store_opened_again_is_as_it_was: "DUR-1" "LIN-1", needs Reopen;
}

async fn epochs_and_keys_are_as_in_the_model(cx: Cx) -> Verdict {
    agree(&cx, Mix::Rooms, 1).await
}

async fn users_and_decisions_are_as_in_the_model(cx: Cx) -> Verdict {
    agree(&cx, Mix::Users, 1).await
}

async fn everything_is_as_in_the_model(cx: Cx) -> Verdict {
    agree(&cx, Mix::All, 1).await
}

async fn two_clients_in_turn_are_as_in_the_model(cx: Cx) -> Verdict {
    agree(&cx, Mix::All, 2).await
}

async fn a_store_opened_again_is_as_it_was(cx: Cx) -> Verdict {
    agree(&cx, Mix::Reopened, 1).await
}

//! Golden transcripts: in each scenario the store must answer every call with the texts of the
//! transcript.

use std::sync::Arc;

use membership::Store;

use crate::case::declare;
use crate::context::Cx;
use crate::golden::{all, difference, play};
use crate::verdict::{Failure, Verdict};

async fn agrees(cx: &Cx, name: &str) -> Verdict {
    let scenario = all().into_iter().find(|scenario| scenario.name == name);
    let scenario = scenario.ok_or_else(|| Failure::new("a scenario", name))?;
    let open = async || cx.open().await.map(|client| Arc::new(client) as Arc<dyn Store>);
    let told = play(&scenario, open).await?;
    match difference(&scenario, &told) {
        None => Ok(()),
        Some((expected, got)) => Err(Failure::new(expected, got)),
    }
}

/// Declares a case for each scenario, under the scenario's name.
macro_rules! agree {
    ($($name:ident: $($clause:literal)+ $(, needs $($need:ident)+)?;)+) => {
        declare! { "golden"; $($name: $($clause)+ $(, needs $($need)+)?;)+ }

        $(async fn $name(cx: Cx) -> Verdict {
            agrees(&cx, stringify!($name)).await
        })+
    };
}
agree! {
    an_unencrypted_room: "ROOM-1" "MEM-1" "MEM-3" "ERR-1" "KEY-10";
    a_room_made_again: "ROOM-5" "ROOM-4";
    odd_ids: "TYPE-1";
    exact_values: "TYPE-3" "ROOM-3" "KEY-2";
    an_encrypted_room: "KEY-5" "KEY-3" "KEY-9" "ROOM-1";
    removal_and_return: "MEM-5" "MEM-3" "KEY-1";
    refused_rekeys: "KEY-6" "KEY-5" "MEM-4";
    pages_of_members: "LIST-1";
    pages_of_rooms: "LIST-1" "LIST-4";
    pages_of_users: "LIST-1" "USER-5";
    missing_records: "ERR-1" "LIST-3";
    the_first_of_several_errors: "ERR-4";
    users_come_and_go: "USER-2" "USER-3" "AUTH-1";
    admins: "USER-1" "USER-4" "AUTH-5";
    two_clients_and_closing: "CLOSE-2" "LIN-1", needs Clients;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_scenario_has_a_case() {
        let names: BTreeSet<_> = all().iter().map(|scenario| scenario.name).collect();
        assert_eq!(names, CASES.iter().map(|case| case.title).collect());
    }
}

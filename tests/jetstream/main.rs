//! The JetStream store on a real server, found through `NATS_SERVER` (a nats-server binary, 2.12 or
//! later).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a test that cannot go on has failed"
)]

mod badinput;
mod calls;
mod cluster;
mod crash;
mod differential;
mod rng;
mod server;
mod speed;
mod together;

//! Tests of the JetStream store on real servers and on simulated ones.

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
mod by_hand;
mod calls;
mod cluster;
mod costs;
mod crash;
mod damaged;
mod elsewhere;
mod full;
mod lost;
mod past;
mod reality;
mod reasons;
mod renewed;
mod rng;
mod server;
mod settings;
mod together;
mod who;

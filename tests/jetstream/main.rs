//! The JetStream store on a real server, found through `NATS_SERVER` (a nats-server binary, 2.12 or
//! later).

mod badinput;
mod calls;
mod cluster;
mod crash;
mod differential;
mod rng;
mod server;
mod speed;
mod together;

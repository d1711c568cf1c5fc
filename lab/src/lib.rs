//! The project's own laboratory, which is never published: its stores as targets of the conformance
//! suite, defects inside those stores, and the JetStream store on simulated servers. The binary
//! `conformance` is what `cargo conformance` runs.

pub mod cli;
pub mod defects;
#[cfg(unix)]
pub mod naive;
pub mod simulate;
pub mod targets;

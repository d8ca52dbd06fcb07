//! The 3Bot: the agent that keeps a node's capsules alive and answers for the node.
//!
//! An ordinary program in ring 3, the *system capsule*. It may die at any moment without harm:
//! the kernel holds the capsules, restarts the 3Bot, and it finds everything as it was.
//!
//! ```text
//!  kernel ──events──▶ agent ──inputs──▶ supervisor (pure)
//!    ▲                  │ ◀──actions──────┘
//!    └──── requests ────┘        http ──▶ agent (reads it, hands it the owner's commands)
//! ```
//!
//! - [`supervisor`] decides: pure state machines over time and events;
//! - [`agent`] acts: carries actions to the [`runtime`] and events to the supervisor;
//! - [`runtime`] is the node seen through the messages of [`skep_api::control`]: [`kernel`] speaks
//!   them over `/dev/skep`, [`host`] answers them with plain processes on a Linux machine;
//! - [`http`] shows all of it and takes signed commands;
//! - [`journal`] writes down what happened.
//!
//! Everything runs on one thread. Nothing ticks: without probes, requests and events it sleeps.

pub mod agent;
pub mod alarm;
pub mod clock;
pub mod console;
pub mod host;
pub mod http;
pub mod journal;
pub mod kernel;
pub mod runtime;
pub mod supervisor;

//! Tells people and programs what weir decides.
//!
//! One pipeline: event -> route -> render -> queue -> deliver. [`Desk`] is a state machine that takes decisions
//! and incidents, says what is due, and is told what came back; it can be kept in the state file, so that a
//! restart forgets nothing. It never asks the time and opens no socket; [`Mail::send`] and [`SyslogLine::send`]
//! do, and whoever sends [`Job::Http`]. Services are data: `services/*.toml`. Read [`Desk`] and [`Service`] first.

mod brief;
mod config;
mod desk;
mod mail;
mod message;
mod outbox;
mod payload;
mod service;
mod syslog;
mod talk;
mod template;

pub use brief::{Brief, Severity, meant};
pub use config::{Channel, ChannelConfig, Config, SecretSource};
pub use desk::{Content, Desk, Job, KeptDesk, Mute, Reply, Seen};
pub use mail::Mail;
pub use outbox::{
    Answer, DEAD_MAX, DELIVERIES_MAX, DeadLetter, DeliveryRecord, Due, Ended, Kept, LOG_MAX,
    Letter, Line, Outbox, Receiver,
};
pub use service::{Filling, Made, Needed, Own, Service, Services, Stage, Transport, services};
pub use syslog::Line as SyslogLine;

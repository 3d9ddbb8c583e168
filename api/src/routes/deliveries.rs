//! `/api/v1/deliveries`, `/api/v1/webhooks` and `/api/v1/notify`: what others were told, and who.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ask;
use crate::access::permission::{Allowed, needs};
use crate::app::App;
use crate::problem::{Form, Problem, Segment};
use crate::{Ask, Channels, Deliveries, Muted};

/// Lists what webhooks were told and what became of it: the last 256, newest first.
#[utoipa::path(get, path = "/api/v1/deliveries", tag = "webhooks",
    responses((status = 200, description = "The log", body = Deliveries)))]
pub(crate) async fn list(
    _who: Allowed<needs::ReadSettings>,
    State(app): State<App>,
) -> Result<Json<Deliveries>, Problem> {
    Ok(Json(ask(&app, |reply| Ask::Deliveries { reply }).await?))
}

/// A message on its way.
#[derive(Serialize, ToSchema)]
pub(crate) struct Queued {
    /// Its number in the log.
    delivery: u64,
}

/// Sends a test message to one webhook; the log says what became of it.
#[utoipa::path(post, path = "/api/v1/webhooks/{name}/test", tag = "webhooks",
    params(("name" = String, Path, description = "The webhook's name")),
    responses((status = 200, description = "It is on its way", body = Queued)))]
pub(crate) async fn test(
    who: Allowed<needs::WriteSettings>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Json<Queued>, Problem> {
    let entry = app.entry(&who.principal, "webhook.test", name.clone());
    app.audit(entry).await?;
    let delivery = ask(&app, |reply| Ask::TestHook { name, reply }).await?;
    let delivery = delivery.ok_or_else(|| Problem::missing("webhook"))?;
    Ok(Json(Queued { delivery }))
}

/// Longest mute, seconds: a month.
const MUTE_MAX_SECS: u64 = 31 * 86_400;

/// Longest name of a channel or group, octets.
const NAME_MAX: usize = 256;

/// Lists webhooks and channels and how it goes with each, messages that nobody took, and what is muted.
#[utoipa::path(get, path = "/api/v1/notify", tag = "notify",
    responses((status = 200, description = "Everybody who is told something", body = Channels)))]
pub(crate) async fn channels(
    _who: Allowed<needs::ReadSettings>,
    State(app): State<App>,
) -> Result<Json<Channels>, Problem> {
    Ok(Json(ask(&app, |reply| Ask::Channels { reply }).await?))
}

/// Sends a test message to one webhook or channel; the log says what became of it and what was answered.
#[utoipa::path(post, path = "/api/v1/notify/channels/{name}/test", tag = "notify",
    params(("name" = String, Path, description = "The channel's name")),
    responses((status = 200, description = "It is on its way", body = Queued)))]
pub(crate) async fn test_channel(
    who: Allowed<needs::WriteSettings>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Json<Queued>, Problem> {
    let entry = app.entry(&who.principal, "notify.test", name.clone());
    app.audit(entry).await?;
    let delivery = ask(&app, |reply| Ask::TestHook { name, reply }).await?;
    let delivery = delivery.ok_or_else(|| Problem::missing("channel"))?;
    Ok(Json(Queued { delivery }))
}

/// Sends a message again that nobody took, under its old number.
#[utoipa::path(post, path = "/api/v1/notify/dead/{delivery}/resend", tag = "notify",
    params(("delivery" = u64, Path, description = "The message's number")),
    responses((status = 200, description = "It is on its way", body = Queued)))]
pub(crate) async fn resend(
    who: Allowed<needs::WriteSettings>,
    State(app): State<App>,
    Segment(delivery): Segment<u64>,
) -> Result<Json<Queued>, Problem> {
    let entry = app.entry(&who.principal, "notify.resend", delivery.to_string());
    app.audit(entry).await?;
    let done = ask(&app, |reply| Ask::Resend { delivery, reply }).await?;
    if done { Ok(Json(Queued { delivery })) } else { Err(Problem::missing("message")) }
}

/// What is to be quiet.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mute {
    /// Which channel; all when absent.
    #[serde(default)]
    channel: Option<String>,
    /// Attacks on which group; all when absent.
    #[serde(default)]
    group: Option<String>,
    /// For how long, seconds, at most 31 days; 0 lifts the mute.
    secs: u64,
}

/// Keeps channels quiet for a while: nothing about new attacks, nothing new about known ones.
#[utoipa::path(post, path = "/api/v1/notify/mute", tag = "notify", request_body = Mute,
    responses((status = 200, description = "What is muted now", body = Channels)))]
pub(crate) async fn mute(
    who: Allowed<needs::WriteSettings>,
    State(app): State<App>,
    Form(Mute { channel, group, secs }): Form<Mute>,
) -> Result<Json<Channels>, Problem> {
    let long = |text: &Option<String>| text.as_ref().is_some_and(|text| text.len() > NAME_MAX);
    if long(&channel) || long(&group) {
        return Err(Problem::invalid(format!("channel, group: at most {NAME_MAX} octets")));
    }
    if secs > MUTE_MAX_SECS {
        return Err(Problem::invalid(format!("secs: at most {MUTE_MAX_SECS}")));
    }
    let what = format!(
        "{} {} {secs} s",
        channel.as_deref().unwrap_or("all channels"),
        group.as_deref().unwrap_or("all groups")
    );
    let entry = app.entry(&who.principal, "notify.mute", what);
    app.audit(entry).await?;
    let until = app.now() + secs * 1000;
    let mute = Muted { channel, group, until, by: who.principal.name.clone() };
    if !ask(&app, |reply| Ask::Mute { mute, reply }).await? {
        return Err(Problem::missing("channel"));
    }
    Ok(Json(ask(&app, |reply| Ask::Channels { reply }).await?))
}

//! Addresses in a subscription that are refused when it is saved: those that are written as addresses, and names that can lead nowhere
//! permitted. Other names may lead elsewhere tomorrow, and are looked at by the worker with every connection.

use crate::{
    context,
    error::{ApiError, FieldError},
};
use keywright_entities::{
    subscription,
    types::{Outcome, ProviderKind},
};
use keywright_jobs::{
    audit::{Actor, Event, EventType},
    domain::google::is_own_host,
    egress::{EgressGuard, REFUSED},
};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

/// The addresses of `row` that may not be reached, by their pointers.
pub fn refused(row: &subscription::Model, egress: &EgressGuard) -> Vec<FieldError> {
    let (provider, settings) = (row.provider.as_str(), row.provider_settings());
    let mut places = Vec::new();
    // requests to Google carry a token that its receiver could use, so a public address is not enough
    let listed = egress.listed_only();
    let (mut guard, mut message) =
        (egress, "This address is not a public one; an operator can allow it with KEYWRIGHT_EGRESS_ALLOW.");
    if let Some(endpoint) = settings.get("endpoint").and_then(Value::as_str) {
        let place = of_url(endpoint);
        let own = place.as_ref().is_some_and(|(host, _)| is_own_host(host));
        if row.provider == ProviderKind::Gcp && !own {
            guard = &listed;
            message = "This address is not Google's and would receive an access token; an operator can allow it with \
                       KEYWRIGHT_EGRESS_ALLOW.";
        }
        places.push((format!("/settings/{provider}/endpoint"), place));
    }
    for (index, endpoint) in settings.get("endpoints").and_then(Value::as_array).into_iter().flatten().enumerate() {
        places.push((format!("/settings/{provider}/endpoints/{index}"), endpoint.as_str().and_then(of_place)));
    }
    let closed =
        |place: &Option<(String, u16)>| place.as_ref().is_some_and(|(host, port)| !guard.could_permit(host, *port));
    let error = |pointer| FieldError::new(pointer, REFUSED, message);
    places.into_iter().filter(|(_, place)| closed(place)).map(|(pointer, _)| error(pointer)).collect()
}

/// The audit event of a refusal, if addresses are among its reasons.
pub fn refusal(actor: Actor, id: Option<Uuid>, refusal: &ApiError) -> Option<Event> {
    let pointers: Vec<&str> =
        refusal.errors().iter().filter(|error| error.code == REFUSED).map(|error| error.pointer.as_str()).collect();
    if pointers.is_empty() {
        return None;
    }
    let event = Event::new(EventType::EgressRefused, actor, "subscription").outcome(Outcome::Denied);
    let event = event.request(context::request_id()).detail("pointers", pointers);
    Some(match id {
        Some(id) => event.subject(id),
        None => event,
    })
}

/// What is no address at all is told by the worker, which knows what it needs.
fn of_url(text: &str) -> Option<(String, u16)> {
    let url = Url::parse(text).ok()?;
    Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
}

fn of_place(text: &str) -> Option<(String, u16)> {
    let place = text.split_once("://").map_or(text, |(_, place)| place);
    let (host, port) = place.trim().rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

//! What becomes of a request: which backends it may go to and on what terms, or what is answered without any.

use std::{rc::Rc, time::Duration};

use super::{
    compiled::{HttpPlan, RatePlan, RoutePlan},
    connection::Context,
    plan::{Plan, RetryPlan},
    stream::Stream,
    teller::Teller,
};
use crate::{
    config::{ListenerSnapshot, RateBy},
    l7::{
        answer::Answer,
        http1::{Body, RequestHead, Upgrades, client_address, push_request_id},
        route::Asked,
    },
    limits::{Pressure, Taken},
    model::{PoolId, reason::CloseReason},
};

/// See the module.
pub(super) enum Target<'p> {
    Backend(Way<'p>),
    Answer(&'p Answer, Teller<'p>),
    /// With further lines of the answer.
    Refused(CloseReason, Vec<u8>),
}

/// Where a request goes and how patient we are with it.
pub(super) struct Way<'p> {
    pub(super) pool: PoolId,
    /// `None`: no route matched, and the listener has a pool for that.
    pub(super) route: Option<&'p RoutePlan>,
    pub(super) retry: Option<Rc<RetryPlan>>,
    pub(super) teller: Teller<'p>,
    /// From the end of the request head to the end of the response.
    pub(super) deadline: Option<Duration>,
    /// From the end of the request to the response head.
    pub(super) timeout: Duration,
    /// Silence within a body or a tunnel.
    pub(super) idle: Duration,
    /// Most bytes of its body.
    pub(super) body_bytes: u64,
    /// Protocols that the connection may change to.
    pub(super) upgrades: &'p Upgrades,
}

/// Of the request whose complete head stands at the front of `stream`.
pub(super) fn find<'p>(
    context: &Context,
    plan: &'p Plan,
    stream: &Stream,
    request: &RequestHead,
) -> Result<Target<'p>, CloseReason> {
    if context.local().pressure.now() >= Pressure::Requests {
        return Err(CloseReason::Memory);
    }
    let id = context.accepted.listener();
    let (Some(http), Some(listener)) = (plan.http(id), plan.listener(id)) else {
        return Err(CloseReason::ListenerRemoved);
    };
    if let Some(secure) = context.accepted.secure()
        && plan
            .tls(id)
            .is_some_and(|tls| !tls.covers(secure.terms.name.as_deref(), request.host(stream.data())))
    {
        return Err(CloseReason::Misdirected);
    }
    let teller = Teller::new(context, listener, http.trusts(context.accepted.client().ip()));
    context.accepted.entry.request_id(|out| {
        push_request_id(out, stream.data(), request, &teller.forwarding(context, b""));
    });
    let bucket = Bucket { context, http, stream, request };
    if let Some(refused) = plan.rate.as_ref().and_then(|rate| bucket.take(rate)) {
        return Ok(refused);
    }
    let asked = Asked::new(request, stream.data(), teller.is_trusted);
    let Some((route, compiled)) = http.find(&asked).and_then(|route| plan.route(route)) else {
        return unrouted(context, plan, http, listener, request, &asked, teller);
    };
    let pool = route.action.pool().map(|pool| &*plan.pool(*pool).name);
    context.accepted.entry.way(Some(&route.name), pool);
    if let Some(refused) = compiled.rate.as_deref().and_then(|rate| bucket.take(rate)) {
        return Ok(refused);
    }
    let limits = &plan.snapshot.limits;
    match (route.action.pool(), &compiled.answer) {
        (Some(&pool), _) => bounded(
            request,
            Way {
                pool,
                route: Some(compiled),
                retry: plan.retry(route),
                teller,
                deadline: route.deadline,
                timeout: route.timeout,
                idle: route.policy.idle.unwrap_or(limits.idle_timeout),
                body_bytes: route.policy.body_bytes.unwrap_or(limits.body_bytes),
                upgrades: &compiled.upgrades,
            },
        ),
        (None, Some(answer)) => Ok(Target::Answer(answer, teller)),
        (None, None) => Err(CloseReason::NoRoute),
    }
}

/// No route takes it: the listener's own pool does, or nobody.
fn unrouted<'p>(
    context: &Context,
    plan: &'p Plan,
    http: &HttpPlan,
    listener: &'p ListenerSnapshot,
    request: &RequestHead,
    asked: &Asked<'_>,
    teller: Teller<'p>,
) -> Result<Target<'p>, CloseReason> {
    let Some(pool) = listener.pool else {
        let mut allow = http.allowed(asked).peekable();
        if allow.peek().is_none() {
            return Err(CloseReason::NoRoute);
        }
        let methods: Vec<_> = allow.collect();
        let line = format!("Allow: {}\r\n", methods.join(", "));
        return Ok(Target::Refused(CloseReason::MethodNotAllowed, line.into_bytes()));
    };
    context.accepted.entry.way(None, Some(&plan.pool(pool).name));
    let limits = &plan.snapshot.limits;
    bounded(
        request,
        Way {
            pool,
            route: None,
            retry: None,
            teller,
            deadline: None,
            timeout: limits.idle_timeout,
            idle: limits.idle_timeout,
            body_bytes: limits.body_bytes,
            upgrades: &plan.upgrades,
        },
    )
}

/// A body that is known to be too long is refused before anybody hears of it.
fn bounded<'p>(request: &RequestHead, way: Way<'p>) -> Result<Target<'p>, CloseReason> {
    match request.body() {
        Body::Length(length) if length > way.body_bytes => Err(CloseReason::BodyTooLarge),
        _ => Ok(Target::Backend(way)),
    }
}

/// What tells whose bucket a request takes from.
struct Bucket<'a> {
    context: &'a Context,
    http: &'a HttpPlan,
    stream: &'a Stream,
    request: &'a RequestHead,
}

impl Bucket<'_> {
    /// `Some`: there was nothing left.
    fn take<'p>(&self, rate: &RatePlan) -> Option<Target<'p>> {
        let (local, buf) = (self.context.local(), self.stream.data());
        let rates = local.admission.rates();
        let key = match &rate.by {
            RateBy::Address => {
                let peer = self.context.accepted.client().ip();
                let client = client_address(self.request, buf, peer, |address| self.http.trusts(address));
                rates.key_of_address(&rate.scope, client)
            }
            RateBy::Header(name) => {
                let named = |name: &[u8]| {
                    self.request.fields().iter().find(|f| f.name.of(buf).eq_ignore_ascii_case(name))
                };
                rates.key(&rate.scope, named(name.as_bytes()).map(|field| field.value.of(buf)))
            }
            RateBy::Route => rates.key(&rate.scope, ()),
        };
        let Taken::No(wait) = rates.take(key, rate.rate, local.now()) else { return None };
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Some(Target::Refused(CloseReason::RateLimit, format!("Retry-After: {seconds}\r\n").into_bytes()))
    }
}

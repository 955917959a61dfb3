//! One request to one backend and its response back.

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use super::{
    choice::{Choice, InFlight, Reuse, park},
    connection::Context,
    outcome::{After, Failure},
    own_answer,
    plan::{Plan, RoutePlan},
    pump::{Pump, PumpError},
    stream::{Stream, StreamError, send},
    teller::Teller,
    timer::Expired,
    upstream::Upstream,
};
use crate::{
    l7::{
        answer::Answer,
        exchange::{self, Attempt, DownstreamEnd, RequestBody, UpstreamEnd},
        http1::{
            Body, BodyReader, Downstream, Parsed, RequestHead, ResponseHead, Side, encode_interim,
            encode_request, encode_response, push_request_id,
        },
        route::Asked,
    },
    model::{PoolId, reason::CloseReason},
};

/// Where a request goes and how patient we are with it.
struct Way<'p> {
    pool: PoolId,
    /// `None`: no route matched, and the listener has a pool for that.
    route: Option<&'p RoutePlan>,
    teller: Teller<'p>,
    /// From the end of the request head to the end of the response.
    deadline: Option<Duration>,
    /// From the end of the request to the response head.
    timeout: Duration,
    /// Silence within a body.
    idle: Duration,
}

/// Runs the exchange whose complete head stands at the front of `stream`.
pub(super) async fn drive(
    context: &Context,
    plan: &Rc<Plan>,
    stream: &mut Stream,
    request: &RequestHead,
    response: &mut ResponseHead,
) -> Result<After, Failure> {
    let way = match find_target(context, plan, stream, request)? {
        Target::Backend(way) => way,
        Target::Answer(answer, teller) => {
            return own_answer::drive(context, stream, request, answer, &teller).await;
        }
    };
    let mut choice = Choice::new(plan, way.pool);
    let uploaded = Cell::new(request.body() == Body::None);
    let exchange = Exchange { context, plan, request, way, head_sent: Cell::new(false), uploaded };
    let mut work = pin!(async {
        if request.body() == Body::None {
            exchange.without_body(&mut choice, stream, response).await
        } else {
            exchange.with_body(&mut choice, stream, response).await
        }
    });
    let Some(wait) = exchange.way.deadline else { return work.await };
    let local = &context.local;
    let deadline = local.timers.deadline();
    deadline.set(local.after(wait));
    deadline.guard(work.as_mut()).await.unwrap_or_else(|Expired| {
        // A request that is still coming in is the client's delay.
        let late = if exchange.uploaded.get() { CloseReason::Deadline } else { CloseReason::BodyTimeout };
        Err(exchange.failure(context.expired(late)))
    })
}

/// What becomes of a request.
enum Target<'p> {
    Backend(Way<'p>),
    Answer(&'p Answer, Teller<'p>),
}

fn find_target<'p>(
    context: &Context,
    plan: &'p Plan,
    stream: &Stream,
    request: &RequestHead,
) -> Result<Target<'p>, CloseReason> {
    let id = context.accepted.listener;
    let (Some(http), Some(listener)) = (plan.http(id), plan.listener(id)) else {
        return Err(CloseReason::NoRoute);
    };
    let teller = Teller::new(context, listener, http.trusts(context.accepted.client.ip()));
    context.accepted.entry.request_id(|out| {
        push_request_id(out, stream.data(), request, &teller.forwarding(context, b""));
    });
    let idle = plan.snapshot.limits.idle_timeout;
    let route = http.find(&Asked::new(request, stream.data(), teller.is_trusted));
    let Some((route, compiled)) = route.and_then(|route| plan.route(route)) else {
        let pool = listener.pool.ok_or(CloseReason::NoRoute)?;
        context.accepted.entry.way(None, Some(&plan.pool(pool).name));
        return Ok(Target::Backend(Way { pool, route: None, teller, deadline: None, timeout: idle, idle }));
    };
    let pool = route.action.pool().map(|pool| &*plan.pool(*pool).name);
    context.accepted.entry.way(Some(&route.name), pool);
    match (route.action.pool(), &compiled.answer) {
        (Some(&pool), _) => {
            let (timeout, deadline) = (route.timeout, route.deadline);
            Ok(Target::Backend(Way { pool, route: Some(compiled), teller, deadline, timeout, idle }))
        }
        (None, Some(answer)) => Ok(Target::Answer(answer, teller)),
        (None, None) => Err(CloseReason::NoRoute),
    }
}

struct Exchange<'a> {
    context: &'a Context,
    plan: &'a Rc<Plan>,
    request: &'a RequestHead,
    way: Way<'a>,
    /// A byte of the final response may have reached the client, or part of an interim one.
    head_sent: Cell<bool>,
    /// The request was sent to its end.
    uploaded: Cell<bool>,
}

impl Exchange<'_> {
    fn failure(&self, reason: CloseReason) -> Failure {
        Failure { reason, answerable: !self.head_sent.get() }
    }

    fn encode(&self, stream: &Stream, upstream: &Upstream) -> Vec<u8> {
        let mut out = self.context.local.buffer();
        let forwarding = self.way.teller.forwarding(self.context, upstream.name.as_bytes());
        let edits = self.way.route.and_then(|route| route.request.as_deref());
        encode_request(&mut out, stream.data(), self.request, &forwarding, edits);
        out
    }

    /// The head stays in `stream` until a backend has begun to answer, so that a kept connection which turns
    /// out to be closed costs the client nothing.
    async fn without_body(
        &self,
        choice: &mut Choice,
        stream: &mut Stream,
        response: &mut ResponseHead,
    ) -> Result<After, Failure> {
        stream.yield_buffer();
        // The receive of the next request; until then it tells when the client goes away.
        stream.arm();
        let (mut upstream, in_flight) =
            self.unless_reset(stream, self.attempts(choice, stream, response)).await?;
        stream.consume(self.request.len());
        let after = self.after(response);
        self.unless_reset(stream, self.forward_response(&mut upstream, response, after)).await?;
        drop(in_flight);
        self.park(upstream, response);
        Ok(after)
    }

    /// Asks one backend after the other until a response begins.
    async fn attempts(
        &self,
        choice: &mut Choice,
        stream: &Stream,
        response: &mut ResponseHead,
    ) -> Result<(Upstream, InFlight<'_>), Failure> {
        let local = &self.context.local;
        let mut reuse = Reuse::Allowed;
        loop {
            let mut upstream =
                choice.connect(local, &self.context.deadline, reuse, &self.context.accepted.entry).await?;
            let in_flight = InFlight::begin(local, &upstream);
            match self.ask(stream, &mut upstream, response).await {
                Ok(()) => return Ok((upstream, in_flight)),
                Err(reason) if self.may_retry(&mut upstream, reason) => reuse = Reuse::Forbidden,
                Err(reason) => return Err(self.failure(reason)),
            }
        }
    }

    /// `work`, dropped when the client resets its connection meanwhile.
    async fn unless_reset<T>(
        &self,
        client: &Stream,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut work = pin!(work);
        poll_fn(|task| match work.as_mut().poll(task) {
            Poll::Pending if client.poll_reset(task).is_ready() => {
                Poll::Ready(Err(self.failure(CloseReason::ClientGone)))
            }
            polled => polled,
        })
        .await
    }

    fn may_retry(&self, upstream: &mut Upstream, reason: CloseReason) -> bool {
        exchange::may_retry(&Attempt {
            bytes_sent: 1,
            bytes_received: upstream.stream.take_received(),
            reused: upstream.reused,
            idempotent: self.request.is_idempotent(),
            replayable: !self.head_sent.get(),
            reason,
        })
    }

    async fn ask(
        &self,
        stream: &Stream,
        upstream: &mut Upstream,
        response: &mut ResponseHead,
    ) -> Result<(), CloseReason> {
        let (local, deadline) = (&self.context.local, &self.context.deadline);
        deadline.set(local.after(self.way.timeout));
        let out = self.encode(stream, upstream);
        upstream.stream.arm();
        let out =
            send(&local.ring, upstream.stream.socket(), out, deadline).await.map_err(
                |error| match error {
                    StreamError::Expired => self.context.expired(CloseReason::UpstreamTimeout),
                    StreamError::Broken => CloseReason::UpstreamClosed,
                },
            )?;
        local.recycle(out);
        self.receive_head(&mut upstream.stream, response).await
    }

    async fn with_body(
        &self,
        choice: &mut Choice,
        stream: &mut Stream,
        response: &mut ResponseHead,
    ) -> Result<After, Failure> {
        let (local, deadline) = (&self.context.local, &self.context.deadline);
        let mut upstream =
            choice.connect(local, deadline, Reuse::Allowed, &self.context.accepted.entry).await?;
        let in_flight = InFlight::begin(local, &upstream);
        let head = self.encode(stream, &upstream);
        stream.consume(self.request.len());
        upstream.stream.arm();
        let backend = upstream.stream.socket().clone();
        let mut reader = BodyReader::new(self.request.body(), Side::Request);
        let writer = exchange::writer(self.request.body());
        let mut pump = Pump {
            local,
            from: stream,
            to: &backend,
            entry: None,
            deadline,
            patience: self.way.idle,
            silent: CloseReason::BodyTimeout,
            broken: CloseReason::ClientGone,
        };
        let upload = async {
            let (_, out) = pump.run(head, &mut reader, writer).await?;
            local.recycle(out);
            self.uploaded.set(true);
            deadline.set(local.after(self.way.timeout));
            // From here on the client has nothing to say but that it goes away.
            pump.from.arm();
            poll_fn(|task| pump.from.poll_reset(task)).await;
            Err(PumpError::Source(CloseReason::ClientGone))
        };
        let answer = async {
            deadline.set(local.after(self.way.timeout));
            self.receive_head(&mut upstream.stream, response).await.map_err(|reason| self.failure(reason))?;
            let after = self.after(response);
            self.forward_response(&mut upstream, response, after).await?;
            Ok(after)
        };
        let after = self.race(upload, answer).await?;
        drop(in_flight);
        self.park(upstream, response);
        Ok(after)
    }

    /// Drives the upload and the answer until the answer is complete or the client has failed. An upload that is
    /// complete goes on watching the client.
    async fn race(
        &self,
        upload: impl Future<Output = Result<Infallible, PumpError>>,
        answer: impl Future<Output = Result<After, Failure>>,
    ) -> Result<After, Failure> {
        let (mut upload, mut answer) = (pin!(upload), pin!(answer));
        let mut uploading = true;
        poll_fn(|task| {
            let mut gone = None;
            if uploading {
                match upload.as_mut().poll(task) {
                    Poll::Pending => {}
                    // A backend that stopped reading may have said why: its answer decides.
                    Poll::Ready(Err(PumpError::Sink)) => uploading = false,
                    Poll::Ready(Err(PumpError::Source(reason))) => gone = Some(reason),
                }
            }
            match (answer.as_mut().poll(task), gone) {
                (Poll::Pending, Some(reason)) => Poll::Ready(Err(self.failure(reason))),
                (polled, _) => polled,
            }
        })
        .await
    }

    /// Waits for the final response head; interim ones go to the client as they come.
    async fn receive_head(&self, from: &mut Stream, response: &mut ResponseHead) -> Result<(), CloseReason> {
        let (context, local) = (self.context, &self.context.local);
        let mut interims = 0;
        loop {
            let parsed = response.parse(from.data(), &self.plan.head_limits, self.request.is_head())?;
            if parsed == Parsed::Complete && !response.is_interim() {
                return Ok(());
            }
            if parsed == Parsed::Complete {
                interims += 1;
                if exchange::passes_interim(self.request.version(), interims)? {
                    let mut out = local.buffer();
                    encode_interim(&mut out, from.data(), response);
                    // Were it given up half-way, no answer of ours could follow.
                    self.head_sent.set(true);
                    let sent = send(&local.ring, &context.accepted.socket, out, &context.deadline).await;
                    local.recycle(sent.map_err(|_| CloseReason::ClientGone)?);
                    self.head_sent.set(false);
                }
                from.consume(response.len());
                continue;
            }
            match from.fill(&context.deadline).await {
                Ok(0) | Err(StreamError::Broken) => return Err(CloseReason::UpstreamClosed),
                Ok(_) => {}
                Err(StreamError::Expired) => return Err(context.expired(CloseReason::UpstreamTimeout)),
            }
        }
    }

    fn after(&self, response: &ResponseHead) -> After {
        let keep = self.uploaded.get()
            && exchange::keeps_downstream(&DownstreamEnd {
                keep_alive: self.request.keep_alive(),
                request_body: RequestBody::Read,
                framing: exchange::downstream_framing(response, self.request.version()),
                is_draining: self.context.local.is_draining(),
            });
        if keep { After::KeepAlive } else { After::Close }
    }

    async fn forward_response(
        &self,
        upstream: &mut Upstream,
        response: &ResponseHead,
        after: After,
    ) -> Result<(), Failure> {
        let (context, local) = (self.context, &self.context.local);
        let version = self.request.version();
        let body = exchange::downstream_framing(response, version);
        let downstream = Downstream { version, close: after == After::Close, body };
        let mut out = local.buffer();
        let edits = self.way.route.and_then(|route| route.response.as_deref());
        encode_response(&mut out, upstream.stream.data(), response, &downstream, edits);
        upstream.stream.consume(response.len());
        context.accepted.entry.answered();
        context.accepted.entry.responds(response.status(), out.len());
        self.head_sent.set(true);
        let mut reader = BodyReader::new(response.body(), Side::Response);
        let mut pump = Pump {
            local,
            from: &mut upstream.stream,
            to: &context.accepted.socket,
            entry: Some(&context.accepted.entry),
            deadline: &context.deadline,
            patience: self.way.idle,
            silent: CloseReason::Truncated,
            broken: CloseReason::Truncated,
        };
        match pump.run(out, &mut reader, exchange::writer(body)).await {
            Ok((bytes, out)) => {
                local.recycle(out);
                context.count_response(response.status(), bytes);
                Ok(())
            }
            Err(PumpError::Source(reason)) => Err(self.failure(reason)),
            Err(PumpError::Sink) => Err(self.failure(context.expired(CloseReason::ClientGone))),
        }
    }

    /// Keeps the backend's connection where nothing of this exchange is left on it.
    fn park(&self, upstream: Upstream, response: &ResponseHead) {
        let keep = exchange::keeps_upstream(&UpstreamEnd {
            keep_alive: response.keep_alive(),
            framing: response.body(),
            response_read: true,
            request_sent: self.uploaded.get(),
            bytes_extra: upstream.stream.data().len(),
        });
        if keep {
            let local = &self.context.local;
            park(local, self.plan, self.way.pool, upstream, local.now());
        }
    }
}

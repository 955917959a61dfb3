//! One request to one backend and its response back.

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use super::{
    choice::{Choice, InFlight, Reuse, park},
    connection::Context,
    early, introduction,
    mutant::{Mutant, is_planted},
    outcome::{After, Ended, Failure},
    own_answer,
    plan::Plan,
    pump::{Pump, PumpError},
    stream::Stream,
    target::{self, Target, Way},
    timer::Expired,
    tunnel::Tunnel,
    upstream::Upstream,
};
use crate::{
    l7::{
        exchange::{self, DownstreamEnd, RequestBody, UpstreamEnd},
        grpc,
        http1::{
            BodyReader, Downstream, RequestHead, ResponseHead, Side, Upgrades, encode_request,
            encode_response, encode_switch, protocols,
        },
        identity,
    },
    model::reason::CloseReason,
};

/// Runs the exchange whose complete head stands at the front of `stream`.
pub(super) async fn drive<'c>(
    context: &'c Context,
    plan: &Rc<Plan>,
    stream: &mut Stream,
    request: &RequestHead,
    response: &mut ResponseHead,
) -> Result<Ended<'c>, Failure> {
    let is_tunnel = context.accepted.sink.is_tunnel();
    let way = match target::find(context, plan, stream, request)? {
        // Whoever asks for a tunnel would take any other success for its beginning (RFC 9110, 9.3.6).
        Target::Answer(answer, _) if is_tunnel && answer.is_success() => {
            return Err(Failure { reason: CloseReason::Method, answerable: true });
        }
        Target::Backend(way) => way,
        Target::Answer(answer, teller) => {
            return own_answer::drive(context, stream, request, answer, &teller).await.map(Ended::from);
        }
        Target::Refused(reason, lines) => {
            return own_answer::refuse_request(context, stream, request, reason, &lines)
                .await
                .map(Ended::from);
        }
    };
    let is_trusted = way.teller.is_trusted;
    let mut choice = Choice::of_request(plan, way.pool, context, request, stream.data(), is_trusted);
    let switch = Some(way.upgrades).filter(|upgrades| upgrades.is_offered(request, stream.data()));
    if is_tunnel && switch.is_none() {
        return Err(Failure { reason: CloseReason::Method, answerable: true });
    }
    let exchange = Exchange {
        context,
        plan,
        request,
        way,
        switch,
        head_sent: Cell::new(false),
        uploaded: Cell::new(false),
        awaits_continue: Cell::new(request.expects_continue() && stream.data().len() == request.len()),
        is_early: early::is_early(context),
    };
    exchange.bound(&mut choice);
    let wait = exchange.deadline(stream.data());
    let mut work = pin!(async {
        match exchange.whole(stream).await? {
            Some(body_len) => exchange.at_once(&mut choice, stream, body_len, response).await,
            None => exchange.with_body(&mut choice, stream, response).await.map(Ended::from),
        }
    });
    let Some(wait) = wait else { return work.await };
    let local = context.local();
    let deadline = local.timers.deadline();
    deadline.set(local.after(wait));
    deadline.guard(work.as_mut()).await.unwrap_or_else(|Expired| {
        // A request that is still coming in is the client's delay.
        let late = if exchange.uploaded.get() { CloseReason::Deadline } else { CloseReason::BodyTimeout };
        Err(exchange.failure(context.expired(late)))
    })
}

pub(super) struct Exchange<'c, 'a> {
    pub(super) context: &'c Context,
    pub(super) plan: &'a Rc<Plan>,
    pub(super) request: &'a RequestHead,
    pub(super) way: Way<'a>,
    /// The backend is asked for another protocol.
    pub(super) switch: Option<&'a Upgrades>,
    /// A byte of the final response may have reached the client, or part of an interim one.
    pub(super) head_sent: Cell<bool>,
    /// The request was sent to its end.
    pub(super) uploaded: Cell<bool>,
    /// The client waits for a `100 Continue`, as far as we know.
    pub(super) awaits_continue: Cell<bool>,
    /// It came before hands were shaken, and goes at once, however often.
    pub(super) is_early: bool,
}

impl<'c> Exchange<'c, '_> {
    pub(super) fn failure(&self, reason: CloseReason) -> Failure {
        Failure { reason, answerable: !self.head_sent.get() }
    }

    /// How long all of it may take: as its route says, and no longer than a client of gRPC waits.
    fn deadline(&self, buf: &[u8]) -> Option<Duration> {
        let asked = grpc::timeout(self.request, buf);
        match (self.way.deadline, asked) {
            (Some(said), Some(asked)) => Some(said.min(asked)),
            (said, asked) => said.or(asked),
        }
    }

    pub(super) fn encode(&self, stream: &Stream, upstream: &Upstream, in_flight: &InFlight<'_>) -> Vec<u8> {
        let mut out = self.context.local().buffers.take();
        let forwarding = self.way.teller.forwarding(self.context, upstream.name.as_bytes());
        let edits = self.way.route.and_then(|route| route.request.as_deref());
        if let Some(version) = introduction::within(self.plan, self.way.pool) {
            introduction::write(&mut out, self.context.local(), &self.context.accepted, version, None);
        }
        let start = out.len();
        encode_request(&mut out, stream.data(), self.request, &forwarding, edits, self.switch);
        in_flight.strip_cookie(&mut out);
        if !self.plan.client_fields().is_empty() && !self.way.teller.is_trusted {
            self.tell_client(&mut out, start);
        }
        if self.is_early {
            // In place of what the client itself says of it, which is the same (RFC 8470, 5.1).
            identity::impose(&mut out, start, ["early-data"].into_iter(), [("Early-Data", "1")].into_iter());
        }
        out
    }

    /// Who the client is by its certificate, in place of what it says of that itself.
    fn tell_client(&self, head: &mut Vec<u8>, start: usize) {
        let accepted = &self.context.accepted;
        let names = self.plan.client_fields().iter().map(|name| &**name);
        let told = accepted.secure().zip(self.plan.tls(accepted.listener()));
        let told = told.map(|(secure, server)| secure.identity(server)).unwrap_or_default();
        identity::impose(head, start, names, told.iter().map(|(name, value)| (&**name, &**value)));
    }

    /// For a request that is there whole, with `body_len` bytes of body. It stays in `stream` until a backend has begun to
    /// answer, so that a kept connection which turns out to be closed costs the client nothing.
    async fn at_once(
        &self,
        choice: &mut Choice,
        stream: &mut Stream,
        body_len: usize,
        response: &mut ResponseHead,
    ) -> Result<Ended<'c>, Failure> {
        self.uploaded.set(true);
        stream.yield_buffer();
        // The receive of the next request; until then it tells when the client goes away.
        stream.arm();
        let (mut upstream, in_flight) = {
            let attempts = pin!(self.attempts(choice, stream, body_len, response));
            self.unless_reset(stream, attempts).await?
        };
        if self.context.accepted.sink.is_tunnel() && response.status() / 100 == 2 {
            return Err(self.failure(CloseReason::BadResponse));
        }
        stream.consume(self.request.len() + body_len);
        if response.is_switch() {
            return self.switch(upstream, in_flight, response).await;
        }
        let after = self.after(response);
        {
            let forward = pin!(self.forward_response(&mut upstream, &in_flight, response, after));
            self.unless_reset(stream, forward).await?;
        }
        drop(in_flight);
        self.park(upstream, response);
        Ok(after.into())
    }

    /// `work`, left alone when the client resets its connection meanwhile.
    fn unless_reset<T>(
        &self,
        client: &Stream,
        mut work: Pin<&mut impl Future<Output = Result<T, Failure>>>,
    ) -> impl Future<Output = Result<T, Failure>> {
        poll_fn(move |task| match work.as_mut().poll(task) {
            Poll::Pending if client.poll_reset(task).is_ready() => {
                Poll::Ready(Err(self.failure(CloseReason::ClientGone)))
            }
            polled => polled,
        })
    }

    /// Passes the 101 on. From here on neither side speaks HTTP.
    async fn switch(
        &self,
        mut upstream: Upstream,
        in_flight: InFlight<'c>,
        response: &ResponseHead,
    ) -> Result<Ended<'c>, Failure> {
        let (context, local) = (self.context, self.context.local());
        let entry = &context.accepted.entry;
        let mut out = local.buffers.take();
        let edits = self.way.route.and_then(|route| route.response.as_deref());
        encode_switch(&mut out, upstream.stream.data(), response, edits);
        in_flight.push_cookie(&mut out);
        entry.answered();
        protocols(response, upstream.stream.data()).take(1).for_each(|protocol| entry.upgraded(protocol));
        upstream.stream.consume(response.len());
        let len = out.len();
        entry.responds(response.status(), len);
        entry.sent(len as u64);
        self.head_sent.set(true);
        context.deadline.set(local.after(self.way.idle));
        let sent = context.accepted.sink.send(&local.buffers, out, &context.deadline).await;
        local.buffers.recycle(sent.map_err(|_| self.failure(context.expired(CloseReason::ClientGone)))?);
        context.count_response(response.status(), len as u64);
        Ok(Ended::Switched(Box::new(Tunnel { upstream, in_flight, idle: self.way.idle })))
    }

    /// For a body that is still to come: it goes as it comes, and only once.
    async fn with_body(
        &self,
        choice: &mut Choice,
        stream: &mut Stream,
        response: &mut ResponseHead,
    ) -> Result<After, Failure> {
        let (local, deadline) = (self.context.local(), &self.context.deadline);
        let (mut upstream, in_flight) =
            choice.connect(local, deadline, Reuse::Allowed, &self.context.accepted.entry).await?;
        in_flight.asking();
        let head = self.encode(stream, &upstream, &in_flight);
        stream.consume(self.request.len());
        upstream.stream.arm();
        let backend = upstream.stream.sink().clone();
        let mut reader = BodyReader::limited(self.request.body(), self.way.body_bytes)?;
        if backend.is_message() {
            reader = reader.keeping_trailers();
        }
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
            let head = self.send_head_first(&mut pump, head).await?;
            let (_, out) = pump.run(head, &mut reader, writer).await?;
            local.buffers.recycle(out);
            self.uploaded.set(true);
            in_flight.asked();
            deadline.set(local.after(self.way.timeout));
            // From here on the client has nothing to say but that it goes away.
            pump.from.arm();
            poll_fn(|task| pump.from.poll_reset(task)).await;
            Err(PumpError::Source(CloseReason::ClientGone))
        };
        // Until the upload is complete its silence is what counts; the backend's clock starts with its end.
        let answer = async {
            let head = self.receive_head(&mut upstream.stream, response).await;
            head.map_err(|reason| {
                in_flight.failed();
                self.failure(reason)
            })?;
            in_flight.responded(response.status());
            // Behind a body nobody was asked for another protocol.
            if response.is_switch() {
                return Err(self.failure(CloseReason::BadResponse));
            }
            let after = self.after(response);
            self.forward_response(&mut upstream, &in_flight, response, after).await?;
            Ok(after)
        };
        let ended = self.race(upload, answer).await;
        if !self.uploaded.get() {
            // What breaks off must not look complete, whatever the backend makes of an end.
            backend.close_by_reset();
        }
        let after = ended?;
        drop(in_flight);
        self.park(upstream, response);
        Ok(after)
    }

    /// Where the client waits for a `100 Continue`: sends the head, and waits for the first of the body. What is left to send.
    async fn send_head_first(&self, pump: &mut Pump<'_>, head: Vec<u8>) -> Result<Vec<u8>, PumpError> {
        if !self.awaits_continue.get() {
            return Ok(head);
        }
        let mut rest = pump.flush(head).await?;
        rest.clear();
        pump.wait().await?;
        self.awaits_continue.set(false);
        Ok(rest)
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
                // Whoever waited for a client that is gone or silent has nothing to say of the backend.
                (Poll::Pending | Poll::Ready(Err(_)), Some(reason)) => Poll::Ready(Err(self.failure(reason))),
                (polled, _) => polled,
            }
        })
        .await
    }

    fn after(&self, response: &ResponseHead) -> After {
        let keep = self.uploaded.get()
            && exchange::keeps_downstream(&DownstreamEnd {
                keep_alive: self.request.keep_alive(),
                request_body: RequestBody::Read,
                framing: exchange::downstream_framing(response, self.request.version()),
                is_draining: !self.context.local().keeps_idle(),
            });
        if keep { After::KeepAlive } else { After::Close }
    }

    async fn forward_response(
        &self,
        upstream: &mut Upstream,
        in_flight: &InFlight<'_>,
        response: &ResponseHead,
        after: After,
    ) -> Result<(), Failure> {
        let (context, local) = (self.context, self.context.local());
        let version = self.request.version();
        let body = exchange::downstream_framing(response, version);
        let downstream = Downstream { version, close: after == After::Close, body };
        let mut out = local.buffers.take();
        let edits = self.way.route.and_then(|route| route.response.as_deref());
        encode_response(&mut out, upstream.stream.data(), response, &downstream, edits);
        in_flight.push_cookie(&mut out);
        upstream.stream.consume(response.len());
        context.accepted.entry.answered();
        context.accepted.entry.responds(response.status(), out.len());
        self.head_sent.set(true);
        let mut reader = BodyReader::new(response.body(), Side::Response);
        if self.request.takes_trailers() {
            reader = reader.keeping_trailers();
        }
        let mut pump = Pump {
            local,
            from: &mut upstream.stream,
            to: &context.accepted.sink,
            entry: Some(&context.accepted.entry),
            deadline: &context.deadline,
            patience: self.way.idle,
            silent: CloseReason::Truncated,
            broken: CloseReason::Truncated,
        };
        match pump.run(out, &mut reader, exchange::writer(body)).await {
            Ok((bytes, out)) => {
                local.buffers.recycle(out);
                context.count_response(response.status(), bytes);
                Ok(())
            }
            Err(PumpError::Source(reason)) => Err(self.failure(reason)),
            Err(PumpError::Sink) => Err(self.failure(context.expired(CloseReason::ClientGone))),
        }
    }

    /// Keeps the backend's connection where nothing of this exchange is left on it.
    pub(super) fn park(&self, upstream: Upstream, response: &ResponseHead) {
        let keep = exchange::keeps_upstream(&UpstreamEnd {
            keep_alive: response.keep_alive(),
            framing: response.body(),
            response_read: true,
            request_sent: self.uploaded.get() || is_planted(Mutant::KeepsUnsent),
            bytes_extra: upstream.stream.data().len(),
        });
        if keep {
            let local = self.context.local();
            park(local, self.plan, self.way.pool, upstream, local.now());
        }
    }
}

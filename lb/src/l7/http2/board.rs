//! What has come of a connection, stream by stream, until somebody asks for it.
//!
//! Everything stands there as HTTP/1.1 has it: heads, and bodies in their frames. So whoever reads a stream takes one buffer.

use std::{collections::VecDeque, mem, task::Waker};

use lb_http2::{By, Code, Events, Flaw, Head, Stream, TooLarge};
use slab::Slab;

use super::{
    BodyForm,
    lost::Fate,
    request::{self, write_request},
    response::{write_grant, write_response},
    trailers::write_trailers,
    tunnel::Ask,
};
use crate::{l7::http1::BodyWriter, model::reason::CloseReason};

/// Of heads and content that nobody has read as much may wait; content alone is bounded by its window.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// How much of what comes on a stream has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Coming {
    #[default]
    Open,
    /// All.
    Ended,
    /// There will be no more, though more was to come.
    Broken,
}

/// One stream, as long as somebody has a handle of it.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// `None`: not asked for yet.
    pub(super) stream: Option<Stream>,
    /// What has come and was not read.
    pub(super) text: Vec<u8>,
    /// Bytes of content in it.
    pub(super) held: usize,
    /// How content is written down.
    pub(super) writer: Option<BodyWriter>,
    pub(super) coming: Coming,
    /// Nothing more can be sent.
    pub(super) is_gone: bool,
    pub(super) fate: Fate,
    pub(super) was_head: bool,
    /// Our answer has gone whole.
    pub(super) has_answered: bool,
    /// What a backend was asked for.
    pub(super) ask: Option<Box<Ask>>,
    /// Who waits for what comes, for room to send, for the stream to be given up.
    pub(super) reader: Option<Waker>,
    pub(super) sender: Option<Waker>,
    pub(super) watcher: Option<Waker>,
    /// How many have it.
    pub(super) handles: u8,
}

impl Flow {
    /// How a body is written down whose head was written so.
    const fn frame(&mut self, form: BodyForm) {
        self.writer =
            Some(if matches!(form, BodyForm::Chunked) { BodyWriter::Chunked } else { BodyWriter::Raw });
    }

    fn is_chunked(&self) -> bool {
        self.writer == Some(BodyWriter::Chunked)
    }

    fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    /// Nothing more comes, nothing more goes.
    pub(super) fn break_off(&mut self, fate: Fate) {
        self.is_gone = true;
        if self.coming == Coming::Open {
            (self.coming, self.fate) = (Coming::Broken, fate);
        }
        self.held = 0;
        for waker in [&mut self.reader, &mut self.sender, &mut self.watcher] {
            waker.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// What a server's driver is to hear of.
#[derive(Debug)]
pub(super) enum News {
    /// The key of a flow that has begun.
    Asked { key: usize, form: BodyForm, is_head: bool },
    /// A request was refused.
    Refused(CloseReason),
}

/// What is to be said once all that came was looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owed {
    Reset(Stream, Code),
    /// The head was too large: 431. Whether nothing follows it.
    TooLarge(Stream, bool),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Board {
    is_server: bool,
    fields_max: usize,
    pub(super) flows: Slab<Flow>,
    /// Keys, by the slots of streams; each may be that of an older stream.
    by_slot: Vec<usize>,
    pub(super) news: VecDeque<News>,
    pub(super) owed: Vec<Owed>,
}

impl Board {
    pub(super) fn new(is_server: bool, fields_max: usize) -> Self {
        Self {
            is_server,
            fields_max,
            flows: Slab::new(),
            by_slot: Vec::new(),
            news: VecDeque::new(),
            owed: Vec::new(),
        }
    }

    /// A stream has begun whose flow this is.
    pub(super) fn bind(&mut self, stream: Stream, key: usize) {
        let slot = stream.slot();
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, usize::MAX);
        }
        if let Some(place) = self.by_slot.get_mut(slot) {
            *place = key;
        }
        if let Some(flow) = self.flows.get_mut(key) {
            flow.stream = Some(stream);
        }
    }

    fn flow(&mut self, stream: Stream) -> Option<&mut Flow> {
        let key = *self.by_slot.get(stream.slot())?;
        self.flows.get_mut(key).filter(|flow| flow.stream == Some(stream))
    }

    /// The connection has ended, and all that goes on with it.
    pub(super) fn break_off(&mut self) {
        self.flows.iter_mut().for_each(|(_, flow)| flow.break_off(Fate::Unknown));
    }

    /// Gives back memory that has no use while nothing goes on.
    pub(super) fn trim(&mut self) {
        if self.flows.is_empty() {
            (self.flows, self.by_slot) = (Slab::new(), Vec::new());
        }
        if self.news.is_empty() {
            self.news = VecDeque::new();
        }
        self.owed = Vec::new();
    }

    fn handle_request(&mut self, stream: Stream, head: &Head<'_>, ends: bool) {
        let mut flow = Flow { text: Vec::with_capacity(512), ..Flow::default() };
        match write_request(head, !ends, self.fields_max, &mut flow.text) {
            Ok(form) => {
                flow.frame(form);
                flow.coming = if ends { Coming::Ended } else { Coming::Open };
                let key = self.flows.insert(flow);
                self.bind(stream, key);
                self.news.push_back(News::Asked { key, form, is_head: head.method() == b"HEAD" });
            }
            Err(reason) => {
                self.owed.push(Owed::Reset(stream, Code::PROTOCOL_ERROR));
                self.news.push_back(News::Refused(reason));
            }
        }
    }

    fn handle_response(&mut self, stream: Stream, head: &Head<'_>, ends: bool) {
        let fields_max = self.fields_max;
        let Some(flow) = self.flow(stream) else { return };
        let is_final = head.status() >= 200;
        let ask = if is_final { flow.ask.take() } else { None };
        let mut text = mem::take(&mut flow.text);
        let written = match ask.filter(|_| head.status() < 300) {
            Some(ask) => write_grant(head, &ask, fields_max, &mut text),
            None => write_response(head, !ends, flow.was_head, fields_max, &mut text),
        };
        let is_too_much = text.len() > TEXT_BYTES_MAX;
        flow.text = text;
        match written {
            Ok(form) if !is_too_much => {
                if is_final {
                    flow.frame(form);
                    flow.coming = if ends { Coming::Ended } else { Coming::Open };
                }
                flow.wake_reader();
            }
            _ => {
                flow.break_off(Fate::Malformed);
                self.owed.push(Owed::Reset(stream, Code::PROTOCOL_ERROR));
            }
        }
    }
}

impl Events for Board {
    fn head(&mut self, stream: Stream, head: &Head<'_>, ends: bool) {
        if self.is_server {
            self.handle_request(stream, head, ends);
        } else {
            self.handle_response(stream, head, ends);
        }
    }

    fn too_large(&mut self, stream: Stream, what: TooLarge, ends: bool) {
        let (owed, reason) = match what {
            TooLarge::Bytes => (Owed::TooLarge(stream, ends), CloseReason::HeadTooLarge),
            TooLarge::Count => (Owed::Reset(stream, Code::PROTOCOL_ERROR), CloseReason::TooManyFields),
        };
        self.owed.push(owed);
        self.news.push_back(News::Refused(reason));
    }

    fn data(&mut self, stream: Stream, data: &[u8], ends: bool) {
        let Some(flow) = self.flow(stream) else {
            // Nobody reads it, nor will.
            self.owed.push(Owed::Reset(stream, Code::CANCEL));
            return;
        };
        flow.held += data.len();
        flow.writer.unwrap_or(BodyWriter::Raw).frame(&mut flow.text, data);
        if ends {
            flow.coming = Coming::Ended;
            if flow.is_chunked() {
                flow.text.extend_from_slice(b"0\r\n\r\n");
            }
        }
        flow.wake_reader();
    }

    fn trailers(&mut self, stream: Stream, trailers: &Head<'_>) {
        let Some(flow) = self.flow(stream) else { return };
        flow.coming = Coming::Ended;
        if flow.is_chunked() {
            let before = flow.text.len();
            flow.text.extend_from_slice(b"0\r\n");
            if write_trailers(trailers.fields(), &mut flow.text).is_ok() {
                flow.text.extend_from_slice(b"\r\n");
            } else {
                flow.text.truncate(before);
                flow.coming = Coming::Open;
                flow.break_off(Fate::Malformed);
                self.owed.push(Owed::Reset(stream, Code::PROTOCOL_ERROR));
                return;
            }
        }
        flow.wake_reader();
    }

    fn reset(&mut self, stream: Stream, code: Code, by: By) {
        let fate = match by {
            // GOAWAY ends just those streams that it names as not looked at.
            By::Unseen => Fate::Refused,
            By::Peer if code == Code::REFUSED_STREAM => Fate::Refused,
            By::Peer => Fate::Unknown,
            By::Us(_) => Fate::Malformed,
        };
        self.flow(stream).into_iter().for_each(|flow| flow.break_off(fate));
    }

    fn rejected(&mut self, _: u32, flaw: Flaw) {
        if self.is_server {
            self.news.push_back(News::Refused(request::reason(flaw)));
        }
    }

    fn window(&mut self, stream: Stream) {
        let sender = self.flow(stream).and_then(|flow| flow.sender.take());
        sender.into_iter().for_each(Waker::wake);
    }

    fn settings(&mut self) {}

    fn goaway(&mut self, _: u32, _: Code) {}
}

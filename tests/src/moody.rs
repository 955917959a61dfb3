//! An HTTP server that is not always well.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;

use crate::{topology::Host, wait::PATIENCE};

/// How long it says nothing before it closes, and what it takes for an answer when it is slow.
const HANG: Duration = Duration::from_secs(1);
const SLOWNESS: Duration = Duration::from_millis(150);

/// What it makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// 200.
    Fine,
    /// 500.
    Errs,
    /// It closes.
    Resets,
    /// It says nothing for a second, and closes.
    Hangs,
    /// 200, and not soon.
    Slow,
}

/// Answers with its host's name, by its mood, until dropped.
#[derive(Debug)]
pub struct Moody {
    mood: Arc<Mutex<Mood>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Moody {
    /// Listens on the host.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(host: &Host, port: u16) -> Result<Self> {
        let listener = host.netns.run(|| TcpListener::bind((host.v4, port)))??;
        listener.set_nonblocking(true)?;
        let (mood, stop) = (Arc::new(Mutex::new(Mood::Fine)), Arc::new(AtomicBool::new(false)));
        let (its_mood, ends, name) = (mood.clone(), stop.clone(), host.name);
        let accept = move || {
            while !ends.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                };
                let mood = its_mood.clone();
                thread::spawn(move || answer(stream, name, &mood));
            }
        };
        Ok(Self { mood, stop, thread: Some(thread::spawn(accept)) })
    }

    /// From now on.
    pub fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }
}

impl Drop for Moody {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn answer(mut stream: TcpStream, name: &str, mood: &Mutex<Mood>) {
    if stream.set_nonblocking(false).is_err() || stream.set_read_timeout(Some(PATIENCE)).is_err() {
        return;
    }
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|len| len > 0) {
        let mood = *mood.lock().unwrap_or_else(PoisonError::into_inner);
        let status = match mood {
            Mood::Fine => "200 OK",
            Mood::Errs => "500 No",
            Mood::Resets => return,
            Mood::Hangs => {
                thread::sleep(HANG);
                return;
            }
            Mood::Slow => {
                thread::sleep(SLOWNESS);
                "200 OK"
            }
        };
        let (len, text) = (name.len() + 1, format!("{name}\n"));
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\nX-Backend: {name}\r\n\r\n{text}");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

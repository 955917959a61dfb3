//! A client that keeps its connection, request after request.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, TcpStream},
};

use anyhow::{Context as _, Result, ensure};

use crate::{netns::Namespace, peer::connect};

/// One connection.
#[derive(Debug)]
pub struct KeptClient {
    stream: BufReader<TcpStream>,
    is_over: bool,
}

impl KeptClient {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(netns: &Namespace, address: IpAddr, port: u16) -> Result<Self> {
        Ok(Self { stream: BufReader::new(connect(netns, address, port)?), is_over: false })
    }

    /// Whether the last answer said that the connection ends with it.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Asks for a path, and reads the whole answer: its status and body.
    ///
    /// # Errors
    /// The connection ends or breaks.
    pub fn get(&mut self, path: &str) -> Result<(u16, Vec<u8>)> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes()).context("asking")?;
        let (mut status, mut length) = (0, 0);
        for at in 0.. {
            let mut line = String::new();
            ensure!(
                self.stream.read_line(&mut line).context("reading a head")? > 0,
                "closed after {at} lines"
            );
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if at == 0 {
                status = line.get(9..12).and_then(|status| status.parse().ok()).context("no status")?;
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().context("Content-Length")?;
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("connection")
            {
                self.is_over |= value.trim().eq_ignore_ascii_case("close");
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).context("reading a body")?;
        Ok((status, body))
    }
}

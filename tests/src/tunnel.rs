//! Connections that change to another protocol: a server that agrees to, and clients.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Result, ensure};

use crate::{netns::Namespace, peer::connect, topology::Host};

/// Agrees to change the protocol, for `count` connections, then echoes.
///
/// # Errors
/// The port cannot be had.
pub fn agree(host: &Host, port: u16, count: usize) -> Result<()> {
    let bind = || TcpListener::bind(SocketAddr::from((host.v4, port)));
    let listener = host.netns.run(bind)??;
    thread::spawn(move || {
        for stream in listener.incoming().take(count).flatten() {
            thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && (&stream).read(&mut byte)? > 0 {
                    head.push(byte[0]);
                }
                let agreed = b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
                (&stream).write_all(agreed)?;
                io::copy(&mut &stream, &mut &stream)
            });
        }
    });
    Ok(())
}

/// Asks for another protocol; the connection once it is agreed to.
///
/// # Errors
/// It is not.
pub fn open(netns: &Namespace, address: IpAddr, port: u16) -> Result<TcpStream> {
    let mut stream = connect(netns, address, port)?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    ensure!(head.starts_with(b"HTTP/1.1 101"), "{:?}", String::from_utf8_lossy(&head));
    Ok(stream)
}

/// Sends a text and waits for it to come back.
///
/// # Errors
/// It does not, or another one does.
pub fn echo(mut stream: &TcpStream, text: &[u8]) -> Result<()> {
    stream.write_all(text)?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back)?;
    ensure!(back == text, "an echo that is another text");
    Ok(())
}

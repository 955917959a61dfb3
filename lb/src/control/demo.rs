//! The quickstart's two backends: they say who they are and what they were asked.

use std::{convert::Infallible, io, net::SocketAddr};

use glommio::{
    LocalExecutorBuilder, Placement,
    net::{TcpListener, TcpStream},
};
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    service::service_fn,
};

use crate::admin::{io::HyperStream, server::IO_MEMORY};

/// What they call themselves.
const NAMES: [&str; 2] = ["one", "two"];
/// Fields of a request that are worth showing: what a proxy adds.
const SHOWN: [&str; 5] = ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via"];

/// Starts both on ports of the kernel's choice; gives their addresses. The thread ends with the process.
///
/// # Errors
/// The host refuses glommio's executor or the sockets.
pub(super) fn start() -> io::Result<Vec<SocketAddr>> {
    let (sender, bound) = flume::bounded(1);
    LocalExecutorBuilder::new(Placement::Unbound)
        .name("lb-demo")
        .io_memory(IO_MEMORY)
        .spawn(move || serve(sender))
        .map_err(|error| io::Error::other(format!("demo backends: {error}")))?;
    bound.recv().map_err(|_| io::Error::other("demo backends: ended early"))?
}

async fn serve(bound: flume::Sender<io::Result<Vec<SocketAddr>>>) {
    let mut addresses = Vec::new();
    let mut tasks = Vec::new();
    for name in NAMES {
        match bind() {
            Ok((listener, address)) => {
                addresses.push(address);
                tasks.push(glommio::spawn_local(accept(name, listener)));
            }
            Err(error) => return drop(bound.send(Err(error))),
        }
    }
    drop(bound.send(Ok(addresses)));
    for task in tasks {
        task.await;
    }
}

fn bind() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(io::Error::from)?;
    let address = listener.local_addr().map_err(io::Error::from)?;
    Ok((listener, address))
}

async fn accept(name: &'static str, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok(stream) => glommio::spawn_local(serve_connection(name, stream)).detach(),
            Err(error) => return tracing::warn!(%error, "demo backend {name} ended"),
        };
    }
}

async fn serve_connection(name: &'static str, stream: TcpStream) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(name, &request);
        async move { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(answer))) }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(HyperStream(stream), service);
    // A client that leaves early is nobody's concern here.
    _ = connection.await;
}

fn answer<B>(name: &str, request: &Request<B>) -> String {
    let mut text = format!("hello from backend {name}\n{} {}\n", request.method(), request.uri());
    for field in SHOWN {
        for value in request.headers().get_all(field) {
            text.push_str(&format!("{field}: {}\n", String::from_utf8_lossy(value.as_bytes())));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;

    #[test]
    fn both_say_who_they_are_and_keep_the_connection() {
        let addresses = start().unwrap();
        assert_eq!(addresses.len(), 2);
        for (address, name) in addresses.into_iter().zip(NAMES) {
            let mut stream = TcpStream::connect(address).unwrap();
            let twice = "GET /a HTTP/1.1\r\nHost: h\r\nVia: 1.1 lb\r\n\r\n\
                         GET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
            stream.write_all(twice.as_bytes()).unwrap();
            let mut answers = String::new();
            stream.read_to_string(&mut answers).unwrap();
            for part in ["GET /a\nhost: h\nvia: 1.1 lb\n", "GET /b\nhost: h\n"] {
                assert!(answers.contains(&format!("hello from backend {name}\n{part}")), "{answers}");
            }
        }
    }
}

//! Connections and answers. hyper reads requests and writes answers; what stands here are the limits and the choice of the
//! file. It never keeps a request's body and never answers with more than one file.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use super::said::Said;
use crate::drivers::boot::http::{Conf, Name};

/// Connections at once: those of all, those of one machine. A firmware has one or two.
const ALL: usize = 256;
pub(super) const OF_ONE: u32 = 8;
/// Bytes of a request's head, and its lines. hyper takes no fewer bytes.
const HEAD: usize = 8_192;
const LINES: usize = 32;
/// How long things may take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// A request's head.
    pub(super) head: Duration,
    /// Everything on a connection.
    pub(super) all: Duration,
}

/// A loader is a megabyte at most: a machine that takes two minutes for it will not boot from a disk either.
pub(super) const LIMITS: Limits = Limits { head: Duration::from_secs(10), all: Duration::from_secs(120) };
/// No file of ours is as large.
const FILE: u64 = 16 << 20;

/// What all connections share.
pub(super) struct Server {
    conf: Conf,
    limits: Limits,
    said: Said,
    peers: Mutex<HashMap<IpAddr, u32>>,
    /// Loaders that were read, by name: a hundred machines at once get the same bytes.
    loaders: Mutex<HashMap<&'static str, (SystemTime, u64, Bytes)>>,
}

/// Serves until it fails.
pub(super) async fn run(conf: Conf, limits: Limits, doors: Vec<TcpListener>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(ALL));
    let server = Arc::new(Server::new(conf, limits));
    let mut open = tokio::task::JoinSet::new();
    for door in doors {
        let door = tokio::net::TcpListener::from_std(door)?;
        open.spawn(accept(Arc::clone(&server), Arc::clone(&places), door));
    }
    // None ends but by a defect.
    let ended = open.join_next().await;
    Err(io::Error::other(format!("it no longer listens: {ended:?}")))
}

async fn accept(server: Arc<Server>, places: Arc<Semaphore>, door: tokio::net::TcpListener) {
    loop {
        // Whoever comes when all places are taken waits in the kernel's queue, which has an end, too.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, peer) = match door.accept().await {
            Ok(came) => came,
            Err(e) => {
                // Out of files or memory, or a machine that is gone again: neither lasts.
                server.said.line(format_args!("accept: {e}"));
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let peer = peer.ip().to_canonical();
        if !server.conf.lets_in(peer) {
            server.said.line(format_args!("{peer} is not of this network: turned away"));
            continue;
        }
        let Some(guest) = Guest::enter(&server, peer) else {
            server.said.line(format_args!("{peer} has {OF_ONE} connections already: turned away"));
            continue;
        };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let (_place, _guest) = (place, guest);
            converse(&server, peer, stream).await;
        });
    }
}

/// One connection, until it ends.
pub(super) async fn converse(server: &Arc<Server>, peer: IpAddr, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(|request| answer(server, peer, request));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(server.limits.head)
        .max_buf_size(HEAD)
        .max_headers(LINES)
        .serve_connection(TokioIo::new(stream), service);
    // Bad requests, broken connections and slow machines end here: nobody waits for an answer any more.
    let _ = tokio::time::timeout(server.limits.all, connection).await;
}

/// One of a machine's connections.
struct Guest {
    server: Arc<Server>,
    peer: IpAddr,
}

impl Guest {
    fn enter(server: &Arc<Server>, peer: IpAddr) -> Option<Guest> {
        let mut peers = server.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let has = peers.entry(peer).or_default();
        if *has >= OF_ONE {
            return None;
        }
        *has += 1;
        Some(Guest { server: Arc::clone(server), peer })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut peers = self.server.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(has) = peers.get_mut(&self.peer) {
            *has -= 1;
            if *has == 0 {
                peers.remove(&self.peer);
            }
        }
    }
}

async fn answer(
    server: &Arc<Server>,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let head = *request.method() == Method::HEAD;
    if !head && *request.method() != Method::GET {
        let mut refused = short(StatusCode::METHOD_NOT_ALLOWED);
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    let Some(name) = Name::of(request.uri().path()) else { return Ok(short(StatusCode::NOT_FOUND)) };
    let shared = Arc::clone(server);
    let read = tokio::task::spawn_blocking(move || shared.read(name)).await;
    let (bytes, status) = match read.unwrap_or_else(|e| Err(io::Error::other(e))) {
        Ok(bytes) => (bytes, StatusCode::OK),
        Err(e) if e.kind() == io::ErrorKind::NotFound => (Bytes::new(), StatusCode::NOT_FOUND),
        Err(e) => {
            server.said.line(format_args!("{}: {e}", name.file(Path::new("")).display()));
            (Bytes::new(), StatusCode::INTERNAL_SERVER_ERROR)
        }
    };
    if !head {
        server.said.line(format_args!("{peer} asked for {}: {status}", name.file(Path::new("")).display()));
    }
    let mut whole = short(status);
    if status == StatusCode::OK {
        whole.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(name.media_type()));
        whole.headers_mut().insert(CONTENT_LENGTH, hyper::header::HeaderValue::from(bytes.len()));
        if !head {
            *whole.body_mut() = Full::new(bytes);
        }
    }
    Ok(whole)
}

/// An answer without a file.
fn short(status: StatusCode) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

impl Server {
    pub(super) fn new(conf: Conf, limits: Limits) -> Server {
        Server { conf, limits, said: Said::new(), peers: Mutex::default(), loaders: Mutex::default() }
    }

    /// The file's bytes, as they are now.
    fn read(&self, name: Name) -> io::Result<Bytes> {
        let path = name.file(&self.conf.root);
        // Never through a link: whoever could put one here could make the host's files readable.
        let about = std::fs::symlink_metadata(&path)?;
        if !about.is_file() || about.len() > FILE {
            return Err(io::Error::other("it is not a file of ours"));
        }
        let Name::Loader(which) = name else { return std::fs::read(&path).map(Bytes::from) };
        let (changed, size) = (about.modified()?, about.len());
        let mut loaders = self.loaders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, bytes)) = loaders.get(which).filter(|(c, s, _)| (*c, *s) == (changed, size)) {
            return Ok(bytes.clone());
        }
        let bytes = Bytes::from(std::fs::read(&path)?);
        loaders.insert(which, (changed, size, bytes.clone()));
        Ok(bytes)
    }
}

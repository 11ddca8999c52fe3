//! A connection without a network: what a machine sends as bytes, what it is answered as bytes. For those who feed the server with
//! anything (tests/fuzz). It must never be reachable from a socket.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

use super::server::{LIMITS, Server, converse};
use crate::drivers::boot::http::Conf;

/// A server of one folder's files.
pub struct Fed {
    server: Arc<Server>,
    runtime: Runtime,
}

impl Fed {
    /// One for the files of that folder.
    pub fn new(root: &Path) -> std::io::Result<Fed> {
        let conf = Conf { root: root.to_owned(), ..Conf::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Fed { server: Arc::new(Server::new(conf, LIMITS)), runtime })
    }

    /// What a machine is answered that says this and nothing more.
    #[must_use]
    pub fn answer(&self, said: &[u8]) -> Vec<u8> {
        self.runtime.block_on(async {
            // Room for all of it: whoever feeds it looks at the end alone.
            let (mut machine, stream) = tokio::io::duplex(said.len() + (1 << 20));
            let mut answer = Vec::new();
            let says = async {
                // A server that has heard enough closes, and then there is nobody to write to.
                let _ = machine.write_all(said).await;
                let _ = machine.shutdown().await;
                let _ = machine.read_to_end(&mut answer).await;
            };
            tokio::join!(says, converse(&self.server, IpAddr::V4(Ipv4Addr::LOCALHOST), stream));
            answer
        })
    }
}

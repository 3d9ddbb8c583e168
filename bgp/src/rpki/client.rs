//! Keeps a table in step with a cache, over TCP.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use weir_model::Millis;

use super::{Input, Output, Reader, Session, Table};

/// Longest wait for a connection or for octets to be taken.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long what another cache said counts while this one has not answered.
const INHERITED: Duration = Duration::from_secs(600);

/// Octets read at once.
const READ: usize = 16 * 1024;

/// Speaks to the cache until nobody wants the table any more.
pub async fn run(cache: SocketAddr, table: watch::Sender<Table>) {
    let inherited = !table.borrow().is_empty();
    let mut client = Client {
        inherited_until: inherited.then(|| Instant::now() + INHERITED),
        cache,
        table,
        session: Session::default(),
        stream: None,
        reader: Reader::default(),
        started: Instant::now(),
    };
    client.run().await;
}

struct Client {
    /// Until when what another cache said counts.
    inherited_until: Option<Instant>,
    cache: SocketAddr,
    table: watch::Sender<Table>,
    session: Session,
    stream: Option<TcpStream>,
    reader: Reader,
    started: Instant,
}

impl Client {
    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    async fn run(&mut self) {
        let mut octets = vec![0; READ];
        loop {
            let deadline =
                self.session.deadline().map(|at| self.started + Duration::from_millis(at.0));
            let table = self.table.clone();
            tokio::select! {
                () = table.closed() => return,
                () = sleep_until(self.inherited_until.unwrap_or(self.started)),
                    if self.inherited_until.is_some() =>
                {
                    self.inherited_until = None;
                    self.act(Output::Forget).await;
                }
                () = sleep_until(deadline.unwrap_or(self.started)), if deadline.is_some() => {
                    self.step(Input::Tick).await;
                }
                read = read(self.stream.as_mut(), &mut octets) => match read {
                    Ok(n) if n > 0 => self.take(&octets[..n]).await,
                    Ok(_) => self.lose("the cache closed the connection").await,
                    Err(error) => self.lose(&error.to_string()).await,
                },
            }
        }
    }

    async fn take(&mut self, octets: &[u8]) {
        self.reader.push(octets);
        while self.stream.is_some() {
            match self.reader.next_pdu() {
                Ok(Some(pdu)) => self.step(Input::Pdu(pdu)).await,
                Ok(None) => return,
                Err(error) => self.lose(&error.to_string()).await,
            }
        }
    }

    async fn lose(&mut self, why: &str) {
        tracing::warn!(cache = %self.cache, why, "RPKI cache lost");
        self.stream = None;
        self.step(Input::Closed).await;
    }

    /// Feeds the session, and what comes of its outputs.
    async fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut out = Vec::new();
            self.session.handle(self.now(), input, &mut out);
            for output in out {
                inputs.extend(self.act(output).await);
            }
        }
    }

    async fn act(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Connect => {
                self.reader = Reader::default();
                match timeout(PATIENCE, TcpStream::connect(self.cache)).await {
                    Ok(Ok(stream)) => {
                        self.stream = Some(stream);
                        return Some(Input::Connected);
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(cache = %self.cache, %error, "cannot reach the RPKI cache");
                    }
                    Err(_) => tracing::warn!(cache = %self.cache, "the RPKI cache does not answer"),
                }
                Some(Input::Closed)
            }
            Output::Send(octets) => {
                let stream = self.stream.as_mut()?;
                let sent = timeout(PATIENCE, stream.write_all(&octets)).await;
                if matches!(sent, Ok(Ok(()))) {
                    return None;
                }
                self.stream = None;
                Some(Input::Closed)
            }
            Output::Close => {
                self.stream = None;
                None
            }
            Output::Replace(table) => {
                tracing::info!(cache = %self.cache, payloads = table.len(), "RPKI data received");
                self.inherited_until = None;
                self.table.send_replace(table);
                None
            }
            Output::Change(changes) => {
                self.table.send_modify(|table| {
                    for (announce, vrp) in changes {
                        if announce { table.insert(vrp) } else { table.remove(vrp) }
                    }
                });
                None
            }
            Output::Forget => {
                tracing::error!(
                    cache = %self.cache,
                    "RPKI data is too old to be used: origins are no longer checked"
                );
                self.table.send_replace(Table::lapsed());
                None
            }
        }
    }
}

async fn read(stream: Option<&mut TcpStream>, octets: &mut [u8]) -> std::io::Result<usize> {
    match stream {
        Some(stream) => stream.read(octets).await,
        None => pending().await,
    }
}

//! A TCP proxy for faults: in front of the broker, the database or a provider it cuts, stalls, resets or
//! refuses.
//!
//! Each fault is in force when its function returns: no byte passes a stalled proxy, no connection outlives a
//! cut.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::wait;

/// Which bytes are held back. Bytes are passed on under this lock and without waiting, so that a change of it
/// takes effect at once.
#[derive(Debug, Default)]
struct Stalled {
    requests: bool,
    answers: bool,
}

#[derive(Debug)]
struct Shared {
    target: String,
    stalled: Mutex<Stalled>,
    resumed: watch::Sender<()>,
    connections: Mutex<Connections>,
    accepted: AtomicUsize,
}

#[derive(Debug, Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// For a reset only; weak, so that a connection ends with its task and nothing else keeps it open.
    streams: Vec<Weak<TcpStream>>,
}

/// The proxy; it and its connections end on drop.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `target` (`host:port`), which need not be up.
    pub async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            stalled: Mutex::default(),
            resumed: watch::Sender::new(()),
            connections: Mutex::default(),
            accepted: AtomicUsize::new(0),
        });
        let accepting = Some(tokio::spawn(accept(listener, Arc::clone(&shared))));
        Self { address, shared, accepting }
    }

    /// A proxy in front of the server that a URL names, and the URL that goes through it.
    pub async fn before(url: &str) -> (Self, String) {
        let mut url: url::Url = url.parse().unwrap();
        let (host, port) = (url.host_str().unwrap(), url.port().unwrap());
        let proxy = Self::start(&format!("{host}:{port}")).await;
        url.set_port(Some(proxy.address.port())).unwrap();
        url.set_host(Some(&proxy.address.ip().to_string())).unwrap();
        (proxy, url.into())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it took since it started.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Waits until it took `count` connections since it started.
    pub async fn connected(&self, count: usize) {
        let enough = async || (self.accepted() >= count).then_some(());
        wait::until(&format!("{count} connections through the proxy"), enough).await;
    }

    /// Closes every connection as a process does that ends. New ones are accepted.
    pub async fn cut(&self) {
        let Connections { mut tasks, streams } =
            std::mem::take(&mut *self.shared.connections.lock().unwrap());
        tasks.shutdown().await;
        drop(streams);
    }

    /// Resets every connection: both sides get "connection reset", and bytes in flight are lost.
    pub async fn reset(&self) {
        for stream in self.shared.connections.lock().unwrap().streams.iter().filter_map(Weak::upgrade) {
            // Fails where the connection is closed already.
            let _ = stream.set_zero_linger();
        }
        self.cut().await;
    }

    /// Passes on nothing, in either direction, until [`Proxy::resume`]; connections stay open, new ones too.
    pub fn stall(&self) {
        *self.shared.stalled.lock().unwrap() = Stalled { requests: true, answers: true };
    }

    /// As [`Proxy::stall`], but requests still reach the server: it acts and cannot answer.
    pub fn stall_answers(&self) {
        *self.shared.stalled.lock().unwrap() = Stalled { requests: false, answers: true };
    }

    /// Passes on the stalled bytes and all that follow.
    pub fn resume(&self) {
        *self.shared.stalled.lock().unwrap() = Stalled::default();
        self.shared.resumed.send_replace(());
    }

    /// Closes every connection and refuses new ones until [`Proxy::accept`].
    pub async fn refuse(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // The listener is closed when the task is gone; that it was cancelled is no news.
            let _ = accepting.await;
        }
        self.cut().await;
    }

    /// Accepts connections again, on the same port.
    pub async fn accept(&mut self) {
        if self.accepting.is_none() {
            let listener = TcpListener::bind(self.address).await.unwrap();
            self.accepting = Some(tokio::spawn(accept(listener, Arc::clone(&self.shared))));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
        self.shared.connections.lock().unwrap().tasks.abort_all();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let client = Arc::new(client);
        let mut connections = shared.connections.lock().unwrap();
        // Both lists would otherwise grow with every connection of a long test.
        while connections.tasks.try_join_next().is_some() {}
        connections.streams.retain(|stream| stream.strong_count() > 0);
        connections.streams.push(Arc::downgrade(&client));
        connections.tasks.spawn(forward(client, Arc::clone(&shared)));
        shared.accepted.fetch_add(1, Ordering::SeqCst);
    }
}

async fn forward(client: Arc<TcpStream>, shared: Arc<Shared>) {
    // A server that is down shows as a connection that closes at once.
    let Ok(server) = TcpStream::connect(&shared.target).await else { return };
    let server = Arc::new(server);
    shared.connections.lock().unwrap().streams.push(Arc::downgrade(&server));
    // Small packets at once: the proxy must not add delays of its own.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let requests = pump(&client, &server, &shared, |stalled| stalled.requests);
    let answers = pump(&server, &client, &shared, |stalled| stalled.answers);
    // Neither protocol half-closes: when one side is done, so is the connection.
    let _ = tokio::select! { done = requests => done, done = answers => done };
}

async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    shared: &Shared,
    held: impl Fn(&Stalled) -> bool,
) -> io::Result<()> {
    let mut resumed = shared.resumed.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        from.readable().await?;
        let bytes = match from.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => &buffer[..count],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            to.writable().await?;
            resumed.borrow_and_update();
            let written = {
                let stalled = shared.stalled.lock().unwrap();
                if held(&stalled) { None } else { Some(to.try_write(rest)) }
            };
            match written {
                // `resume` changes the lock's content first and tells afterwards, so this cannot miss it.
                None => resumed.changed().await.map_err(io::Error::other)?,
                Some(Ok(count)) => rest = &rest[count..],
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Some(Err(error)) => return Err(error),
            }
        }
    }
}

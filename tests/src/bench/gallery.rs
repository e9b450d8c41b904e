//! Source pictures of about 50 KB over HTTP/1.1, kept alive: written straight to the socket, so that the
//! server is never the bottleneck. It records the first request for a picture, which marks the first delivery
//! of a task.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use image::{ImageFormat, Rgb, RgbImage};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use retouch_shared::key::ImageHash;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::pictures::encode;

/// Pixels on each side: noise does not compress, so three bytes each.
const SIDE: u32 = 128;
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
/// A request of a client here is far shorter.
const LONGEST_HEAD: usize = 16 * 1024;

/// A picture of the gallery.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The encoded file.
    pub bytes: Bytes,
    /// Its SHA-256.
    pub hash: ImageHash,
    /// Head and body of the answer.
    answer: Bytes,
}

#[derive(Debug)]
struct Shared {
    pictures: Vec<Picture>,
    served: AtomicU64,
    first: Mutex<Option<SystemTime>>,
}

/// The server; it stops on drop.
#[derive(Debug)]
pub struct Gallery {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Gallery {
    /// Serves `count` different pictures on a free port of 127.0.0.1.
    pub async fn start(count: u64) -> Self {
        let pictures = (0..count).map(picture).collect();
        let shared = Arc::new(Shared { pictures, served: AtomicU64::new(0), first: Mutex::new(None) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    /// Its pictures, by number.
    #[must_use]
    pub fn pictures(&self) -> &[Picture] {
        &self.shared.pictures
    }

    /// Which picture task `task` brings.
    #[must_use]
    pub fn of_task(&self, task: u64) -> usize {
        // Far apart, so that a group of tasks does not find its rows side by side.
        usize::try_from(task.wrapping_mul(7919) % self.shared.pictures.len() as u64).unwrap_or_default()
    }

    /// Where a picture is.
    #[must_use]
    pub fn url(&self, number: usize) -> String {
        format!("http://{}/{number}.png", self.address)
    }

    /// Counts from here on.
    pub fn reset(&self) {
        self.shared.served.store(0, Ordering::Relaxed);
        *self.shared.first.lock().unwrap() = None;
    }

    /// Pictures that were asked for since [`Gallery::reset`].
    #[must_use]
    pub fn served(&self) -> u64 {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// When the first picture was asked for since [`Gallery::reset`].
    #[must_use]
    pub fn first(&self) -> Option<SystemTime> {
        *self.shared.first.lock().unwrap()
    }

    /// Pictures a second that it serves to clients which do nothing but read, in this very process.
    pub async fn capacity(&self, for_about: Duration) -> f64 {
        let (until, mut clients) = (Instant::now() + for_about, JoinSet::new());
        for number in 0..16 {
            let number = number % self.pictures().len();
            let (address, length) = (self.address, self.pictures()[number].answer.len());
            clients.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = format!("GET /{number}.png HTTP/1.1\r\nhost: {address}\r\n\r\n");
                let (mut answer, mut fetched) = (vec![0; length], 0u64);
                while Instant::now() < until {
                    stream.write_all(request.as_bytes()).await.unwrap();
                    stream.read_exact(&mut answer).await.unwrap();
                    fetched += 1;
                }
                fetched
            });
        }
        super::stats::rate(clients.join_all().await.into_iter().sum(), for_about)
    }
}

impl Drop for Gallery {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn picture(seed: u64) -> Picture {
    let mut dice = StdRng::seed_from_u64(seed);
    let pixels = RgbImage::from_fn(SIDE, SIDE, |_, _| Rgb(dice.random()));
    let bytes = Bytes::from(encode(&pixels, ImageFormat::Png));
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: {}\r\n\r\n", bytes.len());
    let answer = [head.as_bytes(), &bytes].concat().into();
    Picture { hash: ImageHash::of(&bytes), bytes, answer }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        // Ends with the client; a worker that is killed leaves half a request.
        if let Ok((stream, _)) = accepted {
            connections.spawn(serve(stream, Arc::clone(&shared)));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Answers one request after the other until the client hangs up.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let mut read = Vec::with_capacity(1024);
    loop {
        let head = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break read.drain(..end + 4).collect::<Vec<u8>>();
            }
            match stream.read_buf(&mut read).await {
                Ok(0) | Err(_) => return,
                Ok(_) if read.len() > LONGEST_HEAD => return,
                Ok(_) => {}
            }
        };
        if stream.write_all(answer(&shared, &head)).await.is_err() {
            return;
        }
    }
}

fn answer<'a>(shared: &'a Shared, head: &[u8]) -> &'a [u8] {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let path = std::str::from_utf8(line).ok().and_then(|line| line.split(' ').nth(1));
    let number = path.and_then(|path| path.strip_prefix('/')?.strip_suffix(".png")?.parse::<usize>().ok());
    let Some(picture) = number.and_then(|number| shared.pictures.get(number)) else { return NOT_FOUND };
    if shared.served.fetch_add(1, Ordering::Relaxed) == 0 {
        *shared.first.lock().unwrap() = Some(SystemTime::now());
    }
    &picture.answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_gallery_serves_pictures_of_fifty_kilobytes_repeatedly() {
        crate::env::install_tls();
        let gallery = Gallery::start(3).await;
        assert_eq!(gallery.first(), None);
        let client = reqwest::Client::new();
        for number in [0, 1, 2, 2] {
            let bytes = client.get(gallery.url(number)).send().await.unwrap().bytes().await.unwrap();
            assert_eq!(bytes, gallery.pictures()[number].bytes);
            assert!((49_000..52_000).contains(&bytes.len()), "{}", bytes.len());
        }
        assert_eq!(client.get(gallery.url(3)).send().await.unwrap().status(), 404);
        assert_eq!(gallery.served(), 4);
        assert!(gallery.first().unwrap() <= SystemTime::now());
        gallery.reset();
        assert_eq!((gallery.served(), gallery.first()), (0, None));
        assert!((0..3).all(|picture| (0..9).any(|task| gallery.of_task(task) == picture)));
    }
}

//! The terminal: taken over while `top` runs, and given back however it ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use super::draw::View;

/// The terminal; a panic gives it back too.
pub(super) struct Screen(DefaultTerminal);

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        let opened = ratatui::try_init();
        if opened.is_err() {
            // Half of it may have been done.
            let _as_it_was = ratatui::try_restore();
        }
        opened.map(Self)
    }

    /// Draws it in whatever size the terminal has now.
    pub(super) fn draw(&mut self, view: &View) -> io::Result<()> {
        self.0.draw(|frame| view.draw(frame.area(), frame.buffer_mut())).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone cannot be given back.
        let _gone = self.0.show_cursor();
        let _gone = ratatui::try_restore();
    }
}

/// What a person wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Up,
    Down,
    Pause,
    Yes,
    Help,
    /// No key of ours, or another size: draw anew.
    Other,
}

/// Keys, as they are pressed; read by a thread of their own, which ends when nobody wants them any more.
pub(super) struct Keys {
    pressed: mpsc::Receiver<Key>,
    over: Arc<AtomicBool>,
}

/// How long the end may wait for the thread.
const LOOK: Duration = Duration::from_millis(100);

impl Keys {
    pub(super) fn read() -> Self {
        let (press, pressed) = mpsc::channel(16);
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let key = match event::poll(LOOK) {
                    Ok(false) => continue,
                    Ok(true) => event::read().map(|event| key(&event)),
                    Err(error) => Err(error),
                };
                // Without a keyboard, as without a listener, it is over.
                if !matches!(key, Ok(key) if press.blocking_send(key).is_ok()) {
                    break;
                }
            }
        });
        Self { pressed, over }
    }

    /// The next one; `None` where the terminal is gone.
    pub(super) async fn next(&mut self) -> Option<Key> {
        self.pressed.recv().await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn key(event: &Event) -> Key {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = *event else {
        return Key::Other;
    };
    match code {
        KeyCode::Char('c' | 'd') if modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::Char('p') => Key::Pause,
        KeyCode::Char('y') => Key::Yes,
        KeyCode::Char('?' | 'h') => Key::Help,
        _ => Key::Other,
    }
}

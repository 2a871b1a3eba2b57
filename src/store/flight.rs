//! One fetch for many: who fetches a missing answer, and who shares it while it comes.
//!
//! A *flight* is one fetch of one slot. Whoever asks first leads: it starts the fetch, which owns the [`Writer`]. Everybody, the leader
//! included, follows it through a [`Reader`]: first *words* (what the fetch has to say about the answer, among them the verdict whether it may
//! be shared), then the content piece by piece, as it comes.
//!
//! While the answer is to be stored, all pieces are kept and readers may join at any time. Once it is not (private, too large), no new reader joins,
//! pieces that all readers took are let go, and the writer waits for the slowest reader: a slow client then slows the origin
//! instead of filling memory.
//!
//! Generic in its words, since what they say is HTTP's business and not this module's.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::lock;

/// How many bytes of an answer that is not stored may wait for its slowest reader.
const WINDOW: usize = 256 * 1024;

/// The flights of one store, by slot.
pub struct Flights<W> {
    flying: Mutex<HashMap<[u8; 16], Arc<Flight<W>>>>,
}

/// What joining a flight makes of a request.
pub enum Joined<W> {
    /// Nobody is fetching this slot: fetch, with the writer, and read along.
    Lead(Writer<W>, Reader<W>),
    /// Somebody is: read along.
    Follow(Reader<W>),
}

/// How a content ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All of it came.
    Complete,
    /// Its end never came.
    Truncated,
}

struct Flight<W> {
    slot: [u8; 16],
    /// What the fetch may have missed: a request that knows of a later change does not follow it.
    stamp: u64,
    state: Mutex<State<W>>,
    changed: watch::Sender<()>,
    room: Notify,
}

struct State<W> {
    words: Vec<W>,
    chunks: VecDeque<Bytes>,
    /// The number of chunks already let go.
    gone: usize,
    bytes: usize,
    keep: bool,
    end: Option<End>,
    /// The next chunk of every reader; `None` where one left.
    readers: Vec<Option<usize>>,
}

/// Drives a flight. Dropped without [`Writer::finish`], it leaves the content truncated.
pub struct Writer<W> {
    flights: Arc<Flights<W>>,
    flight: Arc<Flight<W>>,
    flying: bool,
}

/// May follow a flight from its beginning, as long as that is kept.
pub struct Joiner<W> {
    flight: Arc<Flight<W>>,
}

/// Follows a flight from its beginning.
pub struct Reader<W> {
    flight: Arc<Flight<W>>,
    changes: watch::Receiver<()>,
    seat: usize,
    next_word: usize,
}

/// All readers left an answer that nobody stores: the fetch has no purpose any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abandoned;

impl<W> Default for Flights<W> {
    fn default() -> Self {
        Self { flying: Mutex::new(HashMap::new()) }
    }
}

impl<W: Clone> Flights<W> {
    /// Leads or follows the flight of `slot`. A flight that took off under another `stamp` is not followed: what it fetches was changed
    /// meanwhile. Those who follow it already asked before the change.
    pub fn join(self: &Arc<Self>, slot: [u8; 16], stamp: u64) -> Joined<W> {
        let mut flying = lock(&self.flying);
        if let Some(flight) = flying.get(&slot).filter(|flight| flight.stamp == stamp) {
            return Joined::Follow(Reader::seat(flight.clone()));
        }
        let flight = Arc::new(Flight::new(slot, stamp));
        flying.insert(slot, flight.clone());
        drop(flying);
        let reader = Reader::seat(flight.clone());
        Joined::Lead(Writer { flights: self.clone(), flight, flying: true }, reader)
    }

    /// Leads a flight of one's own that nobody else can join.
    pub fn alone(self: &Arc<Self>) -> (Writer<W>, Reader<W>) {
        let flight = Arc::new(Flight::new([0; 16], 0));
        let reader = Reader::seat(flight.clone());
        (Writer { flights: self.clone(), flight, flying: false }, reader)
    }

    /// How many slots are being fetched.
    pub fn len(&self) -> usize {
        lock(&self.flying).len()
    }

    /// Whether nothing is being fetched.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<W> Flight<W> {
    fn new(slot: [u8; 16], stamp: u64) -> Self {
        Self {
            slot,
            stamp,
            state: Mutex::new(State {
                words: Vec::new(),
                chunks: VecDeque::new(),
                gone: 0,
                bytes: 0,
                keep: true,
                end: None,
                readers: Vec::new(),
            }),
            changed: watch::Sender::new(()),
            room: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        lock(&self.state)
    }
}

impl<W> State<W> {
    /// Lets go of what every reader took, unless it is kept.
    fn let_go(&mut self) {
        if self.keep {
            return;
        }
        let slowest = self.readers.iter().flatten().copied().min().unwrap_or(usize::MAX);
        while self.gone < slowest {
            let Some(chunk) = self.chunks.pop_front() else { break };
            self.bytes -= chunk.len();
            self.gone += 1;
        }
    }

    fn abandoned(&self) -> bool {
        !self.keep && self.readers.iter().all(Option::is_none)
    }
}

impl<W: Clone> Writer<W> {
    /// Says something to all readers, present and to come.
    pub fn say(&self, word: W) {
        self.flight.lock().words.push(word);
        self.flight.changed.send_replace(());
    }

    /// Lets one join later who does not count as a reader until then.
    pub fn joiner(&self) -> Joiner<W> {
        Joiner { flight: self.flight.clone() }
    }

    /// From now on the content is not kept: nobody joins any more, and the slowest reader sets the pace.
    pub fn stop_keeping(&mut self) {
        self.land();
        let mut state = self.flight.lock();
        state.keep = false;
        state.let_go();
    }

    /// Adds a piece of content; waits for the readers when it is not kept and they are behind.
    ///
    /// # Errors
    /// When the content is not kept and all readers left.
    pub async fn push(&self, chunk: Bytes) -> Result<(), Abandoned> {
        {
            let mut state = self.flight.lock();
            if state.abandoned() {
                return Err(Abandoned);
            }
            state.bytes += chunk.len();
            state.chunks.push_back(chunk);
        }
        self.flight.changed.send_replace(());
        self.wait_for_room().await
    }

    async fn wait_for_room(&self) -> Result<(), Abandoned> {
        loop {
            {
                let state = self.flight.lock();
                if state.abandoned() {
                    return Err(Abandoned);
                }
                if state.keep || state.bytes <= WINDOW {
                    return Ok(());
                }
            }
            self.flight.room.notified().await;
        }
    }

    /// Waits until all readers left an answer that is not kept; for ever while it is kept.
    pub async fn abandoned(&self) {
        loop {
            if self.flight.lock().abandoned() {
                return;
            }
            self.flight.room.notified().await;
        }
    }

    /// Waits until no reader is left, whether the answer is kept or not; one may still come.
    pub async fn deserted(&self) {
        while self.flight.lock().readers.iter().any(Option::is_some) {
            self.flight.room.notified().await;
        }
    }

    /// All the content came. What is stored must have been stored before, so that a client that has the last byte finds it.
    pub fn finish(mut self) {
        self.end(End::Complete);
    }

    fn end(&mut self, end: End) {
        self.flight.lock().end.get_or_insert(end);
        self.land();
        self.flight.changed.send_replace(());
    }
}

impl<W> Writer<W> {
    /// Takes the flight off the map, so that whoever comes next looks anew.
    fn land(&mut self) {
        if !std::mem::take(&mut self.flying) {
            return;
        }
        let mut flying = lock(&self.flights.flying);
        // A later flight may have taken the slot.
        if flying.get(&self.flight.slot).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            flying.remove(&self.flight.slot);
        }
    }
}

impl<W> Drop for Writer<W> {
    fn drop(&mut self) {
        self.flight.lock().end.get_or_insert(End::Truncated);
        self.land();
        self.flight.changed.send_replace(());
    }
}

impl<W: Clone> Joiner<W> {
    /// Joins; `None` when the beginning is not kept any more.
    pub fn join(self) -> Option<Reader<W>> {
        let kept = self.flight.lock().keep;
        kept.then(|| Reader::seat(self.flight))
    }

    /// Waits until the flight has ended.
    pub async fn ended(&self) {
        let mut changes = self.flight.changed.subscribe();
        while self.flight.lock().end.is_none() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl<W: Clone> Reader<W> {
    /// The next word, or `None` when the flight ended without another.
    pub async fn word(&mut self) -> Option<W> {
        loop {
            {
                let state = self.flight.lock();
                if let Some(word) = state.words.get(self.next_word) {
                    self.next_word += 1;
                    return Some(word.clone());
                }
                if state.end.is_some() {
                    return None;
                }
            }
            self.changes.changed().await.ok()?;
        }
    }

    /// The next piece of content, or how it ended.
    pub async fn chunk(&mut self) -> Result<Bytes, End> {
        loop {
            if let Some(step) = self.step() {
                return step;
            }
            if self.changes.changed().await.is_err() {
                return self.step().unwrap_or(Err(End::Truncated));
            }
        }
    }

    fn step(&mut self) -> Option<Result<Bytes, End>> {
        let mut state = self.flight.lock();
        let next = state.readers[self.seat]?;
        if let Some(chunk) = state.chunks.get(next - state.gone).cloned() {
            state.readers[self.seat] = Some(next + 1);
            state.let_go();
            drop(state);
            self.flight.room.notify_one();
            return Some(Ok(chunk));
        }
        state.end.map(Err)
    }
}

impl<W> Reader<W> {
    fn seat(flight: Arc<Flight<W>>) -> Self {
        // Subscribe before looking: a change between the look and the subscription would never be seen.
        let changes = flight.changed.subscribe();
        let mut state = flight.lock();
        let seat = state.readers.len();
        let first = state.gone;
        state.readers.push(Some(first));
        drop(state);
        Self { flight, changes, seat, next_word: 0 }
    }
}

impl<W> Drop for Reader<W> {
    fn drop(&mut self) {
        let mut state = self.flight.lock();
        state.readers[self.seat] = None;
        state.let_go();
        drop(state);
        self.flight.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: [u8; 16] = [7; 16];

    fn flights() -> Arc<Flights<&'static str>> {
        Arc::new(Flights::default())
    }

    fn lead(flights: &Arc<Flights<&'static str>>) -> (Writer<&'static str>, Reader<&'static str>) {
        match flights.join(SLOT, 0) {
            Joined::Lead(writer, reader) => (writer, reader),
            Joined::Follow(_) => panic!("somebody else leads"),
        }
    }

    fn follow(flights: &Arc<Flights<&'static str>>) -> Reader<&'static str> {
        match flights.join(SLOT, 0) {
            Joined::Follow(reader) => reader,
            Joined::Lead(..) => panic!("nobody leads"),
        }
    }

    async fn rest(reader: &mut Reader<&'static str>) -> (Vec<u8>, End) {
        let mut all = Vec::new();
        loop {
            match reader.chunk().await {
                Ok(chunk) => all.extend_from_slice(&chunk),
                Err(end) => return (all, end),
            }
        }
    }

    #[tokio::test]
    async fn whoever_joins_while_it_is_kept_gets_all_of_it() {
        let flights = flights();
        let (writer, mut first) = lead(&flights);
        writer.say("head");
        writer.push(Bytes::from_static(b"one ")).await.unwrap();
        let mut late = follow(&flights);
        writer.push(Bytes::from_static(b"two")).await.unwrap();
        writer.finish();
        for reader in [&mut first, &mut late] {
            assert_eq!(reader.word().await, Some("head"));
            assert_eq!(reader.word().await, None);
            assert_eq!(rest(reader).await, (b"one two".to_vec(), End::Complete));
        }
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn nobody_joins_what_is_not_kept() {
        let flights = flights();
        let (mut writer, _reader) = lead(&flights);
        writer.stop_keeping();
        let (_other, _) = lead(&flights);
    }

    #[tokio::test]
    async fn who_comes_after_a_change_does_not_follow_what_began_before_it() {
        let flights = flights();
        let (before, _) = lead(&flights);
        let Joined::Lead(after, _) = flights.join(SLOT, 1) else { panic!("it followed") };
        drop(before);
        assert!(matches!(flights.join(SLOT, 1), Joined::Follow(_)), "the later flight still flies");
        drop(after);
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn a_writer_that_vanishes_leaves_a_visible_truncation() {
        let flights = flights();
        let (writer, mut reader) = lead(&flights);
        writer.push(Bytes::from_static(b"half")).await.unwrap();
        drop(writer);
        assert_eq!(rest(&mut reader).await, (b"half".to_vec(), End::Truncated));
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn what_is_not_kept_waits_for_its_slowest_reader() {
        let flights = flights();
        let (mut writer, mut reader) = lead(&flights);
        writer.stop_keeping();
        writer.push(Bytes::from(vec![0; WINDOW])).await.unwrap();
        let full = writer.push(Bytes::from(vec![1; WINDOW]));
        tokio::pin!(full);
        assert!(futures_util::poll!(full.as_mut()).is_pending(), "the window is full");
        assert_eq!(reader.chunk().await.unwrap().len(), WINDOW);
        assert_eq!(full.await, Ok(()));
    }

    #[tokio::test]
    async fn a_fetch_nobody_stores_and_nobody_reads_is_abandoned() {
        let flights = flights();
        let (mut writer, reader) = lead(&flights);
        writer.push(Bytes::from_static(b"x")).await.unwrap();
        drop(reader);
        assert_eq!(writer.push(Bytes::from_static(b"y")).await, Ok(()), "it is still to be stored");
        writer.stop_keeping();
        assert_eq!(writer.push(Bytes::from_static(b"z")).await, Err(Abandoned));
        writer.abandoned().await;
    }

    #[tokio::test]
    async fn a_reader_that_joined_early_still_gets_all_after_keeping_stops() {
        let flights = flights();
        let (mut writer, mut first) = lead(&flights);
        let mut second = follow(&flights);
        writer.push(Bytes::from_static(b"a")).await.unwrap();
        assert_eq!(first.chunk().await.unwrap(), "a");
        writer.stop_keeping();
        writer.push(Bytes::from_static(b"b")).await.unwrap();
        writer.finish();
        assert_eq!(rest(&mut first).await.0, b"b");
        assert_eq!(rest(&mut second).await.0, b"ab");
    }

    #[tokio::test]
    async fn five_hundred_followers_share_one_leader() {
        let flights = flights();
        let (writer, _reader) = lead(&flights);
        let mut tasks = Vec::new();
        for _ in 0..500 {
            let mut reader = follow(&flights);
            tasks.push(tokio::spawn(async move { (reader.word().await, rest(&mut reader).await.0.len()) }));
        }
        writer.say("shared");
        for _ in 0..10 {
            writer.push(Bytes::from_static(&[0; 100])).await.unwrap();
        }
        writer.finish();
        for task in tasks {
            assert_eq!(task.await.unwrap(), (Some("shared"), 1000));
        }
    }
}

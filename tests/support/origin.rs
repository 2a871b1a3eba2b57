//! An HTTP/1.1 origin that does exactly what the test says and remembers exactly what reached it.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::gate::Gate;
use super::wire::{self, Broken, Content, Fields, Length, Reader};
use super::within;

/// A request as it reached the origin.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The head as it came over the wire, with the empty line.
    pub raw_head: Vec<u8>,
    /// The method.
    pub method: String,
    /// The target as it was written.
    pub target: String,
    /// 0 or 1, in HTTP/1.
    pub version_minor: u8,
    /// The fields, in order, names as they were written.
    pub fields: Fields,
    /// The content without chunk framing; what arrived of it, while `complete` is false. For an upgraded connection,
    /// what came through it.
    pub body: Vec<u8>,
    /// The sizes of the chunks, when the content was chunked.
    pub chunks: Vec<usize>,
    /// The trailer fields.
    pub trailers: Fields,
    /// Whether the whole content arrived.
    pub complete: bool,
    /// Which connection to the origin it came over, counted from 0.
    pub connection: usize,
}

impl Request {
    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        wire::field(&self.fields, name)
    }

    /// Every value of a field, in order.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        wire::all(&self.fields, name)
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// What the origin does about a request.
#[derive(Debug, Clone)]
pub struct Reply {
    before: Vec<Gate>,
    early: bool,
    informational: Vec<(u16, Fields)>,
    status: u16,
    fields: Fields,
    framing: Framing,
    pieces: Vec<Piece>,
    trailers: Fields,
    ending: Ending,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Framing {
    Length,
    LongerThanSentBy(usize),
    Chunked,
    UntilClose,
    Verbatim,
    Echo,
}

#[derive(Debug, Clone)]
enum Piece {
    Bytes(Vec<u8>),
    Wait(Gate),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    KeepAlive,
    Close,
    Reset,
    Hang,
    Tunnel,
}

/// An answer with this status, no fields but its framing, no content.
pub fn reply(status: u16) -> Reply {
    Reply {
        before: Vec::new(),
        early: false,
        informational: Vec::new(),
        status,
        fields: Vec::new(),
        framing: Framing::Length,
        pieces: Vec::new(),
        trailers: Vec::new(),
        ending: Ending::KeepAlive,
    }
}

/// These bytes in place of an answer, then the end of the connection.
pub fn raw(bytes: impl Into<Vec<u8>>) -> Reply {
    Reply {
        framing: Framing::Verbatim,
        pieces: vec![Piece::Bytes(bytes.into())],
        ending: Ending::Close,
        ..reply(0)
    }
}

/// No answer: the connection is reset (RST).
pub fn reset() -> Reply {
    Reply { framing: Framing::Verbatim, ending: Ending::Reset, ..reply(0) }
}

/// No answer: the connection is closed (FIN).
pub fn hang_up() -> Reply {
    Reply { framing: Framing::Verbatim, ending: Ending::Close, ..reply(0) }
}

/// No answer: the connection stays open until the client ends it.
pub fn hang() -> Reply {
    Reply { framing: Framing::Verbatim, ending: Ending::Hang, ..reply(0) }
}

/// 200 with the request itself as content: its raw head, then its body.
pub fn echo() -> Reply {
    Reply { framing: Framing::Echo, ..reply(200) }
}

/// 101 to the protocol the request asks for, then every byte back as it comes.
pub fn upgrade() -> Reply {
    Reply { ending: Ending::Tunnel, ..reply(101) }
}

impl Reply {
    /// Adds a field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Adds a Cache-Control field.
    pub fn cache(self, directives: &str) -> Self {
        self.header("cache-control", directives)
    }

    /// Adds content; with nothing said about framing, under one Content-Length.
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.pieces.push(Piece::Bytes(bytes.into()));
        self
    }

    /// Adds a chunk and makes the answer chunked.
    ///
    /// # Panics
    /// If it is empty: an empty chunk is the end of the content.
    pub fn chunk(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        assert!(!bytes.is_empty(), "an empty chunk would end the content");
        self.framing = Framing::Chunked;
        self.body(bytes)
    }

    /// Adds a trailer field and makes the answer chunked.
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.framing = Framing::Chunked;
        self.trailers.push((name.into(), value.into()));
        self
    }

    /// Sends what comes before this only, and goes on when the gate opens. Put first, the head is sent and no content.
    pub fn then_wait(mut self, gate: &Gate) -> Self {
        self.pieces.push(Piece::Wait(gate.clone()));
        self
    }

    /// Sends nothing, not even 1xx, until the gate opens.
    pub fn gate(mut self, gate: &Gate) -> Self {
        self.before.push(gate.clone());
        self
    }

    /// Sends an informational answer first.
    pub fn after_informational(mut self, status: u16, fields: &[(&str, &str)]) -> Self {
        let fields = fields.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        self.informational.push((status, fields));
        self
    }

    /// Announces no length: the content ends with the connection.
    pub fn until_close(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self.ending = Ending::Close;
        self
    }

    /// Announces `missing` bytes of content more than are sent, then closes; a chunked answer ends without its last chunk.
    pub fn truncated(mut self, missing: usize) -> Self {
        if self.framing != Framing::Chunked {
            self.framing = Framing::LongerThanSentBy(missing);
        }
        self.ending = Ending::Close;
        self
    }

    /// Says `Connection: close` and closes after the answer.
    pub fn close(mut self) -> Self {
        self.ending = Ending::Close;
        self.header("connection", "close")
    }

    /// Closes after the answer without having said so.
    pub fn then_hang_up(mut self) -> Self {
        self.ending = Ending::Close;
        self
    }

    /// Resets the connection (RST) after what was sent; a chunked answer ends without its last chunk.
    pub fn then_reset(mut self) -> Self {
        self.ending = Ending::Reset;
        self
    }

    /// Leaves the connection open and silent after what was sent; a chunked answer ends without its last chunk.
    pub fn then_hang(mut self) -> Self {
        self.ending = Ending::Hang;
        self
    }

    /// Answers as soon as the head is read, before any of the content; the request stays incomplete on record.
    pub fn early(mut self) -> Self {
        self.early = true;
        self
    }
}

type Script = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

/// A scripted origin. Made with [`Origin::new`], it listens from [`Origin::start`] on.
#[derive(Clone)]
pub struct Origin {
    shared: Arc<Shared>,
}

struct Shared {
    address: Mutex<Option<SocketAddr>>,
    scripts: Mutex<HashMap<String, Script>>,
    /// The targets whose scripts want the content.
    whole: Mutex<HashSet<String>>,
    seen: watch::Sender<Vec<Request>>,
    violations: Mutex<Vec<String>>,
    connections: AtomicUsize,
    open: Arc<AtomicUsize>,
    running: Mutex<Option<Running>>,
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Default for Origin {
    fn default() -> Self {
        Self::new()
    }
}

impl Origin {
    /// An origin that answers 404 to everything and listens nowhere yet.
    pub fn new() -> Self {
        let shared = Shared {
            address: Mutex::new(None),
            scripts: Mutex::default(),
            whole: Mutex::default(),
            seen: watch::Sender::new(Vec::new()),
            violations: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: Arc::default(),
            running: Mutex::new(None),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Answers requests for `target` with `reply`, from now on, in place of what was said before.
    ///
    /// The most exact script wins: the whole target (`/a?b=c`), the path (`/a`), the longest prefix (`/a/*`, `*`).
    pub fn on(self, target: &str, reply: Reply) -> Self {
        self.set(target, reply);
        self
    }

    /// Like [`Origin::on`], with the answer made from the request.
    pub fn on_request(
        self,
        target: &str,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        self.set_script(target, script);
        self
    }

    /// Like [`Origin::on_request`], with the request's content at hand: the script is asked once all of it came. The target has neither
    /// query nor `*`.
    pub fn on_question(
        self,
        target: &str,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        self.shared.whole.lock().unwrap().insert(target.into());
        self.on_request(target, script)
    }

    /// Like [`Origin::on`], with one reply after the other; the last one stays.
    pub fn on_each(self, target: &str, replies: Vec<Reply>) -> Self {
        let next = AtomicUsize::new(0);
        self.on_request(target, move |_| {
            let turn = next.fetch_add(1, Ordering::SeqCst);
            replies[turn.min(replies.len() - 1)].clone()
        })
    }

    /// Like [`Origin::on`], while running.
    pub fn set(&self, target: &str, reply: Reply) {
        self.set_script(target, move |_| reply.clone());
    }

    /// Like [`Origin::on_request`], while running.
    pub fn set_script(&self, target: &str, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        self.shared.scripts.lock().unwrap().insert(target.into(), Arc::new(script));
    }

    /// Listens on a free port of 127.0.0.1.
    pub async fn start(self) -> Self {
        self.listen((Ipv4Addr::LOCALHOST, 0).into());
        self
    }

    /// Stops listening and cuts every connection. What was recorded stays.
    ///
    /// # Panics
    /// With the panic of a script, if one panicked.
    pub async fn stop(&self) {
        let running = self.shared.running.lock().unwrap().take();
        let Some(Running { stop, task }) = running else { return };
        // The task may have ended by itself, with a panic that the join below hands on.
        let _ = stop.send(());
        if let Err(panicked) = within("the origin to stop", task).await {
            std::panic::resume_unwind(panicked.into_panic());
        }
    }

    /// Listens again on the port it had, after cutting every connection if it still listened.
    pub async fn restart(&self) {
        self.stop().await;
        self.listen(self.address());
    }

    /// Stops, and fails the test if anything malformed reached this origin or a script panicked.
    pub async fn finish(self) {
        self.stop().await;
        let violations = self.violations();
        assert!(violations.is_empty(), "malformed messages reached the origin: {violations:#?}");
    }

    /// Where it listens, or listened before it was stopped.
    pub fn address(&self) -> SocketAddr {
        self.shared.address.lock().unwrap().expect("the origin was started")
    }

    /// Every request that reached it, in order of their heads.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.seen.borrow().clone()
    }

    /// How many requests reached it for `target`; a target without a query counts those with any query too.
    pub fn hits(&self, target: &str) -> usize {
        self.shared.seen.borrow().iter().filter(|request| matches(request, target)).count()
    }

    /// The last request for `target`.
    ///
    /// # Panics
    /// If there was none.
    pub fn last(&self, target: &str) -> Request {
        let seen = self.shared.seen.borrow();
        seen.iter().rfind(|request| matches(request, target)).cloned().expect("a request for this target")
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many of them are open now.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// What reached it and breaks the grammar, or ended in the middle of a head.
    pub fn violations(&self) -> Vec<String> {
        self.shared.violations.lock().unwrap().clone()
    }

    /// Waits until `count` requests have reached it in all (their heads; see [`Request::complete`]).
    pub async fn wait_for_requests(&self, count: usize) {
        self.wait_until(&format!("{count} requests to reach the origin"), |seen| seen.len() >= count).await;
    }

    /// Waits until `count` requests for `target` have reached it.
    pub async fn wait_for_hits(&self, target: &str, count: usize) {
        self.wait_until(&format!("{count} requests for {target} to reach the origin"), |seen| {
            seen.iter().filter(|request| matches(request, target)).count() >= count
        })
        .await;
    }

    /// Waits until what was seen satisfies `reached`.
    pub async fn wait_until(&self, what: &str, mut reached: impl FnMut(&[Request]) -> bool) {
        let mut seen = self.shared.seen.subscribe();
        within(what, seen.wait_for(|requests| reached(requests)))
            .await
            .expect("the origin outlives its waiters");
    }

    fn listen(&self, address: SocketAddr) {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Connections of the life before may still linger on this port in TIME_WAIT.
        socket.set_reuseaddr(true).expect("SO_REUSEADDR");
        socket.bind(address).unwrap_or_else(|error| panic!("the origin cannot listen on {address}: {error}"));
        let listener = socket.listen(1024).expect("a listening socket");
        *self.shared.address.lock().unwrap() =
            Some(listener.local_addr().expect("the address of a bound socket"));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(accept(listener, self.shared.clone(), stopped));
        *self.shared.running.lock().unwrap() = Some(Running { stop, task });
    }
}

fn matches(request: &Request, target: &str) -> bool {
    request.target == target || request.path() == target
}

/// Counts a connection while it is open.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn enter(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopped: oneshot::Receiver<()>) {
    let mut exchanges = JoinSet::new();
    loop {
        tokio::select! {
            // Also when the last `Origin` is dropped.
            _ = &mut stopped => break,
            Ok((stream, _)) = listener.accept() => {
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                let open = Open::enter(&shared.open);
                let serving = serve(stream, number, shared.clone());
                exchanges.spawn(async move {
                    serving.await;
                    drop(open);
                });
            }
        }
    }
    drop(listener);
    exchanges.abort_all();
    while let Some(ended) = exchanges.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

async fn serve(stream: TcpStream, number: usize, shared: Arc<Shared>) {
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let mut connection = Connection { reader: Reader::new(stream), number, shared };
    while connection.exchange().await == Next::Request {}
}

#[derive(PartialEq)]
enum Next {
    Request,
    End,
}

struct Connection {
    reader: Reader<TcpStream>,
    number: usize,
    shared: Arc<Shared>,
}

impl Connection {
    /// One request and its answer. A client that goes away, early or late, is none of the origin's business.
    async fn exchange(&mut self) -> Next {
        let (mut request, length) = match self.read_head().await {
            Ok(head) => head,
            Err(Broken::Ended) => return Next::End,
            Err(broken) => return self.refuse(&broken).await,
        };
        let index = self.record(&request);
        // A script that answers by the content is asked once that is there; the others may answer early.
        let whole = self.shared.whole.lock().unwrap().contains(request.path());
        if whole && let Some(next) = self.read_content(&mut request, length, index).await {
            return next;
        }
        let reply = self.script(&request);
        if !reply.early && !whole {
            if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
                let _ = self.reader.source().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            }
            if let Some(next) = self.read_content(&mut request, length, index).await {
                return next;
            }
        }
        let close_asked =
            request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        match self.answer(&request, reply, index).await {
            Ok(Next::Request) if close_asked || request.version_minor == 0 || !request.complete => {
                self.part().await
            }
            Ok(next) => next,
            Err(_) => Next::End,
        }
    }

    async fn read_head(&mut self) -> Result<(Request, Length), Broken> {
        let (raw_head, head) = self.reader.head().await?;
        self.reader.take_raw();
        let (method, target, version_minor) = request_line(&head.start)?;
        let hosts = wire::all(&head.fields, "host").len();
        if hosts != 1 && (version_minor == 1 || hosts > 1) {
            return Err(Broken::Malformed(format!("{hosts} Host fields in {:?}", wire::show(&raw_head))));
        }
        let length = wire::announced(&head.fields, version_minor)?.unwrap_or(Length::None);
        let request = Request {
            raw_head,
            method,
            target,
            version_minor,
            fields: head.fields,
            body: Vec::new(),
            chunks: Vec::new(),
            trailers: Vec::new(),
            complete: length == Length::None,
            connection: self.number,
        };
        Ok((request, length))
    }

    /// Reads the content; `Some` when there is nothing left to answer.
    async fn read_content(&mut self, request: &mut Request, length: Length, index: usize) -> Option<Next> {
        let mut content = Content::default();
        let outcome = self.reader.content(length, &mut content).await;
        self.reader.take_raw();
        request.complete = outcome.is_ok();
        (request.body, request.chunks, request.trailers) = (content.bytes, content.chunks, content.trailers);
        self.shared.seen.send_modify(|seen| seen[index] = request.clone());
        match outcome {
            Ok(()) => None,
            Err(Broken::Malformed(why)) => Some(self.refuse(&Broken::Malformed(why)).await),
            // A client may abort; that the content is incomplete is on record.
            Err(_) => Some(Next::End),
        }
    }

    fn record(&self, request: &Request) -> usize {
        let mut index = 0;
        self.shared.seen.send_modify(|seen| {
            index = seen.len();
            seen.push(request.clone());
        });
        index
    }

    async fn refuse(&mut self, broken: &Broken) -> Next {
        let left = wire::show(self.reader.buffered());
        self.shared.violations.lock().unwrap().push(format!("{broken}; then {left:?}"));
        let _ = self
            .reader
            .source()
            .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .await;
        self.part().await
    }

    /// Closes after an answer, reading on until the client has gone too: closing over unread bytes sends a reset that can
    /// overtake the answer and destroy it.
    async fn part(&mut self) -> Next {
        if self.reader.source().shutdown().await.is_ok() {
            while let Ok(true) = self.reader.fill().await {}
        }
        Next::End
    }

    fn script(&self, request: &Request) -> Reply {
        let scripts = self.shared.scripts.lock().unwrap();
        let prefix = || {
            let fitting = scripts.iter().filter_map(|(target, script)| {
                let prefix = target.strip_suffix('*')?;
                request.target.starts_with(prefix).then_some((prefix.len(), script))
            });
            fitting.max_by_key(|(length, _)| *length).map(|(_, script)| script)
        };
        let script =
            scripts.get(&request.target).or_else(|| scripts.get(request.path())).or_else(prefix).cloned();
        drop(scripts);
        script.map_or_else(|| reply(404), |script| script(request))
    }

    async fn answer(&mut self, request: &Request, reply: Reply, index: usize) -> std::io::Result<Next> {
        for gate in &reply.before {
            gate.wait().await;
        }
        for (status, fields) in &reply.informational {
            self.reader.source().write_all(&head(*status, fields)).await?;
        }
        if reply.framing != Framing::Verbatim {
            self.reader.source().write_all(&head(reply.status, &reply.all_fields(request))).await?;
        }
        if !reply.has_no_content(request) {
            self.send_pieces(request, &reply).await?;
        }
        self.end(reply.ending, index).await
    }

    async fn send_pieces(&mut self, request: &Request, reply: &Reply) -> std::io::Result<()> {
        if reply.framing == Framing::Echo {
            self.reader.source().write_all(&request.raw_head).await?;
            self.reader.source().write_all(&request.body).await?;
        }
        for piece in &reply.pieces {
            match piece {
                Piece::Wait(gate) => gate.wait().await,
                Piece::Bytes(bytes) if reply.framing == Framing::Chunked => {
                    self.reader.source().write_all(&chunk(bytes)).await?
                }
                Piece::Bytes(bytes) => self.reader.source().write_all(bytes).await?,
            }
        }
        // "Connection: close" was said in the fields, so a chunked answer that closes cleanly still ends as one.
        let announced_close = wire::field(&reply.fields, "connection").is_some();
        if reply.framing == Framing::Chunked && (reply.ending == Ending::KeepAlive || announced_close) {
            let lines: String =
                reply.trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            self.reader.source().write_all(format!("0\r\n{lines}\r\n").as_bytes()).await?;
        }
        Ok(())
    }

    async fn end(&mut self, ending: Ending, index: usize) -> std::io::Result<Next> {
        match ending {
            Ending::KeepAlive => return Ok(Next::Request),
            Ending::Close => return Ok(self.part().await),
            // With a linger time of zero, closing throws away what is unsent and sends RST.
            Ending::Reset => self.reader.source().set_zero_linger()?,
            Ending::Hang => while self.reader.fill().await? {},
            Ending::Tunnel => self.tunnel(index).await?,
        }
        Ok(Next::End)
    }

    async fn tunnel(&mut self, index: usize) -> std::io::Result<()> {
        loop {
            let count = self.reader.buffered().len();
            let bytes = self.reader.consume(count);
            self.shared.seen.send_modify(|seen| seen[index].body.extend_from_slice(&bytes));
            self.reader.source().write_all(&bytes).await?;
            if !self.reader.fill().await? {
                return self.reader.source().shutdown().await;
            }
        }
    }
}

impl Reply {
    fn all_fields(&self, request: &Request) -> Fields {
        let mut fields = self.fields.clone();
        let sent: usize =
            self.pieces.iter().map(|piece| if let Piece::Bytes(b) = piece { b.len() } else { 0 }).sum();
        let length = match self.framing {
            Framing::Length => Some(sent),
            Framing::LongerThanSentBy(missing) => Some(sent + missing),
            Framing::Echo => Some(request.raw_head.len() + request.body.len()),
            Framing::Chunked | Framing::UntilClose | Framing::Verbatim => None,
        };
        // RFC 9110, section 8.6: none with 1xx and 204; with 304 it would describe content that is not there.
        let without =
            matches!(self.status, 100..200 | 204 | 304) || wire::field(&fields, "content-length").is_some();
        match length {
            Some(length) if !without => fields.push(("content-length".into(), length.to_string())),
            _ => {}
        }
        if self.framing == Framing::Chunked {
            fields.push(("transfer-encoding".into(), "chunked".into()));
        }
        if self.ending == Ending::Tunnel {
            let protocol = request.header("upgrade").unwrap_or("none");
            fields.push(("connection".into(), "Upgrade".into()));
            fields.push(("upgrade".into(), protocol.into()));
        }
        fields
    }

    fn has_no_content(&self, request: &Request) -> bool {
        let never = request.method == "HEAD" || matches!(self.status, 100..200 | 204 | 304);
        never && self.framing != Framing::Verbatim
    }
}

fn request_line(line: &str) -> Result<(String, String, u8), Broken> {
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = parts[..] else {
        return Err(Broken::Malformed(format!("the request line {line:?}")));
    };
    if !wire::is_token(method.as_bytes())
        || target.is_empty()
        || !target.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(Broken::Malformed(format!("the request line {line:?}")));
    }
    Ok((method.into(), target.into(), wire::minor_version(version)?))
}

fn head(status: u16, fields: &Fields) -> Vec<u8> {
    let reason = match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        304 => "Not Modified",
        404 => "Not Found",
        _ => "Scripted",
    };
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status} {reason}\r\n{lines}\r\n").into_bytes()
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
    framed.extend_from_slice(bytes);
    framed.extend_from_slice(b"\r\n");
    framed
}

//! The access log: one JSON object per request, written by one thread, never in a request's way.
//!
//! A request adds its line to a buffer in memory; the writer takes the whole buffer at once, at the latest 100 ms after its first
//! line. So a busy gateway makes one system call per some hundred lines, and wakes its writer as seldom.
//!
//! The fields of a line, in this order, absent ones left out: `ts` (RFC 3339, UTC, milliseconds), `request_id`, `client`, `method`, `host`,
//! `target`, `protocol`, `status`, `bytes_in`, `bytes_out`, `duration` (seconds, to the microsecond), `route`, `upstream`, `instance`, `tries`,
//! `cache`, `error`, `user_agent`, `referer`.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::metrics::Metrics;
use crate::base::clock::WallTime;
use crate::plan::AccessLog;

/// One request, as the log tells it.
#[derive(Debug)]
pub struct Line<'a> {
    /// When it came.
    pub at: WallTime,
    /// The request id.
    pub request_id: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// The method.
    pub method: &'a str,
    /// The host asked for.
    pub host: &'a str,
    /// The path and query asked for.
    pub target: &'a str,
    /// `HTTP/1.1` and so on.
    pub protocol: &'static str,
    /// The status sent; 0 when the client left before any.
    pub status: u16,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// From the request's head to the answer's end.
    pub took: Duration,
    /// The route's name, if one matched.
    pub route: Option<&'a str>,
    /// The upstream's name, if one was asked.
    pub upstream: Option<&'a str>,
    /// The instance that answered.
    pub instance: Option<&'a str>,
    /// Attempts made.
    pub tries: u32,
    /// The `Cache-Status` member, if a cache was asked.
    pub cache: Option<&'a str>,
    /// What went wrong, if anything.
    pub error: Option<&'a str>,
    /// The client's User-Agent.
    pub user_agent: Option<&'a str>,
    /// The client's Referer.
    pub referer: Option<&'a str>,
}

/// Takes lines and never waits: when its writer is behind, lines are dropped and counted.
///
/// Dropping it writes what was handed over, as far as the destination takes it within 5 seconds.
pub struct Log {
    to: Option<Writer>,
    metrics: Arc<Metrics>,
}

/// How long a line may wait for others to be written with it.
const LINGER: Duration = Duration::from_millis(100);
/// Waiting lines, in bytes, that are written without lingering.
const ENOUGH: usize = 64 * 1024;
/// Waiting lines, in bytes, past which further ones are dropped: what a stuck destination may cost in memory, twice.
const MOST: usize = 4 * 1024 * 1024;
/// How long leaving may wait for a destination that takes nothing, as a pipe that nobody reads.
const PATIENCE: Duration = Duration::from_secs(5);

impl Log {
    /// Opens the log. A file is made when it is not there, readable by its owner and group alone: lines name clients.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or no thread can be started.
    pub fn open(to: &AccessLog, metrics: Arc<Metrics>) -> io::Result<Self> {
        match to {
            AccessLog::Off => Ok(Self { to: None, metrics }),
            AccessLog::Stdout => Self::to(io::stdout(), metrics),
            AccessLog::File(path) => {
                let file: File = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
                Self::to(file, metrics)
            }
        }
    }

    /// Whether lines go anywhere, so that a caller need not make them.
    pub fn is_on(&self) -> bool {
        self.to.is_some()
    }

    /// Hands a line to the writer.
    pub fn write(&self, line: &Line<'_>) {
        thread_local! {
            static TEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let Some(writer) = &self.to else { return };
        TEXT.with_borrow_mut(|text| {
            text.clear();
            line.append_to(text);
            if !writer.shared.hand_over(text) {
                self.metrics.access_log_dropped();
            }
        });
    }

    /// Waits until everything handed over is written, at most 5 seconds.
    pub fn flush(&self) {
        if let Some(writer) = &self.to {
            writer.shared.wait_until_written();
        }
    }

    fn to(destination: impl Write + Send + 'static, metrics: Arc<Metrics>) -> io::Result<Self> {
        let writer = Writer::start(destination, Arc::clone(&metrics))?;
        Ok(Self { to: Some(writer), metrics })
    }
}

impl Line<'_> {
    /// Appends the line as a JSON object and a line feed.
    fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"ts\":\"");
        append_time(out, self.at);
        out.push(b'"');
        append_text(out, "request_id", Some(self.request_id));
        append(out, ",\"client\":\"", self.client);
        out.push(b'"');
        append_text(out, "method", Some(self.method));
        append_text(out, "host", Some(self.host));
        append_text(out, "target", Some(self.target));
        append_text(out, "protocol", Some(self.protocol));
        append(out, ",\"status\":", self.status);
        append(out, ",\"bytes_in\":", self.bytes_in);
        append(out, ",\"bytes_out\":", self.bytes_out);
        let (seconds, micros) = (self.took.as_secs(), self.took.subsec_micros());
        append(out, ",\"duration\":", format_args!("{seconds}.{micros:06}"));
        append_text(out, "route", self.route);
        append_text(out, "upstream", self.upstream);
        append_text(out, "instance", self.instance);
        append(out, ",\"tries\":", self.tries);
        append_text(out, "cache", self.cache);
        append_text(out, "error", self.error);
        append_text(out, "user_agent", self.user_agent);
        append_text(out, "referer", self.referer);
        out.extend_from_slice(b"}\n");
    }
}

/// The writer's thread and what it shares with those who hand over lines.
struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Tells the writer that there is something to do.
    work: Condvar,
    /// Tells those who wait that something was written, or that the writer ended.
    done: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Bytes handed over and bytes done with, since the start.
    handed: u64,
    done: u64,
    /// Someone waits: do not linger.
    hurry: bool,
    closing: bool,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the line found room.
    fn hand_over(&self, line: &[u8]) -> bool {
        let mut state = self.lock();
        if state.ended || state.waiting.len() + line.len() > MOST {
            return false;
        }
        let before = state.waiting.len();
        state.waiting.extend_from_slice(line);
        state.handed += line.len() as u64;
        // The first line starts the lingering and the one that makes enough ends it; waking the writer in between would cost each
        // request a system call for nothing.
        let wake = before == 0 || (before < ENOUGH && state.waiting.len() >= ENOUGH);
        drop(state);
        if wake {
            self.work.notify_one();
        }
        true
    }

    fn wait_until_written(&self) {
        let mut state = self.lock();
        let wanted = state.handed;
        state.hurry = true;
        self.work.notify_one();
        let pending = |state: &mut State| state.done < wanted && !state.ended;
        drop(self.done.wait_timeout_while(state, PATIENCE, pending));
    }

    /// Waits for lines and swaps them into `batch`, which is empty; false when there will be none any more.
    fn next(&self, batch: &mut Vec<u8>) -> bool {
        let idle = |state: &mut State| state.waiting.is_empty() && !state.closing;
        let state = self.work.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let few = |state: &mut State| state.waiting.len() < ENOUGH && !state.hurry && !state.closing;
        let lingered = self.work.wait_timeout_while(state, LINGER, few);
        let (mut state, _) = lingered.unwrap_or_else(PoisonError::into_inner);
        state.hurry = false;
        std::mem::swap(&mut state.waiting, batch);
        !batch.is_empty()
    }

    fn written(&self, bytes: usize) {
        self.lock().done += bytes as u64;
        self.done.notify_all();
    }
}

impl Writer {
    fn start(destination: impl Write + Send + 'static, metrics: Arc<Metrics>) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let end = End(Arc::clone(&shared));
        let run = move || {
            let mut out = Destination { to: destination, metrics, torn: false, failing: false };
            let mut batch = Vec::new();
            while end.0.next(&mut batch) {
                out.write(&batch);
                end.0.written(batch.len());
                batch.clear();
            }
        };
        let thread = thread::Builder::new().name("access-log".into()).spawn(run)?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closing = true;
        self.shared.work.notify_one();
        let running = |state: &mut State| !state.ended;
        let waited = self.shared.done.wait_timeout_while(state, PATIENCE, running);
        let ended = waited.unwrap_or_else(PoisonError::into_inner).0.ended;
        // A writer that is still stuck is left to the process's end: joining it would keep a drained gateway from leaving.
        if let Some(thread) = self.thread.take().filter(|_| ended) {
            let _ = thread.join();
        }
    }
}

/// Tells on every way out, a panic included, that the writer ended, so that nobody waits for it in vain.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.done.notify_all();
    }
}

/// Where lines go, and how it went so far.
struct Destination<W> {
    to: W,
    metrics: Arc<Metrics>,
    /// The last line there has no end: the next begins on a line of its own.
    torn: bool,
    /// The last write failed, and was told of.
    failing: bool,
}

impl<W: Write> Destination<W> {
    /// Writes whole lines. What cannot be written is lost and counted: keeping it would fill memory while a disk is full.
    fn write(&mut self, lines: &[u8]) {
        let mut rest = lines;
        let result = self.mend().and_then(|()| self.write_counting(&mut rest));
        match result {
            Ok(()) => self.failing = false,
            Err(error) => self.give_up(lines, rest, &error),
        }
    }

    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.to.write_all(b"\n")?;
            self.torn = false;
        }
        Ok(())
    }

    /// Writes `rest`, and leaves in it what was not taken.
    fn write_counting(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match self.to.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => *rest = &rest[taken..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.to.flush()
    }

    fn give_up(&mut self, lines: &[u8], rest: &[u8], error: &io::Error) {
        for _ in rest.iter().filter(|&&byte| byte == b'\n') {
            self.metrics.access_log_dropped();
        }
        let written = &lines[..lines.len() - rest.len()];
        self.torn = self.torn || written.last().is_some_and(|&byte| byte != b'\n');
        if !self.failing {
            tracing::error!("the access log cannot be written, lines are lost until it can: {error}");
        }
        self.failing = true;
    }
}

/// Appends what comes before a value, and the value, which needs no escaping.
fn append(out: &mut Vec<u8>, before: &str, value: impl std::fmt::Display) {
    // Writing to memory does not fail.
    let _ = write!(out, "{before}{value}");
}

/// Appends a comma, the name and the value; nothing when there is no value.
fn append_text(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        append(out, ",\"", name);
        out.extend_from_slice(b"\":\"");
        append_escaped(out, value);
        out.push(b'"');
    }
}

/// Appends a text as the inside of a JSON string (RFC 8259 §7). Beside what JSON demands, DEL and the C1 controls are escaped: clients
/// choose these texts, and a terminal that shows the log would obey them.
fn append_escaped(out: &mut Vec<u8>, text: &str) {
    let mut clean = 0;
    for (at, char) in text.char_indices().filter(|(_, char)| needs_escape(*char)) {
        out.extend_from_slice(&text.as_bytes()[clean..at]);
        match char {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            _ => append(out, "\\u", format_args!("{:04x}", u32::from(char))),
        }
        clean = at + char.len_utf8();
    }
    out.extend_from_slice(&text.as_bytes()[clean..]);
}

fn needs_escape(char: char) -> bool {
    matches!(char, '"' | '\\') || char.is_control()
}

/// A moment as RFC 3339 has it, in UTC with milliseconds: `2026-11-22T21:03:00.042Z`.
pub fn time_text(at: WallTime) -> String {
    let mut out = Vec::new();
    append_time(&mut out, at);
    String::from_utf8_lossy(&out).into_owned()
}

/// Appends a moment as RFC 3339 has it, in UTC with milliseconds: `2026-11-22T21:03:00.042Z`.
fn append_time(out: &mut Vec<u8>, at: WallTime) {
    let (year, month, day) = date(at.as_secs() / 86_400);
    let second = at.as_secs() % 86_400;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let millis = at.as_millis() % 1000;
    append(
        out,
        "",
        format_args!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"),
    );
}

/// Year, month and day of the Gregorian calendar, `days` after 1 January 1970.
fn date(days: u64) -> (u64, u64, u64) {
    const CYCLE: u64 = 146_097; // days in 400 years
    // Counted from 1 March of the year 0, so that the day that is sometimes there is a year's last.
    let days = days + 719_468;
    let (cycle, day) = (days / CYCLE, days % CYCLE);
    let year = (day - day / 1_460 + day / 36_524 - day / (CYCLE - 1)) / 365;
    let day = day - (year * 365 + year / 4 - year / 100);
    // From March on, months have 31 30 31 30 31 days, over and over: 153 in five.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::tests::{plan, value};
    use proptest::prelude::*;
    use serde_json::Value;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc::{Receiver, Sender, channel};

    fn line(target: &str) -> Line<'_> {
        Line {
            at: WallTime::from_millis(1_795_381_380_042),
            request_id: "r1",
            client: "2001:db8::1".parse().unwrap(),
            method: "GET",
            host: "example.com",
            target,
            protocol: "HTTP/1.1",
            status: 200,
            bytes_in: 0,
            bytes_out: 1234,
            took: Duration::from_micros(1_000_042),
            route: None,
            upstream: None,
            instance: None,
            tries: 0,
            cache: None,
            error: None,
            user_agent: None,
            referer: None,
        }
    }

    fn text(line: &Line<'_>) -> String {
        let mut out = Vec::new();
        line.append_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn time(at: WallTime) -> String {
        let mut out = Vec::new();
        append_time(&mut out, at);
        String::from_utf8(out).unwrap()
    }

    fn dropped(metrics: &Metrics) -> usize {
        value(&metrics.render(), "vanne_access_log_dropped_total").unwrap() as usize
    }

    #[test]
    fn a_line_has_its_fields_in_a_fixed_order() {
        let full = Line {
            route: Some("api"),
            upstream: Some("pool"),
            instance: Some("127.0.0.1:8001"),
            tries: 2,
            cache: Some("vanne; fwd=uri-miss; stored"),
            error: Some("timeout"),
            user_agent: Some("curl/8"),
            referer: Some("https://example.com/"),
            ..line("/a?b=c")
        };
        let wanted = concat!(
            r#"{"ts":"2026-11-22T21:03:00.042Z","request_id":"r1","client":"2001:db8::1","method":"GET","#,
            r#""host":"example.com","target":"/a?b=c","protocol":"HTTP/1.1","status":200,"bytes_in":0,"#,
            r#""bytes_out":1234,"duration":1.000042,"route":"api","upstream":"pool","#,
            r#""instance":"127.0.0.1:8001","tries":2,"cache":"vanne; fwd=uri-miss; stored","error":"timeout","#,
            r#""user_agent":"curl/8","referer":"https://example.com/"}"#,
            "\n"
        );
        assert_eq!(text(&full), wanted);
    }

    #[test]
    fn what_is_absent_is_left_out() {
        let parsed: Value = serde_json::from_str(&text(&line("/"))).unwrap();
        for name in ["route", "upstream", "instance", "cache", "error", "user_agent", "referer"] {
            assert_eq!(parsed.get(name), None, "{name}");
        }
        assert_eq!(parsed["tries"], 0);
        assert_eq!(parsed["duration"], 1.000042);
    }

    #[test]
    fn controls_and_quotes_are_escaped() {
        for (given, written) in [
            ("plain", "plain"),
            ("\"\\/", r#"\"\\/"#),
            ("\n\r\t\0\x1b", r"\u000a\u000d\u0009\u0000\u001b"),
            ("\x7f", r"\u007f"),
            ("\u{9b}31m", r"\u009b31m"),
            ("é\u{2028}😀", "é\u{2028}😀"),
        ] {
            let mut out = Vec::new();
            append_escaped(&mut out, given);
            assert_eq!(String::from_utf8(out).unwrap(), written, "{given:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_reads_back_as_sent_and_stays_on_one_line(
            target in any::<String>(), agent in any::<String>(),
        ) {
            let written = text(&Line { user_agent: Some(&agent), ..line(&target) });
            prop_assert_eq!(written.matches('\n').count(), 1);
            let parsed: Value = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(parsed["target"].as_str(), Some(target.as_str()));
            prop_assert_eq!(parsed["user_agent"].as_str(), Some(agent.as_str()));
        }
    }

    #[test]
    fn moments_are_written_as_rfc_3339_has_them() {
        for (millis, written) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_827_696_789, "2000-02-29T12:34:56.789Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(time(WallTime::from_millis(millis)), written);
        }
    }

    #[test]
    fn days_follow_one_another_as_in_the_calendar() {
        let leap =
            |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..200_000 {
            assert_eq!(date(days), (year, month, day), "day {days}");
            let last = match month {
                2 if leap(year) => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > last {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }

    #[test]
    fn a_file_is_appended_to_and_closed_to_strangers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.json");
        for target in ["/first", "/second"] {
            let log = Log::open(&AccessLog::File(path.clone()), Metrics::new(&plan())).unwrap();
            assert!(log.is_on());
            log.write(&line(target));
        }
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(written, text(&line("/first")) + &text(&line("/second")));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let to = AccessLog::File(folder.path().to_owned());
        assert!(Log::open(&to, Metrics::new(&plan())).is_err());
    }

    #[test]
    fn a_log_that_is_off_takes_lines_and_does_nothing() {
        let metrics = Metrics::new(&plan());
        let log = Log::open(&AccessLog::Off, Arc::clone(&metrics)).unwrap();
        assert!(!log.is_on());
        log.write(&line("/"));
        log.flush();
        assert_eq!(dropped(&metrics), 0);
    }

    #[test]
    fn after_a_flush_what_was_handed_over_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.json");
        let log = Log::open(&AccessLog::File(path.clone()), Metrics::new(&plan())).unwrap();
        for count in 1..=5 {
            log.write(&line("/"));
            log.flush();
            assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), count);
        }
        log.flush();
    }

    #[test]
    fn lines_of_many_threads_stay_whole_and_none_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.json");
        let metrics = Metrics::new(&plan());
        let log = Log::open(&AccessLog::File(path.clone()), Arc::clone(&metrics)).unwrap();
        thread::scope(|scope| {
            for number in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    for _ in 0..250 {
                        log.write(&line(&format!("/{number}")));
                    }
                });
            }
        });
        drop(log);
        let written = std::fs::read_to_string(&path).unwrap();
        for number in 0..4 {
            let wanted = text(&line(&format!("/{number}")));
            assert_eq!(written.split_inclusive('\n').filter(|line| *line == wanted).count(), 250);
        }
        assert_eq!(written.lines().count(), 1000);
        assert_eq!(dropped(&metrics), 0);
    }

    /// A destination that tells when it is written to, and takes it when allowed.
    struct Gate {
        entered: Sender<()>,
        open: Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.entered.send(());
            // A sender that is gone leaves the gate open.
            let _ = self.open.recv();
            self.taken.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_writer_that_is_behind_costs_lines_and_nobody_waits() {
        let metrics = Metrics::new(&plan());
        let taken = Arc::<Mutex<Vec<u8>>>::default();
        let (entered, has_entered) = channel();
        let (open, gate) = channel();
        let to = Gate { entered, open: gate, taken: Arc::clone(&taken) };
        let log = Log::to(to, Arc::clone(&metrics)).unwrap();

        log.write(&line("/first"));
        has_entered.recv().unwrap();
        let target = "/".repeat(64 * 1024);
        let handed = 2 * MOST / target.len();
        for _ in 0..handed {
            log.write(&line(&target));
        }
        let lost = dropped(&metrics);
        assert!(lost > handed / 3 && lost < handed, "{lost} of {handed}");

        drop(open);
        drop(log);
        let taken = taken.lock().unwrap();
        assert_eq!(taken.iter().filter(|&&byte| byte == b'\n').count(), 1 + handed - lost);
        assert!(
            std::str::from_utf8(&taken).unwrap().lines().all(|l| serde_json::from_str::<Value>(l).is_ok())
        );
    }

    /// A destination that takes so many bytes a call as the script says, or fails.
    struct Scripted(Vec<Option<usize>>, Vec<u8>);

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let step = if self.0.is_empty() { Some(bytes.len()) } else { self.0.remove(0) };
            let taken = step.ok_or(io::ErrorKind::StorageFull)?.min(bytes.len());
            self.1.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_the_next_begins_anew() {
        for (script, written, lost) in [
            (vec![], "one\ntwo\nthree\n", 0),
            (vec![Some(2), Some(1), Some(3)], "one\ntwo\nthree\n", 0),
            (vec![None], "three\n", 2),
            (vec![Some(4), None], "one\nthree\n", 1),
            (vec![Some(6), None], "one\ntw\nthree\n", 1),
            (vec![Some(6), Some(0)], "one\ntw\nthree\n", 1),
            (vec![Some(6), None, None], "one\ntw", 2),
        ] {
            let metrics = Metrics::new(&plan());
            let to = Scripted(script.clone(), Vec::new());
            let mut out = Destination { to, metrics: Arc::clone(&metrics), torn: false, failing: false };
            out.write(b"one\ntwo\n");
            out.write(b"three\n");
            assert_eq!(String::from_utf8(out.to.1).unwrap(), written, "{script:?}");
            assert_eq!(dropped(&metrics), lost, "{script:?}");
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            panic!("a destination that panics, as a test wants it")
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_writer_that_died_keeps_nobody_waiting() {
        let metrics = Metrics::new(&plan());
        let log = Log::to(Broken, Arc::clone(&metrics)).unwrap();
        log.write(&line("/"));
        log.flush();
        log.write(&line("/"));
        assert_eq!(dropped(&metrics), 1);
    }
}

//! The local CDN: files of a folder as answers, and content coded for those who take it so.
//!
//! ```text
//! name      which file does the path name? hidden ones are refused           (pure)
//! find      the file itself, an index, a page without its ending, the page of all others
//! beneath   opened so that nothing leads out of the root
//! kind      what it holds, by its name                                       (pure)
//! tag       what its content is told by
//! code      its content, coded
//! listing   what lies in a folder, as a page
//! ```
//!
//! What can be coded is answered from a sibling that the build left beside it (`app.js.br`), or else coded here: quickly for the one who waits, then at its best behind
//! the request, and kept. So nothing is coded twice, and what is served for long is as small as it can be.
//!
//! Files block whoever reads them, so all of this runs on threads that serve no connection. Not here: conditions, ranges, sockets.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_TYPE, DATE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, StatusCode};
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use tokio::sync::Semaphore;

use self::beneath::{Opened, Root, Stamp};
use self::code::Effort;
use self::find::Found;
use self::name::Relative;
use self::tag::{Known, Print, Prints};
use crate::base::clock::{Clock, WallTime};
use crate::base::fields::Pairs;
use crate::cache::date;
use crate::forward::coding::{self, Coding};
use crate::observe::metrics::Metrics;
use crate::plan;

pub mod beneath;
pub mod code;
mod find;
mod kind;
mod listing;
pub mod name;
mod tag;

/// Larger files are coded only by those who build them: the content is held in memory while it is coded.
const MOST_CODED: u64 = 8 * 1024 * 1024;
/// Files up to this size are read whole when they are opened; larger ones piece by piece as the client takes them.
const HELD: u64 = 64 * 1024;

/// A folder that is served.
pub struct Site {
    files: Arc<plan::Files>,
    coding: Option<Arc<coding::Rules>>,
    prints: Prints,
    coded: Cache<(Stamp, Coding), Arc<Coded>, ByBytes>,
    /// One at a time: what nobody waits for must not take the processor from those who do.
    at_its_best: Arc<Semaphore>,
    clock: Arc<Clock>,
    metrics: Arc<Metrics>,
}

/// A request for a file.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The path, as far as it is the folder's.
    pub path: String,
    /// The path as the client wrote it.
    pub shown: String,
    /// What the client accepts; `None`: it does not say.
    pub accepts: Option<Vec<u8>>,
    /// It wants a part: parts are those of the content as it is.
    pub part: bool,
}

/// What there is.
pub enum Answer {
    /// Content.
    Content(Box<Served>),
    /// A folder was asked for without its last slash.
    Folder,
    /// Nothing.
    Missing,
}

/// Content to be sent.
pub struct Served {
    /// 200; 404 for the page that says so.
    pub status: StatusCode,
    /// What is said of it.
    pub fields: HeaderMap,
    /// Other tags under which a client may hold the same.
    pub also: Vec<HeaderValue>,
    /// The content.
    pub content: Content,
}

/// Content.
pub enum Content {
    /// In memory.
    Held(Bytes),
    /// In a file of this length.
    File(Arc<File>, u64),
}

impl Content {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Held(bytes) => bytes.len() as u64,
            Self::File(_, length) => *length,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Content that was coded here.
struct Coded {
    content: Bytes,
    print: Print,
    effort: Effort,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<(Stamp, Coding), Arc<Coded>> for ByBytes {
    fn weight(&self, _key: &(Stamp, Coding), coded: &Arc<Coded>) -> u64 {
        // What it takes beside its content, roughly.
        coded.content.len() as u64 + 256
    }
}

/// What can be said of a file in one coding.
struct Form {
    content: Content,
    coding: Coding,
    tag: Option<HeaderValue>,
    also: Vec<HeaderValue>,
}

/// Why a folder cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("route \"{route}\": files.root \"{root}\" ({absolute}): {source}")]
pub struct NoRoot {
    route: String,
    root: String,
    absolute: String,
    source: io::Error,
}

/// The folders of a plan that cannot be opened.
pub fn missing_roots(plan: &plan::Plan) -> Vec<NoRoot> {
    let routes = plan.routes.iter().filter_map(|route| match &route.action {
        plan::Action::Files(files) => Some((route, files)),
        _ => None,
    });
    let missing = routes.filter_map(|(route, files)| {
        let source = Root::open(&files.root).err()?;
        let absolute = std::path::absolute(&files.root).unwrap_or_else(|_| files.root.clone());
        Some(NoRoot {
            route: route.name.to_string(),
            root: files.root.display().to_string(),
            absolute: absolute.display().to_string(),
            source,
        })
    });
    missing.collect()
}

impl Site {
    /// A folder that is served as a route says; `None` when the route serves none.
    pub fn of(route: &plan::Route, clock: &Arc<Clock>, metrics: &Arc<Metrics>) -> Option<Arc<Self>> {
        let plan::Action::Files(files) = &route.action else { return None };
        let options = OptionsBuilder::new()
            .estimated_items_capacity(1000)
            .weight_capacity(files.memory.0)
            .shards(1)
            .build()
            // Nothing that is always given is missing.
            .ok()?;
        Some(Arc::new(Self {
            files: files.clone(),
            coding: route.compress.clone(),
            prints: Prints::default(),
            coded: Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), Default::default()),
            at_its_best: Arc::new(Semaphore::new(1)),
            clock: clock.clone(),
            metrics: metrics.clone(),
        }))
    }

    /// Whether a route serves the same in the same way.
    pub fn serves(&self, route: &plan::Route) -> bool {
        matches!(&route.action, plan::Action::Files(files) if *files == self.files)
            && route.compress == self.coding
    }

    /// Looks for what a request asks for.
    ///
    /// # Errors
    /// When the system fails: it can open no more files, a disk does not read, a file changes while it is read.
    pub async fn answer(self: &Arc<Self>, asked: Asked) -> io::Result<Answer> {
        let site = self.clone();
        tokio::task::spawn_blocking(move || site.find(&asked)).await?
    }

    fn find(self: &Arc<Self>, asked: &Asked) -> io::Result<Answer> {
        // Opened anew each time, so that a link to a release can be turned to the next.
        let root = Root::open(&self.files.root)?;
        let found = match Relative::read(&asked.path) {
            Some(relative) => find::find(&root, &self.files, &relative)?,
            None => Found::Nothing,
        };
        match found {
            Found::File(path, opened) => self.served(&root, &path, opened, StatusCode::OK, asked),
            Found::Moved => Ok(Answer::Folder),
            Found::List(folder) => self.listed(&listing::page(&folder, &asked.shown)?),
            Found::Nothing => self.missing(&root, asked),
        }
    }

    fn missing(self: &Arc<Self>, root: &Root, asked: &Asked) -> io::Result<Answer> {
        let page = self.files.not_found.as_ref();
        match page.map(|page| Ok::<_, io::Error>((page, root.at(page.as_bytes())?))).transpose()? {
            Some((page, Some(beneath::Node::File(opened)))) => {
                let asked = Asked { part: false, ..asked.clone() };
                self.served(root, page.as_bytes(), opened, StatusCode::NOT_FOUND, &asked)
            }
            _ => Ok(Answer::Missing),
        }
    }

    fn listed(&self, page: &str) -> io::Result<Answer> {
        let mut fields = self.fields(HeaderValue::from_static("text/html; charset=utf-8"));
        // Names that whoever may write into the folder chose must not become scripts.
        fields.insert("content-security-policy", HeaderValue::from_static("default-src 'none'"));
        let content = Content::Held(Bytes::copy_from_slice(page.as_bytes()));
        Ok(Answer::Content(Box::new(Served { status: StatusCode::OK, fields, also: Vec::new(), content })))
    }

    fn fields(&self, content_type: HeaderValue) -> HeaderMap {
        let mut fields = HeaderMap::new();
        fields.insert(CONTENT_TYPE, content_type);
        if let Ok(date) = HeaderValue::from_str(&date::format(self.clock.wall())) {
            fields.insert(DATE, date);
        }
        fields
    }

    fn served(
        self: &Arc<Self>,
        root: &Root,
        path: &[u8],
        opened: Opened,
        status: StatusCode,
        asked: &Asked,
    ) -> io::Result<Answer> {
        let modified = opened.stamp.modified();
        let content_type = kind::content_type(path);
        let varies = self.coding.as_ref().filter(|rules| rules.covers(content_type.as_bytes())).cloned();
        let mut fields = self.fields(content_type);
        fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Ok(modified) = HeaderValue::from_str(&date::format(modified.min(self.clock.wall()))) {
            fields.insert(LAST_MODIFIED, modified);
        }
        let form = match &varies {
            Some(rules) => {
                coding::vary(&mut fields);
                self.coded_form(root, path, opened, rules, asked)?
            }
            None => self.plain_form(opened)?,
        };
        if form.coding != Coding::Identity {
            fields.insert(CONTENT_ENCODING, HeaderValue::from_static(form.coding.as_str()));
        }
        if let Some(tag) = form.tag {
            fields.insert(ETAG, tag);
        }
        if status != StatusCode::OK {
            // They would tell of the page, not of what was asked for.
            for name in [ETAG, LAST_MODIFIED, ACCEPT_RANGES] {
                fields.remove(name);
            }
        }
        Ok(Answer::Content(Box::new(Served { status, fields, also: form.also, content: form.content })))
    }

    /// The content as it is.
    fn plain_form(self: &Arc<Self>, opened: Opened) -> io::Result<Form> {
        let Opened { file, stamp } = opened;
        let now = self.clock.wall();
        if stamp.length <= HELD {
            let content = read(&file, stamp.length)?;
            let tag = self.prints.note(&stamp, &content, now).tag(Coding::Identity, "");
            let content = Content::Held(content);
            return Ok(Form { content, coding: Coding::Identity, tag: Some(tag), also: Vec::new() });
        }
        let file = Arc::new(file);
        let tag = match self.prints.of(&file, &stamp, now)? {
            Known::Print(print) => Some(print.tag(Coding::Identity, "")),
            Known::BeingFound => None,
            Known::ToFind => {
                let (site, file) = (self.clone(), file.clone());
                tokio::task::spawn_blocking(move || site.prints.find(&file, &stamp, now));
                None
            }
        };
        let content = Content::File(file, stamp.length);
        Ok(Form { content, coding: Coding::Identity, tag, also: Vec::new() })
    }

    /// The content in the coding that the client likes best of those there are.
    fn coded_form(
        self: &Arc<Self>,
        root: &Root,
        path: &[u8],
        opened: Opened,
        rules: &coding::Rules,
        asked: &Asked,
    ) -> io::Result<Form> {
        let Some(accepts) = asked.accepts.as_deref().filter(|_| !asked.part) else {
            return self.plain_form(opened);
        };
        let sibling = |coding: &Coding| sibling(root, path, *coding);
        let can_code = (rules.min_size..=MOST_CODED).contains(&opened.stamp.length);
        let offered: Vec<Coding> = match can_code {
            true => rules.codings.clone(),
            false => rules.codings.iter().copied().filter(|c| matches!(sibling(c), Ok(Some(_)))).collect(),
        };
        let coding = coding::negotiate(&Pairs(&[("accept-encoding", accepts)]), &offered);
        if coding == Coding::Identity {
            return self.plain_form(opened);
        }
        if let Some(opened) = sibling(&coding)? {
            let plain = self.plain_form(opened)?;
            let tag = plain.tag.and_then(|tag| coding::tagged(&tag, coding));
            return Ok(Form { coding, tag, ..plain });
        }
        if !can_code {
            return self.plain_form(opened);
        }
        self.code(opened, coding)
    }

    /// The content coded here, now or before.
    fn code(self: &Arc<Self>, opened: Opened, coding: Coding) -> io::Result<Form> {
        let now = self.clock.wall();
        let key = (opened.stamp, coding);
        let make = || self.make(&opened, coding, Effort::Quick, now);
        let coded = if tag::is_settled(&opened.stamp, now) {
            let mut made = false;
            let coded = self.coded.get_or_insert_with(&key, || {
                made = true;
                make()
            })?;
            if made {
                self.improve(opened, coding, now);
            }
            coded
        } else {
            make()?
        };
        let [quick, best] = ["-quick", ""].map(|form| coded.print.tag(coding, form));
        let (tag, other) = if coded.effort == Effort::Best { (best, quick) } else { (quick, best) };
        let content = Content::Held(coded.content.clone());
        Ok(Form { content, coding, tag: Some(tag), also: vec![other] })
    }

    fn make(&self, opened: &Opened, coding: Coding, effort: Effort, now: WallTime) -> io::Result<Arc<Coded>> {
        let plain = read(&opened.file, opened.stamp.length)?;
        if Stamp::now(&opened.file)? != opened.stamp {
            return Err(tag::changed());
        }
        let print = self.prints.note(&opened.stamp, &plain, now);
        let content = code::whole(&plain, coding, effort)?;
        self.metrics.compressed(coding.as_str());
        Ok(Arc::new(Coded { content, print, effort }))
    }

    /// Codes it again, as well as can be, when nobody else is at it.
    fn improve(self: &Arc<Self>, opened: Opened, coding: Coding, now: WallTime) {
        let (site, turn) = (self.clone(), self.at_its_best.clone());
        tokio::spawn(async move {
            let Ok(_turn) = turn.acquire_owned().await else { return };
            let work = move || {
                // What cannot be read any more is served as it was coded first, for as long as it is there.
                if let Ok(best) = site.make(&opened, coding, Effort::Best, now) {
                    site.coded.insert((opened.stamp, coding), best);
                }
            };
            let _ = tokio::task::spawn_blocking(work).await;
        });
    }
}

/// The file that a build left beside another, coded.
fn sibling(root: &Root, path: &[u8], coding: Coding) -> io::Result<Option<Opened>> {
    let beside = [path, coding.extension().as_bytes()].concat();
    Ok(match root.at(&beside)? {
        Some(beneath::Node::File(opened)) => Some(opened),
        _ => None,
    })
}

/// So many bytes from the start of a file.
fn read(file: &File, length: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    fill(file, 0, &mut bytes)?;
    Ok(bytes.into())
}

/// Fills a buffer from a position of a file on; blocks while it is read.
///
/// # Errors
/// When there are fewer bytes: it was cut since it was opened.
pub fn fill(file: &File, at: u64, buffer: &mut [u8]) -> io::Result<()> {
    file.read_exact_at(buffer, at)
}

//! What the operator asks of the process itself, over the operator's listener: to read its configuration again, to hand over to a new program.
//!
//! Carried out by whoever runs the gateway, which knows the file and the signals; asked, and answered, here.

use std::cell::RefCell;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use http::{HeaderValue, Method, Response, header};
use pingora::apps::ServerApp;
use pingora::apps::http_app::{HttpServer, ServeHttp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::sync::{mpsc, oneshot};

use super::admin::{AdminApp, error, respond};
use super::connection::{Open, Opened};
use crate::observe::admin::Answer;

/// Where a reload is asked for.
pub const RELOAD: &str = "/api/v1/reload";
/// Where an upgrade is asked for.
pub const UPGRADE: &str = "/api/v1/upgrade";

/// What may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Read the configuration again.
    Reload,
    /// Start the program anew and leave the listeners to it.
    Upgrade,
}

/// An order and where its outcome goes.
pub struct Asked {
    /// What is asked.
    pub order: Order,
    reply: oneshot::Sender<Answer>,
}

/// What was asked, in its order.
pub type Orders = mpsc::Receiver<Asked>;

/// The operator's listener, by the configuration in force.
pub struct AdminDoor {
    current: ArcSwap<AdminApp>,
    orders: ArcSwapOption<mpsc::Sender<Asked>>,
    /// Connections on which an order is being answered.
    answering: Arc<Open>,
}

tokio::task_local! {
    /// Held while the connection that this task serves has an order's answer to send.
    static ANSWERING: RefCell<Option<Opened>>;
}

impl Asked {
    /// Tells the outcome. Whoever asked may be gone by now; what was done is done.
    pub fn answer(self, status: u16, outcome: serde_json::Value) {
        let _ = self.reply.send(Answer::json(status, outcome));
    }
}

impl Order {
    fn at(path: &str) -> Option<Self> {
        match path {
            RELOAD => Some(Self::Reload),
            UPGRADE => Some(Self::Upgrade),
            _ => None,
        }
    }
}

impl AdminDoor {
    /// A door behind which `app` answers.
    pub fn new(app: AdminApp) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(app),
            orders: ArcSwapOption::empty(),
            answering: Arc::default(),
        })
    }

    /// From now on `app` answers.
    pub fn change(&self, app: AdminApp) {
        self.current.store(Arc::new(app));
    }

    /// Where orders arrive from now on. Until this is called there is nobody to carry one out, and who asks is told so.
    pub fn orders(&self) -> Orders {
        let (sender, orders) = mpsc::channel(1);
        self.orders.store(Some(Arc::new(sender)));
        orders
    }

    /// For pingora, which wants an app of its own.
    pub fn app(self: Arc<Self>) -> impl ServerApp + Send + Sync + 'static {
        Connections(Arc::new(HttpServer::new_app(Doorway(self))))
    }

    /// Waits until whoever gave an order has its answer: leaving is an order too.
    pub async fn all_answered(&self) {
        self.answering.none_left().await;
    }

    async fn order(&self, app: &AdminApp, order: Order, session: &ServerSession) -> Answer {
        let head = session.req_header();
        if head.method != Method::POST {
            return Answer::json(405, error("an order is POSTed"));
        }
        let shown = head.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        if let Err(refused) = app.admin.may_change(shown) {
            return refused;
        }
        let nobody =
            || Answer::json(503, error("this gateway runs within another program, which takes no orders"));
        let Some(orders) = self.orders.load_full() else { return nobody() };
        let (reply, outcome) = oneshot::channel();
        if orders.send(Asked { order, reply }).await.is_err() {
            return nobody();
        }
        outcome.await.unwrap_or_else(|_| nobody())
    }
}

struct Doorway(Arc<AdminDoor>);

#[async_trait]
impl ServeHttp for Doorway {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let app = self.0.current.load_full();
        let Some(order) = Order::at(session.req_header().uri.path()) else {
            return app.response(session).await;
        };
        let answering = self.0.answering.enter();
        let mut response = respond(self.0.order(&app, order, session).await);
        // This process may be about to leave: the connection ends with the answer, and tells so that it is sent.
        session.set_keepalive(None);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        let _ = ANSWERING.try_with(|held| held.replace(Some(answering)));
        response
    }
}

struct Connections<A>(Arc<A>);

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Connections<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        ANSWERING.scope(RefCell::new(None), self.0.process_new(stream, shutdown)).await
    }
}

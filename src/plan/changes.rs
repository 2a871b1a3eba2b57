//! What is other in one plan than in another, for the operator who reloads.

use std::fmt;

use super::{Action, Instance, Plan, Upstream};

/// One difference, in words: `upstream api: instance 127.0.0.1:8003 joined`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What it is about: `upstream api`.
    pub about: String,
    /// What happened to it: `instance 127.0.0.1:8003 joined`.
    pub what: String,
    /// Whether it takes a new process: the running one goes on as it was in this.
    pub needs_restart: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.what)?;
        if self.needs_restart { f.write_str(" (takes a restart or an upgrade)") } else { Ok(()) }
    }
}

/// What is other in `next` than in `before`, in the order of the file.
pub fn between(before: &Plan, next: &Plan) -> Vec<Change> {
    let mut changes = Changes::default();
    changes.server(before, next);
    let listener = |l: &super::Listener| (l.name.to_string(), l.clone());
    changes.named("listener", before.listeners.iter().map(listener), next.listeners.iter().map(listener));
    changes.whole("admin", before.admin != next.admin);
    changes.log(before, next);
    changes.whole("redis", before.redis != next.redis);
    changes.upstreams(before, next);
    let cache = |c: &super::Cache| (c.name.to_string(), format!("{c:?}"));
    changes.named("cache", before.caches.iter().map(cache), next.caches.iter().map(cache));
    changes.named("route", routes(before), routes(next));
    let order = |plan: &Plan| plan.routes.iter().map(|r| r.name.clone()).collect::<Vec<_>>();
    let (mut was, mut is) = (order(before), order(next));
    was.retain(|name| is.contains(name));
    is.retain(|name| was.contains(name));
    changes.whole_said("routes", "their order changed", was != is);
    changes.0
}

/// Every route with all that is said about it; upstreams and caches by name, since their positions may move without any change of meaning.
fn routes(plan: &Plan) -> impl Iterator<Item = (String, String)> {
    plan.routes.iter().zip(plan.table.rules()).map(|(route, rule)| {
        let action = match &route.action {
            Action::Forward { upstream, cache } => {
                let cache = cache.map(|id| &plan.caches[id].name);
                format!("{} through {cache:?}", plan.upstreams[*upstream].name)
            }
            respond => format!("{respond:?}"),
        };
        let mut rest = route.clone();
        rest.action = Action::Respond { status: http::StatusCode::OK, body: String::new() };
        (route.name.to_string(), format!("{rule:?} {action} {rest:?}"))
    })
}

#[derive(Default)]
struct Changes(Vec<Change>);

impl Changes {
    fn push(&mut self, about: impl Into<String>, what: impl Into<String>) {
        self.0.push(Change { about: about.into(), what: what.into(), needs_restart: false });
    }

    fn whole(&mut self, about: &str, changed: bool) {
        self.whole_said(about, "changed", changed);
    }

    fn whole_said(&mut self, about: &str, what: &str, changed: bool) {
        if changed {
            self.push(about, what);
        }
    }

    fn server(&mut self, before: &Plan, next: &Plan) {
        let (was, is) = (&before.server, &next.server);
        if was.threads != is.threads {
            let what = format!("threads {} → {}", was.threads, is.threads);
            self.0.push(Change { about: "server".into(), what, needs_restart: true });
        }
        let mut rest = was.clone();
        rest.threads = is.threads;
        self.whole("server", rest != *is);
    }

    fn log(&mut self, before: &Plan, next: &Plan) {
        let (was, is) = (&before.log, &next.log);
        if was.format != is.format {
            let what = format!("format {:?} → {:?}", was.format, is.format).to_lowercase();
            self.0.push(Change { about: "log".into(), what, needs_restart: true });
        }
        if was.level != is.level {
            self.push("log", format!("level {} → {}", was.level, is.level));
        }
        self.whole_said("log", "access log changed", was.access != is.access);
    }

    /// Things with names: some went, some came, some are other than they were.
    fn named<T: PartialEq>(
        &mut self,
        kind: &str,
        before: impl Iterator<Item = (String, T)>,
        next: impl Iterator<Item = (String, T)>,
    ) {
        let (before, next): (Vec<_>, Vec<_>) = (before.collect(), next.collect());
        let find = |all: &[(String, T)], name: &str| all.iter().position(|(known, _)| known == name);
        for (name, _) in before.iter().filter(|(name, _)| find(&next, name).is_none()) {
            self.push(format!("{kind} {name}"), "removed");
        }
        for (name, is) in &next {
            match find(&before, name).map(|at| &before[at].1) {
                None => self.push(format!("{kind} {name}"), "added"),
                Some(was) if was != is => self.push(format!("{kind} {name}"), "changed"),
                Some(_) => {}
            }
        }
    }

    fn upstreams(&mut self, before: &Plan, next: &Plan) {
        let settings = |u: &Upstream| (u.name.to_string(), Upstream { servers: Vec::new(), ..u.clone() });
        self.named("upstream", before.upstreams.iter().map(settings), next.upstreams.iter().map(settings));
        for is in &next.upstreams {
            if let Some(was) = before.upstreams.iter().find(|was| was.name == is.name) {
                self.instances(&format!("upstream {}", is.name), &was.servers, &is.servers);
            }
        }
    }

    fn instances(&mut self, about: &str, before: &[Instance], next: &[Instance]) {
        let find = |all: &[Instance], addr: &str| all.iter().position(|known| known.addr == addr);
        for gone in before.iter().filter(|was| find(next, &was.addr).is_none()) {
            self.push(about, format!("instance {} left", gone.addr));
        }
        for is in next {
            match find(before, &is.addr).map(|at| &before[at]) {
                None => self.push(about, format!("instance {} joined", is.addr)),
                Some(was) if was.weight != is.weight => {
                    self.push(about, format!("instance {} weight {} → {}", is.addr, was.weight, is.weight));
                }
                Some(was) if was != is => self.push(about, format!("instance {} changed", is.addr)),
                Some(_) => {}
            }
        }
    }
}

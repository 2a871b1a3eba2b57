//! What stands before the routes: limits that limit, users that exist, sites and fields that make sense together.

use std::path::Path;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;

use super::{Kind, resolve};
use crate::base::name::{LimitName, RealmName};
use crate::config::file::{
    AccessTable, AuthTable, CorsTable, EditTable, File, LimitTable, RouteTable, SecurityTable, time,
};
use crate::config::kind::{
    Authorization, FieldValue, FilePath, Hits, List, Named, Network, OrOff, Scope, Text, user_help,
};
use crate::config::problem::{Problem, Spot};
use crate::config::read::{Reader, Set};
use crate::config::variable::read_file;
use crate::forward::edit::{Edits, Template, Variable, not_in_answers, not_in_requests};
use crate::forward::security::{Hsts, Security, Wanted};
use crate::guard::access::{self, Access};
use crate::guard::auth::Users;
use crate::guard::cors::{Names, OURS, Origin, Origins, Rules};
use crate::guard::rate::Rate;
use crate::plan::ward::{Limit, Realm, Ward};

const LIMITS: Kind = Kind { table: "limits", one: "a limit" };
const ACCESS: Kind = Kind { table: "access", one: "a list of addresses" };
const AUTH: Kind = Kind { table: "auth", one: "a list of users" };
const CORS: Kind = Kind { table: "cors", one: "a list of sites" };

/// All limits.
pub fn limits(file: &File, reader: &mut Reader<'_>) -> Option<Vec<Limit>> {
    let redis = file.redis.value().and_then(|redis| redis.url.value()).map(|url| url.0.is_some());
    each(file.limits.value()?, |spot, name, table| limit(spot, name, table, redis, reader))
}

/// What routes name and share; `None` where its problems have been reported.
pub struct Shared {
    access: Vec<Option<Arc<Access>>>,
    cors: Vec<Option<Arc<Rules>>>,
}

/// All lists of addresses and of sites, also those that no route names: a mistake in one is a mistake.
pub fn shared(file: &File, reader: &mut Reader<'_>) -> Option<Shared> {
    let access = file.access.value()?.items.iter();
    let access = access.map(|(spot, _, table)| access_list(spot, table, reader).map(Arc::new)).collect();
    let cors = file.cors.value()?.items.iter();
    let cors = cors.map(|(_, _, table)| sites(table, reader).map(Arc::new)).collect();
    Some(Shared { access, cors })
}

/// All users.
pub fn realms(file: &File, reader: &mut Reader<'_>) -> Option<Vec<Realm>> {
    each(file.auth.value()?, |spot, name, table| realm(spot, name, table, reader))
}

/// Reads every table of a kind.
fn each<T, R>(tables: &Named<T>, mut read: impl FnMut(&Spot, &str, &T) -> Option<R>) -> Option<Vec<R>> {
    let all: Vec<Option<R>> =
        tables.items.iter().map(|(spot, name, table)| read(spot, name, table)).collect();
    if !tables.complete {
        return None;
    }
    all.into_iter().collect()
}

fn limit(
    spot: &Spot,
    name: &str,
    table: &LimitTable,
    redis: Option<bool>,
    reader: &mut Reader<'_>,
) -> Option<Limit> {
    let (rate, in_flight) = (table.rate.optional()?, table.in_flight.optional()?);
    let fleet = *table.scope.value()? == Scope::Fleet;
    let mut right = true;
    let mut wrong = |reader: &mut Reader<'_>, problem: Problem| {
        reader.report(problem);
        right = false;
    };
    if rate.is_none() && in_flight.is_none() {
        wrong(reader, Problem::of(spot, "limits nothing").help("add rate = \"100/s\", or in_flight = 10"));
    }
    if rate.is_none() && in_flight.is_some() {
        for (set, key) in [(table.burst.written, "burst"), (fleet, "scope")] {
            let at = if key == "burst" { &table.burst.spot } else { &table.scope.spot };
            if set {
                let help = format!("add `rate`, or remove `{key}`");
                wrong(reader, Problem::of(at, "it has no effect without a rate").help(help));
            }
        }
    }
    if fleet && redis == Some(false) {
        let problem = Problem::of(&table.scope.spot, "there is no Redis by which a fleet could count");
        wrong(reader, problem.help("set redis.url, or write scope = \"gateway\""));
    }
    if !fleet && table.without_redis.written {
        let problem = Problem::of(
            &table.without_redis.spot,
            "it has no effect on a limit that each gateway counts for itself",
        );
        wrong(reader, problem.help("write scope = \"fleet\", or remove `without_redis`"));
    }
    let burst = table.burst.optional()?.map(|burst| burst.as_u32());
    right.then_some(())?;
    Some(Limit {
        name: LimitName::from(name),
        key: table.key.value()?.clone(),
        rate: rate.map(|rate| Rate {
            count: rate.count,
            period: rate.period,
            burst: burst.unwrap_or(rate.count),
        }),
        in_flight: in_flight.map(|most| most.as_u32()),
        fleet,
        without_redis: *table.without_redis.value()?,
        hits: *table.hits.value()? == Hits::Count,
        status: StatusCode::from_u16(table.status.value()?.as_u16()).ok()?,
        tell: *table.tell.value()?,
        most_keys: table.most_keys.value()?.as_usize(),
    })
}

fn access_list(spot: &Spot, table: &AccessTable, reader: &mut Reader<'_>) -> Option<Access> {
    let allow = networks(table.allow.value()?, table.allow_files.value()?, reader);
    let deny = networks(table.deny.value()?, table.deny_files.value()?, reader);
    let (allow, deny) = (allow?, deny?);
    if allow.is_empty() && deny.is_empty() {
        reader.report(
            Problem::of(spot, "it keeps nobody out")
                .help("add allow = [\"192.0.2.0/24\"], or deny = [\"192.0.2.66\"]"),
        );
        return None;
    }
    Some(Access::new(&allow, &deny))
}

fn networks(list: &List<Network>, files: &List<FilePath>, reader: &mut Reader<'_>) -> Option<Vec<IpNet>> {
    let mut networks: Vec<IpNet> = list.all()?.map(|network| network.0).collect();
    files.complete.then_some(())?;
    for (spot, file) in &files.items {
        let text = file_text(&file.0, spot, reader)?;
        match access::read_list(&text) {
            Ok(more) => networks.extend(more),
            Err(line) => {
                reader.report(
                    Problem::of(spot, format!("line {line} of this file is not a network or an address"))
                        .help("write one a line, like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7; `#` begins a comment"),
                );
                return None;
            }
        }
    }
    Some(networks)
}

fn file_text(path: &Path, spot: &Spot, reader: &mut Reader<'_>) -> Option<String> {
    match read_file(path) {
        Ok(text) => Some(text),
        Err(why) => {
            reader.report(Problem::of(spot, format!("cannot read {}: {why}", path.display())));
            None
        }
    }
}

fn realm(spot: &Spot, name: &str, table: &AuthTable, reader: &mut Reader<'_>) -> Option<Realm> {
    let lines = table.users.value()?;
    let mut users = Users::default();
    for (spot, line) in &lines.items {
        add_user(&mut users, &line.0, spot, None, reader)?;
    }
    lines.complete.then_some(())?;
    if let Some(file) = table.users_file.optional()? {
        let at = &table.users_file.spot;
        let text = file_text(&file.0, at, reader)?;
        let lines = text.lines().map(str::trim_end).enumerate();
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            add_user(&mut users, line, at, Some(number + 1), reader)?;
        }
    }
    if users.is_empty() {
        reader.report(
            Problem::of(spot, "nobody could ever sign in")
                .help("add users = [\"NAME:HASH\"] or users_file = \"PATH\"; `vanne hash-password --user NAME` makes a line"),
        );
        return None;
    }
    Some(Realm {
        name: RealmName::from(name),
        realm: table.realm.value()?.0.clone(),
        users: Arc::new(users),
        remember: time(&table.remember)?,
        pass: *table.authorization.value()? == Authorization::Pass,
    })
}

fn add_user(
    users: &mut Users,
    line: &str,
    spot: &Spot,
    number: Option<usize>,
    reader: &mut Reader<'_>,
) -> Option<()> {
    users
        .add(line)
        .map_err(|why| {
            let at = number.map_or(String::new(), |number| format!("line {number} of this file: "));
            reader.report(Problem::of(spot, format!("{at}{why}")).help(user_help(why, line)));
        })
        .ok()
}

fn sites(table: &CorsTable, reader: &mut Reader<'_>) -> Option<Rules> {
    let origins = origins(table, reader);
    let methods = methods(table.methods.value()?, reader);
    let headers = names(&table.headers.value()?.0, reader);
    Some(Rules {
        origins: origins?,
        methods: methods?,
        headers: headers?,
        expose: table.expose.value()?.all()?.cloned().collect(),
        credentials: *table.credentials.value()?,
        max_age: time(&table.max_age)?,
    })
}

fn origins(table: &CorsTable, reader: &mut Reader<'_>) -> Option<Origins> {
    let list = &table.origins.value()?.0;
    list.complete.then_some(())?;
    if let [(spot, text)] = list.items.as_slice()
        && text.0 == "*"
    {
        if table.credentials.value() == Some(&true) {
            reader.report(
                Problem::of(
                    spot,
                    "with credentials, every page of the web could read what its visitors may read here",
                )
                .also(&table.credentials.spot, "the credentials")
                .help("name the sites, or remove `credentials`"),
            );
            return None;
        }
        return Some(Origins::Any);
    }
    let mut sites = Vec::new();
    let mut right = !list.items.is_empty();
    if !right {
        reader.report(
            Problem::of(&table.origins.spot, "it names no site")
                .help("write origins = [\"https://app.example.com\"]"),
        );
    }
    for (spot, text) in &list.items {
        match Origin::parse(&text.0) {
            Some(site) => sites.push(site),
            None => {
                right = false;
                let help = match text.0.as_str() {
                    "*" => "\"*\" is all sites, so it stands alone".to_owned(),
                    "null" => "every page can make its origin null; name the site instead".to_owned(),
                    _ => "write scheme, host and port in lower case and nothing after them, like \"https://app.example.com\" or \
                          \"https://*.example.com:8443\""
                        .to_owned(),
                };
                reader.report(
                    Problem::of(spot, format!("\"{}\" is not a site", text.0.escape_debug())).help(help),
                );
            }
        }
    }
    right.then_some(Origins::These(sites))
}

fn methods(list: &List<Text>, reader: &mut Reader<'_>) -> Option<Vec<Method>> {
    let mut methods = Vec::new();
    let mut right = list.complete;
    for (spot, text) in &list.items {
        match Method::from_bytes(text.0.as_bytes()) {
            Ok(method) => methods.push(method),
            Err(_) => {
                right = false;
                let shown = text.0.escape_debug();
                reader.report(
                    Problem::of(spot, format!("\"{shown}\" is not a method")).help("write it like \"PUT\""),
                );
            }
        }
    }
    right.then_some(methods)
}

fn names(list: &List<Text>, reader: &mut Reader<'_>) -> Option<Names> {
    if let [(_, text)] = list.items.as_slice()
        && text.0 == "*"
    {
        return Some(Names::Any);
    }
    let mut names = Vec::new();
    let mut right = list.complete;
    for (spot, text) in &list.items {
        match HeaderName::try_from(text.0.as_str()) {
            Ok(name) if text.0 != "*" => names.push(name),
            _ => {
                right = false;
                let shown = text.0.escape_debug();
                reader.report(
                    Problem::of(spot, format!("\"{shown}\" is not the name of a header field"))
                        .help("write it like \"X-Tenant\"; \"*\" alone is any"),
                );
            }
        }
    }
    right.then_some(Names::These(names))
}

fn security(table: &SecurityTable, reader: &mut Reader<'_>) -> Option<Security> {
    let age = time(&table.hsts)?;
    let (subdomains, preload) = (*table.hsts_subdomains.value()?, *table.hsts_preload.value()?);
    if age.is_zero() && (subdomains || preload) {
        reader.report(
            Problem::of(
                &table.hsts.spot,
                "with \"0s\" nothing is said, neither for subdomains nor for preloading",
            )
            .help("write hsts = \"365d\", or remove hsts_subdomains and hsts_preload"),
        );
        return None;
    }
    let referrer = value(&table.referrer_policy, reader);
    let content = value(&table.content_security_policy, reader);
    let permissions = value(&table.permissions_policy, reader);
    let opener = value(&table.opener_policy, reader);
    Some(Security::new(Wanted {
        hsts: (!age.is_zero()).then_some(Hsts { age, subdomains, preload }),
        nosniff: *table.nosniff.value()?,
        referrer: referrer?,
        frame: table.frame.value()?.0,
        content: content?,
        permissions: permissions?,
        opener: opener?,
    }))
}

/// `Some(None)`: it is empty.
fn value(set: &Set<Text>, reader: &mut Reader<'_>) -> Option<Option<HeaderValue>> {
    let text = &set.value()?.0;
    if text.is_empty() {
        return Some(None);
    }
    let value = HeaderValue::from_str(text).ok();
    if value.is_none() {
        reader.report(Problem::of(&set.spot, "a value has no line ends or other controls"));
    }
    value.map(Some)
}

fn edits(
    table: &EditTable,
    refused: impl Fn(&HeaderName) -> Option<&'static str>,
    reader: &mut Reader<'_>,
) -> Option<Edits> {
    let mut right = true;
    let mut may = |name: &HeaderName, spot: &Spot, reader: &mut Reader<'_>| {
        let why = refused(name);
        if let Some(why) = why {
            right = false;
            reader.report(Problem::of(spot, format!("\"{name}\" cannot be edited here")).help(why));
        }
        why.is_none()
    };
    let remove = table.remove.value()?;
    for (spot, name) in &remove.items {
        may(name, spot, reader);
    }
    let mut lines =
        |values: &Named<FieldValue>, reader: &mut Reader<'_>| -> Option<Vec<(HeaderName, Template)>> {
            let mut lines = Vec::new();
            let mut all = values.complete;
            for (spot, name, value) in &values.items {
                match HeaderName::try_from(name.as_str()) {
                    Ok(name) if may(&name, spot, reader) => lines.push((name, value.0.clone())),
                    Ok(_) => all = false,
                    Err(_) => {
                        all = false;
                        reader.report(Problem::of(spot, "it is not the name of a header field"));
                    }
                }
            }
            all.then_some(lines)
        };
    let set = lines(table.set.value()?, reader);
    let add = lines(table.add.value()?, reader);
    let edits = Edits { remove: remove.all()?.cloned().collect(), set: set?, add: add? };
    right.then_some(edits)
}

/// What a route asks for; `Some(None)`: nothing.
pub fn ward(
    file: &File,
    shared: &Shared,
    table: &RouteTable,
    reader: &mut Reader<'_>,
) -> Option<Option<Arc<Ward>>> {
    let access = named(&table.access, file.access.value()?, &ACCESS, reader);
    let realm = named(&table.auth, file.auth.value()?, &AUTH, reader);
    let cors = named(&table.cors, file.cors.value()?, &CORS, reader);
    let limits = route_limits(file, table, reader);
    let request = edits(table.request_headers.value()?, not_in_requests, reader);
    let answer = edits(table.response_headers.value()?, not_in_answers, reader);
    let security = match table.security_headers.value()? {
        OrOff::On(table) => security(table, reader).map(|security| Some(Arc::new(security))),
        OrOff::Off => Some(None),
    };
    let (access, realm, cors, request) = (access?, realm?, cors?, request?);
    shared_by_users(file, table, realm, &request, reader)?;
    twice_decided(table, cors, answer.as_ref()?, reader)?;
    let ward = Ward {
        access: access.map_or(Some(None), |at| shared.access.get(at)?.clone().map(Some))?,
        limits: limits?,
        cors: cors.map_or(Some(None), |at| shared.cors.get(at)?.clone().map(Some))?,
        realm,
        request,
        security: security?,
        answer: answer?,
    };
    let nothing = ward.access.is_none()
        && ward.limits.is_empty()
        && ward.cors.is_none()
        && ward.realm.is_none()
        && ward.request.is_empty()
        && ward.security.is_none()
        && ward.answer.is_empty();
    Some((!nothing).then(|| Arc::new(ward)))
}

/// `Some(None)`: none is named.
fn named<T>(
    set: &Set<Text>,
    among: &Named<T>,
    kind: &Kind,
    reader: &mut Reader<'_>,
) -> Option<Option<usize>> {
    match set.optional()? {
        Some(name) => resolve(&name.0, &set.spot, among, kind, reader).map(Some),
        None => Some(None),
    }
}

fn route_limits(file: &File, table: &RouteTable, reader: &mut Reader<'_>) -> Option<Vec<usize>> {
    let names = &table.limits.value()?.0;
    let among = file.limits.value()?;
    let mut right = names.complete;
    let mut limits = Vec::new();
    for (spot, name) in &names.items {
        match resolve(&name.0, spot, among, &LIMITS, reader) {
            Some(id) if limits.contains(&id) => {
                right = false;
                reader.report(
                    Problem::of(spot, format!("\"{}\" is named twice", name.0)).help("remove one of the two"),
                );
            }
            Some(id) => limits.push(id),
            None => right = false,
        }
    }
    right.then_some(limits)
}

/// What an instance answers to one user's name would be stored for all of them.
fn shared_by_users(
    file: &File,
    table: &RouteTable,
    realm: Option<usize>,
    request: &Edits,
    reader: &mut Reader<'_>,
) -> Option<()> {
    let told: Vec<&HeaderName> = (request.set.iter().chain(&request.add))
        .filter(|(_, template)| template.names(Variable::User))
        .map(|(name, _)| name)
        .collect();
    let spot = &table.request_headers.spot;
    if told.is_empty() {
        return Some(());
    }
    if realm.is_none() {
        reader.report(
            Problem::of(spot, "{user} is nobody without `auth`").help("add auth = \"NAME\", or remove it"),
        );
        return None;
    }
    let Some(cache) = table.cache.optional()? else { return Some(()) };
    let caches = file.caches.value()?;
    let position = caches.position(&cache.0.r#use.value()?.0)?;
    let key = caches.items[position].2.key.value()?.headers.value()?;
    let keyed = |name: &HeaderName| {
        *name != http::header::AUTHORIZATION && key.items.iter().any(|(_, own)| own == name)
    };
    let Some(open) = told.into_iter().find(|name| !keyed(name)) else { return Some(()) };
    reader.report(
        Problem::of(
            spot,
            format!("what is answered to one user in \"{open}\" would be stored and served to all of them"),
        )
        .also(&table.cache.spot, "by this cache")
        .help(format!("add \"{open}\" to key.headers of the cache, or remove `cache`")),
    );
    None
}

/// Two masters of the same fields: what a page may read would depend on which was written last.
fn twice_decided(
    table: &RouteTable,
    cors: Option<usize>,
    answer: &Edits,
    reader: &mut Reader<'_>,
) -> Option<()> {
    let names = answer.remove.iter().chain(answer.set.iter().chain(&answer.add).map(|(name, _)| name));
    let ours = names.into_iter().find(|name| OURS.contains(name));
    let Some(name) = ours.filter(|_| cors.is_some()) else { return Some(()) };
    reader.report(
        Problem::of(&table.response_headers.spot, format!("`cors` decides about \"{name}\" on this route"))
            .also(&table.cors.spot, "here")
            .help("remove one of the two"),
    );
    None
}

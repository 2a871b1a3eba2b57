//! Files that change while we run: read anew, all or nothing.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use super::{Server, files};

/// What tells two states of a file apart. A link that is pointed elsewhere, as orchestrators renew their secrets, is another state, too.
type State = Vec<Option<(SystemTime, u64, u64)>>;

/// Looks at the files of a listener again and again, and takes them over when they have changed and are right.
///
/// They are polled: what is watched through the kernel is lost when a folder is replaced or mounted from elsewhere, and a certificate is in no hurry.
/// Files that were caught between the writing of a certificate and that of its key are wrong for one look, and right at the next.
/// It ends with the server.
pub async fn run(server: Weak<Server>, listener: String, every: Duration) {
    let Some(first) = server.upgrade() else { return };
    let mut used = state(&first).await;
    drop(first);
    let mut wrong: Option<String> = None;
    loop {
        tokio::time::sleep(every).await;
        let Some(server) = server.upgrade() else { return };
        let now = state(&server).await;
        if now == used {
            continue;
        }
        let taking = server.clone();
        let taken = tokio::task::spawn_blocking(move || taking.reload()).await;
        match taken {
            Ok(Ok(())) => {
                server.metrics.reloaded("ok");
                tracing::info!(listener, "certificates changed and are in use");
                (used, wrong) = (now, None);
            }
            Ok(Err(problem)) => {
                let text = problem.to_string();
                // Said once, until something else is wrong.
                if wrong.as_ref() != Some(&text) {
                    server.metrics.reloaded("failed");
                    tracing::error!(
                        listener,
                        problem = text,
                        "certificates changed but are not used; those before stay in use"
                    );
                    wrong = Some(text);
                }
            }
            Err(_) => {}
        }
    }
}

async fn state(server: &Arc<Server>) -> State {
    use std::os::unix::fs::MetadataExt;
    let paths: Vec<_> = files::all(&server.plan).into_iter().map(ToOwned::to_owned).collect();
    let look = move || {
        let of = |path: &std::path::PathBuf| {
            let data = std::fs::metadata(path).ok()?;
            Some((data.modified().ok()?, data.len(), data.ino()))
        };
        paths.iter().map(of).collect()
    };
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

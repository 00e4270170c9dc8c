//! A running platform, and the usual ways to it.

use std::fs::{self, File};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use waangu_api::Ready;

use super::process::{self, Process};
use super::{Answer, Folder, Http, PASSWORD, Ran, run, until, waangu};

/// Longest wait for a start, on a machine that is busy with other tests.
const START: Duration = Duration::from_mins(1);

/// How long a deleted tenant's slug stays taken on the shared platform, in seconds.
pub(crate) const GRACE: u64 = 3;

static SHARED: OnceCell<Platform> = OnceCell::const_new();

/// The platform with the demo fleet that all tests share which break nothing.
pub(crate) async fn shared() -> &'static Platform {
    let grace = GRACE.to_string();
    let args = ["--demo", "--http-port", "0", "--name-grace", &grace];
    SHARED
        .get_or_init(|| Box::pin(Platform::start(Folder::new(), &args)))
        .await
}

/// A platform.
#[derive(Debug)]
pub(crate) struct Platform {
    up: Child,
    pub(crate) ready: Ready,
    // Dropped last: it ends what is left.
    pub(crate) folder: Arc<Folder>,
}

impl Platform {
    /// Starts in a folder, which may hold the state of an earlier one.
    pub(crate) async fn start(folder: impl Into<Arc<Folder>>, args: &[&str]) -> Self {
        let folder = folder.into();
        let (up, ready) = launch(&folder, args).await;
        Self { up, ready, folder }
    }

    /// Starts again, after it has ended.
    pub(crate) async fn again(&mut self, args: &[&str]) {
        (self.up, self.ready) = launch(&self.folder, args).await;
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.up.id()).unwrap()
    }

    pub(crate) fn http(&self) -> Http {
        Http::new(&self.ready.ca)
    }

    /// An address of the admin API.
    pub(crate) fn admin(&self, path: &str) -> String {
        format!("{}{path}", self.ready.admin.url)
    }

    /// An address of the directory.
    pub(crate) fn login(&self, path: &str) -> String {
        format!("{}{path}", self.ready.login)
    }

    /// An address below a tenant's own sub-domain.
    pub(crate) fn at(&self, slug: &str, path: &str) -> String {
        let (_, port) = self.ready.gateway.rsplit_once(':').unwrap();
        format!("https://{slug}.{}:{port}{path}", self.ready.domain)
    }

    /// A call of the admin API as the operator, which waits for the operation if there is one.
    pub(crate) async fn operate(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let call = self.http().call(method, &self.admin(path));
        let call = call
            .token(&self.ready.admin.token)
            .header("prefer", "wait=15");
        match body {
            Some(body) => call.json(body),
            None => call,
        }
        .send()
        .await
    }

    /// Does something that takes an operation, which has to succeed.
    pub(crate) async fn change(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let accepted = self.operate(method, path, body).await.expect(202);
        assert_eq!(accepted["status"], "succeeded", "{accepted}");
        accepted
    }

    /// Onboards a tenant of Senegal with an administrator `root`.
    pub(crate) async fn tenant(&self, slug: &str, tier: &str) -> Value {
        let wish = json!({ "slug": slug, "name": slug, "country": "SN", "tier": tier });
        let accepted = self.change("POST", "/tenants", Some(&wish)).await;
        self.user(slug, "root", &["tenant-admin"]).await;
        accepted
    }

    pub(crate) async fn user(&self, slug: &str, username: &str, roles: &[&str]) {
        let user = json!({ "username": username, "password": PASSWORD, "roles": roles });
        let path = format!("/tenants/{slug}/users");
        self.operate("POST", &path, Some(&user)).await.expect(201);
    }

    /// The password grant.
    pub(crate) async fn token(&self, name: &str, password: &str) -> Answer {
        let form = [
            ("grant_type", "password"),
            ("username", name),
            ("password", password),
        ];
        self.http()
            .post(&self.login("/token"))
            .form(&form)
            .send()
            .await
    }

    /// A token of somebody who may sign in.
    pub(crate) async fn sign_in(&self, name: &str, password: &str) -> String {
        let reply = self.token(name, password).await.expect(200);
        reply["access_token"].as_str().unwrap().to_owned()
    }

    /// The password of the demo fleet's people.
    pub(crate) fn demo_password(&self) -> &str {
        &self.ready.demo.as_ref().unwrap().password
    }

    /// All tenants, by age.
    pub(crate) async fn tenants(&self) -> Vec<Value> {
        let page = self.operate("GET", "/tenants?limit=200", None).await;
        page.expect(200)["items"].as_array().unwrap().clone()
    }

    /// Runs the command line against this platform.
    pub(crate) async fn cli(&self, args: &[&str]) -> Ran {
        let (state, ready) = (self.folder.state(), self.folder.join("ready.json"));
        let mut all = vec!["--state", state.to_str().unwrap()];
        all.extend(["--ready-file", ready.to_str().unwrap()]);
        all.extend(args);
        run(&all).await
    }

    /// The child process whose command line has all of these words.
    pub(crate) fn child(&self, words: &[&str]) -> Option<Process> {
        process::descendants(self.pid())
            .into_iter()
            .find(|child| words.iter().all(|word| child.command.contains(word)))
    }

    pub(crate) fn control(&self) -> Option<Process> {
        self.child(&["waangu control "])
    }

    pub(crate) fn gateway(&self) -> Option<Process> {
        self.child(&["waangu gateway "])
    }

    pub(crate) fn inventory(&self) -> Option<Process> {
        self.child(&["waangu-inventory serve "])
    }

    /// The PostgreSQL server of a cell, in the order of the ready file.
    pub(crate) fn postgres(&self, cell: usize) -> Option<Process> {
        let folder = format!("/pg/{}/data", self.ready.cells[cell].id);
        self.child(&["postgres -D ", &folder])
    }

    /// Sends `up` a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(up) = Process::find(self.pid()) {
            up.signal(signal);
        }
    }

    /// Waits for the end of `up`.
    pub(crate) async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let up = &mut self.up;
        until("`up` ends", limit, async || up.try_wait().unwrap()).await
    }

    /// Ends everything at once, as a power cut does.
    pub(crate) async fn kill_everything(&mut self) {
        let mut all = process::descendants(self.pid());
        all.extend(Process::find(self.pid()));
        // What restarts others goes first.
        for process in all.iter().rev() {
            process.signal(Signal::KILL);
        }
        self.ended(Duration::from_secs(5)).await;
        let gone = async || process::alive(&all).is_empty().then_some(());
        until("all are dead", Duration::from_secs(10), gone).await;
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        // Reaped here, so that the folder's watchdog sees it go.
        drop(self.up.wait());
    }
}

async fn launch(folder: &Folder, args: &[&str]) -> (Child, Ready) {
    let mut up = spawn(folder, args);
    let file = folder.join("ready.json");
    let pid = up.id();
    let ready = until("the platform is ready", START, async || {
        if let Some(status) = up.try_wait().unwrap() {
            panic!("`up` ended ({status}): {}", folder.said());
        }
        let ready: Ready = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
        // An earlier one may have been killed before it could remove its file.
        (ready.pid == pid).then_some(ready)
    })
    .await;
    (up, ready)
}

/// Starts `up` and does not wait for it.
pub(crate) fn spawn(folder: &Folder, args: &[&str]) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("up.log"))
        .unwrap();
    Command::new(waangu())
        .arg("up")
        .arg("--state")
        .arg(folder.state())
        .arg("--ready-file")
        .arg(folder.join("ready.json"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

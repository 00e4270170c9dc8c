//! Mistakes: each is refused with a documented code, names its field, and leaves nothing half-made.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::support::http::Call;
use crate::support::{Answer, Http, PASSWORD, Platform, Session, run, shared};

mod fields;
mod requests;
mod tenants;

/// What was tried, and what was said to it: one line each.
struct Matrix<'a> {
    platform: &'a Platform,
    http: Http,
    documented: BTreeSet<String>,
    lines: Vec<String>,
}

impl<'a> Matrix<'a> {
    async fn new(platform: &'a Platform) -> Self {
        Self {
            platform,
            http: platform.http(),
            documented: documented(platform).await,
            lines: Vec::new(),
        }
    }

    /// A call as the operator.
    fn call(&self, method: &str, path: &str) -> Call {
        let call = self.http.call(method, &self.platform.admin(path));
        call.token(&self.platform.ready.admin.token)
    }

    /// Sends a request with a mistake and notes the answer.
    async fn wrong(&mut self, what: &str, call: Call) {
        let answer = call.send().await;
        self.note(what, &answer);
    }

    fn note(&mut self, what: &str, answer: &Answer) {
        let (status, code, field) = answer.problem();
        assert!((400..500).contains(&status), "{what}: {}", answer.text);
        let known = self.documented.contains(&code);
        assert!(known, "{what}: {code} is not documented");
        let field = field.map(|field| format!(" ({field})")).unwrap_or_default();
        self.lines.push(format!("{what}: {status} {code}{field}"));
    }

    /// A JSON body with a mistake in it.
    async fn body(&mut self, what: &str, method: &str, path: &str, body: Value) {
        let call = self.call(method, path).json(&body);
        self.wrong(what, call).await;
    }

    /// `POST /tenants` with a mistake in one field.
    async fn tenant(&mut self, what: &str, mistake: Value) {
        let mut wish = json!({ "slug": "bad-wish", "name": "Bad", "country": "SN" });
        for (name, value) in mistake.as_object().unwrap() {
            wish[name] = value.clone();
        }
        self.body(what, "POST", "/tenants", wish).await;
    }
}

/// The codes that have a page.
async fn documented(platform: &Platform) -> BTreeSet<String> {
    let folder = platform.folder.join("errors");
    let out = folder.to_str().unwrap();
    let ran = run(&["docs", "errors", "--out", out]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let pages = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    pages
        .map(|page| page.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}

/// The tenants that stand while the mistakes are made, and everything that is kept of such names.
async fn kept(platform: &Platform) -> (Vec<Value>, Vec<String>) {
    let ours = |view: &Value| view["slug"].as_str().unwrap().starts_with("bad-");
    let tenants = platform.tenants().await.into_iter().filter(ours).collect();
    let registry = Session::open(&platform.ready.control_dsn).await;
    let rows = "
        select concat_ws(' ', t.slug, t.state, t.generation, t.observed_generation
                       , (select count(*) from registry.operation o where o.tenant_id = t.id)
                       , (select count(*) from registry.app_user u where u.tenant_id = t.id)
                       , (select count(*) from registry.entitlement e where e.tenant_id = t.id)
                       , (select count(*) from registry.activation a where a.tenant_id = t.id))
          from registry.tenant t where t.slug like 'bad-%' or t.slug !~ '^[a-z]' order by 1";
    (tenants, registry.texts(rows).await)
}

/// Somebody who mistypes must be told which field and why, and find everything as it was: a tenant
/// that half exists can be neither used nor made again.
#[tokio::test]
async fn mistakes_are_named_and_leave_nothing_behind() {
    let platform = shared().await;
    platform.tenant("bad-host", "shared").await;
    let below = |slug: &str, parent: &str| json!({ "slug": slug, "name": slug, "country": "SN", "parent": parent });
    platform
        .change("POST", "/tenants", Some(&below("bad-child", "bad-host")))
        .await;
    platform
        .change(
            "POST",
            "/tenants",
            Some(&below("bad-grandchild", "bad-child")),
        )
        .await;
    let german = json!({ "slug": "bad-german", "name": "German", "country": "DE" });
    platform.change("POST", "/tenants", Some(&german)).await;
    let before = kept(platform).await;

    let mut matrix = Matrix::new(platform).await;
    tenants::create(&mut matrix).await;
    tenants::create_with_more(&mut matrix).await;
    tenants::change(&mut matrix).await;
    tenants::versions_and_nobodies(&mut matrix).await;
    fields::new_entitlements(&mut matrix).await;
    fields::plans(&mut matrix).await;
    fields::entitlements_and_modules(&mut matrix).await;
    fields::users(&mut matrix).await;
    requests::bodies(&mut matrix).await;
    requests::headers(&mut matrix).await;
    requests::addresses(&mut matrix).await;
    let lines = matrix.lines.join("\n");

    assert_eq!(kept(platform).await, before);
    platform.sign_in("root@bad-host", PASSWORD).await;
    insta::assert_snapshot!(lines);
}

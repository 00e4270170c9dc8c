//! Somebody of a tenant who works with the inventory module, through the gateway.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Answer, Http, PASSWORD, Platform, until};

/// A signed-in person.
#[derive(Debug)]
pub(crate) struct Shop {
    http: Http,
    base: String,
    pub(crate) token: String,
}

impl Shop {
    /// `root` of a tenant made by [`Platform::tenant`].
    pub(crate) async fn open(platform: &Platform, slug: &str) -> Self {
        let token = platform.sign_in(&format!("root@{slug}"), PASSWORD).await;
        Self::with(platform, slug, token)
    }

    pub(crate) fn with(platform: &Platform, slug: &str, token: String) -> Self {
        Self {
            http: platform.http(),
            base: platform.at(slug, "/api/inventory"),
            token,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.attempt(path).await.unwrap()
    }

    pub(crate) async fn attempt(&self, path: &str) -> Result<Answer, reqwest::Error> {
        let url = format!("{}{path}", self.base);
        self.http.get(&url).token(&self.token).attempt().await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body).await.unwrap()
    }

    pub(crate) async fn try_post(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<Answer, reqwest::Error> {
        let url = format!("{}{path}", self.base);
        let call = self.http.post(&url).token(&self.token).json(body);
        call.attempt().await
    }

    /// Waits until a look at the products is answered so: what an operation has done reaches the
    /// gateway a moment after the operation has succeeded.
    pub(crate) async fn sees(&self, status: u16, code: Option<&str>) {
        let what = format!("the gateway answers {status} {code:?}");
        until(&what, Duration::from_secs(3), async || {
            let answer = self.get("/products").await;
            let same = answer.status == status;
            let named = same && code.is_none_or(|code| answer.problem().1 == code);
            named.then_some(())
        })
        .await;
    }

    /// Creates a product; returns its id.
    pub(crate) async fn product(&self, sku: &str) -> String {
        let body = json!({ "sku": sku, "name": sku });
        id(&self.post("/products", &body).await.expect(201))
    }

    /// Creates a warehouse; returns its id.
    pub(crate) async fn place(&self, code: &str) -> String {
        let body = json!({ "code": code, "name": code, "kind": "warehouse" });
        id(&self.post("/places", &body).await.expect(201))
    }

    /// The SKUs of all products.
    pub(crate) async fn skus(&self) -> Vec<String> {
        let page = self.get("/products?limit=200").await.expect(200);
        let items = page["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["sku"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn id(created: &Value) -> String {
    created["id"].as_str().unwrap().to_owned()
}

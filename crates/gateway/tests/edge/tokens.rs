//! Which tokens are believed.

use std::sync::atomic::Ordering;

use base64_url::encode;
use waangu_identity::{AccessClaims, TokenIssuer};

use crate::stage::{self, Stage, ask, empty, signing_key};

const PRODUCTS: &str = "/api/inventory/products";

/// Just enough base64url (RFC 4648 §5) to forge a token.
mod base64_url {
    pub(super) fn encode(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        bytes
            .chunks(3)
            .flat_map(|chunk| {
                let word = (0..3).fold(0_usize, |word, place| {
                    word << 8 | chunk.get(place).map_or(0, |byte| usize::from(*byte))
                });
                (0..=chunk.len())
                    .map(move |digit| char::from(DIGITS[word >> (18 - 6 * digit) & 63]))
            })
            .collect()
    }
}

async fn refuses(stage: &Stage, what: &str, token: &str) {
    let got = stage.as_user(token, "GET", "acme", PRODUCTS).await;
    let found = (got.status.as_u16(), got.code());
    assert_eq!(found, (401, "unauthenticated".to_owned()), "{what}");
    assert_eq!(got.header("www-authenticate"), "Bearer", "{what}");
    assert_eq!(
        stage.module_seen.requests.load(Ordering::SeqCst),
        0,
        "{what}"
    );
}

/// Each of these was made by somebody who has no key.
#[tokio::test]
async fn forged_tokens_are_refused() {
    let stage = Stage::new().await;
    let claims = stage::claims(stage.people.admin, "acme");
    let good = stage.issuer.issue(&claims).unwrap();
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts.as_slice() else {
        panic!("not a token: {good}");
    };
    let under = |header: &str, signature: &str| {
        format!("{}.{payload}.{signature}", encode(header.as_bytes()))
    };
    let beta = AccessClaims {
        tenant: "beta".to_owned(),
        ..claims.clone()
    };
    let beta = encode(serde_json::to_string(&beta).unwrap().as_bytes());
    let hmac = r#"{"alg":"HS256","typ":"at+jwt","kid":"x"}"#;
    let path = r#"{"alg":"EdDSA","typ":"at+jwt","kid":"../../dev/null"}"#;
    for (what, token) in [
        ("empty", String::new()),
        ("garbage", "a.b.c".to_owned()),
        ("none", under(r#"{"alg":"none","typ":"at+jwt"}"#, "")),
        ("None", under(r#"{"alg":"None","typ":"at+jwt"}"#, signature)),
        ("hmac", under(hmac, signature)),
        ("kid is a path", under(path, signature)),
        (
            "no kid",
            under(r#"{"alg":"EdDSA","typ":"at+jwt"}"#, signature),
        ),
        ("other body", format!("{header}.{beta}.{signature}")),
        ("no signature", format!("{header}.{payload}.")),
        (
            "stranger",
            TokenIssuer::new(signing_key()).issue(&claims).unwrap(),
        ),
        ("huge", "a".repeat(9000)),
    ] {
        refuses(&stage, what, &token).await;
    }
    stage.end().await;
}

/// Each of these was signed by our directory, but not for this.
#[tokio::test]
async fn tokens_for_something_else_are_refused() {
    let stage = Stage::new().await;
    let good = stage::claims(stage.people.admin, "acme");
    let signed = |change: &dyn Fn(&mut AccessClaims)| {
        let mut claims = good.clone();
        change(&mut claims);
        stage.issuer.issue(&claims).unwrap()
    };
    for (what, token) in [
        ("id token", stage.issuer.issue_id_token(&good).unwrap()),
        (
            "other issuer",
            signed(&|c| c.iss = "https://evil.test".to_owned()),
        ),
        ("other audience", signed(&|c| c.aud = "other".to_owned())),
        ("from the future", signed(&|c| c.iat += 3600)),
        ("not a user", signed(&|c| c.sub = "root".to_owned())),
        ("not a tenant", signed(&|c| c.tenant = "../acme".to_owned())),
    ] {
        refuses(&stage, what, &token).await;
    }
    let expired = signed(&|c| (c.exp, c.iat) = (c.iat - 60, c.iat - 400));
    let got = stage.as_user(&expired, "GET", "acme", PRODUCTS).await;
    assert_eq!(
        (got.status.as_u16(), got.code().as_str()),
        (401, "token-expired")
    );
    assert_eq!(got.header("www-authenticate"), "Bearer");
    stage.end().await;
}

/// Without a token there is nobody to speak to; with two it is not clear who speaks.
#[tokio::test]
async fn exactly_one_bearer_token_is_needed() {
    let stage = Stage::new().await;
    let none = ask("GET", "acme", PRODUCTS);
    let basic = ask("GET", "acme", PRODUCTS).header("authorization", "Basic YTpi");
    let good = stage.token(stage.people.admin, "acme");
    let again = format!("Bearer {good}");
    let twice = stage
        .request("GET", PRODUCTS)
        .header("authorization", again);
    let in_query = ask("GET", "acme", &format!("{PRODUCTS}?access_token={good}"));
    for request in [none, basic, twice, in_query] {
        let got = stage.client.send(empty(request)).await;
        assert_eq!(
            (got.status.as_u16(), got.code().as_str()),
            (401, "unauthenticated")
        );
    }
    stage.end().await;
}

/// A token that was good a moment ago is remembered; it must still end when its time is over.
#[tokio::test]
async fn a_remembered_token_still_expires() {
    let stage = Stage::new().await;
    let mut claims = stage::claims(stage.people.admin, "acme");
    // Within the accepted clock difference of 30 s for three more seconds.
    claims.exp = claims.iat - 28;
    claims.iat -= 300;
    let token = stage.issuer.issue(&claims).unwrap();
    assert_eq!(
        stage.as_user(&token, "GET", "acme", PRODUCTS).await.status,
        200
    );
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    assert_eq!(
        stage.as_user(&token, "GET", "acme", PRODUCTS).await.code(),
        "token-expired"
    );
    stage.end().await;
}

//! The built-in directory as an OpenID Connect client sees it.

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

use crate::support::{Answer, PASSWORD, Platform, Shop, shared};

/// The example of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

const REDIRECT: &str = "http://127.0.0.1:4000/auth/callback";

async fn discovery(platform: &Platform) -> Value {
    let url = platform.login("/.well-known/openid-configuration");
    platform.http().get(&url).send().await.expect(200)
}

/// The claims of a token, if the directory's published keys say that it is theirs.
async fn verified(platform: &Platform, token: &str, audience: &str) -> Value {
    let document = discovery(platform).await;
    let jwks = platform.http().get(document["jwks_uri"].as_str().unwrap());
    let jwks: JwkSet = serde_json::from_value(jwks.send().await.expect(200)).unwrap();
    let kid = decode_header(token).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(jwks.find(&kid).unwrap()).unwrap();
    let mut rules = Validation::new(Algorithm::EdDSA);
    rules.set_audience(&[audience]);
    rules.set_issuer(&[document["issuer"].as_str().unwrap()]);
    decode::<Value>(token, &key, &rules).unwrap().claims
}

/// The parameters of a good authorization request, but for some.
fn request<'a>(but: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all = vec![
        ("client_id", "waangu"),
        ("redirect_uri", REDIRECT),
        ("response_type", "code"),
        ("scope", "openid"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
        ("state", "a state & more"),
        ("nonce", "once"),
    ];
    for (name, value) in but {
        all.retain(|(known, _)| known != name);
        all.push((name, value));
    }
    all
}

/// The value of an attribute in a line of HTML.
fn attribute(line: &str, name: &str) -> String {
    let (_, rest) = line.split_once(&format!("{name}=\"")).unwrap();
    let (value, _) = rest.split_once('"').unwrap();
    value.replace("&quot;", "\"").replace("&amp;", "&")
}

/// Opens the form as a browser does, and sends it with these words typed in.
async fn submit(platform: &Platform, name: &str, password: &str) -> Answer {
    let url = platform.login("/authorize");
    let page = platform.http().get(&url).query(&request(&[])).send().await;
    assert_eq!(page.status, 200, "{}", page.text);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    let form = page
        .text
        .lines()
        .find(|line| line.contains("<form"))
        .unwrap();
    let action = platform.login(&attribute(form, "action"));
    let hidden = page
        .text
        .lines()
        .filter(|line| line.contains("type=\"hidden\""));
    let mut fields: Vec<(String, String)> = hidden
        .map(|line| (attribute(line, "name"), attribute(line, "value")))
        .collect();
    fields.push(("username".to_owned(), name.to_owned()));
    fields.push(("password".to_owned(), password.to_owned()));
    platform.http().post(&action).form(&fields).send().await
}

/// A code for a person of the shared tenant `people`.
async fn code(platform: &Platform) -> String {
    let sent = submit(platform, "root@people", PASSWORD).await;
    assert_eq!(sent.status, 303, "{}", sent.text);
    let location = reqwest::Url::parse(sent.header("location").unwrap()).unwrap();
    assert!(location.as_str().starts_with(REDIRECT), "{location}");
    let value = |name: &str| {
        let mut pairs = location.query_pairs();
        pairs
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    assert_eq!(value("state").as_deref(), Some("a state & more"));
    assert_eq!(value("iss").as_deref(), Some(platform.ready.login.as_str()));
    value("code").unwrap()
}

/// Trades a code for tokens, with some parameters changed.
async fn trade(platform: &Platform, code: &str, but: &[(&str, &str)]) -> Answer {
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("client_id", "waangu"),
        ("redirect_uri", REDIRECT),
        ("code", code),
        ("code_verifier", VERIFIER),
    ];
    for (name, value) in but {
        form.retain(|(known, _)| known != name);
        form.push((name, value));
    }
    let url = platform.login("/token");
    platform.http().post(&url).form(&form).send().await
}

fn denied(answer: &Answer, error: &str) {
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert_eq!(answer.json()["error"], error);
    assert!(!answer.text.contains("access_token"), "{}", answer.text);
}

/// Libraries configure themselves from this document: an address that does not answer, or a method
/// that is not offered, fails at the client's, where nobody finds it.
#[tokio::test]
async fn the_discovery_document_says_what_is_there() {
    let platform = shared().await;
    let document = discovery(platform).await;
    assert_eq!(document["issuer"], platform.ready.login.as_str());
    let http = platform.http();
    let at = |name: &str| document[name].as_str().unwrap().to_owned();
    for (name, value) in document.as_object().unwrap() {
        if name.ends_with("_endpoint") || name.ends_with("_uri") {
            let answer = http.get(value.as_str().unwrap()).send().await;
            assert_ne!(answer.status, 404, "{name}: {}", answer.text);
            assert!(answer.status < 500, "{name}: {}", answer.text);
        }
    }
    let keys = http.get(&at("jwks_uri")).send().await.expect(200);
    assert!(!keys["keys"].as_array().unwrap().is_empty());
    assert!(
        !keys.to_string().contains("\"d\""),
        "a private key is public"
    );
    let form = http.get(&at("authorization_endpoint")).query(&request(&[]));
    assert_eq!(form.send().await.status, 200);
    assert_eq!(
        document["code_challenge_methods_supported"],
        serde_json::json!(["S256"])
    );
    for grant in document["grant_types_supported"].as_array().unwrap() {
        let form = [("grant_type", grant.as_str().unwrap())];
        let answer = http.post(&at("token_endpoint")).form(&form).send().await;
        denied(&answer, "invalid_request");
    }
    let form = [("grant_type", "refresh_token")];
    let answer = http.post(&at("token_endpoint")).form(&form).send().await;
    denied(&answer, "unsupported_grant_type");
}

/// Anybody may check a token with the published keys; one that carried roles would keep them after
/// they were taken away.
#[tokio::test]
async fn published_keys_verify_tokens() {
    let platform = shared().await;
    let token = platform
        .sign_in("awa@teranga-market", platform.demo_password())
        .await;
    let claims = verified(platform, &token, "waangu").await;
    assert_eq!(claims["tenant"], "teranga-market");
    assert_eq!(claims["preferred_username"], "awa");
    assert!(claims.get("roles").is_none(), "{claims}");
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((60..=3600).contains(&life), "{claims}");

    // One letter of the signature changed.
    let (head, tail) = token.split_at(token.len() - 10);
    let other = if tail.starts_with('A') { "B" } else { "A" };
    let forged = format!("{head}{other}{}", &tail[1..]);
    let shop = Shop::with(platform, "teranga-market", forged);
    shop.get("/products").await.refused(401, "unauthenticated");
}

/// How every person signs in: a browser, a form, a code, a token.
#[tokio::test]
async fn a_browser_signs_in_with_code_and_pkce() {
    let platform = shared().await;
    platform.tenant("people", "shared").await;
    let code_once = code(platform).await;
    let reply = trade(platform, &code_once, &[]).await;
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let reply = reply.expect(200);
    assert_eq!(reply["token_type"], "Bearer");
    let id = verified(platform, reply["id_token"].as_str().unwrap(), "waangu").await;
    assert_eq!(
        (&id["nonce"], &id["tenant"]),
        (&"once".into(), &"people".into())
    );
    let token = reply["access_token"].as_str().unwrap();
    Shop::with(platform, "people", token.to_owned())
        .product("A")
        .await;

    // Overheard codes are worth nothing.
    denied(&trade(platform, &code_once, &[]).await, "invalid_grant");
    for (name, value) in [
        (
            "code_verifier",
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXl",
        ),
        ("code_verifier", CHALLENGE),
        ("redirect_uri", "http://127.0.0.1:4001/auth/callback"),
        ("client_id", "other"),
    ] {
        let fresh = code(platform).await;
        denied(
            &trade(platform, &fresh, &[(name, value)]).await,
            "invalid_grant",
        );
        // A code is for one try.
        denied(&trade(platform, &fresh, &[]).await, "invalid_grant");
    }
    let wrong = submit(platform, "root@people", "not the password").await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.header("location").is_none());
    assert!(wrong.text.contains("role=\"alert\""), "{}", wrong.text);
}

/// A code sent to a stranger, or one that can be used without its verifier, is an account given away.
#[tokio::test]
async fn requests_that_would_give_a_code_away_are_refused() {
    let platform = shared().await;
    let url = platform.login("/authorize");
    for (what, value) in [
        ("code_challenge_method", "plain"),
        ("code_challenge", "short"),
        ("redirect_uri", "https://evil.example/auth/callback"),
        (
            "redirect_uri",
            "http://localhost.evil.example:4000/auth/callback",
        ),
        ("response_type", "token"),
        ("client_id", "other"),
    ] {
        let but = request(&[(what, value)]);
        let shown = platform.http().get(&url).query(&but).send().await;
        let mut form = but.clone();
        form.extend([("username", "awa@teranga-market")]);
        form.extend([("password", platform.demo_password())]);
        let sent = platform.http().post(&url).form(&form).send().await;
        for answer in [shown, sent] {
            assert!(
                (400..500).contains(&answer.status),
                "{what}={value}: {}",
                answer.text
            );
            assert!(answer.header("location").is_none(), "{what}={value}");
        }
    }
    // No PKCE at all.
    let mut bare = request(&[]);
    bare.retain(|(name, _)| !name.starts_with("code_challenge"));
    let answer = platform.http().get(&url).query(&bare).send().await;
    assert_eq!(answer.status, 400, "{}", answer.text);
}

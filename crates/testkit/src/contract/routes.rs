//! Attacks over HTTP: another tenant's ids on every route, and contexts that are not for it.

use http::Method;
use waangu_identity::context::CONTEXT_HEADER;
use waangu_identity::proof::Access;
use waangu_identity::{ContextSigner, RequestContext, SigningKey};
use waangu_kernel::manifest::Scope;
use waangu_kernel::placement::{Place, Tier};

use super::{Example, Party, Stage, is_refused, nobodys};
use crate::world::{Answer, Caller, EVERYTHING};

pub(super) async fn attack(stage: &Stage<'_>) {
    every_route_has_an_example(stage);
    foreign_ids_are_unknown_ids(stage).await;
    lists_hold_own_rows_only(stage).await;
    other_contexts_are_refused(stage).await;
    if stage.tier == Tier::Shared {
        without_policies_an_id_is_enough(stage).await;
    }
    // Last, because it changes what the tenant has: the examples were worth attacking.
    for example in &stage.theirs.seeded.examples {
        let answer = call(stage, &stage.theirs, example).await;
        assert!(
            answer.status.is_success(),
            "{}: {} {} is no example: {answer:?}",
            stage.tier,
            example.method,
            example.path
        );
    }
}

/// A new route without an example would be a route that nobody has attacked.
fn every_route_has_an_example(stage: &Stage<'_>) {
    for route in &stage.world.package.manifest.routes {
        let is_of = |example: &Example| {
            example.route == route.path && example.method.as_str() == route.method
        };
        for party in [&stage.ours, &stage.theirs] {
            assert!(
                party.seeded.examples.iter().any(is_of),
                "route {} {} has no example",
                route.method,
                route.path
            );
        }
    }
}

/// The answer to an id of somebody else is the answer to an id of nobody, to the letter.
async fn foreign_ids_are_unknown_ids(stage: &Stage<'_>) {
    let before = stage.fingerprint(stage.theirs.home).await;
    for example in &stage.theirs.seeded.examples {
        let what = format!("{}: {} {}", stage.tier, example.method, example.path);
        let foreign = call(stage, &stage.ours, example).await;
        assert!(!tells(&foreign, &stage.theirs), "{what} tells {foreign:?}");
        if !mentions(example, &stage.theirs.seeded.ids) {
            continue;
        }
        assert!(!foreign.status.is_server_error(), "{what}: {foreign:?}");
        let unknown = without_ids(example, &stage.theirs.seeded.ids);
        let unknown = call(stage, &stage.ours, &unknown).await;
        assert_eq!(
            masked(&foreign, &stage.theirs.seeded.ids),
            masked(&unknown, &stage.theirs.seeded.ids),
            "{what}: an id of somebody else and one of nobody are told apart"
        );
        // A filter by an unknown id gives an empty list; an address or a body with one is refused.
        let is_filter = example.method == Method::GET && example.path.contains('?');
        assert!(
            is_filter || is_refused(foreign.status),
            "{what}: {foreign:?}"
        );
    }
    let after = stage.fingerprint(stage.theirs.home).await;
    assert_eq!(before, after, "{}: their rows have changed", stage.tier);
}

async fn lists_hold_own_rows_only(stage: &Stage<'_>) {
    for example in &stage.ours.seeded.examples {
        if example.method == Method::GET {
            let answer = call(stage, &stage.ours, example).await;
            let what = format!("{}: GET {}", stage.tier, example.path);
            assert!(answer.status.is_success(), "{what}: {answer:?}");
            assert!(!tells(&answer, &stage.theirs), "{what} tells {answer:?}");
        }
    }
}

/// The control experiment: without row-level security, the same ids do open.
async fn without_policies_an_id_is_enough(stage: &Stage<'_>) {
    let (admin, schema) = (
        stage.admin(stage.theirs.home).await,
        stage.schema(stage.theirs.home),
    );
    let tables = stage.tables(stage.theirs.home).await;
    let switch = async |to: &str| {
        for table in &tables {
            let sql = format!("alter table {schema}.{table} {to} row level security");
            admin.batch_execute(&sql).await.expect("switch policies");
        }
    };
    switch("disable").await;
    let mut told = false;
    for example in &stage.theirs.seeded.examples {
        if example.method == Method::GET {
            let answer = call(stage, &stage.ours, example).await;
            // A module that looks at its database before it serves from it sees what is missing.
            let noticed = answer
                .body
                .get("code")
                .is_some_and(|code| code == "isolation-drift");
            told |= noticed || tells(&answer, &stage.theirs);
        }
    }
    switch("enable").await;
    assert!(told, "the ids open nothing even without policies");
}

async fn other_contexts_are_refused(stage: &Stage<'_>) {
    let forger = SigningKey::generate_pkcs8().expect("make a key");
    let forger = ContextSigner::new(SigningKey::from_pkcs8(&forger).expect("read a key"));
    let other = |id: &str| id.parse().expect("a module of the test kit");
    let ours = stage.world.caller(stage.ours.home, EVERYTHING);
    for example in &stage.ours.seeded.examples {
        let what = format!("{}: {} {}", stage.tier, example.method, example.path);
        let good = context(stage, ours, example);
        let access = match (good.access, &example.method) {
            (Access::Tree, _) => Access::Write,
            (_, &Method::GET) => Access::Tree,
            _ => Access::Read,
        };
        let wrong_access = RequestContext {
            permissions: good.permissions.clone(),
            places: places(&stage.ours),
            ..ours.context(access)
        };
        let signed = |change: &dyn Fn(&mut RequestContext)| {
            let mut context = good.clone();
            change(&mut context);
            stage.world.sign(context)
        };
        let headers = [
            ("of another module", signed(&|c| c.module = other("crm"))),
            ("expired", signed(&|c| c.expires = 1)),
            ("for an hour", signed(&|c| c.expires += 3600)),
            ("of another access", stage.world.sign(wrong_access)),
            ("forged", forger.sign(good.clone()).expect("sign a context")),
            ("no context", "a.b.c".to_owned()),
            ("empty", String::new()),
        ];
        for (kind, header) in &headers {
            let answer = send(stage, example, &[(CONTEXT_HEADER, header)]).await;
            assert_eq!(code(&answer), "403 context-refused", "{what}: {kind}");
        }
        let header = stage.world.sign(good.clone());
        let twice = [(CONTEXT_HEADER, header.as_str()), (CONTEXT_HEADER, &header)];
        for headers in [&[][..], &twice[..]] {
            let answer = send(stage, example, headers).await;
            assert_eq!(code(&answer), "403 context-refused", "{what}: {headers:?}");
        }
        let nobody = signed(&|c| c.permissions.clear());
        let answer = send(stage, example, &[(CONTEXT_HEADER, &nobody)]).await;
        assert_eq!(code(&answer), "403 permission-denied", "{what}");
    }
}

/// Sends an example as the gateway would for this party.
pub(super) async fn call(stage: &Stage<'_>, party: &Party<'_>, example: &Example) -> Answer {
    let caller = stage.world.caller(party.home, EVERYTHING);
    let context = RequestContext {
        places: places(party),
        ..context(stage, caller, example)
    };
    let context = stage.world.sign(context);
    send(stage, example, &[(CONTEXT_HEADER, &context)]).await
}

async fn send(stage: &Stage<'_>, example: &Example, headers: &[(&str, &str)]) -> Answer {
    let Example {
        method, path, body, ..
    } = example;
    stage.world.send(method, path, headers, body.as_ref()).await
}

fn context(stage: &Stage<'_>, caller: Caller<'_>, example: &Example) -> RequestContext {
    let routes = &stage.world.package.manifest.routes;
    let route = routes
        .iter()
        .find(|route| route.path == example.route && example.method.as_str() == route.method);
    let subtree = route.is_some_and(|route| route.scope == Scope::Subtree);
    caller.context(match (subtree, &example.method) {
        (true, _) => Access::Tree,
        (false, &Method::GET) => Access::Read,
        (false, _) => Access::Write,
    })
}

/// The party's own place, as the gateway names it to a route that reads a subtree.
fn places(party: &Party<'_>) -> Vec<Place> {
    let (tenant, placement) = party.home;
    let slug = format!("t{}", tenant.number());
    vec![Place {
        cell: placement.cell.clone(),
        tier: placement.tier,
        bucket: placement.bucket,
        tenants: vec![(*tenant, slug.parse().expect("a slug"))],
    }]
}

fn code(answer: &Answer) -> String {
    let code = answer.body.get("code").and_then(|code| code.as_str());
    let status = answer.status.as_u16();
    format!("{status} {}", code.unwrap_or_default())
}

/// Whether an answer holds the party's secret.
fn tells(answer: &Answer, party: &Party<'_>) -> bool {
    answer.body.to_string().contains(&party.seeded.secret)
}

fn mentions(example: &Example, ids: &[String]) -> bool {
    let body = example.body.as_ref().map(ToString::to_string);
    ids.iter().any(|id| {
        example.path.contains(id.as_str())
            || body.as_ref().is_some_and(|body| body.contains(id.as_str()))
    })
}

/// The same request with ids of the same form that nobody has.
fn without_ids(example: &Example, ids: &[String]) -> Example {
    let change = |text: &str| {
        ids.iter()
            .fold(text.to_owned(), |text, id| text.replace(id, &nobodys(id)))
    };
    let body = example.body.as_ref().map(|body| {
        let text = change(&body.to_string());
        serde_json::from_str(&text).expect("still JSON")
    });
    Example {
        path: change(&example.path),
        body,
        ..example.clone()
    }
}

/// An answer as text, with all ids alike.
fn masked(answer: &Answer, ids: &[String]) -> String {
    let text = format!("{} {:?} {}", answer.status, answer.location, answer.body);
    ids.iter().fold(text, |text, id| {
        text.replace(id, "ID").replace(&nobodys(id), "ID")
    })
}

//! Mistakes about tenants themselves.

use serde_json::json;

use super::Matrix;

pub(super) async fn create(matrix: &mut Matrix<'_>) {
    for (what, slug) in [
        ("slug with capitals", "Bad-Wish"),
        ("empty slug", ""),
        ("slug with a dot", "bad.wish"),
        ("slug with a slash", "bad/wish"),
        ("slug that begins with a digit", "1bad"),
        ("slug that ends with a hyphen", "bad-"),
        ("slug with two hyphens", "bad--wish"),
        ("slug with an accent", "bad-café"),
        (
            "slug of 41 characters",
            "bad-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        ),
        ("slug with a quote", "bad';drop"),
        ("reserved slug", "admin"),
        ("slug that is in use", "bad-host"),
    ] {
        matrix.tenant(what, json!({ "slug": slug })).await;
    }
    for (what, country) in [
        ("country that is none", "XX"),
        ("country in small letters", "sn"),
        ("country of three letters", "SEN"),
        ("empty country", ""),
        ("country that is not served", "JP"),
    ] {
        matrix.tenant(what, json!({ "country": country })).await;
    }
}

pub(super) async fn create_with_more(matrix: &mut Matrix<'_>) {
    let cases = [
        (
            "parent that does not exist",
            json!({ "parent": "bad-nobody" }),
        ),
        ("parent that can't exist", json!({ "parent": "Bad Parent" })),
        (
            "parent across a closed border",
            json!({ "country": "DE", "parent": "bad-host" }),
        ),
        (
            "child across a closed border",
            json!({ "parent": "bad-german" }),
        ),
        (
            "unknown module",
            json!({ "modules": ["inventory", "payroll"] }),
        ),
        ("impossible module", json!({ "modules": ["in-ventory"] })),
        (
            "modules that are no list",
            json!({ "modules": "inventory" }),
        ),
        ("unknown tier", json!({ "tier": "premium" })),
        ("unknown profile", json!({ "profile": "bank" })),
        ("impossible profile", json!({ "profile": "Bank!" })),
        (
            "ministry without a region at home",
            json!({ "country": "CI", "profile": "government" }),
        ),
        ("empty name", json!({ "name": "" })),
        ("name of spaces", json!({ "name": "   " })),
        (
            "name with a control character",
            json!({ "name": "Bad\u{0}Name" }),
        ),
        ("name with a line break", json!({ "name": "Bad\nName" })),
        ("name of 201 characters", json!({ "name": "n".repeat(201) })),
        ("name that is a number", json!({ "name": 7 })),
        ("slug that is null", json!({ "slug": null })),
        ("unknown field", json!({ "colour": "blue" })),
    ];
    for (what, mistake) in cases {
        matrix.tenant(what, mistake).await;
    }
    let missing = json!({ "slug": "bad-wish", "name": "Bad" });
    matrix
        .body("missing country", "POST", "/tenants", missing)
        .await;
}

pub(super) async fn change(matrix: &mut Matrix<'_>) {
    let host = "/tenants/bad-host";
    let cases = [
        ("own parent", json!({ "parent": "bad-host" })),
        ("parent that is a child", json!({ "parent": "bad-child" })),
        (
            "parent that is a grandchild",
            json!({ "parent": "bad-grandchild" }),
        ),
        (
            "new parent that does not exist",
            json!({ "parent": "bad-nobody" }),
        ),
        (
            "new parent across a closed border",
            json!({ "parent": "bad-german" }),
        ),
        ("new empty name", json!({ "name": "" })),
        (
            "new name with a control character",
            json!({ "name": "\u{7}" }),
        ),
        ("new slug", json!({ "slug": "bad-renamed" })),
        ("new country", json!({ "country": "FR" })),
        ("new name that is a list", json!({ "name": ["a"] })),
    ];
    for (what, mistake) in cases {
        matrix.body(what, "PATCH", host, mistake).await;
    }
    let nobody = json!({ "name": "x" });
    matrix
        .body("change of nobody", "PATCH", "/tenants/bad-nobody", nobody)
        .await;
}

pub(super) async fn versions_and_nobodies(matrix: &mut Matrix<'_>) {
    let host = "/tenants/bad-host";
    for (what, tag) in [("that is old", "\"g0\""), ("of another kind", "W/\"g1\"")] {
        let call = matrix.call("PATCH", host).header("if-match", tag);
        let call = call.json(&json!({ "name": "Later" }));
        matrix
            .wrong(&format!("change of a version {what}"), call)
            .await;
        let call = matrix
            .call("DELETE", "/tenants/bad-grandchild")
            .header("if-match", tag);
        matrix
            .wrong(&format!("deletion of a version {what}"), call)
            .await;
    }
    for (what, method, path) in [
        ("deletion with children", "DELETE", "/tenants/bad-host"),
        ("deletion of nobody", "DELETE", "/tenants/bad-nobody"),
        (
            "suspension of nobody",
            "POST",
            "/tenants/bad-nobody/suspend",
        ),
        ("resumption of nobody", "POST", "/tenants/bad-nobody/resume"),
        (
            "placement of nobody",
            "GET",
            "/tenants/bad-nobody/placement",
        ),
    ] {
        let call = matrix.call(method, path);
        matrix.wrong(what, call).await;
    }
}

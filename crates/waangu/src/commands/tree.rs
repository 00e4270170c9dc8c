//! All tenants as the hierarchy they are: country, tenant, sub-tenant.

use std::collections::BTreeMap;

use waangu_api::types::TenantView;

use crate::failure::Failure;
use crate::output::{self, Format, line};

/// Prints the tree.
pub(super) fn print(format: Format, tenants: &[TenantView]) -> Result<(), Failure> {
    if format == Format::Json {
        return output::print(format, &tenants, &[], Vec::new());
    }
    line(draw(tenants).trim_end())
}

fn draw(tenants: &[TenantView]) -> String {
    let mut children: BTreeMap<&str, Vec<&TenantView>> = BTreeMap::new();
    let mut countries: BTreeMap<&str, Vec<&TenantView>> = BTreeMap::new();
    for tenant in tenants {
        match &tenant.parent {
            Some(parent) => children.entry(parent).or_default().push(tenant),
            None => countries.entry(&tenant.country).or_default().push(tenant),
        }
    }
    let mut text = String::new();
    for (country, roots) in countries {
        text += country;
        text.push('\n');
        for tenant in roots {
            branch(&mut text, tenant, &children, 1);
        }
    }
    text
}

fn branch(
    text: &mut String,
    tenant: &TenantView,
    children: &BTreeMap<&str, Vec<&TenantView>>,
    depth: usize,
) {
    let indent = "  ".repeat(depth);
    let TenantView {
        slug,
        name,
        country,
        placement,
        state,
        ..
    } = tenant;
    *text += &[
        &indent,
        slug,
        "  ",
        name,
        " (",
        country,
        ", ",
        &placement.tier,
        ", ",
        state,
        ")\n",
    ]
    .map(|part: &str| part)
    .concat();
    for child in children.get(slug.as_str()).into_iter().flatten() {
        branch(text, child, children, depth.saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(slug: &str, parent: Option<&str>) -> TenantView {
        serde_json::from_value(serde_json::json!({
            "id": "ten_1", "slug": slug, "name": slug.to_uppercase(), "country": "SN",
            "parent": parent, "profile": null, "state": "active",
            "placement": {"cell": "c", "region": "r", "tier": "schema", "database": "d",
                          "epoch": 1, "reasons": []},
            "modules": [], "plan": null, "entitlements": [], "settings": [], "generation": 1, "last_error": null,
            "created_at": "2026-01-01T00:00:00Z", "url": "https://x",
        }))
        .unwrap()
    }

    /// An operator must see at a glance who belongs to whom.
    #[test]
    fn children_stand_below_their_parents() {
        let tenants = [
            tenant("shop", Some("head")),
            tenant("head", None),
            tenant("kiosk", Some("shop")),
        ];
        assert_eq!(
            draw(&tenants),
            "SN\n  head  HEAD (SN, schema, active)\n    shop  SHOP (SN, schema, active)\n      \
             kiosk  KIOSK (SN, schema, active)\n"
        );
    }
}

//! The layers of a tenant's values, and which of them counts.

use std::fmt;

use serde_json::Value;

use super::{Declaration, Origin, Values};

/// Something that has values by full key, in whatever form.
pub trait Lookup: fmt::Debug + Send + Sync {
    /// The value of a key, if it has one.
    fn value(&self, key: &str) -> Option<&Value>;
}

impl Lookup for Values {
    fn value(&self, key: &str) -> Option<&Value> {
        self.get(key)
    }
}

/// The values that a tenant's own are laid upon, and its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Layers<'a> {
    /// Its plan's.
    plan: Option<&'a Values>,
    /// Its profile's.
    profile: Option<&'a Values>,
    /// Its own.
    own: Option<&'a dyn Lookup>,
}

impl<'a> Layers<'a> {
    /// Lays a tenant's own values upon its profile's upon its plan's.
    pub fn new<L: Lookup>(
        plan: Option<&'a Values>,
        profile: Option<&'a Values>,
        own: Option<&'a L>,
    ) -> Self {
        Self {
            plan,
            profile,
            own: own.map(|own| -> &dyn Lookup { own }),
        }
    }

    /// The strongest value that fits the declaration. One that does not (its declaration has changed
    /// since, or its module went) counts as none.
    pub fn find<'d>(&self, declaration: &'d Declaration) -> (&'d Value, Origin)
    where
        'a: 'd,
    {
        let key = &declaration.key;
        let layers = [
            (self.own.and_then(|own| own.value(key)), Origin::Override),
            (
                self.profile.and_then(|profile| profile.get(key)),
                Origin::Profile,
            ),
            (self.plan.and_then(|plan| plan.get(key)), Origin::Plan),
        ];
        layers
            .into_iter()
            .filter_map(|(value, origin)| Some((value?, origin)))
            .find(|(value, _)| declaration.kind.fits(value))
            .unwrap_or((&declaration.default, Origin::Default))
    }

    /// A limit's number; `None` is no limit.
    pub fn limit(&self, declaration: &Declaration) -> Option<u64> {
        self.find(declaration).0.as_u64()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::tests::catalogue;
    use super::*;

    fn layer() -> impl Strategy<Value = Option<Values>> {
        let value = prop_oneof![
            Just(json!(true)),
            Just(json!(null)),
            Just(json!(-1)),
            Just(json!("a")),
            (0_u64..9).prop_map(Value::from),
        ];
        let key = prop_oneof![
            Just("crm.board"),
            Just("crm.people"),
            Just("users"),
            Just("x")
        ];
        let key = key.prop_map(str::to_owned);
        proptest::option::of(proptest::collection::btree_map(key, value, 0..4))
    }

    proptest! {
        /// A client would get what its plan does not give it, or lose what was granted to it alone.
        #[test]
        fn the_strongest_fitting_layer_wins(plan in layer(), profile in layer(), own in layer()) {
            let catalogue = catalogue();
            let layers = Layers::new(plan.as_ref(), profile.as_ref(), own.as_ref());
            for declaration in catalogue.iter() {
                let (value, origin) = layers.find(declaration);
                prop_assert!(declaration.check(value).is_ok());
                let at = |origin| match origin {
                    Origin::Default => Some(&declaration.default),
                    Origin::Plan => plan.as_ref().and_then(|v| v.get(&declaration.key)),
                    Origin::Profile => profile.as_ref().and_then(|v| v.get(&declaration.key)),
                    Origin::Override => own.as_ref().and_then(|v| v.get(&declaration.key)),
                };
                prop_assert_eq!(at(origin), Some(value));
                for stronger in [Origin::Plan, Origin::Profile, Origin::Override] {
                    if stronger > origin {
                        prop_assert!(at(stronger).is_none_or(|v| declaration.check(v).is_err()));
                    }
                }
            }
        }
    }
}

//! What the platform has promised: each tenant's fate by the last act that it acknowledged.

use super::Chance;

const TIERS: [&str; 3] = ["shared", "schema", "dedicated"];

/// What a tenant shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Active,
    Suspended,
    Deleted,
}

/// One tenant, as its worker knows it.
#[derive(Debug, Clone)]
pub(super) struct Promised {
    pub(super) slug: String,
    pub(super) fate: Fate,
    pub(super) module_on: bool,
}

/// One act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Create { slug: String, tier: &'static str },
    Suspend(usize),
    Resume(usize),
    Delete(usize),
    Enable(usize),
    Disable(usize),
}

/// What one worker was promised about its own tenants.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) worker: u64,
    pub(super) tenants: Vec<Promised>,
}

impl Ledger {
    /// The next act. Every sixth tenant leaves, so that the fleet grows slowly.
    pub(super) fn choose(&self, chance: &mut Chance) -> Act {
        let living: Vec<usize> = (0..self.tenants.len())
            .filter(|index| self.tenant(*index).is_some_and(|t| t.fate != Fate::Deleted))
            .collect();
        let create = Act::Create {
            slug: format!("w{}-{}", self.worker, self.tenants.len()),
            tier: chance.pick(&TIERS).copied().unwrap_or("shared"),
        };
        let Some(index) = chance.pick(&living).copied() else {
            return create;
        };
        match chance.below(12) {
            0..4 => create,
            4 | 5 => Act::Suspend(index),
            6 => Act::Enable(index),
            7 => Act::Disable(index),
            8 => Act::Delete(index),
            _ => Act::Resume(index),
        }
    }

    pub(super) fn tenant(&self, index: usize) -> Option<&Promised> {
        self.tenants.get(index)
    }

    /// Writes down what was acknowledged.
    pub(super) fn promise(&mut self, act: &Act) {
        match act {
            Act::Create { slug, .. } => self.tenants.push(Promised {
                slug: slug.clone(),
                fate: Fate::Active,
                module_on: true,
            }),
            Act::Suspend(index) => self.set(*index, |t| t.fate = Fate::Suspended),
            Act::Resume(index) => self.set(*index, |t| t.fate = Fate::Active),
            Act::Delete(index) => self.set(*index, |t| t.fate = Fate::Deleted),
            Act::Enable(index) => self.set(*index, |t| t.module_on = true),
            Act::Disable(index) => self.set(*index, |t| t.module_on = false),
        }
    }

    fn set(&mut self, index: usize, change: impl FnOnce(&mut Promised)) {
        if let Some(tenant) = self.tenants.get_mut(index) {
            change(tenant);
        }
    }
}

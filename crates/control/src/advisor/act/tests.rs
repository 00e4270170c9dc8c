//! The promises of acting, tried on weeks that nobody would think of.

use proptest::prelude::*;
use waangu_kernel::{RelocationId, Tier};
use waangu_registry::Advice;

use super::*;

const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn policy(scope: &str, act: Act) -> Policy {
    Policy {
        scope: scope.parse().unwrap(),
        act,
        ..DEFAULT
    }
}

/// Somebody in the shared tier of cell `home`, who would be better off elsewhere.
fn given(tenant: i64, tier: Tier, now: OffsetDateTime) -> AdviceOf {
    AdviceOf {
        slug: format!("t{tenant}").parse().unwrap(),
        tier: Tier::Shared,
        cell: "home".parse().unwrap(),
        profile: Some("sme".parse().unwrap()),
        advice: Advice {
            tenant: TenantId::new(tenant).unwrap(),
            tier,
            cell: Some("home".parse().unwrap()),
            state: AdviceState::Open,
            since: now,
            measured: true,
            criteria: vec!["volume".to_owned()],
            evidence: vec!["300 rows".to_owned()],
            reasons: Vec::new(),
            seen_at: now,
        },
    }
}

fn facts(policies: Vec<Policy>) -> Facts {
    let mut facts = Facts::new(policies, Vec::new(), [], Vec::new());
    for (cell, region) in [("home", "dakar"), ("away", "eu")] {
        facts
            .regions
            .insert(cell.parse().unwrap(), region.parse().unwrap());
    }
    facts
}

fn act(given: &AdviceOf, policies: Vec<Scope>, at: OffsetDateTime, phase: Option<Phase>) -> Acted {
    Acted {
        at,
        tenant: given.advice.tenant,
        slug: given.slug.clone(),
        tier: given.advice.tier,
        cell: given.advice.cell.clone().unwrap(),
        criteria: given.advice.criteria.clone(),
        policies,
        relocation: phase.map(|phase| (RelocationId::generate(), phase)),
        error: phase.is_none().then(|| "no room".to_owned()),
    }
}

/// What happens at one step of a week.
#[derive(Debug, Clone)]
struct Step {
    minutes: i64,
    tenant: i64,
    to_home: bool,
    /// What the oldest open move comes to.
    ends: Option<Phase>,
    refused: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let ends = prop_oneof![
        4 => Just(None),
        4 => Just(Some(Phase::Done)),
        1 => Just(Some(Phase::Failed)),
        1 => Just(Some(Phase::Cancelled)),
    ];
    let parts = (
        1_i64..240,
        1_i64..6,
        any::<bool>(),
        ends,
        prop::bool::weighted(0.1),
    );
    parts.prop_map(|(minutes, tenant, to_home, ends, refused)| Step {
        minutes,
        tenant,
        to_home,
        ends,
        refused,
    })
}

fn bounds(scope: &'static str) -> impl Strategy<Value = Policy> {
    (0_i32..24, 0_i32..24, 1_i32..4, 1_i32..3, 1_i32..60).prop_map(
        move |(from_hour, until_hour, most_per_day, most_at_once, quiet_hours)| Policy {
            scope: scope.parse().unwrap(),
            act: Act::Move,
            from_hour,
            until_hour,
            most_per_day,
            most_at_once,
            quiet_hours,
        },
    )
}

/// All that was ever done, with the ends of moves.
#[derive(Debug, Default)]
struct Week {
    acts: Vec<(Acted, Option<OffsetDateTime>)>,
}

impl Week {
    /// What the registry would say now.
    fn tell(&self, facts: &mut Facts, now: OffsetDateTime) {
        facts.acts.clear();
        facts.moves.clear();
        for (act, end) in self.acts.iter().rev() {
            let open = act.relocation.is_some_and(|(_, phase)| !phase.is_over());
            if act.at > now - DAY || open {
                facts.acts.push(act.clone());
            }
            let counts = act
                .relocation
                .is_some_and(|(_, phase)| phase != Phase::Failed);
            if counts {
                facts.moves.entry(act.tenant).or_insert(*end);
            }
        }
    }

    fn end_oldest(&mut self, phase: Phase, now: OffsetDateTime) {
        let open = |(act, end): &&mut (Acted, Option<OffsetDateTime>)| {
            act.relocation.is_some() && end.is_none()
        };
        if let Some((act, end)) = self.acts.iter_mut().find(open) {
            act.relocation = act.relocation.map(|(id, _)| (id, phase));
            *end = Some(now);
        }
    }

    /// Whether one more move now would have been within a policy's bounds, counted anew.
    fn check(&self, policy: &Policy, tenant: TenantId, now: OffsetDateTime) {
        let under = || {
            let acts = self.acts.iter().filter(|(act, _)| act.relocation.is_some());
            acts.filter(|(act, _)| act.policies.contains(&policy.scope))
        };
        let today = under().filter(|(act, _)| now - act.at < DAY).count();
        let open = under().filter(|(_, end)| end.is_none()).count();
        assert!(today < usize::try_from(policy.most_per_day).unwrap());
        assert!(open < usize::try_from(policy.most_at_once).unwrap());
        let quiet = Duration::hours(i64::from(policy.quiet_hours));
        for (act, end) in self.acts.iter().filter(|(act, _)| act.tenant == tenant) {
            match act.relocation {
                Some((_, Phase::Done | Phase::Cancelled)) => {
                    assert!(now - end.unwrap() >= quiet, "it flaps");
                }
                Some((_, Phase::Failed)) | None => {}
                Some(_) => panic!("it is on its way"),
            }
        }
        let mut hour = policy.from_hour;
        while hour != i32::from(now.hour()) {
            hour = (hour + 1) % 24;
            let closed = policy.from_hour != policy.until_hour && hour == policy.until_hour;
            assert!(!closed, "out of its hours");
        }
    }
}

proptest! {
    /// A fleet that moves itself without a bound is an outage that nobody has asked for.
    #[test]
    fn no_bound_is_ever_passed(
        policies in (bounds("global"), bounds("cell/home"), bounds("profile/sme")),
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let policies = vec![policies.0, policies.1, policies.2];
        let mut facts = facts(policies.clone());
        let (mut week, mut now) = (Week::default(), START);
        for step in steps {
            now += Duration::minutes(step.minutes);
            if let Some(phase) = step.ends {
                week.end_oldest(phase, now);
            }
            week.tell(&mut facts, now);
            // An operator, or the figures, may send it back and forth.
            let (from, to) = if step.to_home { ("away", "home") } else { ("home", "away") };
            let mut given = given(step.tenant, Tier::Shared, now);
            given.cell = from.parse().unwrap();
            given.advice.cell = Some(to.parse().unwrap());
            let Ok(scopes) = facts.decide(&given, now) else { continue };
            prop_assert_eq!(scopes.len(), policies.len());
            for policy in &policies {
                week.check(policy, given.advice.tenant, now);
            }
            let twice = week.acts.iter().any(|(done, _)| {
                let lost = done.relocation.is_none_or(|(_, phase)| phase == Phase::Failed);
                let same = done.tenant == given.advice.tenant && done.cell.as_str() == to;
                lost && same && now - done.at < DAY
            });
            prop_assert!(!twice, "what has just failed is tried again");
            let phase = (!step.refused).then_some(Phase::Queued);
            week.acts.push((act(&given, scopes, now, phase), None));
        }
    }
}

/// One tenant kind that must never be moved by a program is why policies have scopes.
#[test]
fn who_is_named_is_moved_if_all_that_name_it_say_so() {
    let decided = |policies: &[(&str, Act)]| {
        let policies = policies.iter().map(|(scope, act)| policy(scope, *act));
        facts(policies.collect()).decide(&given(1, Tier::Schema, START), START)
    };
    let only = |scope: &str| Err(format!("policy {scope} only proposes"));
    assert_eq!(decided(&[]), only("global"), "nothing was declared");
    let all = decided(&[("global", Act::Move)]).unwrap();
    assert_eq!(all, [Scope::Global]);
    let sme = [("global", Act::Move), ("profile/sme", Act::Propose)];
    assert_eq!(decided(&sme), only("profile/sme"));
    let other = [("global", Act::Propose), ("profile/bank", Act::Move)];
    assert_eq!(decided(&other), only("global"), "it is not a bank");
    let here = [("region/dakar", Act::Move), ("profile/sme", Act::Propose)];
    assert_eq!(decided(&here), only("profile/sme"));
    let there = [("region/dakar", Act::Move), ("cell/away", Act::Propose)];
    assert_eq!(decided(&there).unwrap().len(), 2, "nobody goes there");
}

/// A move that was refused is an operator's business; the same refusal each five seconds is noise. But
/// who is now called elsewhere by other criteria must not wait for that.
#[test]
fn what_failed_waits_for_a_day_or_other_reasons() {
    let mut facts = facts(vec![policy("global", Act::Move)]);
    let before = given(1, Tier::Schema, START);
    facts
        .acts
        .push(act(&before, vec![Scope::Global], START, None));
    let hour = START + Duration::HOUR;
    let mut later = given(1, Tier::Schema, hour);
    later.advice.evidence = vec!["301 rows".to_owned()];
    let held = facts.decide(&later, hour).unwrap_err();
    assert!(
        held.starts_with("tried at ") && held.contains("no room"),
        "{held}"
    );
    later.advice.criteria = vec!["traffic".to_owned(), "volume".to_owned()];
    assert_eq!(facts.decide(&later, hour), Ok(vec![Scope::Global]));
    let day = START + DAY;
    let next = given(1, Tier::Schema, day);
    assert_eq!(facts.decide(&next, day), Ok(vec![Scope::Global]));
}

/// Nobody is moved on what was true last week, or on a proposal that is just being taken back.
#[test]
fn only_a_fresh_and_standing_proposal_is_followed() {
    let facts = facts(vec![policy("global", Act::Move)]);
    let held = |change: &dyn Fn(&mut AdviceOf)| {
        let mut given = given(1, Tier::Schema, START);
        change(&mut given);
        facts.decide(&given, START).unwrap_err()
    };
    assert!(held(&|it| it.advice.seen_at -= Duration::hours(4)).starts_with("it was last"));
    assert_eq!(
        held(&|it| it.advice.state = AdviceState::Falling),
        "it is falling"
    );
    assert_eq!(held(&|it| it.advice.cell = None), "no cell would take it");
    assert_eq!(held(&|it| it.tier = Tier::Schema), "it is there");
    assert_eq!(held(&|it| it.tier = Tier::Dedicated), "it is there");
}

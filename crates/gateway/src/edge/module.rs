//! A request to a module.
//!
//! Invariants: a token comes before everything that would tell a stranger about a tenant's modules;
//! the tenant is the token's, and where the address names one too, they agree; a module gets nothing
//! but a context for this one request, for at most a minute.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Response};
use hyper::body::Incoming;
use tokio::time::Instant;
use waangu_identity::RequestContext;
use waangu_identity::context::{CONTEXT_HEADER, MAX_LIFETIME_SECONDS, MOVED_HEADER};
use waangu_identity::proof::{Access, ProofClaims};
use waangu_kernel::manifest::Scope;
use waangu_kernel::{Fault, ModuleId, RequestId, Slug, fault};

use super::{Arrived, Edge, REQUEST_HEADER, Trail, not_found, text, traffic};
use crate::authenticate::Principal;
use crate::authorise::{Grant, authorise};
use crate::forward::{Call, Held, REPLAY};
use crate::hygiene::{self, Receiver};
use crate::problem::{Refusal, Reply};
use crate::snapshot::Tenant;
use crate::snapshot::kin::too_large;

/// Longest wait for a tenant between two places.
const MOVED_PATIENCE: Duration = Duration::from_secs(10);

/// Longest first wait for news of a tenant before a request is sent after it nevertheless; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Longest of these waits.
const LONGEST_PAUSE: Duration = Duration::from_millis(40);

/// Longest context, in bytes. Only a subtree's places make it long; modules take heads of 400 KiB.
const MAX_CONTEXT: usize = 32 * 1024;

impl Edge {
    /// Checks a request to a module, and sends it there.
    pub(super) async fn api(
        &self,
        arrived: Arrived<'_>,
        slug: Option<Slug>,
        trail: &mut Trail,
    ) -> Result<Reply, Refusal> {
        let (module, path) = split_api(arrived.head.uri.path())?;
        let (_tenant, caller) = self.parties(&arrived, slug, trail).await?;
        let module: ModuleId = module
            .parse()
            .map_err(|_not_an_id: Fault| not_found_module())?;
        let method = &arrived.head.method;
        let admit = || self.admit(&caller, &module, method, path);
        let (tenant, grant) = self.find(admit).await?;
        trail.module = Some(module.clone());
        trail.route = Some(grant.template.clone());
        let share = self.enter(&tenant)?;
        let target = self.config.modules.get(&module).copied();
        let target = target.ok_or_else(|| {
            fault::MODULE_UNAVAILABLE
                .fault("the module is not running here")
                .cause("no address is configured for it")
        })?;
        let path_and_query = match arrived.head.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        let asked = Asked {
            id: arrived.id,
            module,
            path: path.to_owned(),
            caller,
        };
        let context = self.context(&asked, method, &tenant, grant)?;
        let mut headers = arrived.head.headers;
        hygiene::clean_request(&mut headers, Receiver::Module);
        headers.insert(HeaderName::from_static(CONTEXT_HEADER), context);
        headers.insert(REQUEST_HEADER, text(&arrived.id.to_string())?);
        let call = Call {
            receiver: Receiver::Module,
            target,
            method: arrived.head.method,
            path_and_query,
            headers,
            body: self.bounded(arrived.body, REPLAY)?,
        };
        let held = Held::new(arrived.running, vec![arrived.permit, share]);
        let counts = self.snapshot.share(&tenant);
        counts.count(1, 0);
        let reply = self.follow(call, &asked, Arc::clone(&tenant)).await?;
        counts.count(0, traffic::spent(reply.headers()));
        Ok(self.relay(reply, Receiver::Module, held))
    }

    /// Sends a request, and again to wherever its tenant is by then while the module says that the
    /// tenant has moved and nothing has happened: between the fence at the old place and the opening of
    /// the new one the request waits here, until the snapshot names that. All checks are made anew.
    async fn follow(
        &self,
        mut call: Call,
        asked: &Asked,
        mut tenant: Arc<Tenant>,
    ) -> Result<Response<Incoming>, Refusal> {
        let patience = Instant::now() + MOVED_PATIENCE;
        let mut pause = FIRST_PAUSE;
        loop {
            let reply = self.upstreams.send(&call).await?;
            let moved = reply.headers().contains_key(MOVED_HEADER);
            if !moved || !call.body.is_kept() || Instant::now() + pause > patience {
                return Ok(reply);
            }
            drop(reply);
            let (slug, epoch) = (&tenant.slug, tenant.placement().epoch);
            self.snapshot.until_elsewhere(slug, epoch, pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let (caller, module) = (&asked.caller, &asked.module);
            let (found, grant) = self.admit(caller, module, &call.method, &asked.path)?;
            tenant = found;
            let context = self.context(asked, &call.method, &tenant, grant)?;
            call.headers
                .insert(HeaderName::from_static(CONTEXT_HEADER), context);
        }
    }

    /// Whose data is asked for, and by whom.
    pub(super) async fn parties(
        &self,
        arrived: &Arrived<'_>,
        slug: Option<Slug>,
        trail: &mut Trail,
    ) -> Result<(Arc<Tenant>, Arc<Principal>), Refusal> {
        self.require_snapshot()?;
        if let Some(slug) = &slug {
            // A made-up sub-domain; no token is needed to hear that nobody lives there.
            let tenant = self.find(|| Ok(self.living(slug)?)).await?;
            trail.tenant = Some(tenant.slug.clone());
        }
        let headers = &arrived.head.headers;
        let caller = self
            .authenticator
            .authenticate(headers, arrived.peer.ip)
            .await?;
        if slug.is_some_and(|slug| slug != caller.tenant) {
            let detail = "the token was issued for another tenant than this address";
            return Err(fault::TENANT_MISMATCH.fault(detail).into());
        }
        let tenant = self.find(|| Ok(self.living(&caller.tenant)?)).await?;
        trail.tenant = Some(tenant.slug.clone());
        Ok((tenant, caller))
    }

    fn living(&self, slug: &Slug) -> Result<Arc<Tenant>, Fault> {
        let detail = || format!("there is no tenant `{slug}`");
        let tenant = self.snapshot.tenant(slug);
        tenant.ok_or_else(|| fault::TENANT_NOT_FOUND.fault(detail()))
    }

    /// The caller's tenant, and what the caller may do there.
    fn admit(
        &self,
        caller: &Principal,
        module: &ModuleId,
        method: &Method,
        path: &str,
    ) -> Result<(Arc<Tenant>, Grant), Refusal> {
        let tenant = self.living(&caller.tenant)?;
        let modules = self.snapshot.modules();
        let grant = authorise(&tenant, &modules, caller.user, module, method, path)?;
        Ok((tenant, grant))
    }

    /// The signed statement that makes the request effective in one module, for one minute.
    fn context(
        &self,
        asked: &Asked,
        method: &Method,
        tenant: &Tenant,
        grant: Grant,
    ) -> Result<HeaderValue, Fault> {
        let (module, caller) = (&asked.module, &asked.caller);
        let (access, places) = match (grant.scope, method) {
            (Scope::Subtree, _) => (Access::Tree, self.snapshot.subtree(tenant, module)?),
            (Scope::Own, &Method::GET | &Method::HEAD) => (Access::Read, Vec::new()),
            (Scope::Own, _) => (Access::Write, Vec::new()),
        };
        let expires = self
            .clock
            .unix_seconds()
            .saturating_add(MAX_LIFETIME_SECONDS);
        let (modules, sets) = (self.snapshot.modules(), self.snapshot.sets());
        let flags = modules
            .get(module)
            .map(|installed| installed.flags(&tenant.layers(&sets)))
            .unwrap_or_default();
        // After the clock, so that what is signed with a key dies with the key, however long we are
        // held up in between.
        let keys = self.signing.get();
        let proof = keys.proof.prove(&ProofClaims {
            login: &access.login(module),
            tenant: tenant.id.number(),
            epoch: tenant.placement().epoch,
            expires,
            access,
            actor: &caller.user.to_string(),
            request: &asked.id.to_string(),
        });
        let signed = keys.context.sign(RequestContext {
            module: module.clone(),
            request: asked.id,
            tenant: tenant.id,
            slug: tenant.slug.clone(),
            placement: tenant.placement().clone(),
            // A subtree's request has no place of its own.
            heading: tenant.heading().filter(|_| access != Access::Tree).cloned(),
            actor: caller.user,
            permissions: grant.permissions,
            access,
            places,
            flags,
            expires,
            proof,
            visited: None,
        });
        let signed = signed.map_err(|error| {
            fault::INTERNAL
                .fault("the request can't be signed")
                .cause(error)
        })?;
        if access == Access::Tree && signed.len() > MAX_CONTEXT {
            return Err(too_large("names too long to be told at once"));
        }
        text(&signed)
    }
}

/// What stays the same of a request, wherever its tenant is.
struct Asked {
    id: RequestId,
    module: ModuleId,
    path: String,
    caller: Arc<Principal>,
}

/// Module and path below it in `/api/{module}/…`.
fn split_api(path: &str) -> Result<(&str, &str), Fault> {
    let rest = path.strip_prefix("/api/").ok_or_else(not_found)?;
    let (module, below) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    if module.is_empty() {
        return Err(not_found());
    }
    Ok((module, below))
}

fn not_found_module() -> Fault {
    fault::ROUTE_NOT_FOUND.fault("no module with this name is installed")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path split in the wrong place is checked against one route and served as another.
    #[test]
    fn api_paths_split_into_module_and_rest() {
        assert_eq!(split_api("/api/inventory").unwrap(), ("inventory", "/"));
        assert_eq!(split_api("/api/inventory/").unwrap(), ("inventory", "/"));
        assert_eq!(
            split_api("/api/inventory/a/b").unwrap(),
            ("inventory", "/a/b")
        );
        for nothing in ["/", "/api", "/api/", "/apix/inventory", "/admin/v1/tenants"] {
            assert_eq!(split_api(nothing).unwrap_err().status(), 404, "{nothing}");
        }
    }
}

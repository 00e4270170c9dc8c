//! Checking a name and a password, slowly if it fails often.

use waangu_identity::password::Hasher;
use waangu_identity::sha256_hex;
use waangu_kernel::{Fault, Slug, Username};
use waangu_registry::{Credential, LoginGate};

use crate::server::App;

/// How a sign-in ended.
#[derive(Debug)]
pub(super) enum SignIn {
    /// It is the user.
    Welcome(Credential),
    /// Name or password is wrong; which of them is not told.
    Wrong,
    /// Too many failures; not before so many seconds.
    Wait(i64),
}

/// Who signs in: `name@slug`, or a name beside a tenant.
pub(super) fn subject(username: &str, tenant: Option<&str>) -> Option<(Slug, Username)> {
    let (name, slug) = match (username.rsplit_once('@'), tenant) {
        (Some((_, own)), Some(given)) if own != given => return None,
        (Some((name, own)), _) => (name, own),
        (None, Some(given)) => (username, given),
        (None, None) => return None,
    };
    Some((slug.parse().ok()?, name.parse().ok()?))
}

/// Checks a password.
pub(super) async fn sign_in(
    app: &App,
    subject: &(Slug, Username),
    secret: String,
) -> Result<SignIn, Fault> {
    let (tenant, username) = subject;
    let key = sha256_hex(format!("{tenant}\n{username}").as_bytes());
    // One after the other, or good passwords that arrive together would count as failures of each
    // other.
    let _turn = app.sign_in_turn(&key).await?;
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    if let LoginGate::Closed(seconds) = tx.login_gate(&key).await? {
        return Ok(SignIn::Wait(seconds));
    }
    let credential = tx.get_credential(tenant, username).await?;
    // The failure is counted before the answer is known, so that many guesses at once don't slip
    // through the gate together; a good password takes the count back.
    tx.record_login_failure(&key).await?;
    tx.commit().await?;
    drop(session);

    let stored = credential
        .as_ref()
        .map(|credential| credential.password_hash.clone());
    let fits = app
        .hashing(move |hasher| fits(hasher, &secret, stored.as_deref()))
        .await?;
    let Some(credential) = credential.filter(|_| fits) else {
        return Ok(SignIn::Wrong);
    };

    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    tx.clear_login_failures(&key).await?;
    tx.commit().await?;
    Ok(SignIn::Welcome(credential))
}

/// Takes the same time whether or not there is a user.
fn fits(hasher: &mut Hasher, secret: &str, stored: Option<&str>) -> bool {
    if let Some(stored) = stored {
        return hasher.verify(secret, stored);
    }
    hasher.verify_nobody(secret);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody of one tenant must not be taken for a namesake of another.
    #[test]
    fn names_belong_to_one_tenant() {
        let found = subject("amina@teranga", None).unwrap();
        assert_eq!((found.0.as_str(), found.1.as_str()), ("teranga", "amina"));
        assert_eq!(subject("amina", Some("teranga")).unwrap(), found);
        assert_eq!(subject("amina@teranga", Some("teranga")).unwrap(), found);
        assert!(subject("amina@teranga", Some("other")).is_none());
        assert!(subject("amina", None).is_none());
        assert!(subject("@teranga", None).is_none());
    }
}

//! What the built-in directory and the admin API remember between requests: credentials, failed
//! sign-ins, authorization codes, operator tokens, and replies to idempotent requests.
//!
//! Invariant: of every bearer secret only the SHA-256 is stored.

use time::OffsetDateTime;
use uuid::Uuid;
use waangu_kernel::{Fault, Slug, UserId, Username, fault};

use crate::db::{Session, Tx, column, parsed};

/// Failed sign-ins that cost nothing; each one after doubles the pause.
const FREE_FAILURES: i32 = 5;

/// Longest pause after failed sign-ins, in seconds.
const MAX_PAUSE_SECONDS: i32 = 900;

/// What a sign-in is checked against.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The user.
    pub user: UserId,
    /// Its name.
    pub username: Username,
    /// Its tenant's slug.
    pub tenant: Slug,
    /// Argon2id, PHC form.
    pub password_hash: String,
}

/// Whether a sign-in may be tried now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginGate {
    /// It may.
    Open,
    /// Not before so many seconds have passed.
    Closed(i64),
}

/// A stored authorization code (RFC 6749 §4.1, with PKCE, RFC 7636).
#[derive(Debug, Clone)]
pub struct AuthorizationCode {
    /// Who signed in.
    pub user: UserId,
    /// The client it was made for.
    pub client_id: String,
    /// The redirect URI it was sent to.
    pub redirect_uri: String,
    /// S256 challenge.
    pub challenge: String,
    /// OpenID Connect nonce.
    pub nonce: Option<String>,
    /// Its end.
    pub expires_at: OffsetDateTime,
}

/// The reply that an idempotent request got the first time.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredReply {
    /// HTTP status.
    pub status: u16,
    /// `Location`.
    pub location: Option<String>,
    /// Body.
    pub body: serde_json::Value,
}

impl Session {
    /// The operator that a token belongs to.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn get_operator(&self, token_sha256: &str) -> Result<Option<String>, Fault> {
        let sql = "select name from registry.operator_token where token_sha256 = $1";
        let rows = self.rows(sql, &[&token_sha256]).await?;
        let name = rows.first().map(|row| column(row, "name"));
        name.transpose()
    }
}

impl Tx<'_> {
    /// The credential of an enabled user of a tenant that is not gone.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn get_credential(
        &self,
        tenant: &Slug,
        username: &Username,
    ) -> Result<Option<Credential>, Fault> {
        let sql = "select u.id, u.username, u.password_hash, t.slug
                     from registry.app_user u
                     join registry.tenant t on t.id = u.tenant_id and t.state <> 'deleted'
                    where t.slug = $1 and u.username = $2 and not u.disabled";
        let row = self
            .row(sql, &[&tenant.as_str(), &username.as_str()])
            .await?;
        row.as_ref().map(credential_from).transpose()
    }

    /// The credential of an enabled user by id.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn get_credential_by_id(&self, user: UserId) -> Result<Option<Credential>, Fault> {
        let sql = "select u.id, u.username, u.password_hash, t.slug
                     from registry.app_user u
                     join registry.tenant t on t.id = u.tenant_id and t.state <> 'deleted'
                    where u.id = $1 and not u.disabled";
        let row = self.row(sql, &[&user.uuid()]).await?;
        row.as_ref().map(credential_from).transpose()
    }

    /// Whether sign-in of this subject may be tried. The subject is a hash of tenant and name,
    /// whether or not they exist, so that the pause tells nothing. Until this transaction ends, the
    /// next one of the same subject waits here: many guesses at once don't pass together.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn login_gate(&self, subject_sha256: &str) -> Result<LoginGate, Fault> {
        let queue = "select pg_advisory_xact_lock(-4, hashtext($1))";
        self.execute(queue, &[&subject_sha256]).await?;
        let sql = "select ceil(extract(epoch from blocked_until - now()))::bigint as wait
                     from registry.login_attempt
                    where subject_sha256 = $1 and blocked_until > now()";
        let row = self.row(sql, &[&subject_sha256]).await?;
        Ok(match row {
            Some(row) => LoginGate::Closed(column(&row, "wait")?),
            None => LoginGate::Open,
        })
    }

    /// Counts a failed sign-in; a day without failures forgets the earlier ones.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn record_login_failure(&self, subject_sha256: &str) -> Result<(), Fault> {
        let sql = "insert into registry.login_attempt values ($1, 1, now(), now())
                   on conflict (subject_sha256) do update
                   set failures = case when login_attempt.last_at < now() - interval '1 day'
                                       then 1 else login_attempt.failures + 1 end
                     , blocked_until = now() + make_interval(secs =>
                           case when login_attempt.failures < $2
                                  or login_attempt.last_at < now() - interval '1 day' then 0
                                else least($3::integer, power(2, least(login_attempt.failures - $2, 20)))
                           end::double precision)
                     , last_at = now()";
        self.execute(sql, &[&subject_sha256, &FREE_FAILURES, &MAX_PAUSE_SECONDS])
            .await
            .map(drop)
    }

    /// Forgets failed sign-ins after a good one.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn clear_login_failures(&self, subject_sha256: &str) -> Result<(), Fault> {
        let sql = "delete from registry.login_attempt where subject_sha256 = $1";
        self.execute(sql, &[&subject_sha256]).await.map(drop)
    }

    /// Keeps an authorization code.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_code(&self, code_sha256: &str, code: &AuthorizationCode) -> Result<(), Fault> {
        let sql = "insert into registry.authorization_code values ($1, $2, $3, $4, $5, $6, $7)";
        let AuthorizationCode {
            user,
            client_id,
            redirect_uri,
            challenge,
            nonce,
            expires_at,
        } = code;
        self.execute(
            sql,
            &[
                &code_sha256,
                &user.uuid(),
                client_id,
                redirect_uri,
                challenge,
                nonce,
                expires_at,
            ],
        )
        .await
        .map(drop)
    }

    /// Takes an authorization code: it works once.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn take_code(&self, code_sha256: &str) -> Result<Option<AuthorizationCode>, Fault> {
        let sql = "delete from registry.authorization_code where code_sha256 = $1 returning *";
        let Some(row) = self.row(sql, &[&code_sha256]).await? else {
            return Ok(None);
        };
        let user: Uuid = column(&row, "user_id")?;
        Ok(Some(AuthorizationCode {
            user: UserId::from_uuid(user),
            client_id: column(&row, "client_id")?,
            redirect_uri: column(&row, "redirect_uri")?,
            challenge: column(&row, "challenge")?,
            nonce: column(&row, "nonce")?,
            expires_at: column(&row, "expires_at")?,
        }))
    }

    /// Makes an operator's token valid, in place of the operator's former one.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_operator_token(&self, token_sha256: &str, name: &str) -> Result<(), Fault> {
        let sql = "insert into registry.operator_token values ($1, $2)
                   on conflict (name) do update set token_sha256 = excluded.token_sha256";
        self.execute(sql, &[&token_sha256, &name]).await.map(drop)
    }

    /// Reserves an idempotency key, or returns the reply of the first time. A second request with
    /// the same key waits here until the first has committed or failed.
    ///
    /// # Errors
    /// `idempotency-key-reused` when the fingerprint differs; `database-unavailable`.
    pub async fn begin_idempotent(
        &self,
        principal: &str,
        key: &str,
        fingerprint: &str,
    ) -> Result<Option<StoredReply>, Fault> {
        let sql = "insert into registry.idempotency_key (principal, key, fingerprint)
                   values ($1, $2, $3) on conflict do nothing";
        if self.execute(sql, &[&principal, &key, &fingerprint]).await? == 1 {
            return Ok(None);
        }
        let sql = "select * from registry.idempotency_key where principal = $1 and key = $2";
        let row = self.one(sql, &[&principal, &key]).await?;
        if column::<&str>(&row, "fingerprint")? != fingerprint {
            return Err(fault::IDEMPOTENCY_KEY_REUSED
                .fault("this Idempotency-Key was used for another request"));
        }
        let status: i32 = column(&row, "status")?;
        Ok(Some(StoredReply {
            status: u16::try_from(status).unwrap_or(500),
            location: column(&row, "location")?,
            body: column(&row, "body")?,
        }))
    }

    /// Keeps the reply for the next time, in the transaction of the change itself.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn finish_idempotent(
        &self,
        principal: &str,
        key: &str,
        reply: &StoredReply,
    ) -> Result<(), Fault> {
        let sql = "update registry.idempotency_key
                      set status = $3, location = $4, body = $5
                    where principal = $1 and key = $2";
        let status = i32::from(reply.status);
        self.execute(
            sql,
            &[&principal, &key, &status, &reply.location, &reply.body],
        )
        .await
        .map(drop)
    }

    /// Forgets what has served its time: keys after a week, codes and old failures after a day.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn sweep(&self) -> Result<(), Fault> {
        self.batch(
            "delete from registry.idempotency_key where created_at < now() - interval '7 days';
             delete from registry.authorization_code where expires_at < now() - interval '1 day';
             delete from registry.login_attempt where last_at < now() - interval '1 day'",
        )
        .await
    }
}

fn credential_from(row: &tokio_postgres::Row) -> Result<Credential, Fault> {
    let id: Uuid = column(row, "id")?;
    Ok(Credential {
        user: UserId::from_uuid(id),
        username: parsed(row, "username")?,
        tenant: parsed(row, "slug")?,
        password_hash: column(row, "password_hash")?,
    })
}

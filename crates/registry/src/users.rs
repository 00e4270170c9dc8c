//! Users of a tenant and their roles.

use tokio_postgres::Row;
use uuid::Uuid;
use waangu_kernel::{Fault, RoleName, TenantId, UserId, Username, fault};

use crate::db::{Tx, column, parsed};
use crate::places::parsed_list;

/// A user of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id, the `sub` of its tokens.
    pub id: UserId,
    /// Its name within the tenant.
    pub username: Username,
    /// Its name for people.
    pub display_name: String,
    /// Whether it is kept from signing in.
    pub disabled: bool,
    /// Its roles.
    pub roles: Vec<RoleName>,
}

const SELECT: &str = "select u.*
                           , coalesce((select array_agg(r.role order by r.role)
                                         from registry.user_role r
                                        where r.user_id = u.id), '{}') as roles
                        from registry.app_user u ";

impl Tx<'_> {
    /// Creates a user without roles.
    ///
    /// # Errors
    /// `username-taken`; `database-unavailable`.
    pub async fn create_user(
        &self,
        tenant: TenantId,
        username: &Username,
        display_name: &str,
        password_hash: &str,
    ) -> Result<UserId, Fault> {
        let id = UserId::generate();
        let sql = "insert into registry.app_user
                   (id, tenant_id, username, display_name, password_hash)
                   values ($1, $2, $3, $4, $5)";
        self.execute(
            sql,
            &[
                &id.uuid(),
                &tenant.number(),
                &username.as_str(),
                &display_name,
                &password_hash,
            ],
        )
        .await?;
        Ok(id)
    }

    /// One user of a tenant.
    ///
    /// # Errors
    /// `user-not-found`; `database-unavailable`.
    pub async fn get_user(&self, tenant: TenantId, username: &Username) -> Result<User, Fault> {
        let sql = format!("{SELECT} where u.tenant_id = $1 and u.username = $2");
        let row = self
            .row(&sql, &[&tenant.number(), &username.as_str()])
            .await?;
        row.as_ref().map(user_from).transpose()?.ok_or_else(|| {
            fault::USER_NOT_FOUND.fault(format!("the tenant has no user `{username}`"))
        })
    }

    /// All users of a tenant.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_users(&self, tenant: TenantId) -> Result<Vec<User>, Fault> {
        let sql = format!("{SELECT} where u.tenant_id = $1 order by u.username");
        self.rows(&sql, &[&tenant.number()])
            .await?
            .iter()
            .map(user_from)
            .collect()
    }

    /// Replaces a user's roles.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_roles(
        &self,
        tenant: TenantId,
        user: UserId,
        roles: &[RoleName],
    ) -> Result<(), Fault> {
        self.execute(
            "delete from registry.user_role where user_id = $1",
            &[&user.uuid()],
        )
        .await?;
        let roles: Vec<&str> = roles.iter().map(RoleName::as_str).collect();
        let sql = "insert into registry.user_role
                   select $1, $2, role from unnest($3::text[]) as r (role)
                   on conflict do nothing";
        self.execute(sql, &[&tenant.number(), &user.uuid(), &roles])
            .await
            .map(drop)
    }

    /// Removes a user.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn delete_user(&self, user: UserId) -> Result<(), Fault> {
        self.execute(
            "delete from registry.app_user where id = $1",
            &[&user.uuid()],
        )
        .await
        .map(drop)
    }

    /// Forgets all users of a tenant that is gone.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn forget_users(&self, tenant: TenantId) -> Result<(), Fault> {
        let sql = "delete from registry.app_user where tenant_id = $1";
        self.execute(sql, &[&tenant.number()]).await.map(drop)
    }
}

fn user_from(row: &Row) -> Result<User, Fault> {
    let id: Uuid = column(row, "id")?;
    Ok(User {
        id: UserId::from_uuid(id),
        username: parsed(row, "username")?,
        display_name: column(row, "display_name")?,
        disabled: column(row, "disabled")?,
        roles: parsed_list(row, "roles")?,
    })
}

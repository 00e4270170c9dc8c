//! A tenant's people and what they may do.

use http::Method;
use waangu_api::types::{CreateUser, List, ModuleView, PutRoles, UserView};
use waangu_kernel::permission::TENANT_ADMIN;

use super::{admin, segment};
use crate::cli::{Global, RoleCommand, UserCommand};
use crate::failure::Failure;
use crate::output::print;

pub(crate) async fn user(global: &Global, command: UserCommand) -> Result<(), Failure> {
    let client = admin(global)?;
    match command {
        UserCommand::List { slug } => {
            let list: List<UserView> = client
                .get(&format!("/tenants/{}/users", segment(&slug)?))
                .await?;
            print_users(global, &list.items)
        }
        UserCommand::Create {
            slug,
            username,
            name,
            password,
            roles,
        } => {
            let body = CreateUser {
                username,
                display_name: name,
                password,
                roles,
            };
            let path = format!("/tenants/{}/users", segment(&slug)?);
            let user: UserView = client.send_json(Method::POST, &path, &body, None).await?;
            print_users(global, &[user])
        }
        UserCommand::Delete { slug, username } => Ok(client
            .delete(&format!(
                "/tenants/{}/users/{}",
                segment(&slug)?,
                segment(&username)?
            ))
            .await?),
    }
}

pub(crate) async fn role(global: &Global, command: RoleCommand) -> Result<(), Failure> {
    let client = admin(global)?;
    match command {
        RoleCommand::List => {
            let list: List<ModuleView> = client.get("/modules").await?;
            let mut roles = vec![TENANT_ADMIN.to_owned()];
            roles.extend(list.items.into_iter().flat_map(|module| module.roles));
            let rows = roles.iter().map(|role| vec![role.clone()]).collect();
            print(global.output, &roles, &["role"], rows)
        }
        RoleCommand::Set {
            slug,
            username,
            roles,
        } => {
            let path = format!(
                "/tenants/{}/users/{}/roles",
                segment(&slug)?,
                segment(&username)?
            );
            let body = PutRoles { roles };
            let user: UserView = client.send_json(Method::PUT, &path, &body, None).await?;
            print_users(global, &[user])
        }
    }
}

fn print_users(global: &Global, users: &[UserView]) -> Result<(), Failure> {
    let rows = users
        .iter()
        .map(|user| {
            vec![
                user.username.clone(),
                user.display_name.clone(),
                user.roles.join(", "),
                user.password.clone().unwrap_or_default(),
            ]
        })
        .collect();
    print(
        global.output,
        &users,
        &["user", "name", "roles", "password"],
        rows,
    )
}

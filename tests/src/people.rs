//! Further people of an instance.

use crate::http::Api;
use keywright_api::auth::operator;
use keywright_entities::{clock, types::Role, user_account};
use keywright_jobs::setup::ids;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
use secrecy::ExposeSecret;

/// Makes a user who may not log in, and a token of theirs.
pub async fn person(api: &Api, name: &str, role: &str) -> String {
    let (db, role) = (api.app.database(), Role::parse(role).expect("a role"));
    let now = clock::now(db.reader()).await.expect("the time");
    let row = user_account::ActiveModel {
        id: Set(ids::new()),
        name: Set(name.to_owned()),
        name_key: Set(name.to_owned()),
        password_hash: Set(None),
        password_generated: Set(false),
        role: Set(role),
        disabled: Set(false),
        subscriptions: Set(None),
        sso_issuer: Set(None),
        sso_subject: Set(None),
        created_at: Set(now),
        updated_at: Set(now),
        version: Set(1),
    };
    row.insert(db.reader()).await.expect("a new user");
    let token = operator::create_token(db, name, role, Some(name), None).await.expect("a token");
    token.expose_secret().to_owned()
}

/// Disables a user.
pub async fn disable(api: &Api, name: &str) {
    user_account::Entity::update_many()
        .col_expr(user_account::Column::Disabled, Expr::value(true))
        .filter(user_account::Column::NameKey.eq(name))
        .exec(api.app.database().reader())
        .await
        .expect("the user is changed");
}

//! What an asset hangs together with, seen from it: what it names, and what names it.

use crate::{
    error::ApiError,
    page::{ListParams, Page, SortKey, Sorting},
    wire::{AssetType, Relates},
};
use keywright_entities::{asset, asset_relation, scope::Scope, subscription, types};
use keywright_jobs::setup::database::Database;
use poem_openapi::{Enum, Object};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QuerySelect, QueryTrait};
use std::collections::HashMap;
use uuid::Uuid;

/// Which end of the relation the asset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum Direction {
    /// It names the other end.
    Outgoing,
    /// The other end names it.
    Incoming,
}

/// A relation of an asset to something else.
#[derive(Debug, Object)]
#[oai(rename = "AssetRelation", rename_all = "camelCase")]
pub struct RelationView {
    pub direction: Direction,
    /// What the end that names is to the end that is named.
    pub relation: Relates,
    /// The provider's own identifier of the other end.
    pub external_id: String,
    /// The other end, when it is in the inventory and the caller may see it.
    pub asset: Option<RelatedAsset>,
}

/// An asset at the other end of a relation.
#[derive(Clone, Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct RelatedAsset {
    pub id: Uuid,
    pub subscription: Uuid,
    #[oai(rename = "type")]
    pub asset_type: AssetType,
    pub kind: String,
    pub region: String,
    pub name: String,
}

static RELATIONS: Sorting<asset_relation::Model> = Sorting {
    keys: &[
        SortKey {
            name: "relation",
            column: || asset_relation::Column::Relation.into_expr(),
            nullable: false,
            read: |row| row.relation.as_str().to_owned().into(),
        },
        SortKey {
            name: "target",
            column: || asset_relation::Column::Target.into_expr(),
            nullable: false,
            read: |row| row.target.clone().into(),
        },
    ],
    default: "relation,target",
    unique: SortKey {
        name: "id",
        column: || asset_relation::Column::Id.into_expr(),
        nullable: false,
        read: |row| row.id.into(),
    },
};

pub async fn page(
    database: &Database,
    list: ListParams,
    of: &asset::Model,
    visible: &Scope,
    only: Option<Direction>,
) -> Result<Page<RelationView>, ApiError> {
    use asset_relation::Column::{AssetId, SubscriptionId, Target};
    let outgoing = Condition::all().add(AssetId.eq(of.id));
    let incoming = Condition::all()
        .add(Target.eq(of.external_id.as_str()))
        .add(AssetId.ne(of.id))
        .add(reach(of, SubscriptionId))
        .add(visible.on(SubscriptionId));
    let either = match only {
        Some(Direction::Outgoing) => outgoing,
        Some(Direction::Incoming) => incoming,
        None => Condition::any().add(outgoing).add(incoming),
    };
    let slice = list.fetch(asset_relation::Entity::find().filter(either), &RELATIONS, database.reader()).await?;
    let named = slice.rows.iter().filter(|row| row.asset_id == of.id).map(|row| row.target.clone());
    let named = named_by(database, of, visible, named.collect()).await?;
    let naming = slice.rows.iter().filter(|row| row.asset_id != of.id).map(|row| row.asset_id);
    let naming = asset::Entity::find().filter(asset::Column::Id.is_in(naming));
    let naming: HashMap<Uuid, asset::Model> =
        naming.all(database.reader()).await?.into_iter().map(|asset| (asset.id, asset)).collect();
    Ok(slice.into_page(|row| {
        if row.asset_id == of.id {
            let asset = named.get(&row.target).map(RelatedAsset::of);
            let relation = row.relation.into();
            return RelationView { direction: Direction::Outgoing, relation, external_id: row.target, asset };
        }
        let other = naming.get(&row.asset_id);
        RelationView {
            direction: Direction::Incoming,
            relation: row.relation.into(),
            external_id: other.map(|other| other.external_id.clone()).unwrap_or_default(),
            asset: other.map(RelatedAsset::of),
        }
    }))
}

/// The subscriptions in which the asset's identifier, or one that it names, means the same: those of the provider, but only its own
/// where identifiers are those of a machine.
fn reach(of: &asset::Model, column: impl ColumnTrait) -> Condition {
    if of.provider == types::ProviderKind::Local {
        return Condition::all().add(column.eq(of.subscription_id));
    }
    let same = subscription::Entity::find().select_only().column(subscription::Column::Id);
    let same = same.filter(subscription::Column::Provider.eq(of.provider));
    Condition::all().add(column.in_subquery(same.into_query()))
}

/// The assets with these identifiers. Of several with one, the asset's own subscription counts, then the one that was known first.
async fn named_by(
    database: &Database,
    of: &asset::Model,
    visible: &Scope,
    targets: Vec<String>,
) -> Result<HashMap<String, asset::Model>, ApiError> {
    let mut found = asset::Entity::find()
        .filter(asset::Column::ExternalId.is_in(targets))
        .filter(asset::Column::RemovedAt.is_null())
        .filter(visible.on(asset::Column::SubscriptionId))
        .filter(reach(of, asset::Column::SubscriptionId))
        .all(database.reader())
        .await?;
    found.sort_by_key(|asset| (asset.subscription_id != of.subscription_id, asset.first_seen_at, asset.id));
    let mut named = HashMap::new();
    for asset in found {
        named.entry(asset.external_id.clone()).or_insert(asset);
    }
    Ok(named)
}

impl RelatedAsset {
    fn of(asset: &asset::Model) -> Self {
        Self {
            id: asset.id,
            subscription: asset.subscription_id,
            asset_type: asset.asset_type.into(),
            kind: asset.kind.clone(),
            region: asset.region.clone(),
            name: asset.name.clone(),
        }
    }
}

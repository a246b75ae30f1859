//! What assets hang together with, kept in step with their rows. Assets that have not changed cost nothing here.

use super::{BATCH, prepared::identifying};
use crate::{
    domain::inventory::{Observed, Relation},
    setup::ids,
};
use keywright_entities::{asset_relation, types::Relates};
use sea_orm::{ActiveValue::Set, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter};
use std::collections::BTreeSet;
use uuid::Uuid;

/// What one transaction does to relations.
#[derive(Default)]
pub(super) struct Relations {
    told: Vec<(Uuid, Relates, String)>,
    /// What was known of these is told anew.
    anew: Vec<Uuid>,
}

impl Relations {
    pub(super) fn of_new(&mut self, asset: Uuid, observed: &Observed) {
        // a provider may tell the same twice, and two that are too long may be cut to the same
        let ends = observed.relations.iter().map(|end| (word(end.relation), identifying(&end.to).into_owned()));
        let distinct: BTreeSet<_> = ends.collect();
        self.told.extend(distinct.into_iter().map(|(relation, target)| (asset, relation, target)));
    }

    pub(super) fn of_changed(&mut self, asset: Uuid, observed: &Observed) {
        self.anew.push(asset);
        self.of_new(asset, observed);
    }

    pub(super) async fn apply(self, db: &DatabaseTransaction, subscription: Uuid) -> Result<(), DbErr> {
        for assets in self.anew.chunks(BATCH) {
            forget_relations(db, assets).await?;
        }
        for batch in self.told.chunks(BATCH) {
            let rows = batch.iter().map(|(asset, relation, target)| asset_relation::ActiveModel {
                id: Set(ids::new()),
                asset_id: Set(*asset),
                subscription_id: Set(subscription),
                relation: Set(*relation),
                target: Set(target.clone()),
            });
            asset_relation::Entity::insert_many(rows).exec_without_returning(db).await?;
        }
        Ok(())
    }
}

/// What is gone, or told anew, hangs together with nothing.
pub(super) async fn forget_relations(db: &DatabaseTransaction, assets: &[Uuid]) -> Result<(), DbErr> {
    asset_relation::Entity::delete_many()
        .filter(asset_relation::Column::AssetId.is_in(assets.iter().copied()))
        .exec(db)
        .await
        .map(|_| ())
}

fn word(relation: Relation) -> Relates {
    match relation {
        Relation::UsedBy => Relates::UsedBy,
        Relation::EncryptedBy => Relates::EncryptedBy,
        Relation::NamedBy => Relates::NamedBy,
        Relation::BelongsTo => Relates::BelongsTo,
    }
}

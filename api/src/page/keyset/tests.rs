use std::collections::HashSet;

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue::Set, Database, DatabaseConnection, IntoSimpleExpr, Schema};

use super::super::{CursorKey, ListParams, SortKey, Sorting};

mod thing {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "thing")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub rank: i64,
        pub label: Option<String>,
        pub due: Option<DateTime<Utc>>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use thing::{Column, Entity, Model};

static SORTING: Sorting<Model> = Sorting {
    keys: &[
        SortKey {
            name: "rank",
            column: || Column::Rank.into_simple_expr(),
            nullable: false,
            read: |row| row.rank.into(),
        },
        SortKey {
            name: "label",
            column: || Column::Label.into_simple_expr(),
            nullable: true,
            read: |row| row.label.clone().into(),
        },
        SortKey { name: "due", column: || Column::Due.into_simple_expr(), nullable: true, read: |row| row.due.into() },
    ],
    default: "-rank",
    unique: SortKey {
        name: "id",
        column: || Column::Id.into_simple_expr(),
        nullable: false,
        read: |row| row.id.into(),
    },
};

type Row = (i64, Option<String>, Option<DateTime<Utc>>);

async fn database(rows: &[Row]) -> DatabaseConnection {
    let mut options = sea_orm::ConnectOptions::new("sqlite::memory:");
    options.max_connections(1).sqlx_logging(false);
    let db = Database::connect(options).await.unwrap();
    db.execute(&Schema::new(db.get_database_backend()).create_table_from_entity(Entity)).await.unwrap();
    for (index, row) in rows.iter().enumerate() {
        insert(&db, index as u128, row).await;
    }
    db
}

async fn insert(db: &DatabaseConnection, id: u128, (rank, label, due): &Row) {
    let row = thing::ActiveModel {
        id: Set(Uuid::from_u128(id)),
        rank: Set(*rank),
        label: Set(label.clone()),
        due: Set(*due),
    };
    Entity::insert(row).exec_without_returning(db).await.unwrap();
}

fn params(sort: &str, limit: usize, cursor: Option<String>, offset: Option<u64>) -> ListParams {
    let mut query = vec![("sort".to_owned(), sort.to_owned()), ("limit".to_owned(), limit.to_string())];
    query.extend(cursor.map(|cursor| ("cursor".to_owned(), cursor)));
    query.extend(offset.map(|offset| ("offset".to_owned(), offset.to_string())));
    query.push(("includeTotal".to_owned(), "true".to_owned()));
    ListParams::read("/things", query, CursorKey::new(b"test")).unwrap()
}

async fn walk(db: &DatabaseConnection, sort: &str, limit: usize) -> Vec<Model> {
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let slice = params(sort, limit, cursor, None).fetch(Entity::find(), &SORTING, db).await.unwrap();
        assert!(slice.rows.len() <= limit && slice.total.is_some());
        seen.extend(slice.rows);
        cursor = slice.next_cursor;
        if cursor.is_none() {
            return seen;
        }
    }
}

/// What the rows must look like: the same order made in memory, NULLs last in both directions.
fn sorted(mut rows: Vec<Model>, sort: &str) -> Vec<Model> {
    use std::cmp::Ordering;
    fn nulls_last<T: Ord>(a: Option<&T>, b: Option<&T>, desc: bool) -> Ordering {
        match (a, b) {
            (Some(a), Some(b)) if desc => b.cmp(a),
            (Some(a), Some(b)) => a.cmp(b),
            (None, None) => Ordering::Equal,
            (None, _) => Ordering::Greater,
            (_, None) => Ordering::Less,
        }
    }
    let last_desc = sort.rsplit(',').next().unwrap().starts_with('-');
    rows.sort_by(|a, b| {
        sort.split(',')
            .map(|item| {
                let (name, desc) = item.strip_prefix('-').map_or((item, false), |name| (name, true));
                match name {
                    "rank" => nulls_last(Some(&a.rank), Some(&b.rank), desc),
                    "label" => nulls_last(a.label.as_ref(), b.label.as_ref(), desc),
                    _ => nulls_last(a.due.as_ref(), b.due.as_ref(), desc),
                }
            })
            .find(|ordering| ordering.is_ne())
            .unwrap_or_else(|| nulls_last(Some(&a.id), Some(&b.id), last_desc))
    });
    rows
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let label = prop_oneof![Just(None), "[ab]{0,1}".prop_map(Some)];
    // few values, so that ties are frequent; all three widths that SQLite's text form of a timestamp can take
    let due = prop::option::of(prop::sample::select(vec![0_i64, 1_000_000, 1_500_000, 1_500_001]))
        .prop_map(|micros| micros.map(|micros| DateTime::from_timestamp_micros(micros).unwrap()));
    prop::collection::vec((0_i64..3, label, due), 0..12)
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

const SORTS: [&str; 9] =
    ["rank", "-rank", "label", "-label", "due", "-due", "-rank,label", "label,-due", "-due,rank,-label"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pages_of_any_size_visit_every_row_once_in_order(rows in rows(), sort in prop::sample::select(&SORTS[..])) {
        block_on(async {
            let db = database(&rows).await;
            let expected = sorted(Entity::find().all(&db).await.unwrap(), sort);
            for limit in 1..=rows.len() + 1 {
                assert_eq!(walk(&db, sort, limit).await, expected, "{sort} by {limit}");
            }
            db.close().await.unwrap();
        });
    }

    #[test]
    fn rows_that_were_there_are_seen_once_whatever_is_inserted(
        before in rows(), during in rows(), sort in prop::sample::select(&SORTS[..]),
    ) {
        block_on(async {
            let db = database(&before).await;
            let (mut seen, mut cursor, mut inserts) = (Vec::new(), None, during.iter().zip(1000..));
            loop {
                let slice = params(sort, 2, cursor, None).fetch(Entity::find(), &SORTING, &db).await.unwrap();
                seen.extend(slice.rows.into_iter().map(|row| row.id));
                cursor = slice.next_cursor;
                if let Some((row, id)) = inserts.next() {
                    insert(&db, id, row).await;
                }
                if cursor.is_none() {
                    break;
                }
            }
            let unique: HashSet<_> = seen.iter().copied().collect();
            assert_eq!(unique.len(), seen.len(), "a row came twice");
            assert!((0..before.len()).all(|id| unique.contains(&Uuid::from_u128(id as u128))), "a row was skipped");
            db.close().await.unwrap();
        });
    }
}

#[tokio::test]
async fn offset_reaches_the_same_rows_and_leads_into_cursors() {
    let rows: Vec<Row> = (0..10).map(|rank| (rank, None, None)).collect();
    let db = database(&rows).await;
    let slice = params("rank", 3, None, Some(4)).fetch(Entity::find(), &SORTING, &db).await.unwrap();
    assert_eq!(slice.rows.iter().map(|row| row.rank).collect::<Vec<_>>(), [4, 5, 6]);
    assert_eq!(slice.total, Some(10));
    let slice = params("rank", 3, slice.next_cursor, None).fetch(Entity::find(), &SORTING, &db).await.unwrap();
    assert_eq!(slice.rows.iter().map(|row| row.rank).collect::<Vec<_>>(), [7, 8, 9]);
    assert_eq!(slice.next_cursor, None);
    db.close().await.unwrap();
}

#[tokio::test]
async fn unknown_or_repeated_sort_keys_are_refused() {
    let db = database(&[]).await;
    for sort in ["name", "-", "", "rank,rank", "rank,-rank", "rank,,label"] {
        let error = params(sort, 3, None, None).fetch(Entity::find(), &SORTING, &db).await.unwrap_err();
        assert_eq!(error.errors()[0].pointer, "/query/sort", "{sort}");
    }
    db.close().await.unwrap();
}

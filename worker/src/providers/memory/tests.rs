//! The cloud in memory does as it is told.

use super::*;
use keywright_jobs::domain::inventory::ProviderKind;

async fn connect(cloud: &MemoryCloud) -> Result<Connection, ProviderError> {
    let target = Target {
        provider: ProviderKind::Aws,
        external_id: "one".to_owned(),
        regions: Vec::new(),
        settings: serde_json::json!({}),
        auth_mode: "ambient".to_owned(),
    };
    cloud.connect(&target, None, Gate::open()).await
}

#[tokio::test]
async fn pages_hold_every_asset_once_while_assets_come_and_go() {
    let (cloud, scope) = (MemoryCloud::default(), secrets_in("north"));
    cloud.page_size(4);
    cloud.put_secrets("one", &scope, 10);
    let inventory = connect(&cloud).await.unwrap().inventory;
    assert_eq!(inventory.scopes().await.unwrap(), std::slice::from_ref(&scope));
    let first = inventory.list(&scope, None).await.unwrap();
    assert!(cloud.remove("one", &scope, "memory:north:secret-0001"));
    let second = inventory.list(&scope, first.next.as_deref()).await.unwrap();
    let third = inventory.list(&scope, second.next.as_deref()).await.unwrap();
    let names: Vec<String> =
        [&first, &second, &third].iter().flat_map(|page| page.assets.iter().map(|a| a.name.clone())).collect();
    assert_eq!(names, (0..10).map(|n| format!("secret-{n:04}")).collect::<Vec<_>>());
    assert_eq!(third.next, None);
    assert_eq!(cloud.count(|call| call.lists("north")), 3);
    cloud.expire_pages();
    assert_eq!(inventory.list(&scope, first.next.as_deref()).await, Err(ProviderError::PageExpired));
}

#[tokio::test]
async fn rules_hold_for_as_often_as_they_say() {
    let (cloud, scope) = (MemoryCloud::default(), secrets_in("north"));
    cloud.scope("one", &scope);
    let inventory = connect(&cloud).await.unwrap().inventory;
    cloud.throttle(2, Duration::from_secs(3), |call| call.lists("north"));
    for _ in 0..2 {
        let refused = inventory.list(&scope, None).await;
        assert!(matches!(refused, Err(ProviderError::Throttled { retry_after: Some(_), .. })), "{refused:?}");
    }
    assert_eq!(inventory.list(&scope, None).await, Ok(Page::default()));
    let hold = cloud.hold(|call| call.lists("north"));
    let mut listing = std::pin::pin!(inventory.list(&scope, None));
    assert!(futures::poll!(&mut listing).is_pending());
    cloud.reached(4, |call| call.lists("north")).await;
    hold.release();
    assert_eq!(listing.await, Ok(Page::default()));
}

//! Which installation a database is: one id, for every process that asks.

use futures::future::join_all;

use super::fixture::Fixture;

promises!(a_database_has_one_id_however_many_ask_at_once, a_copied_database_can_be_given_an_id_of_its_own,);

async fn a_database_has_one_id_however_many_ask_at_once(db: Fixture) {
    let store = db.store().await;
    assert_eq!(store.find_installation().await.unwrap(), None, "a look makes none");
    let asked = join_all((0..8).map(|_| store.installation())).await;
    let ids: Vec<_> = asked.into_iter().map(Result::unwrap).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!((ids[0].len(), ids[0].bytes().all(|byte| byte.is_ascii_hexdigit())), (16, true), "{ids:?}");
    assert_eq!(db.store().await.find_installation().await.unwrap().as_ref(), Some(&ids[0]));
}

async fn a_copied_database_can_be_given_an_id_of_its_own(db: Fixture) {
    let store = db.store().await;
    let before = store.installation().await.unwrap();
    let after = store.renew_installation().await.unwrap();
    assert_ne!(before, after);
    assert_eq!(store.installation().await.unwrap(), after);
}

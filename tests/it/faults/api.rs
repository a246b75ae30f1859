//! APIs that are asked for the same by many at once, and APIs that die before they answer.

use keywright_tests::{
    app::eventually,
    database::TestDatabase,
    faults::{
        checker::Allow,
        clients::{Client, Said},
        double::Plan,
        trial::Trial,
    },
    on_both_databases,
    process::Process,
};
use tokio::task::JoinSet;
use uuid::Uuid;

on_both_databases!(
    a_hundred_equal_requests_to_two_processes_make_one_job,
    what_was_committed_before_its_reply_was_lost_is_found_by_asking_again,
    apis_that_die_under_load_forget_nothing_that_they_answered,
);

/// Joins by the unique key of the scan.
async fn a_hundred_equal_requests_to_two_processes_make_one_job(test: TestDatabase) {
    let trial = Trial::on("equal requests", &test.database).await;
    let account = trial.account("same", Plan::default()).await;
    let (one, two) = tokio::join!(trial.facade(), trial.facade());
    let mut asking = JoinSet::new();
    for number in 0..100 {
        let client = if number % 2 == 0 { one.client() } else { two.client() };
        asking.spawn(async move { client.scan(account, "join", None).await });
    }
    let said = asking.join_all().await;
    let jobs = trial.jobs().await;
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert!(said.iter().all(|said| *said == Said::Accepted(jobs[0].id)), "{said:?}");
    trial.judge(&Allow::NOTHING).await;
}

/// The client asked to wait for the end, so that the API is certainly between the commit and the reply.
async fn what_was_committed_before_its_reply_was_lost_is_found_by_asking_again(test: TestDatabase) {
    let trial = Trial::on("lost reply", &test.database).await;
    let account = trial.account("only", Plan::default()).await;
    let first = trial.facade().await;
    let client = first.client();
    let asking = tokio::spawn(async move { client.scan(account, "join", Some("wait=30")).await });
    eventually("the job is committed", async || (!trial.jobs().await.is_empty()).then_some(())).await;
    first.process.kill();
    assert_eq!(asking.await.unwrap(), Said::Lost);
    let second = trial.facade().await;
    let again = second.client().scan(account, "join", None).await;
    let jobs = trial.jobs().await;
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert_eq!(again, Said::Accepted(jobs[0].id));
    trial.judge(&Allow::NOTHING).await;
}

async fn apis_that_die_under_load_forget_nothing_that_they_answered(test: TestDatabase) {
    let mut trial = Trial::on("dying APIs", &test.database).await;
    let account = trial.account("only", Plan { regions: 1, pages: 1, ..Plan::default() }).await;
    let mut lost = 0;
    for _ in 0..3 {
        let facade = trial.facade().await;
        let mut asking = JoinSet::new();
        for _ in 0..8 {
            asking.spawn(until_lost(facade.client(), account));
        }
        tokio::time::sleep(trial.dice.millis(20..300)).await;
        Process::kill(facade.process);
        lost += asking.join_all().await.len();
    }
    assert_eq!(lost, 3 * 8);
    trial.judge(&Allow::NOTHING).await;
}

async fn until_lost(client: Client, account: Uuid) {
    while client.scan(account, "queue", None).await != Said::Lost {}
}

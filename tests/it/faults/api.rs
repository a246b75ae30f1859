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
use std::collections::BTreeSet;
use tokio::task::JoinSet;
use uuid::Uuid;

on_both_databases!(
    a_hundred_equal_requests_to_two_processes_make_one_job,
    what_was_committed_before_its_reply_was_lost_is_found_by_asking_again,
    apis_that_die_under_load_forget_nothing_that_they_answered,
    a_hundred_with_one_key_make_one_job_although_an_api_dies,
    clients_that_ask_again_after_every_lost_reply_get_one_job_for_each_key,
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

async fn a_hundred_with_one_key_make_one_job_although_an_api_dies(test: TestDatabase) {
    let mut trial = Trial::on("one key", &test.database).await;
    let account = trial.account("same", Plan::default()).await;
    let (one, two) = tokio::join!(trial.facade(), trial.facade());
    let mut asking = JoinSet::new();
    for number in 0..100 {
        let first = if number % 2 == 0 { one.client_of(&two) } else { two.client() };
        asking.spawn(until_told([first, two.client()], account, "the key".to_owned()));
    }
    tokio::time::sleep(trial.dice.millis(0..60)).await;
    one.process.kill();
    let told: BTreeSet<Uuid> = asking.join_all().await.into_iter().collect();
    let jobs: BTreeSet<Uuid> = trial.jobs().await.iter().map(|job| job.id).collect();
    assert_eq!((told.len(), told), (1, jobs));
    trial.judge(&Allow::NOTHING).await;
}

/// Without keys each lost reply may have been a job, which asking again doubles.
async fn clients_that_ask_again_after_every_lost_reply_get_one_job_for_each_key(test: TestDatabase) {
    let mut trial = Trial::on("keys and dying APIs", &test.database).await;
    let account = trial.account("only", Plan { regions: 1, pages: 1, ..Plan::default() }).await;
    let last = trial.facade().await;
    let mut told = BTreeSet::new();
    let mut keys = 0;
    for round in 0..3 {
        let dying = trial.facade().await;
        let mut asking = JoinSet::new();
        for client in 0..8 {
            let clients = [dying.client(), last.client()];
            asking.spawn(async move {
                let mut told = Vec::new();
                for number in 0..10 {
                    told.push(until_told(clients.clone(), account, format!("{round}-{client}-{number}")).await);
                }
                told
            });
        }
        tokio::time::sleep(trial.dice.millis(20..400)).await;
        dying.process.kill();
        let all: Vec<Uuid> = asking.join_all().await.into_iter().flatten().collect();
        keys += all.len();
        told.extend(all);
    }
    assert_eq!(told.len(), keys, "each key has a job of its own");
    let jobs: BTreeSet<Uuid> = trial.jobs().await.iter().map(|job| job.id).collect();
    assert_eq!(told, jobs);
    trial.judge(&Allow::NOTHING).await;
}

/// Asks the one, and whenever no answer comes the other, until the job is told.
async fn until_told([first, other]: [Client; 2], account: Uuid, key: String) -> Uuid {
    let mut client = &first;
    loop {
        match client.scan_once(account, &key).await {
            Said::Accepted(job) => return job,
            // the first with this key is still at it
            Said::Refused(409) => {}
            Said::Refused(status) => panic!("{status} for {key}"),
            Said::Lost => client = &other,
        }
    }
}

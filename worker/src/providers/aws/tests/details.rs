//! What is asked of single assets, and when.

use super::{
    super::{acm, kms, secretsmanager, ssm},
    Scripted, aws, reply, scope, secrets,
};
use keywright_jobs::{
    domain::inventory::Detailed,
    provider::{Gate, NOT_FOUND, ProviderError},
};
use serde_json::json;

#[tokio::test]
async fn certificates_of_every_key_type_are_asked_for_and_described_one_by_one_only_when_wanted() {
    let list = json!({"CertificateSummaryList": [
        {"CertificateArn": "arn:1", "DomainName": "one.example", "Status": "ISSUED", "KeyAlgorithm": "RSA-2048", "NotAfter": 1.8e9},
        {"CertificateArn": "arn:2", "DomainName": "two.example", "Status": "ISSUED"},
    ]});
    let described = json!({"Certificate": {"CertificateArn": "arn:2", "NotAfter": 1.9e9, "InUseBy": ["arn:lb"]}});
    let missing = json!({"__type": "ResourceNotFoundException"});
    let replies = [list, described].map(|answer| reply(200, "", &answer.to_string()));
    let server = Scripted::new([replies.as_slice(), &[reply(400, "", &missing.to_string())]].concat()).await;
    let connection = server.open(aws(), Gate::open()).await;
    let page = connection.inventory.list(&scope(acm::KIND), None).await.unwrap();
    let expiry: Vec<_> = page.assets.iter().map(|asset| asset.expires_at.map(|at| at.timestamp())).collect();
    assert_eq!(expiry, [Some(1_800_000_000), None]);
    let asked = server.asked();
    assert!(asked[0].1["Includes"]["keyTypes"].as_array().unwrap().contains(&json!("EC_secp521r1")));
    assert_eq!(asked.len(), 1);
    let details = connection.details.unwrap();
    assert!(details.cadence(acm::KIND).is_some() && details.cadence(ssm::KIND).is_none());
    let detailed = details.complete(&scope(acm::KIND), page.assets[1].clone()).await.unwrap();
    assert_eq!(detailed.asset.expires_at.unwrap().timestamp(), 1_900_000_000);
    assert_eq!(server.asked()[1], ("DescribeCertificate".to_owned(), json!({"CertificateArn": "arn:2"})));
    let gone = details.complete(&scope(acm::KIND), page.assets[1].clone()).await.unwrap_err();
    assert!(matches!(gone, ProviderError::Rejected { code, .. } if code == NOT_FOUND));
}

fn key(manager: &str) -> Vec<String> {
    let arn = "arn:aws:kms:eu-west-1:123456789012:key/k";
    let answers = [
        json!({"Aliases": [{"AliasName": "alias/a", "TargetKeyId": "k"}, {"AliasName": "alias/aws/unused"}]}),
        json!({"Keys": [{"KeyId": "k", "KeyArn": arn}], "Truncated": false}),
        json!({"KeyMetadata": {"KeyId": "k", "Arn": arn, "Enabled": true, "KeyManager": manager, "KeySpec": "SYMMETRIC_DEFAULT", "Origin": "AWS_KMS"}}),
    ];
    answers.map(|answer| reply(200, "", &answer.to_string())).to_vec()
}

async fn complete_key(replies: Vec<String>) -> (Result<Detailed, ProviderError>, Vec<String>) {
    let server = Scripted::new(replies).await;
    let connection = server.open(aws(), Gate::open()).await;
    let page = connection.inventory.list(&scope(kms::KIND), None).await.unwrap();
    assert_eq!((page.assets[0].name.as_str(), page.assets[0].relations.len()), ("alias/a", 1));
    let completed = connection.details.unwrap().complete(&scope(kms::KIND), page.assets[0].clone()).await;
    (completed, server.asked().into_iter().map(|(operation, _)| operation).collect())
}

#[tokio::test]
async fn of_a_key_that_aws_manages_nothing_is_asked_that_is_aws_s_business() {
    let (detailed, asked) = complete_key(key("AWS")).await;
    assert_eq!(detailed.unwrap().asset.attributes["manager"], "AWS");
    assert_eq!(asked, ["ListAliases", "ListKeys", "DescribeKey"]);
}

#[tokio::test]
async fn what_of_a_key_may_not_be_read_is_told_and_the_rest_is_there() {
    let denied = || reply(400, "", &json!({"__type": "AccessDeniedException"}).to_string());
    let tags =
        reply(200, "", &json!({"Tags": [{"TagKey": "owner", "TagValue": "me"}], "Truncated": false}).to_string());
    let rotation = reply(200, "", &json!({"KeyRotationEnabled": true, "RotationPeriodInDays": 365}).to_string());
    let (detailed, asked) = complete_key([key("CUSTOMER"), vec![denied(), tags, rotation]].concat()).await;
    let detailed = detailed.unwrap();
    assert_eq!(asked[3..], ["GetKeyPolicy", "ListResourceTags", "GetKeyRotationStatus"]);
    assert_eq!(detailed.asset.tags["owner"], "me");
    assert_eq!(detailed.asset.attributes["rotationPeriodInDays"], 365);
    assert!(!detailed.asset.attributes.contains_key("policyVerdict"));
    let told: Vec<_> = detailed.warnings.iter().map(|told| (told.code.as_str(), told.path.as_str())).collect();
    assert_eq!(told, [("details_denied", "kms:GetKeyPolicy")]);
    let mut nothing = key("CUSTOMER");
    nothing[2] = denied();
    let (refused, _) = complete_key(nothing).await;
    assert!(matches!(refused, Err(ProviderError::Denied { permission: Some(p), .. }) if p == "kms:DescribeKey"));
}

#[tokio::test]
async fn accounts_of_an_organisation_are_listed_to_the_last_page() {
    let account = |id: &str, state: &str| json!({"Id": id, "Name": format!("name of {id}"), "State": state});
    let first = json!({"Accounts": [account("111111111111", "ACTIVE")], "NextToken": "t"});
    let second = json!({"Accounts": [account("222222222222", "SUSPENDED"), {"Name": "without an id"}]});
    let denied = reply(400, "", &json!({"__type": "AccessDeniedException"}).to_string());
    let answers = [first, second].map(|answer| reply(200, "", &answer.to_string()));
    let server = Scripted::new([answers.as_slice(), &[denied]].concat()).await;
    let accounts = server.open(aws(), Gate::open()).await.accounts.unwrap();
    let listed = accounts.list().await.unwrap();
    let told: Vec<_> = listed.iter().map(|one| (one.external_id.as_str(), one.state.as_str())).collect();
    assert_eq!(told, [("111111111111", "ACTIVE"), ("222222222222", "SUSPENDED")]);
    assert_eq!(server.asked()[1].1["NextToken"], "t");
    let refused = accounts.list().await.unwrap_err();
    assert!(matches!(refused, ProviderError::Denied { permission: Some(p), .. } if p == "organizations:ListAccounts"));
}

#[tokio::test]
async fn a_secret_s_policy_is_read_for_its_verdict() {
    let policy = json!({"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}]});
    let answers = [json!({"ResourcePolicy": policy.to_string()}), json!({})];
    let answers = answers.map(|answer| reply(200, "", &answer.to_string()));
    let server = Scripted::new([&[secrets(&["a"], None)], answers.as_slice()].concat()).await;
    let connection = server.open(aws(), Gate::open()).await;
    let page = connection.inventory.list(&scope(secretsmanager::KIND), None).await.unwrap();
    let details = connection.details.unwrap();
    for verdict in ["public", "none"] {
        let detailed = details.complete(&scope(secretsmanager::KIND), page.assets[0].clone()).await.unwrap();
        assert_eq!(detailed.asset.attributes["policyVerdict"], verdict);
        assert!(!format!("{detailed:?}").contains("Statement"), "the policy itself is not kept");
    }
}

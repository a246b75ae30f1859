//! What policies say, case by case.

use super::*;
use serde_json::json;

const OWN: &str = "123456789012";
const OTHER: &str = "999999999999";

fn reading(statements: Value) -> Reading {
    Reading::of(&json!({"Version": "2012-10-17", "Statement": statements}).to_string(), OWN)
}

fn verdict(statements: Value) -> Verdict {
    reading(statements).verdict
}

fn allow(principal: Value) -> Value {
    json!({"Effect": "Allow", "Principal": principal, "Action": "secretsmanager:GetSecretValue", "Resource": "*"})
}

fn when(mut statement: Value, conditions: Value) -> Value {
    statement["Condition"] = conditions;
    statement
}

#[test]
fn principals_say_whose_a_resource_is() {
    for (principal, expected) in [
        (json!("*"), Verdict::Public),
        (json!({"AWS": "*"}), Verdict::Public),
        (json!({"AWS": [format!("arn:aws:iam::{OWN}:root"), "*"]}), Verdict::Public),
        (json!({"AWS": OWN}), Verdict::Own),
        (json!({"AWS": format!("arn:aws:iam::{OWN}:root")}), Verdict::Own),
        (json!({"AWS": format!("arn:aws:iam::{OWN}:role/app")}), Verdict::Own),
        (json!({"AWS": OTHER}), Verdict::CrossAccount),
        (json!({"AWS": format!("arn:aws:iam::{OTHER}:root")}), Verdict::CrossAccount),
        (json!({"AWS": format!("arn:aws-cn:sts::{OTHER}:assumed-role/a/b")}), Verdict::CrossAccount),
        (json!({"AWS": [OWN, OTHER]}), Verdict::CrossAccount),
        (json!({"Service": "lambda.amazonaws.com"}), Verdict::Own),
        (json!({"Service": "lambda.amazonaws.com", "AWS": OTHER}), Verdict::CrossAccount),
        (json!({"Federated": format!("arn:aws:iam::{OWN}:saml-provider/x")}), Verdict::Own),
        (json!({"Federated": "accounts.google.com"}), Verdict::Unknown),
        (json!({"CanonicalUser": "79a5"}), Verdict::Unknown),
        // what is left of a deleted user
        (json!({"AWS": "AIDAJQABLZS4A3QDU576Q"}), Verdict::Unknown),
        (json!({"AWS": "arn:aws:iam::*:root"}), Verdict::Unknown),
        (json!("anonymous"), Verdict::Unknown),
        (json!({}), Verdict::Unknown),
        (json!(7), Verdict::Unknown),
        (Value::Null, Verdict::Unknown),
    ] {
        assert_eq!(verdict(allow(principal.clone())), expected, "{principal}");
    }
    let named = reading(json!([allow(json!({"Service": "s.amazonaws.com", "AWS": [OTHER, OWN]}))]));
    assert_eq!(
        (named.others, named.services),
        (BTreeSet::from([OTHER.to_owned()]), BTreeSet::from(["s.amazonaws.com".to_owned()]))
    );
}

#[test]
fn conditions_narrow_anybody_as_far_as_they_are_understood() {
    let anybody = |conditions: Value| verdict(when(allow(json!("*")), conditions));
    for (conditions, expected) in [
        (json!({}), Verdict::Public),
        (json!({"Bool": {"aws:SecureTransport": "true"}}), Verdict::Public),
        (json!({"StringEquals": {"aws:PrincipalAccount": OWN}}), Verdict::Own),
        (json!({"StringEquals": {"AWS:SourceAccount": OWN}}), Verdict::Own),
        (json!({"StringEquals": {"aws:PrincipalAccount": [OWN, OTHER]}}), Verdict::CrossAccount),
        (json!({"StringEquals": {"aws:PrincipalOrgID": "o-abc"}}), Verdict::CrossAccount),
        (json!({"StringLike": {"aws:PrincipalOrgID": "o-*"}}), Verdict::Unknown),
        (json!({"ArnLike": {"aws:PrincipalArn": format!("arn:aws:iam::{OWN}:role/app-*")}}), Verdict::Own),
        (json!({"ArnLike": {"aws:SourceArn": format!("arn:aws:s3:::bucket")}}), Verdict::Unknown),
        (json!({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/app"}}), Verdict::Unknown),
        // how AWS's own keys say it
        (
            json!({"StringEquals": {"kms:CallerAccount": OWN, "kms:ViaService": "secretsmanager.eu-west-1.amazonaws.com"}}),
            Verdict::Own,
        ),
        (json!({"StringEquals": {"kms:ViaService": "secretsmanager.eu-west-1.amazonaws.com"}}), Verdict::Unknown),
        (
            json!({"StringEquals": {"aws:PrincipalOrgID": "o-abc"}, "StringLike": {"aws:PrincipalAccount": OWN}}),
            Verdict::Own,
        ),
        // passes when the key is absent, or for all others
        (json!({"StringEqualsIfExists": {"aws:PrincipalAccount": OWN}}), Verdict::Unknown),
        (json!({"ForAllValues:StringEquals": {"aws:PrincipalAccount": OWN}}), Verdict::Unknown),
        (json!({"StringNotEquals": {"aws:PrincipalAccount": OTHER}}), Verdict::Unknown),
        (json!({"StringEquals": {"aws:PrincipalAccount": "${aws:PrincipalTag/x}"}}), Verdict::Unknown),
        (json!({"StringLike": {"aws:PrincipalAccount": "1234*"}}), Verdict::Unknown),
        (json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}), Verdict::Unknown),
        (json!({"StringEquals": {"aws:PrincipalAccount": []}}), Verdict::Unknown),
        (json!("x"), Verdict::Unknown),
    ] {
        assert_eq!(anybody(conditions.clone()), expected, "{conditions}");
    }
    let other = when(allow(json!({"AWS": OTHER})), json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}));
    assert_eq!(verdict(other), Verdict::CrossAccount, "a condition does not make another account one's own");
}

#[test]
fn everybody_but_some_is_everybody() {
    let statement = json!({"Effect": "Allow", "NotPrincipal": {"AWS": OTHER}, "Action": "*", "Resource": "*"});
    assert_eq!(verdict(statement.clone()), Verdict::Public);
    assert_eq!(verdict(when(statement, json!({"StringEquals": {"aws:PrincipalAccount": OWN}}))), Verdict::Own);
}

#[test]
fn a_deny_takes_away_only_what_it_surely_covers() {
    let deny = |principal: Value, action: &str| json!({"Effect": "Deny", "Principal": principal, "Action": action, "Resource": "*"});
    let public = allow(json!("*"));
    let with = |deny: Value| verdict(json!([public, deny]));
    assert_eq!(with(deny(json!("*"), "secretsmanager:*")), Verdict::Own);
    assert_eq!(with(deny(json!({"AWS": "*"}), "*")), Verdict::Own);
    assert_eq!(with(deny(json!("*"), "secretsmanager:DeleteSecret")), Verdict::Public);
    assert_eq!(with(deny(json!({"AWS": OTHER}), "*")), Verdict::Public, "one is kept out of what is open to all");
    let unless = |conditions: Value| with(when(deny(json!("*"), "*"), conditions));
    assert_eq!(unless(json!({"Bool": {"aws:SecureTransport": "false"}})), Verdict::Public);
    assert_eq!(unless(json!({"StringNotEquals": {"aws:PrincipalOrgID": "o-abc"}})), Verdict::Unknown);
    let but_own = json!({"Effect": "Deny", "NotPrincipal": {"AWS": OWN}, "Action": "*", "Resource": "*"});
    assert_eq!(with(but_own), Verdict::Unknown);
    let all_but =
        json!({"Effect": "Deny", "Principal": "*", "NotAction": "secretsmanager:GetSecretValue", "Resource": "*"});
    assert_eq!(with(all_but), Verdict::Unknown);
    let cross = allow(json!({"AWS": OTHER}));
    assert_eq!(verdict(json!([cross, deny(json!({"AWS": OTHER}), "*")])), Verdict::Unknown);
    let own = allow(json!({"AWS": OWN}));
    assert_eq!(verdict(json!([own, when(deny(json!("*"), "*"), json!({"IpAddress": {}}))])), Verdict::Own);
    assert_eq!(verdict(json!([deny(json!("*"), "*")])), Verdict::Own, "nobody is let in");
}

#[test]
fn the_widest_statement_counts_and_one_that_is_not_understood_is_not_overlooked() {
    let (own, cross, public) = (allow(json!({"AWS": OWN})), allow(json!({"AWS": OTHER})), allow(json!("*")));
    let odd = allow(json!({"CanonicalUser": "x"}));
    assert_eq!(verdict(json!([own, cross])), Verdict::CrossAccount);
    assert_eq!(verdict(json!([own, cross, odd])), Verdict::Unknown);
    assert_eq!(verdict(json!([odd, public])), Verdict::Public);
    assert_eq!(verdict(json!([])), Verdict::Own);
}

#[test]
fn what_is_no_policy_is_unknown() {
    for text in [
        "",
        "{",
        "[]",
        "{}",
        "null",
        r#"{"Statement": "x"}"#,
        r#"{"Statement": [{"Effect": "allow", "Principal": "*"}]}"#,
    ] {
        assert_eq!(Reading::of(text, OWN).verdict, Verdict::Unknown, "{text}");
    }
}

#[test]
fn the_digest_is_of_the_content() {
    let digest = |text: &str| Reading::of(text, OWN).digest;
    assert_eq!(digest(r#"{"Version":"1","Statement":[]}"#), digest("{ \"Statement\": [],\n \"Version\": \"1\" }"));
    assert_ne!(digest(r#"{"Version":"1","Statement":[]}"#), digest(r#"{"Version":"2","Statement":[]}"#));
}

#[test]
fn an_account_is_read_from_an_arn() {
    assert_eq!(account_of("arn:aws:secretsmanager:eu-west-1:123456789012:secret:a:b"), Some(OWN));
    assert_eq!(account_of("arn:aws:s3:::bucket"), None);
    assert_eq!(account_of("x"), None);
}

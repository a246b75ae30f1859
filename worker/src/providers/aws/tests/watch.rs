//! The watch over metadata only: what is called, and what the policy that is shipped allows.

use serde_json::Value;
use std::{fs, path::Path};

/// What is written in this folder and those in it, tests and what rotates aside.
fn sources() -> Vec<String> {
    fn read(folder: &Path, sources: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.file_stem().is_some_and(|name| name == "tests" || name == "rotation") {
                continue;
            }
            if entry.is_dir() {
                read(&entry, sources);
            } else {
                sources.push(fs::read_to_string(entry).unwrap());
            }
        }
    }
    let mut sources = Vec::new();
    read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/providers/aws")), &mut sources);
    sources
}

/// Every SDK call of this folder is one that lists or describes. A new call must be added here, in sight of a reviewer.
#[test]
fn no_call_reads_a_value() {
    let sources = sources();
    let mut calls: Vec<String> = sources
        .iter()
        .flat_map(|source| {
            source.split("self.client").skip(1).map(str::trim_start).filter_map(|rest| rest.strip_prefix('.'))
        })
        .filter_map(|rest| rest.split('(').next())
        .map(str::to_owned)
        .collect();
    calls.sort();
    let known = [
        "describe_certificate",
        "describe_key",
        "describe_parameters",
        "generate_credential_report",
        "get_access_key_last_used",
        "get_caller_identity",
        "get_credential_report",
        "get_key_policy",
        "get_key_rotation_status",
        "get_resource_policy",
        "list_access_keys",
        "list_accounts",
        "list_aliases",
        "list_certificates",
        "list_keys",
        "list_regions",
        "list_resource_tags",
        "list_secrets",
        "list_server_certificates",
        "list_users",
    ];
    assert_eq!(calls, known);
    for forbidden in
        ["secret_value", "get_certificate", "export_certificate", "random_password", "get_parameter", "decrypt"]
    {
        assert!(sources.iter().all(|source| !source.contains(forbidden)), "{forbidden} is named in this folder");
    }
}

/// The policy that is shipped allows what a scan calls, no more and no less, and forbids the reading of values.
#[test]
fn the_shipped_policy_is_what_is_called() {
    let policy = include_str!("../../../../../docs/permissions/aws-inventory.json");
    let policy: Value = serde_json::from_str(policy).unwrap();
    let actions =
        |at: usize| -> Vec<String> { serde_json::from_value(policy["Statement"][at]["Action"].clone()).unwrap() };
    let sources = sources().join("\n");
    let product = sources.replace("const CALL: Call<'_> = Call { action: \"secretsmanager:ListSecrets\"", "");
    let after = |start: &'static str| {
        product
            .split(start)
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .map(str::to_owned)
            .collect::<Vec<String>>()
    };
    let mut called = [after("action: \""), after("self.call(\""), after("Self::call(\"")].concat();
    // of the management account alone: `aws-organization.json`; and what needs no permission
    called.retain(|action| !["organizations:ListAccounts", "sts:GetCallerIdentity"].contains(&action.as_str()));
    called.sort();
    called.dedup();
    assert_eq!((policy["Statement"][0]["Effect"].as_str(), actions(0)), (Some("Allow"), called));
    assert_eq!(policy["Statement"][1]["Effect"], "Deny");
    for value in [
        "secretsmanager:GetSecretValue",
        "secretsmanager:BatchGetSecretValue",
        "ssm:GetParameter*",
        "kms:Decrypt",
        "acm:ExportCertificate",
    ] {
        assert!(actions(1).contains(&value.to_owned()), "{value}");
    }
}

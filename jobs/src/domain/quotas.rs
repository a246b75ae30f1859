//! How fast the clouds let themselves be asked: numbers that their documentation publishes, or that we plan with where it does not.
//!
//! This is data. docs/QUOTAS.md shows it, and a test compares the two.

use keywright_entities::types::ProviderKind;
use std::fmt::Write;

/// What a rate is counted over, by the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// An account or project in one region.
    Region,
    /// An account or project, whatever the region.
    Account,
}

/// The rate of some operations of an API, all of them together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    pub provider: ProviderKind,
    /// `service:Operation` of AWS, the permission that a call needs of Google: as providers name their calls. The first is the name of
    /// the quota.
    pub operations: &'static [&'static str],
    pub per_second: f64,
    pub per: Per,
    /// Whether the provider publishes the number; if not, it is what we plan with.
    pub published: bool,
    /// The most that one page holds, where each page names the next: such calls can only be made one after the other.
    pub page_size: Option<u32>,
    pub source: &'static str,
    /// When the source was read.
    pub read_on: &'static str,
}

impl Quota {
    /// Its name in budgets and metrics.
    pub fn name(&self) -> &'static str {
        self.operations.first().copied().unwrap_or("other")
    }
}

/// What is planned with for an operation that no row names.
const UNKNOWN: f64 = 10.0;
const READ_ON: &str = "2026-11-24";
const SECRETS_MANAGER: &str = "https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html";
const SYSTEMS_MANAGER: &str = "https://docs.aws.amazon.com/general/latest/gr/ssm.html";
const ACM: &str = "https://docs.aws.amazon.com/general/latest/gr/acm.html";
const IAM: &str = "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html";
const KMS: &str = "https://docs.aws.amazon.com/kms/latest/developerguide/requests-per-second.html";
const ORGANIZATIONS: &str = "https://docs.aws.amazon.com/organizations/latest/userguide/orgs_reference_limits.html";
const ACCOUNT: &str = "https://docs.aws.amazon.com/accounts/latest/reference/quotas.html";
const GCP_SECRETS: &str = "https://cloud.google.com/secret-manager/quotas";
const GCP_IAM: &str = "https://cloud.google.com/iam/quotas";
const GCP_PROJECTS: &str = "https://cloud.google.com/resource-manager/docs/limits";

/// Every rate that is known.
pub const QUOTAS: &[Quota] = &[
    published(&["secretsmanager:ListSecrets"], 100.0, Per::Region, SECRETS_MANAGER).pages(100),
    published(&["secretsmanager:DescribeSecret"], 40_000.0, Per::Region, SECRETS_MANAGER),
    planned(&["secretsmanager:GetSecretValue"], 100.0, Per::Region, SECRETS_MANAGER),
    planned(
        &["secretsmanager:PutSecretValue", "secretsmanager:UpdateSecretVersionStage"],
        20.0,
        Per::Region,
        SECRETS_MANAGER,
    ),
    published(
        &[
            "secretsmanager:GetResourcePolicy",
            "secretsmanager:PutResourcePolicy",
            "secretsmanager:DeleteResourcePolicy",
            "secretsmanager:ValidateResourcePolicy",
        ],
        50.0,
        Per::Region,
        SECRETS_MANAGER,
    ),
    planned(&["ssm:DescribeParameters"], 10.0, Per::Region, SYSTEMS_MANAGER).pages(50),
    planned(&["ssm:ListTagsForResource"], 10.0, Per::Region, SYSTEMS_MANAGER),
    // older copies of the page say 1 to 5
    published(&["acm:ListCertificates"], 8.0, Per::Region, ACM).pages(1000),
    published(&["acm:DescribeCertificate"], 10.0, Per::Region, ACM),
    published(&["acm:ListTagsForCertificate"], 10.0, Per::Region, ACM),
    planned(
        &[
            "iam:ListUsers",
            "iam:GenerateCredentialReport",
            "iam:GetCredentialReport",
            "iam:ListAccessKeys",
            "iam:GetAccessKeyLastUsed",
            "iam:GetServerCertificate",
            "iam:CreateAccessKey",
            "iam:UpdateAccessKey",
            "iam:DeleteAccessKey",
        ],
        10.0,
        Per::Account,
        IAM,
    ),
    planned(&["iam:ListServerCertificates"], 10.0, Per::Account, IAM).pages(1000),
    published(&["kms:ListKeys"], 500.0, Per::Region, KMS).pages(1000),
    published(&["kms:ListAliases"], 500.0, Per::Region, KMS).pages(100),
    published(&["kms:DescribeKey"], 2000.0, Per::Region, KMS),
    published(&["kms:GetKeyRotationStatus"], 1000.0, Per::Region, KMS),
    published(&["kms:GetKeyPolicy"], 1000.0, Per::Region, KMS),
    published(&["kms:ListResourceTags"], 2000.0, Per::Region, KMS),
    published(&["kms:ListKeyRotations"], 100.0, Per::Region, KMS),
    published(&["kms:GetKeyLastUsage"], 5.0, Per::Region, KMS),
    planned(&["organizations:ListAccounts"], 5.0, Per::Account, ORGANIZATIONS).pages(20),
    planned(&["account:ListRegions"], 1.0, Per::Account, ACCOUNT).pages(50),
    gcp(
        &["secretmanager.secrets.list", "secretmanager.versions.list", "secretmanager.versions.get"],
        10.0,
        GCP_SECRETS,
    ),
    gcp(&["secretmanager.versions.access"], 1500.0, GCP_SECRETS),
    gcp(
        &[
            "secretmanager.versions.add",
            "secretmanager.versions.enable",
            "secretmanager.versions.disable",
            "secretmanager.versions.destroy",
        ],
        10.0,
        GCP_SECRETS,
    ),
    gcp(&["iam.serviceAccountKeys.list", "iam.serviceAccounts.list"], 100.0, GCP_IAM),
    Quota { published: false, ..gcp(&["resourcemanager.projects.get"], 10.0, GCP_PROJECTS) },
];

const fn published(operations: &'static [&'static str], per_second: f64, per: Per, source: &'static str) -> Quota {
    let (provider, published, page_size) = (ProviderKind::Aws, true, None);
    Quota { provider, operations, per_second, per, published, page_size, source, read_on: READ_ON }
}

const fn planned(operations: &'static [&'static str], per_second: f64, per: Per, source: &'static str) -> Quota {
    Quota { published: false, ..published(operations, per_second, per, source) }
}

const fn gcp(operations: &'static [&'static str], per_second: f64, source: &'static str) -> Quota {
    Quota { provider: ProviderKind::Gcp, ..published(operations, per_second, Per::Account, source) }
}

impl Quota {
    const fn pages(self, size: u32) -> Self {
        Self { page_size: Some(size), ..self }
    }
}

/// The row for this operation.
pub fn known(provider: ProviderKind, operation: &str) -> Option<&'static Quota> {
    QUOTAS.iter().find(|quota| quota.provider == provider && quota.operations.contains(&operation))
}

/// What a call counts against.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    pub provider: ProviderKind,
    /// The quota's name, or of an operation that no row names its own.
    pub name: String,
    /// The region, or `-` where the quota is the account's.
    pub scope: String,
    /// Calls per second at which it may be made at most.
    pub per_second: f64,
    pub known: Option<&'static Quota>,
}

impl Counted {
    /// `what` is `SCOPE service:Operation`; without a scope it counts for the whole account.
    pub fn of(provider: ProviderKind, what: &str) -> Self {
        let (scope, operation) = what.rsplit_once(' ').unwrap_or(("-", what));
        let known = known(provider, operation);
        let scope = match known {
            Some(Quota { per: Per::Account, .. }) => "-",
            _ => scope,
        };
        Self {
            provider,
            name: known.map_or_else(|| operation.to_owned(), |quota| quota.name().to_owned()),
            scope: scope.to_owned(),
            per_second: known.map_or(UNKNOWN, |quota| quota.per_second),
            known,
        }
    }

    /// The name that metrics may show: one of few.
    pub fn label(&self) -> &'static str {
        self.known.map_or("other", Quota::name)
    }
}

/// [`QUOTAS`] as the table of docs/QUOTAS.md.
pub fn markdown_table() -> String {
    let mut table =
        "| provider | operations, together | calls per second | of each | page | number | source, read on |\n\
                     | --- | --- | --- | --- | --- | --- | --- |\n"
            .to_owned();
    for quota in QUOTAS {
        let operations: Vec<String> = quota.operations.iter().map(|name| format!("`{name}`")).collect();
        let per = match quota.per {
            Per::Region => "account and region",
            Per::Account => "account",
        };
        let page = quota.page_size.map_or_else(|| "–".to_owned(), |size| size.to_string());
        let number = if quota.published { "published" } else { "not published: planned" };
        // writing to a text cannot fail
        let _ = writeln!(
            table,
            "| {} | {} | {} | {per} | {page} | {number} | <{}>, {} |",
            quota.provider,
            operations.join(" "),
            quota.per_second,
            quota.source,
            quota.read_on
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_row_makes_sense_and_no_operation_has_two() {
        let mut seen = BTreeSet::new();
        for quota in QUOTAS {
            assert!(quota.per_second > 0.0 && quota.per_second.is_finite(), "{quota:?}");
            assert!(quota.source.starts_with("https://"), "{quota:?}");
            assert!(chrono::NaiveDate::parse_from_str(quota.read_on, "%Y-%m-%d").is_ok(), "{quota:?}");
            assert!(quota.page_size != Some(0) && !quota.operations.is_empty(), "{quota:?}");
            for operation in quota.operations {
                assert!(operation.contains([':', '.']) && !operation.contains(' '), "{operation}");
                assert!(seen.insert((quota.provider.as_str(), operation)), "{operation} has two rows");
            }
        }
    }

    #[test]
    fn the_document_shows_this_table() {
        let document = include_str!("../../../docs/QUOTAS.md");
        let (_, after) = document.split_once("<!-- quotas -->\n").expect("a mark where the table begins");
        let (shown, _) = after.split_once("<!-- /quotas -->").expect("a mark where it ends");
        let table = markdown_table();
        assert!(shown == table, "docs/QUOTAS.md should have between its marks:\n{table}");
    }

    #[test]
    fn a_quota_of_the_account_is_shared_by_its_regions_and_families() {
        let of = |what| Counted::of(ProviderKind::Aws, what);
        assert_eq!(of("global iam:ListAccessKeys"), of("eu-west-1 iam:ListUsers"));
        assert_ne!(of("eu-west-1 secretsmanager:ListSecrets"), of("eu-west-2 secretsmanager:ListSecrets"));
        assert_eq!(of("eu-west-1 secretsmanager:ListSecrets").per_second, 100.0);
    }

    #[test]
    fn what_no_row_names_is_planned_with_gently_and_shares_a_label() {
        let odd = Counted::of(ProviderKind::Aws, "eu-west-1 odd:Call");
        assert_eq!((odd.per_second, odd.label(), odd.name.as_str()), (UNKNOWN, "other", "odd:Call"));
        assert_eq!(Counted::of(ProviderKind::Gcp, "odd").scope, "-");
    }
}

//! Whether a served chain should be believed: two separate facts, the name and the path to an authority.

use chrono::{DateTime, Utc};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use std::{sync::Arc, time::Duration};
use tokio::sync::OnceCell;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, Error, KeyUsage, anchor_from_trusted_cert};

/// The authorities that are believed.
#[derive(Clone, Default)]
pub struct Anchors {
    loaded: Arc<OnceCell<Arc<Vec<TrustAnchor<'static>>>>>,
}

impl Anchors {
    /// Those of this machine's trust store, read when they are first needed.
    pub fn of_this_machine() -> Self {
        Self::default()
    }

    /// Exactly these.
    pub fn of(certificates: &[CertificateDer<'_>]) -> Self {
        Self { loaded: Arc::new(OnceCell::new_with(Some(Arc::new(anchors(certificates))))) }
    }

    pub(super) async fn get(&self) -> Arc<Vec<TrustAnchor<'static>>> {
        let load = || async {
            let reading = tokio::task::spawn_blocking(|| anchors(&rustls_native_certs::load_native_certs().certs));
            Arc::new(reading.await.unwrap_or_default())
        };
        Arc::clone(self.loaded.get_or_init(load).await)
    }
}

/// Certificates that cannot be an anchor are left out, as every TLS client does.
fn anchors(certificates: &[CertificateDer<'_>]) -> Vec<TrustAnchor<'static>> {
    certificates.iter().filter_map(|der| anchor_from_trusted_cert(der).ok().map(|anchor| anchor.to_owned())).collect()
}

/// What came of judging a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub name_matches: bool,
    /// `None` when there is no authority on this machine to judge by.
    pub trusted: Option<bool>,
    /// Why it is not trusted, a stable word.
    pub reason: Option<&'static str>,
}

/// Judges `chain`, the leaf first, as a TLS client of `name` would at `now`.
pub fn judge(
    chain: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    anchors: &[TrustAnchor<'_>],
    now: DateTime<Utc>,
) -> Verdict {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Verdict { name_matches: false, trusted: Some(false), reason: Some("no_certificate") };
    };
    let leaf = match EndEntityCert::try_from(leaf) {
        Ok(leaf) => leaf,
        Err(error) => return Verdict { name_matches: false, trusted: Some(false), reason: Some(word(&error)) },
    };
    let name_matches = leaf.verify_is_valid_for_subject_name(name).is_ok();
    if anchors.is_empty() {
        return Verdict { name_matches, trusted: None, reason: Some("no_trust_anchors") };
    }
    let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
    let path = leaf.verify_for_usage(
        ALL_VERIFICATION_ALGS,
        anchors,
        intermediates,
        UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
        KeyUsage::server_auth(),
        None,
        None,
    );
    let reason = path.err().map(|error| word(&error));
    Verdict { name_matches, trusted: Some(reason.is_none()), reason }
}

fn word(error: &Error) -> &'static str {
    match error {
        Error::CertExpired { .. } => "expired",
        Error::CertNotValidYet { .. } => "not_yet_valid",
        Error::UnknownIssuer => "unknown_issuer",
        Error::CaUsedAsEndEntity => "ca_as_end_entity",
        Error::EndEntityUsedAsCa => "end_entity_as_ca",
        Error::InvalidSignatureForPublicKey => "invalid_signature",
        Error::RequiredEkuNotFoundContext(_) => "not_for_servers",
        Error::NameConstraintViolation => "name_constraint_violated",
        Error::UnsupportedCertVersion => "unsupported_version",
        _ => "invalid_chain",
    }
}

//! What names of Google Cloud look like. They become parts of addresses, in which they must not be able to leave their place.

/// The region of everything that is not bound to one.
pub const GLOBAL: &str = "global";

/// Whether this is the id of a project: 6 to 30 lower-case letters, digits and hyphens; an old one may belong to a domain, as
/// `example.com:acme-prod` does. A number is none.
pub fn is_project_id(id: &str) -> bool {
    let (domain, id) = id.split_once(':').map_or((None, id), |(domain, id)| (Some(domain), id));
    let word = |text: &str, more: &[u8]| {
        text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || more.contains(&b))
    };
    domain.is_none_or(|domain| {
        domain.len() <= 253 && domain.contains('.') && !domain.contains("..") && word(domain, b".")
    }) && (6..=30).contains(&id.len())
        && word(id, b"")
        && id.starts_with(|c: char| c.is_ascii_lowercase())
        && !id.ends_with('-')
}

/// Whether this is [`GLOBAL`] or has the form of a region's name, e.g. `europe-west1`.
pub fn is_region(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name == GLOBAL || name.len() <= 32 && name.contains('-') && name.split('-').all(plain)
}

/// Whether this is the address of a service account, e.g. `audit@acme-prod.iam.gserviceaccount.com`.
pub fn is_service_account(address: &str) -> bool {
    let word = |text: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(plain) && !text.contains("..")
    };
    address.len() <= 320
        && address
            .strip_suffix(".gserviceaccount.com")
            .and_then(|front| front.split_once('@'))
            .is_some_and(|(name, domain)| word(name) && word(domain))
}

/// Whether a host is in Google's own domain, so that it may be shown an access token. The dot at the end of a host, which says
/// that it is complete, does not matter.
pub fn is_own_host(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "googleapis.com" || host.ends_with(".googleapis.com")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_told_by_its_id() {
        for good in ["acme-prod", "a12345", "example.com:acme-prod"] {
            assert!(is_project_id(good), "{good}");
        }
        let long = "a".repeat(31);
        for bad in [
            "",
            "short",
            "123456789012",
            "Acme-Prod",
            "acme-prod-",
            "acme/../prod",
            "a:acme-prod",
            "a..b:acme-prod",
            "projects/acme-prod",
            &long,
        ] {
            assert!(!is_project_id(bad), "{bad}");
        }
    }

    #[test]
    fn a_region_cannot_reach_outside_its_place_in_a_host_name() {
        assert!(["global", "us-east1", "northamerica-northeast2"].into_iter().all(is_region));
        for bad in
            ["", "evil.com/#", "us-east1.evil.com", "US-EAST1", "us--east1", "earth", "a-\u{e9}", "us-east1-", "-"]
        {
            assert!(!is_region(bad), "{bad}");
        }
    }

    #[test]
    fn a_service_account_cannot_leave_its_place_in_a_path() {
        for good in [
            "audit@acme-prod.iam.gserviceaccount.com",
            "123-compute@developer.gserviceaccount.com",
            "acme-prod@appspot.gserviceaccount.com",
            "audit@acme-prod.example.com.iam.gserviceaccount.com",
        ] {
            assert!(is_service_account(good), "{good}");
        }
        for bad in [
            "audit",
            "audit@example.com",
            "a/b@x.gserviceaccount.com",
            "@x.gserviceaccount.com",
            "a@.gserviceaccount.com",
            "..@x.gserviceaccount.com",
            "a@x?.gserviceaccount.com",
            "a@b@x.gserviceaccount.com",
        ] {
            assert!(!is_service_account(bad), "{bad}");
        }
    }

    #[test]
    fn only_google_s_own_domain_is_google_s() {
        for own in
            ["googleapis.com", "iam.googleapis.com", "IAM.GoogleAPIs.com.", "secretmanager.us-east1.rep.googleapis.com"]
        {
            assert!(is_own_host(own), "{own}");
        }
        for foreign in
            ["", "google.com", "evilgoogleapis.com", "googleapis.com.evil.example", "iam.googleapis.com..", "1.1.1.1"]
        {
            assert!(!is_own_host(foreign), "{foreign}");
        }
    }
}

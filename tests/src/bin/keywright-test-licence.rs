//! Makes a licence for trying things out: `keywright-test-licence PRO 30 licence.jwt` writes it and prints the settings under which the tier holds for thirty
//! days. The key that signs it is forgotten at once.
#![allow(clippy::print_stdout, reason = "this is what it is for")]

use anyhow::Context as _;
use keywright_tests::licence::Issuer;
use std::time::{Duration, SystemTime};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: keywright-test-licence STARTER|PRO|ENTERPRISE DAYS FILE";
    let tier = arguments.next().context(usage)?;
    let days: u64 = arguments.next().and_then(|days| days.parse().ok()).context(usage)?;
    let file = arguments.next().context(usage)?;
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs());
    let now = SystemTime::now();
    let end = now + Duration::from_secs(days * 24 * 3600);
    let issuer = Issuer::default();
    let claims = serde_json::json!({"tier": tier, "sub": "test", "iat": seconds(now)?, "exp": seconds(end)?});
    std::fs::write(&file, issuer.sign(&claims)).with_context(|| format!("writing {file}"))?;
    println!("KEYWRIGHT_LICENCE_PUBLIC_KEY={}\nKEYWRIGHT_LICENCE_FILE={file}", issuer.public_key());
    Ok(())
}

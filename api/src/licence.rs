//! What the licence gates: `_licensed: Licensed<tier::Pro>` in a handler's signature, after its `Caller`, lets only callers through
//! whose instance has that tier, and the document shows it as `x-required-tier`.

use crate::{
    error::{ApiError, Code},
    strict::{Gate, Operation},
};
use async_trait::async_trait;
use keywright_jobs::{
    domain::licence::Tier,
    licence::{Licence, Refused},
};
use poem::{Request, RequestBody};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use std::{marker::PhantomData, sync::Arc};

/// A tier that a handler demands.
pub trait Demanded: Send + Sync + 'static {
    const TIER: Tier;
}

/// One type per tier that can be demanded; STARTER has what everybody has.
pub mod tier {
    use super::{Demanded, Tier};

    #[derive(Clone, Copy, Debug)]
    pub struct Pro;

    impl Demanded for Pro {
        const TIER: Tier = Tier::Pro;
    }

    #[derive(Clone, Copy, Debug)]
    pub struct Enterprise;

    impl Demanded for Enterprise {
        const TIER: Tier = Tier::Enterprise;
    }
}

/// Proof that the tier `T` is in force.
pub struct Licensed<T>(PhantomData<fn() -> T>);

/// How the marker travels through poem-openapi, which knows no extensions of operations: as a way to authenticate, which
/// [`crate::openapi`] takes out again.
pub(crate) const TIER_SCHEMES: &[(Tier, &str)] = &[(Tier::Pro, "tier:PRO"), (Tier::Enterprise, "tier:ENTERPRISE")];

impl<'a, T: Demanded> ApiExtractor<'a> for Licensed<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn security_schemes() -> Vec<&'static str> {
        TIER_SCHEMES.iter().filter(|(tier, _)| *tier == T::TIER).map(|(_, scheme)| *scheme).collect()
    }

    async fn from_request(
        request: &'a Request,
        _body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let licence = request.data::<Arc<Licence>>();
        let licence = licence.ok_or_else(|| ApiError::internal("the application has no licence gate"))?;
        licence.require(T::TIER).map_err(ApiError::from)?;
        Ok(Self(PhantomData))
    }
}

/// Gives every request the licence. Without it no [`Licensed`] comes about.
pub struct LicenceGate(pub Arc<Licence>);

#[async_trait]
impl Gate for LicenceGate {
    async fn admit(&self, request: &mut Request, _: &Operation) -> Result<(), ApiError> {
        request.extensions_mut().insert(Arc::clone(&self.0));
        Ok(())
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Tier { required, .. } => Self::tier_required(required.as_str()),
            Refused::Limit { limit, most, in_force, required } => {
                let more = match required {
                    Some(tier) => format!("a licence of tier {tier} has more"),
                    None => "another licence may have more".to_owned(),
                };
                let detail = format!(
                    "The tier {in_force} has room for {most} {}, and there are as many. What is there goes on; {more}.",
                    words(limit)
                );
                Self::new(Code::LimitReached, detail).with_required_tier(required.map(Tier::as_str))
            }
            Refused::Database(error) => error.into(),
        }
    }
}

const fn words(limit: keywright_jobs::domain::licence::Limit) -> &'static str {
    use keywright_jobs::domain::licence::Limit;
    match limit {
        Limit::Subscriptions => "subscriptions",
        Limit::Users => "users",
        Limit::ManualRotations => "rotations by hand in a month",
    }
}

#[cfg(test)]
mod tests;

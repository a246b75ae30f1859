//! Single sign-on with the operator's OpenID provider, for browsers.

use super::Tag;
use crate::{
    auth::{
        Client, Identity, caller,
        sso::{Returned, Sso, page},
    },
    error::{ApiError, Code},
    licence::{Licensed, tier},
};
use poem::{
    Request,
    http::{HeaderValue, header},
    web::cookie::CookieJar,
};
use poem_openapi::{ApiResponse, OpenApi, param::Query, payload::Html};
use std::sync::Arc;

/// To the provider.
#[derive(ApiResponse)]
pub enum Departure {
    /// Off to the provider.
    #[oai(status = 302)]
    Found(
        /// The provider's page, with what it needs to send the browser back.
        #[oai(header = "Location")]
        String,
    ),
}

/// In.
#[derive(ApiResponse)]
pub enum Entrance {
    /// A page that moves on by itself. The session is in its cookies.
    #[oai(status = 200)]
    Page(
        Html<String>,
        /// Nothing is loaded or run.
        #[oai(header = "Content-Security-Policy")]
        String,
    ),
}

/// Single sign-on.
pub struct SsoApi {
    pub identity: Arc<Identity>,
    /// `None` where the operator configured no provider.
    pub sso: Option<Arc<Sso>>,
}

impl SsoApi {
    fn sso(&self) -> Result<&Sso, ApiError> {
        let detail =
            "Single sign-on is not set up here. An operator does so with KEYWRIGHT_OIDC_ISSUER and what belongs to it.";
        self.sso.as_deref().ok_or_else(|| ApiError::new(Code::NotFound, detail))
    }
}

#[OpenApi(tag = "Tag::Auth")]
impl SsoApi {
    /// Begin single sign-on
    ///
    /// For browsers: sends them to the operator's OpenID provider, and keeps in a cookie for ten minutes what the way back is checked
    /// with. Browsers that ask for `text/html` are told refusals as a page.
    #[oai(path = "/api/auth/sso/login", method = "get", operation_id = "ssoLogin")]
    async fn login(
        &self,
        _licensed: Licensed<tier::Pro>,
        request: &Request,
        jar: &CookieJar,
        /// Where to go afterwards: a path of this server, with its query. Default `/docs`.
        #[oai(validator(min_length = 1, max_length = 1024, pattern = r"^/([!-.0-\[\]-~][!-\[\]-~]*)?$"))]
        next: Query<Option<String>>,
    ) -> Result<Departure, ApiError> {
        let departure = self.sso()?.depart(next.0.as_deref(), request.headers()).await?;
        let cookies = self.identity.cookies;
        for name in departure.stale {
            jar.add(cookies.sso_ended(&name));
        }
        let (name, value) = departure.cookie;
        jar.add(cookies.sso_begun(&name, &value));
        Ok(Departure::Found(departure.to.into()))
    }

    /// End single sign-on
    ///
    /// Where the provider sends browsers back to. Each way back is good once, in the browser that began it. Starts a session, as
    /// a login does, and answers with a page that goes on to where the way was to end. Further parameters that a provider adds are
    /// ignored (RFC 6749, 4.1.2).
    #[oai(path = "/api/auth/sso/callback", method = "get", operation_id = "ssoCallback")]
    #[allow(clippy::too_many_arguments, reason = "each is a parameter of the query")]
    async fn callback(
        &self,
        _licensed: Licensed<tier::Pro>,
        request: &Request,
        jar: &CookieJar,
        /// What was given to the provider.
        #[oai(validator(max_length = 200))]
        state: Query<Option<String>>,
        /// What the provider gives tokens for.
        #[oai(validator(max_length = 4096))]
        code: Query<Option<String>>,
        /// Who answers (RFC 9207).
        #[oai(validator(max_length = 1024))]
        iss: Query<Option<String>>,
        /// Why the provider lets nobody in.
        #[oai(validator(max_length = 1024))]
        error: Query<Option<String>>,
    ) -> Result<Entrance, ApiError> {
        let sso = self.sso()?;
        let returned = Returned { state: state.0, code: code.0, iss: iss.0, error: error.0 };
        let ended = returned.state.as_deref().map(|state| sso.cookie(state));
        let client =
            Client { user_agent: request.header("user-agent").map(str::to_owned), address: caller::address(request) };
        let cookies = self.identity.cookies;
        match sso.arrive(returned, request.headers(), client).await {
            Ok(entered) => {
                let (access, refresh) = entered.tokens.tokens();
                cookies.set(jar, entered.tokens.issued_at, access, refresh);
                jar.add(cookies.sso_ended(&entered.cookie));
                Ok(Entrance::Page(Html(page::moving_on(&entered.next)), page::POLICY.to_owned()))
            }
            // the jar is emptied into successes alone
            Err(refusal) => Err(match ended.and_then(|name| cookie_header(&cookies.sso_ended(&name).to_string())) {
                Some(value) => refusal.with_header(header::SET_COOKIE, value),
                None => refusal,
            }),
        }
    }
}

fn cookie_header(cookie: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(cookie).ok()
}

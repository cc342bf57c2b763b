//! Which pages may call, told to browsers by the Fetch standard's CORS protocol.

use super::{WebConfig, Whole};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use rustc_hash::FxHashSet;

/// The origins of pages that may call.
#[derive(Clone, Debug)]
pub enum Origins {
    /// Every page of the web.
    Any,
    /// These, and the server's own.
    Listed(FxHashSet<String>),
}

impl Default for Origins {
    fn default() -> Self {
        Self::Listed(FxHashSet::default())
    }
}

/// Names that a page needs for the protocols themselves; the names of metadata
/// are added to each answer that has any.
const EXPOSED: &str = "grpc-status, grpc-message, grpc-status-details-bin, content-encoding";

/// Leave for a page to read an answer; empty for a caller that needs none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grant {
    origin: Option<HeaderValue>,
    credentials: bool,
    /// Whether another origin would get another answer, which a cache must know.
    varies: bool,
}

impl Grant {
    pub(super) fn of(config: &WebConfig, headers: &HeaderMap) -> Self {
        let origin = headers.get(header::ORIGIN);
        let origin = match &config.origins {
            Origins::Any if config.credentials => origin.cloned(),
            Origins::Any => origin.map(|_| HeaderValue::from_static("*")),
            Origins::Listed(listed) => origin
                .filter(|origin| origin.to_str().is_ok_and(|text| listed.contains(text)))
                .cloned(),
        };
        Self {
            origin,
            credentials: config.credentials,
            varies: match &config.origins {
                Origins::Any => config.credentials,
                Origins::Listed(listed) => !listed.is_empty(),
            },
        }
    }

    fn permit(&self, headers: &mut HeaderMap) -> bool {
        if self.varies {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = &self.origin else {
            return false;
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        true
    }

    /// Adds to an answer what lets the page read it.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        // What was sent as metadata is for the page to read.
        let mut exposed = String::from(EXPOSED);
        for name in headers.keys().filter(|name| *name != header::CONTENT_TYPE) {
            exposed.push_str(", ");
            exposed.push_str(name.as_str());
        }
        if self.permit(headers)
            && let Ok(exposed) = HeaderValue::try_from(exposed)
        {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

/// Whether a browser asks if it may send a request.
pub(super) fn is_preflight(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Answers it. An origin that may call may send any metadata.
pub(super) fn preflight(config: &WebConfig, headers: &HeaderMap) -> Whole {
    let grant = Grant::of(config, headers);
    let mut answer = HeaderMap::new();
    let status = if grant.permit(&mut answer) {
        answer.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("POST, GET"),
        );
        if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS)
            && is_list_of_names(asked.as_bytes())
        {
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        answer.insert(
            header::ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from(config.max_age.as_secs()),
        );
        StatusCode::NO_CONTENT
    } else {
        StatusCode::FORBIDDEN
    };
    Whole {
        status,
        headers: answer,
        body: Bytes::new(),
    }
}

fn is_list_of_names(value: &[u8]) -> bool {
    value
        .split(|byte| *byte == b',')
        .all(|name| HeaderName::from_bytes(name.trim_ascii()).is_ok())
}

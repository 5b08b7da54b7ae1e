//! Errors of the API server, and how they are classified.

use crate::pipeline::reason::{Classify, Disposition, Reason};

/// Most characters of an API server's message that are repeated.
const MESSAGE_LIMIT: usize = 300;

/// A call to the API server that failed.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not {action}: {}", describe(cause))]
pub struct KubeError {
    /// What was requested, as in "apply ConfigMap 'x'".
    pub action: String,
    /// What the client returned.
    pub cause: Box<kube::Error>,
}

impl KubeError {
    /// Wraps what the client returned.
    pub fn new(action: impl Into<String>, cause: kube::Error) -> Self {
        Self {
            action: action.into(),
            cause: Box::new(cause),
        }
    }

    /// The HTTP status, if there was a response.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match &*self.cause {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        }
    }
}

impl Classify for KubeError {
    fn reason(&self) -> Reason {
        // 422: the object that the spec asks for is not valid, for example a label.
        if self.code() == Some(422) {
            Reason::InvalidSpec
        } else {
            Reason::KubernetesApiFailed
        }
    }

    fn disposition(&self) -> Disposition {
        if self.code() == Some(422) {
            Disposition::Stalled
        } else {
            Disposition::Retry
        }
    }
}

/// The reason that the client makes up if a response is no `Status`; the message is the body then.
const NO_STATUS: &str = "Failed to parse error data";

/// One line about an error of the client, without URLs, and without what was received: a response that cannot be decoded
/// may be a Secret, and the page of a proxy may repeat our token.
#[must_use]
pub(super) fn describe(error: &kube::Error) -> String {
    let text = match error {
        kube::Error::Api(status) if status.reason == NO_STATUS => format!("{} without a reason", status.code),
        kube::Error::Api(status) => format!("{} {}: {}", status.code, status.reason, status.message),
        kube::Error::SerdeError(error) => {
            let (line, column) = (error.line(), error.column());
            format!("the response cannot be decoded (line {line}, column {column})")
        }
        other => crate::pipeline::reason::chain(other),
    };
    text.chars().take(MESSAGE_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::reason::chain;

    #[test]
    fn an_error_is_described_once() {
        let status = kube::core::Status::failure("you may not", "Forbidden").with_code(403);
        let error = KubeError::new("remove ConfigMap 'a'", kube::Error::Api(Box::new(status)));
        assert_eq!(
            chain(&error),
            "the API server did not remove ConfigMap 'a': 403 Forbidden: you may not"
        );
    }

    #[test]
    fn no_received_byte_is_repeated() {
        let undecodable = serde_json::from_str::<u64>("\"canary\"").unwrap_err();
        assert!(undecodable.to_string().contains("canary"), "{undecodable}");
        assert_eq!(
            describe(&kube::Error::SerdeError(undecodable)),
            "the response cannot be decoded (line 1, column 8)"
        );
        let page = kube::core::Status::failure("<html>canary", NO_STATUS).with_code(502);
        assert_eq!(describe(&kube::Error::Api(Box::new(page))), "502 without a reason");
    }
}

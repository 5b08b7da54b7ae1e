//! What requests do with a repository.

/// What a request does with a repository. A token is requested, and cached, for one action only, so that a token that
/// may push is never sent with a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Pull,
}

impl Action {
    /// The action in a token's scope. Source: distribution documentation, "Token Scope Documentation".
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
        }
    }
}

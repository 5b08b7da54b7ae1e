//! Registry credentials as pull secrets carry them.
//!
//! The format is Docker's `config.json` (`kubernetes.io/dockerconfigjson`); which entry applies to which image follows
//! kubelet (`kubernetes/kubernetes:pkg/credentialprovider/keyring.go`), so that a pull secret that works for a pod
//! works here. `credsStore` and `credHelpers` are ignored: they name programs, and a Secret must never choose a program
//! for us to run.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Secret, fingerprint};
use crate::domain::bounded::BoundedMap;
use crate::domain::digest::Digest;
use crate::domain::glob::{Glob, MAX_GLOB_BYTES};
use crate::domain::reference::Repository;

/// Largest pull secret that is read, in bytes: the most a Secret can hold.
pub const MAX_DOCKER_CONFIG_BYTES: usize = 1 << 20;
/// Most entries the pull secrets of one object may have.
pub const MAX_DOCKER_CONFIG_ENTRIES: usize = 256;
/// Most credentials that are tried for one repository: each of them is a request to the registry, or two.
pub const MAX_CANDIDATES: usize = 8;
/// Most bytes of a user name, a password, a token, or the base64 of a name and a password. Servers break the connection of whoever sends much longer ones, which
/// would look as if the host were dead.
pub const MAX_CREDENTIAL_BYTES: usize = 16 << 10;

/// Longest label of a host name (RFC 1035 section 2.3.4). A longer one resolves nowhere, and matching takes time in
/// proportion.
const MAX_LABEL_BYTES: usize = 63;

/// One way to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user name and a password.
    Basic {
        /// The user name.
        username: String,
        /// The password or access token.
        password: Secret,
    },
    /// An OAuth2 refresh token (`identitytoken`), which a token server exchanges for an access token.
    IdentityToken(Secret),
    /// A bearer token sent as it is (`registrytoken`).
    RegistryToken(Secret),
}

impl Credentials {
    /// A fingerprint that distinguishes two logins and cannot be turned back into one.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        match self {
            Self::Basic { username, password } => fingerprint(["basic", username, password.expose()]),
            Self::IdentityToken(token) => fingerprint(["identity", token.expose()]),
            Self::RegistryToken(token) => fingerprint(["registry", token.expose()]),
        }
    }
}

/// Why a pull secret cannot be used. Messages name keys, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// Not the JSON of a Docker configuration.
    #[error("not a Docker configuration in JSON with an object 'auths' (line {line}, column {column})")]
    ParseJson {
        /// Line of the first fault.
        line: usize,
        /// Column of the first fault.
        column: usize,
    },
    /// The `auth` of an entry is not base64 of `user:password`.
    #[error("'auth' of the entry '{0}' is not base64 of 'user:password'")]
    DecodeAuth(String),
    /// Over [`MAX_DOCKER_CONFIG_BYTES`].
    #[error("larger than 1 MiB")]
    LimitSize,
    /// Over [`MAX_DOCKER_CONFIG_ENTRIES`].
    #[error("more than {MAX_DOCKER_CONFIG_ENTRIES} entries in 'auths', together with those read before")]
    LimitEntries,
    /// A text over [`MAX_CREDENTIAL_BYTES`].
    #[error("an entry of 'auths' has a user name, password or token of more than 16 KiB")]
    LimitCredential,
    /// A key over [`MAX_GLOB_BYTES`]. Its text is left out: a URL may hold a password.
    #[error("an entry of 'auths' has a key of {found} bytes, and at most {MAX_GLOB_BYTES} can name a registry")]
    LimitKey {
        /// The length of the key.
        found: usize,
    },
}

/// Pull secrets, ready for lookups by image.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    /// Most specific first within a secret; secrets in the order they were added.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    pattern: Pattern,
    credentials: Credentials,
}

impl PartialEq for Keyring {
    fn eq(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len()
            && self
                .entries
                .iter()
                .zip(&other.entries)
                .all(|(one, two)| one.pattern.text == two.pattern.text && one.credentials == two.credentials)
    }
}

impl Eq for Keyring {}

#[derive(serde::Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BoundedMap<DockerAuth, MAX_DOCKER_CONFIG_ENTRIES>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct DockerAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Keyring {
    /// Reads the value of `.dockerconfigjson`.
    ///
    /// # Errors
    /// [`KeyringError`], which says where the text is wrong without repeating it.
    pub fn from_docker_config(json: &[u8]) -> Result<Self, KeyringError> {
        if json.len() > MAX_DOCKER_CONFIG_BYTES {
            return Err(KeyringError::LimitSize);
        }
        let config: DockerConfig = serde_json::from_slice(json).map_err(|error| KeyringError::ParseJson {
            line: error.line(),
            column: error.column(),
        })?;
        let auths = config.auths.complete().ok_or(KeyringError::LimitEntries)?;
        let mut entries = Vec::new();
        for (key, auth) in auths {
            if key.len() > MAX_GLOB_BYTES {
                return Err(KeyringError::LimitKey { found: key.len() });
            }
            if auth.is_too_long() {
                return Err(KeyringError::LimitCredential);
            }
            let (Some(pattern), Some(credentials)) = (Pattern::parse(&key), auth.credentials(&key)?) else {
                continue;
            };
            entries.push(Entry { pattern, credentials });
        }
        // The longest path first, and a written host before a glob, which sorts below every letter: kubelet's order.
        entries.sort_by(|one, two| {
            (two.pattern.path.len(), &two.pattern.host).cmp(&(one.pattern.path.len(), &one.pattern.host))
        });
        Ok(Self { entries })
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds the entries of `other` behind those already here.
    pub fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// Drops what is not among the candidates for `repository`. A keyring is kept, searched and compared as long as a
    /// run waits for its registry, and one Secret may hold hundreds of entries that are of no use.
    pub fn retain_candidates(&mut self, repository: &Repository) {
        self.entries.retain(|entry| entry.pattern.matches(repository));
        self.entries.truncate(MAX_CANDIDATES);
        self.entries.shrink_to_fit();
    }

    /// The credentials to try for `repository`, best first, at most [`MAX_CANDIDATES`]; none means anonymous.
    pub fn candidates<'a>(&'a self, repository: &'a Repository) -> impl Iterator<Item = &'a Credentials> {
        self.entries
            .iter()
            .filter(|entry| entry.pattern.matches(repository))
            .map(|entry| &entry.credentials)
            .take(MAX_CANDIDATES)
    }
}

impl DockerAuth {
    fn is_too_long(&self) -> bool {
        let texts = [
            &self.username,
            &self.password,
            &self.identitytoken,
            &self.registrytoken,
            &self.auth,
        ];
        texts
            .into_iter()
            .flatten()
            .any(|text| text.len() > MAX_CREDENTIAL_BYTES)
    }

    fn credentials(self, key: &str) -> Result<Option<Credentials>, KeyringError> {
        let present = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = present(self.registrytoken) {
            return Ok(Some(Credentials::RegistryToken(Secret::new(token))));
        }
        if let Some(token) = present(self.identitytoken) {
            return Ok(Some(Credentials::IdentityToken(Secret::new(token))));
        }
        if let Some(auth) = present(self.auth) {
            // What stands before '@' in a URL is a credential too.
            let host = key.rsplit('@').next().unwrap_or(key);
            let malformed = || KeyringError::DecodeAuth(host.chars().take(120).collect());
            let decoded = STANDARD.decode(auth.trim()).map_err(|_| malformed())?;
            let decoded = String::from_utf8(decoded).map_err(|_| malformed())?;
            let (username, password) = decoded.split_once(':').ok_or_else(malformed)?;
            // Docker pads the decoded text with NUL bytes in some versions.
            let password = Secret::new(password.trim_end_matches('\0'));
            return Ok(Some(Credentials::Basic {
                username: username.to_owned(),
                password,
            }));
        }
        Ok(present(self.username).map(|username| Credentials::Basic {
            username,
            password: Secret::new(self.password.unwrap_or_default()),
        }))
    }
}

/// The key of an entry: a host whose labels may hold globs, a port, and a path prefix.
#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    /// Labels that are each a valid [`Glob`], with dots between them.
    host: String,
    port: Option<String>,
    path: String,
}

impl Pattern {
    /// `None` if the key cannot name a registry; kubelet passes such entries over too.
    fn parse(key: &str) -> Option<Self> {
        let rest = key
            .strip_prefix("https://")
            .or_else(|| key.strip_prefix("http://"))
            .unwrap_or(key);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = split_port(authority);
        // `index.docker.io/v1/` is how `docker login` writes Docker Hub; `v1` and `v2` are API paths, not repositories.
        let path = ["v1", "v2"]
            .iter()
            .find_map(|api| path.strip_prefix(api))
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
            .unwrap_or(path);
        let host = match host.to_ascii_lowercase() {
            hub if ["index.docker.io", "registry-1.docker.io"].contains(&hub.as_str()) => "docker.io".to_owned(),
            host => host,
        };
        let is_valid = !host.is_empty() && host.split('.').all(|label| Glob::parse(label).is_some());
        is_valid.then(|| Self {
            text: key.to_owned(),
            host,
            port: port.map(str::to_owned),
            path: path.trim_matches('/').to_owned(),
        })
    }

    fn matches(&self, repository: &Repository) -> bool {
        let (host, port) = split_port(repository.host());
        let matches = |glob, label: &str| {
            label.len() <= MAX_LABEL_BYTES && Glob::parse(glob).is_some_and(|glob| glob.matches(label))
        };
        self.port.as_deref() == port
            && self.host.split('.').count() == host.split('.').count()
            && self.host.split('.').zip(host.split('.')).all(|(glob, label)| matches(glob, label))
            // A plain prefix, not whole path components: that is kubelet's rule.
            && repository.path().starts_with(&self.path)
    }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reference::ImageReference;
    use rstest::rstest;

    fn candidates(auths: &str, image: &str) -> Vec<String> {
        let keyring = Keyring::from_docker_config(format!(r#"{{"auths":{auths}}}"#).as_bytes()).unwrap();
        let reference: ImageReference = image.parse().unwrap();
        keyring.candidates(reference.repository()).map(username).collect()
    }

    fn username(credentials: &Credentials) -> String {
        match credentials {
            Credentials::Basic { username, .. } => username.clone(),
            Credentials::IdentityToken(_) => "identity".to_owned(),
            Credentials::RegistryToken(_) => "registry".to_owned(),
        }
    }

    #[test]
    fn only_the_candidates_for_a_repository_are_kept() {
        let many: Vec<String> = (0..200)
            .map(|number| format!(r#""ghcr.io/{}":{{"username":"u{number}"}}"#, "a".repeat(number)))
            .collect();
        let json = format!(r#"{{"auths":{{"quay.io":{{"username":"other"}},{}}}}}"#, many.join(","));
        let mut keyring = Keyring::from_docker_config(json.as_bytes()).unwrap();
        let reference: ImageReference = format!("ghcr.io/{}/p", "a".repeat(40)).parse().unwrap();
        let before: Vec<_> = keyring.candidates(reference.repository()).cloned().collect();
        keyring.retain_candidates(reference.repository());
        assert_eq!(keyring.len(), MAX_CANDIDATES);
        assert_eq!(
            keyring.candidates(reference.repository()).cloned().collect::<Vec<_>>(),
            before
        );
    }

    #[test]
    fn a_label_that_no_host_can_have_matches_nothing() {
        let label = "a".repeat(MAX_LABEL_BYTES + 1);
        let auths = format!(r#"{{"*.io":{{"username":"a"}},"{label}.io":{{"username":"b"}}}}"#);
        assert_eq!(candidates(&auths, &format!("{label}.io/p")), [""; 0]);
    }

    #[rstest]
    #[case::exact(r#"{"ghcr.io":{"username":"a"}}"#, "ghcr.io/acme/p", &["a"])]
    #[case::other_host(r#"{"ghcr.io":{"username":"a"}}"#, "quay.io/acme/p", &[])]
    #[case::longest_path_first(r#"{"acr.io":{"username":"all"},"acr.io/team":{"username":"team"}}"#, "acr.io/team/p", &["team", "all"])]
    #[case::other_path(r#"{"acr.io/team":{"username":"team"}}"#, "acr.io/other/p", &[])]
    #[case::glob(r#"{"*.azurecr.io":{"username":"a"}}"#, "acme.azurecr.io/p", &["a"])]
    #[case::glob_is_one_label(r#"{"*.azurecr.io":{"username":"a"}}"#, "x.acme.azurecr.io/p", &[])]
    #[case::port(r#"{"registry.example:5000":{"username":"a"}}"#, "registry.example:5000/p", &["a"])]
    #[case::wrong_port(r#"{"registry.example:5000":{"username":"a"}}"#, "registry.example/p", &[])]
    #[case::docker_login(r#"{"https://index.docker.io/v1/":{"username":"a"}}"#, "acme/p", &["a"])]
    #[case::hub(r#"{"docker.io":{"username":"a"}}"#, "acme/p", &["a"])]
    #[case::scheme(r#"{"https://ghcr.io/v2/":{"username":"a"}}"#, "ghcr.io/acme/p", &["a"])]
    #[case::auth(r#"{"ghcr.io":{"auth":"dTpw"}}"#, "ghcr.io/acme/p", &["u"])]
    #[case::identity(r#"{"ghcr.io":{"auth":"dTpw","identitytoken":"t"}}"#, "ghcr.io/acme/p", &["identity"])]
    #[case::empty_entry(r#"{"ghcr.io":{}}"#, "ghcr.io/acme/p", &[])]
    #[case::broken_glob(r#"{"ghcr[.io":{"username":"a"}}"#, "ghcr.io/acme/p", &[])]
    fn picks_as_kubelet_does(#[case] auths: &str, #[case] image: &str, #[case] expected: &[&str]) {
        assert_eq!(candidates(auths, image), expected);
    }

    /// What kubelet's own test of its matching demands (`keyring_test.go`, `TestURLsMatch`).
    #[rstest]
    #[case::first_label("*.kubernetes.io", "prefix.kubernetes.io/p", true)]
    #[case::middle_label("prefix.*.io", "prefix.kubernetes.io/p", true)]
    #[case::last_label("prefix.kubernetes.*", "prefix.kubernetes.io/p", true)]
    #[case::end_of_a_label("*-good.kubernetes.io", "prefix-good.kubernetes.io/p", true)]
    #[case::path("*.kubernetes.io/blah", "prefix.kubernetes.io/blah", true)]
    #[case::longer_path("prefix.*.io/foo", "prefix.kubernetes.io/foo/bar", true)]
    #[case::port("*.kubernetes.io:1111/blah", "prefix.kubernetes.io:1111/blah", true)]
    #[case::port_and_longer_path("prefix.*.io:1111/foo", "prefix.kubernetes.io:1111/foo/bar", true)]
    #[case::fewer_labels("*.kubernetes.io", "kubernetes.io/p", false)]
    #[case::more_globs("*.*.kubernetes.io", "prefix.kubernetes.io/p", false)]
    #[case::far_more_globs("*.*.kubernetes.io", "kubernetes.io/p", false)]
    #[case::other_label("kubernetes.io", "kubernetes.com/p", false)]
    #[case::glob_of_another_label("k*.io", "quay.io/p", false)]
    #[case::other_port("*.kubernetes.io:1234/blah", "prefix.kubernetes.io:1111/blah", false)]
    #[case::port_not_in_the_key("prefix.*.io/foo", "prefix.kubernetes.io:1111/foo/bar", false)]
    fn matches_as_kubelet_does(#[case] key: &str, #[case] image: &str, #[case] expected: bool) {
        let found = candidates(&format!(r#"{{"{key}":{{"username":"a"}}}}"#), image);
        assert_eq!(!found.is_empty(), expected);
    }

    /// A key of 1 MiB took 4.4 s and 2.8 GiB as a regular expression.
    #[rstest]
    #[case::runs("canary*".repeat(140_000))]
    #[case::alternatives("{canary,b}".repeat(30))]
    #[case::one_too_many("canary".repeat(51))]
    fn a_long_key_of_a_pull_secret_costs_nothing_and_is_named(#[case] key: String) {
        let started = std::time::Instant::now();
        let read = Keyring::from_docker_config(format!(r#"{{"auths":{{"{key}":{{"username":"a"}}}}}}"#).as_bytes());
        assert!(started.elapsed() < std::time::Duration::from_millis(500));
        if key.len() > MAX_GLOB_BYTES {
            let error = read.unwrap_err();
            assert_eq!(error, KeyringError::LimitKey { found: key.len() });
            assert!(!error.to_string().contains("canary"), "{error}");
        } else {
            assert!(read.is_ok());
        }
    }

    #[test]
    fn entries_are_counted_while_they_are_read() {
        let auths = |count: usize| {
            let entries: Vec<String> = (0..count).map(|number| format!(r#""{number}.example":{{}}"#)).collect();
            Keyring::from_docker_config(format!(r#"{{"auths":{{{}}}}}"#, entries.join(",")).as_bytes())
        };
        assert!(auths(MAX_DOCKER_CONFIG_ENTRIES).is_ok());
        assert_eq!(auths(MAX_DOCKER_CONFIG_ENTRIES + 1), Err(KeyringError::LimitEntries));
        assert_eq!(auths(20_000), Err(KeyringError::LimitEntries));
    }

    #[rstest]
    #[case::password("password")]
    #[case::token("registrytoken")]
    #[case::identity("identitytoken")]
    #[case::both("auth")]
    fn a_credential_that_servers_break_the_connection_for_is_refused(#[case] field: &str) {
        let text = "A".repeat(MAX_CREDENTIAL_BYTES * 2);
        let json = format!(r#"{{"auths":{{"ghcr.io":{{"{field}":"{text}"}}}}}}"#);
        let read = Keyring::from_docker_config(json.as_bytes());
        assert_eq!(read, Err(KeyringError::LimitCredential));
    }

    #[test]
    fn at_most_eight_credentials_are_tried_best_first() {
        let mut keyring = Keyring::default();
        for number in 0..20 {
            let json = format!(r#"{{"auths":{{"ghcr.io":{{"username":"u{number}"}}}}}}"#);
            keyring.extend(Keyring::from_docker_config(json.as_bytes()).unwrap());
        }
        let reference: ImageReference = "ghcr.io/acme/p".parse().unwrap();
        let names: Vec<String> = keyring.candidates(reference.repository()).map(username).collect();
        assert_eq!(names, (0..8).map(|number| format!("u{number}")).collect::<Vec<_>>());
    }

    #[rstest]
    #[case::no_json("canary", KeyringError::ParseJson { line: 1, column: 1 })]
    #[case::wrong_shape(r#"{"auths":"canary"}"#, KeyringError::ParseJson { line: 1, column: 17 })]
    #[case::auth(r#"{"auths":{"ghcr.io":{"auth":"canary!"}}}"#, KeyringError::DecodeAuth("ghcr.io".into()))]
    #[case::no_colon(r#"{"auths":{"ghcr.io":{"auth":"Y2FuYXJ5"}}}"#, KeyringError::DecodeAuth("ghcr.io".into()))]
    fn refuses_without_repeating_the_secret(#[case] json: &str, #[case] expected: KeyringError) {
        let error = Keyring::from_docker_config(json.as_bytes()).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
        assert_eq!(error, expected);
    }

    #[test]
    fn never_runs_a_helper_that_a_secret_names() {
        let json = br#"{"credsStore":"evil","credHelpers":{"ghcr.io":"evil"},"auths":{}}"#;
        assert_eq!(Keyring::from_docker_config(json), Ok(Keyring::default()));
    }
}

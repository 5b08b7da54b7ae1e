use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Credentials, Endpoint};
use crate::ports;
use crate::process::{Process, Program};
use crate::run_directory::RunDirectory;
use crate::tls::Authority;
use crate::tools;

/// What a [`Distribution`] asks of its clients; nothing by default.
#[derive(Debug, Default)]
pub struct DistributionOptions<'a> {
    /// Serve TLS with a certificate of this authority.
    pub tls: Option<&'a Authority>,
    /// Accept only clients with a certificate of the same authority; needs `tls`.
    pub client_certificate: bool,
    /// Accept only this user, by HTTP basic authentication.
    pub credentials: Option<Credentials>,
    /// Listen on this port, to come back where another one was; a free one otherwise.
    pub port: Option<u16>,
}

/// The CNCF distribution registry, version 3, with its content in memory and without a referrers API.
#[derive(Debug)]
pub struct Distribution {
    endpoint: Endpoint,
    // Before the directory, so that it ends before its files go.
    process: Process,
    directory: RunDirectory,
}

impl Distribution {
    /// Starts an empty one and waits until it answers.
    ///
    /// # Errors
    /// When the program is not built or does not come up.
    pub async fn start(options: DistributionOptions<'_>) -> Result<Self> {
        let directory = RunDirectory::new("registry")?;
        let port = options.port.map_or_else(ports::free, Ok)?;
        let host = format!("127.0.0.1:{port}");
        let configuration = configuration(&options, &host, &directory)?;
        let file = directory.write("config.json", configuration.to_string())?;
        let program = Program::new(tools::bin("registry")?)
            .arg("serve")
            .arg(file)
            .env("OTEL_TRACES_EXPORTER", "none");
        let mut process = program.start(directory.file("registry.log"))?;
        process
            .until_ready(Duration::from_secs(20), || async {
                Ok(tokio::net::TcpStream::connect(&host).await.is_ok())
            })
            .await?;
        let identity = match options.tls {
            Some(authority) if options.client_certificate => Some(authority.client("tests", "tests")?),
            _ => None,
        };
        let authority = options.tls.map(Authority::certificate);
        let endpoint = Endpoint::new(host, authority, identity.as_ref(), options.credentials)?;
        Ok(Self {
            endpoint,
            process,
            directory,
        })
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// How to talk to it.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The process: to stop it, kill it, or read its log, which has a line per request.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its files.
    #[must_use]
    pub fn directory(&self) -> &RunDirectory {
        &self.directory
    }
}

fn configuration(options: &DistributionOptions<'_>, host: &str, directory: &RunDirectory) -> Result<Value> {
    let mut configuration = json!({
        "version": "0.1",
        "log": { "level": "info" },
        "storage": { "inmemory": {}, "delete": { "enabled": true } },
        "http": { "addr": host, "secret": "only for tests" },
    });
    if let Some(authority) = options.tls {
        let server = authority.server()?;
        let mut tls = json!({
            "certificate": directory.write("tls.crt", server.certificate)?,
            "key": directory.write("tls.key", server.key)?,
        });
        if options.client_certificate {
            tls["clientcas"] = json!([directory.write("ca.crt", authority.certificate())?]);
        }
        configuration["http"]["tls"] = tls;
    }
    if let Some(Credentials { user, password }) = &options.credentials {
        // The lowest cost: the hash protects nothing here.
        let line = format!("{user}:{}\n", bcrypt::hash(password, 4)?);
        let path = directory.write("htpasswd", line)?;
        configuration["auth"] = json!({ "htpasswd": { "realm": "test", "path": path } });
    }
    Ok(configuration)
}

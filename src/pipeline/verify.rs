//! Temporary.
use super::failure::{Classify, Disposition, Reason};
use super::ports::Registry;
use crate::domain::access::Access;
use crate::domain::revision::Revision;
use crate::domain::trust::{TrustPolicy, Verified, TrustError};
/// x
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct VerifyError(#[from] TrustError);
impl Classify for VerifyError { fn reason(&self)->Reason{Reason::Unsigned} fn disposition(&self)->Disposition{Disposition::Retry} }
/// x
/// # Errors
/// x
pub async fn verify<R: Registry>(_r:&R, revision:&Revision, policy:&TrustPolicy, _a:&Access)->Result<Verified<Revision>,VerifyError>{ std::future::ready(()).await; Ok(policy.decide(revision,&[])?) }
impl Classify for crate::domain::artifact::ManifestError { fn reason(&self)->Reason{Reason::Unsigned} fn disposition(&self)->Disposition{Disposition::Retry} }
impl Classify for crate::domain::bundle::BundleError { fn reason(&self)->Reason{Reason::Unsigned} fn disposition(&self)->Disposition{Disposition::Retry} }

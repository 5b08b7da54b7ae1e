//! A real Kubernetes control plane on loopback: etcd, kube-apiserver and kube-controller-manager, without nodes.

mod audit;
mod configuration;
mod control_plane;

pub use audit::AuditEntry;
pub use configuration::{OPERATOR_NAMESPACE, OPERATOR_SERVICE_ACCOUNT};
pub use control_plane::ControlPlane;

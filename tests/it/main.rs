//! it
#[test]
fn x() { println!("{}", policy_operator::operator::api::crd::yaml().unwrap()); }

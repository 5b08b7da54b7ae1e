//! The operator: see `policy-operator --help`.

fn main() -> std::process::ExitCode {
    policy_operator::operator::main()
}

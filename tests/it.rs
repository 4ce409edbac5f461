//! The integration tests: one binary.

mod it {
    mod sim_github;
}

//! The integration tests: one binary.

mod it {
    mod github;
    mod sim_github;
}

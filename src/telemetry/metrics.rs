use crate::fleet::id::PoolName;
use std::time::Duration;
#[derive(Debug, Default)]
pub struct Metrics;
impl Metrics {
    pub fn new<'a>(
        _: impl IntoIterator<Item = &'a crate::fleet::pool::Pool>,
    ) -> anyhow::Result<Self> {
        Ok(Self)
    }
    pub fn render_with(
        &self,
        _: &crate::loops::lead::Published,
        _: &dyn crate::github::GitHub,
    ) -> String {
        String::new()
    }

    pub fn decision(&self, _pool: &PoolName, _direction: &str, _reason: &str) {}
    pub fn loop_turn(&self, _name: &str, _took: Duration) {}
    pub fn start_phase(&self, _pool: &PoolName, _phase: &str, _took: Duration) {}
    pub fn dependency_up(&self, _name: &str, _up: bool) {}
}

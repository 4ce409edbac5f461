use crate::fleet::id::PoolName;
use std::time::Duration;
#[derive(Debug, Default)]
pub struct Metrics;
impl Metrics {
    pub fn decision(&self, _pool: &PoolName, _direction: &str, _reason: &str) {}
    pub fn loop_turn(&self, _name: &str, _took: Duration) {}
    pub fn start_phase(&self, _pool: &PoolName, _phase: &str, _took: Duration) {}
    pub fn dependency_up(&self, _name: &str, _up: bool) {}
}

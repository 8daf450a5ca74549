//! stub until merge
use super::*;
use crate::mdp::Shape;
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DqnSettings {}
pub struct Dqn;
impl Dqn {
    pub fn new(_s: Shape, _d: DqnSettings, _seed: Seed) -> Result<Self> {
        Ok(Self)
    }
}
impl Agent for Dqn {
    fn train(
        &mut self,
        _e: &mut dyn Environment,
        _s: Seed,
        _l: &mut dyn FnMut(&TrainEvent) -> Result<()>,
    ) -> Result<()> {
        Ok(())
    }
    fn act(&mut self, _o: &Observation) -> Action {
        0
    }
}

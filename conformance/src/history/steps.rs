//! The states that a search reaches, each stored once, and the steps between them, memoized.

use std::collections::HashMap;
use std::rc::Rc;

use super::Says;
use super::parts::Touching;
use crate::model::Model;

/// The number of a state.
pub(super) type State = u32;

pub(super) struct Steps<'a> {
    calls: &'a [Touching<'a>],
    says: Vec<Says>,
    states: Vec<Rc<Model>>,
    numbers: HashMap<Rc<Model>, State>,
    tried: HashMap<(State, usize), Option<State>>,
}

impl<'a> Steps<'a> {
    /// Starts from `start`, which is state 0.
    pub(super) fn new(start: &Model, calls: &'a [Touching<'a>]) -> Self {
        let says = calls.iter().map(|touching| touching.call.says()).collect();
        let (states, numbers, tried) = (Vec::new(), HashMap::new(), HashMap::new());
        let mut steps = Self { calls, says, states, numbers, tried };
        steps.number(start.clone());
        steps
    }

    pub(super) fn says(&self, call: usize) -> Says {
        self.says.get(call).copied().unwrap_or(Says::Nothing)
    }

    pub(super) fn model(&self, state: State) -> Option<&Model> {
        self.states.get(state as usize).map(|model| &**model)
    }

    /// The state after this call took effect in `state`; `None` if its answer does not fit there.
    ///
    /// `None` also for a call with unknown outcome that would change nothing: the search need not
    /// try it, since leaving the call pending is as good.
    pub(super) fn step(&mut self, state: State, call: usize) -> Option<State> {
        if let Some(next) = self.tried.get(&(state, call)) {
            return *next;
        }
        let next = self.try_step(state, call);
        self.tried.insert((state, call), next);
        next
    }

    fn try_step(&mut self, state: State, number: usize) -> Option<State> {
        let call = self.calls.get(number)?.call;
        let mut model = self.model(state)?.clone();
        let answer = model.apply(&call.op);
        match (self.says(number), &call.ended) {
            (Says::Perhaps, _) => Some(self.number(model)).filter(|next| *next != state),
            (Says::Seen, Some((_, given))) => (answer == *given).then_some(state),
            (Says::Done, Some((_, given))) if answer == *given => Some(self.number(model)),
            _ => None,
        }
    }

    fn number(&mut self, model: Model) -> State {
        if let Some(number) = self.numbers.get(&model) {
            return *number;
        }
        // A search gives up long before there are so many states.
        let number = State::try_from(self.states.len()).unwrap_or(State::MAX);
        let model = Rc::new(model);
        self.states.push(Rc::clone(&model));
        self.numbers.insert(model, number);
        number
    }
}

//! Where what clients want goes.

use synod_core::{Forward, Protocol, Reign, Route};

/// The ways that proposals and queries under way were sent, and the reign in which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Routes {
    pub(crate) commands: Route,
    pub(crate) queries: Route,
    pub(crate) reign: Reign,
}

impl Routes {
    pub(crate) fn of<P: Protocol>(protocol: &P) -> Routes {
        Routes { commands: protocol.route(), queries: protocol.read_route(), reign: protocol.status().reign }
    }

    /// What a peer handed on, by the way that it goes: in one piece if everything goes one way.
    pub(crate) fn split(self, forward: Forward) -> impl Iterator<Item = (Route, Forward)> {
        let parts = if self.commands == self.queries {
            [Some((self.commands, forward)), None]
        } else {
            let commands = Forward { queries: Vec::new(), ..forward.clone() };
            let queries = Forward { commands: Vec::new(), ..forward };
            [Some((self.commands, commands)), Some((self.queries, queries))]
        };
        parts.into_iter().flatten().filter(|(_, part)| !part.commands.is_empty() || !part.queries.is_empty())
    }
}

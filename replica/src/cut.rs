//! What is handed on and answered, in packets of a bounded size.
//!
//! A transport carries a packet whole or not at all, and it drops one that is longer than its frames. Such a packet
//! would be asked for again and dropped again, for as long as those who wait for it have patience.

use synod_core::{Forward, ForwardReply, QueryOutcome, RequestOutcome, Wire};

/// The same answers, but for those that no packet of `packet_bytes_max` can bring: they say so instead.
pub(crate) fn shorten(mut reply: ForwardReply, packet_bytes_max: usize) -> ForwardReply {
    let room = packet_bytes_max.saturating_sub(ForwardReply::OVERHEAD_OF_ONE);
    for (_, _, outcome) in &mut reply.commands {
        if matches!(outcome, RequestOutcome::Applied(reply) if reply.len() > room) {
            *outcome = RequestOutcome::ReplyTooLong;
        }
    }
    for (_, outcome) in &mut reply.queries {
        if let QueryOutcome::Answer(answer) | QueryOutcome::Failed(answer) = outcome
            && answer.len() > room
        {
            let why = format!("an answer of {} bytes is too long to be handed on", answer.len());
            *outcome = QueryOutcome::Failed(why.into());
        }
    }
    reply
}

/// The same answers in packets of at most `bytes_max`; an answer that is longer travels alone.
pub(crate) fn reply(reply: ForwardReply, bytes_max: usize) -> Vec<ForwardReply> {
    if reply.wire_len() <= bytes_max {
        return vec![reply];
    }
    let empty = ForwardReply::default().wire_len();
    let room = bytes_max.saturating_sub(empty);
    let of = |commands, queries| ForwardReply { commands, queries };
    let ForwardReply { commands, queries } = reply;
    let commands = pieces(commands, room, |command| of(vec![command.clone()], Vec::new()).wire_len() - empty);
    let queries = pieces(queries, room, |query| of(Vec::new(), vec![query.clone()]).wire_len() - empty);
    let commands = commands.into_iter().map(|commands| of(commands, Vec::new()));
    commands.chain(queries.into_iter().map(|queries| of(Vec::new(), queries))).collect()
}

/// The same proposals and queries in packets of at most `bytes_max`; one that is longer travels alone.
pub(crate) fn forward(forward: Forward, bytes_max: usize) -> Vec<Forward> {
    if forward.wire_len() <= bytes_max {
        return vec![forward];
    }
    let Forward { origin, hops_left, commands, queries } = forward;
    let of = |commands, queries| Forward { origin, hops_left, commands, queries };
    let empty = of(Vec::new(), Vec::new()).wire_len();
    let room = bytes_max.saturating_sub(empty);
    let commands = pieces(commands, room, Wire::wire_len);
    let queries = pieces(queries, room, |query| of(Vec::new(), vec![query.clone()]).wire_len() - empty);
    let commands = commands.into_iter().map(|commands| of(commands, Vec::new()));
    commands.chain(queries.into_iter().map(|queries| of(Vec::new(), queries))).collect()
}

/// In order; each piece holds one item at least.
fn pieces<T>(items: Vec<T>, room: usize, len_of: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut pieces: Vec<Vec<T>> = Vec::new();
    let mut left = 0;
    for item in items {
        let len = len_of(&item);
        match pieces.last_mut() {
            Some(piece) if len <= left => piece.push(item),
            _ => {
                left = room;
                pieces.push(vec![item]);
            }
        }
        left = left.saturating_sub(len);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use synod_core::{ClientId, Command, ForwardedQuery, Kind, NodeId, ReadMode, RequestId, Sequence};

    use super::*;

    #[test]
    fn an_answer_that_no_packet_can_bring_says_so_and_the_others_stay() {
        let (longest, longer) =
            (Bytes::from(vec![7; 200 - ForwardReply::OVERHEAD_OF_ONE]), Bytes::from(vec![7; 200]));
        let of = |command: &Bytes, query: &Bytes| ForwardReply {
            commands: vec![(ClientId(1), Sequence(2), RequestOutcome::Applied(command.clone()))],
            queries: vec![(3, QueryOutcome::Answer(query.clone()))],
        };
        let fits = of(&longest, &longest);
        assert_eq!(shorten(fits.clone(), 200), fits);
        let single = ForwardReply { queries: Vec::new(), ..fits };
        assert_eq!(1 + single.wire_len(), 200);
        let short = shorten(of(&longer, &longer), 200);
        assert_eq!(short.commands, [(ClientId(1), Sequence(2), RequestOutcome::ReplyTooLong)]);
        let QueryOutcome::Failed(why) = &short.queries[0].1 else { panic!("{short:?}") };
        assert_eq!(why, "an answer of 200 bytes is too long to be handed on");
    }

    #[test]
    fn answers_keep_their_order_and_their_packets_their_bound() {
        let bytes = |len: usize| Bytes::from(vec![7; len]);
        let commands: Vec<_> = (0..50_usize)
            .map(|n| (ClientId(1), Sequence(n as u64), RequestOutcome::Applied(bytes(n % 9 * 10))))
            .collect();
        let queries: Vec<_> =
            (0..50_usize).map(|n| (n as u64, QueryOutcome::Answer(bytes(n % 7 * 40)))).collect();
        let whole = ForwardReply { commands, queries };
        assert_eq!(reply(whole.clone(), whole.wire_len()), std::slice::from_ref(&whole));
        let parts = reply(whole.clone(), 200);
        assert!(parts.len() > 10);
        for part in &parts {
            assert!(part.wire_len() <= 200 || part.commands.len() + part.queries.len() == 1, "{part:?}");
        }
        assert_eq!(parts.iter().flat_map(|part| part.commands.clone()).collect::<Vec<_>>(), whole.commands);
        assert_eq!(parts.iter().flat_map(|part| part.queries.clone()).collect::<Vec<_>>(), whole.queries);
    }

    #[test]
    fn proposals_keep_their_order_and_their_packets_their_bound() {
        let bytes = |len: usize| Bytes::from(vec![7; len]);
        let command = |n: usize| Command {
            kind: Kind::Command,
            request: RequestId { client: ClientId(1), sequence: Sequence(n as u64), ..RequestId::NONE },
            payload: bytes(n % 9 * 10),
        };
        let query =
            |n: usize| ForwardedQuery { id: n as u64, mode: ReadMode::Barrier, query: bytes(n % 7 * 40) };
        let (commands, queries) = ((0..50).map(command).collect(), (0..50).map(query).collect());
        let whole = Forward { origin: NodeId(3), hops_left: 2, commands, queries };
        assert_eq!(forward(whole.clone(), whole.wire_len()), std::slice::from_ref(&whole));
        let parts = forward(whole.clone(), 200);
        assert!(parts.len() > 10);
        for part in &parts {
            assert!(part.wire_len() <= 200 || part.commands.len() + part.queries.len() == 1, "{part:?}");
            assert_eq!((part.origin, part.hops_left), (whole.origin, whole.hops_left));
        }
        assert_eq!(parts.iter().flat_map(|part| part.commands.clone()).collect::<Vec<_>>(), whole.commands);
        assert_eq!(parts.iter().flat_map(|part| part.queries.clone()).collect::<Vec<_>>(), whole.queries);
    }
}

//! Torn or damaged: every combination of what can be seen, and what it means for a log without a second copy.
//!
//! Two facts carry the tables. No byte of a batch is written before the sync of the batch before it returned, so
//! only the last batch can be torn, and a batch with a later one behind it was acknowledged. And batches are
//! written over zeros, of which a disk replaces whole sectors, and a short write replaces a first part: so a torn
//! batch has a sector or an end that is blank and should not be, and one that is wrong with everything in place
//! was damaged later.
//!
//! What no log can tell is a last batch of which a sector was acknowledged and never written (a lying disk) from
//! one that was torn, if the machine went down before anything followed it; nor one whose last sector was overwritten by
//! another that ends in zeros. A clean end and every start write a batch more, so that what stands before them is beyond
//! doubt.

/// What is seen where a batch may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// A torn batch was being blanked.
    pub(crate) cut: bool,
    /// The first sector holds nothing behind the place of a header, and nothing but the beginning of one there; or the
    /// segment ends here. Of the batches that were written, only an empty one without its padding is like that.
    pub(crate) blank: bool,
    /// A header stands here: its checksum is right and its number is the next one.
    pub(crate) header: bool,
    /// The checksum over the whole batch is right.
    pub(crate) whole: bool,
    /// A sector of the batch is blank that was not, or its end is.
    pub(crate) gap: bool,
    /// Something stands here or further on in this segment.
    pub(crate) rest: bool,
    /// A later batch stands further on or in another segment, or a later segment without its header is not blank.
    pub(crate) later: bool,
}

/// What a place means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A batch: replay it.
    Batch,
    /// The log ends here.
    End,
    /// The log ends here, and a batch that nobody was told about began: blank it.
    Torn,
    /// Acknowledged data may be missing: refuse.
    Damaged,
}

/// One line of a table: what must hold, what may not (`None`: either), and what follows.
pub(crate) struct Case<const N: usize, V> {
    pub(crate) name: &'static str,
    pub(crate) when: [Option<bool>; N],
    pub(crate) verdict: V,
}

impl<const N: usize, V> Case<N, V> {
    fn matches(&self, seen: [bool; N]) -> bool {
        self.when.iter().zip(seen).all(|(wanted, seen)| wanted.is_none_or(|wanted| wanted == seen))
    }
}

const fn case<const N: usize, V>(name: &'static str, when: [u8; N], verdict: V) -> Case<N, V>
where
    V: Copy,
{
    let mut patterns = [None; N];
    let mut at = 0;
    while at < N {
        patterns[at] = match when[at] {
            b'y' => Some(true),
            b'n' => Some(false),
            _ => None,
        };
        at += 1;
    }
    Case { name, when: patterns, verdict }
}

/// In the order of the fields of [`Place`]: cut, blank, header, whole, gap, rest, later. `-` is either.
pub(crate) const PLACES: &[Case<7, Verdict>] = &[
    // An empty batch is whole with its header alone.
    case("a batch", *b"n-yy---", Verdict::Batch),
    case("the end", *b"nyn--nn", Verdict::End),
    case("a torn batch", *b"nnyny-n", Verdict::Torn),
    case("a torn batch of which the header alone stands in its sector", *b"nyyn--n", Verdict::Torn),
    case("a torn batch without its header", *b"nyn--yn", Verdict::Torn),
    case("a batch with a hole, and a later batch", *b"nnyny-y", Verdict::Damaged),
    case("a header alone, and a later batch", *b"nyyn--y", Verdict::Damaged),
    case("a batch that is there and wrong", *b"nnynn--", Verdict::Damaged),
    case("no batch, and something else", *b"nnn----", Verdict::Damaged),
    case("nothing, and a later batch", *b"nyn---y", Verdict::Damaged),
    case("a torn batch that was being blanked", *b"y-----n", Verdict::Torn),
    case("a batch that was being blanked, and a later batch", *b"y-----y", Verdict::Damaged),
];

impl Place {
    fn seen(self) -> [bool; 7] {
        [self.cut, self.blank, self.header, self.whole, self.gap, self.rest, self.later]
    }

    /// What it means, and in words.
    pub(crate) fn judge(self) -> (Verdict, &'static str) {
        only(PLACES, self.seen())
    }
}

/// What is seen of a segment that the log needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// A file has its name.
    pub(crate) there: bool,
    /// Its header is right and holds its number.
    pub(crate) header: bool,
    /// The identity in the header is ours.
    pub(crate) ours: bool,
    /// The file is as long as its header says.
    pub(crate) full: bool,
    /// Its salt is the one that the segment before names, if there is one.
    pub(crate) salt: bool,
}

/// What to do with a segment that the log needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Read it.
    Read,
    /// Somebody else's log: refuse.
    Foreign,
    /// Acknowledged data may be missing: refuse.
    Damaged,
}

/// In the order of the fields of [`Found`]: there, header, ours, full, salt.
pub(crate) const SEGMENTS: &[Case<5, Use>] = &[
    case("a segment", *b"yyyyy", Use::Read),
    case("the log of somebody else", *b"yyn--", Use::Foreign),
    case("the segment is missing", *b"n----", Use::Damaged),
    case("the header of the segment is wrong", *b"yn---", Use::Damaged),
    case("the segment is cut short", *b"yyyn-", Use::Damaged),
    case("an old segment stands where the segment before names another one", *b"yyyyn", Use::Damaged),
];

impl Found {
    fn seen(self) -> [bool; 5] {
        [self.there, self.header, self.ours, self.full, self.salt]
    }

    /// What it means, and in words.
    pub(crate) fn judge(self) -> (Use, &'static str) {
        only(SEGMENTS, self.seen())
    }
}

/// The one case that matches.
fn only<const N: usize, V: Copy>(table: &[Case<N, V>], seen: [bool; N]) -> (V, &'static str) {
    let case = table.iter().find(|case| case.matches(seen)).expect("the table is total");
    (case.verdict, case.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched_once<const N: usize, V>(table: &[Case<N, V>]) {
        let mut used = vec![0; table.len()];
        for bits in 0..1_u32 << N {
            let seen: [bool; N] = std::array::from_fn(|at| bits >> at & 1 == 1);
            let matching: Vec<usize> = (0..table.len()).filter(|case| table[*case].matches(seen)).collect();
            assert_eq!(matching.len(), 1, "{seen:?} is {matching:?}");
            used[matching[0]] += 1;
        }
        assert!(used.iter().all(|count| *count > 0), "a case is never met: {used:?}");
    }

    #[test]
    fn every_combination_matches_exactly_one_case() {
        matched_once(PLACES);
        matched_once(SEGMENTS);
    }

    #[test]
    fn what_was_acknowledged_is_never_called_torn_and_never_the_end() {
        for bits in 0..1_u32 << 7 {
            let [cut, blank, header, whole, gap, rest, later] = std::array::from_fn(|at| bits >> at & 1 == 1);
            let place = Place { cut, blank, header, whole, gap, rest, later };
            let (verdict, _) = place.judge();
            if later && verdict != Verdict::Batch {
                assert_eq!(verdict, Verdict::Damaged, "{place:?}");
            }
            if verdict == Verdict::End {
                assert!(blank && !rest, "{place:?}");
            }
            if verdict == Verdict::Batch {
                assert!(header && whole, "{place:?}");
            }
        }
    }
}

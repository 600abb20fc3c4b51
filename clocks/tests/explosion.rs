//! The experiment of the README of the authors' implementation of dotted version vector sets: two clients write in turn,
//! each with the context of the answer to its own last write. 101 writes; never more than two values are concurrent.

use synod_clocks::{ActorId, DottedVersionVectorSet, VersionVector};

const A: ActorId = ActorId::new(1);
const B: ActorId = ActorId::new(2);
const WRITES: usize = 101;

/// What a server with one version vector for all its values does so as to lose nothing.
#[derive(Clone, Default)]
struct WithVersionVector {
    version: VersionVector,
    values: Vec<usize>,
}

impl WithVersionVector {
    fn put(&mut self, server: ActorId, context: &VersionVector, value: usize) {
        if context.compare(&self.version).descends() {
            self.values.clear();
        }
        self.version.merge(context);
        self.version.record(server);
        self.values.push(value);
    }

    fn sync(&mut self, other: &Self) {
        let missing = other.values.iter().filter(|value| !self.values.contains(value));
        let missing: Vec<usize> = missing.copied().collect();
        self.values.extend(missing);
        self.version.merge(&other.version);
    }
}

#[test]
fn at_one_server_a_version_vector_leaves_101_siblings_and_a_dotted_set_two() {
    let mut vector = WithVersionVector::default();
    let mut dotted = DottedVersionVectorSet::new();
    let mut vector_contexts = [VersionVector::new(), VersionVector::new()];
    let mut dotted_contexts = vector_contexts.clone();
    for write in 0..WRITES {
        let client = write % 2;
        vector.put(A, &vector_contexts[client], write);
        vector_contexts[client] = vector.version.clone();
        dotted.update(A, &dotted_contexts[client], write);
        dotted_contexts[client] = dotted.join();
    }
    assert_eq!(vector.values.len(), WRITES);
    assert_eq!(dotted.values().copied().collect::<Vec<_>>(), [WRITES - 2, WRITES - 1]);
}

#[test]
fn at_two_servers_that_synchronise_after_every_write_it_is_the_same() {
    let mut vectors = [WithVersionVector::default(), WithVersionVector::default()];
    let mut dotted = [DottedVersionVectorSet::new(), DottedVersionVectorSet::new()];
    let mut vector_contexts = [VersionVector::new(), VersionVector::new()];
    let mut dotted_contexts = vector_contexts.clone();
    for write in 0..WRITES {
        let (here, server) = (write % 2, [A, B][write % 2]);
        vectors[here].put(server, &vector_contexts[here], write);
        vector_contexts[here] = vectors[here].version.clone();
        dotted[here].update(server, &dotted_contexts[here], write);
        dotted_contexts[here] = dotted[here].join();

        let (vector, set) = (vectors[here].clone(), dotted[here].clone());
        vectors[1 - here].sync(&vector);
        dotted[1 - here].sync(&set);
    }
    for replica in 0..2 {
        assert_eq!(vectors[replica].values.len(), WRITES);
        let mut values: Vec<usize> = dotted[replica].values().copied().collect();
        values.sort_unstable();
        assert_eq!(values, [WRITES - 2, WRITES - 1]);
    }
}

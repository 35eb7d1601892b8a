//! Assignment of ids to names. Pure, except that the names of taken ids are looked up.

use std::collections::HashMap;

use super::{DropCause, Drops, Error, catalog};
use stormkeeper_metrics::{
    MetricId, MetricName, name,
    protocol::{MetricMeta, Registered, Registration},
};
use stormkeeper_model::TopologyId;

/// Maximum number of candidate ids for a name. A second one is practically never needed; if four
/// are not enough, the hash is broken.
pub(super) const PROBES_MAX: u32 = 4;

/// Result of a registration request.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Decision {
    /// One answer per registration, in order.
    pub(super) answers: Vec<Registered>,
    /// Metas that were not registered before.
    pub(super) new: Vec<MetricMeta>,
    pub(super) drops: Drops,
}

/// Inputs of the decision on a registration request.
pub(super) struct Registry<'a, N> {
    pub(super) topology: &'a TopologyId,
    pub(super) id_of: fn(&str, u32) -> MetricId,
    /// Looks up the name that has an id, if any.
    pub(super) name_of: N,
    /// Returns the number of registered names of a topology.
    pub(super) n_known: &'a dyn Fn(&TopologyId) -> u64,
    pub(super) per_topology_max: u64,
    /// Number of names that may still be added, for all topologies together.
    pub(super) n_free: u64,
}

impl<N> Registry<'_, N>
where
    N: FnMut(MetricId) -> Result<Option<MetricName>, Error>,
{
    pub(super) fn decide(mut self, registrations: &[Registration]) -> Result<Decision, Error> {
        let mut decision = Decision::default();
        // Ids that this request itself takes.
        let mut taken: HashMap<MetricId, MetricName> = HashMap::new();
        let mut n_new: HashMap<TopologyId, u64> = HashMap::new();
        for registration in registrations {
            let answer = match self.parse(&registration.name) {
                Err(reason) => {
                    catalog::count(&mut decision.drops, DropCause::InvalidName, 1);
                    Registered::Rejected(reason)
                }
                Ok(name) => self.place(name, registration, &mut taken, &mut n_new, &mut decision)?,
            };
            decision.answers.push(answer);
        }
        Ok(decision)
    }

    /// Parses a name that this topology may register.
    fn parse(&self, text: &str) -> Result<MetricName, String> {
        let name: MetricName = text.parse().map_err(|error: name::InvalidName| error.to_string())?;
        if name.topology() != self.topology && name.topology().as_str() != name::CLUSTER {
            return Err(format!("{} may not register a metric of {}", self.topology, name.topology()));
        }
        Ok(name)
    }

    fn place(
        &mut self,
        name: MetricName,
        registration: &Registration,
        taken: &mut HashMap<MetricId, MetricName>,
        n_new: &mut HashMap<TopologyId, u64>,
        decision: &mut Decision,
    ) -> Result<Registered, Error> {
        // The id is derived from the canonical text, not from the spelling of the request.
        let text = name.to_string();
        let probes: Vec<MetricId> = (0..PROBES_MAX).map(|probe| (self.id_of)(&text, probe)).collect();
        let mut free = Vec::new();
        for id in &probes {
            let owner = match taken.get(id) {
                Some(owner) => Some(owner.clone()),
                None => (self.name_of)(*id)?,
            };
            match owner {
                Some(owner) if owner == name => return Ok(Registered::Accepted(*id)),
                Some(_) => {}
                None => free.push(*id),
            }
        }
        let of = name.topology().clone();
        let n = n_new.entry(of.clone()).or_default();
        if (self.n_known)(&of) + *n >= self.per_topology_max || decision.new.len() as u64 >= self.n_free {
            catalog::count(&mut decision.drops, DropCause::TooManyNames, 1);
            return Ok(Registered::Rejected(format!(
                "{of} has too many metrics ({})",
                (self.n_known)(&of) + *n
            )));
        }
        // An id that the sender already uses is adopted if it belongs to the name.
        let Some(id) = free.iter().find(|id| **id == registration.id).or(free.first()).copied() else {
            catalog::count(&mut decision.drops, DropCause::IdTaken, 1);
            return Ok(Registered::Rejected(format!("all {PROBES_MAX} ids of {text} are taken")));
        };
        if id != registration.id && probes.contains(&registration.id) {
            catalog::count(&mut decision.drops, DropCause::IdTaken, 1);
        }
        *n += 1;
        taken.insert(id, name.clone());
        decision.new.push(MetricMeta { id, name });
        Ok(Registered::Accepted(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u32) -> String {
        format!("5@1@t-1-1@@0@sys@m{n}")
    }

    /// Hash under which all names collide in id 1, then in 2, and so on.
    fn colliding(_: &str, probe: u32) -> MetricId {
        MetricId(u64::from(probe) + 1)
    }

    fn decide(
        id_of: fn(&str, u32) -> MetricId,
        known: &[MetricMeta],
        registrations: &[Registration],
        max: u64,
    ) -> Decision {
        Registry {
            topology: &"t-1-1".parse().expect("an id"),
            id_of,
            name_of: |id| Ok(known.iter().find(|meta| meta.id == id).map(|meta| meta.name.clone())),
            n_known: &|_| known.len() as u64,
            per_topology_max: max,
            n_free: 100,
        }
        .decide(registrations)
        .expect("no disk access in this test")
    }

    fn registration(n: u32, id: u64) -> Registration {
        Registration { name: name(n), id: MetricId(id) }
    }

    #[test]
    fn colliding_names_get_the_next_id() {
        let decision =
            decide(colliding, &[], &[registration(1, 1), registration(2, 1), registration(1, 1)], 10);
        let ids = [1, 2, 1].map(|id| Registered::Accepted(MetricId(id)));
        assert_eq!(decision.answers, ids);
        assert_eq!(decision.new.len(), 2);
        assert_eq!(decision.drops, Drops::from([(DropCause::IdTaken, 1)]));
        // Registered again with another name first: each name keeps its id.
        let again = decide(
            colliding,
            &decision.new,
            &[registration(2, 2), registration(1, 1), registration(3, 3)],
            10,
        );
        assert_eq!(again.answers, [2, 1, 3].map(|id| Registered::Accepted(MetricId(id))));
    }

    #[test]
    fn id_in_use_is_adopted_if_it_is_free_and_belongs_to_the_name() {
        // A leader without metas: the second name had collided with the first one before.
        let decision = decide(colliding, &[], &[registration(2, 2), registration(1, 1)], 10);
        assert_eq!(decision.answers, [2, 1].map(|id| Registered::Accepted(MetricId(id))));
        // An id that does not belong to the name.
        let decision = decide(colliding, &[], &[registration(1, 77)], 10);
        assert_eq!(decision.answers, [Registered::Accepted(MetricId(1))]);
        let all = [
            registration(1, 0),
            registration(2, 0),
            registration(3, 0),
            registration(4, 0),
            registration(5, 0),
        ];
        assert!(matches!(decide(colliding, &[], &all, 10).answers[4], Registered::Rejected(_)));
    }

    #[test]
    fn invalid_and_surplus_names_are_rejected_and_counted() {
        let foreign = Registration { name: name(1).replace("t-1-1", "u-1-1"), id: MetricId(1) };
        let cluster = Registration { name: name(1).replace("t-1-1", name::CLUSTER), id: MetricId(1) };
        let letters = Registration { name: "PC@t-1-1@@@sys@m1".to_owned(), id: MetricId(1) };
        let bad = Registration { name: "rubbish".to_owned(), id: MetricId(1) };
        let registrations = [foreign, bad, registration(1, 0), letters, cluster, registration(2, 0)];
        let decision = decide(MetricId::of, &[], &registrations, 1);
        let refused: Vec<bool> =
            decision.answers.iter().map(|answer| matches!(answer, Registered::Rejected(_))).collect();
        assert_eq!(refused, [true, true, false, false, false, true]);
        assert_eq!(decision.answers[2], decision.answers[3], "one name in two spellings");
        let drops = Drops::from([(DropCause::InvalidName, 2), (DropCause::TooManyNames, 1)]);
        assert_eq!(decision.drops, drops);
    }
}

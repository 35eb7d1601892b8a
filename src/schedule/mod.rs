//! Pure placement of tasks in slots.
//!
//! [`solve::solve`] takes a [`problem::Problem`] (what is there, what is wanted, what is
//! healthy) and the previous [`problem::Solution`], and returns the next one. No I/O, no
//! clock, no randomness: the same question always has the same answer.
//!
//! - **Stability**: a healthy task stays where it is, so `solve` of its own answer changes
//!   nothing, and the loss of a supervisor moves the tasks it ran and no others.
//! - **Balance**: the workers of a topology are even over hosts, then over supervisors; the
//!   tasks of each component are even over the workers that are filled anew.
//! - **Fairness**: when slots run short, the next one goes to the topology with the fewest
//!   workers, the oldest of them first.
//!
//! [`check::lint`] says everything that is wrong with a solution; nimbus asks it before it
//! writes, and the tests ask it about every answer.

pub mod check;
pub mod problem;
mod slots;
pub mod solve;

pub use problem::{Keep, Placement, Problem, Reason, Solution, Standing, Supervisor, Topology, Unplaced};
pub use solve::solve;

#[cfg(test)]
mod tests;

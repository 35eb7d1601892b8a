//! Pure placement of tasks in slots.
//!
//! [`solve::solve`] takes a [`problem::Problem`] (supervisors, topologies, live tasks) and the
//! previous [`problem::Solution`], and returns the next one. No I/O, no clock, no randomness:
//! the same input always has the same result.
//!
//! - **Stability**: a live task stays where it is, so `solve` of its own solution changes
//!   nothing, and the loss of a supervisor moves only the tasks of that supervisor.
//! - **Balance**: the workers of a topology are spread evenly over hosts, then over supervisors;
//!   the tasks of each component are spread evenly over new workers.
//! - **Fairness**: when slots run short, the next one goes to the topology with the fewest
//!   workers, the oldest of them first.
//! - **Failures**: a supervisor on which workers did not come up or did not stay up is tried last.
//! - **Resources**: a task that requests memory or CPU is added only where a supervisor with a declared
//!   capacity has them left; a running task stays. Without requests, or without capacities, the
//!   placement is the same as if there were no resources.
//!
//! [`check::violations`] returns all violations of a solution; nimbus runs it before it writes a plan, and
//! the tests run it on every solution.

pub mod check;
pub mod failures;
pub mod problem;
mod room;
mod slots;
pub mod solve;

pub use failures::Failures;
pub use problem::{
    Keep, Placement, Problem, Solution, Standing, Supervisor, TopologyDemand, Unplaced, UnplacedReason,
};
pub use solve::solve;

#[cfg(test)]
mod resource_tests;
#[cfg(test)]
mod tests;

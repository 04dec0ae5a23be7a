//! What a process does on a plan while a run is measured, one file for each kind of work.
//!
//! An activity takes its planned times from a pacer, whatever the servers do, and acts on the fleet. Responses come back to
//! `clients`, which keeps the counts; an activity that waits for some of them looks there.
//! Imports `generator`'s fleet, calls and pacer, and `scenario`.

mod activity;
mod call;
mod cancel;
mod churn;
mod publish;
mod storm;

use crate::scenario::Scenario;

use super::fleet::Fleet;
use super::pacer::Schedule;

pub(crate) use activity::Activity;

/// Those that a scenario has, for this process' part of it.
pub(crate) fn of(scenario: &Scenario, fleet: &Fleet, schedule: &Schedule) -> Vec<Box<dyn Activity>> {
    let (start, end) = (schedule.start, schedule.end());
    let mut activities: Vec<Box<dyn Activity>> = Vec::new();
    if let Some(publishing) = publish::Publishing::new(scenario, fleet, schedule.clone()) {
        activities.push(Box::new(publishing));
    }
    if let Some(calling) = call::Calling::new(scenario, fleet, schedule.clone()) {
        activities.push(Box::new(calling));
    }
    if let Some(cancelling) = cancel::Cancelling::new(scenario, fleet, start, end) {
        activities.push(Box::new(cancelling));
    }
    activities.push(Box::new(churn::Churning::new(scenario, fleet, schedule)));
    activities.push(Box::new(storm::Storming::new(scenario, start, end)));
    activities
}

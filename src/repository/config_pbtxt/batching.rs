//! `dynamic_batching`: how requests share runs.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::text::Field;
use super::{Reading, message, number};
use crate::model::LONGEST_DELAY;

impl Reading<'_> {
    pub(super) fn batching(&mut self, field: &Field) -> Result<(), String> {
        for field in &message(field)?.0 {
            match field.name.as_str() {
                "max_queue_delay_microseconds" => {
                    let delay = Duration::from_micros(count(field)?);
                    if delay > LONGEST_DELAY {
                        return Err(format!("{}: a minute at most", field.name));
                    }
                    self.settings.batching.max_delay = delay;
                }
                "default_priority_level" => {
                    let priority = u32::try_from(count(field)?);
                    let priority = priority.map_err(|_| format!("{}: too large", field.name))?;
                    self.settings.default_priority = NonZeroU32::new(priority);
                }
                "default_queue_policy" => self.queue_policy(field)?,
                // Any number of levels is served, and requests of one level in the order in which they came.
                "priority_levels" | "preserve_ordering" => {}
                "preferred_batch_size" => self.warn(
                    "dynamic_batching.preferred_batch_size",
                    "batches are as large as is measured to be worth it",
                ),
                "priority_queue_policy" => self.warn(
                    "dynamic_batching.priority_queue_policy",
                    "there is one queue, whatever the priority",
                ),
                other => return Err(format!("there is no field '{other}'")),
            }
        }
        Ok(())
    }

    fn queue_policy(&mut self, field: &Field) -> Result<(), String> {
        for field in &message(field)?.0 {
            match field.name.as_str() {
                // None is no bound in Triton; here it is the usual one.
                "max_queue_size" => {
                    let size = usize::try_from(count(field)?).unwrap_or(usize::MAX);
                    self.settings.queue_capacity = NonZeroUsize::new(size);
                }
                "timeout_action" | "default_timeout_microseconds" | "allow_timeout_override" => {
                    let name = format!("dynamic_batching.default_queue_policy.{}", field.name);
                    self.warn(&name, "requests have the deadline that they or the server name");
                }
                other => return Err(format!("there is no field '{other}'")),
            }
        }
        Ok(())
    }
}

fn count(field: &Field) -> Result<u64, String> {
    let given = number(field)?;
    u64::try_from(given).map_err(|_| format!("{}: expected 0 or more, got {given}", field.name))
}

//! What a version has done, as its message.

use super::proto::{InferStatistics, MemoryUsage, ModelStatistics, StatisticDuration};
use crate::oip::statistics::{Counted, Statistics};

impl From<Statistics> for ModelStatistics {
    fn from(told: Statistics) -> Self {
        let spent = |counted: Counted| {
            Some(StatisticDuration { count: counted.count, ns: counted.nanoseconds })
        };
        let inference_stats = InferStatistics {
            success: spent(told.success),
            fail: spent(told.fail),
            queue: spent(told.queue),
            compute_input: spent(told.compute_input),
            compute_infer: spent(told.compute_infer),
            compute_output: spent(told.compute_output),
            cache_hit: spent(Counted::default()),
            cache_miss: spent(Counted::default()),
        };
        let memory = MemoryUsage { r#type: "CPU".to_owned(), id: 0, byte_size: told.memory };
        Self {
            name: told.name,
            version: told.version,
            last_inference: told.last_inference,
            inference_count: told.inference_count,
            execution_count: told.execution_count,
            inference_stats: Some(inference_stats),
            memory_usage: vec![memory],
            ..Self::default()
        }
    }
}

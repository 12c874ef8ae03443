//! What a version has done, as its message.

use super::proto::{
    InferBatchStatistics, InferStatistics, MemoryUsage, ModelStatistics, StatisticDuration,
};
use crate::oip::statistics::{Compute, Counted, Statistics};

impl From<Statistics> for ModelStatistics {
    fn from(told: Statistics) -> Self {
        let inference_stats = InferStatistics {
            success: spent(told.success),
            fail: spent(told.fail),
            queue: spent(told.queue),
            compute_input: spent(told.compute.input),
            compute_infer: spent(told.compute.infer),
            compute_output: spent(told.compute.output),
            cache_hit: spent(told.cache_hit),
            cache_miss: spent(told.cache_miss),
        };
        let memory = MemoryUsage { r#type: "CPU".to_owned(), id: 0, byte_size: told.memory };
        Self {
            name: told.name,
            version: told.version,
            last_inference: told.last_inference,
            inference_count: told.inference_count,
            execution_count: told.execution_count,
            inference_stats: Some(inference_stats),
            batch_stats: told.batches.into_iter().map(InferBatchStatistics::from).collect(),
            memory_usage: vec![memory],
            ..Self::default()
        }
    }
}

impl From<(u64, Compute)> for InferBatchStatistics {
    fn from((batch_size, Compute { input, infer, output }): (u64, Compute)) -> Self {
        Self {
            batch_size,
            compute_input: spent(input),
            compute_infer: spent(infer),
            compute_output: spent(output),
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "messages may lack a message")]
fn spent(Counted { count, nanoseconds }: Counted) -> Option<StatisticDuration> {
    Some(StatisticDuration { count, ns: nanoseconds })
}

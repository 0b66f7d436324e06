//! Waiting for a block, as a task of the core.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Core;
use crate::buf::{Block, GetBlock};

impl Future for GetBlock {
    type Output = Block;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Block> {
        Core::with(|core| {
            if core.budget.poll(cx).is_pending() {
                return Poll::Pending;
            }
            if let Some(block) = self.take(&core.blocks) {
                core.budget.spend();
                return Poll::Ready(block);
            }
            if self.wait(&core.blocks, cx.waker()) {
                core.shared.counters.block_waits.add(1);
            }
            Poll::Pending
        })
    }
}

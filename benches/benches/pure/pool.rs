//! Blocks of a node's pool. Left out, with the reason, where the machine refuses the pool.

use annulus::numa::plan::{CorePlan, CoreSelection};
use annulus::numa::pool::{Blocks, NodePool};
use annulus::numa::topology::Topology;
use criterion::Criterion;

const BLOCK: usize = 4096;

pub(crate) fn bench(c: &mut Criterion) {
    let mut blocks = match blocks() {
        Ok(blocks) => blocks,
        Err(e) => return eprintln!("pool: left out: {e}"),
    };
    c.bench_function("pool/take and give a block", |b| {
        b.iter(|| {
            if let Some(block) = blocks.take() {
                // SAFETY: it was taken from these very blocks, and nothing uses it any more.
                unsafe { blocks.give(block) };
            }
        });
    });
}

fn blocks() -> Result<Blocks, Box<dyn std::error::Error>> {
    let plan = CorePlan::new(&Topology::discover()?, &CoreSelection::All)?;
    let core = plan.cores().first().ok_or("no core")?;
    let pool = NodePool::new(std::slice::from_ref(core), 1 << 20)?;
    let carved = pool.take_share(core.cpu).and_then(|mut share| share.carve(64 * BLOCK, BLOCK));
    Ok(Blocks::new(carved.ok_or("no share of the pool")?, BLOCK))
}
